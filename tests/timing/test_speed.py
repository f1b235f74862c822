import copy
import math

import pytest
import torch

from model import MODELS, architecture_settings, count_cost
from timing import speed
from timing.clock import Clock
from timing.speed import CONTROL, INFERENCE, TRAINING, Setup, Subject
from train import train
from util.settings import defaults_of

CPU = torch.device("cpu")
CLOCK = Clock(CPU, repeats=1, deadline=math.inf)
SETTINGS = defaults_of(train)
TINY = {"width": 2, "batch_size": 2, "frames": 4, "size": 32}


@pytest.fixture
def quick(monkeypatch):
    """Peak memory without processes, 1 byte in an inference and 3 in training; a small product."""
    monkeypatch.setattr("timing.clock.CPU_PRODUCT", 256)
    monkeypatch.setattr(speed, "in_own_process", lambda *_: {INFERENCE: 1, TRAINING: 3})


@pytest.mark.parametrize("model", MODELS)
def test_costs_are_those_of_a_run(model):
    setup = Setup(model, **TINY)
    changed = {"init_features": 2, "features": 2, "in_channels": 4, "out_channels": 4}
    settings = SETTINGS | changed | {"real_image": True}
    architecture = {name: settings[name] for name in architecture_settings(model)}
    cost = count_cost(model, 1, (4, 32, 32), **architecture)
    assert speed.count(setup, SETTINGS) == (cost.parameters, cost.macs)


@pytest.mark.parametrize("model", [CONTROL, "unet_resnet"])
def test_only_training_changes_the_weights(model):
    subject = Subject(Setup(model, **TINY), SETTINGS, CPU)
    before = copy.deepcopy(subject.network.state_dict())
    subject.step(INFERENCE, "float32")
    assert all(torch.equal(before[k], v) for k, v in subject.network.state_dict().items())
    subject.step(TRAINING, "float32")
    assert not all(torch.equal(before[k], v) for k, v in subject.network.state_dict().items())


def test_the_layout_is_channels_last_except_in_the_control():
    for model, last in ((CONTROL, False), ("unet", True)):
        weight = next(Subject(Setup(model, **TINY), SETTINGS, CPU).network.parameters())
        assert weight.is_contiguous(memory_format=torch.channels_last) == last
        assert weight.is_contiguous() != last


def test_speeds_are_multiples_of_the_control(quick):
    setups = [Setup(CONTROL, **TINY), Setup("unet", **TINY)]
    rows = speed.speed_rows(setups, ["bfloat16", "float32"], SETTINGS, CLOCK, longest=100)
    assert [(r["model"], r["precision"], r["mode"]) for r in rows] == [
        (CONTROL, "float32", TRAINING), (CONTROL, "float32", INFERENCE),
        ("unet", "bfloat16", TRAINING), ("unet", "bfloat16", INFERENCE),
        ("unet", "float32", TRAINING), ("unet", "float32", INFERENCE),
    ]  # fmt: skip
    assert [r["of_control"] for r in rows[:2]] == [1, 1]
    assert rows[4]["of_control"] == rows[0]["seconds"] / rows[4]["seconds"]
    assert rows[4]["macs"] == 3 * rows[5]["macs"]
    assert [r["peak_memory"] for r in rows[:2]] == [3, 1]
    assert all(0 < r["of_peak"] < 1 for r in rows)


def test_a_network_that_cannot_run_is_named_and_does_not_end_the_run(quick, monkeypatch):
    def memory(_, setup, *others):
        return {"failure": "killed"} if setup.model == "cascade" else {INFERENCE: 1, TRAINING: 3}

    monkeypatch.setattr(speed, "in_own_process", memory)
    setups = [Setup(name, **TINY) for name in (CONTROL, "cascade", "unet")]
    rows = speed.speed_rows(setups, ["float32"], SETTINGS, CLOCK, longest=100)
    assert [row.get("failure", "") for row in rows] == ["", "", "killed", "killed", "", ""]
    assert ["seconds" in row for row in rows] == [True, True, False, False, True, True]


def test_networks_that_would_take_too_long_are_left_out(quick):
    setups = [Setup(CONTROL, **TINY), Setup("cnn3d", **TINY | {"width": 64, "frames": 20})]
    rows = speed.speed_rows(setups, ["float32"], SETTINGS, CLOCK, longest=0.2)
    assert "failure" not in rows[0]
    assert rows[2]["failure"].startswith("left out: at least ")


def test_one_size_varies_at_a_time_and_equal_calls_are_made_once(monkeypatch):
    made = []

    def in_turn(self, calls, title):
        made.extend(calls)
        return {key: {"seconds": 1.0} for key in calls}

    monkeypatch.setattr(Clock, "in_turn", in_turn)
    monkeypatch.setattr(speed, "in_own_process", lambda *a: {TRAINING: 2.0, INFERENCE: 1.0})
    base = Setup("unet_resnet", width=16, batch_size=1, frames=20, size=192)
    rows = speed.growth_rows([base], "float32", SETTINGS, CLOCK)
    values = {axis: [] for axis in speed.FACTORS}
    for row in rows:
        values[row["axis"]] += [row["value"]] if row["mode"] == TRAINING else []
        others = {"width": 16, "batch_size": 1, "frames": 20, "size": 192} | {
            row["axis"]: row["value"]
        }
        assert {name: row[name] for name in others} == others
        assert row["peak_memory"] == (2 if row["mode"] == TRAINING else 1)
    assert values == {
        "batch_size": [1, 2, 4], "frames": [5, 10, 20], "size": [48, 96, 192], "width": [8, 16, 32]
    }  # fmt: skip
    assert len(made) == len(set(made)) == 2 * (4 * 3 - 3)


def test_peaks_are_those_of_the_process():
    setup = Setup("unet", **TINY)
    found = speed.peaks(setup, "float32", SETTINGS, CPU)
    assert 1e7 < found[INFERENCE] <= found[TRAINING]
