import numpy as np
import pytest

from CS_mask import PATTERNS, Sampling, as_given, evaluation_masks
from evaluation.sampling_shift import mask_warnings, outside_lines

TRAINED = Sampling(("gaussian",), (6, 6), (10,))


def outside(pattern="gaussian", acc=6.0, centre_lines=10, partial_fourier=1.0, trained=TRAINED):
    """What is said of one test mask."""
    chosen = Sampling((pattern,), (acc, acc), (centre_lines,), (partial_fourier,))
    return outside_lines(evaluation_masks([7], (20, 192), chosen, data_seed=1), trained)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("acc", [(6, 6), (4, 10)])
@pytest.mark.parametrize("centre_lines", [0, 10])
def test_masks_of_the_law_of_the_training_are_inside(pattern, acc, centre_lines):
    assert outside(pattern, 6, centre_lines, 1, Sampling((pattern,), acc, (centre_lines,))) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"acc": 8}, "acceleration 8, the weights were trained at 6"),
        ({"centre_lines": 0}, "0 lines in the centre that every frame measures"),
        ({"pattern": "equispaced_static"}, "the frames together measure 21% of all lines"),
        ({"pattern": "uniform"}, "another density: 2"),
        ({"pattern": "equispaced"}, "another density: 3"),
        ({"partial_fourier": 0.75}, "25% of k-space at its ends is never measured"),
    ],
)
def test_what_differs_is_measured(changed, message):
    assert any(message in line for line in outside(**changed))


def test_a_mixture_is_as_wide_as_its_parts_and_as_their_mean():
    mixture = Sampling(("gaussian", "equispaced"), (4, 8), (0, 10), (1.0, 0.75))
    for pattern in mixture.patterns:
        for centre_lines in mixture.centre_lines:
            for share in mixture.partial_fourier:
                assert outside(pattern, 6, centre_lines, share, mixture) == []
    masks = evaluation_masks(range(8), (20, 192), mixture, data_seed=1)
    assert outside_lines(masks, mixture) == []
    (line,) = outside("equispaced_static", 6, 0, 1.0, mixture)
    assert "lines repeat" in line


def test_masks_of_a_file_are_compared_with_those_of_the_training():
    lines = evaluation_masks(range(3), (20, 192), TRAINED, data_seed=3)
    given = Sampling(("mine.npy",), (6, 6), (10,), given=as_given(lines[..., 0]))
    assert outside(trained=given) == []
    assert any("density" in line for line in outside("uniform", trained=given))


def test_nothing_is_compared_where_the_training_could_have_no_mask():
    assert outside_lines(np.ones((1, 3, 8, 1), np.float32), TRAINED) == []


def lines_of(pattern="gaussian", acc=6.0, centre_lines=10, ny=192):
    chosen = Sampling((pattern,), (acc, acc), (centre_lines,), (1.0,))
    return evaluation_masks([7], (8, ny), chosen, data_seed=1)


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if "static" not in p])
@pytest.mark.parametrize("centre_lines", [0, 10])
def test_usual_masks_need_no_warning(pattern, centre_lines):
    assert mask_warnings(lines_of(pattern, 6, centre_lines)) == []


def test_warnings_name_what_masks_lack():
    usual = lines_of()
    empty = usual.copy()
    empty[0, [1, 4]] = 0
    assert "2 of 8 frames have no line" in mask_warnings(empty)[0]
    assert "all frames have the same lines" in mask_warnings(usual[:, :1].repeat(8, axis=1))[0]
    assert "10 of at most 11 lines" in mask_warnings(lines_of(acc=8, ny=95))[0]
    assert mask_warnings(np.ones_like(usual)) == []
