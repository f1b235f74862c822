import numpy as np
import pytest
import torch
from helpers import quality_of

from data.split import leakage_notice, near_duplicates, split_counts, split_samples, training_order
from util.errors import InputError


def test_split_is_an_exact_and_seeded_partition():
    assert split_counts(200, (4, 1, 2)) == [114, 29, 57]
    assert split_counts(3, (100, 1, 1)) == [1, 1, 1]
    assert split_counts(5, (0, 0, 1)) == [0, 0, 5]
    parts = split_samples(32, (4, 1, 2), seed=0)
    assert [len(part) for part in parts.values()] == split_counts(32, (4, 1, 2)) == [18, 5, 9]
    assert sorted(i for part in parts.values() for i in part) == list(range(32))
    assert parts == split_samples(32, (4, 1, 2), seed=0)
    assert parts != split_samples(32, (4, 1, 2), seed=1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("sizes", "counts"),
    [([2] * 100, [114, 29, 57]), ([3] * 10 + [2], [18, 5, 9]), ([2, 2] + [1] * 28, [18, 5, 9])],
)
def test_groups_stay_whole_and_counts_near(seed, sizes, counts):
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    parts = split_samples(len(groups), (4, 1, 2), seed, groups)
    patients = [set(groups[part]) for part in parts.values()]
    assert sum(map(len, patients)) == len(sizes)  # none is in two parts
    found = [len(part) for part in parts.values()]
    assert sum(found) == len(groups)
    assert sum(abs(f - c) for f, c in zip(found, counts, strict=True)) <= 2


def test_few_uneven_groups_still_fill_every_part():
    parts = split_samples(10, (8, 1, 1), 0, np.array([0] * 4 + [1] * 3 + [2] * 3))
    assert sorted(map(len, parts.values())) == [3, 3, 4]


@pytest.mark.parametrize(
    ("n_samples", "ratios", "groups", "message"),
    [
        (2, (4, 1, 2), None, "2 samples cannot fill 3 parts"),
        (9, (4, -1, 2), None, r"--split is \(4, -1, 2\)"),
        (9, (0, 0, 0), None, "not all zero"),
        (9, (4, 1), None, "three ratios"),
        (9, (4, 1, float("nan")), None, "split is"),
        (4, (4, 1, 2), [0, 0, 1, 1], r"2 groups \(patients\) cannot fill 3 parts"),
    ],
)
def test_impossible_splits(n_samples, ratios, groups, message):
    groups = None if groups is None else np.array(groups)
    with pytest.raises(InputError, match=message):
        split_samples(n_samples, ratios, 0, groups)


def thumbnails(images: torch.Tensor) -> torch.Tensor:
    return quality_of(images).thumbnails


def test_near_duplicates_are_found_and_reported(images):
    assert near_duplicates(thumbnails(torch.from_numpy(images))) == []
    shifted = np.clip(images[3] * 0.9 + 0.02, 0, 1)  # another contrast of the same place
    with_copy = torch.from_numpy(np.concatenate([images, shifted[None]]))
    assert near_duplicates(thumbnails(with_copy)) == [(3, 9)]
    turned = with_copy * torch.exp(1j * torch.linspace(0, 3, len(with_copy)))[:, None, None, None]
    assert near_duplicates(thumbnails(turned)) == [(3, 9)]  # whatever the phase
    line = leakage_notice(None, thumbnails(with_copy), {"train": list(range(9)), "test": [9]})
    assert "1 pair, 1 of them across parts: 3-9 (train, test)" in line
    assert "the check can miss some" in line


def test_training_order_is_a_permutation_of_its_round():
    order = training_order([3, 5, 8, 9], seed=0, number=2)
    assert sorted(order) == [3, 5, 8, 9]
    assert order == training_order([3, 5, 8, 9], seed=0, number=2)
    orders = {tuple(training_order(range(20), seed=0, number=e)) for e in range(5)}
    assert len(orders) == 5
