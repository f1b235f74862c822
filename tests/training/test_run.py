from types import SimpleNamespace

import pytest
import torch
from helpers import make_images, quality_of

from CS_mask import Sampling
from dataset import Cine
from train import train
from training.run import Run, pass_size, sampling_of
from util.settings import defaults_of

SETTINGS = defaults_of(train) | {"acc": 4, "sample_n": 4, "batch_size": 2, "num_epochs": 1}


def run(**settings) -> Run:
    """A run of 6 training and 3 test samples, (8, 32, 36) each."""
    images = torch.from_numpy(make_images())
    cine = Cine(images, None, [""] * 9, "tiny", [], quality_of(images))
    parts = {"train": list(range(6)), "validation": [], "test": [6, 7, 8]}
    s = SimpleNamespace(**SETTINGS | settings)
    return Run(None, s, torch.device("cpu"), cine, parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "n_rounds", "n_steps"),
    [
        ({}, 1, 3),
        ({"strip": 16}, 3, 9),  # 36 columns are three strips
        ({"strip": 500}, 1, 3),
        ({"batch_size": 4}, 1, 2),
        ({"batch_size": 100}, 1, 1),
    ],
)
def test_an_epoch_has_as_many_rounds_as_strips(settings, n_rounds, n_steps):
    assert (run(**settings).n_rounds, run(**settings).n_steps) == (n_rounds, n_steps)


def test_a_pass_is_a_part_of_a_batch_and_no_larger_than_a_part_of_the_split():
    parts = {"train": [0] * 6, "test": [0] * 3}
    assert pass_size(4, 1, parts) == 4
    assert pass_size(4, 3, parts) == 2
    assert pass_size(100, 1, parts) == 6


@pytest.mark.parametrize(
    ("settings", "conditions"),
    [
        ({}, [("gaussian", 4)]),
        ({"acc": (4, 8)}, [("gaussian", 4), ("gaussian", 6), ("gaussian", 8)]),
        ({"test_acc": (5, 3, 5)}, [("gaussian", 5), ("gaussian", 3)]),
        (
            {"pattern": ("uniform", "equispaced", "uniform"), "test_acc": (4, 6)},
            [("uniform", 4), ("uniform", 6), ("equispaced", 4), ("equispaced", 6)],
        ),
    ],
)
def test_every_pattern_is_tested_at_every_acceleration(settings, conditions):
    assert run(**settings).test_conditions == conditions


def test_settings_of_one_value_or_several_are_one_sampling():
    assert sampling_of(SETTINGS) == Sampling(("gaussian",), (4, 4), (4,))
    older = {"acc": 4, "sample_n": 4}  # of weights from before there were patterns
    assert sampling_of(older) == sampling_of(SETTINGS)
    mixed = {"pattern": ("uniform", "equispaced"), "acc": (3, 9), "sample_n": (0, 12)}
    found = sampling_of(mixed | {"partial_fourier": (1.0, 0.75)})
    assert found == Sampling(("uniform", "equispaced"), (3, 9), (0, 12), (1.0, 0.75))
    assert len(found.parts()) == 8
    assert str(found) == (
        "uniform or equispaced lines at acceleration 3 to 9, with 0 or 12 centre lines and 1 or"
        " 0.75 partial Fourier"
    )


def test_there_is_a_network_to_train_or_to_score():
    assert run().has_network
    assert run(num_epochs=0, initial_weights="x.pt").has_network
    assert not run(num_epochs=0).has_network
