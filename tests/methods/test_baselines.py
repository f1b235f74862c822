import numpy as np
import pytest
import torch
from helpers import sampling

from CS_mask import evaluation_masks
from methods import baselines
from methods.baselines import BASELINES, _shrink_singular_values, kt_sparse
from metrics import psnr
from phantom.scanner import phantom
from physics.consistency import DataConsistency
from physics.fourier import fftc, ifftc, undersample
from physics.noise import CORNER

ONE_COIL = [name for name, baseline in BASELINES.items() if not baseline.needs_coils]
ITERATIVE = [name for name in ONE_COIL if BASELINES[name].grid]


def masks(n_frames: int = 8, ny: int = 32) -> torch.Tensor:
    return torch.from_numpy(evaluation_masks(range(3), (n_frames, ny), sampling(4), data_seed=0))


def run(name: str, target: torch.Tensor, mask: torch.Tensor, real_image: bool) -> torch.Tensor:
    """The images of a method with its usual parameters."""
    baseline = BASELINES[name]
    prior = real_image if baseline.real_image is None else baseline.real_image
    measured = DataConsistency(undersample(target, mask), mask, prior)
    return baseline.reconstruct(measured, **baseline.usual)


@pytest.fixture(scope="module")
def beating():
    """(3, T, Y, X) phantom and its masks."""
    return torch.from_numpy(phantom(3, (12, 64, 64), seed=0)), masks(12, 64)


@pytest.fixture
def noiseless(target) -> torch.Tensor:
    """(3, T, Y, X) images without the corners of k-space, where methods look for noise."""
    y, x = (2 * torch.fft.fftfreq(n).abs() for n in target.shape[-2:])
    inside = (y[:, None] < CORNER - 0.2) | (x < CORNER - 0.2)  # a window smears
    return torch.fft.ifft2(torch.fft.fft2(target) * inside).real


@pytest.mark.parametrize("name", ONE_COIL)
@pytest.mark.parametrize("real_image", [True, False])
def test_full_sampling_is_returned_unchanged(name, real_image, noiseless):
    returned = run(name, noiseless, torch.ones(3, 8, 32, 1), real_image).abs()
    assert returned.dtype == torch.float32
    torch.testing.assert_close(returned, noiseless.abs(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ONE_COIL)
@pytest.mark.parametrize("real_image", [True, False])
def test_measured_lines_are_kept(name, real_image, noiseless):
    mask = masks()
    lines = fftc(noiseless, axes=(-2,))
    kept = fftc(run(name, noiseless, mask, real_image), axes=(-2,))
    torch.testing.assert_close(kept * mask, lines * mask, atol=1e-4, rtol=1e-4)


def test_order_on_the_phantom(beating):
    target, mask = beating
    scores = {
        name: psnr(run(name, target, mask, True).abs(), target).mean().item() for name in ONE_COIL
    }
    single_pixels = max(scores[name] for name in ITERATIVE if not name.startswith("patch"))
    assert single_pixels + 1 < scores["patch_sparse"] < scores["patch_low_rank"]
    assert scores["zero_filled"] < scores["hermitian"]
    assert scores["zero_filled"] + 3 < scores["time_average"] < scores["view_sharing"]
    assert scores["hermitian"] + 3 < scores["hermitian_nearest"] < scores["hermitian_view_sharing"]
    assert scores["view_sharing"] + 0.5 < scores["hermitian_view_sharing"]
    for name in ITERATIVE:
        assert scores[name] > scores["hermitian_view_sharing"] + 0.3, name


@pytest.mark.parametrize("name", ITERATIVE)
def test_iterative_methods_gain_on_complex_images_too(name, beating):
    target, mask = beating
    turned = target * torch.exp(1j * torch.linspace(0, 2, 64))
    before = psnr(run("view_sharing", turned, mask, False).abs(), target).mean()
    assert psnr(run(name, turned, mask, False).abs(), target).mean() > before + 0.5


@pytest.mark.parametrize("name", [name for name in ITERATIVE if name.startswith("patch")])
def test_methods_with_patches_remove_a_smooth_phase(name, beating, monkeypatch):
    """Half of k-space is missing: it follows from the other half once the phase is known."""
    target, mask = beating
    cut = mask.clone()
    cut[:, :, :12] = 0
    rows, columns = torch.linspace(0, 1, 64)[:, None], torch.linspace(-1, 1, 64)
    turned = target * torch.exp(1j * (1 + rows + 2 * rows * columns))
    found = run(name, turned, cut, False)
    still = run(name, target + 0j, cut, False)  # no phase, and the method is not told so
    torch.testing.assert_close(
        psnr(found.abs(), target), psnr(still.abs(), target), atol=1.0, rtol=0
    )
    monkeypatch.setattr(baselines, "smooth_phase", lambda images: torch.ones(()))
    left = run(name, turned, cut, False)
    assert psnr(found.abs(), target).mean() > psnr(left.abs(), target).mean() + 0.3


def test_the_smooth_phase_is_that_of_the_low_resolution():
    rows, columns = torch.linspace(0, 1, 48)[:, None], torch.linspace(-1, 1, 50)
    factor = torch.exp(1j * (0.3 + rows + 2 * rows * columns))
    image = torch.rand(2, 5, 48, 50, generator=torch.manual_seed(0)) + 0.5
    found = baselines.smooth_phase(image * factor)
    assert found.shape == (2, 1, 48, 50)
    inside = (found * factor.conj()).angle()[..., 6:-6, 6:-6].abs()
    assert inside.max() < 0.3  # near the edges the phase is not smooth: k-space is cyclic
    real = baselines.smooth_phase(image + 0j)
    torch.testing.assert_close(real, torch.ones_like(real), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ONE_COIL)
def test_a_shift_in_time_shifts_the_result(name, target):
    mask = masks()
    shifted = run(name, target.roll(3, 1), mask.roll(3, 1), True)
    torch.testing.assert_close(shifted, run(name, target, mask, True).roll(3, 1), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "name", ["time_average", "view_sharing", "hermitian_nearest", "hermitian_view_sharing"]
)
def test_a_still_object_is_recovered_where_every_line_was_measured_once(name, target):
    still = target[:, :1].expand(-1, 8, -1, -1)
    mask = torch.zeros(3, 8, 32, 1)
    for frame in range(8):
        mask[:, frame, frame::8] = 1
    torch.testing.assert_close(run(name, still, mask, True).abs(), still, atol=1e-5, rtol=1e-5)


def test_zero_filled_is_the_magnitude_of_the_aliased_image(target):
    aliased = undersample(target, masks())
    returned = run("zero_filled", target, masks(), True).abs()
    torch.testing.assert_close(returned, aliased.abs(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [(32, 36), (31, 36), (32, 35)])
def test_hermitian_completion_is_the_mirror_in_two_dimensions(target, size):
    ny, nx = size
    target, mask = target[..., :ny, :nx], masks(ny=ny)
    kspace = torch.fft.fft2(target, norm="ortho")
    lines = torch.fft.ifftshift(mask, dim=-2).expand_as(target)
    y, x = -torch.arange(ny) % ny, -torch.arange(nx) % nx
    mirror = (kspace * lines)[..., y, :][..., x].conj()  # (n - i) mod n along both axes
    completed = torch.where(lines > 0, kspace, mirror)
    expected = torch.fft.ifft2(completed, norm="ortho")
    assert expected.imag.abs().max() < 1e-5
    returned = run("hermitian", target, mask, True)
    torch.testing.assert_close(returned, expected.real, atol=1e-5, rtol=1e-5)


def test_hermitian_completion_is_exact_with_half_of_the_lines(target):
    mask = torch.zeros(3, 8, 32, 1)
    mask[..., :17, :] = 1  # centred: the negative frequencies and zero
    returned = run("hermitian", target, mask, True)
    torch.testing.assert_close(returned, target, atol=1e-5, rtol=1e-5)


def expected_view_sharing(lines: np.ndarray, mask: np.ndarray, average: bool) -> np.ndarray:
    """View sharing of one sample as a loop: lines (T, Y, X), mask (T, Y)."""
    n_frames, ny, _ = lines.shape
    shared = np.zeros_like(lines)
    for t in range(n_frames):
        for y in range(ny):
            for distance in range(n_frames // 2 + 1):
                sources = dict.fromkeys([(t - distance) % n_frames, (t + distance) % n_frames])
                known = [lines[s, y] for s in sources if mask[s, y]]
                if known:
                    shared[t, y] = np.mean(known, axis=0) if average else known[0]
                    break
    return shared


@pytest.mark.parametrize("n_frames", [7, 8])
@pytest.mark.parametrize("average", [True, False])
def test_view_sharing_takes_the_nearest_frames_in_cyclic_time(target, n_frames, average):
    target, mask = target[:, :n_frames], masks()[:, :n_frames]
    measured = DataConsistency(undersample(target, mask), mask, real_image=True)
    lines, known = measured.lines.numpy(), measured.known[..., 0].numpy()
    expected = np.stack([expected_view_sharing(lines[i], known[i], average) for i in range(3)])
    expected = torch.fft.irfft(torch.from_numpy(expected), n=32, dim=-2, norm="ortho")
    name = "hermitian_view_sharing" if average else "hermitian_nearest"
    returned = run(name, target, mask, True)
    torch.testing.assert_close(returned, expected, atol=1e-5, rtol=1e-5)


def test_time_average_fills_with_the_mean_of_the_measured_frames(target):
    mask = masks()
    lines = fftc(target, axes=(-2,)).numpy()
    measured = mask.numpy() > 0
    expected = np.where(measured, lines, 0)
    for i in range(3):
        for y in range(32):
            frames = measured[i, :, y, 0]
            if frames.any():
                expected[i, ~frames, y] = lines[i, frames, y].mean(axis=0)
    expected = ifftc(torch.from_numpy(expected), axes=(-2,)).abs()
    returned = run("time_average", target, mask, True).abs()
    torch.testing.assert_close(returned, expected, atol=1e-5, rtol=1e-5)


def test_total_variation_falls(beating):
    target, mask = beating

    def variation(images):
        return (images.roll(-1, 1) - images).abs().sum()

    start = variation(run("hermitian_view_sharing", target, mask, True))
    assert variation(run("temporal_tv", target, mask, True)) < 0.9 * start


@pytest.mark.parametrize("phase", [0.0, 2.0])
def test_low_rank_step_is_a_soft_threshold_of_singular_values(target, phase):
    images = target * torch.exp(1j * phase * target) if phase else target
    u, values, v = torch.linalg.svd(images.flatten(2), full_matrices=False)
    kept = (values - 0.1 * values[:, :1]).clamp(min=0)
    expected = ((u * kept[:, None, :].to(u.dtype)) @ v).view_as(images)
    torch.testing.assert_close(_shrink_singular_values(images, 0.1), expected, atol=1e-4, rtol=1e-4)


def test_thresholds_are_those_of_the_image_scale(target):
    """Thresholds above every coefficient leave only the measured lines and zeros."""
    mask = masks()
    measured = DataConsistency(undersample(target, mask), mask, real_image=True)
    returned = kt_sparse(measured, threshold=1e3, fall=1.0, n_steps=1)
    expected = BASELINES["hermitian"].reconstruct(measured)
    torch.testing.assert_close(returned, expected, atol=1e-6, rtol=1e-5)


def test_a_search_begins_in_its_grid():
    for name in ITERATIVE:
        baseline = BASELINES[name]
        assert all(value in baseline.grid[key] for key, value in baseline.usual.items()), name


@pytest.mark.parametrize("name", ["patch_sparse", "patch_low_rank"])
@pytest.mark.parametrize("shape", [(1, 16, 12), (5, 19, 31), (2, 6, 50)])
def test_patches_take_any_size_and_do_not_mix_samples(name, shape, monkeypatch):
    """Also sizes smaller than a patch, or such as it does not divide, and single frames."""
    # random images are noise, and would be shrunk so much that rounding grows
    monkeypatch.setattr("methods.baselines.IN_NOISE", 0.0)
    images = torch.rand(3, *shape, generator=torch.manual_seed(0))
    mask = torch.from_numpy(evaluation_masks(range(3), shape[:2], sampling(2, 2), data_seed=0))
    together = run(name, images, mask, False)
    alone = run(name, images[1:2], mask[1:2], False)
    torch.testing.assert_close(together[1:2], alone, atol=1e-3, rtol=0)
