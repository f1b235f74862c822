from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import make_images, sampling

from data.acquisition import Acquisition
from data.batches import EvaluationBatches
from evaluation.by_sample import rows_by_sample
from evaluation.error_map import BOUND, COMPARED
from evaluation.error_score import (
    FEWEST,
    MappedMethods,
    calibrated_factors,
    error_rows,
    share_beyond,
)
from methods.baselines import baseline
from report.tables import ABSENT, error_map_table
from util.journal import Journal

IMAGES = torch.from_numpy(make_images(24))
METHODS = {
    "network": baseline("hermitian_view_sharing", True),
    COMPARED: baseline("view_sharing", True),
}


def batches(n: int, centre: int = 4) -> EvaluationBatches:
    return EvaluationBatches(IMAGES, range(n), Acquisition(sampling(4, centre), False, 0.0, 0), 1)


def test_rows_are_of_both_methods_with_the_bounds_of_phantoms():
    kept = {}
    rows = error_rows(MappedMethods(METHODS, True, 0), batches(2), on_sample=kept.__setitem__)
    assert [(row["sample"], row["method"]) for row in rows] == [
        (sample, method) for sample in range(2) for method in METHODS
    ]
    assert {row["method"]: row["factor"] for row in rows} == {
        "network": BOUND, COMPARED: BOUND,
    }  # fmt: skip
    assert kept[0].expected.shape == IMAGES.shape[1:]
    for row in rows:
        assert 0 < row["held_moving"] <= 1
        assert row["bound_still"] > row["error_still"] > 0


def test_without_a_truth_there_are_bounds_alone():
    class Undersampled(EvaluationBatches):
        def __getitem__(self, i):
            return replace(super().__getitem__(i), image=None)

    known = batches(2)
    unknown = Undersampled(IMAGES, range(2), known.acquisition, 1)
    rows = error_rows(MappedMethods(METHODS, True, 0), unknown)
    assert rows[0].keys() >= {"bound_still", "bound_moving", "factor"}
    assert not {"held_still", "error_still", "correlation"} & rows[0].keys()
    table = error_map_table(rows)
    assert table.heads == ["method", "still", "moving"]
    assert float(table.rows[0][2]) == pytest.approx(
        np.mean([row["bound_moving"] for row in rows[::2]]), abs=1e-4
    )


def test_calibrated_bounds_hold_their_promise_on_the_samples_they_are_from():
    mapped = MappedMethods(METHODS, True, 0)
    validation = batches(FEWEST + 2)
    factors = calibrated_factors(mapped, validation, None)
    assert set(factors) == set(METHODS)
    rows = error_rows(replace(mapped, factors=factors), validation)
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        held = [np.mean([row[f"held_{region}"] for row in own]) for region in ("still", "moving")]
        n = len(own)  # conformal: one more series than there are, that holds nothing
        assert min(held) == pytest.approx(1 - (0.1 * (n + 1) - 1) / n, abs=0.01)
        assert max(held) >= min(held)


def test_too_few_validation_samples_leave_the_bounds_of_phantoms():
    mapped = MappedMethods(METHODS, True, 0)
    assert calibrated_factors(mapped, batches(FEWEST - 1), None) == {}
    two = np.arange(24) % 2  # slices of two patients
    assert calibrated_factors(mapped, batches(24), two) == {}


def test_the_share_beyond_is_counted_by_patient():
    ratios = np.array([[0.5, 1.5, 2.5, 3.5], [0.1, 0.2, 0.3, 0.4]])
    np.testing.assert_array_equal(share_beyond(ratios, np.array([4, 7]), 1.0), [0.75, 0])
    np.testing.assert_array_equal(share_beyond(ratios, np.array([4, 4]), 1.0), [0.375])


def test_of_a_sample_that_does_not_move_all_pixels_are_one_region():
    still = IMAGES[:1].mean(dim=1, keepdim=True).expand(1, 8, -1, -1).contiguous()
    of_still = EvaluationBatches(still, [0], Acquisition(sampling(4, 4), False, 0.0, 0), 1)
    rows = error_rows(MappedMethods(METHODS, True, 0), of_still)
    assert all(np.isnan(row["held_still"]) and row["held_moving"] > 0 for row in rows)
    (cells, _) = error_map_table(rows).rows
    assert cells[1] == ABSENT
    assert cells[2] != ABSENT


def test_rows_of_a_journal_are_computed_again_only_if_more_of_a_sample_is_wanted(tmp_path):
    journal, tested, told = Journal(tmp_path / "journal", {}), [], []

    def of_sample(batch):
        tested.append(batch.samples[0])
        return [{"sample": batch.samples[0]}], "more"

    def rows(wanted):
        told.clear()
        tested.clear()
        found = rows_by_sample(
            of_sample, batches(3), "test", [], journal=journal, wanted=wanted,
            on_sample=lambda sample, more: told.append((sample, more)),
        )  # fmt: skip
        return [row["sample"] for row in found]

    assert rows(lambda sample: False) == tested == [0, 1, 2]
    assert rows(lambda sample: sample == 1) == [0, 1, 2]
    assert tested == [1]
    assert told == [(1, "more")]
    with pytest.raises(ValueError, match="batches of one sample"):
        rows_by_sample(
            of_sample, EvaluationBatches(IMAGES, [0, 1], batches(1).acquisition, 2), "test", []
        )
