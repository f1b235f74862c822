import numpy as np
import pytest
from helpers import sampling

from CS_mask import (
    PATTERNS,
    Sampling,
    cartesian_mask,
    evaluation_masks,
    hermitian_mirror,
    line_density,
    training_masks,
)


def lines(mask: np.ndarray) -> np.ndarray:
    return mask[..., 0]


def test_reference_mask_has_32_lines_a_frame_with_the_centre_sampled():
    mask = cartesian_mask(shape=(1, 20, 192, 192), acc=6, sample_n=10, centred=True, seed=0)
    assert mask.shape == (1, 20, 192, 192)
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {0, 1}
    assert (lines(mask).sum(axis=-1) == 32).all()
    assert (lines(mask)[..., 91:101] == 1).all()
    assert (mask == mask[..., :1]).all()  # constant along the readout
    assert len({frame.tobytes() for frame in lines(mask)[0]}) == 20  # each has its own lines


@pytest.mark.parametrize("sample_n", [0, 1, 10, 11, 31])
@pytest.mark.parametrize("ny", [191, 192])
@pytest.mark.parametrize("acc", [1, 6])
def test_line_count_and_centre_are_exact(sample_n, ny, acc):
    mask = lines(cartesian_mask((3, 5, ny, 2), acc, sample_n, centred=True, seed=1))
    start = ny // 2 - sample_n // 2
    assert (mask.sum(axis=-1) == int(ny / acc)).all()
    assert (mask[..., start : start + sample_n] == 1).all()


def test_not_centred_is_the_ifftshifted_mask():
    centred = cartesian_mask((4, 33, 8), 3, 5, centred=True, seed=7)
    plain = cartesian_mask((4, 33, 8), 3, 5, centred=False, seed=7)
    assert np.array_equal(plain, np.fft.ifftshift(centred, axes=(-2, -1)))


def test_lines_follow_the_density():
    ny, acc, n = 64, 4, 4000
    share = lines(cartesian_mask((n, ny, 1), acc, 0, centred=True, seed=0)).mean(axis=0)
    density = line_density(ny, acc)
    assert density[ny // 2] == pytest.approx(1 + 1 / (2 * acc))
    assert np.corrcoef(share, density)[0, 1] > 0.97
    assert share.min() > 0  # the floor gives every line a chance


def test_one_line_is_drawn_in_proportion_to_the_density():
    ny = 16
    share = lines(cartesian_mask((20_000, ny, 1), ny, 0, centred=True, seed=0)).mean(axis=0)
    density = line_density(ny, ny)
    assert share == pytest.approx(density / density.sum(), abs=0.012)


def test_own_writable_memory():
    mask = cartesian_mask((2, 32, 8), 4, 4, seed=0)
    assert mask.flags.writeable
    assert mask.flags.owndata or mask.base.size == mask.size
    mask[0, 0, 0] = 5
    assert (mask == 5).sum() == 1


def test_seed_decides_and_the_global_generator_is_untouched():
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = cartesian_mask((4, 64, 1), 4, 4.0, seed=5)
    assert np.array_equal(first, cartesian_mask((4, 64, 1), 4, 4, seed=5))
    assert not np.array_equal(first, cartesian_mask((4, 64, 1), 4, 4, seed=6))
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    rng = np.random.default_rng(5)
    assert np.array_equal(first, cartesian_mask((4, 64, 1), 4, 4, seed=rng))
    assert not np.array_equal(first, cartesian_mask((4, 64, 1), 4, 4, seed=rng))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, 64, 1), 0.5), "acc must be a finite number of at least 1, got 0.5"),
        (((4, 64, 1), float("nan")), "acc must be a finite number"),
        (((4, 64, 1), 65), "acc=65 leaves none of 64 lines"),
        (((4, 64, 1), 8, 10), r"between 0 and int\(64 / 8\) = 8 lines a frame, got 10"),
        (((4, 64, 1), 4, -1), "got -1"),
        (((4, 64, 1), 1, 65), "got 65"),
        (((4, 64, 1), 4, 2.5), r"sample_n must be a whole number, got 2\.5"),
        (((64,), 4), "shape must be"),
        (((4, 0, 8), 4), "shape must be"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        cartesian_mask(*arguments)


def test_training_masks_depend_on_seed_epoch_and_sample_alone():
    def draw(samples, seed=0, epoch=0):
        return training_masks([(epoch, i) for i in samples], (8, 64), sampling(4), seed)

    both = draw([3, 5])
    assert both.shape == (2, 8, 64, 1)
    assert np.array_equal(both, draw([5, 3])[::-1])
    assert np.array_equal(both[1:], draw([5]))
    assert not np.array_equal(both, draw([3, 5], epoch=1))
    assert not np.array_equal(both, draw([3, 5], seed=1))


def test_evaluation_masks_are_fixed_and_not_those_of_training():
    fixed = evaluation_masks([3], (8, 64), sampling(4), data_seed=0)
    assert np.array_equal(fixed, evaluation_masks([3], (8, 64), sampling(4), data_seed=0))
    assert not np.array_equal(fixed, evaluation_masks([3], (8, 64), sampling(4), data_seed=1))
    assert not np.array_equal(fixed, training_masks([(0, 3)], (8, 64), sampling(4), seed=0))


def test_a_range_of_accelerations_is_drawn_from_for_every_mask():
    masks = evaluation_masks(
        range(200), (3, 64), Sampling(("gaussian",), (4, 8), (4,)), data_seed=0
    )
    lines = masks.sum(axis=-2)[..., 0]  # (200, 3)
    assert (lines == lines[:, :1]).all()  # the frames of a sample have one acceleration
    assert lines.min() == 8
    assert lines.max() == 15  # exactly 4 is hardly ever drawn
    assert set(lines[:, 0]) == set(range(8, 16))


def drawn(pattern, acc=6, centre_lines=0, shape=(20, 192), seed=0, partial_fourier=1.0):
    """Lines (T, Y) of a mask."""
    chosen = Sampling((pattern,), (acc, acc), (centre_lines,), (partial_fourier,))
    return chosen.draw(shape, np.random.default_rng(seed))[..., 0]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("ny", [192, 33, 8])
@pytest.mark.parametrize("acc", [1, 2.5, 6])
def test_counts_and_centre_of_every_pattern(pattern, ny, acc):
    """Without a centre within one line of Y / acc; of the centre all lines, on top or among."""
    without = drawn(pattern, acc, 0, (9, ny))
    assert set(np.unique(without)) <= {0, 1}
    assert (np.abs(without.sum(axis=1) - ny / acc) <= 1).all()
    n_centre = min(3, int(ny / acc))
    lines = drawn(pattern, acc, n_centre, (9, ny))
    start = ny // 2 - n_centre // 2
    assert lines[:, start : start + n_centre].all()
    if PATTERNS[pattern].centre_counts:
        assert (lines.sum(axis=1) == int(ny / acc)).all()
    else:
        without[:, start : start + n_centre] = 1
        assert (lines == without).all()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_frames_and_seeds_differ_where_they_should(pattern):
    lines = drawn(pattern)
    assert (lines == lines[0]).all() == (pattern == "equispaced_static")
    assert (lines == drawn(pattern)).all()
    others = [drawn(pattern, seed=seed) for seed in range(1, 9)]
    assert any((lines != other).any() for other in others) == (pattern != "kt_uniform")


@pytest.mark.parametrize("pattern", ["equispaced", "kt_uniform"])
@pytest.mark.parametrize("ny", [192, 35])
@pytest.mark.parametrize("acc", [6, 4.5])
def test_all_lines_are_measured_once_in_as_many_frames_as_the_spacing(pattern, ny, acc):
    lines = drawn(pattern, acc, shape=(12, ny))
    period = int(np.ceil(acc))
    for first in range(12 - period + 1):
        met = lines[first : first + period].sum(axis=0)
        assert met.min() >= 1
        assert met.max() == (1 if acc == period else 2)
    assert (lines[1:, 1:] == lines[:-1, :-1]).all()  # shifted by one line a frame


def test_equispaced_lines_are_those_of_their_sources():
    lines = drawn("kt_uniform", 4, shape=(3, 10))
    assert [list(np.flatnonzero(frame)) for frame in lines] == [[0, 4, 8], [1, 5, 9], [2, 6]]
    assert set(np.diff(np.flatnonzero(drawn("equispaced_static", 6)[0]))) == {6}
    assert list(np.flatnonzero(drawn("kt_uniform", 2.5, shape=(1, 11)))) == [0, 2, 5, 7, 10]


def test_golden_steps_spread_the_frames_evenly():
    """Eight frames of spacing 32 measure lines of their own, at most twice the mean gap apart."""
    lines = drawn("golden_step", 32, shape=(8, 192))
    met = np.flatnonzero(lines.sum(axis=0))
    assert len(met) == 8 * 6
    assert np.diff(met).max() <= 8


@pytest.mark.parametrize(
    ("pattern", "density"),
    [
        ("uniform", lambda y: np.ones(len(y))),
        ("golden_step_density", lambda y: line_density(len(y), 8)),
        ("kt_gaussian", lambda y: 0.1 + 0.25 * np.exp(-((y / (64 / 5)) ** 2))),
    ],
)
def test_lines_follow_the_density_of_their_pattern(pattern, density):
    share = drawn(pattern, 8, shape=(8000, 64)).mean(axis=0)
    expected = density(np.arange(64) - 32)
    drawn_alone = expected / expected.sum() * 8
    assert np.abs(share / drawn_alone - 1).max() < (0.25 if pattern == "kt_gaussian" else 0.15)


def test_where_a_density_exceeds_one_line_all_lines_are_measured():
    lines = drawn("golden_step_density", 1.5, shape=(50, 64))
    assert (lines.sum(axis=1) == 42).all()
    assert lines[:, 32].all()
    assert lines[:, 0].mean() < 0.9


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("ny", [192, 33])
def test_partial_fourier_cuts_one_side(pattern, ny):
    whole = drawn(pattern, 3, 4, (7, ny))
    partial = drawn(pattern, 3, 4, (7, ny), partial_fourier=0.75)
    kept = int(np.ceil(0.75 * ny))
    assert not partial[:, : ny - kept].any()
    assert (partial[:, ny - kept :] == whole[:, ny - kept :]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pattern": "spiral"}, "unknown pattern 'spiral', expected one of gaussian, uniform, "),
        ({"pattern": "uniform", "centre_lines": 33}, r"int\(192 / 6\) = 32 lines a frame, got 33"),
        ({"pattern": "equispaced", "centre_lines": 193}, "between 0 and 192 lines, got 193"),
        ({"pattern": "equispaced", "acc": 0.5}, "acc must be a finite number of at least 1"),
        ({"pattern": "gaussian", "partial_fourier": 0.5}, "above 0.5 and at most 1, got 0.5"),
        (
            {"pattern": "kt_gaussian", "centre_lines": 24, "partial_fourier": 0.55},
            "partial_fourier=0.55 cuts some of the 24 centre lines off",
        ),
    ],
)
def test_impossible_samplings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        drawn(**arguments)


def test_every_leading_index_is_a_mask_of_its_own():
    masks = cartesian_mask((3, 4, 24, 2), 4, 0, True, 0, "kt_uniform")
    assert (masks == masks[:1]).all()
    masks = cartesian_mask((3, 4, 24, 2), 4, 0, True, 0, "uniform")
    assert not (masks[0] == masks[1]).all()


@pytest.mark.parametrize("ny", [8, 9])
def test_hermitian_mirror(ny):
    spectrum = np.fft.fftshift(np.fft.fft(np.random.default_rng(0).random(ny)))
    mirrored = hermitian_mirror(spectrum[:, None])[:, 0]
    np.testing.assert_allclose(mirrored.conj(), spectrum, atol=1e-12)


@pytest.mark.parametrize("ny", [32, 33, 192, 15])
def test_density_is_centred_on_zero_frequency(ny):
    density = line_density(ny, 4)
    assert density.argmax() == ny // 2
    np.testing.assert_array_equal(
        density[ny // 2 + 1 :], density[ny // 2 - 1 :: -1][: (ny - 1) // 2]
    )
