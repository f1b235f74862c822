"""Measured properties of the data that touch the scores: range, k-space, motion.

Scores, noise, thresholds and weights assume a peak near 1. Masks assume a full and centred k-space.
moving_psnr and the lesion test assume motion. Each of these is measured here, for every sample.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from metrics import LEAST_MOTION
from physics.fourier import fftc
from util.errors import InputError
from util.progress import name_list

LOWEST_PEAK = 0.5  # below it, scores cannot be compared with those of images with a peak of 1
BRIGHT_LEVEL, LOWEST_BRIGHT = 0.25, 0.001  # fewer pixels above the level: a few set the maximum
CLIFF = 0.05  # energy of the next lines over that of the last ones, where k-space ends
CONSTANT, STILL, DARK = "constant", "still", "dark"  # kinds of samples
THUMBNAIL = 32  # pixels along each axis of the images that are compared
CENTRE = 1 / 8  # of the lines on either side of the centre, whose energy falls fast anyway


@dataclass(frozen=True)
class Quality:
    """Measured properties of N samples with Y phase-encoding lines."""

    peaks: np.ndarray  # (N,) maximum magnitude
    bright: np.ndarray  # (N,) share of the pixels above `BRIGHT_LEVEL` of the maximum
    bands: np.ndarray  # (N, 2) first and one past the last centred line that holds energy
    offsets: np.ndarray  # (N,) lines from the centre of k-space to the line of highest energy
    n_lines: int  # Y
    constant: list[int]  # samples of a single value
    still: list[int]  # other samples whose frames are all equal
    dark: list[int]  # other samples with frames that are all zero
    thumbnails: Tensor  # (N, THUMBNAIL, THUMBNAIL) float32, averaged over time

    @classmethod
    def of(cls, samples: Sequence[Mapping[str, Any]]) -> "Quality":
        """The properties of all samples, from those that `measure` gives of each."""
        small = [np.frombuffer(base64.b64decode(one["thumbnail"]), np.float32) for one in samples]

        def of_kind(kind: str) -> list[int]:
            return [i for i, one in enumerate(samples) if one["kind"] == kind]

        return cls(
            peaks=np.array([one["peak"] for one in samples]),
            bright=np.array([one["bright"] for one in samples]),
            bands=np.array([one["band"] for one in samples]),
            offsets=np.array([one["offset"] for one in samples]),
            n_lines=samples[0]["n_lines"],
            constant=of_kind(CONSTANT),
            still=of_kind(STILL),
            dark=of_kind(DARK),
            thumbnails=torch.from_numpy(np.stack(small)).reshape(-1, THUMBNAIL, THUMBNAIL),
        )

    @property
    def dim(self) -> list[int]:
        """Samples with a maximum far below 1, except black ones."""
        return np.flatnonzero((self.peaks < LOWEST_PEAK) & (self.peaks > 0)).tolist()

    @property
    def spiky(self) -> list[int]:
        """Samples whose maximum a few bright pixels set."""
        return np.flatnonzero(self.bright < LOWEST_BRIGHT).tolist()

    @property
    def off_centre(self) -> list[int]:
        """Samples whose k-space is not centred."""
        return np.flatnonzero(np.abs(self.offsets) > 1).tolist()

    @property
    def padded(self) -> list[int]:
        """Samples with energy in some of the phase-encoding lines only."""
        return np.flatnonzero(self.bands[:, 1] - self.bands[:, 0] < self.n_lines).tolist()

    @property
    def narrowest(self) -> tuple[int, int]:
        """First and one past the last line of the narrowest band of a sample."""
        first, end = self.bands[np.argmin(self.bands[:, 1] - self.bands[:, 0])]
        return int(first), int(end)


def measure(sample: Tensor) -> dict[str, Any]:
    """The properties of one sample (T, Y, X), as plain values, which a file can hold."""
    size = sample.abs()
    frame_peaks = size.amax(dim=(-2, -1))
    peak = frame_peaks.max().item()
    energy = fftc(sample[0], axes=(-2,)).abs().square().sum(dim=-1).numpy()  # (Y,)
    kind = ""
    if all((frame == sample[0, 0, 0]).all() for frame in sample):
        kind = CONSTANT
    elif len(sample) > 1 and all(
        (frame - sample[0]).abs().max() <= LEAST_MOTION for frame in sample
    ):
        kind = STILL
    elif not frame_peaks.all():
        kind = DARK
    return {
        "peak": peak,
        "bright": int(torch.count_nonzero(size >= BRIGHT_LEVEL * peak)) / size.numel(),
        "band": list(band_of(energy)) if peak else [0, len(energy)],
        "offset": int(energy.argmax()) - len(energy) // 2 if peak else 0,
        "n_lines": len(energy),
        "kind": kind,
        "thumbnail": base64.b64encode(thumbnail(sample).numpy().tobytes()).decode(),
    }


def thumbnail(sample: Tensor) -> Tensor:
    """The time-averaged magnitude of a sample (T, Y, X), (THUMBNAIL, THUMBNAIL) float32."""
    # numpy's magnitude of complex numbers is several times as fast as torch's
    mean = torch.from_numpy(np.abs(sample.numpy()).mean(axis=0))
    return F.adaptive_avg_pool2d(mean[None], THUMBNAIL)[0]


def band_of(energy: np.ndarray) -> tuple[int, int]:
    """First and one past the last line of centred `energy` (Y,) before it falls off a cliff.

    On either side the band ends where the next few lines have less than `CLIFF` of the energy of
    the last few. Images of a scanner fall off slowly, zero-padded ones suddenly.
    """
    n = len(energy)
    few = max(2, n // 48)

    def end(outwards: np.ndarray) -> int:
        """Lines before the cliff, of the energy from the centre outwards."""
        for line in range(max(few, int(CENTRE * n)), len(outwards) - few + 1):
            last, following = outwards[line - few : line], outwards[line : line + few]
            if following.mean() < CLIFF * last.mean():
                return line
        return len(outwards)

    centre = n // 2
    return centre - end(energy[:centre][::-1]), centre + end(energy[centre:])


def check_range(quality: Quality, source: str) -> None:
    """Raise InputError if no sample has a peak near 1."""
    highest = quality.peaks.max()
    if 0 < highest < LOWEST_PEAK:
        raise InputError(
            f"{source}: the largest magnitude is {highest:.3g}, expected values up to 1, which"
            " scores, noise and thresholds assume: --normalise divides every sample by its maximum"
        )


def data_notices(quality: Quality) -> list[str]:
    """Warnings about the data, one per line."""
    q = quality
    lines = []
    if q.dim:
        lines.append(
            f"WARNING: samples with a maximum below {LOWEST_PEAK:g}, down to"
            f" {q.peaks[q.dim].min():.3g}: {name_list(q.dim)}; their PSNR is too high, and"
            " --normalise divides every sample by its maximum"
        )
    if q.spiky:
        lines.append(
            f"WARNING: samples with less than {LOWEST_BRIGHT:.1%} of their pixels above"
            f" {BRIGHT_LEVEL:g} of their maximum, which a few bright pixels set:"
            f" {name_list(q.spiky)}; their PSNR is too high"
        )
    if q.padded:
        first, end = q.narrowest
        lines.append(
            f"WARNING: samples with energy in some phase-encoding lines only, down to"
            f" {end - first} of {q.n_lines}, as after zero-padding: {name_list(q.padded)}"
        )
    if q.off_centre:
        farthest = max(q.offsets[q.off_centre], key=abs)
        lines.append(
            f"WARNING: samples whose k-space is off centre, by up to {farthest:+d} lines:"
            f" {name_list(q.off_centre)}; the fully sampled centre of the masks misses it"
        )
    if q.dark:
        lines.append(f"WARNING: samples with frames that are all zero: {name_list(q.dark)}")
    if q.constant:
        lines.append(f"WARNING: samples of a single value: {name_list(q.constant)}")
    if q.still:
        lines.append(f"WARNING: samples whose frames are all equal: {name_list(q.still)}")
    return lines


def score_notices(quality: Quality, samples: list[int]) -> list[str]:
    """Warnings about the scores of these samples, one per line."""
    notices = {
        "have a single value": (quality.constant, "their scores mean nothing"),
        "do not move": (
            quality.still,
            "their moving_psnr is over all pixels, and lesions in them do not move",
        ),
        "have frames that are all zero": (quality.dark, "their scores are too high"),
        f"have a maximum below {LOWEST_PEAK:g}": (quality.dim, "their PSNR is too high"),
        "have a maximum that a few bright pixels set": (quality.spiky, "their PSNR is too high"),
        "have energy in some phase-encoding lines only": (
            quality.padded,
            "all their scores are too high",
        ),
        "have a k-space that is off centre": (
            quality.off_centre,
            "the centre of the masks misses it, and their scores are too low",
        ),
    }
    lines = []
    for what, (all_such, meaning) in notices.items():
        if such := [i for i in samples if i in all_such]:
            lines.append(
                f"WARNING: the means include samples that {what} ({name_list(such)}): {meaning}"
            )
    return lines
