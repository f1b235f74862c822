import itertools
import math

import numpy as np
import pytest
import torch
from helpers import make_images, sampling

from data.acquisition import Acquisition
from data.batches import EvaluationBatches
from evaluation.tuning import (
    FEWEST,
    available_baselines,
    beyond_grid,
    is_fixed,
    middle_columns,
    search,
    tune,
)
from methods.baselines import BASELINES, baseline
from metrics import psnr
from phantom.scanner import phantom
from util.errors import Interrupted
from util.stop import StopRequest

ACQUISITION = Acquisition(sampling(4), phase=False, noise=0.0, data_seed=0)


@pytest.fixture
def batches():
    return EvaluationBatches(torch.from_numpy(make_images()), range(4), ACQUISITION, size=1)


def mean_psnr(batches, name: str, **parameters: float) -> float:
    """On the columns that are searched on."""
    method = baseline(name, real_image=True, **parameters)
    scores = [psnr(method(*b.measured).abs(), b.target) for b in map(middle_columns, batches)]
    return torch.cat(scores).mean().item()


@pytest.fixture(scope="module")
def beating():
    images = torch.from_numpy(phantom(1, (8, 32, 48), seed=6))
    return EvaluationBatches(images, [0], ACQUISITION, size=1)


@pytest.mark.parametrize("name", ["kt_sparse", "patch_sparse"])
def test_the_search_finds_the_optimum_of_a_finer_grid(name, beating):
    """All combinations of twice as many values, over a range beyond the grid's."""
    found = tune(name, beating, real_image=True)
    counts = {k: found[k] for k, values in BASELINES[name].grid.items() if is_fixed(values)}
    axes = {
        k: np.geomspace(min(values) / 2, max(values) * 2, 6)
        for k, values in BASELINES[name].grid.items()
        if k not in counts
    }
    finer = [
        mean_psnr(beating, name, **counts, **dict(zip(axes, map(float, values), strict=True)))
        for values in itertools.product(*axes.values())
    ]
    assert mean_psnr(beating, name, **found) > max(finer) - 0.05


def test_the_search_goes_beyond_its_grid():
    """The optimum of a smooth function of two parameters, far outside, is found."""
    tried = []

    def score(parameters):
        tried.append(tuple(parameters.values()))
        a, b = (math.log(value) for value in parameters.values())
        return -((a - 3) ** 2) - (b + 2) ** 2 - 0.5 * (a - 3) * (b + 2)

    grid = {"a": (0.5, 1.0, 2.0), "b": (1.0, 2.0)}
    found = search(score, grid, {"a": 1.0, "b": 1.0})
    assert math.log(found["a"]) == pytest.approx(3, abs=0.4)
    assert math.log(found["b"]) == pytest.approx(-2, abs=0.4)
    assert len(tried) == len(set(tried)) >= FEWEST  # none twice
    assert beyond_grid(grid, found) == ["a", "b"]
    assert grid == {"a": (0.5, 1.0, 2.0), "b": (1.0, 2.0)}


@pytest.mark.parametrize(
    ("score", "values", "found"),
    [
        (lambda p: -abs(math.log(p["x"] / 1.5)), (1.0, 2.0), pytest.approx(1.5, rel=0.1)),
        (lambda p: p["x"], (10, 20), 20),  # whole numbers are those of the grid
        (lambda p: math.nan, (1.0, 2.0), 1.0),
    ],
)
def test_the_search_looks_between_the_values_of_its_grid(score, values, found):
    assert search(score, {"x": values}, {"x": values[0]}) == {"x": found}


def test_without_samples_or_grid_the_usual_values_are_taken(batches):
    assert tune("kt_sparse", [], real_image=True) == BASELINES["kt_sparse"].usual
    assert tune("zero_filled", batches, real_image=True) == {}


def test_a_search_can_be_stopped(batches):
    stop = StopRequest()
    stop.reason = "test"
    with pytest.raises(Interrupted, match="stopped by test before testing"):
        tune("kt_sparse", batches, real_image=True, stop=stop)


def test_the_prior_decides_which_methods_there_are():
    every = available_baselines(None, real_image=True)
    assert every == [name for name in BASELINES if name != "cg_sense"]
    assert "cg_sense" in available_baselines(None, real_image=False, coils=True)
    names = available_baselines(None, real_image=False)
    assert "hermitian" not in names
    assert {"zero_filled", "view_sharing", "kt_sparse"} <= set(names)
    chosen = ("kt_sparse", "hermitian", "zero_filled")
    assert available_baselines(chosen, real_image=False) == ["zero_filled", "kt_sparse"]


def test_unknown_and_impossible_methods_are_named(batches):
    with pytest.raises(ValueError, match="unknown baseline 'ktsparse', expected one of"):
        tune("ktsparse", batches, real_image=True)
    with pytest.raises(ValueError, match="hermitian assumes real-valued images"):
        tune("hermitian", batches, real_image=False)
