"""Data that stay in their file."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, TINY, rows_of

import dataset
from dataset import load_cine
from formats.samples import MappedImages
from train import train
from training.quality import examine
from util.command_line import as_flags
from util.errors import InputError


@pytest.fixture(autouse=True)
def mapped(monkeypatch):
    """Every uncompressed file counts as large."""
    monkeypatch.setattr(dataset, "MAPPED_FROM", 0)


def load(path, **changes):
    given = {"n_samples": None, "complex_pairs": False, "normalise": False}
    return load_cine(str(path), **given | {"n_frames": 8, "data_seed": 0} | changes)


def both(path, monkeypatch, **changes):
    """The data mapped, and held."""
    mapped = load(path, examine=examine, **changes)
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "MAPPED_FROM", np.inf)
        return mapped, load(path, examine=examine, **changes)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("dtype", ["f4", ">f8", "f2", "c8", "c16", "u1"])
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_mapped_images_are_those_that_are_held(
    tmp_path, monkeypatch, images, dtype, kind, normalise
):
    values = images / images.max() if dtype != "u1" else (images > 0.5)
    path = tmp_path / f"some.{kind}"
    if kind == "npy":
        np.save(path, values.astype(dtype))
    else:
        np.savez(path, dataset=values.astype(dtype), groups=np.arange(9))
    mapped, held = both(path, monkeypatch, normalise=normalise, n_samples=7)
    assert isinstance(mapped.images, MappedImages)
    assert mapped.shape == held.shape
    assert mapped.images.is_complex() == held.images.is_complex()
    assert len(mapped.images) == 7
    assert torch.equal(torch.stack(list(mapped.images)), held.images)
    assert (mapped.hashes, mapped.findings) == (held.hashes, held.findings)
    assert torch.equal(mapped.images[-1], held.images[-1])
    with pytest.raises(IndexError):
        mapped.images[7]


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
def test_pairs_are_mapped_too(tmp_path, monkeypatch, images, dtype):
    path = tmp_path / "some.npy"
    np.save(path, (1000 * np.stack((images, images / 2), axis=-1)).astype(dtype))
    mapped, held = both(path, monkeypatch, complex_pairs=True, normalise=True)
    assert torch.equal(torch.stack(list(mapped.images)), held.images)
    assert mapped.hash == held.hash


def test_bad_values_are_found_in_a_mapped_file(tmp_path, images):
    path = tmp_path / "some.npy"
    np.save(path, images * 2)
    with pytest.raises(InputError, match=r"values lie in .* expected \[0, 1\]"):
        load(path)
    images = images.copy()
    images[3, 1, 2, 3] = np.nan
    np.save(path, images)
    with pytest.raises(InputError, match=r"1 values are NaN or infinite, the first at \(3, 1, 2"):
        load(path)


def test_a_file_is_checked_once_until_it_changes(tmp_path, monkeypatch, images):
    path = tmp_path / "some.npy"
    np.save(path, images)
    first = load(path, examine=examine)
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "take", lambda *a: pytest.fail("was read again"))
        again = load(path, examine=examine)
        assert (again.hashes, again.findings) == (first.hashes, first.findings)
        with pytest.raises(pytest.fail.Exception):
            load(path, examine=examine, normalise=True)
    about = path.stat()
    np.save(path, images[::-1])
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # as old as before, as large
    assert load(path, examine=examine).hashes == first.hashes[::-1]


def test_only_what_the_code_covers_is_remembered(tmp_path, images):
    path = tmp_path / "some.npy"
    np.save(path, images)
    assert load(path, examine=lambda sample: 1).findings == [1] * 9
    assert load(path, examine=lambda sample: 2).findings == [2] * 9


def test_a_run_on_a_mapped_file_gives_the_same_bits(tmp_path, monkeypatch, images):
    np.savez(tmp_path / "some.npz", dataset=images)
    settings = TINY | {"data": str(tmp_path / "some.npz")}
    train(tmp_path / "mapped", **settings)
    monkeypatch.setattr(dataset, "MAPPED_FROM", np.inf)
    train(tmp_path / "held", **settings)
    assert rows_of(tmp_path / "mapped") == rows_of(tmp_path / "held")


LIMITED = """
import resource, sys
from pathlib import Path
import dataset, train
dataset.MAPPED_FROM = float(sys.argv.pop(1))
used = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line]
limit = int(used[0].split()[1]) * 1024 + int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
sys.exit(train.main("train.py", train.from_command_line, ""))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_a_run_needs_less_memory_than_its_file(tmp_path):
    size, allowed = (200, 16, 192, 192), 650e6
    path = tmp_path / "large.npy"
    array = np.lib.format.open_memmap(path, "w+", np.float64, size)  # 944 MB
    rng = np.random.default_rng(0)
    for sample in array:
        sample[:] = rng.random((192, 192)) * np.linspace(0.8, 1, 16)[:, None, None]
    array.flush()
    assert path.stat().st_size > allowed
    changes = {"in_channels": 16, "out_channels": 16, "num_epochs": 1, "split": (96, 2, 2)}
    changes |= {"batch_size": 2, "num_pictures": 0, "baselines": ("zero_filled",)}
    settings = TINY | changes | {"data": str(path), "model": "unet"}

    def run(mapped_from: str, folder: str) -> subprocess.CompletedProcess:
        words = [mapped_from, str(int(allowed)), str(tmp_path / folder), *as_flags(settings)]
        command = [sys.executable, "-c", LIMITED, *words]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    held = run("inf", "held")
    assert held.returncode == 2, held.stdout
    assert "memory" in held.stderr
    done = run("0", "mapped")
    assert done.returncode == 0, done.stderr[-2000:]
    assert rows_of(tmp_path / "mapped")
