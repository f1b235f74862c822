"""Fixtures: tiny seeded cine data, a cache of the tests' own, and the real command."""

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from forked import Command
from helpers import TINY, make_images

from train import train
from util.command_line import as_flags
from util.errors import Interrupted

matplotlib.use("agg")

GPU_TESTS = Path(__file__).parent / "gpu"


def pytest_addoption(parser):
    parser.addoption(
        "--gpu", nargs="?", const="cuda", metavar="DEVICE",
        help="only the tests of tests/gpu, in one process, on this device (default: cuda)",
    )  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    if device := config.getoption("--gpu"):
        if not re.fullmatch(r"\w+(:\d+)?", device):  # a path, which is for pytest
            raise pytest.UsageError(f"--gpu {device} is no device: write --gpu=cuda before paths")
        config.option.numprocesses = 0
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before anything asks CUDA


def pytest_collection_modifyitems(config, items):
    """With `--gpu` the tests of that folder, else the others."""
    wanted = bool(config.getoption("--gpu"))
    others = [item for item in items if (GPU_TESTS in item.path.parents) is not wanted]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]


@pytest.fixture(scope="session", autouse=True)
def threads():
    """The cores, shared out among the processes that run tests, and among their commands."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    n_threads = max(1, (os.cpu_count() or 1) // processes)
    os.environ["OMP_NUM_THREADS"] = str(n_threads)
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return make_images()


@pytest.fixture(scope="session")
def tiny_npz(tmp_path_factory, images) -> Path:
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(path, dataset=images)
    return path


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """A cache of the tests' own, in this process and in those that it starts."""
    os.environ["CINE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def target(images) -> torch.Tensor:
    return torch.from_numpy(images[:3])


@pytest.fixture
def run_command(tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """Run `python train.py` for real, in an empty working folder."""

    def run(output_folder: Path, extra: Sequence[str] = (), **settings):
        words = [output_folder, *as_flags(settings), *extra]
        return Command("train.py", words, tmp_path).finished()

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_npz):
    """A finished tiny run: its folder, and what `train()` returned."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, train(str(folder), data=str(tiny_npz), **TINY | {"num_pictures": 1})


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_npz):
    """The folder of the same run, stopped before its test."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(Interrupted):
        train(folder, data=tiny_npz, **TINY | {"num_pictures": 1}, max_steps=12)
    return folder
