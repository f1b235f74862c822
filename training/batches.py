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
from phantom.coils import receive_coils
from physics.coils import combine, compression, expand, mixed, sensitivity_maps, time_average
from physics.fourier import fftc, ifftc, undersample
from physics.sense import as_measured
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
    data_seed: int  # seed of the masks, phases and noise of evaluation, and of the coils
    coils: int | None = None  # simulate so many receive coils; None: one that sees all alike
    virtual_coils: int | None = None  # compress the coils to so many; None: keep all

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
    aliased: Tensor  # (B, T, Y, X) complex64, or coil images (B, T, C, Y, X)
    maps: Tensor | None = None  # (B, C, Y, X) complex64, sensitivities; None: a single coil

    @property
    def measured(self) -> tuple[Tensor, ...]:
        """What methods are called with: `(aliased, mask)`, or `(aliased, mask, maps)`."""
        return as_measured(self.aliased, self.mask, self.maps)

    @property
    def combined(self) -> Tensor:
        """(B, T, Y, X) complex64: the aliased image, combined from the coils if there are any."""
        return self.aliased if self.maps is None else combine(self.aliased, self.maps)

    @property
    def target(self) -> Tensor:
        """(B, T, Y, X) float32: magnitude of the ground truth; scores are computed against it."""
        return self.image.abs() if self.image.is_complex() else self.image

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device."""
        return self._with(self.samples, lambda tensor: tensor.to(device))

    def sample(self, i: int) -> "Batch":
        """The batch of the i-th sample alone."""
        return self._with([self.samples[i]], lambda tensor: tensor[i : i + 1])

    def _with(self, samples: list[int], change: Callable[[Tensor], Tensor]) -> "Batch":
        tensors = (self.image, self.mask, self.aliased, self.maps)
        changed = (None if tensor is None else change(tensor) for tensor in tensors)
        return Batch(samples, self.acc, *changed)  # type: ignore[arg-type]


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

    `images`: all samples, (N, T, Y, X), or coil images (N, T, C, Y, X).
    """
    n_frames, *_, ny, nx = images.shape[1:]
    keys = [(number if training.fresh_masks else 0, sample) for number, sample in draws]
    masks = training_masks(
        keys, (n_frames, ny), acquisition.acc, acquisition.sample_n, training.seed
    )
    acquired = []
    for (number, sample), mask in zip(draws, masks, strict=True):
        rng = generator(Stream.TRAINING_SAMPLE, training.seed, number, sample)
        image = images[sample]
        if training.augment:
            image = augment(image, training.augment, rng)
        columns = slice(None)
        if training.strip is not None:
            start = int(rng.integers(max(1, nx - training.strip + 1)))
            columns = slice(start, start + training.strip)
        acquired.append(_acquired(image, sample, mask, columns, acquisition, rng))
    return _batch([sample for _, sample in draws], acquired, masks, acquisition, device)


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

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        a, chunk = self.acquisition, self.samples_of(i)
        n_frames, *_, ny, _ = self.images.shape[1:]
        masks = evaluation_masks(chunk, (n_frames, ny), a.acc, a.sample_n, a.data_seed)
        acquired = []
        for sample, mask in zip(chunk, masks, strict=True):
            rng = generator(Stream.EVALUATION_SAMPLE, a.data_seed, sample)
            acquired.append(_acquired(self.images[sample], sample, mask, slice(None), a, rng))
        return _batch(chunk, acquired, masks, a, self.device)


def _acquired(
    image: Tensor,
    sample: int,
    mask: np.ndarray,
    columns: slice,
    acquisition: Acquisition,
    rng: np.random.Generator,
) -> tuple[Tensor, ...]:
    """Columns of an image (T, Y, X) with its phase, and the same with noise: (T, Y, columns) each.

    Of coils, simulated, or measured as coil images (T, C, Y, X), what `_measured_by_coils` returns.
    """
    a = acquisition
    ny, nx = image.shape[-2:]
    if a.phase:
        image = image * smooth_phase((ny, nx), rng)
    lines = torch.from_numpy(mask)
    if image.dim() == 4:
        white = torch.eye(image.shape[1], dtype=torch.complex64)
        return _measured_by_coils(image, white, lines, columns, a, rng)
    if a.coils is not None:
        coils, mixing = receive_coils(a.coils, (ny, nx), a.data_seed, sample, noisy=a.noise > 0)
        seen = expand(image[None], coils[None])[0]
        return _measured_by_coils(seen, mixing, lines, columns, a, rng)
    truth = image[..., columns]
    if not a.noise:
        return truth, truth
    return truth, truth + white_noise(tuple(truth.shape), a.noise, rng)


def _measured_by_coils(
    seen: Tensor,
    mixing: Tensor,
    mask: Tensor,
    columns: slice,
    acquisition: Acquisition,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Undersample what coils see, and estimate their sensitivities from the measured lines.

    Columns are independent, but for the maps, which are those of the whole image.

    Args:
        seen: (T, C, Y, X) complex64, fully sampled coil images.
        mixing: (C, C), makes the noise of the coils of white noise.
        mask: (T, Y, 1), centred.

    Returns:
        the truth (T, Y, columns), which is the combination of `seen` by the estimated maps; aliased
        coil images (T, C, Y, columns); and the maps (C, Y, columns).
    """
    a, lines = acquisition, mask[:, None]
    part = seen[..., columns]
    noisy = part
    if a.noise:
        noisy = part + mixed(mixing, white_noise(tuple(part.shape), a.noise, rng))
    aliased = undersample(noisy, lines)
    if part.shape == seen.shape:
        total = aliased.sum(dim=0)
    else:  # the maps need all columns, of which the sum over the frames is enough
        kspace = torch.zeros_like(seen[0])
        for frame, sampled in zip(seen, lines, strict=True):
            kspace += sampled * fftc(frame, axes=(-2,))
        if a.noise:
            count = lines.sum(dim=0)  # of each line: their noise adds up
            noise = count.sqrt() * white_noise(tuple(kspace.shape), a.noise, rng)
            kspace += mixed(mixing, noise)
        total = ifftc(kspace, axes=(-2,))
    average = time_average(total[None], mask[None])
    if a.virtual_coils is not None and a.virtual_coils < len(total):
        matrix, _ = compression(average[0], a.virtual_coils)
        part, aliased = mixed(matrix, part), mixed(matrix, aliased)
        average = mixed(matrix, average)
    maps = sensitivity_maps(average)[..., columns]
    return combine(part[None], maps)[0], aliased, maps[0]


def energy_kept(images: Images, samples: Sequence[int], acquisition: Acquisition) -> float:
    """The share of the energy that virtual coils keep, mean over samples."""
    a = acquisition
    assert a.virtual_coils is not None
    shares = []
    for sample in samples:
        image = images[sample]
        if a.coils is not None:
            ny, nx = image.shape[-2:]
            coils, _ = receive_coils(a.coils, (ny, nx), a.data_seed, sample, noisy=a.noise > 0)
            image = expand(image[None], coils[None])[0]
        shares.append(compression(image.mean(dim=0), a.virtual_coils)[1])
    return sum(shares) / len(shares)


def _batch(
    samples: list[int],
    acquired: Sequence[tuple[Tensor, ...]],
    masks: np.ndarray,
    acquisition: Acquisition,
    device: torch.device | str,
) -> Batch:
    low, high = acquisition.acc
    acc = low if low == high else None
    images, sources, *maps = (torch.stack(parts) for parts in zip(*acquired, strict=True))
    image, mask = _sent(images, device), _sent(torch.from_numpy(masks), device)
    if maps:
        return Batch(samples, acc, image, mask, _sent(sources, device), _sent(maps[0], device))
    source = _sent(sources, device) if acquisition.noise else image
    return Batch(samples, acc, image, mask, undersample(source, mask))


def _sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on the device; to a GPU from pinned memory, which nothing waits for."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
