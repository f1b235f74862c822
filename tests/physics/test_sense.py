"""Data consistency with several coils, against the formula and against that of one coil."""

import pytest
import torch
from helpers import random_complex

from CS_mask import cartesian_mask
from methods.averaging import averaged
from methods.baselines import BASELINES, baseline
from methods.cascade import Cascade
from physics.coils import expand
from physics.consistency import DataConsistency
from physics.fourier import undersample
from physics.sense import CoilConsistency, aliased_by, measurement_of

NY, NX = 16, 9


def measured_by(n_coils: int, ny: int = NY):
    """A series, its maps of norm 1, its mask, and its aliased coil images."""
    images, maps = random_complex(2, 5, ny, NX), random_complex(2, n_coils, ny, NX, seed=1)
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    mask = torch.from_numpy(cartesian_mask((2, 5, ny, 1), 3, 2, centred=True, seed=0))
    return images, maps, mask, aliased_by(images, mask, maps)


def one_coil():
    """A series, its mask, its aliased images, and maps of a coil of sensitivity 1."""
    images, _, mask, _ = measured_by(1)
    return images, mask, undersample(images, mask), torch.ones(2, 1, NY, NX, dtype=torch.complex64)


def inner(a, b):
    return torch.vdot(a.ravel(), b.ravel())


@pytest.mark.parametrize("ny", [16, 15])
def test_the_normal_operator_is_the_adjoint_after_the_forward_operator(ny):
    images, maps, mask, aliased = measured_by(3, ny)
    measured = CoilConsistency(aliased, mask, maps)
    other = random_complex(*images.shape, seed=3)
    left = inner(undersample(expand(other, maps), mask[:, :, None]), aliased)  # <A other, A images>
    torch.testing.assert_close(left, inner(other, measured.normal(images)))
    torch.testing.assert_close(left, inner(measured.normal(other), images))
    torch.testing.assert_close(measured.zero_filled, measured.normal(images))
    torch.testing.assert_close(measured.inverse(measured.lines), measured.zero_filled)
    torch.testing.assert_close(measured.inverse(measured.transform(images)), images)
    size = inner(images, measured.normal(images)).real
    assert 0 < size <= inner(images, images).real * (1 + 1e-5)


def test_measured_lines_are_those_of_each_coil():
    images, maps, mask, aliased = measured_by(3)
    every = torch.fft.fft(expand(images, maps), dim=-2, norm="ortho")
    expected = torch.fft.ifftshift(mask, dim=-2)[:, :, None] * every
    torch.testing.assert_close(CoilConsistency(aliased, mask, maps).lines, expected)


def test_the_proximal_step_solves_its_equation():
    images, maps, mask, aliased = measured_by(3)
    measured = CoilConsistency(aliased, mask, maps)
    start = random_complex(*images.shape, seed=5)
    exact = measured.proximal(start, 4.0, n_steps=30)
    left = exact + 4 * measured.normal(exact)
    torch.testing.assert_close(left, start + 4 * measured.zero_filled, atol=1e-4, rtol=1e-4)
    assert (measured.proximal(start, 4.0) - exact).norm() < 0.01 * (exact - start).norm()


def test_gradients_are_those_of_the_adjoint():
    images, maps, mask, aliased = measured_by(2)
    measured, towards = CoilConsistency(aliased, mask, maps), random_complex(2, 5, NY, NX, seed=6)
    plain = images.clone().requires_grad_()
    inner(measured.normal(plain), towards).real.backward()
    torch.testing.assert_close(plain.grad, measured.normal(towards))
    weight = torch.tensor(1.5, requires_grad=True)
    measured.enforce(images * 0, weight).abs().square().sum().backward()
    size = measured.zero_filled.abs().square().sum()  # the sum is (v / (1 + v))^2 times this
    torch.testing.assert_close(weight.grad, 2 * 1.5 / 2.5**3 * size)


def test_steps_along_the_gradient_lower_the_error_of_the_lines():
    images, maps, mask, aliased = measured_by(3)
    measured = CoilConsistency(aliased, mask, maps)
    errors, found = [], torch.zeros_like(images)
    for _ in range(4):
        found = measured.enforce(found)
        errors.append((aliased_by(found, mask, maps) - aliased).abs().square().sum().item())
    assert errors == sorted(errors, reverse=True)
    torch.testing.assert_close(measured.enforce(images), images)  # which agrees with them already


@pytest.mark.parametrize("weight", [None, 3.0])
def test_a_strip_of_columns_gives_the_numbers_of_the_whole_image(weight):
    images, maps, mask, aliased = measured_by(3)
    weight = None if weight is None else torch.tensor(weight)
    start, strip = random_complex(*images.shape, seed=8), slice(2, 6)
    whole = CoilConsistency(aliased, mask, maps).enforce(start, weight)
    part = CoilConsistency(aliased[..., strip], mask, maps[..., strip])
    torch.testing.assert_close(part.enforce(start[..., strip], weight), whole[..., strip])
    torch.testing.assert_close(
        part.proximal(start[..., strip], 2.0),
        CoilConsistency(aliased, mask, maps).proximal(start, 2.0)[..., strip],
    )


@pytest.mark.parametrize("weight", [None, 3.0])
def test_one_coil_of_sensitivity_1_is_the_projection_of_one_coil(weight):
    images, mask, aliased, ones = one_coil()
    start = random_complex(*images.shape, seed=9)
    weight = None if weight is None else torch.tensor(weight)
    coils = measurement_of(aliased[:, :, None], mask, ones)
    single = measurement_of(aliased, mask)
    assert isinstance(single, DataConsistency)
    torch.testing.assert_close(coils.enforce(start, weight), single.enforce(start, weight))
    if weight is not None:
        assert isinstance(coils, CoilConsistency)
        torch.testing.assert_close(coils.proximal(start, 3.0), single.enforce(start, weight))


# not temporal TV, which weighs the lines of coils against the variation
@pytest.mark.parametrize(
    "name",
    [
        *("zero_filled", "time_average", "view_sharing"),
        *("kt_sparse", "low_rank_sparse", "patch_sparse", "patch_low_rank"),
    ],
)
def test_one_coil_of_sensitivity_1_gives_the_baselines_of_one_coil(name, monkeypatch):
    monkeypatch.setattr("methods.baselines.IN_NOISE", 0.0)  # random images are noise
    _, mask, aliased, ones = one_coil()
    method = baseline(name, real_image=False)
    found, single = method(aliased[:, :, None], mask, ones), method(aliased, mask)
    # a smooth phase near zero magnifies rounding
    atol = 1e-3 if name.startswith("patch") else 1e-5
    torch.testing.assert_close(found, single, atol=atol, rtol=1e-4)


@pytest.mark.parametrize("dc_weight", [None, 5.0])
def test_one_coil_of_sensitivity_1_gives_the_cascade_of_one_coil(dc_weight):
    _, mask, aliased, ones = one_coil()
    torch.manual_seed(0)
    network = Cascade(2, 8, False, dc_weight, False, "kt_sparse").eval()
    for stage in network.stages:
        torch.nn.init.normal_(stage.project.weight, std=0.1)
    with torch.no_grad():
        found, single = network(aliased[:, :, None], mask, ones), network(aliased, mask)
    torch.testing.assert_close(found, single, atol=1e-4, rtol=1e-4)


def test_cg_sense_is_nearer_than_view_sharing_and_needs_coils():
    images, maps, mask, aliased = measured_by(4)
    still = images[:, :1].expand_as(images)
    aliased = aliased_by(still, mask, maps)
    errors = [
        (baseline(name, real_image=False)(aliased, mask, maps) - still).abs().square().mean()
        for name in ("zero_filled", "view_sharing", "cg_sense")
    ]
    assert errors[0] > errors[1] > errors[2]
    with pytest.raises(ValueError, match="several coils"):
        baseline("cg_sense", real_image=False)(aliased[:, :, 0], mask)


def test_temporal_tv_lowers_its_objective():
    images, maps, mask, aliased = measured_by(3)
    measured = CoilConsistency(aliased, mask, maps)

    def objective(found, bound):
        residual = undersample(expand(found, maps), mask[:, :, None]) - aliased
        variation = (found.roll(-1, 1) - found).abs().sum()
        return (residual.abs().square().sum() / 2 + bound * variation).item()

    method = BASELINES["temporal_tv"].reconstruct
    values = [objective(method(measured, 0.05, n_steps=n), 0.05) for n in (0, 20, 200)]
    assert values == sorted(values, reverse=True)
    for seed in range(3):  # near the minimum, every change raises it
        nearby = method(measured, 0.05, 200) + 0.01 * random_complex(*images.shape, seed=seed)
        assert objective(nearby, 0.05) > values[-1]


def test_the_mean_over_mirrored_series_turns_the_maps_too():
    _, maps, mask, aliased = measured_by(3)
    method = baseline("zero_filled", real_image=False)
    once = method(aliased, mask, maps)
    torch.testing.assert_close(averaged(method, 8)(aliased, mask, maps), once)


def test_real_valued_images_have_one_coil():
    _, maps, mask, aliased = measured_by(2)
    with pytest.raises(ValueError, match="real_image"):
        measurement_of(aliased, mask, maps, real_image=True)
