import numpy as np
import pytest
import torch
from helpers import make_images
from scans import fft2c, with_phase

from data.centring import centred, looks_like_kspace, quadrants_exchanged, with_middle_in_the_middle
from physics.fourier import ifftc

IMAGES = make_images(1, ny=47)[0][:, None]  # (8, 1, 47, 36), one size odd
Y, X = np.mgrid[:47, :36]
MAPS = np.exp(-np.hypot(Y - 5, X - 30) / 40 + 1j * X / 40)[None, None]
IN_AIR = IMAGES * (np.hypot(Y - 23, X - 18) < 15)  # as of a body that air surrounds
UNCENTRED = {
    "fft2": np.fft.fft2,
    "fftshift(fft2)": lambda images: np.fft.fftshift(np.fft.fft2(images), axes=(-2, -1)),
}


@pytest.mark.parametrize("way", UNCENTRED)
@pytest.mark.parametrize("images", [IN_AIR, IN_AIR * MAPS], ids=["real", "coil"])
def test_quadrants_that_were_exchanged_are_shifted_back(way, images):
    kspace, _, _ = centred(UNCENTRED[way](images).astype(np.complex64))
    kspace, notes = with_middle_in_the_middle(kspace)
    assert "the quadrants of the image were exchanged" in notes[0]
    found = ifftc(torch.from_numpy(kspace)).abs().numpy() / np.sqrt(47 * 36)
    np.testing.assert_allclose(found, np.abs(images), atol=1e-5)


def test_quadrants_in_their_place_are_left_there():
    kspace = fft2c(IN_AIR).astype(np.complex64)
    assert with_middle_in_the_middle(kspace) == (kspace, [])
    cut = IMAGES[0, 0, 5:40, 5:30]  # tissue up to the border
    assert not quadrants_exchanged(cut)
    assert quadrants_exchanged(np.fft.fftshift(cut))


@pytest.mark.parametrize("off", [(1, 0), (-1, 2), (0, -1), (20, 1)])
@pytest.mark.parametrize("images", [IMAGES, with_phase(IMAGES), IMAGES * MAPS])
def test_the_centre_is_where_kspace_is_most_symmetric(off, images):
    kspace = fft2c(images).astype(np.complex64)
    found, shifts, notes = centred(np.roll(kspace, off, (2, 3)))
    np.testing.assert_array_equal(found, kspace)
    assert shifts == (-off[0], -off[1])
    assert len(notes) == np.count_nonzero(off)


def test_a_centre_in_its_place_stays_and_few_lines_move_nothing():
    kspace = fft2c(with_phase(IMAGES)).astype(np.complex64)
    kspace[:, :, :21] = kspace[:, :, 26:] = 0
    assert centred(kspace)[1] == (0, 0)


def test_kspace_is_rough_and_in_one_place():
    kspace = fft2c(with_phase(IMAGES))
    assert looks_like_kspace(kspace) is True
    assert looks_like_kspace(with_phase(IMAGES)) is False
    noise = np.random.default_rng(0).standard_normal((2, *kspace.shape))
    broad = np.abs(kspace).std() * (noise[0] + 1j * noise[1])  # a tenth of it in 5 x 5 points
    assert looks_like_kspace(kspace + broad) is True
    assert looks_like_kspace(broad) is None
