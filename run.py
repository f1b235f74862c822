"""What a run is: its settings, data, split and network; saved and restored."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import checkpoint as ckpt
import report
import runtime
from dataset import Cine
from errors import InputError
from model import ARCHITECTURE, Cost, count_cost
from settings import resumed_settings

FREE_ON_RESUME = ("resume", "max_minutes")  # settings of the session, not of the run


@dataclass
class Run:
    """What training and evaluation share."""

    folder: Path
    settings: SimpleNamespace
    device: torch.device
    cine: Cine
    parts: dict[str, list[int]]  # samples of each part of the split
    network: nn.Module | None = None  # None where only baselines are scored
    average: nn.Module | None = None  # moving average of the network; None: none is kept
    # hashes of the samples that "trained", and that "selected", the weights it starts from
    seen: dict[str, set[str]] = field(default_factory=lambda: {"trained": set(), "selected": set()})
    facts: dict[str, list[str]] = field(default_factory=dict)  # the report's, lines by heading
    history: list[dict[str, float]] = field(default_factory=list)  # a dict for each epoch

    @property
    def architecture(self) -> dict[str, Any]:
        """The settings that build the network."""
        return {name: getattr(self.settings, name) for name in ARCHITECTURE[self.settings.model]}

    @property
    def n_parameters(self) -> int:
        """Trained numbers of the network."""
        return sum(p.numel() for p in self.network.parameters()) if self.network else 0

    @property
    def accelerations(self) -> tuple[float, float]:
        """Lowest and highest acceleration of the training masks."""
        return acceleration_range(self.settings.acc)

    @property
    def tested(self) -> tuple[float, ...]:
        """The accelerations that the test part is scored at."""
        low, high = self.accelerations
        given = tuple(dict.fromkeys(self.settings.test_acc or ()))
        return given or ((low,) if low == high else (low, (low + high) / 2, high))

    @property
    def rounds(self) -> int:
        """How often an epoch takes every training sample: once, or once for every strip of it."""
        strip = self.settings.strip
        return 1 if strip is None else -(-self.cine.shape[-1] // strip)

    @property
    def pass_size(self) -> int:
        """Samples in one forward pass, at most."""
        return pass_size(self.settings.batch_size, self.settings.accumulation, self.parts)

    @property
    def n_steps(self) -> int:
        """Optimiser steps in an epoch."""
        return -(-self.rounds * len(self.parts["train"]) // self.settings.batch_size)

    @cached_property
    def step_cost(self) -> Cost:
        """What a forward pass of a training step costs."""
        n_frames, ny, nx = self.cine.shape
        shape = (n_frames, ny, min(nx, self.settings.strip or nx))
        return count_cost(self.settings.model, self.pass_size, shape, **self.architecture)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated, tested and kept: the average, if there is one."""
        network = self.average or self.network
        assert network is not None
        return network

    def forward(self, network: nn.Module, aliased: Tensor, mask: Tensor) -> Tensor:
        """What a network makes of a batch, in the chosen precision."""
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"
        ):
            return network(aliased, mask)

    def reconstruct(self, aliased: Tensor, mask: Tensor) -> Tensor:
        """The reconstruction to score: (B, T, Y, X) float32 magnitude."""
        return self.forward(self.evaluated.eval(), aliased, mask).abs()


def pass_size(batch_size: int, accumulation: int, parts: Mapping[str, Sequence[int]]) -> int:
    """Samples in one forward pass, at most, of a run with this split."""
    return -(-min(batch_size, max(map(len, parts.values()))) // accumulation)


def acceleration_range(acc: float | tuple[float, ...]) -> tuple[float, float]:
    """Lowest and highest of a setting that is one acceleration or two."""
    both = acc if isinstance(acc, tuple) else (acc, acc)
    return both[0], both[-1]


def configuration(run: Run) -> dict[str, Any]:
    """What `config.json` keeps."""
    return {
        "settings": vars(run.settings),
        "versions": runtime.versions(),
        "git_commit": runtime.git_commit(),
        "data": {
            "source": run.cine.source,
            "shape": list(run.cine.images.shape),
            "hash": run.cine.hash,
            "groups": None if run.cine.groups is None else run.cine.groups.tolist(),
        },
        "split": run.parts,
        "parameters": run.n_parameters,
        "device": runtime.hardware(run.device),
        "threads": torch.get_num_threads(),
    }


def stored_settings(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run in `folder`, to go on with; InputError if given ones contradict."""
    stored = report.read_config(folder)["settings"]
    of_checkpoint = (
        ("model", *ARCHITECTURE.get(stored.get("model"), ()))
        if stored.get("initial_weights")
        else ()
    )
    compared = {k: v for k, v in given.items() if k != "output_folder" and k not in of_checkpoint}
    return resumed_settings(stored, compared, FREE_ON_RESUME)


def report_changes(run: Run) -> None:
    """Say what differs from the machine and the versions that the run began with."""
    before, now = report.read_config(run.folder), configuration(run)
    for name in ("device", "versions", "git_commit"):
        if before.get(name) != now[name]:
            runtime.say(
                f"NOTICE: {name} was {before.get(name)} and is now {now[name]}: the run goes on,"
                " but not with the bits of one never stopped"
            )


@dataclass
class Progress:
    """Where training stands, beside the weights, the optimiser and the history."""

    step: int = 0  # steps done of the running epoch
    epoch_loss: float = 0.0  # sum of the sample losses of these steps
    epoch_seconds: float = 0.0
    best_psnr: float = -math.inf
    scores: dict[str, float] = field(default_factory=dict)  # of the last validation


def restore(run: Run, optimizer: torch.optim.Optimizer) -> Progress:
    """Go on from the last checkpoint of the folder, or save the first one.

    Raises:
        InputError: the checkpoint was made with other settings or other data.
    """
    path = run.folder / ckpt.LAST
    state = Progress()
    if not path.exists():
        if (run.folder / ckpt.BEST).exists():
            raise InputError(
                f"{run.folder} has no {ckpt.LAST} to go on from: score its {ckpt.BEST} in another"
                " folder, with --num-epochs 0 --initial-weights, or start a new run"
            )
        ckpt.save_checkpoint(path, snapshot(run, state, optimizer))
        return state
    last = ckpt.load_checkpoint(path)
    fixed = {k: v for k, v in vars(run.settings).items() if k not in FREE_ON_RESUME}
    differing = [k for k, v in fixed.items() if last["settings"].get(k) != v]
    if last["data"].get("hash") != run.cine.hash:
        differing.append("data (its values)")
    if differing:
        raise InputError(
            f"{path} was made with other {', '.join(differing)}: give the run its own data and"
            " settings back, or start a new one in another folder"
        )
    assert run.network is not None
    ckpt.load_weights(run.evaluated, last, path)
    if run.average is not None:
        ckpt.load_weights(run.network, last, path, "training_weights")
    try:
        optimizer.load_state_dict(last["optimizer"])
        ckpt.restore_random_states(last["random_states"], run.device)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path} is damaged ({error!r}): start a new run") from None
    if last["best_psnr"] > -math.inf:
        ckpt.load_checkpoint(run.folder / ckpt.BEST)  # needed at the end: better to know now
    run.history[:] = last["history"]
    for name in vars(state):
        setattr(state, name, last[name])
    return state


def snapshot(run: Run, state: Progress, optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    """A checkpoint of the run as it stands; without the optimiser, one only to be used."""
    assert run.network is not None
    s, hashes = run.settings, run.cine.hashes
    return {
        "format": ckpt.FORMAT,
        "model": s.model,
        "architecture": run.architecture,
        "weights": run.evaluated.state_dict(),
        "training_weights": run.network.state_dict() if run.average and optimizer else {},
        "settings": vars(s),
        "epoch": len(run.history),
        **vars(state),
        "history": run.history,
        "data": {
            "hash": run.cine.hash,
            "seen": {
                role: sorted(run.seen[role] | {hashes[i] for i in run.parts[part]})
                for role, part in {"trained": "train", "selected": "validation"}.items()
            },
        },
        "versions": runtime.versions(),
        "random_states": ckpt.random_states(run.device),
        "optimizer": optimizer.state_dict() if optimizer else {},
    }
