"""What a run is: its settings, data, split and network; checked, described, saved and restored."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import checkpoint as ckpt
import report
import runtime
from acquisition import AUGMENTATIONS
from baselines import BASELINES
from CS_mask import evaluation_masks, hermitian_mirror
from dataset import Cine, name_list
from errors import InputError
from model import ARCHITECTURE, MODELS, count_cost
from settings import flag, resumed_settings
from split import PARTS, leakage_notice

SCHEDULES = ("cosine", "constant")
LOSSES = ("mse", "l1")
PRECISIONS = ("float32", "bfloat16")
LEAST_DC_WEIGHT = 1e-6  # less is no data consistency
HERMITIAN_SAMPLES = 8  # masks that the Hermitian acceleration is the mean of
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
        batch_size = min(self.settings.batch_size, max(map(len, self.parts.values())))
        return -(-batch_size // self.settings.accumulation)

    @property
    def n_steps(self) -> int:
        """Optimiser steps in an epoch."""
        return -(-self.rounds * len(self.parts["train"]) // self.settings.batch_size)

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


def acceleration_range(acc: float | tuple[float, ...]) -> tuple[float, float]:
    """Lowest and highest of a setting that is one acceleration or two."""
    both = acc if isinstance(acc, tuple) else (acc, acc)
    return both[0], both[-1]


def check_settings(s: SimpleNamespace) -> None:
    """InputError at the first setting whose value makes no sense, whatever the data."""
    at_least = {
        "n_samples": 1, "data_seed": 0, "in_channels": 1, "out_channels": 1, "init_features": 1,
        "num_epochs": 0, "weight_decay": 0, "batch_size": 1, "accumulation": 1, "warmup_epochs": 0,
        "seed": 0, "num_pictures": 0, "picture_dpi": 1, "validate_every": 1, "noise": 0,
        "stages": 1, "features": 1, "strip": 1, "ema": 0,
    }  # fmt: skip
    for name, least in at_least.items():
        value = getattr(s, name)
        if value is not None and value < least:
            raise InputError(f"{flag(name)} is {value}, expected at least {least}")
    at_most = {
        "data_seed": 2**63 - 1, "seed": 2**63 - 1, "initial_lr": 1e6, "weight_decay": 1e6,
        "picture_dpi": 1000, "noise": 1, "dc_weight": 1e6,
    }  # fmt: skip
    for name, most in at_most.items():
        if getattr(s, name) is not None and getattr(s, name) > most:
            raise InputError(f"{flag(name)} is {getattr(s, name)}, expected at most {most}")
    if s.dc_weight is not None and s.dc_weight < LEAST_DC_WEIGHT:
        raise InputError(f"--dc-weight is {s.dc_weight}, expected at least {LEAST_DC_WEIGHT}")
    for name in ("initial_lr", "max_minutes", "clip_gradient"):
        value = getattr(s, name)
        if value is not None and value <= 0:
            raise InputError(f"{flag(name)} is {value}, expected more than 0")
    for name in ("data", "initial_weights"):
        if getattr(s, name) is not None and not getattr(s, name).strip():
            raise InputError(f"{flag(name)} is empty text: name a file")
    if isinstance(s.acc, tuple) and (len(s.acc) != 2 or s.acc[0] > s.acc[1]):
        raise InputError(f"--acc is {s.acc}, expected one acceleration, or a lowest and a highest")
    if not 0 <= s.dropout < 1:
        raise InputError(f"--dropout is {s.dropout}, expected at least 0 and less than 1")
    if not s.ema < 1:
        raise InputError(f"--ema is {s.ema}, expected at least 0 and less than 1")
    choices = {
        "model": tuple(MODELS), "lr_schedule": SCHEDULES, "loss": LOSSES, "precision": PRECISIONS,
        "baselines": tuple(BASELINES), "augment": AUGMENTATIONS,
    }  # fmt: skip
    for name, known in choices.items():
        value = getattr(s, name)
        for item in value if isinstance(value, tuple) else (value,):
            if item is not None and item not in known:
                raise InputError(f"{flag(name)} is {item!r}, expected one of {', '.join(known)}")
    if s.learn_dc_weight and s.dc_weight is None:
        raise InputError("--learn-dc-weight needs a --dc-weight to start from, such as 10")
    needed = PARTS if s.num_epochs else PARTS[-1:]
    if len(s.split) == 3 and any(not ratio for ratio in s.split[-len(needed) :]):
        raise InputError(
            f"--split is {s.split}, but with --num-epochs {s.num_epochs} the parts"
            f" {', '.join(needed)} must not be empty: try 4 1 2"
        )


def adopt_architecture(s: SimpleNamespace, initial: Mapping[str, Any], path: Path) -> None:
    """Take the model and its architecture from the checkpoint that training starts from."""
    architecture = {"model": initial["model"], **initial["architecture"]}
    if initial["model"] not in ARCHITECTURE:
        raise InputError(f"{path} holds the unknown model {initial['model']!r}")
    if set(initial["architecture"]) != set(ARCHITECTURE[initial["model"]]):
        raise InputError(
            f"{path} describes its {initial['model']} by {', '.join(initial['architecture'])},"
            f" expected {', '.join(ARCHITECTURE[initial['model']])}: use the version of the code"
            " that wrote it"
        )
    for name, value in architecture.items():
        if getattr(s, name) != value:
            runtime.say(f"{flag(name)} is {value}, from {path}, instead of {getattr(s, name)}")
            setattr(s, name, value)


def unused_settings(s: SimpleNamespace, signature: inspect.Signature) -> list[str]:
    """Notices of settings that were changed but mean nothing for the chosen model."""
    of_any = {name for names in ARCHITECTURE.values() for name in names} - {"in_channels"}
    unused = of_any - set(ARCHITECTURE[s.model]) - {"real_image"}  # which the baselines use too
    if s.model != "cascade":
        unused.add("gradient_checkpointing")
    changed = sorted(k for k in unused if getattr(s, k) != signature.parameters[k].default)
    return [f"NOTICE: {flag(name)} does not apply to the model {s.model}" for name in changed]


def adopt_prior(s: SimpleNamespace, cine: Cine) -> None:
    """Decide on the real-image prior where the settings leave it to the data.

    Raises:
        InputError: it is asked for, or was trained with, where images are not real.
    """
    is_real = not (cine.images.is_complex() or s.phase)
    if s.real_image is None:
        s.real_image = is_real
    if s.real_image and not is_real:
        raise InputError(
            "--real-image (of the settings, or of the initial weights) takes the images to be real,"
            " but these have a phase: give --no-real-image, and weights trained so"
        )


def describe(run: Run) -> dict[str, list[str]]:
    """What the report says of data, split, mask, model and machine."""
    s, cine = run.settings, run.cine
    n_frames, ny, nx = cine.shape
    lines = {
        "Data": [
            f"{cine.source}: {len(cine.images)} samples of {n_frames} frames, {ny} x {nx} pixels,"
            f" {'complex' if cine.images.is_complex() else 'real-valued'}, hash {cine.hash}",
            *cine.notices,
            *simulated(s),
        ],
        "Split": [
            f"{name}: {len(part)} samples ({name_list(part)})" for name, part in run.parts.items()
        ]
        + [leakage_notice(cine, run.parts)],
        "Mask": [
            *(mask_line(acc, cine.shape, s) for acc in run.tested),
            "training masks "
            + (f"of acceleration {s.acc[0]:g} to {s.acc[1]:g} " if isinstance(s.acc, tuple) else "")
            + "are drawn "
            + ("for every sample and epoch" if s.fresh_masks else "once for every sample")
            + f" (seed {s.seed}), validation and test masks once (data_seed {s.data_seed})",
            "real-image prior (each measured line tells its mirror line): "
            + ("on" if s.real_image else "off"),
        ],
    }
    if run.network is not None:
        whole = count_cost(s.model, 1, cine.shape, **run.architecture)
        trained = (n_frames, ny, min(nx, s.strip or nx))
        step = count_cost(s.model, run.pass_size, trained, **run.architecture)
        start = f", starting from {s.initial_weights}" if s.initial_weights else ""
        lines["Model"] = [
            f"{s.model}, " + ", ".join(f"{k} {v}" for k, v in run.architecture.items()) + start,
            f"{whole.parameters:,} parameters, {whole.macs / 1e9:.1f} G multiply-accumulates a"
            f" sample (forward), {step.activation_bytes / 1e9:.2f} GB of activations kept in a"
            f" training step on {run.pass_size} samples, in float32"
            + (", before gradient checkpointing" if s.gradient_checkpointing else ""),
        ]
        lines["Model"] += overlaps(run)
    if s.num_epochs:
        lines["Optimisation"] = [
            f"{s.loss} loss, Adam, {s.num_epochs} epochs of {run.n_steps} steps, batch"
            f" {s.batch_size}, weight decay {s.weight_decay:g}, learning rate {s.initial_lr:g},"
            f" {s.lr_schedule}, {s.precision}"
            + (f", strips of {s.strip} columns" if s.strip else "")
            + (f", gradient norm up to {s.clip_gradient:g}" if s.clip_gradient else "")
            + (f", augmentation {' and '.join(s.augment)}" if s.augment else "")
            + (f", moving average of the weights {s.ema:g}" if s.ema else ""),
            f"train/loss is the {s.loss} loss of what is trained on, validation/loss the mean"
            " squared error of magnitudes",
        ]
    versions = ", ".join(f"{name} {version}" for name, version in runtime.versions().items())
    lines["Machine"] = [f"{runtime.hardware(run.device)}, {versions}"]
    return lines


def simulated(s: SimpleNamespace) -> list[str]:
    """What is done to the images before they are undersampled."""
    lines = []
    if s.phase:
        lines.append(
            "given a smooth random phase, in training a new one for every sample and epoch"
        )
    if s.noise:
        lines.append(
            f"given complex Gaussian noise in k-space, standard deviation {s.noise:g} in real and"
            " imaginary part (peak of the images 1, orthonormal transform)"
        )
    return lines


def mask_line(acc: float, shape: tuple[int, int, int], s: SimpleNamespace) -> str:
    """A test mask in numbers: nominal, actual and Hermitian acceleration."""
    n_frames, ny, _ = shape
    n_lines = int(ny / acc)
    masks = evaluation_masks(range(HERMITIAN_SAMPLES), (n_frames, ny), (acc, acc), s.sample_n, 0)
    distinct = np.maximum(masks, hermitian_mirror(masks)).mean()
    return (
        f"Cartesian, {n_lines} of {ny} lines a frame ({n_lines / ny:.1%}), {s.sample_n} of them the"
        f" centre: nominal acceleration {acc:g}, actual {ny / n_lines:.3g}, and"
        f" {1 / distinct:.3g} where mirror lines count (real images)"
    )


def caveats(run: Run) -> list[str]:
    """What must be known of the scores, a line each."""
    s = run.settings
    lines = [
        "The images were undersampled retrospectively: no scanner measured these lines.",
        "The global PSNR is dominated by tissue that does not move; see moving_psnr for the heart.",
        "Where patients are not known, slices of one may be in the training and in the test part,"
        " and flatter what was trained.",
        "Scores with different definitions, masks or data must not be compared. The training-free"
        " methods have the same masks here; a network is worth its training only above the best.",
    ]
    if not run.cine.images.is_complex():
        lines.append(
            "The images come from magnitude images"
            + (" with a synthetic phase" if s.phase else " without phase")
            + (" and with synthetic noise" if s.noise else " or added noise")
            + ": every method scores better here than on raw k-space of a scanner (E. Shimron et"
            " al., 'Implicit data crimes', PNAS 2022)."
        )
    if not s.real_image and not (run.cine.images.is_complex() or s.phase):
        lines.append(
            "The real-image prior was switched off, for the training-free methods too: with it they"
            " score higher on these images."
        )
    if s.real_image:
        lines.append(
            "The real-image prior was used: real images have a Hermitian k-space, so that the"
            " nominal acceleration overstates the difficulty. It does not hold for raw k-space."
        )
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
