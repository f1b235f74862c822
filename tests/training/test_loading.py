from types import SimpleNamespace

import pytest
import torch

from training import loading
from training.batches import KeptSamples


@pytest.fixture
def run(monkeypatch):
    """A run with 6 samples of 400 pixels to train on."""
    monkeypatch.setattr(loading, "free_memory", lambda device: 100_000)
    return SimpleNamespace(
        cine=SimpleNamespace(images=torch.zeros(9, 4, 10, 10)),
        parts={"train": range(6)},
        device=torch.device("cuda"),
    )


def test_images_to_train_on_stay_on_a_gpu_that_has_the_memory(run):
    kept = loading.kept_images(run)
    assert isinstance(kept, KeptSamples)
    assert kept.device == run.device
    assert kept.shape == (9, 4, 10, 10)


def test_images_stay_where_they_are_without_a_gpu_or_its_memory(run):
    run.parts["train"] = range(8)  # 25.6 kB in a quarter of 100 kB
    assert loading.kept_images(run) is run.cine.images
    run.parts["train"] = range(6)
    run.device = torch.device("cpu")
    assert loading.kept_images(run) is run.cine.images
