import pytest
import torch
from helpers import make_images

from dataset import Cine
from evaluation import forecast as module
from evaluation.bench import Bench
from evaluation.forecast import Forecast, forecast, scored_seconds
from evaluation.lesion_score import N_LESIONS
from training.acquisition import Acquisition

TUNED = {4.0: {"zero_filled": {}, "view_sharing": {}}, 6.0: {"zero_filled": {}, "view_sharing": {}}}


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    """2 validation and 3 test samples and an empty cache; every method takes a second a sample."""
    monkeypatch.setenv("CINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "scored_seconds", lambda method, batch: 1.0)
    cine = Cine(torch.from_numpy(make_images()), None, [f"hash{i}" for i in range(9)], "tiny", [])
    parts = {"train": list(range(4)), "validation": [4, 5], "test": [6, 7, 8]}
    acquisition = Acquisition(acc=(4, 4), sample_n=4, phase=False, noise=0.0, data_seed=0)
    return Bench(cine, parts, acquisition, real_image=True, device=torch.device("cpu"))


def network(aliased, mask):
    return aliased


def test_all_that_is_to_come_is_counted_and_cached_scores_are_not(bench):
    def expected(lesions=False, **pictured):
        return forecast(bench, {"mine": network}, TUNED, 2, lesions, pictured)

    assert expected().validation == 2
    assert expected().test == 3 * 2 * 3  # samples, accelerations, methods
    assert expected(lesions=True).test == 3 * 2 * 3 + 3 * 3 * (1 + N_LESIONS)
    assert expected(view_sharing=2).test == 3 * 2 * 3  # its images are there when it is scored
    bench.score({}, TUNED[4.0], 4.0, size=2)
    assert expected().test == 3 * 2 * 3 - 3 * 2
    assert expected(view_sharing=2).test == 3 * 2 * 3 - 3 * 2 + 2


def test_time_left_has_steps_validations_and_test():
    expected = Forecast(validation=3.0, test=10.0)
    expected.steps += [9.0, 2.0, 2.0]  # the first step is slow
    left = expected.left(n_steps=5, n_validations=2)
    assert left == {"training": 10.0, "validation": 6.0, "test and pictures": 10.0}


def test_a_method_is_timed_with_its_scores(bench, monkeypatch):
    calls = []

    def counted(aliased, mask):
        calls.append(len(aliased))
        return aliased

    assert 0 < scored_seconds(counted, bench.batches("test", 4.0, size=2)[0]) < 10
    assert calls == [2]
