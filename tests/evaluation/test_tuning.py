import pytest
import torch
from helpers import make_images

from evaluation.tuning import available_baselines, tune
from methods.baselines import BASELINES, baseline
from metrics import psnr
from training.acquisition import Acquisition
from training.batches import EvaluationBatches
from util.errors import Interrupted
from util.stop import StopRequest

ACQUISITION = Acquisition(acc=(4, 4), sample_n=4, phase=False, noise=0.0, data_seed=0)


@pytest.fixture
def batches():
    return EvaluationBatches(torch.from_numpy(make_images()), range(4), ACQUISITION, size=1)


def mean_psnr(batches, bound) -> float:
    method = baseline("temporal_tv", real_image=True, bound=bound)
    scores = [psnr(method(b.aliased, b.mask).abs(), b.target) for b in batches]
    return torch.cat(scores).mean().item()


def test_the_best_of_the_grid_is_found(batches):
    bounds = BASELINES["temporal_tv"].grid["bound"]
    best = max(bounds, key=lambda bound: mean_psnr(batches, bound))
    assert tune("temporal_tv", batches, real_image=True) == {"bound": best}


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
