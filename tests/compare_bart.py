"""Temporal TV of several coils against that of BART, at the same objective.

    PYTHONPATH=. python tests/compare_bart.py [n_samples]

Needs the command `bart` (Debian: apt install bart), which nothing else here does. Phantoms with 8
coils, noise 0.005 and acceleration 8 are reconstructed by both with the same maps and the same
weight of `|A m - y|^2 / 2 + weight |D m|_1`, D the cyclic difference between frames.

M. Uecker et al., "Berkeley Advanced Reconstruction Toolbox", ISMRM 2015, 2486.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from methods.baselines import temporal_tv
from metrics import psnr
from phantom.cached import load_phantom
from physics.fourier import fftc
from physics.sense import aliased_by, data_consistency
from training.acquisition import Acquisition
from training.batches import Batch, EvaluationBatches

ACQUISITION = Acquisition((8, 8), 10, phase=True, noise=0.005, data_seed=1, coils=8)
WEIGHTS = (0.002, 0.004)
STEPS = 300  # of both
TIME, COIL = 10, 3  # of BART's 16 dimensions; readout and line are the first two


def save(path: Path, array: np.ndarray) -> None:
    """A BART file of an array, which has BART's dimensions."""
    dims = " ".join(map(str, array.shape))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{dims}\n")
    array.astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


def load(path: Path) -> np.ndarray:
    """The array of a BART file."""
    dims = [int(n) for n in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    return np.fromfile(path.with_suffix(".cfl"), np.complex64).reshape(dims, order="F")


def as_bart(array: Tensor, axes: str) -> np.ndarray:
    """An array with axes such as "tcyx" in BART's dimensions."""
    places = {"x": 0, "y": 1, "c": COIL, "t": TIME}
    ordered = sorted(axes, key=lambda axis: places[axis])
    values = array.numpy().transpose([axes.index(axis) for axis in ordered])
    shape = [1] * 16
    for axis, n in zip(ordered, values.shape, strict=True):
        shape[places[axis]] = n
    return values.reshape(shape)


def bart_tv(batch: Batch, weight: float) -> Tensor:
    """The images (1, T, Y, X) of BART's `pics` with total variation over time."""
    assert batch.maps is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kspace = fftc(batch.aliased)[0] * batch.mask[0, :, None]
        save(folder / "kspace", as_bart(kspace, "tcyx"))
        save(folder / "maps", as_bart(batch.maps[0], "cyx"))
        subprocess.run(
            ["bart", "pics", "-w", "1", "-i", str(STEPS), "-R", f"T:{1 << TIME}:0:{weight}",
             "kspace", "maps", "images"],
            cwd=folder, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        images = load(folder / "images").squeeze()  # (X, Y, T)
    return torch.from_numpy(np.ascontiguousarray(images.transpose(2, 1, 0)))[None]


def objective(batch: Batch, images: Tensor, weight: float) -> float:
    """What both minimise."""
    assert batch.maps is not None
    residual = aliased_by(images, batch.mask, batch.maps) - batch.aliased
    variation = (images.roll(-1, 1) - images).abs().sum()
    return (residual.abs().square().sum() / 2 + weight * variation).item()


def main(n_samples: int) -> None:
    if shutil.which("bart") is None:
        raise SystemExit("compare_bart.py: the command bart is not installed: apt install bart")
    images = torch.from_numpy(load_phantom(n_samples, seed=ACQUISITION.data_seed))
    batches = EvaluationBatches(images, range(n_samples), ACQUISITION, 1)
    print("sample  weight      ours: dB  objective  seconds      bart: dB  objective  seconds")
    differences = []
    for batch in batches:
        for weight in WEIGHTS:
            results = []
            for method in (
                lambda b, w: temporal_tv(data_consistency(*b.measured), w, STEPS),
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


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
