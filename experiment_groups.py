"""The groups of experiments: which rows there are, and what each changes in its control.

A new experiment is a group, or a row, in `GROUPS`. The settings are those of `train()`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from comparison import Result
from model import ARCHITECTURE, build_model

MEMORY = "memory"  # a group that belongs to "cnn3d": every model for one epoch, with one seed
RATES = "learning_rate"  # a group without runs: the rate is drawn
NETWORK_1, NETWORK_2 = {"model": "unet"}, {"model": "unet_resnet"}


@dataclass(frozen=True)
class Group:
    """Rows that are compared with one of them.

    What a row changes: values of settings, or functions of all other settings that give one.
    """

    title: str
    control: str | None  # one of the rows; None: nothing is compared
    rows: dict[str, dict[str, Any]]
    base: dict[str, Any] = field(default_factory=dict)  # what all its rows have


@dataclass
class Row:
    """A row of a group: its settings, its runs, and what came of them."""

    group: str
    name: str
    settings: dict[str, Any]
    folder: Path  # of its runs
    results: dict[int, Result] = field(default_factory=dict)  # by seed
    failure: str = ""  # why the last seed that failed has none


def wider(settings: Mapping[str, Any]) -> int:
    """The least `init_features` that give network 1 as many parameters as network 2 has."""

    def parameters(model: str, init_features: int) -> int:
        architecture = {name: settings[name] for name in ARCHITECTURE[model]}
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
        "Optimisation of network 1, as in the reference's table",
        control="without optimisation",
        base={**NETWORK_1, "lr_schedule": "constant", "weight_decay": 0.0, "dropout": 0.0},
        rows={
            "without optimisation": {},
            "weight decay": {"weight_decay": 1e-4},
            "dropout": {"dropout": 0.3},
            "dynamic learning rate": {"lr_schedule": "cosine"},
        },
    ),
    "refiner": Group(
        "What the refiner is worth, and what its parameters are worth as width",
        control="network 1",
        base=NETWORK_1,
        rows={
            "network 1": {},
            "network 2": NETWORK_2,
            "network 1, wider": {"init_features": wider},
        },
    ),
    "branches": Group(
        "U-Nets for real and imaginary part",
        control="two U-Nets",
        base=NETWORK_1,
        rows={
            "two U-Nets": {"branches": "separate"},
            "one, for each part in turn": {"branches": "shared"},
            "one, parts stacked": {"branches": "stacked"},
        },
    ),
    "batch_norm": Group(
        "Batch normalisation, network 1",
        control="with batch norm",
        base=NETWORK_1,
        rows={"with batch norm": {"batch_norm": True}, "without": {"batch_norm": False}},
    ),
    "augmentation": Group(
        "The reference's augmentations, network 1",
        control="none",
        base=NETWORK_1,
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
        control="network 1",
        base=NETWORK_1,
        rows={"network 1": {}, "3-D U-Net": {"model": "cnn3d"}},
    ),
    "beyond": Group(
        "Beyond the reference, against network 2",
        control="network 2",
        base=NETWORK_2,
        rows={
            "network 2": {},
            "attention at the bottom": {"attention": True},
            "L1 loss": {"loss": "l1"},
            "fixed masks": {"fresh_masks": False},
            "data consistency": {"data_consistency": True},
            "cascade": {"model": "cascade"},
        },
    ),
    "acceleration": Group(
        "Acceleration, network 2; every row has masks of its own",
        control="6",
        base={**NETWORK_2, "test_acc": None},
        rows={
            "4": {"acc": 4},
            "5, 11 centre lines": {"acc": 5, "sample_n": 11},
            "6": {"acc": 6},
            "8": {"acc": 8},
            "10": {"acc": 10},
        },
    ),
    MEMORY: Group(
        "Peak memory of an epoch of ten samples of the phantom",  # which has no patients to heed
        control=None,
        base={
            "data": "phantom", "complex_pairs": False, "n_samples": 12, "split": (10, 1, 1),
            "num_epochs": 1, "baselines": ("zero_filled",),
        },
        rows={
            f"{model}, batch {size}{', checkpointing' if again else ''}": {
                "model": model, "batch_size": size, "gradient_checkpointing": again
            }
            for model in ARCHITECTURE for size in (1, 10) for again in (False, True)
        },
    ),
}  # fmt: skip
