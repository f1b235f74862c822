import pytest
import torch
from helpers import STAGES, randomised, sampling

from CS_mask import evaluation_masks
from methods.cascade import Cascade, Stage
from methods.start import KT_SPARSE, PATCH, VIEW_SHARING, initial_images
from model import build_model
from physics.consistency import DataConsistency
from physics.fourier import fftc, undersample
from physics.sense import measurement_of


def example(n_frames: int = 8, ny: int = 32, nx: int = 24, batch: int = 1):
    """A random series in [0, 1], its mask and its aliased image."""
    target = torch.rand(batch, n_frames, ny, nx, generator=torch.manual_seed(0))
    masks = evaluation_masks(range(batch), (n_frames, ny), sampling(4), data_seed=0)
    mask = torch.from_numpy(masks)
    return target, mask, undersample(target, mask)


@pytest.mark.parametrize("real_image", [True, False])
@pytest.mark.parametrize(
    "size", [(16, 160, 144), (8, 33, 47), (3, 21, 17), (1, 16, 16), (2, 18, 9)]
)
def test_any_number_of_frames_and_any_size(real_image, size):
    settings = STAGES | {"real_image": real_image}
    network = randomised(build_model("cascade", **settings))
    _, mask, aliased = example(*size)
    with torch.no_grad():
        images = network(aliased, mask)
    assert images.shape == aliased.shape
    assert images.is_complex() is not real_image
    assert images.isfinite().all()


@pytest.mark.parametrize("real_image", [True, False])
def test_training_starts_at_the_training_free_start(real_image):
    _, mask, aliased = example()
    measured = DataConsistency(aliased, mask, real_image)
    for name in (VIEW_SHARING, KT_SPARSE, PATCH):
        network = Cascade(**STAGES | {"real_image": real_image, "start": name})
        start = measured.enforce(initial_images(name, measured))  # patch leaves noise out
        torch.testing.assert_close(network(aliased, mask), start, atol=1e-5, rtol=1e-5)
        given = torch.rand_like(start)
        kept = measured.enforce(given)
        torch.testing.assert_close(network(aliased, mask, start=given), kept, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("real_image", [True, False])
def test_every_stage_keeps_the_measured_lines_and_the_last_is_the_output(real_image):
    target, mask, aliased = example()
    network = randomised(Cascade(**STAGES | {"real_image": real_image}))
    with torch.no_grad():
        stages = network.by_stage(aliased, mask)
        torch.testing.assert_close(stages[-1], network(aliased, mask), rtol=0, atol=0)
    assert len(stages) == STAGES["stages"]
    for images in stages:
        lines = fftc(images, axes=(-2,)) * mask
        torch.testing.assert_close(lines, fftc(target, axes=(-2,)) * mask, atol=1e-4, rtol=1e-4)


def test_an_image_that_is_rolled_along_y_is_reconstructed_alike():
    # a roll is a phase in k-space, so the same lines were measured
    target, mask, _ = example(ny=32)
    network = randomised(Cascade(**STAGES))
    with torch.no_grad():
        images = network(undersample(target, mask), mask)
        rolled = network(undersample(target.roll(8, -2), mask), mask).roll(-8, -2)
    torch.testing.assert_close(rolled, images, atol=1e-4, rtol=1e-4)


def test_stages_hand_their_features_on():
    _, mask, aliased = example()
    network = randomised(Cascade(**STAGES))
    alone = network(aliased, mask)
    torch.nn.init.zeros_(network.stages[1].recall.weight)
    torch.nn.init.zeros_(network.stages[1].recall.bias)
    assert not torch.allclose(network(aliased, mask), alone, atol=1e-4)
    assert not hasattr(network.stages[0], "recall")


@pytest.mark.parametrize("real_image", [True, False])
def test_a_shift_in_time_shifts_the_output(real_image):
    _, mask, aliased = example()
    network = randomised(Cascade(**STAGES | {"real_image": real_image}))
    with torch.no_grad():
        shifted = network(aliased.roll(3, 1), mask.roll(3, 1))
        torch.testing.assert_close(shifted, network(aliased, mask).roll(3, 1), atol=1e-4, rtol=1e-4)


def test_samples_of_a_batch_do_not_mix():
    _, mask, aliased = example(batch=2)
    network = randomised(Cascade(**STAGES))
    with torch.no_grad():
        both = network(aliased, mask)
        alone = torch.cat([network(aliased[i : i + 1], mask[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(both, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"real_image": False}, {"dc_weight": 10.0}])
def test_gradient_reaches_every_parameter_after_some_steps(settings):
    target, mask, aliased = example()
    settings = STAGES | settings
    network = Cascade(**settings | {"learn_dc_weight": settings["dc_weight"] is not None})
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(5):  # layers that start at zero pass a gradient on after their first steps
        optimizer.zero_grad()
        (network(aliased, mask) - target).abs().square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        optimizer.step()
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []


def test_weight_of_data_consistency():
    target, mask, aliased = example()
    network = randomised(Cascade(**STAGES | {"dc_weight": 1e6}))
    exact = randomised(Cascade(**STAGES))
    with torch.no_grad():
        torch.testing.assert_close(
            network(aliased, mask), exact(aliased, mask), atol=1e-3, rtol=1e-3
        )
        loose = randomised(Cascade(**STAGES | {"dc_weight": 1.0}))(aliased, mask)
    kept = fftc(loose, axes=(-2,)) * mask
    assert not torch.allclose(kept, fftc(target, axes=(-2,)) * mask, atol=1e-2)
    names = dict(Cascade(**STAGES | {"dc_weight": 2.0}).named_buffers())
    torch.testing.assert_close(names["log_weight"].exp(), torch.full((2,), 2.0))


def test_stage_starts_at_zero_and_the_default_is_small():
    correction, features = Stage(6, 2, 16, first=False)(torch.rand(2, 4, 6, 24, 20))
    assert features.shape == (8, 16, 12, 12)
    assert correction.shape == (2, 4, 2, 24, 20)
    assert not correction.any()
    default = build_model("cascade", **STAGES | {"stages": 4})
    assert sum(p.numel() for p in default.parameters()) <= 1_500_000


def test_measured_lines_of_complex_images_count_less_with_more_noise():
    settings = STAGES | {"real_image": False, "dc_weight": 10.0}
    network = Cascade(**settings)
    torch.manual_seed(0)
    rows = torch.arange(64) - 32
    images = torch.exp(-((rows[:, None] ** 2 + rows**2) / 400)).expand(3, 8, 64, 64)
    noise = torch.randn(3, 8, 64, 64, dtype=torch.complex64)
    deviation = 2**0.5 * torch.tensor([0.0, 0.009, 0.014])[:, None, None, None]
    mask = torch.ones(3, 8, 64, 1)
    precision = network.precision_of(measurement_of(images + deviation * noise, mask))
    assert precision.shape == (3, 1, 1, 1)
    wanted = torch.tensor([100, 1, 0.25])[:, None, None, None]
    torch.testing.assert_close(precision, wanted, rtol=0.2, atol=0)
    # of real images the noise is not known
    assert Cascade(**settings | {"real_image": True}).precision_of(None) == 1
