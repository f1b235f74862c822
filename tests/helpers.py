"""What tests share: tiny seeded cine data, and the real command at a tiny scale."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from ablation.results import Result, read_result
from CS_mask import Sampling
from data.quality import Quality, measure
from dataset import Cine, load_cine
from metrics import SCORES
from training import checkpoint as ckpt
from training.run_folder import HISTORY, write_config, write_metrics
from util.command_line import as_flags
from util.files import read_csv, write_csv

ROOT = Path(__file__).resolve().parent.parent

# what makes a run tiny: fits the data of `make_images`
TINY = {
    "in_channels": 8,
    "out_channels": 8,
    "init_features": 2,
    "num_epochs": 4,
    "batch_size": 2,
    "acc": 4,
    "sample_n": 4,
    "num_pictures": 0,
    "picture_dpi": 40,
    "arrays": "all",
    "device": "cpu",
    "precision": "float32",
    "baselines": ("zero_filled", "time_average", "view_sharing"),
}

# the same for `experiments()`
SMALL = {
    k: v for k, v in TINY.items() if k not in ("num_pictures", "picture_dpi", "precision", "arrays")
}

METHODS = ["unet_resnet", *TINY["baselines"]]
CASCADE = TINY | {
    "model": "cascade",
    "start": "kt_sparse",  # fast
    "stages": 2,
    "features": 4,
    "strip": 16,
    "augment": ("flips", "time"),
    "loss": "l1",
    "ema": 0.9,
    "initial_lr": 5e-3,
    "clip_gradient": 1.0,
}

# a U-Net for 8 frames
UNET = {
    "in_channels": 8,
    "out_channels": 8,
    "init_features": 2,
    "dropout": 0.0,
    "batch_norm": True,
    "data_consistency": True,
    "branches": "separate",
    "attention": False,
}

# a cascade
STAGES = {
    "stages": 2,
    "features": 16,
    "real_image": True,
    "dc_weight": None,
    "learn_dc_weight": False,
    "start": "kt_sparse",
}

# scores of two methods on two samples: both have a mean of 2
ROWS = [
    {"sample": sample, "acc": 6, "method": method, **dict.fromkeys(SCORES, value)}
    for sample, method, value in [(0, "a", 1.0), (0, "b", 2.0), (1, "a", 3.0), (1, "b", 2.0)]
]


def make_images(n_samples: int = 9, n_frames: int = 8, ny: int = 32, nx: int = 36) -> np.ndarray:
    """(n, T, Y, X) float32 in [0, 1]: a beating disc on a still texture, each sample its own."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:ny, :nx]
    phase = 2 * np.pi * np.arange(n_frames)[:, None, None] / n_frames
    images = []
    for _ in range(n_samples):
        centre_y, centre_x = rng.uniform(0.35, 0.65, 2) * (ny, nx)
        radius = 0.2 * ny * (1 + 0.25 * np.cos(phase + rng.uniform(0, 6)))
        disc = 1 / (1 + np.exp(np.hypot(y - centre_y, x - centre_x) - radius))
        texture = rng.uniform(0, 0.4, (ny, nx))
        images.append(0.6 * disc + texture)
    return np.stack(images).astype(np.float32)


def quality_of(images: torch.Tensor) -> Quality:
    """The measured properties of images (N, T, Y, X)."""
    return Quality.of([measure(sample) for sample in images])


def blurred(images: np.ndarray) -> torch.Tensor:
    """Images (..., Y, X) whose k-space falls off up to its corners, where noise shows least."""
    y, x = (torch.fft.fftfreq(n) for n in images.shape[-2:])
    spectrum = torch.fft.fft2(torch.from_numpy(images))
    falling = torch.exp(-4 * (y[:, None].square() + x.square()))
    return torch.fft.ifft2(spectrum * falling).real.clamp(min=0)


def load(path, **changes) -> Cine:
    """The data of a file, with some arguments of `load_cine` changed."""
    given = {"n_samples": None, "complex_pairs": False, "normalise": False}
    return load_cine(str(path), **given | {"n_frames": 8, "data_seed": 0} | changes)


def full_disk(*arguments, **keywords) -> None:
    """Stands for a function that writes."""
    raise OSError(28, "No space left on device")


def sampling(acc: float, centre_lines: int = 4) -> Sampling:
    return Sampling(("gaussian",), (acc, acc), (centre_lines,))


def random_complex(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.manual_seed(seed))


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    """The network with no layer left at zero."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network


def command(output_folder: Path, **settings) -> list[str]:
    """The words of `python train.py output_folder ...`, with warnings as errors."""
    script = [sys.executable, "-W", "error", str(ROOT / "train.py")]
    return [*script, str(output_folder), *as_flags(settings)]


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's `metrics.csv`, every cell as text."""
    return read_csv(folder / "metrics.csv")


def report_of(folder: Path) -> str:
    """A run's `output.txt`, the continuations of long lines joined to them."""
    return re.sub(r"\n    +(?=\S)", " ", (folder / "output.txt").read_text())


def save_result(
    folder, psnr, settings=None, groups=None, accelerations=(6,), baseline=25.0
) -> Result:
    """A finished run: `psnr` of each test sample; the samples 0 and 1 are of the other parts."""
    folder.mkdir(parents=True)
    samples = list(range(2, 2 + len(psnr)))
    stored = {"split": (1, 1, len(psnr)), "model": "unet", "seed": 0, "real_image": True}
    config = {
        "settings": stored | (settings or {}),
        "versions": {"torch": "2"},
        "git_commit": "c0ffee",
        "data": {"source": "some", "shape": [9, 8, 32, 36], "hash": "abc", "groups": groups},
        "split": {"train": [0], "validation": [1], "test": samples},
        "parameters": 1234,
        "device": "cpu (1 thread)",
    }
    write_config(folder, config)
    rows = [
        dict.fromkeys(SCORES, 0.5)
        | {"sample": sample, "acc": acc, "method": method, "psnr": value + acc - 6}
        for acc in accelerations
        for sample, own in zip(samples, psnr, strict=True)
        for method, value in (("unet", own), ("zero_filled", 20.0), ("view_sharing", baseline))
    ]
    write_metrics(folder, rows)
    history = [
        {"epoch": 1, "train/loss": 0.1, "learning_rate": 1e-4, "seconds": 30.0, "peak_memory": 2e9},
        {"epoch": 2, "train/loss": 0.1, "learning_rate": 1e-4, "seconds": 60.0, "peak_memory": 1e9},
    ]
    write_csv(folder / HISTORY, history)
    return read_result(folder)


def experiments_table(folder: Path) -> list[dict[str, str]]:
    """`experiments.csv` without what is measured anew by every run."""
    with (folder / "experiments.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k not in ("minutes", "peak_memory")}
            for row in csv.DictReader(file)
        ]


class FakeProcess:
    """Stands for a process that is alive for so many looks, and then ends with `status`."""

    def __init__(self, status: int, looks: float = 0):
        self.status, self.looks = status, looks
        self.returncode: int | None = None

    def poll(self) -> int | None:
        self.looks -= 1
        return self.returncode if self.looks >= 0 else self.wait()

    def wait(self) -> int:
        self.returncode = self.status
        return self.status

    def terminate(self) -> None:
        self.status = 75


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def error_of(done: subprocess.CompletedProcess, status: int = 2) -> str:
    """The one line that a failed command prints."""
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def copy_run(trained, folder):
    """A copy of an unfinished run, of what it needs to go on."""
    folder.mkdir()
    for name in ("config.json", ckpt.BEST, ckpt.LAST):
        (folder / name).write_bytes((trained / name).read_bytes())
    return folder
