"""The split into training, validation and test part, its leakage, and the training order."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from util.errors import InputError
from util.progress import MOST_NAMED, counted
from util.random_streams import Stream, generator

PARTS = ("train", "validation", "test")
BLOCK = 1024  # samples that are compared with all others at once
DUPLICATE_CORRELATION = 0.7  # different patients stay below 0.5, neighbouring slices are close to 1


def split_samples(
    n_samples: int, ratios: Sequence[float], seed: int, groups: np.ndarray | None = None
) -> dict[str, list[int]]:
    """Split samples into training, validation and test part, by a seeded permutation.

    The counts are proportional to the ratios, rounded by largest remainder, at least one if the
    ratio is not zero. With `groups`, no group is divided and the counts are approximate: the groups
    are assigned from the largest on, each to the part that lacks the highest number of samples.

    Raises:
        InputError: there are fewer samples or groups than parts, or the ratios are invalid.
    """
    wanted = split_counts(n_samples, ratios)
    members = np.arange(n_samples) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(members)
    if len(sizes) < np.count_nonzero(wanted):
        raise InputError(
            f"{len(sizes)} groups (patients) cannot fill {np.count_nonzero(wanted)} parts of the"
            f" split {tuple(ratios)}: use more patients, or a split with fewer parts"
        )
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    parts: list[list[int]] = [[] for _ in wanted]
    lacking = np.array(wanted)
    for done, group in enumerate(order):
        empty = [p for p, part in enumerate(parts) if not part and wanted[p]]
        must_fill = len(order) - done <= len(empty)
        candidates = empty if must_fill else range(len(parts))
        part = max(candidates, key=lambda p: lacking[p])
        parts[part] += np.flatnonzero(members == group).tolist()
        lacking[part] -= sizes[group]
    return {name: sorted(part) for name, part in zip(PARTS, parts, strict=True)}


def split_counts(n_samples: int, ratios: Sequence[float]) -> list[int]:
    """Number of samples of each part: largest-remainder rounding, at least one if not zero."""
    usable = math.isfinite(sum(ratios)) and min(ratios, default=-1) >= 0
    if len(ratios) != len(PARTS) or not usable or sum(ratios) == 0:
        raise InputError(
            f"--split is {tuple(ratios)}, expected three ratios ({', '.join(PARTS)}), none"
            " negative, not all zero, such as 4 1 2"
        )
    n_parts = sum(ratio > 0 for ratio in ratios)
    if n_samples < n_parts:
        raise InputError(
            f"{n_samples} samples cannot fill {n_parts} parts of the split {tuple(ratios)}:"
            f" at least {n_parts} are needed"
        )
    shares = [n_samples * ratio / sum(ratios) for ratio in ratios]
    counts = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda p: counts[p] - shares[p])
    for p in by_remainder[: n_samples - sum(counts)]:
        counts[p] += 1
    for p, ratio in enumerate(ratios):
        if ratio > 0 and counts[p] == 0:
            counts[counts.index(max(counts))] -= 1
            counts[p] = 1
    return counts


def training_order(samples: Sequence[int], seed: int, number: int) -> list[int]:
    """The training samples in the order of round `number`, which depends on `(seed, number)`
    alone."""
    order = generator(Stream.TRAINING_ORDER, seed, number).permutation(len(samples))
    return [samples[i] for i in order]


def near_duplicates(thumbnails: Tensor) -> list[tuple[int, int]]:
    """Pairs of samples that look like the same place in the same patient, as (first, second)
    indices.

    Thumbnails, (N, Y, X) and averaged over time, are correlated without their local mean; different
    patients have no fine structure in common. Slices farther apart, or rotated, are not detected.
    """
    thumbnails = thumbnails[:, None]
    detail = thumbnails - F.avg_pool2d(thumbnails, 3, stride=1, padding=1, count_include_pad=False)
    detail = F.normalize((detail - detail.mean(dim=(-2, -1), keepdim=True)).flatten(1))
    pairs = []
    for start in range(0, len(detail), BLOCK):  # so that memory is not the square of the samples
        alike = detail[start : start + BLOCK] @ detail.T > DUPLICATE_CORRELATION
        pairs += [(start + i, j) for i, j in alike.nonzero().tolist() if start + i < j]
    return pairs


def leakage_notice(
    groups: np.ndarray | None, thumbnails: Tensor, parts: dict[str, list[int]]
) -> str:
    """One line on whether samples of one patient may be in several parts of the split.

    `groups`: the patient of each sample, if known; `thumbnails`: see `near_duplicates`.
    """
    if groups is not None:
        n_groups = len(np.unique(groups))
        return f"patients: {n_groups}, each in one part of the split"
    part_of = {sample: name for name, samples in parts.items() for sample in samples}
    pairs = near_duplicates(thumbnails)
    named = [f"{i}-{j} ({part_of[i]}, {part_of[j]})" for i, j in pairs[:MOST_NAMED]]
    across = sum(part_of[i] != part_of[j] for i, j in pairs)
    return (
        "patients: unknown, so one may be in several parts; near-duplicate samples:"
        f" {counted(len(pairs), 'pair')}, {across} of them across parts"
        + (f": {', '.join(named)}" if named else "")
        + (", ..." if len(pairs) > len(named) else "")
        + " (the check can miss some)"
    )
