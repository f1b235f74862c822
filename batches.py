"""From samples to what a network is given: augmentation, strips, phase, noise, undersampling.

Whatever is random depends on `(seed, round, sample)` in training, and on `(data_seed, sample)` in
evaluation, alone: not on the batch, its order, or what was drawn before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from acquisition import augmented, smooth_phase, white_noise
from CS_mask import evaluation_masks, training_masks
from fourier import undersample
from run import Run
from split import training_order

# beside the random streams of the masks and of the training order
TRAINING_STREAM, EVALUATION_STREAM = 5, 6


@dataclass
class Batch:
    """Samples on the device."""

    samples: list[int]
    image: Tensor  # (B, T, Y, X) the truth: float32, or complex64 where it has a phase
    mask: Tensor  # (B, T, Y, 1) float32, centred
    aliased: Tensor  # (B, T, Y, X) complex64

    @property
    def target(self) -> Tensor:
        """(B, T, Y, X) float32: the magnitude of the truth, which is scored."""
        return self.image.abs() if self.image.is_complex() else self.image


def epoch_draws(run: Run, epoch: int) -> list[tuple[int, int]]:
    """What an epoch trains on: (round, sample) in order.

    A round takes every training sample once. An epoch has one, or where strips are trained on as
    many as strips make up an image.
    """
    rounds = range(epoch * run.rounds, (epoch + 1) * run.rounds)
    part, seed = run.parts["train"], run.settings.seed
    return [(number, sample) for number in rounds for sample in training_order(part, seed, number)]


def training_batch(run: Run, draws: Sequence[tuple[int, int]]) -> Batch:
    """Training samples, each with the mask, phase, noise and so on of its draw."""
    s = run.settings
    keys = [(number if s.fresh_masks else 0, sample) for number, sample in draws]
    masks = training_masks(keys, run.cine.shape[:2], run.accelerations, s.sample_n, s.seed)
    images, noisy = [], []
    for number, sample in draws:
        generator = np.random.default_rng([TRAINING_STREAM, s.seed, number, sample])
        image = run.cine.images[sample]
        if s.augment:
            image = augmented(image, s.augment, generator)
        columns = slice(None)
        if s.strip is not None:
            start = int(generator.integers(max(1, image.shape[-1] - s.strip + 1)))
            columns = slice(start, start + s.strip)
        image, with_noise = _acquired(run, image, columns, generator)
        images.append(image)
        noisy.append(with_noise)
    return _batch(run, [sample for _, sample in draws], images, noisy, masks)


def evaluation_batches(
    run: Run, samples: Sequence[int], acc: tuple[float, float], size: int | None = None
) -> Iterator[Batch]:
    """Samples with their fixed masks, of an acceleration in the range `acc`, `size` at a time; by
    default as many as a forward pass takes."""
    s = run.settings
    size = size or run.pass_size
    for start in range(0, len(samples), size):
        chunk = list(samples[start : start + size])
        masks = evaluation_masks(chunk, run.cine.shape[:2], acc, s.sample_n, s.data_seed)
        pairs = []
        for sample in chunk:
            generator = np.random.default_rng([EVALUATION_STREAM, s.data_seed, sample])
            pairs.append(_acquired(run, run.cine.images[sample], slice(None), generator))
        images, noisy = zip(*pairs, strict=True)
        yield _batch(run, chunk, images, noisy, masks)


def _acquired(
    run: Run, image: Tensor, columns: slice, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Columns of a truth with its phase, and the same with noise: (T, Y, columns) each."""
    s = run.settings
    truth = image[..., columns]
    if s.phase:
        truth = truth * smooth_phase(run.cine.shape[1:], generator)[:, columns]
    if not s.noise:
        return truth, truth
    return truth, truth + white_noise(tuple(truth.shape), s.noise, generator)


def _batch(
    run: Run,
    samples: list[int],
    images: Sequence[Tensor],
    noisy: Sequence[Tensor],
    masks: np.ndarray,
) -> Batch:
    image = torch.stack(tuple(images)).to(run.device)
    noise_free = not run.settings.noise
    source = image if noise_free else torch.stack(tuple(noisy)).to(run.device)
    mask = torch.from_numpy(masks).to(run.device)
    return Batch(samples, image, mask, undersample(source, mask))
