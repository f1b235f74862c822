import numpy as np
import pytest
import torch
from helpers import make_images, randomised

from CS_mask import Sampling
from data.acquisition import Acquisition
from data.batches import EvaluationBatches
from evaluation.intervals import paired_differences
from evaluation.scoring import psnr_by_stage, score, validate
from evaluation.summary import mean_scores
from methods.cascade import Cascade
from metrics import SCORES, psnr

IMAGES = torch.from_numpy(make_images())


def batches(acc=(4, 4)) -> EvaluationBatches:
    acquisition = Acquisition(
        Sampling(("gaussian",), acc, (4,)), phase=False, noise=0.0, data_seed=0
    )
    return EvaluationBatches(IMAGES, [1, 4, 7], acquisition, size=2)


def aliased_itself(aliased, mask, start=None):
    return aliased


def test_rows_are_of_every_method_and_sample():
    rows = score({"a": aliased_itself, "b": lambda aliased, mask: aliased * 0}, batches())
    assert [(row["sample"], row["method"]) for row in rows] == [
        (1, "a"), (4, "a"), (1, "b"), (4, "b"), (7, "a"), (7, "b")
    ]  # fmt: skip
    assert list(rows[0]) == ["sample", "pattern", "acc", "method", *SCORES]
    first = batches()[0]
    assert rows[0]["psnr"] == psnr(first.aliased.abs(), first.target)[0].item()
    assert mean_scores(rows)["a"]["psnr"] == np.mean([rows[i]["psnr"] for i in (0, 1, 4)])


def test_psnr_by_stage_ends_with_that_of_the_network():
    network = randomised(Cascade(3, 4, True, None, False, "kt_sparse")).eval()
    found = psnr_by_stage(network, batches(), "float32")
    assert len(found) == 3
    rows = score({"cascade": network}, batches())
    assert found[-1] == pytest.approx(mean_scores(rows)["cascade"]["psnr"])


@pytest.mark.parametrize(
    ("method", "found"),
    [
        (lambda aliased, mask: aliased[0], r"\(8, 32, 36\)"),
        (lambda aliased, mask: aliased[:, :1], r"\(2, 1, 32, 36\)"),
        (lambda aliased, mask: aliased.numpy()[..., :1], r"\(2, 8, 32, 1\)"),
        (lambda aliased, mask: None, "NoneType"),
    ],
)
def test_images_of_another_shape_are_refused_instead_of_broadcast(method, found):
    with pytest.raises(ValueError, match=rf"the method mine returned {found}, expected a tensor"):
        score({"mine": method}, batches())


def test_a_range_of_accelerations_can_be_compared():
    rows = score({"a": aliased_itself, "b": aliased_itself}, batches(acc=(3, 6)))
    assert {row["acc"] for row in rows} == {None}
    difference = paired_differences(rows, "a", "b")[0]
    assert (difference.condition, difference.interval.mean) == (("gaussian", None), 0)


def test_validation_is_the_mean_over_samples_with_the_first_as_examples():
    scores, examples = validate(aliased_itself, batches(), n_examples=3)
    rows = score({"a": aliased_itself}, batches())
    assert scores["psnr"] == pytest.approx(np.mean([row["psnr"] for row in rows]))
    assert [example.sample for example in examples] == [1, 4, 7]
    assert torch.equal(examples[2].target, IMAGES[7])
    assert validate(aliased_itself, batches(), n_examples=0)[1] == []
