import numpy as np
import pytest
import torch

from baselines import BASELINES, time_average, view_sharing, zero_filled
from CS_mask import evaluation_masks
from fourier import fftc, ifftc, undersample
from metrics import psnr


@pytest.fixture
def mask():
    return torch.from_numpy(evaluation_masks(range(3), (8, 32), acc=4, sample_n=4, data_seed=0))


@pytest.mark.parametrize("name", BASELINES)
def test_full_sampling_is_returned_unchanged(name, target):
    mask = torch.ones(3, 8, 32, 1)
    returned = BASELINES[name](undersample(target, mask), mask)
    assert returned.dtype == torch.float32
    torch.testing.assert_close(returned, target, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["time_average", "view_sharing"])
def test_a_still_object_is_recovered_where_every_line_was_measured_once(name, target):
    still = target[:, :1].expand(-1, 8, -1, -1)
    mask = torch.zeros(3, 8, 32, 1)
    for frame in range(8):
        mask[:, frame, frame::8] = 1
    returned = BASELINES[name](undersample(still, mask), mask)
    torch.testing.assert_close(returned, still, atol=1e-5, rtol=1e-5)


def test_zero_filled_is_the_magnitude_of_the_aliased_image(target, mask):
    aliased = undersample(target, mask)
    assert torch.equal(zero_filled(aliased, mask), aliased.abs())


def test_order_on_moving_data(target, mask):
    aliased = undersample(target, mask)
    means = [psnr(BASELINES[name](aliased, mask), target).mean() for name in BASELINES]
    assert means[0] + 3 < means[1] < means[2]


def expected_view_sharing(lines: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """View sharing of one sample as a loop: lines (T, Y, X), mask (T, Y)."""
    n_frames, ny, _ = lines.shape
    shared = np.zeros_like(lines)
    for t in range(n_frames):
        for y in range(ny):
            for distance in range(n_frames // 2 + 1):
                sources = {(t - distance) % n_frames, (t + distance) % n_frames}
                known = [lines[s, y] for s in sources if mask[s, y]]
                if known:
                    shared[t, y] = np.mean(known, axis=0)
                    break
    return shared


@pytest.mark.parametrize("n_frames", [7, 8])
def test_view_sharing_takes_the_nearest_frames_in_cyclic_time(target, mask, n_frames):
    target, mask = target[:, :n_frames], mask[:, :n_frames]
    aliased = undersample(target, mask)
    lines = fftc(aliased, axes=(-2,)).numpy()
    expected = np.stack(
        [expected_view_sharing(lines[i], mask[i, :, :, 0].numpy()) for i in range(3)]
    )
    expected = ifftc(torch.from_numpy(expected), axes=(-2,)).abs()
    torch.testing.assert_close(view_sharing(aliased, mask), expected, atol=1e-5, rtol=1e-5)


def test_time_average_fills_with_the_mean_of_the_measured_frames(target, mask):
    aliased = undersample(target, mask)
    lines = fftc(aliased, axes=(-2,)).numpy()
    measured = mask.numpy() > 0
    expected = lines.copy()
    for i in range(3):
        for y in range(32):
            frames = measured[i, :, y, 0]
            if frames.any():
                expected[i, ~frames, y] = lines[i, frames, y].mean(axis=0)
    expected = ifftc(torch.from_numpy(expected), axes=(-2,)).abs()
    torch.testing.assert_close(time_average(aliased, mask), expected, atol=1e-5, rtol=1e-5)
