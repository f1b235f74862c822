import pytest
import torch
from test_batches import example

import cache
import runtime
import tuning
from baselines import BASELINES
from batches import evaluation_batches
from metrics import psnr

GO_ON = runtime.StopRequest(None)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")
    run = example(real_image=True, baselines=None)
    run.cine.hashes = [f"hash{i}" for i in range(9)]
    return run


def mean_psnr(run, name, parameters) -> float:
    samples = run.parts["train"][: tuning.N_TUNING]
    method = tuning.baseline_method(run, name, parameters)
    scores = [
        psnr(method(b.aliased, b.mask).abs(), b.target)
        for b in evaluation_batches(run, samples, (4, 4))
    ]
    return torch.cat(scores).mean().item()


def test_the_best_of_the_grid_is_found(run):
    found = tuning.tuned_parameters(run, "temporal_tv", 4, GO_ON)
    best = max(
        BASELINES["temporal_tv"].grid["bound"],
        key=lambda bound: mean_psnr(run, "temporal_tv", {"bound": bound}),
    )
    assert found == {"bound": best}


def test_only_training_samples_are_looked_at(run, monkeypatch, tmp_path):
    found = tuning.tuned_parameters(run, "kt_sparse", 4, GO_ON)
    run.cine.images[4:] = 0  # validation, test and the training samples beyond the first ones
    monkeypatch.setattr(cache, "CACHE", tmp_path / "other")
    assert tuning.tuned_parameters(run, "kt_sparse", 4, GO_ON) == found


def test_without_training_samples_the_usual_values_are_taken_and_said(run):
    run.parts["train"] = []
    found = tuning.tuned_parameters(run, "kt_sparse", 4, GO_ON)
    assert found == BASELINES["kt_sparse"].usual
    lines = tuning.describe_parameters(run, {("zero_filled", 4): {}, ("kt_sparse", 4): found})
    assert len(lines) == 1
    assert lines[0].startswith("kt_sparse, acceleration 4: threshold 0.32")
    assert "usual values" in lines[0]


def test_a_second_search_is_not_made(run, monkeypatch):
    found = tuning.tuned_parameters(run, "low_rank_sparse", 4.0, GO_ON)
    monkeypatch.setattr(tuning, "_search", None)
    assert tuning.tuned_parameters(run, "low_rank_sparse", 4, GO_ON) == found
    (line,) = tuning.describe_parameters(run, {("low_rank_sparse", 4): found})
    assert "the best on training samples 0, 1, 2, 3 of low_rank 0.025 0.2" in line


def test_a_search_can_be_stopped(run):
    stop = runtime.StopRequest(None)
    stop.reason = "test"
    with pytest.raises(runtime.Interrupted, match="stopped by test before testing"):
        tuning.tuned_parameters(run, "kt_sparse", 4, stop)


def identity(run, name="zero_filled", acc=4):
    return tuning.identity_of(run, name, acc, run.parts["test"])


@pytest.mark.parametrize(
    "change",
    [{"noise": 0.1}, {"phase": True}, {"data_seed": 1}, {"sample_n": 2}, {"real_image": False}],
)
def test_other_data_or_masks_have_numbers_of_their_own(run, change):
    before = identity(run)
    for name, value in change.items():
        setattr(run.settings, name, value)
    assert identity(run) != before


def test_other_samples_shapes_accelerations_and_methods_have_numbers_of_their_own(run):
    before = identity(run)
    assert identity(run, acc=4.0) == before
    assert identity(run, acc=6) != before
    assert identity(run, "time_average") != before
    run.cine.hashes[8] = "other"
    assert identity(run) != before
    run.cine.hashes[8] = "hash8"
    run.cine.images = run.cine.images.flatten(2).unflatten(2, (36, 32))
    assert identity(run) != before


def test_the_prior_decides_which_methods_there_are(run):
    assert tuning.chosen_baselines(run) == list(BASELINES)
    run.settings.real_image = False
    assert "hermitian" not in tuning.chosen_baselines(run)
    assert {"zero_filled", "view_sharing", "kt_sparse"} <= set(tuning.chosen_baselines(run))
    run.settings.baselines = ("kt_sparse", "zero_filled")
    assert tuning.chosen_baselines(run) == ["zero_filled", "kt_sparse"]
