"""Time and peak memory of networks in training and inference.

Every network is measured in a process of its own, so that its peak memory is that of the
interpreter, the network and the batch; on a GPU it is that of tensors alone.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from CS_mask import lines_per_frame, training_masks
from model import architecture_settings, build_model, channels_last, own_settings, run_network
from physics.fourier import undersample
from timing.control import Control
from training.losses import training_loss
from training.optimisation import make_optimizer
from training.run import sampling_of
from util.machine import make_deterministic
from util.memory import peak_memory, reuse_memory

CONTROL = "control"
INFERENCE, TRAINING = MODES = ("inference", "training")
PASSES = {INFERENCE: 1, TRAINING: 3}  # the backward pass takes twice the arithmetic of the forward
GROWING = ("unet_resnet", "cascade")  # networks whose growth of cost is measured
FACTORS = {"batch_size": (1, 2, 4), "frames": (1 / 4, 1 / 2, 1), "size": (1 / 4, 1 / 2, 1)}
START_METHOD = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"

Settings = Mapping[str, Any]  # the defaults of train()
Timing = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """A network and its batch."""

    model: str  # a name in MODELS, or CONTROL
    precision: str  # "float32" or "bfloat16"
    init_features: int  # of networks that have them
    batch_size: int
    frames: int
    size: int  # lines and columns


def varied(base: Setup) -> list[tuple[str, Setup]]:
    """What varies, and the setup: of one sample, with other batch sizes, frames and image sizes."""
    one = replace(base, batch_size=1)
    return [
        (name, replace(one, **{name: max(1, round(factor * getattr(one, name)))}))
        for name, factors in FACTORS.items()
        for factor in factors
    ]


class Subject:
    """A network with its optimiser and a batch on the device, to be measured."""

    def __init__(self, setup: Setup, settings: Settings, device: torch.device):
        s, self.precision, self.loss = settings, setup.precision, settings["loss"]
        self.network = build(setup, s).to(device)
        if setup.model != CONTROL:
            channels_last(self.network)
        self.optimizer = make_optimizer(self.network, s["initial_lr"], s["weight_decay"])
        shape = (setup.batch_size, setup.frames, setup.size, setup.size)
        self.image = torch.rand(shape, device=device)
        draws, sampling = [(0, i) for i in range(setup.batch_size)], sampling_of(s)
        most = lines_per_frame(setup.size, sampling.acc[1])
        centre_lines = tuple(min(n, most) for n in sampling.centre_lines)
        sampling = replace(sampling, centre_lines=centre_lines)
        masks = training_masks(draws, shape[1:3], sampling, seed=0)
        self.mask = torch.from_numpy(masks).to(device)
        self.aliased = undersample(self.image, self.mask)

    def step(self, mode: str) -> None:
        """A training step on the batch, or an inference."""
        self.network.train(mode == TRAINING)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(mode == TRAINING):
            images = run_network(self.network, self.aliased, self.mask, precision=self.precision)
            if mode == TRAINING:
                training_loss(images, self.image, self.loss).mean().backward()
                self.optimizer.step()


def build(setup: Setup, settings: Settings) -> nn.Module:
    """The network with the default architecture of `train()` otherwise, for real images."""
    frames, width = setup.frames, setup.init_features
    if setup.model == CONTROL:
        return Control(frames, width)
    changed = {"in_channels": frames, "out_channels": frames, "init_features": width}
    given = {k: v for k, v in settings.items() if v is not None}
    settings = {**settings, **own_settings(setup.model), **given, **changed, "real_image": True}
    names = architecture_settings(setup.model)
    return build_model(setup.model, **{name: settings[name] for name in names})


def measure(
    setup: Setup, settings: Settings, device: torch.device, seconds: float, deadline: float
) -> list[Timing]:
    """Measure a network in a process of its own, which is ended at the deadline.

    Args:
        seconds: for which a call is repeated, after a warm-up.
        deadline: of `time.monotonic`.

    Returns:
        for each mode the setup, `macs` (multiply-accumulates of a sample), `seconds` (of a call,
        median), `spread` (half the interquartile range) and `peak_memory` (bytes); or the setup
        and the `failure` in words.
    """
    context: Any = get_context(START_METHOD)
    receiver, sender = context.Pipe(duplex=False)
    arguments = (sender, setup, settings, device, seconds)
    process = context.Process(target=send_measurements, args=arguments)
    process.start()
    sender.close()  # here, so that it is closed when the process ends
    rows: list[Timing] = []
    try:
        while len(rows) < len(MODES) and receiver.poll(max(0, deadline - time.monotonic())):
            rows.append(receiver.recv())
        failure = "left out: no time left"
    except EOFError:
        failure = "killed, perhaps out of memory"
    finally:
        process.kill()
        process.join()
    rows += [{"failure": failure}] * (len(MODES) - len(rows))
    return [asdict(setup) | {"mode": mode, **row} for mode, row in zip(MODES, rows, strict=True)]


def send_measurements(
    sender: Connection, setup: Setup, settings: Settings, device: torch.device, seconds: float
) -> None:
    """Measure each mode, and send its row as soon as there is one."""

    def clock() -> float:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter()

    try:
        make_deterministic(seed=0)  # as `train()` does, but not for the control
        torch.use_deterministic_algorithms(setup.model != CONTROL, warn_only=True)
        if device.type == "cpu":
            reuse_memory(needed=0)
        subject = Subject(setup, settings, device)
        with FlopCounterMode(display=False) as flops:
            subject.step(INFERENCE)
        macs, names = flops.get_total_flops() // 2 // setup.batch_size, {"step": subject.step}
        for mode in MODES:
            timer = Timer(
                f"step({mode!r})", "", "", clock, names, num_threads=torch.get_num_threads()
            )
            times = timer.blocked_autorange(min_run_time=seconds)
            spread = times.iqr / 2 if len(times.times) > 1 else math.nan
            row = {"macs": PASSES[mode] * macs, "seconds": times.median, "spread": spread}
            sender.send(row | {"peak_memory": peak_memory(device)})
    except Exception as error:  # other networks can still be measured
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        for _ in MODES:  # of which those that have no row yet take it
            sender.send({"failure": reason})
