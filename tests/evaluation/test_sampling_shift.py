import numpy as np
import pytest

from CS_mask import PATTERNS, Sampling, evaluation_masks
from evaluation.sampling_shift import outside_lines

TRAINED = Sampling("gaussian", (6, 6), 10)


def outside(pattern="gaussian", acc=6.0, centre_lines=10, partial_fourier=1.0, trained=TRAINED):
    """What is said of one test mask."""
    chosen = Sampling(pattern, (acc, acc), centre_lines, partial_fourier)
    return outside_lines(evaluation_masks([7], (20, 192), chosen, data_seed=1), trained)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("acc", [(6, 6), (4, 10)])
@pytest.mark.parametrize("centre_lines", [0, 10])
def test_masks_of_the_law_of_the_training_are_inside(pattern, acc, centre_lines):
    assert outside(pattern, 6, centre_lines, 1, Sampling(pattern, acc, centre_lines)) == []


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


def test_nothing_is_compared_where_the_training_could_have_no_mask():
    assert outside_lines(np.ones((1, 3, 8, 1), np.float32), TRAINED) == []
