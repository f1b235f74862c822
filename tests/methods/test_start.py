import pytest
import torch
from helpers import UNET, randomised, sampling

from CS_mask import evaluation_masks
from methods.baselines import kt_sparse, patch_low_rank, view_sharing
from methods.start import (
    KT_FALL,
    KT_SPARSE,
    KT_STEPS,
    KT_THRESHOLD,
    OF_PATCH,
    PATCH,
    STARTS,
    VIEW_SHARING,
    ZERO_FILLED,
    InitialImage,
    initial_images,
)
from model import build_model
from physics.consistency import DataConsistency
from physics.fourier import undersample
from physics.sense import measurement_of

UNETS = ("unet", "unet_resnet", "cnn3d")
PRIOR = pytest.mark.parametrize("real_image", [True, False])
BETTER = pytest.mark.parametrize("start", [VIEW_SHARING, KT_SPARSE, PATCH])


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """Fewer steps, for time, and because on random images rounding grows from step to step."""
    monkeypatch.setitem(OF_PATCH, "n_steps", 16)


def example(n_frames: int = 8, ny: int = 32, nx: int = 36, phase: bool = False):
    """A random series, its mask and its aliased image."""
    target = torch.rand(2, n_frames, ny, nx, generator=torch.manual_seed(0))
    if phase:
        target = target * torch.exp(1j * torch.linspace(0, 3, ny)[:, None])
    mask = torch.from_numpy(evaluation_masks(range(2), (n_frames, ny), sampling(4), data_seed=0))
    return target, mask, undersample(target, mask)


def make(model: str, start: str, real_image: bool, **changes) -> torch.nn.Module:
    settings = UNET | {"start": start, "real_image": real_image} | changes
    if model == "cnn3d":
        for name in ("in_channels", "out_channels", "branches", "attention"):
            del settings[name]
    torch.manual_seed(0)
    return build_model(model, **settings).eval()


@PRIOR
def test_a_start_is_the_training_free_method_of_its_name(real_image):
    _, mask, aliased = example()
    measured = DataConsistency(aliased, mask, real_image)
    for name, images in (
        (VIEW_SHARING, view_sharing(measured)),
        (KT_SPARSE, kt_sparse(measured, KT_THRESHOLD, KT_FALL, KT_STEPS)),
        (PATCH, patch_low_rank(measured, **OF_PATCH)),
    ):
        assert torch.equal(initial_images(name, measured), images)


def test_the_patch_start_ends_at_the_noise_of_each_sample():
    rows = torch.arange(48) - 24
    images = torch.exp(-((rows[:, None] ** 2 + rows**2) / 200)).expand(2, 8, 48, 48)
    noise = torch.randn(2, 8, 48, 48, dtype=torch.complex64, generator=torch.manual_seed(0))
    noisy = images + torch.tensor([0.0, 0.03])[:, None, None, None] * noise
    mask = torch.from_numpy(evaluation_masks(range(2), (8, 48), sampling(3), data_seed=0))
    aliased = undersample(noisy, mask)
    start = initial_images(PATCH, measurement_of(aliased, mask))
    alone = [
        initial_images(PATCH, measurement_of(aliased[i : i + 1], mask[i : i + 1])) for i in (0, 1)
    ]
    torch.testing.assert_close(start, torch.cat(alone))
    kept = (undersample(start, mask) - aliased).abs().square().mean(dim=(1, 2, 3))
    assert kept[0] < 1e-10  # noiseless lines stay as they are, the others lose noise
    assert kept[1] > 1e-5


@PRIOR
@BETTER
def test_a_start_is_in_single_precision_whatever_that_of_the_network(start, real_image):
    _, mask, aliased = example()
    measured = DataConsistency(aliased, mask, real_image)
    with torch.autocast("cpu", torch.bfloat16):
        images = initial_images(start, measured)
    assert torch.equal(images, initial_images(start, measured))


@PRIOR
@pytest.mark.parametrize("model", UNETS)
def test_a_start_that_is_given_is_what_would_be_made(model, real_image):
    network = randomised(make(model, VIEW_SHARING, real_image, data_consistency=True))
    _, mask, aliased = example()
    start = initial_images(VIEW_SHARING, DataConsistency(aliased, mask, real_image))
    with torch.no_grad():
        own = network(aliased, mask)
        assert torch.equal(network(aliased, mask, start=start), own)
        assert not torch.equal(network(aliased, mask, start=0 * start), own)


@PRIOR
@BETTER
@pytest.mark.parametrize("model", UNETS)
@pytest.mark.parametrize("data_consistency", [True, False])
def test_training_starts_at_the_start(model, start, real_image, data_consistency):
    _, mask, aliased = example(phase=not real_image)
    network = make(model, start, real_image, data_consistency=data_consistency)
    measured = DataConsistency(aliased, mask, real_image)
    images = initial_images(start, measured)
    if data_consistency:  # the patch start of a random image has less noise
        images = measured.enforce(images)
    made = network(aliased, mask)
    assert made.is_complex() is (data_consistency and not real_image)
    if not (made.is_complex() or real_image):
        images = images.abs()
    torch.testing.assert_close(made, images, atol=1e-5, rtol=1e-5)


@PRIOR
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("model", UNETS)
def test_measured_lines_are_kept_exactly(model, start, real_image):
    _, mask, aliased = example(phase=not real_image)
    network = randomised(make(model, start, real_image))
    with torch.no_grad():
        images = network(aliased, mask)
    if start == ZERO_FILLED:  # it never uses the prior
        assert images.is_complex()
        real_image = False
    before, after = (
        DataConsistency(x, m, real_image)
        for x, m in ((aliased, mask), (images, torch.ones_like(mask)))
    )
    # with the prior their mirrors too, which `known` and `lines` hold
    torch.testing.assert_close(after.lines * before.known, before.lines, atol=1e-4, rtol=1e-4)


@PRIOR
@BETTER
def test_a_shift_in_time_shifts_a_start(start, real_image):
    _, mask, aliased = example()
    first, second = (
        InitialImage(
            start, aliased.roll(k, 1), mask.roll(k, 1), None, real_image, data_consistency=True
        )
        for k in (0, 3)
    )
    for before, after in zip(first.parts, second.parts, strict=True):
        atol = 1e-3 if start == PATCH else 1e-5
        torch.testing.assert_close(after, before.roll(3, 1), atol=atol, rtol=1e-5)


@PRIOR
@BETTER
@pytest.mark.parametrize("size", [(8, 33, 47), (3, 21, 17), (1, 16, 16)])
def test_any_number_of_frames_and_any_size(start, real_image, size):
    _, mask, aliased = example(*size)
    for model in UNETS:
        network = make(model, start, real_image, in_channels=size[0], out_channels=size[0])
        with torch.no_grad():
            images = randomised(network)(aliased, mask)
        assert images.shape == aliased.shape
        assert images.isfinite().all()


@PRIOR
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("model", UNETS)
@pytest.mark.parametrize("data_consistency", [True, False])
def test_a_gradient_reaches_every_parameter(model, start, real_image, data_consistency):
    _, mask, aliased = example(phase=not real_image)
    network = make(model, start, real_image, data_consistency=data_consistency).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    for _ in range(3):  # layers that start at zero pass a gradient on after their first steps
        optimizer.zero_grad()
        error = network(aliased, mask) - torch.rand(aliased.shape, generator=torch.manual_seed(1))
        error.abs().square().mean().backward()
        optimizer.step()
    without = {name for name, p in network.named_parameters() if not p.grad.any()}
    # a constant is the line ky = 0, which was measured: the last bias of a U-Net can change nothing
    assert without <= ({"unet.head.bias"} if data_consistency else set())


@PRIOR
@BETTER
def test_a_start_has_no_gradient(start, real_image):
    _, mask, aliased = example()
    start = InitialImage(
        start, aliased.requires_grad_(), mask, None, real_image, data_consistency=False
    )
    assert not any(part.requires_grad for part in start.parts)
