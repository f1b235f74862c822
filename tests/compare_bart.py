"""Training-free methods against those of BART.

    PYTHONPATH=. python tests/compare_bart.py tv [n_samples]
    PYTHONPATH=. python tests/compare_bart.py best [n_samples] [data.npz]

Needs the command `bart` (Debian: apt install bart), which nothing else here does.

`tv`: temporal TV of several coils at the same objective. Phantoms with 8 coils, noise 0.005 and
acceleration 8 are reconstructed by both with the same maps and the same weight of
`|A m - y|^2 / 2 + weight |D m|_1`, D the cyclic difference between frames.

`best`: the patch methods, tuned on training samples as in `train.py`, against BART's `pics` with
locally low rank, with wavelets in space, and in space and time, all with the real-image prior
(`-c`), of one coil, at acceleration 6. BART's methods are tried with several weights, on the test
samples themselves.

M. Uecker et al., "Berkeley Advanced Reconstruction Toolbox", ISMRM 2015, 2486.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from CS_mask import Sampling
from data.acquisition import Acquisition
from data.batches import Batch, EvaluationBatches
from data.split import split_samples
from dataset import PHANTOM, load_cine
from evaluation.tuning import N_TUNING, tune
from formats.bart import TIME, bart_pair, bart_variable, in_dimensions
from methods.baselines import baseline, temporal_tv
from metrics import moving_psnr, psnr, ssim
from phantom.cached import load_phantom
from physics.fourier import fftc
from physics.sense import aliased_by, measurement_of

ACQUISITION = Acquisition(
    Sampling(("gaussian",), (8, 8), (10,)), phase=True, noise=0.005, data_seed=1, coils=8
)
WEIGHTS = (0.002, 0.004)
STEPS = 300  # of both
ONE_COIL = Acquisition(Sampling(("gaussian",), (6, 6), (10,)), phase=False, noise=0.0, data_seed=0)
RULES = {  # of BART: its regularisation, and its weights
    "locally low rank, 8 x 8": ("-R L:7:7:{} -b 8", (0.0001, 0.0002, 0.0005, 0.001)),
    "wavelets in space": ("-R W:3:0:{}", (0.0005, 0.002, 0.008)),
    "wavelets in space and time": ("-R W:1027:0:{}", (0.0005, 0.002, 0.008)),
}


def save(path: Path, array: np.ndarray, axes: str) -> None:
    """A BART file of an array with axes such as "tcyx"."""
    for name, content in bart_pair(path.name, in_dimensions(array, axes)).items():
        path.with_name(name).write_bytes(content)


def bart_tv(batch: Batch, weight: float) -> Tensor:
    """The images (1, T, Y, X) of BART's `pics` with total variation over time."""
    return pics(batch, ["-i", str(STEPS), "-R", f"T:{1 << TIME}:0:{weight}"])


def pics(batch: Batch, options: list[str]) -> Tensor:
    """The images (1, T, Y, X) of BART's `pics`; of one coil with a map of ones."""
    n_lines, n_columns = batch.mask.shape[2], batch.image.shape[-1]
    maps, aliased = batch.maps, batch.aliased
    if maps is None:
        maps = torch.ones(1, 1, n_lines, n_columns, dtype=torch.complex64)
        aliased = aliased[:, :, None]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kspace = fftc(aliased)[0] * batch.mask[0, :, None]
        save(folder / "kspace", kspace.numpy(), "tcyx")
        save(folder / "maps", maps[0].numpy(), "cyx")
        subprocess.run(
            ["bart", "pics", "-w", "1", *options, "kspace", "maps", "images"],
            cwd=folder, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        images = bart_variable(folder / "images.cfl")[0].whole().squeeze()  # (X, Y, T)
    return torch.from_numpy(np.ascontiguousarray(images.transpose(2, 1, 0)))[None]


def objective(batch: Batch, images: Tensor, weight: float) -> float:
    """What both minimise."""
    assert batch.maps is not None
    residual = aliased_by(images, batch.mask, batch.maps) - batch.aliased
    variation = (images.roll(-1, 1) - images).abs().sum()
    return (residual.abs().square().sum() / 2 + weight * variation).item()


def compare_tv(n_samples: int) -> None:
    images = torch.from_numpy(load_phantom(n_samples, seed=ACQUISITION.data_seed))
    batches = EvaluationBatches(images, range(n_samples), ACQUISITION, 1)
    print("sample  weight      ours: dB  objective  seconds      bart: dB  objective  seconds")
    differences = []
    for batch in batches:
        for weight in WEIGHTS:
            results = []
            for method in (
                lambda b, w: temporal_tv(measurement_of(*b.measured), w, STEPS),
                bart_tv,
            ):
                started = time.perf_counter()
                found = method(batch, weight)
                seconds = time.perf_counter() - started
                score = psnr(found.abs(), batch.target).item()
                results += [score, objective(batch, found, weight), seconds]
            differences.append(results[0] - results[3])
            row = "  ".join(f"{value:10.3f}" for value in results)
            print(f"{batch.samples[0]:6d}  {weight:6g}  {row}", flush=True)
    print(f"ours minus bart: {np.mean(differences):+.3f} dB, {np.min(differences):+.3f} to"
          f" {np.max(differences):+.3f}")  # fmt: skip


def compare_best(n_samples: int, data: str) -> None:
    """On the first samples of the test part."""
    cine = load_cine(data, 14 if data == PHANTOM else None, False, False, 20, 0)
    parts = split_samples(len(cine.images), (4, 1, 2), 0, cine.groups)
    training, test = (
        EvaluationBatches(cine.images, parts[part][:n], ONE_COIL, 1)
        for part, n in (("train", N_TUNING), ("test", n_samples))
    )
    print("PSNR, SSIM (3-D), moving PSNR, seconds")
    ours = {
        name: baseline(name, True, **tune(name, training, True))
        for name in ("patch_sparse", "patch_low_rank")
    }
    for batch in test:
        for name, method in ours.items():
            report(batch, name, lambda b, method=method: method(*b.measured))
        for name, (rule, weights) in RULES.items():
            for weight in weights:
                options = ["-c", "-i", str(STEPS), *rule.format(weight).split()]
                found = f"BART, {name}, {weight:g}"
                report(batch, found, lambda b, options=options: pics(b, options))


def report(batch: Batch, name: str, method: Callable[[Batch], Tensor]) -> None:
    """Print the scores of a method."""
    started = time.perf_counter()
    images = method(batch).abs()
    seconds = time.perf_counter() - started
    scores = [score(images, batch.target).item() for score in (psnr, ssim, moving_psnr)]
    text = "{:.2f}, {:.3f}, {:.2f}".format(*scores)
    print(f"{batch.samples[0]:4d}  {name:50s}  {text}, {seconds:.1f}", flush=True)


if __name__ == "__main__":
    if shutil.which("bart") is None:
        raise SystemExit("compare_bart.py: the command bart is not installed: apt install bart")
    kind, n, data = (sys.argv[1:] + ["tv", "2", PHANTOM][len(sys.argv) - 1 :])[:3]
    if kind == "tv":
        compare_tv(int(n))
    else:
        compare_best(int(n), data)
