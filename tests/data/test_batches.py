import re
from dataclasses import replace

import pytest
import torch
from helpers import make_images, sampling

from CS_mask import Condition, Sampling
from data.acquisition import Acquisition, Noise
from data.augmentation import AUGMENTATIONS
from data.batches import (
    EvaluationBatches,
    TrainingDraws,
    divided,
    epoch_draws,
    prepared,
    training_batch,
)
from physics.coils import combine
from physics.fourier import fftc, undersample
from physics.sense import aliased_by

IMAGES = torch.from_numpy(make_images())  # (9, 8, 32, 36)
ACQUISITION = Acquisition(sampling(4), phase=False, noise=0.0, data_seed=0)
DRAWS = TrainingDraws(seed=0, mask_pool=0, augment=(), strip=None)
BETWEEN = Sampling(("gaussian",), (3.0, 6.0), (4,))
RANDOM = {"augment": ("flips", "time"), "strip": 16, "phase": True, "noise": 0.01}
RANDOM |= {"sampling": BETWEEN}


def batch_of(draws, images=IMAGES, device="cpu", **settings):
    """A training batch with some settings changed."""
    acquisition, training = (
        replace(known, **{k: v for k, v in settings.items() if hasattr(known, k)})
        for known in (ACQUISITION, DRAWS)
    )
    return training_batch(images, draws, acquisition, training, device)


def equal(a, b) -> bool:
    return all(
        torch.equal(x, y) for x, y in ((a.image, b.image), (a.mask, b.mask), (a.aliased, b.aliased))
    )


def test_an_epoch_takes_every_sample_once_for_every_strip():
    draws = epoch_draws(range(6), seed=0, epoch=3, n_rounds=1)
    assert sorted(draws) == [(3, i) for i in range(6)]
    strips = epoch_draws(range(6), seed=0, epoch=3, n_rounds=3)
    assert sorted(strips) == sorted((number, i) for number in (9, 10, 11) for i in range(6))


@pytest.mark.parametrize("settings", [{}, RANDOM])
def test_a_draw_depends_on_nothing_but_itself(settings):
    both = batch_of([(2, 4), (3, 1)], **settings)
    for i, draw in enumerate([(2, 4), (3, 1)]):
        alone = batch_of([draw], **settings)
        assert torch.equal(alone.image[0], both.image[i])
        assert torch.equal(alone.aliased[0], both.aliased[i])
    assert equal(both, batch_of([(2, 4), (3, 1)], **settings))


@pytest.mark.parametrize("name", RANDOM)
def test_every_setting_changes_a_batch(name):
    plain = batch_of([(0, 0)])
    changed = batch_of([(0, 0)], **{name: RANDOM[name]})
    assert plain.aliased.shape != changed.aliased.shape or not torch.equal(
        plain.aliased, changed.aliased
    )


def test_a_plain_batch_is_the_aliased_sample():
    batch = batch_of([(0, 5)])
    assert torch.equal(batch.image[0], IMAGES[5])
    assert batch.target is batch.image
    assert torch.equal(batch.aliased, undersample(batch.image, batch.mask))


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_augmented_images_are_undersampled_afterwards(kind):
    changed = False
    for number in range(8):
        batch = batch_of([(number, 5)], augment=(kind,))
        assert torch.equal(batch.aliased, undersample(batch.image, batch.mask))
        changed |= not torch.equal(batch.image[0], IMAGES[5])
    assert changed


def test_rounds_and_seeds_differ_and_masks_may_be_kept():
    first = batch_of([(0, 0)])
    assert not torch.equal(first.mask, batch_of([(1, 0)]).mask)
    assert not torch.equal(first.mask, batch_of([(0, 0)], seed=1).mask)
    kept = [batch_of([(number, 0)], mask_pool=1) for number in (0, 1)]
    assert torch.equal(kept[0].mask, kept[1].mask)


@pytest.mark.parametrize("settings", [{}, {"phase": True, "noise": 0.01}])
def test_a_pool_repeats_all_draws_but_the_strips(settings):
    settings |= {"mask_pool": 2, "augment": ("flips", "time", "shift")}
    whole = [batch_of([(number, 0)], **settings) for number in range(4)]
    assert equal(whole[0], whole[2])
    assert equal(whole[1], whole[3])
    assert not torch.equal(whole[0].mask, whole[1].mask)
    strips = [batch_of([(number, 0)], strip=16, **settings) for number in range(0, 12, 2)]
    places = set()
    for strip in strips:
        found = [
            x
            for x in range(21)
            if torch.equal(strip.image, whole[0].image[..., x : x + 16])
            and torch.equal(strip.aliased, whole[0].aliased[..., x : x + 16])
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 2


def test_a_start_is_that_of_the_whole_image():
    asked = []

    def starts(key, make_batch):
        asked.append(key)
        batch = make_batch()
        assert batch.image.shape == (1, 8, 32, 36)
        return batch.image.clone()

    draws = [(5, 1), (2, 3)]
    acquisition, training = ACQUISITION, replace(DRAWS, mask_pool=2, strip=16)
    batch = training_batch(IMAGES, draws, acquisition, training, "cpu", starts)
    assert asked == [(1, 1), (0, 3)]
    assert torch.equal(batch.start, batch.image)
    assert batch.start.shape == (2, 8, 32, 16)


def test_strips_are_columns_of_the_sample():
    starts = set()
    for number in range(40):
        strip = batch_of([(number, 2)], strip=16).image[0]
        assert strip.shape == (8, 32, 16)
        found = [s for s in range(21) if torch.equal(strip, IMAGES[2][..., s : s + 16])]
        assert len(found) == 1
        starts.add(found[0])
    assert len(starts) > 10
    assert batch_of([(0, 2)], strip=500).image.shape == (1, 8, 32, 36)


def test_phase_turns_the_truth_and_keeps_its_magnitude():
    batch = batch_of([(0, 1)], phase=True)
    assert batch.image.is_complex()
    torch.testing.assert_close(batch.target, IMAGES[1:2], atol=1e-6, rtol=1e-6)
    assert batch.image.imag.abs().max() > 0.1
    torch.testing.assert_close(batch.aliased, undersample(batch.image, batch.mask))


def test_noise_is_in_the_measured_lines_and_not_in_the_truth():
    batch = batch_of([(0, 1)], noise=0.05)
    assert torch.equal(batch.image, IMAGES[1:2])
    noise = torch.fft.fft(
        batch.aliased - undersample(batch.image, batch.mask), dim=-2, norm="ortho"
    )
    measured = torch.fft.ifftshift(batch.mask, dim=-2).expand_as(noise) > 0
    assert noise[~measured].abs().max() < 1e-5
    for part in (noise[measured].real, noise[measured].imag):
        assert part.std().item() == pytest.approx(0.05, rel=0.1)


def test_each_sample_draws_its_noise_from_a_range():
    assert Noise.of(0.02) == Noise.of((0.02,)) == (0.02, 0.02)
    both = torch.cat([batch_of([(0, i)], noise=(0.01, 0.05)).aliased for i in range(9)])
    clean = torch.cat([batch_of([(0, i)]).aliased for i in range(9)])
    noise = (both - clean).abs().square().mean(dim=(1, 2, 3)).mul(2).sqrt()  # a quarter is measured
    assert 0.008 < noise.min() < noise.max() < 0.055
    assert noise.max() > 1.5 * noise.min()


@pytest.mark.parametrize("settings", [{}, {"phase": True, "noise": 0.01, "sampling": BETWEEN}])
def test_evaluation_is_fixed_and_whole(settings):
    acquisition = replace(ACQUISITION, **settings)
    batches = EvaluationBatches(IMAGES, [6, 7, 8], acquisition, size=2)
    assert len(batches) == 2
    first, second = batches
    assert (first.samples, second.samples) == ([6, 7], [8])
    assert first.image.shape == (2, 8, 32, 36)
    assert equal(first, batches[0])
    assert equal(second, batches[-1])
    assert [batch.samples for batch in batches[1:]] == [[8]]
    with pytest.raises(IndexError):
        batches[2]
    with pytest.raises(ValueError, match=r"there are 9 samples, found the indices \[99\]"):
        EvaluationBatches(IMAGES, [0, 99], acquisition, size=1)
    with pytest.raises(ValueError, match="size must be at least 1"):
        EvaluationBatches(IMAGES, [0], acquisition, size=0)
    alone = EvaluationBatches(IMAGES, [7], acquisition, size=1)[0]
    assert torch.equal(alone.aliased[0], first.aliased[1])
    moved = EvaluationBatches(IMAGES, [6, 7], replace(acquisition, data_seed=5), size=2)[0]
    assert not equal(first, moved)


def test_a_batch_knows_what_its_masks_have_in_common():
    acquisition = replace(ACQUISITION, sampling=BETWEEN)
    every = EvaluationBatches(IMAGES, [6], acquisition, size=1)[0]
    assert every.condition == ("gaussian", None)  # each has its own acceleration
    at = EvaluationBatches(IMAGES, [6], acquisition.at(Condition("gaussian", 4)), size=1)[0]
    assert at.condition == ("gaussian", 4)
    assert at.mask.sum(dim=-2).unique().item() == 8


def test_complex_data_stay_complex():
    images = IMAGES * torch.exp(torch.tensor(1j))
    batch = batch_of([(0, 0)], images)
    assert batch.image.is_complex()
    torch.testing.assert_close(batch.target, images[:1].abs())


@pytest.mark.parametrize("n_ahead", [0, 1, 3])
def test_batches_made_ahead_are_the_same_and_in_order_and_so_is_an_error(n_ahead):
    made = []

    def make(draws):
        made.append(draws)
        return draws[0][1]

    def mkl_threads():
        return re.search(r"mkl_get_max_threads\(\) : \d+|$", torch.__config__.parallel_info())[0]

    before = mkl_threads()
    parts = [[(0, sample)] for sample in range(7)]
    assert list(prepared(make, parts, n_ahead)) == list(range(7))
    batches = prepared(make, parts, n_ahead)
    assert next(batches) == 0
    batches.close()
    assert len(made) <= 7 + 1 + n_ahead + (n_ahead > 0)  # no more than asked for
    assert mkl_threads() == before
    with pytest.raises(ZeroDivisionError):
        list(prepared(lambda draws: 1 / 0, parts, n_ahead))


def test_a_step_is_divided_into_parts_of_at_most_one_size():
    draws = [(0, sample) for sample in range(7)]
    assert divided(draws, 1) == [draws]
    assert divided(draws, 3) == [draws[:3], draws[3:6], draws[6:]]
    assert divided(draws, 9) == [[draw] for draw in draws]


COILS = {"coils": 3, "phase": True}


def test_coils_have_maps_and_a_truth_that_they_combine():
    batch = EvaluationBatches(IMAGES, [2], replace(ACQUISITION, **COILS), 1)[0]
    assert batch.aliased.shape == (1, 8, 3, 32, 36)
    assert batch.maps.shape == (1, 3, 32, 36)
    assert len(batch.measured) == 3
    # noiseless: the lines of the combined truth are those that were measured, but for the maps
    again = aliased_by(batch.image, batch.mask, batch.maps)
    error = (again - batch.aliased).abs().square().mean().sqrt()
    assert error < 0.02 * batch.aliased.abs().max()
    assert (batch.target - IMAGES[2]).abs().square().mean().sqrt() < 0.02
    assert torch.equal(batch.combined, combine(batch.aliased, batch.maps))


def test_a_strip_of_coil_images_is_a_strip_of_the_whole():
    whole, strip = batch_of([(1, 3)], coils=3), batch_of([(1, 3)], coils=3, strip=16)
    differences = [
        (whole.aliased[..., start : start + 16] - strip.aliased).abs().max() for start in range(21)
    ]
    start = int(torch.stack(differences).argmin())
    for name in ("aliased", "maps", "image"):
        part = getattr(whole, name)[..., start : start + 16]
        torch.testing.assert_close(getattr(strip, name), part, atol=1e-5, rtol=1e-4)


def test_noise_of_coils_is_white_and_in_the_measured_lines_alone():
    for strip in (None, 16):
        batch = batch_of([(0, i) for i in range(9)], 0 * IMAGES, coils=4, noise=0.05, strip=strip)
        lines = fftc(batch.aliased, axes=(-2,))
        measured = batch.mask[:, :, None].expand_as(lines).bool()
        assert lines[~measured].abs().max() < 1e-5
        deviation = lines[measured].abs().square().mean().sqrt()
        assert deviation.item() == pytest.approx(0.05 * 2**0.5, rel=0.05)
        coils = lines.movedim(2, 0).flatten(1)
        covariance = (coils @ coils.mH / measured[:, :, 0].sum()).abs()
        torch.testing.assert_close(covariance, 0.005 * torch.eye(4), atol=0.0005, rtol=0)


def test_virtual_coils_are_fewer_and_hold_the_image():
    settings = replace(ACQUISITION, coils=6)
    every, few = (
        EvaluationBatches(IMAGES, [1], replace(settings, virtual_coils=n), 1)[0] for n in (6, 3)
    )
    assert every.aliased.shape[2] == 6
    assert few.aliased.shape[2] == few.maps.shape[1] == 3
    assert (few.target - every.target).abs().mean() < 0.02
