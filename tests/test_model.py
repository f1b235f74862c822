import pytest
import torch
from helpers import STAGES, UNET, randomised

from methods.refiner import STEPS, Refiner
from methods.start import ZERO_FILLED, magnitude
from methods.unet import Attention, DualUNet, UNet, pooled
from model import (
    MODELS,
    architecture_settings,
    build_model,
    channels_last,
    count_cost,
    set_checkpointing,
)
from train import train
from util.settings import settings_of

ARCHITECTURE = UNET | {
    "in_channels": 4,
    "out_channels": 4,
    "data_consistency": False,
    "start": ZERO_FILLED,
    "real_image": True,
}
OF_MODEL = {  # a small network of each kind, with its own start
    model: {
        name: (STAGES | ARCHITECTURE | ({"start": "kt_sparse"} if model == "cascade" else {}))[name]
        for name in architecture_settings(model)
    }
    for model in MODELS
}
UNET3D = OF_MODEL["cnn3d"]
UNETS = ("unet", "unet_resnet", "cnn3d")
DEFAULT = ARCHITECTURE | {"in_channels": 20, "out_channels": 20, "init_features": 64}


def example(batch: int, ny: int, nx: int, n_frames: int = 4):
    generator = torch.manual_seed(0)
    aliased = torch.randn(batch, n_frames, ny, nx, dtype=torch.complex64, generator=generator)
    return aliased, torch.ones(batch, n_frames, ny, 1)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 5), (48, 16)])
def test_any_size_trains_and_keeps_its_shape(model, batch, size):
    network = build_model(model, **OF_MODEL[model])
    aliased, mask = example(batch, *size)
    reconstruction = network(aliased, mask)
    assert reconstruction.shape == aliased.shape
    assert reconstruction.dtype == torch.float32  # without data consistency, or of a real image
    reconstruction.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("start", [ZERO_FILLED, "kt_sparse"])
@pytest.mark.parametrize("model", MODELS)
def test_several_coils_train_and_add_no_arithmetic_to_the_network(model, start):
    changed = {"real_image": False, "data_consistency": start != ZERO_FILLED, "start": start}
    if model == "cascade":
        del changed["start"]  # it has no other than a training-free one
    known = architecture_settings(model)
    architecture = OF_MODEL[model] | {k: v for k, v in changed.items() if k in known}
    network = build_model(model, **architecture)
    generator = torch.manual_seed(0)
    aliased = torch.randn(2, 4, 3, 32, 24, dtype=torch.complex64, generator=generator)
    maps = torch.randn(2, 3, 32, 24, dtype=torch.complex64, generator=generator)
    images = network(aliased, torch.ones(2, 4, 32, 1), maps / 3)
    assert images.shape == (2, 4, 32, 24)
    images.abs().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    single, several = (count_cost(model, 2, (4, 32, 24), n, **architecture) for n in (None, 3))
    assert several.parameters == single.parameters
    assert several.macs == single.macs


def test_unet_has_the_size_of_the_reference():
    unet = UNet(20, 20, init_features=64, dropout=0.0, batch_norm=True)
    assert sum(p.numel() for p in unet.parameters()) == pytest.approx(31e6, rel=0.02)
    assert unet.bottom[0].out_channels == 1024


def test_default_training_step_fits_eleven_gigabytes():
    cost = count_cost("unet_resnet", 10, (20, 192, 192), **DEFAULT)
    weights_gradients_and_moments = 4 * 4 * cost.parameters
    assert cost.activation_bytes + weights_gradients_and_moments < 8e9


def test_cost_counts_what_is_known():
    one = count_cost("unet", 1, (20, 192, 192), **DEFAULT)
    ten = count_cost("unet", 10, (20, 192, 192), **DEFAULT)
    assert one.macs == ten.macs
    assert ten.activation_bytes == pytest.approx(10 * one.activation_bytes, rel=0.01)
    network = build_model("unet", **DEFAULT)
    assert one.parameters == sum(p.numel() for p in network.parameters())
    head = 2 * 64 * 20 * 192 * 192  # 1x1 convolutions of two U-Nets
    first = 2 * 9 * 20 * 64 * 192 * 192
    assert one.macs > head + first


@pytest.mark.parametrize("data_consistency", [False, True])
@pytest.mark.parametrize("model", UNETS)
def test_training_starts_at_the_zero_filled_reconstruction(model, data_consistency):
    aliased, mask = example(2, 33, 47)
    network = build_model(model, **OF_MODEL[model] | {"data_consistency": data_consistency})
    torch.testing.assert_close(network(aliased, mask).abs(), aliased.abs(), atol=1e-5, rtol=1e-5)


def test_real_and_imaginary_unet_share_nothing():
    network = randomised(DualUNet(**ARCHITECTURE)).eval()
    aliased, mask = example(1, 32, 32)
    before = network.imaginary(aliased.imag)
    with torch.no_grad():
        for parameter in network.real.parameters():
            parameter.zero_()
    assert torch.equal(network.imaginary(aliased.imag), before)
    assert not torch.equal(network(aliased, mask), network(aliased.conj() * 1j, mask))


@pytest.mark.parametrize("branches", ["separate", "shared", "stacked"])
@pytest.mark.parametrize("attention", [False, True])
def test_branches_and_attention_train(branches, attention):
    settings = ARCHITECTURE | {"branches": branches, "attention": attention, "init_features": 8}
    network = build_model("unet_resnet", **settings)
    aliased, mask = example(2, 33, 40)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        (network(aliased, mask) - 1).square().mean().backward()
        optimizer.step()
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []


def test_branches_have_the_parameters_that_they_say():
    def count(branches):
        network = DualUNet(**DEFAULT | {"init_features": 8, "branches": branches})
        return sum(p.numel() for p in network.parameters())

    assert count("separate") == 2 * count("shared")
    assert count("shared") < count("stacked") < 1.1 * count("shared")


def test_shared_branch_treats_both_parts_alike_and_stacked_mixes_them():
    aliased, mask = example(1, 32, 32)
    swapped = torch.complex(aliased.imag, aliased.real)
    shared = randomised(DualUNet(**ARCHITECTURE | {"branches": "shared"})).eval()
    stacked = randomised(DualUNet(**ARCHITECTURE | {"branches": "stacked"})).eval()
    with torch.no_grad():
        torch.testing.assert_close(shared(aliased, mask), shared(swapped, mask))
        assert not torch.allclose(stacked(aliased, mask), stacked(swapped, mask), atol=1e-3)


def test_attention_weighs_by_at_most_one():
    attention = randomised(Attention(32))
    x = torch.rand(2, 32, 5, 6)
    weighed = attention(x)
    assert (weighed > 0).all()
    assert (weighed < x).all()


def test_three_dimensional_unet_sees_neighbouring_frames():
    network = randomised(build_model("cnn3d", **UNET3D | {"batch_norm": False}))
    aliased, mask = example(1, 32, 32, n_frames=7)
    changed = aliased.clone()
    changed[:, 3] += 1
    with torch.no_grad():
        difference = (network(changed, mask) - network(aliased, mask)).abs().amax(dim=(0, 2, 3))
    assert (difference > 1e-6).all()


@pytest.mark.parametrize("model", MODELS)
def test_gradient_checkpointing_changes_no_gradient(model):
    network = randomised(build_model(model, **OF_MODEL[model]))
    aliased, mask = example(2, 32, 32)
    gradients = []
    for enabled in (False, True):
        set_checkpointing(network, enabled)
        network.zero_grad()
        network(aliased, mask).abs().square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_magnitude_has_a_finite_gradient_at_zero():
    parts = torch.zeros(2, 5, requires_grad=True)
    magnitude(parts[0], parts[1]).sum().backward()
    assert parts.grad.isfinite().all()
    assert magnitude(torch.tensor(3.0), torch.tensor(4.0)).item() == pytest.approx(5)


@pytest.mark.parametrize(("views", "reached"), [(False, [0, 1, 11]), (True, list(range(12)))])
def test_refiner_is_the_identity_then_uses_neighbouring_frames_and_time_is_cyclic(views, reached):
    """With temporal views, one of which is the mean, it uses all frames."""
    refiner, image = Refiner(16, batch_norm=True, views=views), torch.rand(1, 12, 8, 8)
    assert torch.equal(refiner(image), image)  # as it starts
    refiner = randomised(refiner).eval()
    changed = image.clone()
    changed[:, 0] += 1
    with torch.no_grad():
        reach = (refiner(changed) - refiner(image)).abs().amax(dim=(0, 2, 3))
        assert (reach > 1e-6).nonzero().flatten().tolist() == reached
        rolled = refiner(image.roll(3, dims=1))
        expected = refiner(image).roll(3, dims=1)
    torch.testing.assert_close(rolled, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("data_consistency", "steps"), [(True, STEPS), (False, 1)])
def test_refiners_in_a_row_need_data_consistency(data_consistency, steps):
    settings = ARCHITECTURE | {"data_consistency": data_consistency}
    assert len(build_model("unet_resnet", **settings).refiners) == steps


def test_refiner_can_correct_single_pixels():
    refiner = randomised(Refiner(16, batch_norm=True, views=True)).eval()
    image = torch.rand(1, 3, 16, 16)
    correction = refiner(image) - image
    checkerboard = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 8)  # the highest frequency
    assert (correction * checkerboard).mean().abs() > 1e-3


def test_dropout_and_batch_norm_are_settings():
    aliased, mask = example(2, 32, 32)
    dropping = randomised(build_model("unet", **ARCHITECTURE | {"dropout": 0.5}))
    assert not torch.equal(dropping(aliased, mask), dropping(aliased, mask))
    plain = build_model("unet", **ARCHITECTURE | {"batch_norm": False})
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in plain.modules())


def test_the_arguments_of_every_network_are_settings_of_train():
    settings = {setting.name for setting in settings_of(train)}
    for model in MODELS:
        assert set(architecture_settings(model)) <= settings, model


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_frames_pooled_one_by_one_are_pooled_in_three_dimensions(layout):
    x = torch.randn(2, 3, 5, 8, 6).to(memory_format=layout).requires_grad_()
    ours, theirs = pooled(x), torch.nn.functional.max_pool3d(x, (1, 2, 2))
    assert torch.equal(ours, theirs)
    weight = torch.randn(ours.shape)
    gradients = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (ours, theirs)]
    assert torch.equal(*gradients)
    assert torch.equal(pooled(x[0]), torch.nn.functional.max_pool2d(x[0], 2))


def test_weights_keep_the_layout_that_is_right_on_mps(monkeypatch):
    network = torch.nn.Conv2d(4, 4, 3)
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Parameter, "device", torch.device("mps"), raising=False)
        channels_last(network)
    assert network.weight.is_contiguous()
    channels_last(network)
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
