"""A patient's spine stays, and the canvas paints what it is told."""

import math

import numpy as np
import pytest
import torch

from phantom import anatomy
from phantom.anatomy import Canvas, paint_anatomy
from phantom.heart import Heart


@pytest.fixture
def heart():
    return Heart(np.random.default_rng(0))


@pytest.fixture
def canvas():
    return Canvas(np.random.default_rng(0), 180, 200)


def test_canvas_is_centred_and_in_millimetres(canvas):
    assert canvas.x.shape == canvas.y.shape == (180, 200)
    low, high = anatomy.FIELD_OF_VIEW
    assert low <= 200 * canvas.pixel <= high
    assert (canvas.x[0, -1] - canvas.x[0, 0]).item() == pytest.approx(199 * canvas.pixel)
    assert (canvas.y[-1, 0] - canvas.y[0, 0]).item() == pytest.approx(179 * canvas.pixel)
    assert canvas.x.mean().item() == pytest.approx(0, abs=1e-3)
    assert canvas.y[0, 0] == -canvas.y[-1, 0]


def test_coarser_positions_span_the_same_canvas(canvas):
    for fine, coarse in zip(canvas.positions(), canvas.positions(coarser=3), strict=True):
        assert coarse.shape == (60, 66)
        torch.testing.assert_close(coarse[0, 0], fine[0, 0])
        torch.testing.assert_close(coarse[-1, -1], fine[-1, -1])


@pytest.mark.parametrize("scale", [3, 8, 20])
def test_field_is_of_unit_spread_and_as_fine_as_asked(canvas, scale):
    fields = torch.stack([canvas.field(scale) for _ in range(10)])
    assert fields.mean().abs() < 0.1
    assert fields.std().item() == pytest.approx(1, abs=0.1)
    apart = math.ceil(4 * scale / canvas.pixel)  # no knot reaches as far
    assert (fields[..., apart:] * fields[..., :-apart]).mean().abs() < 0.1
    neighbours = (fields[..., 1:] - fields[..., :-1]).square().mean().sqrt()
    assert neighbours < 2 * canvas.pixel / scale


def test_cubic_interpolation_is_exact_for_a_parabola():
    weights = anatomy._cubic_weights(50, 0.13)
    knots = torch.arange(weights.shape[1]) - 1.0
    expected = (0.13 * torch.arange(50)).square()
    torch.testing.assert_close(weights @ knots.square(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("coarser", [1, 2])
def test_sampling_where_the_tissue_is_changes_nothing(canvas, coarser):
    image = canvas.field(20)
    found = canvas.sample(image, *canvas.positions(coarser))
    torch.testing.assert_close(found, image, rtol=0, atol=1e-3)


def test_sampling_elsewhere_shifts_the_image(canvas):
    image = canvas.field(20)
    x, y = canvas.positions(coarser=2)
    found = canvas.sample(image, x + 5 * canvas.pixel, y)
    torch.testing.assert_close(found[:, :-8], image[:, 5:-3], rtol=0, atol=1e-3)


def test_paint_covers_the_inside_and_darkens_the_edge(canvas):
    before = canvas.image.clone()
    depth = 40 - torch.hypot(canvas.x, canvas.y)
    canvas.paint(depth, 0.7, rim=0.8)
    inside, outside, edge = depth > 12, depth < -12, depth.abs() < 0.2
    torch.testing.assert_close(
        canvas.image[inside], torch.full_like(before[inside], 0.7), rtol=1e-3, atol=0
    )
    torch.testing.assert_close(canvas.image[outside], before[outside], rtol=1e-3, atol=0)
    assert canvas.image[edge].max() < 0.2


@pytest.mark.parametrize("seed", range(4))
def test_spine_is_behind_the_heart_and_at_rest(seed):
    canvas, heart = (
        Canvas(np.random.default_rng(seed), 300, 300),
        Heart(np.random.default_rng(seed)),
    )
    x, y = canvas.x - heart.centre[0], canvas.y - heart.centre[1]
    spine = anatomy._paint_spine(canvas, heart, x, y, torch.full_like(x, 100.0)) > 0
    assert y[spine].min() > 0.9 * heart.radii(0)[1]

    aorta = (canvas.flow[0] > 0.135) & ~spine  # nearly all of its pulse
    nearest = torch.cdist(
        torch.stack([x[aorta], y[aorta]], 1), torch.stack([x[spine], y[spine]], 1)
    ).min()
    assert nearest < 8
    assert x[aorta].mean() < x[spine].mean()
    assert y[aorta].mean() < y[spine].mean()

    ((moved_x, moved_y),) = heart.origins(canvas.x, canvas.y, [1.0])
    moved = torch.hypot(moved_x - canvas.x, moved_y - canvas.y)[spine]
    assert moved.mean() < 0.5


def test_a_vertebra_of_plausible_size_has_a_canal_of_fluid_around_a_cord():
    fluid, cord, marrow = map(_spine_alone, ("spinal fluid", "spinal cord", "marrow"))
    assert 45 < marrow["width"] < 70  # between the tips of the transverse processes
    assert 65 < marrow["height"] < 100  # from the front of the body to the tip of the spinous one
    assert 13 < fluid["width"] < 19
    assert 10 < fluid["height"] < 17
    assert cord["width"] < 0.8 * fluid["width"]
    assert cord["centre"] == pytest.approx(fluid["centre"], abs=1)


def test_every_patient_has_a_chest_and_blood_that_flows():
    canvas, heart = Canvas(np.random.default_rng(2), 200, 200), Heart(np.random.default_rng(2))
    free = paint_anatomy(canvas, heart)
    assert 0.1 < (free > 0).float().mean() < 0.8
    assert free[100, 100] > 0
    assert len(canvas.flow) >= 6
    assert torch.isfinite(canvas.image).all()


def _spine_alone(tissue):
    """Extent and centre in mm of the one tissue that has signal."""
    canvas, heart = Canvas(np.random.default_rng(1), 400, 400), Heart(np.random.default_rng(1))
    canvas.image.zero_()
    canvas.signal = {name: float(name == tissue) for name in canvas.signal}
    anatomy._paint_spine(canvas, heart, canvas.x, canvas.y, torch.full_like(canvas.x, 100.0))
    x, y = (axis[canvas.image > 0.4] for axis in (canvas.x, canvas.y))
    width, height = ((axis.max() - axis.min()).item() for axis in (x, y))
    return {"width": width, "height": height, "centre": (x.mean().item(), y.mean().item())}
