"""The settings of a run, completed by its initial weights, its network and its data."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dataset import Cine
from evaluation.sampling_shift import mask_figures
from methods.start import PATCH, ZERO_FILLED, ignores_prior
from model import MODELS, NEUTRAL, architecture_settings, own_settings
from training.checkpoint import architecture_of
from training.run import several
from util.errors import InputError
from util.progress import counted, say
from util.settings import flag

Settings = Mapping[str, Any]  # the keywords of train()
MASK_POOL = 4  # masks of a sample, where their starts take longer than the network


def with_architecture(settings: Settings, checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """The settings with the model and architecture of the checkpoint that training starts from."""
    architecture = architecture_of(checkpoint, path)
    if ignores_prior(architecture):
        del architecture["real_image"]  # which such a network does not use: the data decide
    elif settings["start"] not in (None, ZERO_FILLED) and "start" in architecture:
        del architecture["start"]  # weights fit every start but that
    return {**settings, "model": checkpoint["model"], **architecture}


def architecture_changes(settings: Settings, checkpoint: dict[str, Any], path: Path) -> list[str]:
    """Notices of the settings that `with_architecture` changes."""
    return [
        f"{flag(name)} is {value}, from {path}, instead of {settings[name]}"
        for name, value in with_architecture(settings, checkpoint, path).items()
        if settings[name] not in (value, None)
    ]


def unused_settings(settings: Settings, defaults: Mapping[str, Any]) -> list[str]:
    """Notices of settings that were changed but mean nothing for the chosen model."""
    of_any = {name for model in MODELS for name in architecture_settings(model)}
    unused = of_any - set(architecture_settings(settings["model"]))
    unused -= {"in_channels", "real_image"}  # which the phantom and the baselines use too
    changed = sorted(
        name for name in unused if settings[name] not in (defaults[name], NEUTRAL.get(name))
    )
    model = settings["model"]
    return [f"NOTICE: {flag(name)} does not apply to the model {model}" for name in changed]


def unused_with_data(settings: Settings, cine: Cine) -> list[str]:
    """Notices of settings that mean nothing for these data."""
    n_coils, virtual = cine.n_coils or settings["coils"], settings["virtual_coils"]
    lines = []
    if virtual is not None and (n_coils is None or virtual >= n_coils):
        found = "no coils" if n_coils is None else counted(n_coils, "coil")
        lines.append(f"NOTICE: --virtual-coils {virtual} does nothing: the data have {found}")
    if cine.n_coils and settings["normalise"]:
        lines.append("NOTICE: --normalise does nothing: k-space is always scaled by its image")
    return lines


def with_own_values(settings: Settings) -> dict[str, Any]:
    """The settings, with the network's own values of those of training that were not given."""
    own = own_settings(settings["model"])
    settings = {**settings, **{name: own[name] for name in own if settings[name] is None}}
    if settings["mask_pool"] is None:
        settings["mask_pool"] = MASK_POOL if settings["start"] == PATCH else 0
    return settings


def with_channels(settings: Settings, named: Collection[str], cine: Cine) -> dict[str, Any]:
    """The settings with the data's number of frames as channels, unless these were `named`."""
    n_frames, _, _ = cine.shape
    free = [
        k for k in ("in_channels", "out_channels") if k in architecture_settings(settings["model"])
    ]
    if not free or {*free} & {*named} or all(settings[name] == n_frames for name in free):
        return dict(settings)
    found = counted(n_frames, "frame")
    say(f"{cine.source} has {found}: --in-channels and --out-channels are {n_frames}")
    return {**settings, **dict.fromkeys(free, n_frames)}


def with_given_masks(
    settings: Settings, named: Collection[str], masks: np.ndarray
) -> dict[str, Any]:
    """The settings with the acceleration and the centre that masks (N, T, Y) of a file have.

    Raises:
        InputError: other values of them were `named`, or they are to be cut.
    """
    if several(settings["partial_fourier"]) != (1,):
        raise InputError("--partial-fourier is not for the masks of a file: cut them there")
    found = mask_figures(masks[..., None])
    of_masks = {"acc": round(found.acceleration, 2), "test_acc": None, "sample_n": found.centre}
    for name, value in of_masks.items():
        if name in named and settings[name] != value:
            raise InputError(
                f"{flag(name)} is {settings[name]}, and --pattern is a file, whose masks have"
                f" {value}: leave {flag(name)} out"
            )
    return {**settings, **of_masks}


def real_image_prior(real_image: bool | None, phase: bool, cine: Cine) -> bool:
    """Whether to assume real-valued images; decided by the data if the setting is None. `phase`:
    the images will get one, for example that of simulated coils.

    Raises:
        InputError: the prior is asked for, or was trained with, but the images have a phase.
    """
    is_real = not (cine.images.is_complex() or phase)
    if real_image and not is_real:
        raise InputError(
            "--real-image (of the settings, or of the initial weights) assumes real-valued images,"
            " but these have a phase: give --no-real-image, and weights trained so"
        )
    return is_real if real_image is None else real_image
