"""Scoring: any methods on the same samples with the same masks.

A method is a function of `(aliased, mask)`, as networks and training-free methods are: the aliased
image (B, T, Y, X) complex64 and its centred mask (B, T, Y, 1) to images (B, T, Y, X), whose
magnitude is scored. Of several coils it is one of `(aliased, mask, maps)` (see `model.py`). A row
of scores is a dict: `sample`, `pattern`, `acc`, `method`, and the scores.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from CS_mask import Condition
from data.batches import Batch
from evaluation.held_out import HELD_OUT, held_out_psnr
from methods.baselines import Method
from metrics import SCORES, psnr, scores_of
from model import run_stages
from util.world import ALONE, World

ScoreRow = dict[str, Any]
HoldOut = Callable[[Batch], Sequence[Batch]]  # each sample with some of its lines held out


@dataclass
class Scored:
    """A batch with the reconstructions of some methods, and their scores."""

    batch: Batch
    images: dict[str, Tensor]  # (B, T, Y, X) float32 magnitudes by method
    rows: list[ScoreRow]  # one for each method and sample

    def to(self, device: torch.device | str) -> "Scored":
        """The same on another device."""
        images = {name: images.to(device) for name, images in self.images.items()}
        return Scored(self.batch.to(device), images, self.rows)


def score(methods: Mapping[str, Method], batches: Iterable[Batch]) -> list[ScoreRow]:
    """Scores of all methods on all samples: rows of `metrics.csv`."""
    return [row for scored in score_batches(methods, batches) for row in scored.rows]


@torch.no_grad()
def score_batches(
    methods: Mapping[str, Method], batches: Iterable[Batch], hold_out: HoldOut | None = None
) -> Iterator[Scored]:
    """Each batch with its reconstructions and scores, computed one batch at a time.

    `hold_out`: holds lines of each sample out, which are predicted, where the truth is not known;
    then there are no reconstructions.
    """
    for batch in batches:
        if hold_out is not None:
            yield Scored(batch, {}, held_out_rows(methods, batch, hold_out(batch)))
            continue
        images = {name: _magnitude(name, method, batch) for name, method in methods.items()}
        rows = score_images(images, batch.target, batch.samples, batch.condition)
        yield Scored(batch, images, rows)


def held_out_rows(
    methods: Mapping[str, Method], batch: Batch, held: Sequence[Batch]
) -> list[ScoreRow]:
    """How well each method predicts the held-out lines of each sample of a batch."""
    return [
        {"sample": sample, **batch.condition._asdict(), "method": name, HELD_OUT: value}
        for name, method in methods.items()
        for sample, value in zip(batch.samples, held_out_psnr(method, held), strict=True)
    ]


def score_images(
    images: Mapping[str, Tensor], target: Tensor, samples: Sequence[int], condition: Condition
) -> list[ScoreRow]:
    """Scores of magnitudes (B, T, Y, X) by method against the target: a row for each method and
    sample. `condition`: that of the masks, for the rows."""
    rows = []
    for name, reconstruction in images.items():
        scores = scores_of(reconstruction, target)
        columns = {key: values.tolist() for key, values in scores.items()}
        for i, sample in enumerate(samples):
            values = {key: column[i] for key, column in columns.items()}
            rows.append({"sample": sample, **condition._asdict(), "method": name, **values})
    return rows


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
    return images.abs().contiguous()  # as rounding of the scores depends on the order in memory


@dataclass
class Example:
    """A sample of the validation part, for pictures: (T, Y, X) float32 each."""

    sample: int
    aliased: Tensor
    reconstruction: Tensor
    target: Tensor | None  # None: the truth is not known


@torch.no_grad()
def validate(
    network: Callable[..., Tensor],
    batches: Iterable[Batch],
    n_examples: int,
    world: World = ALONE,
) -> tuple[dict[str, float], list[Example]]:
    """Means over all samples of the scores that are logged, and the first `n_examples` samples. No
    scores if the truth is not known.

    `network`: called as in `model.py`, with the start of a batch if that was made. `batches`: the
    share of this process, of whose samples the examples are.
    """
    values: dict[str, list[Tensor]] = {k: [] for k, one in SCORES.items() if one.logged}
    examples: list[Example] = []
    for batch in batches:
        shown = batch.samples[: n_examples - len(examples)]
        if batch.image is None and not shown:
            continue
        images = network(*batch.measured, start=batch.start).abs()
        target = None if batch.image is None else batch.target
        if target is not None:
            for name, column in scores_of(images, target, values).items():
                values[name].append(column)
        if shown:
            aliased = batch.combined.abs()
            examples += [
                Example(k, aliased[i], images[i], None if target is None else target[i])
                for i, k in enumerate(shown)
            ]
    share = {
        name: torch.cat(columns).tolist() if columns else [] for name, columns in values.items()
    }
    scores = {name: torch.tensor(world.merged(share[name])) for name in values}
    return {k: column.mean().item() for k, column in scores.items() if len(column)}, examples


@torch.no_grad()
def psnr_by_stage(network: nn.Module, batches: Iterable[Batch], precision: str) -> list[float]:
    """Mean PSNR in dB over all samples after each stage of a network in evaluation mode."""
    columns = []
    for batch in batches:
        stages = run_stages(network, *batch.measured, precision=precision)
        columns.append(torch.stack([psnr(images.abs(), batch.target) for images in stages]))
    return torch.cat(columns, dim=1).mean(dim=1).tolist()
