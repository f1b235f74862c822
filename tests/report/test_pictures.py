import numpy as np
import pytest
import torch

from evaluation.scoring import Scored
from metrics import moving_region
from report import pictures
from training.batches import Acquisition, EvaluationBatches
from util.errors import InputError


def test_half_a_file_of_arrays_is_never_left(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures.Path, "replace", fail)
    with pytest.raises(InputError, match=r"reconstructions\.npz could not be written"):
        pictures.write_arrays(tmp_path, {"index": np.arange(3)})
    assert list(tmp_path.iterdir()) == []


def test_arrays_are_those_given_and_no_others(tmp_path):
    pictures.write_arrays(tmp_path, {"index": np.arange(3)})
    with np.load(tmp_path / "reconstructions.npz") as arrays:
        assert arrays.files == ["index"]


def test_without_arrays_nothing_is_collected_but_what_is_drawn(target):
    batches = EvaluationBatches(
        target, range(3), Acquisition((4, 4), 4, phase=False, noise=0.0, data_seed=0), size=1
    )
    calls = []

    def method(aliased, mask):
        calls.append(len(aliased))
        return aliased

    gallery = pictures.Gallery("mine", {"mine": method}, num_pictures=2, arrays="none")
    for batch in batches:
        gallery.add(Scored(batch, {}, []))  # its scores were cached
    assert [batch.samples for batch, _ in gallery.drawn] == [[0], [1]]
    assert calls == [1, 1]
    assert not gallery.arrays


def test_row_of_the_profile_crosses_the_moving_region(tmp_path, images, monkeypatch):
    rows = []
    monkeypatch.setattr(
        pictures.figures, "profiles_figure", lambda profiles, frame, row: rows.append(row)
    )
    monkeypatch.setattr(pictures, "write_figure", lambda *a: None)
    target = images[0]
    pictures.write_pictures(tmp_path, 0, target, {"zero_filled": target}, "zero_filled", 50)
    moving = moving_region(torch.from_numpy(target)[None])[0]
    assert moving[rows[0]].sum() == moving.sum(dim=-1).max() > 0
