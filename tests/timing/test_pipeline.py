import math

import pytest
import torch

from timing.clock import Clock
from timing.pipeline import LOADING, SEARCH, epoch_seconds, pipeline_rows
from timing.speed import INFERENCE, TRAINING, Setup
from train import train
from util.settings import defaults_of

CLOCK = Clock(torch.device("cpu"), repeats=1, deadline=math.inf)
SETTINGS = defaults_of(train)
TINY = Setup("unet_resnet", width=2, batch_size=2, frames=8, size=32)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    found = pipeline_rows(folder, 8, TINY, SETTINGS | {"picture_dpi": 20}, 10.0, CLOCK)
    assert list(folder.iterdir()) == []  # temporary files are removed
    return found


def test_every_part_is_scaled_to_a_run_and_compared_to_an_epoch(rows):
    assert [row for row in rows if "failure" in row] == []
    steps, *parts = [row for row in rows if row["group"] == "pipeline"]
    assert steps["in_a_run"] == 10
    assert steps["of_epoch"] == 1
    needed = {row["part"]: (row["needed"], row["once_in"]) for row in parts}
    assert needed[LOADING] == needed[SEARCH] == (200, "a run")
    assert needed["undersampling"] == needed["masks"] == (114, "an epoch")
    assert needed["scores in validation"] == (29, "an epoch")
    for row in parts:
        assert row["in_a_run"] == row["seconds"] / row["value"] * row["needed"]
        assert row["of_epoch"] == row["in_a_run"] / 10


def test_loading_and_search_grow_with_the_samples(rows):
    growing = [(r["part"], r["value"]) for r in rows if r["group"] == "growth"]
    assert growing == [(part, n) for n in (2, 4, 8) for part in (LOADING, SEARCH)]


def test_an_epoch_is_that_of_the_widest_default_network_in_the_first_precision():
    def row(mode: str, seconds: float, **changed):
        given = {"model": "unet_resnet", "width": 64, "precision": "bfloat16", "batch_size": 2}
        return {**given, "mode": mode, "seconds": seconds, **changed}

    steps = [row(TRAINING, 4.0), row(INFERENCE, 1.0)]
    others = [
        row(mode, 9.0, **changed)
        for changed in ({"model": "unet"}, {"width": 16}, {"precision": "float32"})
        for mode in (TRAINING, INFERENCE)
    ]
    assert epoch_seconds([*others[:4], *steps, *others[4:]], SETTINGS) == 114 * 2 + 29 * 0.5
    assert epoch_seconds(others[:2], SETTINGS) is None
