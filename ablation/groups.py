"""The groups of experiments: their rows, and the settings that each row changes.

To add an experiment, add a group or a row to `GROUPS`. The settings are those of `train()`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ablation.results import Result
from CS_mask import PATTERNS
from model import MODELS, architecture_settings, build_model

MEMORY = "memory"  # a group that belongs to "cnn3d": every model for one epoch, with one seed
PRECISIONS = {name: {"precision": name} for name in ("float32", "bfloat16")}
UNET, UNET_RESNET = {"model": "unet"}, {"model": "unet_resnet"}
CASCADE = {  # its small gradients need another rate, and no weight decay
    "model": "cascade", "strip": 32, "initial_lr": 2e-3, "weight_decay": 0.0,
    "clip_gradient": 0.01, "ema": 0.99, "stage_loss": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Rows that are compared with one of them, the control.

    A row changes settings, each to a value or to a function of the group's settings.
    """

    title: str
    control: str | None  # one of the rows; None: nothing is compared
    rows: dict[str, dict[str, Any]]
    base: dict[str, Any] = field(default_factory=dict)  # settings of all its rows


@dataclass
class Experiment:
    """A row of a group: its settings, its runs and their results."""

    group: str
    name: str
    settings: dict[str, Any]
    folder: Path  # of its runs
    results: dict[int, Result] = field(default_factory=dict)  # by seed
    failure: str = ""  # reason of the last failed seed


def width_matching(settings: Mapping[str, Any]) -> int:
    """The smallest `init_features` with which `unet` has as many parameters as `unet_resnet`."""

    def parameters(model: str, init_features: int) -> int:
        architecture = {name: settings[name] for name in architecture_settings(model)}
        with torch.device("meta"):
            network = build_model(model, **architecture | {"init_features": init_features})
        return sum(parameter.numel() for parameter in network.parameters())

    features = settings["init_features"]
    wanted = parameters("unet_resnet", features)
    while parameters("unet", features) < wanted:
        features += 1
    return features


GROUPS = {
    "base": Group(
        "Optimisation of the U-Nets, as in the reference's table",
        control="without optimisation",
        base={**UNET, "lr_schedule": "constant", "weight_decay": 0.0, "dropout": 0.0},
        rows={
            "without optimisation": {},
            "weight decay": {"weight_decay": 1e-4},
            "dropout": {"dropout": 0.3},
            "dynamic learning rate": {"lr_schedule": "cosine"},
        },
    ),
    "refiner": Group(
        "The refiner, against a wider U-Net with at least as many parameters",
        control="unet",
        base=UNET,
        rows={
            "unet": {},
            "unet_resnet": UNET_RESNET,
            "unet, wider": {"init_features": width_matching},
        },
    ),
    "branches": Group(
        "U-Nets for real and imaginary part",
        control="two U-Nets",
        base=UNET,
        rows={
            "two U-Nets": {"branches": "separate"},
            "one, for each part in turn": {"branches": "shared"},
            "one, parts stacked": {"branches": "stacked"},
        },
    ),
    "batch_norm": Group(
        "Batch normalisation, unet",
        control="with batch norm",
        base=UNET,
        rows={"with batch norm": {"batch_norm": True}, "without": {"batch_norm": False}},
    ),
    "augmentation": Group(
        "The reference's augmentations, unet",
        control="none",
        base=UNET,
        rows={
            "none": {"augment": ()},
            "horizontal flip": {"augment": ("horizontal_flip",)},
            "brightness and contrast": {"augment": ("jitter",)},
            "Gaussian blur": {"augment": ("blur",)},
            "affine": {"augment": ("affine",)},
            "all four": {"augment": ("horizontal_flip", "jitter", "blur", "affine")},
        },
    ),
    "cnn3d": Group(
        "Convolution over time",
        control="unet",
        base=UNET,
        rows={"unet": {}, "3-D U-Net": {"model": "cnn3d"}},
    ),
    "beyond": Group(
        "Beyond the reference, against unet_resnet",
        control="unet_resnet",
        base=UNET_RESNET,
        rows={
            "unet_resnet": {},
            "attention at the bottom": {"attention": True},
            "L1 loss": {"loss": "l1"},
            "fixed masks": {"mask_pool": 1},
            "data consistency": {"data_consistency": True},
            "cascade": CASCADE,
        },
    ),
    "loss": Group(
        "Training losses of unet_resnet, with what is kept of small lesions",
        control="mse",
        base={**UNET_RESNET, "lesions": True},
        rows={
            "mse": {"loss": "mse"},
            "l1": {"loss": "l1"},
            "charbonnier": {"loss": "charbonnier"},
            "mse and ssim": {"loss": ("mse", 1.0, "ssim", 0.01)},
            "mse and ssim_2d": {"loss": ("mse", 1.0, "ssim_2d", 0.01)},
            "mse and hfen": {"loss": ("mse", 1.0, "hfen", 3.0)},
            "kspace": {"loss": "kspace"},
            "mse and moving": {"loss": ("mse", 1.0, "moving", 1.0)},
        },
    ),
    "start": Group(
        "What unet_resnet corrects, with and without data consistency",
        control="zero_filled",
        base=UNET_RESNET,
        rows={
            "zero_filled": {},
            "view_sharing": {"start": "view_sharing"},
            "kt_sparse": {"start": "kt_sparse"},
            "patch": {"start": "patch"},
            "zero_filled, data consistency": {"data_consistency": True},
            "view_sharing, data consistency": {"start": "view_sharing", "data_consistency": True},
            "kt_sparse, data consistency": {"start": "kt_sparse", "data_consistency": True},
            "patch, data consistency": {"start": "patch", "data_consistency": True},
        },
    ),
    "acceleration": Group(
        "Acceleration, unet_resnet; the masks differ between the rows",
        control="6",
        base={**UNET_RESNET, "test_acc": None},
        rows={
            "4": {"acc": 4},
            "5, 11 centre lines": {"acc": 5, "sample_n": 11},
            "6": {"acc": 6},
            "8": {"acc": 8},
            "10": {"acc": 10},
        },
    ),
    "pattern": Group(
        "Pattern of the lines, unet_resnet; the masks differ between the rows",
        control="gaussian",
        base=UNET_RESNET,
        rows={
            **{pattern: {"pattern": pattern} for pattern in PATTERNS},
            "equispaced, no centre": {"pattern": "equispaced", "sample_n": 0},
            "gaussian, 0.75 partial Fourier": {"partial_fourier": 0.75},
        },
    ),
    "precision": Group(
        "Precision of unet_resnet that starts from k-t sparse",
        control="float32",
        base={**UNET_RESNET, "start": "kt_sparse", "data_consistency": True},
        rows=PRECISIONS,
    ),
    "precision_cascade": Group(
        "Precision of the cascade, trained on strips",
        control="float32",
        base={**CASCADE, "num_epochs": 20},
        rows=PRECISIONS,
    ),
    MEMORY: Group(
        "Peak memory of an epoch of ten samples of the phantom",
        control=None,
        base={
            "data": "phantom", "complex_pairs": False, "n_samples": 12, "split": (10, 1, 1),
            "num_epochs": 1, "baselines": ("zero_filled",),
        },
        rows={
            f"{model}, batch {size}{', checkpointing' if again else ''}": {
                "model": model, "batch_size": size, "gradient_checkpointing": again
            }
            for model in MODELS for size in (1, 10) for again in (False, True)
        },
    ),
}  # fmt: skip
