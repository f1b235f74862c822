"""Scoring: any methods on the same samples with the same masks.

A method is a function of `(aliased, mask)`, as networks and training-free methods are: the aliased
image (B, T, Y, X) complex64 and its centred mask (B, T, Y, 1) to images (B, T, Y, X), whose
magnitude is scored. Of several coils it is one of `(aliased, mask, maps)` (see `model.py`). A row
of scores is a dict: `sample`, `acc`, `method`, and the scores.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.baselines import BASELINES, Method
from metrics import SCORES, psnr, scores_of
from model import run_stages
from training.batches import Batch
from util.world import ALONE, World

Row = dict[str, Any]

VALIDATION_SCORES = ("loss", "psnr", "ssim")


@dataclass
class Scored:
    """A batch with the reconstructions of some methods, and their scores."""

    batch: Batch
    images: dict[str, Tensor]  # (B, T, Y, X) float32 magnitudes by method
    rows: list[Row]  # one for each method and sample

    def to(self, device: torch.device | str) -> "Scored":
        """The same on another device."""
        images = {name: images.to(device) for name, images in self.images.items()}
        return Scored(self.batch.to(device), images, self.rows)


def score(methods: Mapping[str, Method], batches: Iterable[Batch]) -> list[Row]:
    """Scores of all methods on all samples: rows of `metrics.csv`."""
    return [row for scored in score_batches(methods, batches) for row in scored.rows]


@torch.no_grad()
def score_batches(methods: Mapping[str, Method], batches: Iterable[Batch]) -> Iterator[Scored]:
    """Each batch with its reconstructions and scores, computed one batch at a time."""
    for batch in batches:
        images = {name: _magnitude(name, method, batch) for name, method in methods.items()}
        rows = []
        for name, reconstruction in images.items():
            scores = scores_of(reconstruction, batch.target)
            columns = {key: values.tolist() for key, values in scores.items()}
            for i, sample in enumerate(batch.samples):
                values = {key: column[i] for key, column in columns.items()}
                rows.append({"sample": sample, "acc": batch.acc, "method": name, **values})
        yield Scored(batch, images, rows)


@torch.no_grad()
def seconds_of(method: Method, batch: Batch) -> float:
    """Seconds that a method takes for a sample, without scores."""
    started = time.perf_counter()
    method(*batch.measured).abs().sum().item()  # which waits for a GPU
    return (time.perf_counter() - started) / len(batch.samples)


def _magnitude(name: str, method: Method, batch: Batch) -> Tensor:
    """The magnitude of a method's images; ValueError unless they have the shape of the target."""
    images = method(*batch.measured)
    if not isinstance(images, Tensor) or images.shape != batch.target.shape:
        found = tuple(images.shape) if hasattr(images, "shape") else type(images).__name__
        raise ValueError(
            f"the method {name} returned {found}, expected a tensor of shape"
            f" {tuple(batch.target.shape)} (B, T, Y, X)"
        )
    return images.abs()


@dataclass
class Example:
    """A sample of the validation part, for pictures: (T, Y, X) float32 each."""

    sample: int
    aliased: Tensor
    reconstruction: Tensor
    target: Tensor


@torch.no_grad()
def validate(
    method: Method, batches: Iterable[Batch], n_examples: int, world: World = ALONE
) -> tuple[dict[str, float], list[Example]]:
    """Mean validation scores over all samples, and the first `n_examples` samples.

    `batches`: the share of this process, of whose samples the examples are.
    """
    values: dict[str, list[Tensor]] = {name: [] for name in VALIDATION_SCORES}
    examples: list[Example] = []
    for batch in batches:
        images, target = method(*batch.measured).abs(), batch.target
        for name, column in scores_of(images, target, VALIDATION_SCORES).items():
            values[name].append(column)
        if shown := batch.samples[: n_examples - len(examples)]:
            aliased = batch.combined.abs()
            examples += [Example(k, aliased[i], images[i], target[i]) for i, k in enumerate(shown)]
    share = {
        name: torch.cat(columns).tolist() if columns else [] for name, columns in values.items()
    }
    scores = {name: torch.tensor(world.merged(share[name])) for name in VALIDATION_SCORES}
    return {name: column.mean().item() for name, column in scores.items()}, examples


@torch.no_grad()
def psnr_by_stage(network: nn.Module, batches: Iterable[Batch], precision: str) -> list[float]:
    """Mean PSNR in dB over all samples after each stage of a network in evaluation mode."""
    columns = []
    for batch in batches:
        stages = run_stages(network, *batch.measured, precision=precision)
        columns.append(torch.stack([psnr(images.abs(), batch.target) for images in stages]))
    return torch.cat(columns, dim=1).mean(dim=1).tolist()


def mean_scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """{method: {score: mean over the rows of that method}}."""
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_method.setdefault(row["method"], []).append(row)
    return {
        method: {name: float(np.mean([row[name] for row in group])) for name in SCORES}
        for method, group in by_method.items()
    }


def best_baseline(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The training-free method of the highest mean PSNR; None if there is none."""
    means = {k: v["psnr"] for k, v in mean_scores(rows).items() if k in BASELINES}
    return max(means, key=lambda name: means[name], default=None)
