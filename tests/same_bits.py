"""Whether a change of the code leaves every bit of the results as it was.

    python tests/same_bits.py record folder     before the change
    python tests/same_bits.py compare folder    after it

Tiny runs of every model (with phase, noise, coils, strips, average, augmentation, bfloat16) and a
reconstruction. Compared are `metrics.csv`, `lesions.csv`, the history without its times, and a hash
of the weights; on one machine, because others round differently. Not a test of the suite.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]
os.environ["CINE_CACHE"] = tempfile.mkdtemp()  # nothing is remembered from another version

from phantom.cached import load_phantom  # noqa: E402
from reconstruct import reconstruct_scan  # noqa: E402
from train import train  # noqa: E402

SHAPE = (8, 40, 48)  # T, Y, X
COMMON = {
    "in_channels": 8, "out_channels": 8, "init_features": 4, "num_epochs": 3, "batch_size": 2,
    "sample_n": 4, "acc": 4.0, "num_pictures": 1, "picture_dpi": 20, "arrays": "none",
    "device": "cpu", "precision": "float32", "baselines": ("zero_filled", "view_sharing"),
}  # fmt: skip
CASCADE = COMMON | {
    "model": "cascade", "stages": 2, "features": 4, "initial_lr": 2e-3, "weight_decay": 0.0,
    "strip": 0, "clip_gradient": 0.0, "ema": 0.0, "stage_loss": 0.0,
}  # fmt: skip
STRIPS = {"strip": 16, "clip_gradient": 0.01, "ema": 0.9}
RUNS = {
    "unet": COMMON | {"model": "unet", "baselines": None, "lesions": True},
    "unet_resnet": COMMON | {"start": "kt_sparse", "data_consistency": True, "average": 2},
    "unet_shared": COMMON
    | {"model": "unet", "branches": "shared", "attention": True, "loss": "l1", "accumulation": 2},
    "cnn3d": COMMON | {"model": "cnn3d", "dropout": 0.3, "acc": (3.0, 5.0), "mask_pool": 1},
    "cascade": CASCADE | STRIPS | {"augment": ("flips", "time", "shift"), "test_acc": (3.0, 4.0)},
    "noise": CASCADE | STRIPS | {"phase": True, "noise": 0.01, "dc_weight": 10.0, "average": 2},
    "learnt": CASCADE | {"noise": 0.01, "dc_weight": 5.0, "learn_dc_weight": True},
    "stages": CASCADE | STRIPS | {"stage_loss": 0.1, "gradient_checkpointing": True},
    "coils": CASCADE | STRIPS | {"coils": 4, "virtual_coils": 3, "noise": 0.005},
    "bfloat16": CASCADE | STRIPS | {"precision": "bfloat16", "lesions": True},
    "shipped": COMMON | {"num_epochs": 0, "initial_weights": "cascade_phantom", "batch_size": 1},
}  # fmt: skip
WITHOUT = ("seconds", "peak_memory")  # of the history: they differ between runs


def record(folder: Path) -> None:
    """Make all runs."""
    folder.mkdir(parents=True)
    data = folder / "cine.npz"
    images = load_phantom(8, SHAPE, seed=3)
    np.savez(data, dataset=images)
    for name, settings in RUNS.items():
        train(folder / name, data=str(data), **settings)
    np.savez(folder / "scan.npz", dataset=images[:2])
    reconstruct_scan(folder / "scan.npz", folder / "scan", acc=4.0, sample_n=4, device="cpu")


def contents(folder: Path) -> dict[str, str]:
    """What is compared of a run, by name."""
    found = {
        file.name: file.read_text()
        for file in (folder / "metrics.csv", folder / "lesions.csv")
        if file.exists()
    }
    best = folder / "checkpoint_best.pt"
    if best.exists():
        checkpoint = torch.load(best, weights_only=True)
        found["weights"] = str([v.double().sum().item() for v in checkpoint["weights"].values()])
        found["history"] = str(
            [{k: v for k, v in one.items() if k not in WITHOUT} for one in checkpoint["history"]]
        )
    return found


def compare(folder: Path) -> bool:
    """Make all runs again, and print which files differ."""
    with tempfile.TemporaryDirectory() as name:
        again = Path(name) / "runs"
        record(again)
        differing = []
        for run in (*RUNS, "scan"):
            before, now = contents(folder / run), contents(again / run)
            differing += [f"{run}/{k}" for k in before | now if before.get(k) != now.get(k)]
            print(f"{run}: {', '.join(now)}")
    print("all equal" if not differing else f"differing: {', '.join(differing)}")
    return not differing


if __name__ == "__main__":
    command, place = sys.argv[1], Path(sys.argv[2])
    if command == "record":
        record(place)
    else:
        sys.exit(0 if compare(place) else 1)
