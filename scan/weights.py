"""Weights for a scan: which to take, what they can take, and what they were trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from CS_mask import Sampling
from dataset import PHANTOM, PHANTOM_SIZE
from evaluation.sampling_shift import outside_lines
from methods.calibration import can_be_calibrated
from methods.start import ignores_prior
from scan.measurement import Measurement
from training import checkpoint as ckpt
from training.run import trained_noise, trained_sampling
from util.errors import InputError


@dataclass
class Weights:
    """A trained network and what is known of its training."""

    name: str
    model: str
    network: nn.Module  # ready for inference
    settings: dict[str, Any]  # of its training
    sampling: Sampling  # of its training
    needs_real: bool  # it assumes real-valued images
    gives_magnitude: bool  # of complex images
    start: str | None  # of which the share of a correction can be taken; None: it cannot
    frames: int | None  # it takes this number of frames; None: any
    shape: tuple[int, int, int] | None  # (T, Y, X) of the samples it was trained on, if known


def default_weights(measurement: Measurement) -> str:
    """The name of the weights that come with the project for such data."""
    if measurement.maps is not None:
        return ckpt.FOR_COILS
    return ckpt.FOR_REAL if measurement.is_real else ckpt.FOR_COMPLEX


def load_scan_weights(name: str, device: torch.device) -> Weights:
    """The network of a checkpoint, or of weights that come with the project.

    Raises:
        InputError: the file cannot be used.
    """
    path = ckpt.weights_file(name)
    checkpoint = ckpt.load_checkpoint(path)
    architecture = ckpt.architecture_of(checkpoint, path)
    settings = checkpoint["settings"]
    shape = checkpoint["data"].get("shape")
    if shape is None and settings.get("data") == PHANTOM:
        shape = (settings["in_channels"], *PHANTOM_SIZE)
    return Weights(
        name=name,
        model=checkpoint["model"],
        network=ckpt.network_of(checkpoint, path, device),
        settings=settings,
        sampling=trained_sampling(checkpoint),
        needs_real=architecture.get("real_image", False) and not ignores_prior(architecture),
        gives_magnitude=not architecture.get("data_consistency", True),
        start=architecture["start"] if can_be_calibrated(architecture) else None,
        frames=architecture.get("in_channels"),
        shape=None if shape is None else tuple(shape),
    )


def require_fit(weights: Weights, measurement: Measurement, adapting: bool) -> None:
    """Raise InputError if the network cannot take these data, or be fine-tuned on them."""
    n_frames = measurement.shape[0]
    if weights.needs_real and not measurement.is_real:
        raise InputError(
            f"the weights {weights.name} are for real-valued images, and these data have a phase:"
            f" give some for complex images, such as {ckpt.FOR_COMPLEX}"
        )
    if adapting and weights.gives_magnitude and not measurement.is_real:
        raise InputError(
            f"the weights {weights.name} ({weights.model} without data consistency) give"
            " magnitudes, and cannot be fine-tuned on measured lines of images with a phase: leave"
            " --adapt out, or give weights of a cascade"
        )
    if weights.frames not in (None, n_frames):
        raise InputError(
            f"the weights {weights.name} ({weights.model}) take {weights.frames} frames, and this"
            f" series has {n_frames}: give weights of a cascade, which take any number"
        )


def training_lines(weights: Weights) -> list[str]:
    """What the weights were trained on, in words."""
    s = weights.settings
    kind = "real-valued images" if weights.needs_real else "complex images"
    noise = trained_noise(s)
    added = [f"noise {noise}"] if noise.highest else []
    added += ["a synthetic phase"] if s.get("phase") else []
    added += [f"{s['coils']} simulated coils"] if s.get("coils") else []
    size = "x".join(map(str, weights.shape)) if weights.shape else "unknown"
    data = "the phantom alone" if s.get("data") == PHANTOM else Path(str(s.get("data"))).name
    return [
        f"weights {weights.name}: {weights.model} for {kind}, trained on {data} (frames x lines x"
        f" columns: {size}), {weights.sampling}"
        + (f", with {' and '.join(added)}" if added else ""),
    ]


def sampling_notes(weights: Weights, measurement: Measurement) -> list[str]:
    """How the measured lines differ from those that the weights were trained on, one per line."""
    return outside_lines(measurement.mask.cpu().numpy(), weights.sampling)


def size_notes(weights: Weights, measurement: Measurement) -> list[str]:
    """How the size differs from what the weights were trained on, one per line."""
    pairs = zip(
        ("frames", "lines", "columns"), measurement.shape, weights.shape or (), strict=False
    )
    return [
        f"outside of the training: {found} {name}, the weights were trained with {trained}"
        for name, found, trained in pairs
        if not trained / 1.5 <= found <= 1.5 * trained
    ]
