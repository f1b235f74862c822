import numpy as np
import pytest
import torch
from helpers import sampling

from methods.baselines import BASELINES, baseline
from metrics import psnr
from phantom.scanner import phantom
from scan.choice import BEST_AS_A_RULE, best_training_free
from scan.measurement import from_images
from util.errors import InputError

IMAGES = phantom(1, (12, 64, 64), seed=5)[0]


def scores(measurement, names) -> dict[str, float]:
    """The true PSNR of the methods."""
    truth = measurement.image.abs()
    return {
        name: psnr(baseline(name, measurement.is_real)(*measurement.measured).abs(), truth).item()
        for name in names
    }


@pytest.mark.parametrize("phase", [False, True])
def test_the_choice_is_near_the_best_by_the_truth(phase):
    images = IMAGES * np.exp(1j * np.linspace(0, 2, 64)) if phase else IMAGES
    measurement = from_images(images, sampling(4, 6), seed=0, number=0, mask=None)
    choice = best_training_free(measurement, seed=0)
    iterative = {k for k, v in BASELINES.items() if v.grid and not v.needs_coils}
    assert choice.errors.keys() == iterative
    assert choice.errors[choice.name] == min(choice.errors.values())
    assert choice.name in choice.line
    true = scores(measurement, iterative)
    assert true[choice.name] > max(true.values()) - 0.5


def test_the_choice_needs_no_truth_and_follows_its_seed():
    measurement = from_images(IMAGES, sampling(4, 6), seed=0, number=0, mask=None)
    before = best_training_free(measurement, seed=0)
    measurement.image = None
    assert best_training_free(measurement, seed=0) == before
    assert best_training_free(measurement, seed=1).errors != before.errors


def test_named_methods_are_compared_whatever_they_are():
    measurement = from_images(IMAGES, sampling(4, 6), seed=0, number=0, mask=None)
    choice = best_training_free(measurement, 0, ("view_sharing", "zero_filled", "kt_sparse"))
    assert choice.name == "kt_sparse"
    assert choice.errors.keys() == {"view_sharing", "zero_filled", "kt_sparse"}
    only = best_training_free(measurement, 0, ("hermitian",))
    assert only.line == "training-free method: hermitian, the only one"
    turned = from_images(IMAGES * np.exp(1j * np.linspace(0, 2, 64)), sampling(4, 6), 0, 0, None)
    with pytest.raises(InputError, match="none of --baselines is for complex images"):
        best_training_free(turned, 0, ("hermitian",))


def test_where_no_lines_can_be_held_out_the_rule_is_said():
    mask = np.zeros((12, 64), dtype=bool)
    mask[:, 28:36] = True  # the centre alone
    choice = best_training_free(from_images(IMAGES, sampling(4, 6), 0, 0, mask), seed=0)
    assert (choice.name, choice.errors) == (BEST_AS_A_RULE, {})
    assert "too few measured lines" in choice.line
    assert torch.is_grad_enabled()
