"""Data that stay in their file."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, TINY, load, rows_of

import dataset
from data.samples import MappedImages
from train import train
from util.errors import InputError


@pytest.fixture(autouse=True)
def mapped(monkeypatch):
    """Every uncompressed file counts as large."""
    monkeypatch.setattr(dataset, "MAPPED_FROM", 0)


def both(path, monkeypatch, **changes):
    """The data mapped, and held."""
    mapped = load(path, **changes)
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "MAPPED_FROM", np.inf)
        return mapped, load(path, **changes)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("dtype", ["f4", ">f8", "f2", "c8", "c16", "u1"])
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_mapped_images_are_those_held(tmp_path, monkeypatch, images, dtype, kind, normalise):
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
    assert mapped.hashes == held.hashes
    assert torch.equal(mapped.quality.thumbnails, held.quality.thumbnails)
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
    first = load(path)
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "take", lambda *a: pytest.fail("was read again"))
        again = load(path)
        assert again.hashes == first.hashes
        assert again.quality.peaks.tolist() == first.quality.peaks.tolist()
        with pytest.raises(pytest.fail.Exception):
            load(path, normalise=True)
    about = path.stat()
    np.save(path, images[::-1])
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # as old as before, as large
    assert load(path).hashes == first.hashes[::-1]


@pytest.mark.parametrize("change", ["in place", "shorter", "another", "removed"])
def test_a_mapped_file_that_changes_while_it_is_in_use_is_noticed(tmp_path, images, change):
    path = tmp_path / "some.npy"
    np.save(path, images)
    cine, about = load(path), path.stat()
    assert torch.equal(cine.images[1], torch.from_numpy(images[1]))
    if change == "in place":
        with path.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\0\0\0\0")
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    elif change == "shorter":
        os.truncate(path, about.st_size // 2)
    elif change == "another":
        np.save(tmp_path / "other.npy", images[::-1])
        (tmp_path / "other.npy").replace(path)
    else:
        path.unlink()
    with pytest.raises(InputError, match="was changed or removed while it was in use"):
        cine.images[1]


def test_a_run_on_a_mapped_file_gives_the_same_bits(tmp_path, finished, tiny_npz):
    assert train(tmp_path / "mapped", data=str(tiny_npz), **TINY) == finished[1]
    assert rows_of(tmp_path / "mapped") == rows_of(finished[0])


LIMITED = """
import resource, sys
from pathlib import Path
import dataset
from CS_mask import Sampling
from data.acquisition import Acquisition
from data.batches import TrainingDraws, training_batch
from util.errors import InputError

path, allowed = sys.argv[1], int(sys.argv[2])
used = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line]
limit = int(used[0].split()[1]) * 1024 + allowed
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
given = path, None, False, False, 8, 0
try:
    dataset.MAPPED_FROM = float("inf")
    dataset.load_cine(*given)
    sys.exit("it was held")
except InputError as error:
    assert "GB are free: save it with np.savez, uncompressed" in str(error), error
dataset.MAPPED_FROM = 0
images = dataset.load_cine(*given).images
acquisition = Acquisition(Sampling(("gaussian",), (4, 4), (4,)), False, 0.0, 0)
draws = TrainingDraws(0, 0, ("flips",), 32)
for i in range(len(images)):
    batch = training_batch(images, [(0, i)], acquisition, draws, "cpu")
print(len(images), float(batch.image.max()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_data_need_less_memory_than_their_file(tmp_path):
    size, allowed = (120, 20, 192, 192), 200_000_000
    path = tmp_path / "large.npy"
    array = np.lib.format.open_memmap(path, "w+", np.float32, size)  # 354 MB, mostly of no bytes
    array[:, :, 50:100, 50:100] = np.linspace(0.5, 1, 20, dtype=np.float32)[:, None, None]
    array.flush()
    assert path.stat().st_size > 1.5 * allowed
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(allowed)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "120 1.0"
