import numpy as np
import pytest
from helpers import make_images

from formats.axes import Guess, from_frames, middle, parse_axes, to_frames
from util.errors import InputError

SLICES = make_images(3)  # (3, 8, 32, 36)


def guessed(array, usual=("tyx", "styx")):
    return Guess(array[middle(array.shape)], array.shape, usual, "a.npy").axes


@pytest.mark.parametrize("axes", ["tyx", "yxt", "xyt"])
def test_time_is_where_neighbours_are_most_alike_and_the_count_is_small(axes):
    turned = from_frames(SLICES[:1], axes)
    assert guessed(turned, usual=("tyx", axes)) == axes


@pytest.mark.parametrize("axes", ["styx", "tsyx", "yxst", "yxts", "xyst"])
def test_slices_and_frames_are_told_apart_by_likeness(axes):
    turned = from_frames(SLICES, axes)
    usual = ("styx",) if axes[-1] == "x" else ("xyst",) if axes[0] == "x" else ("yxst",)
    assert guessed(turned, usual) == axes


def test_many_samples_are_no_lines():
    """[200, 20, 192, 192] has two axes longer than the others, of which one is samples."""
    many = np.repeat(SLICES, 20, axis=0)  # (60, 8, 32, 36)
    assert guessed(many) == "styx"


def test_axes_of_length_one_are_no_axes():
    assert guessed(SLICES[:1][:, None]) == "--tyx"
    assert parse_axes("x y t", (36, 32, 1, 8), "a.nii") == "xy-t"
    assert parse_axes("xyt", (36, 32, 8), "a.nii") == parse_axes("x,y,t", (36, 32, 8), "a.nii")


def test_undersampled_kspace_is_compared_where_both_were_measured():
    kspace = np.fft.fftshift(np.fft.fft2(SLICES[0]), axes=(-2, -1)).astype(np.complex64)
    lines = np.random.default_rng(0).random((8, 32)) < 0.4
    lines[:, 14:19] = True
    kspace *= lines[..., None]
    assert guessed(kspace.transpose(1, 2, 0), ("tyx",)) == "yxt"


def test_a_wrong_order_that_was_given_is_noticed():
    turned = from_frames(SLICES[:1], "yxt")
    guess = Guess(turned, turned.shape, ("tyx",), "a.npy")
    assert "given as 't y x'" in guess.doubt("tyx")[0]
    assert guess.doubt("yxt") == guess.doubt("xyt") == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x y z", r"--axes is 'x y z'; expected x, y and t, .* a\.npy is \(8, 32, 36\)"),
        ("x y", "expected x, y and t"),
        ("x y t t", "each once"),
        ("", "expected x, y and t"),
        ("s x y t", r"names 4 axes, but a\.npy is \(8, 32, 36\), 3 axes"),
    ],
)
def test_an_order_that_does_not_fit_is_refused(text, problem):
    with pytest.raises(InputError, match=problem):
        parse_axes(text, (8, 32, 36), "a.npy")


def test_images_and_many_axes_are_refused():
    with pytest.raises(InputError, match=r"\(32, 36\), which is no series of images"):
        guessed(SLICES[0, 0])
    with pytest.raises(InputError, match=r"whose axes cannot be guessed.*give --axes"):
        guessed(np.ones((2, 3, 4, 5, 6, 7)))


@pytest.mark.parametrize("axes", ["styx", "xyst", "yxts", "xycst", "s-tyx"])
def test_axes_are_put_back_as_they_were(axes):
    """Also with coils, of which one is left."""
    filed = from_frames(SLICES, axes)
    assert filed.ndim == len(axes)
    for i, item in enumerate(np.moveaxis(filed, axes.index("s"), 0)):
        frames = to_frames(item, axes)
        assert frames.shape == (8, 1, 32, 36)
        np.testing.assert_array_equal(frames[:, 0], SLICES[i])
