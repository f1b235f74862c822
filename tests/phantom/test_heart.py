"""A heart beats: it contracts, its wall keeps its area, and its surroundings give way."""

import numpy as np
import pytest
import torch

from phantom.heart import Heart, contraction


@pytest.fixture
def heart():
    return Heart(np.random.default_rng(0))


def test_contraction_is_a_heartbeat():
    phase = np.linspace(0, 1, 501)
    squeeze = contraction(phase)
    assert squeeze[0] == pytest.approx(0)
    assert squeeze[-1] == pytest.approx(0)
    assert squeeze.max() == pytest.approx(1)
    assert 0.3 < phase[squeeze.argmax()] < 0.42
    assert squeeze[phase > 0.6].max() < 0.25  # diastole


@pytest.mark.parametrize(("shift", "squeeze", "atol"), [(0, 0.0, 1e-3), (400, 1.0, 0.05)])
def test_tissue_is_at_rest_at_end_diastole_and_far_from_the_heart(heart, shift, squeeze, atol):
    x, y = (axis + shift for axis in _plane())
    torch.testing.assert_close(_origin(heart, x, y, squeeze), (x, y), rtol=0, atol=atol)


def test_cavity_shrinks_and_wall_keeps_its_area(heart):
    rest, squeezed = _areas(heart, 0.0), _areas(heart, 1.0)
    assert squeezed["cavity"] / rest["cavity"] == pytest.approx(
        (1 - heart.shortening) ** 2, rel=0.03
    )
    assert squeezed["wall"] / rest["wall"] == pytest.approx(1 + heart.thickening, rel=0.05)


def test_motion_does_not_fold(heart):
    x, y = _plane()
    u, v = _origin(heart, x, y, 1.0)
    spacing = x[0, 1] - x[0, 0]
    du_dy, du_dx = torch.gradient(u, spacing=spacing.item())
    dv_dy, dv_dx = torch.gradient(v, spacing=spacing.item())
    assert (du_dx * dv_dy - du_dy * dv_dx).min() > 0


def _plane():
    """Positions (x, y) on a grid of 0.5 mm, 200 mm wide, each (Y, X)."""
    axis = torch.arange(-100, 100, 0.5)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def _origin(heart, x, y, squeeze):
    (origin,) = heart.origins(x, y, [squeeze])
    return origin


def _areas(heart, squeeze):
    """Number of grid points that hold tissue of the left ventricle's cavity and wall."""
    x, y = _plane()
    r = torch.hypot(*heart.local(*_origin(heart, x, y, squeeze)))
    inner, outer = heart.radii(0.0)
    return {"cavity": (r < inner).sum().item(), "wall": ((r >= inner) & (r < outer)).sum().item()}
