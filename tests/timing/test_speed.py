import copy
import time
from itertools import chain
from multiprocessing import set_forkserver_preload
from types import SimpleNamespace

import pytest
import torch

from model import MODELS, architecture_settings, count_cost, own_settings
from timing import speed
from timing.speed import CONTROL, INFERENCE, TRAINING, Setup, Subject
from train import train
from util.settings import defaults_of

CPU = torch.device("cpu")
SETTINGS = defaults_of(train)
TINY = {"precision": "float32", "init_features": 2, "batch_size": 2, "frames": 4, "size": 32}


@pytest.mark.parametrize("model", MODELS)
def test_costs_are_those_of_a_run(model):
    rows = []
    sender = SimpleNamespace(send=rows.append)
    small = {"stages": 2, "features": 8}
    speed.send_measurements(sender, Setup(model, **TINY), SETTINGS | small, CPU, seconds=1e-3)
    changed = {"init_features": 2, "in_channels": 4, "out_channels": 4, "real_image": True, **small}
    changed["start"] = own_settings(model)["start"]
    architecture = {name: (SETTINGS | changed)[name] for name in architecture_settings(model)}
    macs = count_cost(model, 1, (4, 32, 32), **architecture).macs
    assert [row["macs"] for row in rows] == [macs, 3 * macs]
    assert all(row["seconds"] > 0 for row in rows)


@pytest.mark.parametrize("model", [CONTROL, "unet_resnet"])
def test_only_training_changes_the_weights(model):
    subject = Subject(Setup(model, **TINY), SETTINGS, CPU)
    before = copy.deepcopy(subject.network.state_dict())
    for mode in (INFERENCE, TRAINING):
        subject.step(mode)
        after = subject.network.state_dict()
        assert all(torch.equal(before[k], after[k]) for k in before) == (mode == INFERENCE)
    weight = next(subject.network.parameters())
    assert weight.is_contiguous() == (model == CONTROL)  # the others are channels last


@pytest.mark.parametrize("model", [CONTROL, "unet"])
def test_the_control_does_not_pay_for_determinism(model, monkeypatch):
    known = []

    class Noted(Subject):
        def step(self, mode):
            known.append(torch.are_deterministic_algorithms_enabled())
            return super().step(mode)

    monkeypatch.setattr(speed, "Subject", Noted)
    sender = SimpleNamespace(send=lambda row: None)
    speed.send_measurements(sender, Setup(model, **TINY), SETTINGS, CPU, seconds=1e-3)
    assert set(known) == {model != CONTROL}


def test_what_cannot_be_measured_is_named(monkeypatch):
    set_forkserver_preload(["timing.speed"])
    send = speed.send_measurements  # chain: ends and has sent nothing, as if it was killed
    for target, seconds, size, failure in (
        (chain, 60, 32, "killed, perhaps out of memory"),
        (send, 60, -1, "Trying to create tensor with negative dimension"),
        (send, 0, 32, "left out: no time left"),
    ):
        monkeypatch.setattr(speed, "send_measurements", target)
        setup = Setup("unet", **TINY | {"size": size})
        rows = speed.measure(setup, SETTINGS, CPU, 1e-3, time.monotonic() + seconds)
        assert [row["mode"] for row in rows] == [INFERENCE, TRAINING]
        assert all(row["failure"].startswith(failure) for row in rows)
