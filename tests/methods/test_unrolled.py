"""The field's networks: `dc_cnn`, `crnn`, `varnet` and `modl`."""

import itertools

import numpy as np
import pytest
import torch
from helpers import TINY, make_images, random_complex, randomised, report_of, sampling

from CS_mask import evaluation_masks
from methods.cascade import Cascade
from methods.crnn import CRNN
from methods.dc_cnn import shared_lines
from methods.start import KT_SPARSE, ZERO_FILLED, ignores_prior, initial_images
from methods.unrolled import Unrolled
from methods.varnet import VarNet
from metrics import psnr
from model import MODELS, architecture_settings, build_model, count_cost, own_settings, run_network
from physics.coils import expand
from physics.consistency import DataConsistency
from physics.fourier import fftc, undersample
from physics.sense import CoilConsistency, measurement_of
from train import train
from training.checkpoint import load_network
from training.optimisation import make_optimizer
from util.errors import InputError

NETWORKS = [  # the cascade has its own tests
    name
    for name, network in MODELS.items()
    if issubclass(network, Unrolled) and network is not Cascade
]
EXACT = ("dc_cnn", "crnn")  # networks that keep the measured lines of one coil
GIVEN = {"batch_norm": False, "real_image": False, "start": ZERO_FILLED}


def architecture(model: str, **changes) -> dict:
    """Of two stages and few features."""
    given = GIVEN | {"stages": 2, "features": 8} | changes
    return {name: given[name] for name in architecture_settings(model)}


def of_the_paper(model: str) -> dict:
    """With its own values."""
    return architecture(model, **own_settings(model) | {"batch_norm": True})


def measured(n_frames: int = 6, ny: int = 32, nx: int = 24, phase: bool = True):
    """A moving disc, its mask and its aliased images."""
    target = torch.from_numpy(make_images(1, n_frames, ny, nx)) / 1.1
    if phase:
        target = target * torch.exp(1j * torch.linspace(0, 2, nx))
    masks = evaluation_masks([0], (n_frames, ny), sampling(4), data_seed=0)
    mask = torch.from_numpy(masks)
    return target, mask, undersample(target, mask)


def maps_of(n_coils: int, ny: int, nx: int) -> torch.Tensor:
    """Random maps (1, C, Y, X) of norm 1."""
    maps = random_complex(1, n_coils, ny, nx, seed=3)
    return maps / maps.abs().square().sum(dim=1, keepdim=True).sqrt()


def test_parameters_and_arithmetic_are_those_of_the_papers():
    def convolution(before, after, size, bias=True):
        return size * before * after + (after if bias else 0)

    def layers(before, features, size):
        middle = 3 * convolution(features, features, size)
        return convolution(before, features, size) + middle + convolution(features, 2, size)

    pixels = 20 * 192 * 192
    costs = {
        model: count_cost(model, 1, (20, 192, 192), **of_the_paper(model)) for model in NETWORKS
    }
    assert layers(2, 64, 27) == 338_946  # D5 of Schlemper et al. in three dimensions
    assert costs["dc_cnn"].parameters == 5 * layers(12, 64, 27) == 1_781_130
    assert costs["dc_cnn"].macs == 5 * 27 * pixels * (12 * 64 + 3 * 64**2 + 64 * 2)

    recurrent = convolution(2, 64, 9) + 2 * convolution(64, 64, 9)
    iterated = 3 * 2 * convolution(64, 64, 9)
    assert costs["crnn"].parameters == recurrent + iterated + convolution(64, 2, 9) == 297_794
    each = 2 * 64 + 3 * 64**2 + 6 * 64**2 + 64 * 2  # over time in both directions
    assert costs["crnn"].macs == 5 * 9 * pixels * each

    without_biases = layers(2, 64, 27) - 4 * 64
    assert costs["modl"].parameters == without_biases + 4 * 2 * 64 + 1 == 339_203
    assert costs["modl"].macs == 10 * 27 * pixels * (2 * 64 + 3 * 64**2 + 64 * 2)

    widths = [18 * 2**level for level in range(5)]
    pairs = [(2, 18), *itertools.pairwise(widths)]
    pairs += [(2 * width, width) for width in widths[:-1]]
    frames = sum(9 * (before + after) * after for before, after in pairs)
    up = sum(4 * 2 * width * width for width in widths[:-1])
    head = 18 * 2 + 2
    assert 12 * (frames + up + head + 1) == 29_452_068  # Sriram et al., without maps
    over_time = sum(2 * 3 * after**2 for _, after in pairs)
    biases = sum(widths[:-1])  # of the transposed convolutions
    assert costs["varnet"].parameters == 12 * (frames + over_time + up + biases + head + 1)


@pytest.mark.parametrize("real_image", [True, False])
@pytest.mark.parametrize("model", NETWORKS)
def test_training_starts_at_the_start(model, real_image):
    _, mask, aliased = measured(phase=not real_image)
    lines = DataConsistency(aliased, mask, real_image)
    network = build_model(model, **architecture(model, real_image=real_image))
    images = network(aliased, mask)
    assert images.is_complex() is not real_image
    torch.testing.assert_close(images, lines.inverse(lines.lines), atol=1e-5, rtol=1e-5)
    start = lines.enforce(initial_images(KT_SPARSE, lines))
    torch.testing.assert_close(network(aliased, mask, start=start), start, atol=1e-5, rtol=1e-5)
    network = build_model(model, **architecture(model, real_image=real_image, start=KT_SPARSE))
    torch.testing.assert_close(network(aliased, mask), start, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("size", [(5, 33, 47), (2, 21, 17), (1, 16, 16), (12, 18, 9)])
def test_any_number_of_frames_and_any_size(model, size):
    network = randomised(build_model(model, **architecture(model)))
    _, mask, aliased = measured(*size)
    with torch.no_grad():
        images = network(aliased, mask)
    assert images.shape == aliased.shape
    assert images.isfinite().all()


@pytest.mark.parametrize("real_image", [True, False])
@pytest.mark.parametrize("model", NETWORKS)
def test_stages_and_the_measured_lines(model, real_image):
    target, mask, aliased = measured(phase=not real_image)
    network = randomised(build_model(model, **architecture(model, real_image=real_image)))
    with torch.no_grad():
        stages = network.by_stage(aliased, mask)
        assert torch.equal(stages[-1], network(aliased, mask))
    assert len(stages) == 2
    assert not torch.allclose(stages[0], stages[1], atol=1e-3)
    kept = [
        torch.allclose(fftc(x, axes=(-2,)) * mask, fftc(target, axes=(-2,)) * mask, atol=1e-4)
        for x in stages
    ]
    assert kept == 2 * [model in EXACT]


@pytest.mark.parametrize("n_coils", [None, 3])
@pytest.mark.parametrize("model", NETWORKS)
def test_gradient_reaches_every_parameter_after_some_steps(model, n_coils):
    target, mask, aliased = measured()
    given = [aliased, mask]
    if n_coils:
        maps = maps_of(n_coils, 32, 24)
        given = [undersample(expand(target, maps), mask[:, :, None]), mask, maps]
    network = build_model(model, **architecture(model, batch_norm=True))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(4):  # layers that start at zero pass a gradient on after their first steps
        optimizer.zero_grad()
        (network(*given) - target).abs().square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        optimizer.step()
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []


@pytest.mark.parametrize("model", NETWORKS)
def test_one_coil_of_sensitivity_1_gives_the_images_of_one_coil(model):
    _, mask, aliased = measured()
    network = randomised(build_model(model, **architecture(model)))
    with torch.no_grad():
        one = network(aliased, mask)
        other = network(aliased[:, :, None], mask, torch.ones(1, 1, 32, 24, dtype=torch.complex64))
    torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model", NETWORKS)
def test_the_physics_stays_in_single_precision(model):
    target, mask, aliased = measured()
    network = randomised(build_model(model, **architecture(model)))
    with torch.no_grad():
        full = network(aliased, mask)
        half = run_network(network, aliased, mask, precision="bfloat16")
    assert half.dtype == torch.complex64
    torch.testing.assert_close(half, full, atol=0.05, rtol=0.05)
    if model in EXACT:
        lines = fftc(half, axes=(-2,)) * mask
        torch.testing.assert_close(lines, fftc(target, axes=(-2,)) * mask, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "features", "steps"),
    [("dc_cnn", 16, 75), ("crnn", 16, 45), ("varnet", 8, 40), ("modl", 16, 60)],
)
def test_one_sample_is_learnt_above_45_db(model, features, steps):
    """A beating disc with a phase, under two masks: CPUs are slow on batches of one."""
    y, x = torch.meshgrid(*2 * [torch.linspace(-1, 1, 24)], indexing="ij")
    radius = 0.5 + 0.1 * torch.linspace(0, 2 * torch.pi, 7)[:6, None, None].cos()
    heart = torch.sigmoid(15 * (radius - torch.hypot(x, 1.3 * y - 0.1)))
    body = torch.sigmoid(15 * (0.9 - torch.hypot(x, y)))
    target = ((0.7 * heart + 0.2 * body) * torch.exp(1j * x)).expand(2, -1, -1, -1)
    mask = torch.from_numpy(evaluation_masks([0, 1], (6, 24), sampling(2), data_seed=0))
    aliased = undersample(target, mask)
    torch.manual_seed(0)
    network = build_model(model, **architecture(model, features=features))
    optimizer = torch.optim.Adam(network.parameters())
    for n in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - n / steps)
        optimizer.zero_grad()
        (network(aliased, mask) - target).abs().square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        images = network(aliased, mask)
    assert psnr(aliased.abs(), target.abs()).max() < 36
    assert psnr(images.abs(), target.abs()).min() > 45


def test_shared_lines_are_the_mean_over_the_frames_that_measured_them():
    mask = torch.zeros(1, 7, 5, 1)
    mask[0, 0, 1] = mask[0, 2, 1] = mask[0, 5, 3] = 1
    lines = DataConsistency(random_complex(1, 7, 5, 4), mask, real_image=False)
    by_ky = torch.fft.ifftshift(mask, dim=-2)
    first, second = by_ky[0, 0].flatten().argmax(), by_ky[0, 5].flatten().argmax()
    shared = shared_lines(lines, 5)
    assert len(shared) == 5
    near, known = shared[0]  # one frame away
    mean = (lines.lines[0, 0, first] + lines.lines[0, 2, first]) / 2
    torch.testing.assert_close(near[0, 1, first], mean)
    assert known[0, :, first, 0].tolist() == [True, True, True, True, False, False, True]
    assert torch.equal(near[0, 0, first], lines.lines[0, 0, first])  # its own
    farther, known = shared[1]
    assert known[0, :, first, 0].tolist() == 5 * [True] + 2 * [True]
    torch.testing.assert_close(farther[0, 1, first], mean)
    assert known[0, :, second, 0].tolist() == [True, False, False, True, True, True, True]
    everywhere, known = shared[4]  # of 7 frames each counts once
    assert known[0, :, second].all()
    torch.testing.assert_close(everywhere[0, 3, first], mean)
    assert not known[0, :, [k for k in range(5) if k not in (first, second)]].any()


@pytest.mark.parametrize("n_coils", [None, 3])
def test_the_physics_of_a_strip_is_that_of_the_whole_image(n_coils):
    target, mask, aliased = measured()
    given, strip = [aliased, mask], slice(5, 13)
    if n_coils:
        maps = maps_of(n_coils, 32, 24)
        given = [undersample(expand(target, maps), mask[:, :, None]), mask, maps]
    cut = [x if x is mask else x[..., strip] for x in given]
    whole, part = measurement_of(*given), measurement_of(*cut)
    images, weight = random_complex(1, 6, 32, 24), torch.tensor(20.0)
    solved = whole.solve(images, weight, 5)[..., strip]
    torch.testing.assert_close(part.solve(images[..., strip], weight, 5), solved)
    for (lines, known), (of_strip, known_of_strip) in zip(
        shared_lines(whole, 5), shared_lines(part, 5), strict=True
    ):
        torch.testing.assert_close(of_strip, lines[..., strip])
        assert torch.equal(known_of_strip, known)


def test_the_views_of_a_static_image_are_the_image_where_lines_are_known():
    target, mask, _ = measured()
    still = target[:, :1].expand_as(target)
    lines = DataConsistency(undersample(still, mask), mask, real_image=False)
    shared, known = shared_lines(lines, 5)[-1]
    torch.testing.assert_close(shared, lines.transform(still) * known, atol=1e-5, rtol=1e-5)


def test_recurrence_runs_through_all_frames_in_both_directions_and_through_stages():
    _, mask, aliased = measured(n_frames=9)
    network = randomised(CRNN(stages=1, features=8, real_image=False, start=ZERO_FILLED))
    changed = aliased.clone()
    changed[:, 4] += 1
    with torch.no_grad():
        reach = (network(changed, mask) - network(aliased, mask)).abs().amax(dim=(0, 2, 3))
        assert (reach > 1e-7).all()
        turned = network(aliased.flip(1), mask.flip(1)).flip(1)
        torch.testing.assert_close(turned, network(aliased, mask), atol=1e-5, rtol=1e-5)
        network.n_stages = 2
        with_memory = network(aliased, mask)
        for layer in (network.iteration.both_ways, *network.iteration.over_iterations):
            torch.nn.init.zeros_(getattr(layer, "over_iterations", layer).weight)
        assert not torch.allclose(network(aliased, mask), with_memory, atol=1e-4)


def test_step_of_varnet_is_that_of_the_gradient():
    target, mask, _ = measured()
    maps = maps_of(3, 32, 24)
    aliased = undersample(expand(target, maps), mask[:, :, None])
    network = VarNet(stages=1, features=2, real_image=False, start=ZERO_FILLED)
    lines = CoilConsistency(aliased, mask, maps)
    with torch.no_grad():
        network.step.fill_(0.3)
        start = random_complex(1, 6, 32, 24)
        moved = lines.descend(start, torch.zeros_like(start), 0.3)
        torch.testing.assert_close(network(aliased, mask, maps, start), moved)


def test_l2_penalty_leaves_the_weights_of_the_physics_alone():
    for model, name in (("modl", "log_weight"), ("varnet", "step")):
        network = build_model(model, **architecture(model))
        penalised, free = make_optimizer(network, 1e-3, 0.1).param_groups
        assert (penalised["weight_decay"], free["weight_decay"]) == (0.1, 0)
        assert [id(p) for p in free["params"]] == [id(getattr(network, name))]


def test_regulariser_of_varnet_scales_with_its_images():
    network = randomised(VarNet(stages=1, features=4, real_image=False, start=ZERO_FILLED))
    _, mask, aliased = measured()
    with torch.no_grad():
        images = network(aliased, mask)
        torch.testing.assert_close(network(3 * aliased, mask) / 3, images, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n_coils", [None, 3])
def test_solution_of_modl_is_the_minimum(n_coils):
    target, mask, aliased = measured()
    images, weight = random_complex(1, 6, 32, 24), torch.tensor(20.0)
    lines = DataConsistency(aliased, mask, real_image=False)
    if n_coils:
        maps = maps_of(n_coils, 32, 24)
        lines = CoilConsistency(undersample(expand(target, maps), mask[:, :, None]), mask, maps)
    solution = lines.solve(images, weight, 60)
    error = lines.known * (lines.transform(solution) - lines.lines)
    gradient = weight * lines.inverse(error) + solution - images
    assert gradient.abs().max() < 1e-3


def test_implicit_gradient_of_the_solver_is_that_of_a_long_one():
    target, mask, _ = measured(n_frames=2, ny=16, nx=4)
    maps = maps_of(3, 16, 4)
    lines = CoilConsistency(undersample(expand(target, maps), mask[:, :, None]), mask, maps)
    images, towards = random_complex(1, 2, 16, 4), random_complex(1, 2, 16, 4, seed=1)
    inputs = images.clone().requires_grad_(), torch.tensor(3.0, requires_grad=True)
    loss = (lines.solve(*inputs, 40) - towards).abs().square().sum()
    implicit = torch.autograd.grad(loss, inputs)
    # the same through steepest descent to the minimum, every step of which is differentiated
    solution, weight = inputs[0], inputs[1]
    for _ in range(300):
        residual = weight * (lines.zero_filled - lines.normal(solution)) + inputs[0] - solution
        solution = solution + residual / (1 + 3.0)
    explicit = torch.autograd.grad((solution - towards).abs().square().sum(), inputs)
    for ours, theirs in zip(implicit, explicit, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_modl_shares_one_network_and_crnn_one_iteration():
    def count(model, stages):
        network = build_model(model, **architecture(model, stages=stages))
        return sum(p.numel() for p in network.parameters())

    for model in NETWORKS:
        times = 1 if model in ("modl", "crnn") else 2
        assert count(model, 4) == times * count(model, 2)


@pytest.mark.parametrize("model", NETWORKS)
def test_a_run_of_each_has_a_table_by_stage_and_weights_of_the_network(model, tmp_path, tiny_npz):
    settings = TINY | {"model": model, "stages": 2, "features": 2, "num_epochs": 1}
    settings |= {"weight_decay": 0.0, "strip": 16, "baselines": ("zero_filled",)}
    returned = train(tmp_path / "run", data=tiny_npz, **settings)
    assert returned[model]["psnr"] > returned["zero_filled"]["psnr"] - 0.5
    text = report_of(tmp_path / "run")
    assert "Stages" in text
    assert "strips of 16 columns" in text
    assert "zero-filled image, as the reference's" not in text
    network = load_network(tmp_path / "run" / "checkpoint_best.pt")
    assert network.real_image
    assert (network.start, network.n_stages) == (ZERO_FILLED, 2)
    _, mask, aliased = measured(phase=False)
    assert network(aliased, mask).dtype == torch.float32


def test_weights_say_whether_they_assume_real_images():
    of_model = {"start": ZERO_FILLED, "real_image": True}
    assert not ignores_prior(of_model)
    assert ignores_prior(of_model | {"data_consistency": True})
    assert not ignores_prior(of_model | {"data_consistency": True, "start": KT_SPARSE})


def test_a_single_frame_is_refused_by_a_recurrent_network(tmp_path):
    given = TINY | {"model": "crnn", "stages": 1, "features": 2}
    with pytest.raises(InputError, match="crnn needs at least 2 frames, but --data phantom has 1"):
        train(tmp_path / "a", data="phantom", **given | {"in_channels": 1})
    np.savez(tmp_path / "data.npz", dataset=make_images(9, n_frames=1))
    with pytest.raises(InputError, match=r"crnn needs at least 2 frames, but .*npz has 1"):
        train(tmp_path / "b", data=tmp_path / "data.npz", **given)
    for model in ("dcnn", "varnt", "mocl"):
        with pytest.raises(InputError, match=r"did you mean (dc_cnn|varnet|modl)\?"):
            train(tmp_path / "c", data="phantom", **given | {"model": model})
