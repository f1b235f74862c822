"""Checks of the settings: alone, against the initial weights, and against the data."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from acquisition import AUGMENTATIONS
from baselines import BASELINES
from dataset import Cine
from errors import InputError
from model import ARCHITECTURE, MODELS
from runtime import say
from settings import flag
from split import PARTS

AT_LEAST = {
    "n_samples": 1, "data_seed": 0, "in_channels": 1, "out_channels": 1, "init_features": 1,
    "num_epochs": 0, "weight_decay": 0, "batch_size": 1, "accumulation": 1, "warmup_epochs": 0,
    "seed": 0, "num_pictures": 0, "picture_dpi": 1, "validate_every": 1, "noise": 0, "stages": 1,
    "features": 1, "strip": 1, "ema": 0, "dropout": 0, "dc_weight": 1e-6,
}  # fmt: skip
AT_MOST = {
    "data_seed": 2**63 - 1, "seed": 2**63 - 1, "initial_lr": 1e6, "weight_decay": 1e6,
    "picture_dpi": 1000, "noise": 1, "dc_weight": 1e6,
}  # fmt: skip
MORE_THAN = {"initial_lr": 0, "max_minutes": 0, "clip_gradient": 0}
LESS_THAN = {"dropout": 1, "ema": 1}
CHOICES = {
    "model": tuple(MODELS),
    "lr_schedule": ("cosine", "constant"),
    "loss": ("mse", "l1"),
    "precision": ("float32", "bfloat16"),
    "baselines": tuple(BASELINES),
    "augment": AUGMENTATIONS,
    "branches": ("separate", "shared", "stacked"),
}


def check_settings(s: SimpleNamespace) -> None:
    """InputError at the first setting whose value makes no sense, whatever the data."""
    for bounds, expected, holds in (
        (AT_LEAST, "at least", lambda value, bound: value >= bound),
        (AT_MOST, "at most", lambda value, bound: value <= bound),
        (MORE_THAN, "more than", lambda value, bound: value > bound),
        (LESS_THAN, "less than", lambda value, bound: value < bound),
    ):
        for name, bound in bounds.items():
            value = getattr(s, name)
            if value is not None and not holds(value, bound):
                raise InputError(f"{flag(name)} is {value}, expected {expected} {bound}")
    for name, known in CHOICES.items():
        value = getattr(s, name)
        for item in value if isinstance(value, tuple) else (value,):
            if item is not None and item not in known:
                raise InputError(f"{flag(name)} is {item!r}, expected one of {', '.join(known)}")
    for name in ("data", "initial_weights"):
        if getattr(s, name) is not None and not getattr(s, name).strip():
            raise InputError(f"{flag(name)} is empty text: name a file")
    if isinstance(s.acc, tuple) and (len(s.acc) != 2 or s.acc[0] > s.acc[1]):
        raise InputError(f"--acc is {s.acc}, expected one acceleration, or a lowest and a highest")
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
            say(f"{flag(name)} is {value}, from {path}, instead of {getattr(s, name)}")
            setattr(s, name, value)


def unused_settings(s: SimpleNamespace, signature: inspect.Signature) -> list[str]:
    """Notices of settings that were changed but mean nothing for the chosen model."""
    of_any = {name for names in ARCHITECTURE.values() for name in names} - {"in_channels"}
    unused = of_any - set(ARCHITECTURE[s.model]) - {"real_image"}  # which the baselines use too
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
