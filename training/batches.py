"""From samples to the input of a network: augmentation, strips, phase, noise, undersampling.

All random draws depend only on `(seed, round, sample)` in training, and only on
`(data_seed, sample)` in evaluation (see `util/random_streams.py`).
"""

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from CS_mask import evaluation_masks, training_masks
from formats.samples import Images
from physics.fourier import undersample
from physics.simulation import smooth_phase, white_noise
from training.augmentation import augment
from training.split import training_order
from util.random_streams import Stream, generator
from util.world import World

Draws = Sequence[tuple[int, int]]  # (round, sample) pairs


@dataclass(frozen=True)
class Acquisition:
    """How fully sampled images become measurements."""

    acc: tuple[float, float]  # lowest and highest acceleration; each mask draws one between them
    sample_n: int  # fully sampled lines in the centre of k-space
    phase: bool  # give every image a smooth random phase
    noise: float  # standard deviation of k-space noise, in real and imaginary part each
    data_seed: int  # seed of the masks, phases and noise of evaluation

    def at(self, acc: float) -> "Acquisition":
        """The same acquisition at one acceleration."""
        return dataclasses.replace(self, acc=(acc, acc))


@dataclass(frozen=True)
class TrainingDraws:
    """Settings of the random draws of training."""

    seed: int
    fresh_masks: bool  # new masks in every round; False: one mask per sample
    augment: tuple[str, ...]  # see `training/augmentation.py`
    strip: int | None  # columns of the strip to train on; None: whole images


@dataclass
class Batch:
    """Samples on the device."""

    samples: list[int]  # indices in the data
    acc: float | None  # nominal acceleration; None if each sample has its own
    image: Tensor  # (B, T, Y, X) ground truth: float32, or complex64 if it has a phase
    mask: Tensor  # (B, T, Y, 1) float32, centred
    aliased: Tensor  # (B, T, Y, X) complex64

    @property
    def target(self) -> Tensor:
        """(B, T, Y, X) float32: magnitude of the ground truth; scores are computed against it."""
        return self.image.abs() if self.image.is_complex() else self.image

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device."""
        tensors = (tensor.to(device) for tensor in (self.image, self.mask, self.aliased))
        return Batch(self.samples, self.acc, *tensors)

    def sample(self, i: int) -> "Batch":
        """The batch of the i-th sample alone."""
        tensors = (tensor[i : i + 1] for tensor in (self.image, self.mask, self.aliased))
        return Batch([self.samples[i]], self.acc, *tensors)


def epoch_draws(
    samples: Sequence[int], seed: int, epoch: int, n_rounds: int
) -> list[tuple[int, int]]:
    """The (round, sample) pairs that an epoch trains on, in order.

    A round takes every training sample once. An epoch has one round, or, when training on strips,
    as many as there are strips in an image.
    """
    rounds = range(epoch * n_rounds, (epoch + 1) * n_rounds)
    return [
        (number, sample) for number in rounds for sample in training_order(samples, seed, number)
    ]


def divided(draws: Draws, n_parts: int) -> list[Draws]:
    """The draws of an optimiser step in at most so many parts, for one forward pass each."""
    size = math.ceil(len(draws) / n_parts)
    return [draws[i : i + size] for i in range(0, len(draws), size)]


def shared(draws: Draws, world: World) -> tuple[Draws, float]:
    """The draws of this process in a forward pass, and their weight in the loss.

    A process for which there are none takes one of them with weight 0, because all must compute
    together.
    """
    own = world.share(draws)
    return (own, 1.0) if own else ([draws[world.rank % len(draws)]], 0.0)


def training_batch(
    images: Images,
    draws: Draws,
    acquisition: Acquisition,
    training: TrainingDraws,
    device: torch.device | str,
) -> Batch:
    """Training samples, each with the mask and other random draws of its (round, sample).

    `images`: all samples, (N, T, Y, X).
    """
    n_frames, ny, nx = images.shape[1:]
    keys = [(number if training.fresh_masks else 0, sample) for number, sample in draws]
    masks = training_masks(
        keys, (n_frames, ny), acquisition.acc, acquisition.sample_n, training.seed
    )
    pairs = []
    for number, sample in draws:
        rng = generator(Stream.TRAINING_SAMPLE, training.seed, number, sample)
        image = images[sample]
        if training.augment:
            image = augment(image, training.augment, rng)
        columns = slice(None)
        if training.strip is not None:
            start = int(rng.integers(max(1, nx - training.strip + 1)))
            columns = slice(start, start + training.strip)
        pairs.append(_acquired(image, columns, acquisition, rng))
    return _batch([sample for _, sample in draws], pairs, masks, acquisition, device)


def prepared(
    make: Callable[[Draws], Batch], parts: Iterable[Draws], n_ahead: int
) -> Generator[Batch, None, None]:
    """The batches of `parts`, in their order; so many of them are made ahead, in threads."""
    if not n_ahead:
        yield from map(make, parts)
        return
    made: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(n_ahead, initializer=partial(torch.set_num_threads, 1)) as pool:
        try:
            for part in parts:
                made.append(pool.submit(make, part))
                if len(made) > n_ahead:
                    yield made.popleft().result()
            while made:
                yield made.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class EvaluationBatches(Sequence[Batch]):
    """Samples with their fixed masks, phases and noise, `size` at a time, computed on access."""

    def __init__(
        self,
        images: Images,
        samples: Sequence[int],
        acquisition: Acquisition,
        size: int,
        device: torch.device | str = "cpu",
    ):
        """`images`: all samples, (N, T, Y, X); `samples`: the indices of those to evaluate."""
        self.images, self.samples, self.size = images, list(samples), size
        self.acquisition, self.device = acquisition, device
        if beyond := [i for i in self.samples if not 0 <= i < len(images)]:
            raise ValueError(f"there are {len(images)} samples, found the indices {beyond}")
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")

    def __len__(self) -> int:
        return math.ceil(len(self.samples) / self.size)

    def samples_of(self, i: int) -> list[int]:
        """The indices of the samples in the i-th batch, which is not computed."""
        i = range(len(self))[i]  # from the end if negative; IndexError beyond
        return self.samples[i * self.size : (i + 1) * self.size]

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        a, chunk = self.acquisition, self.samples_of(i)
        n_frames, ny = self.images.shape[1:3]
        masks = evaluation_masks(chunk, (n_frames, ny), a.acc, a.sample_n, a.data_seed)
        pairs = []
        for sample in chunk:
            rng = generator(Stream.EVALUATION_SAMPLE, a.data_seed, sample)
            pairs.append(_acquired(self.images[sample], slice(None), a, rng))
        return _batch(chunk, pairs, masks, a, self.device)


def _acquired(
    image: Tensor, columns: slice, acquisition: Acquisition, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Columns of an image with its phase, and the same with noise: (T, Y, columns) each."""
    truth = image[..., columns]
    if acquisition.phase:
        ny, nx = image.shape[1:]
        truth = truth * smooth_phase((ny, nx), rng)[:, columns]
    if not acquisition.noise:
        return truth, truth
    return truth, truth + white_noise(tuple(truth.shape), acquisition.noise, rng)


def _batch(
    samples: list[int],
    pairs: Sequence[tuple[Tensor, Tensor]],
    masks: np.ndarray,
    acquisition: Acquisition,
    device: torch.device | str,
) -> Batch:
    images, noisy = zip(*pairs, strict=True)
    image = _sent(torch.stack(images), device)
    source = _sent(torch.stack(noisy), device) if acquisition.noise else image
    mask = _sent(torch.from_numpy(masks), device)
    low, high = acquisition.acc
    return Batch(samples, low if low == high else None, image, mask, undersample(source, mask))


def _sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on the device; to a GPU from pinned memory, which nothing waits for."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
