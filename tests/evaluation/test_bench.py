import re
from dataclasses import fields, replace
from functools import wraps
from pathlib import Path

import pytest
import torch
from helpers import make_images, quality_of

from CS_mask import Condition, Sampling
from data.acquisition import Acquisition
from data.batches import EvaluationBatches
from dataset import Cine
from evaluation import bench as bench_module
from evaluation.bench import Bench
from methods import baselines
from methods.baselines import BASELINES, Baseline
from metrics import psnr
from util.cache import source_file, source_hash
from util.errors import Interrupted
from util.stop import StopRequest


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    """6 training and 3 test samples, (8, 32, 36) each, and an empty cache."""
    monkeypatch.setenv("CINE_CACHE", str(tmp_path / "cache"))
    images = torch.from_numpy(make_images())
    hashes = [f"hash{i}" for i in range(9)]
    cine = Cine(images, None, hashes, "tiny", [], quality_of(images))
    parts = {"train": list(range(6)), "validation": [], "test": [6, 7, 8]}
    acquisition = Acquisition(
        Sampling(("gaussian",), (3, 6), (4,)), phase=False, noise=0.0, data_seed=0
    )
    return Bench(cine, parts, acquisition, True, size=2, device=torch.device("cpu"))


AT_4, AT_3 = Condition("gaussian", 4), Condition("gaussian", 3)


def scored(bench, learned, tuned, condition=AT_4, size=2, **more):
    """Scores with these parameters of training-free methods."""
    return replace(bench, size=size, tuned={condition: tuned}).score(learned, condition, **more)


def must_not_run(*arguments, **keywords):
    raise AssertionError


def test_only_training_samples_are_searched_on(bench, monkeypatch, tmp_path):
    found = bench.parameters("kt_sparse", AT_4)
    bench.cine.images[4:] = 0  # validation, test and the training samples beyond the first ones
    monkeypatch.setenv("CINE_CACHE", str(tmp_path / "other"))
    assert bench.parameters("kt_sparse", AT_4) == found


def test_a_second_search_is_not_made(bench, monkeypatch):
    found = bench.parameters("low_rank_sparse", AT_4)
    monkeypatch.setattr(bench_module, "tune", must_not_run)
    assert bench.parameters("low_rank_sparse", Condition("gaussian", 4.0)) == found


def test_a_search_that_was_stopped_goes_on_where_it_was(bench, monkeypatch, tmp_path):
    scored_candidates = []
    after_three = StopRequest()
    monkeypatch.setattr(after_three, "requested", lambda: len(scored_candidates) >= 12)

    def counted(images, target):
        scored_candidates.append(1)
        return psnr(images, target)

    monkeypatch.setattr("evaluation.tuning.psnr", counted)
    with pytest.raises(Interrupted):
        replace(bench, stop=after_three).parameters("kt_sparse", AT_4)
    found, n_whole = bench.parameters("kt_sparse", AT_4), len(scored_candidates)
    monkeypatch.setenv("CINE_CACHE", str(tmp_path / "other"))
    scored_candidates.clear()
    assert bench.parameters("kt_sparse", AT_4) == found
    assert len(scored_candidates) == n_whole  # none was scored twice
    assert len(list((tmp_path / "cache" / "baselines").iterdir())) == 1


def test_scores_of_baselines_are_cached_and_those_of_networks_are_not(bench, monkeypatch):
    calls = []

    def network(aliased, mask):
        calls.append(len(aliased))
        return aliased

    first = scored(bench, {"mine": network}, {"zero_filled": {}})
    assert [row["sample"] for row in first if row["method"] == "mine"] == [6, 7, 8]
    assert calls == [2, 1]
    monkeypatch.setattr(bench_module, "baseline", lambda *a, **k: must_not_run)
    second = scored(bench, {"mine": network}, {"zero_filled": {}})
    assert calls == [2, 1, 2, 1]
    assert sorted(map(str, first)) == sorted(map(str, second))
    for other in ({"tuned": {"zero_filled": {"threshold": 1}}}, {"size": 3}, {"condition": AT_3}):
        with pytest.raises(AssertionError):  # other numbers, if only in the last digits
            scored(bench, {"mine": network}, **{"tuned": {"zero_filled": {}}} | other)


def test_what_was_spent_says_what_was_cached(bench, capsys):
    for _ in range(2):
        bench.parameters("kt_sparse", AT_4)
        scored(bench, {"mine": lambda aliased, mask: aliased}, {"zero_filled": {}})
    search, test = bench.spent["search"], bench.spent["test"]
    assert (search.computed, search.cached) == (1, 1)
    assert (test.computed, test.cached) == (3, 1)
    assert min(search.seconds, test.seconds) > 0
    first, second, third, _ = capsys.readouterr().out.splitlines()
    line = r"tuning kt_sparse, acceleration 4: threshold \S+, fall \S+, "
    assert re.fullmatch(line + r"\S+ s", first)
    assert second == "test, acceleration 4: 3 samples"
    assert re.fullmatch(line + "cached", third)


def test_a_network_cannot_have_the_name_of_a_baseline(bench):
    with pytest.raises(ValueError, match="zero_filled is the name of a training-free method"):
        scored(bench, {"zero_filled": must_not_run}, {"zero_filled": {}})


def test_parameters_are_a_copy_of_the_usual_ones_without_training_samples(bench):
    bench.parameters("kt_sparse", AT_4)["threshold"] = 9.0
    empty = replace(bench, parts=bench.parts | {"train": []})
    assert empty.parameters("kt_sparse", AT_4) == BASELINES["kt_sparse"].usual
    empty.parameters("kt_sparse", AT_4)["threshold"] = 9.0
    assert BASELINES["kt_sparse"].usual["threshold"] != 9.0


def test_every_batch_is_shown(bench):
    seen = []
    scored(bench, {"mine": lambda aliased, mask: aliased}, {}, on_batch=seen.append)
    assert [scored.batch.samples for scored in seen] == [[6, 7], [8]]
    assert all(scored.images["mine"].dtype == torch.float32 for scored in seen)


def identity(bench, name="zero_filled", condition=AT_4):
    return bench.identity(name, bench.batches("test", condition, size=1))


def test_whatever_changes_the_measurement_has_numbers_of_its_own(bench):
    """Every field of the acquisition and of its sampling, those to come included."""
    others = {"noise": 0.1, "phase": True, "data_seed": 1, "coils": 8, "virtual_coils": 4,
              "patterns": ("uniform",), "acc": (5.0, 5.0), "centre_lines": (2,),
              "partial_fourier": (0.75,), "given": (("0110" * 8,) * 8,),
              "measured": True}  # fmt: skip
    acquisition = bench.acquisition.at(AT_4)
    before = bench.identity("zero_filled", bench.batches("test", AT_4, size=1))

    def identity_with(changed: Acquisition):
        batches = EvaluationBatches(bench.cine.images, bench.parts["test"], changed, 1)
        return bench.identity("zero_filled", batches)

    assert identity_with(acquisition) == before
    for field in fields(acquisition):
        if field.name != "sampling":
            change = {field.name: others[field.name]}
            assert identity_with(replace(acquisition, **change)) != before, field.name
    for field in fields(acquisition.sampling):
        change = replace(acquisition.sampling, **{field.name: others[field.name]})
        if change.measured:  # each sample has its own
            change = replace(change, given=others["given"] * len(bench.cine.images))
        assert identity_with(replace(acquisition, sampling=change)) != before, field.name


def test_methods_of_several_patterns_are_named_by_them(bench, capsys):
    mixed = replace(bench.acquisition.sampling, patterns=("gaussian", "uniform"))
    bench = replace(bench, acquisition=replace(bench.acquisition, sampling=mixed))
    (row, *_) = scored(bench, {}, {"zero_filled": {}}, Condition("uniform", 4))
    assert (row["pattern"], row["acc"]) == ("uniform", 4)
    assert capsys.readouterr().out == "test, acceleration 4, uniform lines: 3 samples\n"
    assert bench.reference() is None  # every validation mask has its own pattern


def test_other_data_methods_and_code_have_numbers_of_their_own(bench, monkeypatch):
    before = identity(bench)
    assert identity(bench, condition=Condition("gaussian", 4.0)) == before
    assert identity(bench, condition=AT_3) != before
    assert identity(bench, "time_average") != before
    assert identity(replace(bench, real_image=False)) != before
    bench.cine.hashes[8] = "other"
    assert identity(bench) != before
    bench.cine.hashes[8] = "hash8"
    bench.cine.images = bench.cine.images.flatten(2).unflatten(2, (36, 32))
    assert identity(bench) != before
    seeds = [replace(bench.acquisition, data_seed=seed) for seed in (2**53, 2**53 + 1)]
    first, second = (identity(replace(bench, acquisition=of_seed)) for of_seed in seeds)
    assert first != second  # to the last digit
    before = identity(bench)
    monkeypatch.setattr(bench_module, "CODE", "edited")
    assert identity(bench) != before


def mine(measured):
    return measured.inverse(measured.lines)


def test_only_functions_whose_source_is_known_are_cached(bench, monkeypatch):
    """Another function, prior or grid has numbers of its own; foreign code is not cached."""
    before = identity(bench)
    for known in (
        Baseline(baselines.time_average, real_image=False),
        Baseline(baselines.zero_filled, real_image=True),
        Baseline(baselines.zero_filled, real_image=False, usual={"x": 1.0}),
    ):
        monkeypatch.setitem(BASELINES, "zero_filled", known)
        assert identity(bench) not in (before, {})
    for function in (mine, lambda measured: mine(measured), wraps(baselines.zero_filled)(mine)):
        monkeypatch.setitem(BASELINES, "zero_filled", Baseline(function, real_image=False))
        assert identity(bench) == {}
        scored(bench, {}, {"zero_filled": {}}, size=3)
        assert scored(bench, {}, {"zero_filled": {}}, size=3)


def test_the_key_covers_all_code_that_numbers_depend_on(monkeypatch):
    """Every one of these sources, changed, changes the hash."""
    assert source_hash("evaluation.bench") == bench_module.CODE
    for module in (
        "CS_mask", "metrics", "physics.fourier", "physics.consistency", "physics.simulation",
        "methods.baselines", "data.batches", "evaluation.tuning", "evaluation.scoring",
        "util.random_streams",
    ):  # fmt: skip
        changed = source_file(module)
        read = Path.read_bytes
        with monkeypatch.context() as context:
            context.setattr(
                Path,
                "read_bytes",
                lambda path, changed=changed, read=read: read(path) + b"\n" * (path == changed),
            )
            assert source_hash("evaluation.bench") != bench_module.CODE, module
