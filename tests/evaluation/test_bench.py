from dataclasses import replace

import pytest
import torch
from helpers import make_images

from dataset import Cine
from evaluation import bench as bench_module
from evaluation.bench import Bench
from methods.baselines import BASELINES, Baseline, baseline
from training.batches import Acquisition


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    """6 training and 3 test samples, (8, 32, 36) each, and an empty cache."""
    monkeypatch.setenv("CINE_CACHE", str(tmp_path / "cache"))
    images = torch.from_numpy(make_images())
    cine = Cine(images, None, [f"hash{i}" for i in range(9)], "tiny", [])
    parts = {"train": list(range(6)), "validation": [], "test": [6, 7, 8]}
    acquisition = Acquisition(acc=(3, 6), sample_n=4, phase=False, noise=0.0, data_seed=0)
    return Bench(cine, parts, acquisition, real_image=True, device=torch.device("cpu"))


def must_not_run(*arguments, **keywords):
    raise AssertionError


def test_only_training_samples_are_searched_on(bench, monkeypatch, tmp_path):
    found = bench.parameters("kt_sparse", 4)
    bench.cine.images[4:] = 0  # validation, test and the training samples beyond the first ones
    monkeypatch.setenv("CINE_CACHE", str(tmp_path / "other"))
    assert bench.parameters("kt_sparse", 4) == found


def test_a_second_search_is_not_made(bench, monkeypatch):
    found = bench.parameters("low_rank_sparse", 4.0)
    monkeypatch.setattr(bench_module, "tune", must_not_run)
    assert bench.parameters("low_rank_sparse", 4) == found


def test_without_training_samples_the_usual_parameters_are_taken(bench):
    empty = replace(bench, parts=bench.parts | {"train": []})
    assert empty.parameters("kt_sparse", 4) == BASELINES["kt_sparse"].usual


def test_scores_of_baselines_are_cached_and_those_of_networks_are_not(bench):
    calls = []

    def network(aliased, mask):
        calls.append(len(aliased))
        return aliased

    methods = {"mine": network, "zero_filled": baseline("zero_filled", real_image=True)}
    first = bench.score(methods, {"zero_filled": {}}, 4, size=2)
    assert [row["sample"] for row in first if row["method"] == "mine"] == [6, 7, 8]
    assert calls == [2, 1]
    methods["zero_filled"] = must_not_run
    second = bench.score(methods, {"zero_filled": {}}, 4, size=2)
    assert calls == [2, 1, 2, 1]
    assert sorted(map(str, first)) == sorted(map(str, second))
    with pytest.raises(AssertionError):  # other parameters, other numbers
        bench.score(methods, {"zero_filled": {"threshold": 1}}, 4, size=2)


def test_every_batch_is_shown(bench):
    seen = []
    bench.score({"mine": lambda aliased, mask: aliased}, {}, 4, 2, on_batch=seen.append)
    assert [scored.batch.samples for scored in seen] == [[6, 7], [8]]
    assert all(scored.images["mine"].dtype == torch.float32 for scored in seen)


def identity(bench, name="zero_filled", acc=4):
    return bench.identity(name, bench.batches("test", acc, size=1))


@pytest.mark.parametrize(
    "change", [{"noise": 0.1}, {"phase": True}, {"data_seed": 1}, {"sample_n": 2}]
)
def test_other_masks_or_simulations_have_numbers_of_their_own(bench, change):
    changed = replace(bench, acquisition=replace(bench.acquisition, **change))
    assert identity(changed) != identity(bench)


def test_other_samples_shapes_accelerations_and_methods_have_numbers_of_their_own(
    bench, monkeypatch
):
    before = identity(bench)
    assert identity(bench, acc=4.0) == before
    assert identity(bench, acc=6) != before
    assert identity(bench, "time_average") != before
    assert identity(replace(bench, real_image=False)) != before
    bench.cine.hashes[8] = "other"
    assert identity(bench) != before
    bench.cine.hashes[8] = "hash8"
    bench.cine.images = bench.cine.images.flatten(2).unflatten(2, (36, 32))
    assert identity(bench) != before


def test_a_method_from_a_notebook_is_not_cached(bench, monkeypatch):
    calls = []

    def mine(measured):
        calls.append(1)
        return measured.inverse(measured.lines)

    mine.__module__ = "__main__"
    monkeypatch.setitem(BASELINES, "mine", Baseline(mine, real_image=False))
    for _ in range(2):
        bench.score({"mine": baseline("mine", real_image=True)}, {"mine": {}}, 4, size=3)
    assert len(calls) == 2


def test_other_code_has_numbers_of_its_own(bench, monkeypatch):
    before = identity(bench)
    monkeypatch.setattr(bench_module, "source_hash", lambda *modules: "edited")
    assert identity(bench) != before
