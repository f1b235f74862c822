"""How fully sampled images are acquired: with a phase, by one coil or several, with noise.

The random draws of a sample come from the generator that is given with it, except simulated coils,
which are fixed per sample. All is computed on the CPU.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from CS_mask import Condition, Sampling
from data.samples import Images
from phantom.coils import receive_coils
from physics.coils import average_lines, combine, compression, expand, mixed, sensitivity_maps
from physics.fourier import fftc, ifftc, undersample
from physics.simulation import smooth_phase, white_noise


class Noise(NamedTuple):
    """Standard deviation of k-space noise, in real and imaginary part each: every sample draws its
    own between the lowest and the highest."""

    lowest: float
    highest: float

    @classmethod
    def of(cls, setting: float | tuple[float, ...]) -> "Noise":
        """That of a setting: one value, or the lowest and the highest."""
        values = setting if isinstance(setting, tuple) else (setting,)
        return cls(values[0], values[-1])

    def __str__(self) -> str:
        low, high = self
        return f"{low:g}" if low == high else f"{low:g} to {high:g}"

    def draw(self, rng: np.random.Generator) -> float:
        """The noise of a sample; without a random number if there is but one."""
        return rng.uniform(*self) if self.lowest < self.highest else self.lowest


@dataclass(frozen=True)
class Acquisition:
    """How fully sampled images become measurements."""

    sampling: Sampling
    phase: bool  # give every image a smooth random phase
    noise: float | tuple[float, ...]  # see `Noise`
    data_seed: int  # seed of the masks, phases and noise of evaluation, and of the coils
    coils: int | None = None  # number of simulated receive coils; None: single coil
    virtual_coils: int | None = None  # number of virtual coils after compression; None: all

    def at(self, condition: Condition) -> "Acquisition":
        """The same acquisition with lines of one pattern at one acceleration."""
        return dataclasses.replace(self, sampling=self.sampling.at(condition))

    @property
    def noises(self) -> "Noise":
        """The noise as a range."""
        return Noise.of(self.noise)

    @property
    def is_noisy(self) -> bool:
        """Whether there is noise in some samples at least."""
        return self.noises.highest > 0


def acquired(
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
    a, noise = acquisition, acquisition.noises.draw(rng)
    ny, nx = image.shape[-2:]
    if a.phase:
        image = image * smooth_phase((ny, nx), rng)
    lines = torch.from_numpy(mask)
    if image.dim() == 4:
        white = torch.eye(image.shape[1], dtype=torch.complex64)
        return _measured_by_coils(image, white, lines, columns, a, noise, rng)
    if a.coils is not None:
        coils, mixing = receive_coils(a.coils, (ny, nx), a.data_seed, sample, noisy=a.is_noisy)
        seen = expand(image[None], coils[None])[0]
        return _measured_by_coils(seen, mixing, lines, columns, a, noise, rng)
    truth = image[..., columns]
    if not noise:
        return truth, truth
    return truth, truth + white_noise(tuple(truth.shape), noise, rng)


def _measured_by_coils(
    seen: Tensor,
    mixing: Tensor,
    mask: Tensor,
    columns: slice,
    acquisition: Acquisition,
    noise: float,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Undersample what coils see, and estimate their sensitivities from the measured lines.

    Columns are independent, except the maps, which are those of the whole image.

    Args:
        seen: (T, C, Y, X) complex64, fully sampled coil images.
        mixing: (C, C), makes the noise of the coils of white noise.
        mask: (T, Y, 1), centred.
        noise: that of this sample.

    Returns:
        the truth (T, Y, columns), which is the combination of `seen` by the estimated maps; aliased
        coil images (T, C, Y, columns); and the maps (C, Y, columns).
    """
    a, lines = acquisition, mask[:, None]
    part = seen[..., columns]
    noisy = part
    if noise:
        noisy = part + mixed(mixing, white_noise(tuple(part.shape), noise, rng))
    aliased = undersample(noisy, lines)
    if part.shape == seen.shape:
        total = aliased.sum(dim=0)
    else:  # the maps need all columns, of which the sum over the frames is enough
        kspace = torch.zeros_like(seen[0])
        for frame, sampled in zip(seen, lines, strict=True):
            kspace += sampled * fftc(frame, axes=(-2,))
        if noise:
            count = lines.sum(dim=0)  # of each line: their noise adds up
            summed = count.sqrt() * white_noise(tuple(kspace.shape), noise, rng)
            kspace += mixed(mixing, summed)
        total = ifftc(kspace, axes=(-2,))
    average = average_lines(total[None], mask[None])
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
            coils, _ = receive_coils(a.coils, (ny, nx), a.data_seed, sample, noisy=a.is_noisy)
            image = expand(image[None], coils[None])[0]
        shares.append(compression(image.mean(dim=0), a.virtual_coils)[1])
    return sum(shares) / len(shares)
