"""Checks of the settings: alone, against the initial weights, against the data, and in training."""

import itertools
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from CS_mask import PATTERNS, Condition, Sampling
from data.augmentation import AUGMENTATIONS, MOVES
from data.coils import require_calibration
from data.split import PARTS
from dataset import PHANTOM, Cine
from methods.averaging import AVERAGES
from methods.baselines import BASELINES
from methods.calibration import can_be_calibrated
from methods.start import STARTS, ZERO_FILLED
from methods.unet import BRANCHES
from model import MODELS, architecture_settings
from training.losses import LEAST_SIZE, LOSSES, OF_COMPLEX, loss_terms, loss_text
from training.optimisation import SCHEDULES
from training.run import FULL, SELF_SURE, SUPERVISIONS, several
from training.settings import Settings
from util.errors import InputError
from util.progress import counted
from util.settings import flag, require_bounds, require_choices
from util.world import World

AT_LEAST = {
    "n_samples": 1, "data_seed": 0, "in_channels": 1, "out_channels": 1, "init_features": 1,
    "num_epochs": 0, "weight_decay": 0, "batch_size": 1, "accumulation": 1, "warmup_epochs": 0,
    "seed": 0, "num_pictures": 0, "picture_dpi": 20, "validate_every": 1, "noise": 0, "stages": 1,
    "features": 1, "strip": 0, "ema": 0, "clip_gradient": 0, "dropout": 0, "dc_weight": 1e-6,
    "picture_width": 3, "stage_loss": 0, "coils": 1, "virtual_coils": 1, "mask_pool": 0,
}  # fmt: skip
AT_MOST = {
    "data_seed": 2**63 - 1, "seed": 2**63 - 1, "initial_lr": 1e6, "weight_decay": 1e6,
    "picture_dpi": 1000, "noise": 1, "dc_weight": 1e6, "stage_loss": 1, "coils": 64,
    "partial_fourier": 1, "picture_width": 20,
}  # fmt: skip
MORE_THAN = {"initial_lr": 0, "max_minutes": 0, "max_steps": 0, "partial_fourier": 0.5}
LESS_THAN = {"dropout": 1, "ema": 1}
CHOICES: dict[str, Collection[str]] = {
    "model": MODELS,
    "supervision": SUPERVISIONS,
    "lr_schedule": SCHEDULES,
    "loss": LOSSES,
    "precision": ("float32", "bfloat16"),
    "baselines": BASELINES,
    "pattern": PATTERNS,
    "augment": AUGMENTATIONS,
    "branches": BRANCHES,
    "start": STARTS,
    "arrays": ("all", "small", "none"),
    "picture_format": ("png", "pdf", "svg"),
}


def check_settings(settings: Settings) -> None:
    """Raise InputError at the first setting whose value makes no sense, whatever the data."""
    require_bounds(settings, AT_LEAST, AT_MOST, MORE_THAN, LESS_THAN)
    choices: dict[str, Collection[Any]] = {**CHOICES, "average": AVERAGES}
    if mask_file(settings["pattern"]):
        del choices["pattern"]
    names = tuple(word for word in several(settings["loss"]) if isinstance(word, str))
    require_choices({**settings, "loss": names}, choices)
    check_loss(settings)
    check_supervision(settings)
    for name in ("pattern", "acc", "sample_n", "partial_fourier", "noise"):
        if settings[name] == ():
            raise InputError(f"{flag(name)} has no value, expected one or more")
    for name in ("data", "initial_weights"):
        if settings[name] is not None and not settings[name].strip():
            raise InputError(f"{flag(name)} is empty text: name a file")
    if settings["model"] == "cascade" and settings["start"] == ZERO_FILLED:
        raise InputError(
            "--start zero_filled is not for the cascade: leave it out for the cascade's own"
        )
    if settings["data"] == PHANTOM:
        check_frames(settings["model"], settings["in_channels"], "--data phantom")
    for name in ("acc", "noise"):
        found = several(settings[name])
        if len(found) > 2 or found[0] > found[-1]:
            raise InputError(f"{flag(name)} is {found}, expected one, or a lowest and a highest")
    if settings["learn_dc_weight"] and settings["dc_weight"] is None:
        raise InputError("--learn-dc-weight needs a --dc-weight to start from, such as 10")
    if settings["cuda_graph"] and settings["gradient_checkpointing"]:
        raise InputError(
            "--cuda-graph cannot record --gradient-checkpointing: leave one of them out"
        )
    if settings["cuda_graph"] and settings["compile"]:
        raise InputError("--cuda-graph and --compile cannot be combined: leave one of them out")
    split, num_epochs = settings["split"], settings["num_epochs"]
    needed = PARTS if num_epochs else PARTS[-1:]
    if len(split) == 3 and any(not ratio for ratio in split[-len(needed) :]):
        raise InputError(
            f"--split is {split}, but with --num-epochs {num_epochs} the parts"
            f" {', '.join(needed)} must not be empty: try 4 1 2"
        )


def check_frames(model: str, n_frames: int, source: str) -> None:
    """Raise InputError if a source has too few frames for the network."""
    least = getattr(MODELS[model], "LEAST_FRAMES", 1)
    if n_frames < least:
        raise InputError(
            f"--model {model} needs at least {least} frames, but {source} has {n_frames}: choose"
            " another network, or data with more"
        )


def check_loss(settings: Settings) -> None:
    """Raise InputError if the losses have no sum, or are of complex images and these are not."""
    for name in loss_terms(settings["loss"]):
        if name not in OF_COMPLEX:
            continue
        of_phantom = settings["data"] == PHANTOM and not (settings["phase"] or settings["coils"])
        if settings["real_image"] or (settings["real_image"] is None and of_phantom):
            raise InputError(
                f"--loss {name} is for complex images, but these are assumed to be real-valued:"
                " choose another, or give --no-real-image"
            )
        can_keep = "data_consistency" in architecture_settings(settings["model"])
        if can_keep and not settings["data_consistency"]:
            raise InputError(
                f"--loss {name} is for complex images, but {settings['model']} gives magnitudes:"
                " add --data-consistency, or choose another loss"
            )


def check_supervision(settings: Settings) -> None:
    """Raise InputError if something needs the truth in training without it."""
    if settings["supervision"] == FULL:
        return
    if settings["loss"] != "mse":
        raise InputError(
            f"--loss {loss_text(settings['loss'])} compares images with the ground truth, and"
            f" --supervision {settings['supervision']} has its own loss, of hidden lines: leave"
            " --loss out"
        )
    if other := sorted(set(settings["augment"]) - set(MOVES)):
        raise InputError(
            f"--augment {' '.join(other)} changes what would have been measured, so that"
            f" --supervision self takes only {', '.join(MOVES)}: leave it out"
        )
    can_keep = "data_consistency" in architecture_settings(settings["model"])
    if can_keep and not settings["data_consistency"]:
        raise InputError(
            f"--supervision self judges hidden lines, and {settings['model']} may change the others"
            " too: add --data-consistency, which keeps them"
        )


def check_noise_supervision(settings: Settings, n_coils: int | None) -> None:
    """Raise InputError if the noise of measured lines cannot be learned; `n_coils`: None: one."""
    if settings["supervision"] != SELF_SURE or not settings["num_epochs"]:
        return
    weighs = getattr(MODELS[settings["model"]], "WEIGHS_LINES", False)
    if not (weighs or settings["dc_weight"] is not None or n_coils is not None):
        raise InputError(
            f"--supervision self_sure is for networks that may change noisy lines, but"
            f" {settings['model']} keeps them as they were measured: give --supervision self, or"
            " --model cascade with --dc-weight 10 --learn-dc-weight"
        )
    if settings["dropout"]:
        raise InputError(
            "--supervision self_sure compares two passes, which --dropout would change: leave it"
            " out"
        )


def check_undersampled(settings: Settings, named: Collection[str], cine: Cine) -> None:
    """Raise InputError if something needs the truth, which undersampled data do not have; `named`:
    settings that were given."""
    what = f"{cine.source} is undersampled k-space, without a ground truth"
    if settings["num_epochs"] and settings["supervision"] == FULL:
        raise InputError(f"{what}: give --supervision self, which trains on the measured lines")
    simulating = ("phase", "noise", "coils", "pattern", "partial_fourier", "test_acc", "lesions")
    for name in simulating:
        if name in named and settings[name]:
            raise InputError(f"{what}: {flag(name)} is for fully sampled data, leave it out")
    for sample, lines in enumerate(cine.measured.astype(np.float32)):
        mask = torch.from_numpy(lines)[None, ..., None]
        require_calibration(mask, f"{cine.source}, sample {sample}")


def check_loss_size(settings: Settings, shape: Sequence[int]) -> None:
    """Raise InputError if training images, of data (T, Y, X), are smaller than a loss's window."""
    n_frames, ny, nx = shape
    size = n_frames, ny, min(nx, settings["strip"] or nx)
    for name in loss_terms(settings["loss"]):
        least = LEAST_SIZE.get(name, (1, 1, 1))
        if any(one < needed for one, needed in zip(size, least, strict=True)):
            raise InputError(
                f"--loss {name} needs at least {least[0]} frames, {least[1]} lines and {least[2]}"
                f" columns, but the training images have {size[0]}, {size[1]} and {size[2]}:"
                " choose another loss" + (", or a wider --strip" if size[2] < least[2] else "")
            )


def check_calibration(asked_for: bool, architecture: Settings) -> None:
    """Raise InputError if there is no share of a correction to take, and it is asked for."""
    if asked_for and not can_be_calibrated(architecture):
        raise InputError(
            "--calibrate is for networks that correct a training-free start and keep the measured"
            " lines: add --start patch --data-consistency, or take the cascade"
        )


def mask_file(pattern: str | tuple[str, ...]) -> Path | None:
    """The file of masks that `--pattern` names; None: it names patterns."""
    files = [Path(name) for name in several(pattern) if Path(name).suffix]
    return files[0] if files and len(several(pattern)) == 1 else None


def check_world(settings: Settings, world: World) -> None:
    """Raise InputError if there are more processes than samples in a forward pass."""
    size = settings["batch_size"] // settings["accumulation"]
    if world.size > max(1, size):
        raise InputError(
            f"--batch-size {settings['batch_size']} with --accumulation {settings['accumulation']}"
            f" gives {size} samples to {world.size} processes: give each of them at least one, or"
            " start fewer"
        )


def check_against_data(
    settings: Settings, cine: Cine, sampling: Sampling, has_network: bool
) -> None:
    """Raise InputError if the network, the loss or the masks do not fit the data."""
    n_frames, ny, _ = cine.shape
    if has_network:
        check_frames(settings["model"], n_frames, cine.source)
    if settings["num_epochs"]:
        check_supervision(settings)
        check_loss(settings)  # what `real_image` is, the data have told by now
        check_loss_size(settings, cine.shape)
    if cine.n_coils and settings["coils"]:
        raise InputError(
            f"{cine.source} is k-space of {cine.n_coils} coils, and --coils simulates others: leave"
            " it out; --virtual-coils compresses those that there are"
        )
    if cine.n_coils and "jitter" in settings["augment"]:
        raise InputError(
            "--augment jitter is for magnitude images, not for k-space of coils: leave it out"
        )
    frames_are_channels = "in_channels" in architecture_settings(settings["model"])
    channels = settings["in_channels"], settings["out_channels"]
    if has_network and frames_are_channels and channels != (n_frames, n_frames):
        found = f"{cine.source} has {counted(n_frames, 'frame')}"
        if settings["initial_weights"]:
            raise InputError(
                f"{found}, but {settings['initial_weights']} takes {channels[0]}: use data"
                f" of {channels[0]} frames, or weights of a cascade or a cnn3d, which take any"
                " number"
            )
        raise InputError(
            f"{found}, but --in-channels is {channels[0]} and --out-channels {channels[1]}: give"
            f" both as {n_frames}"
        )
    for part, acc in itertools.product(
        sampling.parts(), (*sampling.acc, *(settings["test_acc"] or ()))
    ):
        one = part.at(Condition(part.patterns[0], acc))
        try:
            mask = one.draw((n_frames, ny), np.random.default_rng(0))
        except ValueError as error:
            raise InputError(
                f"--acc, --test-acc, --sample-n and --partial-fourier: {error}"
            ) from None
        if cine.n_coils or settings["coils"]:
            require_calibration(torch.from_numpy(mask)[None], str(one))


def check_finite(loss: float, where: str, folder: Path, initial_lr: float) -> None:
    """Raise InputError if the loss is NaN or infinite."""
    if not math.isfinite(loss):
        raise InputError(
            f"the loss is {loss} {where}; the checkpoints in {folder} are from before it: start"
            f" again in another folder with a lower --initial-lr ({initial_lr:g}), or look at"
            " these samples"
        )


def memory_advice(settings: Settings) -> str:
    """What to change if memory is short."""
    advice = [f"lower --batch-size ({settings['batch_size']})"]
    if settings["strip"]:
        advice.append(f"lower --strip ({settings['strip']})")
    elif (
        "init_features" in architecture_settings(settings["model"])
        and not settings["initial_weights"]
    ):
        advice.append(f"lower --init-features ({settings['init_features']})")
    advice.append(f"raise --accumulation ({settings['accumulation']})")
    return f"in another folder, {', '.join(advice)}, or give --gradient-checkpointing"
