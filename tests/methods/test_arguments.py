"""What methods are called with: every wrong input is named, and right ones pass unchanged."""

import pytest
import torch

from CS_mask import cartesian_mask
from methods.arguments import require_measured
from methods.averaging import averaged
from methods.baselines import BASELINES, baseline
from methods.calibration import calibrated
from phantom.scanner import phantom
from physics.coils import expand
from physics.fourier import undersample
from training.checkpoint import load_checkpoint, load_network, network_of, weights_file
from util.errors import InputError

SHAPE = (2, 8, 48, 1)
IMAGES = torch.from_numpy(phantom(2, (8, 48, 40), seed=1))
MASK = torch.from_numpy(cartesian_mask(SHAPE, acc=4, sample_n=4, centred=True, seed=0))
UNCENTRED = torch.from_numpy(cartesian_mask(SHAPE, acc=4, sample_n=4, seed=0))
ALIASED = undersample(IMAGES, MASK)
MAPS = torch.full((2, 3, 48, 40), 3**-0.5, dtype=torch.complex64)
COILS = undersample(expand(IMAGES, MAPS), MASK[:, :, None])
NAMES = ("network", "kt_sparse", "calibrated", "averaged")

WRONG = {
    "a NumPy array": (ALIASED.numpy(), MASK, "aliased is of type ndarray, .*: torch.from_numpy"),
    "a NumPy mask": (ALIASED, MASK.numpy(), "mask is of type ndarray, .*: torch.from_numpy"),
    "one series": (ALIASED[0], MASK[:1], r"aliased is \(8, 48, 40\), .*: aliased\[None\]"),
    "coils without maps": (COILS, MASK, r"aliased is \(2, 8, 3, 48, 40\), .* need maps"),
    "frames and lines": (
        ALIASED[:1],
        MASK[0, :, :, 0],
        r"mask is \(8, 48\), expected \(1, 8, 48, 1\) for .* is mask\[None, :, :, None\]",
    ),
    "other lines": (ALIASED, MASK[:, :, 1:], r"mask is \(2, 8, 47, 1\), expected \(2, 8, 48, 1\)"),
    "one mask for all": (ALIASED, MASK[:1], r"mask is \(1, 8, 48, 1\), expected \(2, 8, 48, 1\)"),
    "whole readouts": (ALIASED, MASK.expand(-1, -1, -1, 40), r"mask is \(2, 8, 48, 40\)"),
    "magnitudes": (ALIASED.abs(), MASK, "aliased is torch.float32, expected complex numbers"),
    "half lines": (ALIASED, 0.5 * MASK, "mask has other values than 0 and 1"),
    "not a number": (ALIASED * torch.nan, MASK, "aliased has values that are not finite"),
    "zero frequency first": (ALIASED, UNCENTRED, r"zero frequency at its first line, .* n // 2"),
    "zero frequency first in both": (
        undersample(IMAGES, UNCENTRED),
        UNCENTRED,
        "zero frequency at its first line, .* centred=True",
    ),
    "another mask": (ALIASED, MASK.roll(1, 1), r"aliased has \d+% of its energy in lines that"),
    "no undersampling": (IMAGES + 0j, MASK, r"aliased has \d+% of its .* undersample\(images"),
}


@pytest.fixture(scope="module")
def doors():
    """Every kind of method that a user calls, by name."""
    network, kt_sparse = load_network("cascade_phantom"), baseline("kt_sparse", real_image=True)
    methods = network, kt_sparse, calibrated(network, "patch", True), averaged(kt_sparse, 2)
    return dict(zip(NAMES, methods, strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_named_with_a_remedy(wrong, name, doors):
    aliased, mask, message = WRONG[wrong]
    with pytest.raises(InputError, match=message):
        doors[name](aliased, mask)


@pytest.mark.parametrize(
    ("aliased", "maps", "message"),
    [
        (COILS, MAPS[:, :2], r"maps is \(2, 2, 48, 40\), expected \(2, 3, 48, 40\)"),
        (COILS, MAPS.real, "maps is torch.float32, expected complex numbers"),
        (COILS, MAPS.numpy(), "maps is of type ndarray"),
        (ALIASED, MAPS, r"aliased is \(2, 8, 48, 40\), expected \(B, T, C, Y, X\)"),
        (COILS.roll(1, 1), MAPS, r"aliased has \d+% of its energy in lines"),
    ],
)
def test_of_several_coils_too(aliased, maps, message):
    with pytest.raises(InputError, match=message):
        baseline("cg_sense", real_image=False)(aliased, MASK, maps)
    baseline("cg_sense", real_image=False)(COILS, MASK, MAPS)


def test_a_right_call_has_the_bits_of_one_without_a_check(doors):
    path = weights_file("cascade_phantom")
    inside = network_of(load_checkpoint(path), path, "cpu")
    strip = ALIASED[..., 3:8]  # of columns
    for aliased in (ALIASED, strip, 0 * ALIASED):
        for mask in (MASK, MASK.bool(), MASK.int()):
            require_measured(aliased, mask)
        with torch.no_grad():
            assert torch.equal(doors["network"](aliased, MASK), inside(aliased, MASK))
            named = doors["network"](aliased=aliased, mask=MASK, start=None)
            assert torch.equal(named, inside(aliased, MASK))


def test_masks_without_a_centre_and_of_partial_fourier_pass():
    for centre_lines, acc in ((0, 12), (1, 12), (0, 1)):
        lines = cartesian_mask(SHAPE, acc=acc, sample_n=centre_lines, centred=True, seed=0)
        mask = torch.from_numpy(lines)
        mask[:, :, :12] = 0
        require_measured(undersample(IMAGES, mask), mask)


def test_only_shapes_and_types_are_looked_at_where_values_cannot_be():
    require_measured(ALIASED.to("meta"), UNCENTRED.to("meta"))
    with pytest.raises(InputError, match=r"mask is \(2, 8, 48\)"):
        require_measured(ALIASED.to("meta"), MASK[..., 0].to("meta"))


def test_every_training_free_method_has_a_door():
    for name, method in BASELINES.items():
        maps = (MAPS,) if method.needs_coils else ()
        aliased = (COILS if maps else ALIASED).abs()
        with pytest.raises(InputError, match="expected complex numbers"):
            baseline(name, real_image=not maps)(aliased, MASK, *maps)
