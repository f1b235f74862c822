"""How fully sampled images are acquired: with a phase, by one coil or several, with noise.

The random draws of a sample come from the generator that is given with it, except simulated coils,
which are fixed per sample. All is computed on the CPU.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from CS_mask import Condition, Sampling
from data.samples import Images
from phantom.coils import receive_coils
from physics.coils import average_lines, combine, compression, expand, mixed, sensitivity_maps
from physics.fourier import fftc, ifftc, undersample
from physics.simulation import smooth_phase, white_noise


@dataclass(frozen=True)
class Acquisition:
    """How fully sampled images become measurements."""

    sampling: Sampling
    phase: bool  # give every image a smooth random phase
    noise: float  # standard deviation of k-space noise, in real and imaginary part each
    data_seed: int  # seed of the masks, phases and noise of evaluation, and of the coils
    coils: int | None = None  # number of simulated receive coils; None: single coil
    virtual_coils: int | None = None  # number of virtual coils after compression; None: all

    def at(self, condition: Condition) -> "Acquisition":
        """The same acquisition with lines of one pattern at one acceleration."""
        return dataclasses.replace(self, sampling=self.sampling.at(condition))


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

    Columns are independent, except the maps, which are those of the whole image.

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
            coils, _ = receive_coils(a.coils, (ny, nx), a.data_seed, sample, noisy=a.noise > 0)
            image = expand(image[None], coils[None])[0]
        shares.append(compression(image.mean(dim=0), a.virtual_coils)[1])
    return sum(shares) / len(shares)
