"""Supervision by hidden lines: training and validation on undersampled k-space, without the truth.

Every sample is measured once, with one mask, phase and noise. In each draw some of its measured
lines are hidden from the network, which is trained to predict them (see `methods/held_out.py`).
Only moves that commute with the sampling augment a measurement. The best epoch is the one that
predicts held-out lines of the validation part best.

References:
  B. Yaman et al., "Self-supervised learning of physics-guided reconstruction neural networks
    without fully sampled reference data", Magn Reson Med 84:3172-3191, 2020.
  C. Millard and M. Chiew, IEEE Trans Comput Imaging 9:707-720, 2023 (see `methods/held_out.py`).
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from CS_mask import training_masks
from data.augmentation import Moves
from data.batches import Batch, Draws, Starts, TrainingDraws, joined, random_strip, training_batch
from evaluation.held_out import with_hidden_lines
from methods.held_out import hide
from training.run import Run
from util.errors import InputError
from util.random_streams import Stream, generator

SHARE = 0.25  # of the measured lines outside the centre that a draw hides


class HiddenLines:
    """Makes training batches of samples that are measured once, each with hidden lines; called with
    the draws of a step. Those of a pool repeat their moves and hidden lines, not their strips."""

    def __init__(self, run: Run, starts: Starts | None):
        """`starts`: see `training_batch`."""
        self.run, self.starts = run, starts
        s, (n_frames, ny, _) = run.settings, run.cine.shape
        once = [(0, sample) for sample in run.parts["train"]]
        masks = training_masks(once, (n_frames, ny), run.acquisition.sampling, s.seed)
        always = masks.min(axis=1, keepdims=True)
        if not (masks > always).any():
            raise InputError(
                "--supervision self hides lines that some frames measured and others did not, and"
                " there are none: measure others, with a smaller --sample-n"
            )
        self.once = TrainingDraws(s.seed, mask_pool=1, augment=(), strip=None)

    def __call__(self, draws: Draws) -> Batch:
        return joined([self.of_draw(*draw) for draw in draws]).to(self.run.device)

    def of_draw(self, number: int, sample: int) -> Batch:
        """A sample with the lines hidden that a round hides; a strip of it."""
        s = self.run.settings
        key = (number % s.mask_pool if s.mask_pool else number, sample)
        rng = generator(Stream.HIDDEN, s.seed, *key)
        whole = moved(self.once_measured(sample), s.augment, rng)
        lines = hide(whole.mask, SHARE, s.real_image, rng)
        place = generator(Stream.TRAINING_STRIP, s.seed, number, sample)
        strip = random_strip(self.run.cine.shape[-1], s.strip or None, place)
        batch = with_hidden_lines(whole.columns([strip]), *lines)
        if self.starts is not None:
            start = self.starts(key, lambda: with_hidden_lines(whole, *lines))
            batch.start = start[..., strip]
        return batch

    def once_measured(self, sample: int) -> Batch:
        """A sample as it is measured, once."""
        run, once = self.run, [(0, sample)]
        return training_batch(run.cine.images, once, run.acquisition, self.once, device="cpu")


def moved(batch: Batch, kinds: Iterable[str], rng: np.random.Generator) -> Batch:
    """A measured sample with random moves of these kinds: what would have been measured of a moved
    heart with moved lines."""
    moves = Moves.draw(tuple(kinds), batch.mask.shape[1], rng)
    return dataclasses.replace(
        batch,
        mask=moves.of_lines(batch.mask[0])[None],
        aliased=moves.of_images(batch.aliased[0])[None],
        maps=None if batch.maps is None else moves.of_maps(batch.maps[0])[None],
    )
