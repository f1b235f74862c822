import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from metrics import (
    SCORES,
    definitions,
    moving_psnr,
    moving_region,
    mse,
    nmse,
    psnr,
    scores_of,
    ssim,
    ssim_2d,
)

SSIM_SETTINGS = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


@pytest.fixture
def reconstruction(target):
    noise = torch.randn(target.shape, generator=torch.manual_seed(0))
    return 0.9 * target + 0.05 * noise


def value_range(volume: np.ndarray) -> float:
    return float(volume.max() - volume.min())


def test_psnr_agrees_with_scikit_image(reconstruction, target):
    expected = [
        peak_signal_noise_ratio(t.numpy(), r.numpy(), data_range=1.0)
        for r, t in zip(reconstruction, target, strict=True)
    ]
    assert psnr(reconstruction, target).tolist() == pytest.approx(expected, abs=1e-4)


def test_scores_of_a_known_error(target):
    zeros = torch.zeros(1, 2, 4, 4)
    assert psnr(zeros + 0.1, zeros).item() == pytest.approx(20, abs=1e-4)
    assert mse(zeros + 0.1, zeros).item() == pytest.approx(0.01)
    assert nmse(0.9 * target, target).tolist() == pytest.approx([0.01] * 3, rel=1e-4)
    clamped_by_none = [-20 * math.log10(2)] * 3
    assert psnr(target + 2, target).tolist() == pytest.approx(clamped_by_none, abs=1e-4)


@pytest.mark.parametrize("n_frames", [7, 8])
def test_ssim_is_the_reference_definition(reconstruction, target, n_frames):
    reconstruction, target = reconstruction[:, :n_frames], target[:, :n_frames]
    expected = [
        structural_similarity(t, r, win_size=7, data_range=value_range(t), **SSIM_SETTINGS)
        for r, t in zip(reconstruction.numpy(), target.numpy(), strict=True)
    ]
    assert ssim(reconstruction, target).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("size", [(32, 36), (11, 12)])
def test_ssim_2d_agrees_with_scikit_image(reconstruction, target, size):
    reconstruction, target = (x[..., : size[0], : size[1]] for x in (reconstruction, target))
    expected = [
        np.mean(
            [
                structural_similarity(t, r, data_range=value_range(volume), **SSIM_SETTINGS)
                for r, t in zip(frames, volume, strict=True)
            ]
        )
        for frames, volume in zip(reconstruction.numpy(), target.numpy(), strict=True)
    ]
    assert ssim_2d(reconstruction, target).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("contrast", [1e-2, 1e-4])
def test_ssim_of_low_contrast_agrees_with_scikit_image(reconstruction, target, contrast):
    reconstruction, target = (0.9 + contrast * (x - 0.5) for x in (reconstruction, target))
    expected = structural_similarity(
        target[0].double().numpy(),
        reconstruction[0].double().numpy(),
        win_size=7,
        data_range=value_range(target[0].numpy()),
        **SSIM_SETTINGS,
    )
    assert ssim(reconstruction, target)[0].item() == pytest.approx(expected, abs=1e-4)


def test_ssim_is_absent_where_the_window_does_not_fit(reconstruction, target):
    assert ssim(reconstruction[:, :6], target[:, :6]).isnan().all()
    assert ssim_2d(reconstruction[..., :10], target[..., :10]).isnan().all()
    assert not ssim_2d(reconstruction[:, :1], target[:, :1]).isnan().any()


def test_identical_images_have_perfect_finite_scores(target):
    scores = scores_of(target, target)
    assert scores["psnr"].tolist() == scores["moving_psnr"].tolist() == [120.0] * 3
    for name, perfect in {"loss": 0, "nmse": 0, "ssim": 1, "ssim_2d": 1}.items():
        assert scores[name].tolist() == pytest.approx([perfect] * 3, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.5])
@pytest.mark.parametrize("error", [0.0, 0.1])
def test_constant_images_have_finite_scores(value, error):
    target = torch.full((2, 8, 16, 16), value)
    for name, values in scores_of(target + error, target).items():
        assert values.isfinite().all(), name
    if value == 0:
        assert nmse(target + error, target).tolist() == pytest.approx([error**2] * 2, rel=1e-4)


def test_moving_region_is_the_top_five_percent(target):
    region = moving_region(target)
    deviation = target.numpy().std(axis=1)
    for i in range(3):
        expected = deviation[i] >= np.quantile(deviation[i], 0.95)
        assert np.array_equal(region[i].numpy(), expected)
        assert expected.mean() == pytest.approx(0.05, abs=0.01)


def test_moving_region_holds_nothing_that_stands_still(target):
    still = target[:, :1].repeat(1, 7, 1, 1)
    still += 1e-7 * torch.rand(still.shape, generator=torch.manual_seed(0))  # as rounding does
    still[0, :, 3, 4] = torch.linspace(0, 1, 7)
    region = moving_region(still)
    assert region[0].nonzero().tolist() == [[3, 4]]
    assert region[1:].all()  # nothing moves there


def test_moving_psnr_sees_only_the_moving_region(target):
    region = moving_region(target)[:, None]
    still_error = target + 0.3 * ~region
    assert moving_psnr(still_error, target).tolist() == [120.0] * 3
    assert moving_psnr(target + 0.1 * region, target).tolist() == pytest.approx([20] * 3, abs=1e-3)


def test_scores_do_not_depend_on_the_batch(reconstruction, target):
    together = scores_of(reconstruction, target)
    for i in range(3):
        for name, values in scores_of(reconstruction[i : i + 1], target[i : i + 1]).items():
            assert values.item() == pytest.approx(together[name][i].item(), abs=1e-5), name


def test_every_score_is_defined_in_words():
    for name, line in zip(SCORES, definitions(), strict=True):
        assert line.startswith(f"{SCORES[name].title} ({name}): ")
        assert len(line) > 40
