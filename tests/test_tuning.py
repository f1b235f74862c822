import json

import pytest
import torch
from test_batches import example

import tuning
from baselines import BASELINES
from batches import evaluation_batches
from metrics import psnr


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "CACHE", tmp_path / "cache")
    run = example(real_image=True, baselines=None)
    run.cine.hashes = [f"hash{i}" for i in range(9)]
    return run


def mean_psnr(run, name, parameters) -> float:
    samples = run.parts["train"][: tuning.N_TUNING]
    scores = [
        psnr(tuning.reconstruct(run, name, parameters, b.aliased, b.mask).abs(), b.target)
        for b in evaluation_batches(run, samples, (4, 4))
    ]
    return torch.cat(scores).mean().item()


def test_the_best_of_the_grid_is_found(run):
    found = tuning.tuned_parameters(run, "temporal_tv", 4)
    best = max(
        BASELINES["temporal_tv"].grid["bound"],
        key=lambda bound: mean_psnr(run, "temporal_tv", {"bound": bound}),
    )
    assert found == {"bound": best}


def test_only_training_samples_are_looked_at(run):
    found = tuning.tuned_parameters(run, "kt_sparse", 4)
    run.cine.images[4:] = 0  # validation, test and the training samples beyond the first ones
    tuning.CACHE = tuning.CACHE.with_name("other")
    assert tuning.tuned_parameters(run, "kt_sparse", 4) == found


def test_without_training_samples_the_usual_values_are_taken_and_said(run):
    run.parts["train"] = []
    assert tuning.tuned_parameters(run, "kt_sparse", 4) == BASELINES["kt_sparse"].usual
    (line,) = tuning.describe_baselines(run, ["zero_filled", "kt_sparse"], [4])
    assert line.startswith("kt_sparse, acceleration 4: threshold 0.04")
    assert "usual values" in line


def test_a_second_search_is_not_made(run, monkeypatch):
    found = tuning.tuned_parameters(run, "low_rank_sparse", 4)
    monkeypatch.setattr(tuning, "_search", None)
    assert tuning.tuned_parameters(run, "low_rank_sparse", 4) == found
    (line,) = tuning.describe_baselines(run, ["low_rank_sparse"], [4])
    assert "the best on training samples 0, 1, 2, 3 of low_rank 0.025 0.05" in line


@pytest.mark.parametrize(
    "change",
    [{"noise": 0.1}, {"phase": True}, {"data_seed": 1}, {"sample_n": 2}, {"real_image": False}],
)
def test_other_data_or_masks_have_scores_of_their_own(run, change):
    before = tuning.scores_identity(run, "zero_filled", 4)
    tuning.remember(before, [1])
    assert tuning.recall(before) == [1]
    for name, value in change.items():
        setattr(run.settings, name, value)
    assert tuning.recall(tuning.scores_identity(run, "zero_filled", 4)) is None


def test_other_samples_accelerations_and_methods_have_scores_of_their_own(run):
    tuning.remember(tuning.scores_identity(run, "zero_filled", 4), [1])
    assert tuning.recall(tuning.scores_identity(run, "zero_filled", 6)) is None
    assert tuning.recall(tuning.scores_identity(run, "time_average", 4)) is None
    run.cine.hashes[8] = "other"
    assert tuning.recall(tuning.scores_identity(run, "zero_filled", 4)) is None


def test_a_damaged_or_unwritable_cache_is_only_a_cache(run, tmp_path):
    identity = tuning.scores_identity(run, "zero_filled", 4)
    tuning.remember(identity, [{"psnr": 1.25}])
    (file,) = tuning.CACHE.iterdir()
    assert json.loads(file.read_text())["identity"]["method"] == "zero_filled"
    file.write_text("{")
    assert tuning.recall(identity) is None
    (tmp_path / "file").write_text("")
    tuning.CACHE = tmp_path / "file" / "cache"
    tuning.remember(identity, [1])
    assert tuning.recall(identity) is None


def test_the_prior_decides_which_methods_there_are(run):
    assert tuning.chosen_baselines(run) == list(BASELINES)
    run.settings.real_image = False
    assert "hermitian" not in tuning.chosen_baselines(run)
    assert {"zero_filled", "view_sharing", "kt_sparse"} <= set(tuning.chosen_baselines(run))
    run.settings.baselines = ("kt_sparse", "zero_filled")
    assert tuning.chosen_baselines(run) == ["zero_filled", "kt_sparse"]
