"""The checks of other programs' reconstructions, on images that have each mistake."""

import re

import pytest
import torch
from helpers import make_images

from CS_mask import Sampling
from data.acquisition import Acquisition
from data.batches import EvaluationBatches
from evaluation.given import check_finite, findings, measure
from methods.baselines import baseline
from util.errors import InputError

N = 4
NAMES = ("zero_filled", "time_average", "view_sharing", "kt_sparse")


class Test:
    """Samples with what is measured of them, and training-free reconstructions."""

    __test__ = False

    def __init__(self, phase: bool, nx: int = 36):
        images = torch.from_numpy(make_images(N, nx=nx))
        acquisition = Acquisition(Sampling(("gaussian",), (5, 5), (4,)), phase, 0.01 * phase, 0)
        self.batches = list(EvaluationBatches(images, range(N), acquisition, 1))
        self.truth = torch.cat([batch.truth for batch in self.batches])
        self.phase, self.known = phase, {}

    def reconstructed(self, name: str = "kt_sparse") -> torch.Tensor:
        if name not in self.known:
            method = baseline(name, real_image=not self.phase)
            self.known[name] = torch.cat([method(*batch.measured) for batch in self.batches])
        return self.known[name]

    def findings(self, images: torch.Tensor, scale_matched: bool = False):
        measured = [measure(images[i], batch) for i, batch in enumerate(self.batches)]
        return findings(measured, "BART", scale_matched)


@pytest.fixture(scope="module", params=[False, True], ids=["real", "complex"])
def test(request) -> Test:
    return Test(request.param)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_found_in_good_and_in_poor_reconstructions(test, name):
    found = test.findings(test.reconstructed(name))
    if name == "zero_filled":
        assert [one.refused for one in found] == [False]
        assert "are the aliased images" in found[0].text
    else:
        assert found == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[[1, 0, 2, 3]], r"2 of 4 images .* \(that of 0 is like 1, that of 1 is like 0"),
        (lambda x: x.roll(1, 0), r"4 of 4 images are more like .*expected the order of the test"),
        (lambda x: x.flip(-2), r"with lines reversed: \[..., ::-1, :\]"),
        (lambda x: x.flip(-1), r"with columns reversed: \[..., ::-1\]"),
        (lambda x: x.flip(-2, -1), r"with lines and columns reversed"),
        (
            lambda x: torch.fft.fftshift(x, dim=(-2, -1)),
            r"np.roll by 16 lines and 18 columns; half",
        ),
        (lambda x: x.roll(1, -2), r"np.roll by 31 lines and 0 columns"),
        (lambda x: x.flip(1), r"the frames are in reverse .*after \[:, ::-1\]"),
        (lambda x: x.roll(2, 1), r"the frames are shifted .*after np.roll by 6 along time"),
    ],
)
@pytest.mark.parametrize("name", ["kt_sparse", "zero_filled"])
def test_images_in_another_place_are_refused(test, change, message, name):
    (found,) = test.findings(change(test.reconstructed(name).abs()))
    assert found.refused
    assert found.text.startswith("BART: ")
    assert "expected" in found.text
    assert re.search(message, found.text), found.text


def test_exchanged_axes_of_square_images_are_refused():
    test = Test(False, nx=32)
    (found,) = test.findings(test.reconstructed().mT)
    assert "with lines and columns exchanged: np.swapaxes(images, -2, -1)" in found.text
    (found,) = test.findings(test.reconstructed().rot90(1, (-2, -1)))
    assert "a quarter turn: np.rot90(images, -1, (-2, -1))" in found.text


@pytest.mark.parametrize(("factor", "refused"), [(255, True), (0.7, True), (1.1, False)])
def test_another_scale_is_refused_or_told_unless_it_was_matched(test, factor, refused):
    images = factor * test.reconstructed()
    (found,) = test.findings(images)
    assert found.refused is refused
    assert "come nearest to the truth times" in found.text
    assert "give --match-scale" in found.text
    assert test.findings(images, scale_matched=True) == []


def test_each_sample_in_a_scale_of_its_own_is_told(test):
    factors = torch.tensor([0.85, 1.0, 1.0, 1.15])[:, None, None, None]
    (found,) = test.findings(factors * test.reconstructed())
    assert "times 0.8" in found.text
    assert " to 1.1" in found.text


def test_the_real_part_of_complex_images_is_refused():
    test = Test(True)
    first, *_ = test.findings(test.reconstructed().real)
    assert first.refused
    assert "like the real or the imaginary part of the truth, not like its magnitude" in first.text
    assert test.findings(test.reconstructed().abs()) == []


def test_negative_values_of_real_images_are_told():
    test = Test(False)
    images = test.reconstructed().clone()
    images[:, :, ::4] *= -1
    assert any("of the energy is in negative values" in f.text for f in test.findings(images))


@pytest.mark.parametrize("change", [lambda x: x, lambda x: 3 * x, lambda x: x.abs().half().float()])
def test_the_truth_is_refused_whatever_its_scale(test, change):
    first, *_ = test.findings(change(test.truth))
    assert first.refused
    assert "the samples 0, 1, 2, 3 are the ground truth itself" in first.text


def test_aliased_images_are_told(test):
    aliased = torch.cat([batch.aliased for batch in test.batches])
    (found,) = test.findings(aliased)
    assert not found.refused
    assert "are the aliased images; expected a reconstruction of them" in found.text


def test_images_that_do_not_move_have_no_order_of_frames(test):
    images = test.reconstructed().abs().mean(dim=1, keepdim=True).expand(-1, 8, -1, -1)
    assert test.findings(images) == []


def test_nan_and_zero_images_are_refused():
    images = torch.ones(3, 2, 4, 4)
    check_finite(images, [3, 5, 8], "BART")
    images[1, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match=r"BART has 1 values that are NaN .* in the samples 5;"):
        check_finite(images, [3, 5, 8], "BART")
    images[1] = 0
    with pytest.raises(InputError, match="BART is all zero in the samples 5; expected images"):
        check_finite(images, [3, 5, 8], "BART")
