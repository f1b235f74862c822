"""All that computes, on the meta device: it mixes with no other, so a tensor that is left on the
CPU, or a value that is read, is an error here, as it is or costs time on a GPU."""

import itertools

import numpy as np
import pytest
import torch
from helpers import STAGES, UNET

from data.augmentation import AUGMENTATIONS, augment
from evaluation.tuning import available_baselines
from methods.averaging import averaged
from methods.baselines import BASELINES, baseline
from methods.start import OF_PATCH, STARTS, ZERO_FILLED
from methods.unrolled import Unrolled
from metrics import SCORES
from model import MODELS, architecture_settings, build_model
from training.losses import LOSSES, training_loss

SHAPE = (2, 8, 32, 24)  # B, T, Y, X
ON_META = {"dtype": torch.complex64, "device": "meta"}
# flips are drawn on the CPU; a rotation asks for the size of what is not there
MOVING = tuple(kind for kind in AUGMENTATIONS if kind not in ("jitter", "blur", "affine"))
ON_CPU = ("low_rank_sparse",)  # a part of it, because not every device has an eigensolver
KINDS = [(True, None), (False, None), (False, 3)]  # real-image prior, coils


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """All are alike, as nothing is computed."""
    monkeypatch.setitem(OF_PATCH, "n_steps", 2)


def measured(n_coils: int | None) -> tuple[torch.Tensor, ...]:
    """Aliased images and a mask, or coil images, a mask and maps, on the meta device."""
    n_batch, n_frames, ny, nx = SHAPE
    mask = torch.empty(n_batch, n_frames, ny, 1, device="meta")
    if n_coils is None:
        return torch.empty(SHAPE, **ON_META), mask
    coils = torch.empty(n_batch, n_frames, n_coils, ny, nx, **ON_META)
    return coils, mask, torch.empty(n_batch, n_coils, ny, nx, **ON_META)


def networks() -> list:
    cases = itertools.product(MODELS, STARTS, KINDS)
    # the start of all unrolled networks is made alike: of these, the cascade is tested with all
    return [
        one
        for one in cases
        if one[:2] != ("cascade", ZERO_FILLED)
        and (
            one[0] == "cascade" or one[1] == ZERO_FILLED or not issubclass(MODELS[one[0]], Unrolled)
        )
    ]


@pytest.mark.parametrize(("model", "start", "kind"), networks())
def test_networks_train_on_another_device(model, start, kind):
    real_image, n_coils = kind
    given = UNET | STAGES | {"start": start, "real_image": real_image}
    given |= {} if real_image else {"dc_weight": 10.0, "learn_dc_weight": True}
    architecture = {name: given[name] for name in architecture_settings(model)}
    with torch.device("meta"):
        network = build_model(model, **architecture)
    run = getattr(network, "by_stage", lambda *given: [network(*given)])
    stages = run(*measured(n_coils))
    assert {(stage.shape, stage.device.type) for stage in stages} == {(SHAPE, "meta")}
    truth = torch.empty(SHAPE, device="meta")
    for loss in LOSSES:
        losses = [training_loss(images, truth, loss).sum() for images in stages]
        sum(losses).backward(retain_graph=True)
    assert all(parameter.grad.is_meta for parameter in network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_training_free_methods_on_another_device(kind):
    real_image, n_coils = kind
    names = available_baselines(None, real_image, n_coils is not None)
    assert set(names) <= set(BASELINES)
    for name in (name for name in names if name not in ON_CPU):
        steps = {"n_steps": 2} if name == "patch_low_rank" else {}
        images = averaged(baseline(name, real_image, **steps), 2)(*measured(n_coils))
        assert images.shape == SHAPE, name
        assert images.is_meta, name


def test_scores_and_augmentations_on_another_device():
    images, truth = torch.empty(SHAPE, device="meta"), torch.empty(SHAPE, device="meta")
    for name, score in SCORES.items():
        assert score.function(images, truth).is_meta, name
    rng = np.random.default_rng(0)
    assert augment(torch.empty(SHAPE[1:], **ON_META), MOVING, rng).is_meta
