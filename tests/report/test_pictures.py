import torch
from helpers import sampling

from data.acquisition import Acquisition
from data.batches import EvaluationBatches
from evaluation.scoring import Scored
from metrics import moving_region
from report import pictures


def test_without_arrays_nothing_is_collected_but_what_is_drawn(target, tmp_path):
    batches = EvaluationBatches(
        target, range(3), Acquisition(sampling(4), phase=False, noise=0.0, data_seed=0), size=1
    )
    calls = []

    def method(aliased, mask):
        calls.append(len(aliased))
        return aliased

    gallery = pictures.Gallery(tmp_path, "mine", {"mine": method}, 2, "none", n_samples=3)
    for batch in batches:
        gallery.add(Scored(batch, {}, []))  # its scores were cached
    assert [batch.samples for batch, _ in gallery.drawn] == [[0], [1]]
    assert calls == [1, 1]
    gallery.arrays.close()
    assert list(tmp_path.iterdir()) == []


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
