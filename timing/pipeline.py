"""The time of what surrounds the networks: data, masks, undersampling, scores, pictures, files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from CS_mask import training_masks
from data.quality import measure, thumbnail
from data.split import near_duplicates, split_counts
from dataset import KEY, PHANTOM_SAMPLES, load_cine
from evaluation.scoring import VALIDATION_SCORES
from metrics import scores_of
from physics.fourier import undersample
from report.pictures import write_pictures
from timing.clock import Clock, Row
from timing.speed import INFERENCE, TRAINING, Settings, Setup, Subject, acquisition_of, random_batch
from training.checkpoint import FORMAT, KEYS, load_checkpoint, save_checkpoint

RUN, EPOCH = "a run", "an epoch"
LOADING, SEARCH = GROWING_PARTS = ("loading a compressed .npz", "search for near-duplicates")


@dataclass(frozen=True)
class Part:
    """A part of the pipeline, timed on some samples and needed for others."""

    name: str
    once_in: str  # RUN or EPOCH
    needed: int  # samples of a run with the default settings, or files
    measured: int  # samples that `call` is about, or files
    call: Callable[[], Any]


def pipeline_rows(
    folder: Path,
    n_samples: int,
    setup: Setup,
    settings: Settings,
    epoch: float | None,
    clock: Clock,
) -> list[Row]:
    """Time the parts of the pipeline, and scale them to a run with the default settings.

    Args:
        folder: for temporary files.
        n_samples: samples of the file that is loaded and searched; some calls take fewer.
        setup: of the network whose checkpoint is written; its frames and size are the samples'.
        epoch: of `epoch_seconds`.
    """
    with TemporaryDirectory(dir=folder) as name:
        parts = _parts(Path(name), n_samples, setup, settings, clock.device)
        results = clock.in_turn({part: part.call for part in parts}, "pipeline")
    rows: list[Row] = []
    if epoch is not None:
        steps = f"steps of {setup.model}, width {setup.width}"
        rows.append({"group": "pipeline", "part": steps, "once_in": EPOCH, "in_a_run": epoch})
    for part in parts:
        row = {"part": part.name, "value": part.measured, **results[part]}
        row |= {"frames": setup.frames, "size": setup.size}
        if part.name in GROWING_PARTS:
            rows.append({"group": "growth", "axis": "samples", **row})
        if part.name not in GROWING_PARTS or part.measured == n_samples:
            if "seconds" in row:
                row["in_a_run"] = row["seconds"] / part.measured * part.needed
            row |= {"group": "pipeline", "once_in": part.once_in, "needed": part.needed}
            rows.append(row)
    for row in rows:
        if epoch is not None and "in_a_run" in row:
            row["of_epoch"] = row["in_a_run"] / epoch
    return rows


def epoch_seconds(speed: Sequence[Row], settings: Settings) -> float | None:
    """Seconds of training and validation steps in an epoch with the default split, by the widest
    default network in the first precision; None if it was not measured."""
    rows = [row for row in speed if row["model"] == settings["model"] and "seconds" in row]
    if not rows:
        return None
    widest = max(rows, key=lambda row: row["width"])  # the first of these
    seconds = {
        row["mode"]: row["seconds"] / row["batch_size"]
        for row in rows
        if (row["width"], row["precision"]) == (widest["width"], widest["precision"])
    }
    n_train, n_validation, _ = split_counts(PHANTOM_SAMPLES, settings["split"])
    return n_train * seconds[TRAINING] + n_validation * seconds[INFERENCE]


def _parts(
    folder: Path, n_samples: int, setup: Setup, settings: Settings, device: torch.device
) -> list[Part]:
    parts = []

    def add(
        name: str, once_in: str, needed: int, measured: int, call: Callable, *arguments
    ) -> None:
        parts.append(Part(name, once_in, needed, measured, partial(call, *arguments)))

    shape = (n_samples, setup.frames, setup.size, setup.size)
    images = torch.randint(256, shape) / 255  # as many gray values as images of a scanner have
    thumbnails = torch.stack([thumbnail(sample) for sample in images])
    for n in sorted({max(1, n_samples // 4), max(1, n_samples // 2), n_samples}):
        file = str(folder / f"{n}.npz")
        np.savez_compressed(file, **{KEY: images[:n].numpy()})  # type: ignore[arg-type]
        add(LOADING, RUN, PHANTOM_SAMPLES, n, load_cine, file, None, False, False, 0, 0)
        add(SEARCH, RUN, PHANTOM_SAMPLES, n, near_duplicates, thumbnails[:n])
    add("checks of the data", RUN, PHANTOM_SAMPLES, n_samples, measure, images)

    n_train, n_validation, n_test = split_counts(PHANTOM_SAMPLES, settings["split"])
    batch = random_batch(images[: settings["batch_size"]], settings, device)
    n, a = len(batch.samples), acquisition_of(settings, setup.size)
    draws = [(0, sample) for sample in range(n_train)]
    add("masks", EPOCH, n_train, n_train, training_masks, draws, shape[1:3], a.acc, a.sample_n, 0)
    add("undersampling", EPOCH, n_train, n, undersample, batch.image, batch.mask)
    pair = batch.aliased.abs(), batch.target
    add("scores in validation", EPOCH, n_validation, n, scores_of, *pair, VALIDATION_SCORES)
    add("scores of a method in the test", RUN, n_test, n, scores_of, *pair)

    target, aliased = images[0].numpy(), pair[0][0].cpu().numpy()
    made = {"zero_filled": aliased, setup.model: aliased}
    drawing = folder, 0, target, made, setup.model, settings["picture_dpi"]
    add("pictures of all frames", RUN, settings["num_pictures"], 1, write_pictures, *drawing)
    path, content = folder / "checkpoint.pt", checkpoint_of(setup, settings, device)
    add("saving a checkpoint", EPOCH, 1, 1, save_checkpoint, path, content)
    add("loading a checkpoint", RUN, 1, 1, load_checkpoint, path)
    return parts


def checkpoint_of(setup: Setup, settings: Settings, device: torch.device) -> dict[str, Any]:
    """A checkpoint to continue from, as large as one of a run."""
    subject = Subject(setup, settings, device)
    subject.step(TRAINING, "float32")  # which makes the moments of the optimiser
    return {name: kind() for name, kind in KEYS.items()} | {
        "format": FORMAT,
        "weights": subject.network.state_dict(),
        "optimizer": subject.optimizer.state_dict(),
        "data": {"seen": {"trained": [], "selected": []}},
    }
