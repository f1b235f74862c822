from types import SimpleNamespace

import pytest
import torch

from data.batches import DeviceCache
from training import loading


@pytest.fixture
def run(monkeypatch):
    """A run with 6 samples of 400 pixels to train on, 19.2 kB, beside steps of 20 kB."""
    monkeypatch.setattr(loading, "total_memory", lambda device: 130_000)
    return SimpleNamespace(
        cine=SimpleNamespace(images=torch.zeros(9, 4, 10, 10), shape=(4, 10, 10)),
        parts={"train": range(6)},
        device=torch.device("cuda"),
        n_coils=None,
        step_cost=SimpleNamespace(activation_bytes=20_000),
    )


def test_images_to_train_on_stay_on_a_gpu_that_has_the_memory(run):
    kept = loading.images_for(run)
    assert isinstance(kept, DeviceCache)
    assert kept.device == run.device
    assert kept.shape == (9, 4, 10, 10)


@pytest.mark.parametrize(
    "changed",
    [
        {"parts": {"train": range(7)}},  # 22.4 kB
        {"step_cost": SimpleNamespace(activation_bytes=24_000)},
        {"device": torch.device("cpu")},
        {"n_coils": 3},
    ],
)
def test_images_stay_where_they_are_otherwise(run, changed):
    vars(run).update(changed)
    assert loading.images_for(run) is run.cine.images
