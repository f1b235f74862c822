import numpy as np
import pytest
from helpers import TINY, report_of
from scipy.io import savemat

from CS_mask import Sampling, as_given, cartesian_mask, given_lines
from formats.masks import read_masks
from train import train
from util.errors import InputError, Interrupted

SHAPE = (8, 32, 36)
MASKS = cartesian_mask((3, 8, 32, 1), 4, 4, centred=True, seed=0)[..., 0] > 0  # (3, T, Y)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (MASKS, MASKS),
        (MASKS[0], MASKS[:1]),
        (MASKS[0].T, MASKS[:1]),
        (MASKS[0, 0], np.repeat(MASKS[:1, :1], 8, axis=1)),
        (np.repeat(MASKS[0][..., None], 36, axis=2), MASKS[:1]),
        (np.repeat(MASKS[0].T[None], 36, axis=0), MASKS[:1]),  # (X, Y, T), as MATLAB has it
        (np.fft.ifftshift(MASKS, axes=-1).astype(float), MASKS),
    ],
    ids=["several", "one", "turned", "lines", "whole", "whole of MATLAB", "zero frequency first"],
)
@pytest.mark.parametrize("kind", ["npy", "npz", "mat"])
def test_layouts_of_other_programs_are_read(tmp_path, kind, array, expected):
    path = tmp_path / f"masks.{kind}"
    if kind == "npy":
        np.save(path, array)
    elif kind == "npz":
        np.savez(path, mask=array, shape=[1, 2])
    else:
        savemat(path, {"mask": array.astype(np.uint8)})
    assert (read_masks(path, SHAPE) == expected).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (MASKS[:, :7], r"the mask is (3, 7, 32), and the images have 8 frames of 32 lines and 36"),
        (MASKS * 2, "expected zeros and ones (32,), (8, 32), or several masks (n, 8, 32)"),
        (MASKS * (np.arange(8) > 0)[:, None], "a frame has no measured line"),
    ],
)
def test_masks_that_do_not_fit_are_refused(tmp_path, array, message):
    np.save(tmp_path / "mask.npy", array)
    with pytest.raises(InputError) as refused:
        read_masks(tmp_path / "mask.npy", SHAPE)
    assert message in str(refused.value)


def test_given_masks_are_drawn_one_for_each_sample():
    given = as_given(MASKS)
    assert (given_lines(given[1]) == MASKS[1]).all()
    sampling = Sampling(("mine.npy",), (4, 4), (4,), given=given)
    rng = np.random.default_rng(0)
    found = {sampling.draw((8, 32), rng).tobytes() for _ in range(30)}
    assert found == {mask[..., None].astype(np.float32).tobytes() for mask in MASKS}


def test_a_run_on_the_masks_of_a_file(tmp_path, tiny_npz):
    np.save(tmp_path / "mine.npy", MASKS[0])
    settings = {k: v for k, v in TINY.items() if k not in ("acc", "test_acc", "sample_n")}
    settings |= {"data": tiny_npz, "pattern": str(tmp_path / "mine.npy"), "num_epochs": 1}
    train(tmp_path / "run", **settings)
    text = " ".join(report_of(tmp_path / "run").split())
    assert "Cartesian, mine.npy: 8 of 32 lines a frame (25.0%), 4 of them the centre" in text
    assert "nominal acceleration 4, actual 4" in text
    with np.load(tmp_path / "run" / "reconstructions.npz") as arrays:
        assert (arrays["mask"] == MASKS[0]).all()
    stopped = settings | {"max_steps": 1}
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", **stopped)
    np.save(tmp_path / "mine.npy", MASKS[0, ::-1])  # as many lines, in other frames
    with pytest.raises(InputError, match=r"begun with other masks than .*mine\.npy has now"):
        train(tmp_path / "stopped", resume=True)
    np.save(tmp_path / "mine.npy", MASKS[0])
    again = train(tmp_path / "stopped", resume=True)
    assert again == train(tmp_path / "run", resume=True)
    for changed, message in (
        ({"acc": 6}, "--acc is 6, and --pattern is a file, whose masks have 4.0"),
        ({"partial_fourier": 0.75}, "--partial-fourier is not for the masks of a file"),
        ({"pattern": "none.npy"}, "none.npy"),
        ({"pattern": "spiral"}, "--pattern is 'spiral', expected one of gaussian, uniform"),
    ):
        with pytest.raises(InputError, match=message):
            train(tmp_path / "other", **settings | changed)
