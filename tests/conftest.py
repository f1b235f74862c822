"""Fixtures: tiny seeded cine data, and the real command at a tiny scale."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

import cache
from settings import as_flags

matplotlib.use("agg")
ROOT = Path(__file__).resolve().parent.parent

# what makes a run tiny: fits the data of `tiny_images`
TINY = {
    "in_channels": 8,
    "out_channels": 8,
    "init_features": 2,
    "num_epochs": 4,
    "batch_size": 2,
    "acc": 4,
    "sample_n": 4,
    "num_pictures": 1,
    "picture_dpi": 40,
    "device": "cpu",
    "baselines": ("zero_filled", "time_average", "view_sharing"),
}


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


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return make_images()


@pytest.fixture(scope="session")
def tiny_npz(tmp_path_factory, images) -> Path:
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(path, dataset=images)
    return path


@pytest.fixture(scope="session", autouse=True)
def baseline_cache(tmp_path_factory):
    """A cache of the tests' own, in this process."""
    cache.CACHE = tmp_path_factory.mktemp("baseline_cache")


@pytest.fixture
def target(images) -> torch.Tensor:
    return torch.from_numpy(images[:3])


def command(output_folder: Path, **settings) -> list[str]:
    script = [sys.executable, "-W", "error", str(ROOT / "train.py")]
    return [*script, str(output_folder), *as_flags(settings)]


@pytest.fixture
def run_command(tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """Run `python train.py` for real, in an empty working folder."""

    def run(output_folder: Path, extra: Sequence[str] = (), **settings):
        return subprocess.run(
            [*command(output_folder, **settings), *extra],
            cwd=tmp_path,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "agg"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
