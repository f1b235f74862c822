"""The speed and memory of networks, beside the control, and how their cost grows."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from CS_mask import lines_per_frame
from data.acquisition import Acquisition
from data.batches import Batch, TrainingDraws, training_batch
from model import architecture_settings, build_model, channels_last, run_network
from timing.clock import Clock, Row, in_own_process
from timing.control import Control
from training.optimisation import make_optimizer, training_loss
from training.run import acceleration_range
from util.machine import make_deterministic, peak_memory, reuse_memory
from util.progress import say

CONTROL = "control"
TRAINING, INFERENCE = MODES = ("training", "inference")
PASSES = {TRAINING: 3, INFERENCE: 1}  # the backward pass takes twice the arithmetic of the forward
FACTORS = {  # of the base, for the growth of cost
    "batch_size": (1, 2, 4),
    "frames": (1 / 4, 1 / 2, 1),
    "size": (1 / 4, 1 / 2, 1),
    "width": (1 / 2, 1, 2),
}
GROWING = ("unet_resnet", "cascade")

Settings = Mapping[str, Any]  # the defaults of train()


@dataclass(frozen=True)
class Setup:
    """A network and the size of its batch."""

    model: str  # a name in MODELS, or CONTROL
    width: int  # init_features, or features of the cascade
    batch_size: int
    frames: int
    size: int  # lines and columns


class Subject:
    """A network with its optimiser and a batch, to be timed."""

    def __init__(self, setup: Setup, settings: Settings, device: torch.device):
        self.network = build(setup, settings).to(device)
        if setup.model != CONTROL:
            channels_last(self.network)
        self.optimizer = make_optimizer(
            self.network, settings["initial_lr"], settings["weight_decay"]
        )
        images = torch.rand(setup.batch_size, setup.frames, setup.size, setup.size)
        self.loss, self.batch = settings["loss"], random_batch(images, settings, device)

    def step(self, mode: str, precision: str) -> None:
        """A training step on the batch, or an inference."""
        self.network.train(mode == TRAINING)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(mode == TRAINING):
            images = run_network(self.network, *self.batch.measured, precision=precision)
            if mode == TRAINING:
                training_loss(images, self.batch.image, self.loss).mean().backward()
                self.optimizer.step()


def build(setup: Setup, settings: Settings) -> nn.Module:
    """The network with the default architecture of `train()`, of this width, for real images."""
    if setup.model == CONTROL:
        return Control(setup.frames, setup.width)
    width, frames = setup.width, setup.frames
    changed = {"init_features": width, "features": width, "real_image": True}
    settings = {**settings, **changed, "in_channels": frames, "out_channels": frames}
    return build_model(
        setup.model, **{name: settings[name] for name in architecture_settings(setup.model)}
    )


def acquisition_of(settings: Settings, n_lines: int) -> Acquisition:
    """The default acquisition, with fewer lines in the centre if there are few lines."""
    acc = acceleration_range(settings["acc"])
    sample_n = min(settings["sample_n"], lines_per_frame(n_lines, acc[1]))
    return Acquisition(acc, sample_n, phase=False, noise=0.0, data_seed=0)


def random_batch(images: Tensor, settings: Settings, device: torch.device) -> Batch:
    """Images (B, T, Y, X) with training masks."""
    acquisition = acquisition_of(settings, images.shape[2])
    draws = TrainingDraws(seed=0, fresh_masks=True, augment=(), strip=None)
    return training_batch(images, [(0, i) for i in range(len(images))], acquisition, draws, device)


def count(setup: Setup, settings: Settings) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of a forward pass of one sample (see `count_cost`)."""
    shape = (1, setup.frames, setup.size, setup.size)
    with torch.device("meta"):
        network = build(setup, settings)
        aliased, mask = torch.empty(shape, dtype=torch.complex64), torch.empty((*shape[:3], 1))
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        network(aliased, mask)
    return sum(p.numel() for p in network.parameters()), flops.get_total_flops() // 2


def peaks(setup: Setup, precision: str, settings: Settings, device: torch.device) -> Row:
    """The peak memory of an inference and of training in bytes, for a process of its own."""
    prepare(device)
    subject = Subject(setup, settings, device)
    subject.step(INFERENCE, precision)
    found = {INFERENCE: peak_memory(device)}
    for _ in range(2):  # the moments of Adam are there from the second step on
        subject.step(TRAINING, precision)
    return {**found, TRAINING: peak_memory(device)}


def prepare(device: torch.device) -> None:
    """Compute as `train()` does: deterministically, and on CPUs with freed memory used again."""
    make_deterministic(seed=0)
    if device.type == "cpu":
        reuse_memory(needed=0)


def speed_rows(
    setups: Sequence[Setup],
    precisions: Sequence[str],
    settings: Settings,
    clock: Clock,
    longest: float,
) -> list[Row]:
    """Time networks in all modes and precisions, in turn with the control.

    Args:
        setups: of the control, then of the networks.
        precisions: of the networks; the control always has float32.
        longest: networks whose training step takes more seconds than this, even at the machine's
            peak, are left out.
    """
    products = {name: clock.product(name) for name in dict.fromkeys((*precisions, "float32"))}
    rates = {
        name: macs / min(clock.once(call) for _ in range(3))
        for name, (call, macs) in products.items()
    }
    rows: list[Row] = []
    calls: dict[Any, Callable[[], Any]] = {name: call for name, (call, _) in products.items()}
    for setup in setups:
        parameters, macs = count(setup, settings)
        subject = cache(partial(Subject, setup, settings, clock.device))
        for precision in ("float32",) if setup.model == CONTROL else precisions:
            least = PASSES[TRAINING] * macs * setup.batch_size / rates[precision]
            if least > longest:
                memory = {"failure": f"left out: at least {least:.0f} s for a training step"}
            else:
                say(f"memory of {setup.model}, width {setup.width}, {precision}")
                memory = in_own_process(peaks, setup, precision, settings, clock.device)
            for mode in MODES:
                row = {"group": "speed", "control_width": setups[0].width, **asdict(setup)}
                row |= {"mode": mode, "precision": precision, "parameters": parameters}
                row |= {"macs": PASSES[mode] * macs, "peak_memory": memory.get(mode)}
                if "failure" in memory:
                    row["failure"] = memory["failure"]
                else:
                    calls[len(rows)] = partial(_step, subject, mode, precision)
                rows.append(row)
    results = clock.in_turn(calls, f"speed, width {setups[0].width}")
    for number, row in enumerate(rows):
        row |= results.get(number, {})
        control, product = rows[MODES.index(row["mode"])], results[row["precision"]]
        if "seconds" in row:
            row["of_control"] = control.get("seconds", math.nan) / row["seconds"]
            peak = products[row["precision"]][1] / product["fastest"]
            row["of_peak"] = row["macs"] * row["batch_size"] / row["seconds"] / peak
    return rows


def _step(subject: Callable[[], Subject], mode: str, precision: str) -> None:
    """Make the network, if this is its first step, and run it."""
    subject().step(mode, precision)


def growth_rows(
    bases: Sequence[Setup], precision: str, settings: Settings, clock: Clock
) -> list[Row]:
    """Time networks, and measure their memory, while batch size, frames, image size and width vary,
    one at a time."""
    subject = cache(partial(Subject, settings=settings, device=clock.device))
    cases = [
        (axis, replace(base, **{axis: max(1, round(factor * getattr(base, axis)))}), mode)
        for base in bases
        for axis, factors in FACTORS.items()
        for factor in factors
        for mode in MODES
    ]
    results = clock.in_turn(
        {
            (setup, mode): partial(_step, partial(subject, setup), mode, precision)
            for _, setup, mode in cases
        },
        "growth",
    )
    memory = {}
    for setup in dict.fromkeys(setup for _, setup, _ in cases):
        say(f"memory of {setup.model}: " + ", ".join(f"{k} {getattr(setup, k)}" for k in FACTORS))
        memory[setup] = in_own_process(peaks, setup, precision, settings, clock.device)
    return [
        {"group": "growth", "axis": axis, "value": getattr(setup, axis), **asdict(setup)}
        | {"mode": mode, "precision": precision, "peak_memory": memory[setup].get(mode)}
        | results[setup, mode]
        for axis, setup, mode in cases
    ]
