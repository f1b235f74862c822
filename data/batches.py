"""Batches of samples: what a network trains on and is scored on.

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
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from CS_mask import Condition, evaluation_masks, training_masks
from data.acquisition import Acquisition, acquired
from data.augmentation import augment
from data.samples import Images
from data.split import training_order
from physics.coils import combine
from physics.fourier import undersample
from physics.sense import as_measured
from util.machine import to_device
from util.random_streams import Stream, generator
from util.world import World

OfBatch = TypeVar("OfBatch", bound="Batch")
Draws = Sequence[tuple[int, int]]  # (round, sample) pairs
# the start (1, T, Y, X) of a sample, with its key (place in the pool, sample); the function makes
# its batch, of whole images, if that is needed
Starts = Callable[[tuple[int, int], Callable[[], "Batch"]], Tensor]
TENSORS = ("image", "mask", "aliased", "maps", "start", "hidden")  # of a batch


@dataclass(frozen=True)
class TrainingDraws:
    """Settings of the random draws of training."""

    seed: int
    mask_pool: int  # masks that a sample takes turns with, with all else; 0: new in every round
    augment: tuple[str, ...]  # see `data/augmentation.py`
    strip: int | None  # columns of the strip to train on; None: whole images


@dataclass
class Batch:
    """Samples on the device."""

    samples: list[int]  # indices in the data
    condition: Condition  # what the masks have in common
    # (B, T, Y, X) ground truth: float32, or complex64 if it has a phase; None: unknown
    # of supervision by hidden lines: the images, or coil images, aliased by all measured lines
    image: Tensor | None
    mask: Tensor  # (B, T, Y, 1) float32, centred
    aliased: Tensor  # (B, T, Y, X) complex64, or coil images (B, T, C, Y, X)
    maps: Tensor | None = None  # (B, C, Y, X) complex64, sensitivities; None: a single coil
    start: Tensor | None = None  # (B, T, Y, X), what networks correct; None: they make it
    hidden: Tensor | None = None  # (B, T, Y, 1): weights of hidden lines; None: the truth is known
    is_twice: bool = False  # the second half are the samples of the first, with some more noise

    @property
    def measured(self) -> tuple[Tensor, ...]:
        """What methods are called with: `(aliased, mask)`, or `(aliased, mask, maps)`."""
        return as_measured(self.aliased, self.mask, self.maps)

    @property
    def combined(self) -> Tensor:
        """(B, T, Y, X) complex64: the aliased image, combined from the coils if there are any."""
        return self.aliased if self.maps is None else combine(self.aliased, self.maps)

    @property
    def truth(self) -> Tensor:
        """(B, T, Y, X): the ground truth, which is known."""
        assert self.image is not None
        return self.image

    @property
    def target(self) -> Tensor:
        """(B, T, Y, X) float32: magnitude of the ground truth; scores are computed against it."""
        return self.truth.abs() if self.truth.is_complex() else self.truth

    def to(self: OfBatch, device: torch.device | str) -> OfBatch:
        """The same on another device."""
        return self._with(self.samples, lambda tensor: tensor.to(device))

    def sample(self, i: int) -> "Batch":
        """The batch of the i-th sample alone."""
        return self._with([self.samples[i]], lambda tensor: tensor[i : i + 1])

    def columns(self, strips: Sequence[slice]) -> "Batch":
        """Columns of each sample, the same number of all."""

        def cut(tensor: Tensor) -> Tensor:
            if tensor.shape[-1] == 1:  # values of lines, not of pixels
                return tensor
            return torch.stack([x[..., one] for x, one in zip(tensor, strips, strict=True)])

        return self._with(self.samples, cut)

    def _with(self: OfBatch, samples: list[int], change: Callable[[Tensor], Tensor]) -> OfBatch:
        tensors = {name: getattr(self, name) for name in TENSORS}
        changed: dict[str, Any] = {
            name: None if tensor is None else change(tensor) for name, tensor in tensors.items()
        }
        return dataclasses.replace(self, samples=samples, **changed)


def joined(batches: Sequence[Batch]) -> Batch:
    """One batch of several, whose images have one size."""
    first = batches[0]
    tensors: dict[str, Any] = {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name in TENSORS
        if getattr(first, name) is not None
    }
    samples = [sample for batch in batches for sample in batch.samples]
    return dataclasses.replace(first, samples=samples, **tensors)


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
    """The draws of an optimiser step in at most `n_parts`, for one forward pass each."""
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
    starts: Starts | None = None,
) -> Batch:
    """Training samples, each with the mask and other random draws of its (round, sample).

    From a pool of masks, a sample has the same augmentation, phase and noise whenever it has the
    same mask; only its strips differ.

    Args:
        images: all samples, (N, T, Y, X), or coil images (N, T, C, Y, X).
        starts: gives the starts of whole images, from a pool; None: networks make their own.
    """
    n_frames, *_, ny, nx = images.shape[1:]
    pool, seed, n = training.mask_pool, training.seed, len(draws)
    keys = [(number % pool if pool else number, sample) for number, sample in draws]
    masks = training_masks(keys, (n_frames, ny), acquisition.sampling, seed)

    def acquire(i: int, columns: slice | None) -> tuple[Tensor, ...]:
        """The i-th sample; `columns`: None: a strip that is drawn with all the rest."""
        sample, rng = keys[i][1], generator(Stream.TRAINING_SAMPLE, seed, *keys[i])
        image = images[sample]
        if training.augment:
            image = augment(image, training.augment, rng)
        if columns is None:
            columns = random_strip(nx, training.strip, rng)
        return acquired(image, sample, masks[i], columns, acquisition, rng)

    def batch_of(places: Sequence[int], columns: Sequence[slice | None]) -> Batch:
        measured = [acquire(i, one) for i, one in zip(places, columns, strict=True)]
        samples = [keys[i][1] for i in places]
        return _batch(samples, measured, masks[list(places)], acquisition, device)

    if not pool:
        return batch_of(range(n), [None] * n)
    strips = [
        random_strip(nx, training.strip, generator(Stream.TRAINING_STRIP, seed, *draw))
        for draw in draws
    ]
    if acquisition.is_noisy:  # all of the noise is drawn, so that strips have parts of the same
        batch = batch_of(range(n), [slice(None)] * n).columns(strips)
    else:
        batch = batch_of(range(n), strips)
    if starts is not None:
        whole = [partial(batch_of, [i], [slice(None)]) for i in range(n)]
        made = [starts(key, make) for key, make in zip(keys, whole, strict=True)]
        parts = [start[..., strip] for start, strip in zip(made, strips, strict=True)]
        batch.start = to_device(torch.cat(parts), device)
    return batch


def random_strip(nx: int, width: int | None, rng: np.random.Generator) -> slice:
    """Adjoining columns of an image; all if `width` is None."""
    if width is None:
        return slice(None)
    first = int(rng.integers(max(1, nx - width + 1)))
    return slice(first, first + width)


def prepared(
    make: Callable[[Draws], Batch], parts: Iterable[Draws], n_ahead: int
) -> Generator[Batch, None, None]:
    """The batches of `parts`, in their order; `n_ahead` of them are made ahead, in threads."""
    if not n_ahead:
        yield from map(make, parts)
        return
    made: deque[Future[Batch]] = deque()
    n_threads = torch.get_num_threads()
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
            torch.set_num_threads(n_threads)  # MKL's threads are those of the whole process


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
        """
        Args:
            images: all samples, (N, T, Y, X) or (N, T, C, Y, X).
            samples: the indices of those to evaluate.
        """
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

    def masks_of(self, i: int) -> np.ndarray:
        """The masks (B, T, Y, 1) of the i-th batch, which is not computed."""
        n_frames, *_, ny, _ = self.images.shape[1:]
        sampling, data_seed = self.acquisition.sampling, self.acquisition.data_seed
        return evaluation_masks(self.samples_of(i), (n_frames, ny), sampling, data_seed)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        a, chunk, masks = self.acquisition, self.samples_of(i), self.masks_of(i)
        acquisitions = []
        for sample, mask in zip(chunk, masks, strict=True):
            rng = generator(Stream.EVALUATION_SAMPLE, a.data_seed, sample)
            acquisitions.append(acquired(self.images[sample], sample, mask, slice(None), a, rng))
        return _batch(chunk, acquisitions, masks, a, self.device)


def _batch(
    samples: list[int],
    acquired: Sequence[tuple[Tensor, ...]],
    masks: np.ndarray,
    acquisition: Acquisition,
    device: torch.device | str,
) -> Batch:
    condition = acquisition.sampling.condition
    images, sources, *maps = zip(*acquired, strict=True)

    def stacked(tensors: tuple[Tensor, ...]) -> Tensor:
        return to_device(torch.stack(tensors), device)

    image, mask = stacked(images), to_device(torch.from_numpy(masks), device)
    if maps:
        known = None if acquisition.sampling.measured else image
        return Batch(samples, condition, known, mask, stacked(sources), stacked(maps[0]))
    source = stacked(sources) if acquisition.is_noisy else image  # else they are the same
    return Batch(samples, condition, image, mask, undersample(source, mask))
