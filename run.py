"""What a run is: its settings, data, split and network; checked, described, saved and restored."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

import checkpoint as ckpt
import report
import runtime
from dataset import Cine, name_list
from errors import InputError
from model import ARCHITECTURE, MODELS, count_cost
from settings import flag, resumed_settings
from split import PARTS, leakage_notice

SCHEDULES = ("cosine", "constant")
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
    # hashes of the samples that "trained", and that "selected", the weights it starts from
    seen: dict[str, set[str]] = field(default_factory=lambda: {"trained": set(), "selected": set()})
    facts: dict[str, list[str]] = field(default_factory=dict)  # the report's, lines by heading
    history: list[dict[str, float]] = field(default_factory=list)  # a dict for each epoch

    @property
    def architecture(self) -> dict[str, Any]:
        """The settings that build the network."""
        return {name: getattr(self.settings, name) for name in ARCHITECTURE}

    @property
    def pass_size(self) -> int:
        """Samples in one forward pass, at most."""
        batch_size = min(self.settings.batch_size, max(map(len, self.parts.values())))
        return -(-batch_size // self.settings.accumulation)

    @property
    def n_steps(self) -> int:
        """Optimiser steps in an epoch."""
        return -(-len(self.parts["train"]) // self.settings.batch_size)


def check_settings(s: SimpleNamespace) -> None:
    """InputError at the first setting whose value makes no sense, whatever the data."""
    at_least = {
        "n_samples": 1, "data_seed": 0, "in_channels": 1, "out_channels": 1, "init_features": 1,
        "num_epochs": 0, "weight_decay": 0, "batch_size": 1, "accumulation": 1, "warmup_epochs": 0,
        "seed": 0, "num_pictures": 0, "picture_dpi": 1, "validate_every": 1,
    }  # fmt: skip
    for name, least in at_least.items():
        value = getattr(s, name)
        if value is not None and value < least:
            raise InputError(f"{flag(name)} is {value}, expected at least {least}")
    at_most = {
        "data_seed": 2**63 - 1, "seed": 2**63 - 1, "initial_lr": 1e6, "weight_decay": 1e6,
        "picture_dpi": 1000,
    }  # fmt: skip
    for name, most in at_most.items():
        if getattr(s, name) > most:
            raise InputError(f"{flag(name)} is {getattr(s, name)}, expected at most {most}")
    for name in ("initial_lr", "max_minutes"):
        value = getattr(s, name)
        if value is not None and value <= 0:
            raise InputError(f"{flag(name)} is {value}, expected more than 0")
    for name in ("data", "initial_weights"):
        if getattr(s, name) is not None and not getattr(s, name).strip():
            raise InputError(f"{flag(name)} is empty text: name a file")
    if not 0 <= s.dropout < 1:
        raise InputError(f"--dropout is {s.dropout}, expected at least 0 and less than 1")
    for name, choices in {"model": tuple(MODELS), "lr_schedule": SCHEDULES}.items():
        if getattr(s, name) not in choices:
            raise InputError(
                f"{flag(name)} is {getattr(s, name)!r}, expected one of {', '.join(choices)}"
            )
    needed = PARTS if s.num_epochs else PARTS[-1:]
    if len(s.split) == 3 and any(not ratio for ratio in s.split[-len(needed) :]):
        raise InputError(
            f"--split is {s.split}, but with --num-epochs {s.num_epochs} the parts"
            f" {', '.join(needed)} must not be empty: try 4 1 2"
        )


def adopt_architecture(s: SimpleNamespace, initial: Mapping[str, Any], path: Path) -> None:
    """Take the model and its architecture from the checkpoint that training starts from."""
    architecture = {"model": initial["model"], **initial["architecture"]}
    if initial["model"] not in MODELS or set(initial["architecture"]) != set(ARCHITECTURE):
        raise InputError(f"{path} holds the unknown model {initial['model']!r}")
    for name, value in architecture.items():
        if getattr(s, name) != value:
            runtime.say(f"{flag(name)} is {value}, from {path}, instead of {getattr(s, name)}")
            setattr(s, name, value)


def describe(run: Run) -> dict[str, list[str]]:
    """What the report says of data, split, mask, model and machine."""
    s, cine = run.settings, run.cine
    n_frames, ny, nx = cine.shape
    n_lines = int(ny / s.acc)
    lines = {
        "Data": [
            f"{cine.source}: {len(cine.images)} samples of {n_frames} frames, {ny} x {nx} pixels,"
            f" real-valued, hash {cine.hash}",
            *cine.notices,
        ],
        "Split": [
            f"{name}: {len(part)} samples ({name_list(part)})" for name, part in run.parts.items()
        ]
        + [leakage_notice(cine, run.parts)],
        "Mask": [
            f"Cartesian, {n_lines} of {ny} lines a frame ({n_lines / ny:.1%}), {s.sample_n} of them"
            f" the centre: nominal acceleration {s.acc:g}, actual {ny / n_lines:.3g}",
            "training masks are drawn "
            + ("for every sample and epoch" if s.fresh_masks else "once for every sample")
            + f" (seed {s.seed}), validation and test masks once (data_seed {s.data_seed})",
        ],
    }
    if run.network is not None:
        cost = count_cost(s.model, run.pass_size, cine.shape, **run.architecture)
        start = f", starting from {s.initial_weights}" if s.initial_weights else ""
        lines["Model"] = [
            f"{s.model}, " + ", ".join(f"{k} {v}" for k, v in run.architecture.items()) + start,
            f"{cost.parameters:,} parameters, {cost.macs / 1e9:.1f} G multiply-accumulates a sample"
            f" (forward), {cost.activation_bytes / 1e9:.2f} GB of activations kept in a training"
            f" step on {run.pass_size} samples",
        ]
        lines["Model"] += overlaps(run)
    if s.num_epochs:
        lines["Optimisation"] = [
            f"MSE loss, Adam, {s.num_epochs} epochs, batch {s.batch_size}, weight decay"
            f" {s.weight_decay:g}, learning rate {s.initial_lr:g}, {s.lr_schedule}"
        ]
    versions = ", ".join(f"{name} {version}" for name, version in runtime.versions().items())
    lines["Machine"] = [f"{runtime.hardware(run.device)}, {versions}"]
    return lines


def overlaps(run: Run) -> list[str]:
    """Warnings that name the samples which the initial weights have seen before."""
    trained, selected = run.seen["trained"], run.seen["selected"]
    warnings = []
    for part, role, hashes in (
        ("test", "trained the checkpoint", trained),
        ("test", "selected the checkpoint (validation)", selected - trained),
        ("validation", "trained the checkpoint", trained),
    ):
        known = [i for i in run.parts[part] if run.cine.hashes[i] in hashes]
        if known:
            warnings.append(
                f"WARNING: {len(known)} of the {len(run.parts[part])} {part} samples {role} that"
                f" this run starts from: {', '.join(map(str, known))}; scores on them flatter"
            )
    return warnings


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
        },
        "split": run.parts,
        "device": runtime.hardware(run.device),
        "threads": torch.get_num_threads(),
    }


def stored_settings(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run in `folder`, to go on with; InputError if given ones contradict."""
    stored = report.read_config(folder)["settings"]
    of_checkpoint = ("model", *ARCHITECTURE) if stored.get("initial_weights") else ()
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
    ckpt.load_weights(run.network, last, path)
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
        "weights": run.network.state_dict(),
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
