import pytest
import torch

from methods.layers import BANDS, ShiftBlock, temporal_bands, temporal_views


def test_what_stands_still_does_not_seem_to_move_in_bfloat16():
    still = torch.rand(1, 1, 24, 20).expand(-1, 8, -1, -1)
    with torch.autocast("cpu", torch.bfloat16):
        views = temporal_views(still)
    assert len(views) == len(BANDS)
    for view in views:  # mean - own, and the harmonics
        assert view.dtype == torch.float32
        assert view.shape == still.shape
        assert view.abs().max() < 1e-5


def test_shift_block_reaches_one_frame_to_either_side():
    block = ShiftBlock(16)
    torch.nn.init.normal_(block.second.weight)
    x = torch.rand(8, 16, 6, 6)
    changed = x.clone()
    changed[3] += 1
    with torch.no_grad():
        reach = (block(changed, 8) - block(x, 8)).abs().amax(dim=(1, 2, 3)) > 1e-6
    assert reach.tolist() == [False, False, True, True, True, False, False, False]


@pytest.mark.parametrize("n_frames", [1, 2, 3, 4, 7, 20])
def test_temporal_bands_are_projections_on_harmonics(n_frames):
    bands = temporal_bands(n_frames)
    torch.testing.assert_close(bands @ bands, bands, atol=1e-5, rtol=0)
    series = torch.rand(n_frames, 5)
    spectrum = torch.fft.rfft(series, dim=0)
    for band, harmonics in zip(bands, BANDS, strict=True):
        kept = torch.zeros_like(spectrum)
        for harmonic in harmonics:
            if harmonic < len(spectrum):
                kept[harmonic] = spectrum[harmonic]
        expected = torch.fft.irfft(kept, n=n_frames, dim=0)
        torch.testing.assert_close(band @ series, expected, atol=1e-5, rtol=0)
