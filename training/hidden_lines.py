"""Supervision by hidden lines: training and validation on undersampled k-space, without the truth.

Every sample is measured once, with one mask, phase and noise. In each draw some of its measured
lines are hidden from the network, which is trained to predict them (see `methods/held_out.py`).
Only moves that commute with the sampling augment a measurement. The best epoch is the one that
predicts held-out lines of the validation part best.

The lines that the network gets are no target, because it could copy them with their noise. With
"self_sure" their error is estimated as well, by Stein's unbiased estimate: a batch then has its
samples twice, the second time with some more noise.

References:
  B. Yaman et al., "Self-supervised learning of physics-guided reconstruction neural networks
    without fully sampled reference data", Magn Reson Med 84:3172-3191, 2020.
  C. Millard and M. Chiew, IEEE Trans Comput Imaging 9:707-720, 2023 (see `methods/held_out.py`).
"""

import dataclasses
import math
from collections.abc import Iterable
from functools import partial

import numpy as np

from CS_mask import training_masks
from data.augmentation import Moves
from data.batches import Batch, Draws, Starts, TrainingDraws, joined, random_strip, training_batch
from evaluation.held_out import with_hidden_lines
from methods.held_out import PROBE, hide, of_coils
from physics.fourier import undersample
from physics.noise import OF_SIGNAL, corner_level
from physics.sense import measurement_of
from physics.simulation import white_noise
from training.run import Run
from util.errors import InputError
from util.progress import counted, say
from util.random_streams import Stream, generator

SHARE = 0.25  # of the measured lines outside the centre that a draw hides
SOME = 4  # samples whose noise is looked at before training


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

        self.deviations: dict[int, float] = {}  # of the noise, by sample
        some = run.parts["train"][:SOME]
        if run.n_copies > 1 and not any(self.noise_of(sample) for sample in some):
            say(
                f"NOTICE: the noise of the first {counted(len(some), 'training sample')} is not"
                f" above {OF_SIGNAL:.1%} of the peak: --supervision self does as well, in half of"
                " the time"
            )

    def __call__(self, draws: Draws) -> Batch:
        copies = zip(*(self.of_draw(*draw) for draw in draws), strict=True)
        batch = joined([one for copy in copies for one in copy]).to(self.run.device)
        return dataclasses.replace(batch, is_twice=self.run.n_copies > 1)

    def of_draw(self, number: int, sample: int) -> list[Batch]:
        """A sample with the lines hidden that a round hides, a strip of it; and again with more
        noise, if that is wanted."""
        s = self.run.settings
        key = (number % s.mask_pool if s.mask_pool else number, sample)
        rng = generator(Stream.HIDDEN, s.seed, *key)
        whole = moved(self.once_measured(sample), s.augment, rng)
        lines = hide(whole.mask, SHARE, s.real_image, rng)
        of_strip = generator(Stream.TRAINING_STRIP, s.seed, number, sample)
        strip = random_strip(self.run.cine.shape[-1], s.strip or None, of_strip)
        wholes = [whole]
        if self.run.n_copies > 1:
            noise = white_noise(tuple(whole.aliased.shape), PROBE * self.noise_of(sample), rng)
            change = undersample(noise, of_coils(whole.mask, whole.maps))
            wholes.append(dataclasses.replace(whole, aliased=whole.aliased + change))
        batches = []
        for copy, one in enumerate(wholes):
            batch = with_hidden_lines(one.columns([strip]), *lines)
            if self.starts is not None:
                place = key[0] + copy * s.mask_pool  # in the pool, of copies behind it
                start = self.starts((place, sample), partial(with_hidden_lines, one, *lines))
                batch.start = start[..., strip]
            batches.append(batch)
        return batches

    def noise_of(self, sample: int) -> float:
        """The deviation of the noise of a sample, by the corners of its k-space; 0: none is above
        what signal may be there."""
        if sample not in self.deviations:
            once = self.once_measured(sample)
            level = corner_level(measurement_of(once.aliased, once.mask, once.maps)).item()
            self.deviations[sample] = math.sqrt(max(0.0, level**2 - OF_SIGNAL**2))
        return self.deviations[sample]

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
