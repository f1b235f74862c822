from types import SimpleNamespace

import pytest
import torch
from conftest import make_images

from acquisition import AUGMENTATIONS
from batches import epoch_draws, evaluation_batches, training_batch
from dataset import Cine
from fourier import undersample
from run import Run

SETTINGS = {
    "acc": 4,
    "test_acc": None,
    "sample_n": 4,
    "seed": 0,
    "data_seed": 0,
    "batch_size": 2,
    "accumulation": 1,
    "fresh_masks": True,
    "augment": (),
    "strip": None,
    "phase": False,
    "noise": 0.0,
}


def example(**settings) -> Run:
    """A run of 6 training and 3 test samples, (8, 32, 36) each."""
    cine = Cine(torch.from_numpy(make_images()), None, [""] * 9, "tiny", [])
    parts = {"train": list(range(6)), "validation": [], "test": [6, 7, 8]}
    return Run(
        None,  # type: ignore[arg-type]
        SimpleNamespace(**SETTINGS | settings),
        torch.device("cpu"),
        cine,
        parts,
    )


def equal(a, b) -> bool:
    return all(
        torch.equal(x, y) for x, y in ((a.image, b.image), (a.mask, b.mask), (a.aliased, b.aliased))
    )


RANDOM = {"augment": ("flips", "time"), "strip": 16, "phase": True, "noise": 0.01, "acc": (3, 6)}


def test_an_epoch_takes_every_sample_once_for_every_strip():
    draws = epoch_draws(example(), 3)
    assert sorted(draws) == [(3, i) for i in range(6)]
    strips = epoch_draws(example(strip=16), 3)  # 36 columns are three strips
    assert sorted(strips) == sorted((number, i) for number in (9, 10, 11) for i in range(6))
    assert example(strip=16).n_steps == 9
    assert example(strip=500).n_steps == 3


@pytest.mark.parametrize("settings", [{}, RANDOM])
def test_a_draw_depends_on_nothing_but_itself(settings):
    run = example(**settings)
    both = training_batch(run, [(2, 4), (3, 1)])
    for i, draw in enumerate([(2, 4), (3, 1)]):
        alone = training_batch(run, [draw])
        assert torch.equal(alone.image[0], both.image[i])
        assert torch.equal(alone.aliased[0], both.aliased[i])
    assert equal(both, training_batch(run, [(2, 4), (3, 1)]))


@pytest.mark.parametrize("name", RANDOM)
def test_every_setting_changes_a_batch(name):
    plain = training_batch(example(), [(0, 0)])
    changed = training_batch(example(**{name: RANDOM[name]}), [(0, 0)])
    assert plain.aliased.shape != changed.aliased.shape or not torch.equal(
        plain.aliased, changed.aliased
    )


def test_a_plain_batch_is_the_aliased_sample():
    run = example()
    batch = training_batch(run, [(0, 5)])
    assert torch.equal(batch.image[0], run.cine.images[5])
    assert batch.target is batch.image
    assert torch.equal(batch.aliased, undersample(batch.image, batch.mask))


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_augmented_images_are_undersampled_afterwards(kind):
    run = example(augment=(kind,))
    changed = False
    for number in range(8):
        batch = training_batch(run, [(number, 5)])
        assert torch.equal(batch.aliased, undersample(batch.image, batch.mask))
        changed |= not torch.equal(batch.image[0], run.cine.images[5])
    assert changed


def test_rounds_and_seeds_differ_and_masks_may_be_kept():
    first = training_batch(example(), [(0, 0)])
    assert not torch.equal(first.mask, training_batch(example(), [(1, 0)]).mask)
    assert not torch.equal(first.mask, training_batch(example(seed=1), [(0, 0)]).mask)
    kept = example(fresh_masks=False)
    assert torch.equal(training_batch(kept, [(0, 0)]).mask, training_batch(kept, [(1, 0)]).mask)


def test_strips_are_columns_of_the_sample():
    run = example(strip=16)
    starts = set()
    for number in range(40):
        strip = training_batch(run, [(number, 2)]).image[0]
        assert strip.shape == (8, 32, 16)
        found = [s for s in range(21) if torch.equal(strip, run.cine.images[2][..., s : s + 16])]
        assert len(found) == 1
        starts.add(found[0])
    assert len(starts) > 10
    assert training_batch(example(strip=500), [(0, 2)]).image.shape == (1, 8, 32, 36)


def test_phase_turns_the_truth_and_keeps_its_magnitude():
    batch = training_batch(example(phase=True), [(0, 1)])
    assert batch.image.is_complex()
    torch.testing.assert_close(batch.target, example().cine.images[1:2], atol=1e-6, rtol=1e-6)
    assert batch.image.imag.abs().max() > 0.1
    torch.testing.assert_close(batch.aliased, undersample(batch.image, batch.mask))


def test_noise_is_in_the_measured_lines_and_not_in_the_truth():
    run = example(noise=0.05)
    batch = training_batch(run, [(0, 1)])
    assert torch.equal(batch.image, example().cine.images[1:2])
    noise = torch.fft.fft(
        batch.aliased - undersample(batch.image, batch.mask), dim=-2, norm="ortho"
    )
    measured = torch.fft.ifftshift(batch.mask, dim=-2).expand_as(noise) > 0
    assert noise[~measured].abs().max() < 1e-5
    for part in (noise[measured].real, noise[measured].imag):
        assert part.std().item() == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("settings", [{}, RANDOM])
def test_evaluation_is_fixed_and_whole(settings):
    run = example(**settings)
    first, second = evaluation_batches(run, run.parts["test"], (4, 4))
    assert (first.samples, second.samples) == ([6, 7], [8])
    assert first.image.shape == (2, 8, 32, 36)
    alone = next(evaluation_batches(run, [7], (4, 4)))
    assert torch.equal(alone.aliased[0], first.aliased[1])
    other_seed = example(**settings | {"seed": 5})
    assert equal(first, next(evaluation_batches(other_seed, run.parts["test"], (4, 4))))
    moved = example(**settings | {"data_seed": 5})
    assert not equal(first, next(evaluation_batches(moved, run.parts["test"], (4, 4))))


def test_complex_data_stay_complex():
    run = example()
    run.cine.images = run.cine.images * torch.exp(torch.tensor(1j))
    batch = training_batch(run, [(0, 0)])
    assert batch.image.is_complex()
    torch.testing.assert_close(batch.target, run.cine.images[:1].abs())
