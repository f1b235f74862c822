"""Lines of raw data put together, whatever the format: Cartesian, two-dimensional, of any coils.

A file has one measurement or several, each a list of acquisitions with counters and flags, which
are those of ISMRMRD here. Frames are the cardiac phases, or the repetitions where there is one
phase. Averages are averaged, readout oversampling is removed, lines of noise whiten the coils.
Calibration lines are no image; where imaging lines leave the centre of k-space open, sensitivity
maps are estimated from both.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from data.coils import calibration_lines
from data.stored import require_memory
from formats.arrays import MEMORY_REMEDY
from formats.put_together import series_of
from formats.series import Scan, Series
from physics.coils import sensitivity_maps
from physics.fourier import fftc, ifftc
from util.errors import InputError

# bits of an acquisition's flags, counted from 1 as in ismrmrd.h
NOISE, CALIBRATION, REVERSE = 19, 20, 22
# navigation, phase correction, feedback (two kinds), dummies, correction of the surface coils, and
# phase stabilisation (two kinds)
OTHERS = (23, 24, 26, 27, 28, 29, 30, 31)
COUNTERS = ("slice", "contrast", "set", "phase", "repetition")  # that tell series and frames apart
HEAD = np.dtype(
    [
        ("flags", "u8"),
        *((name, "u2") for name in ("number_of_samples", "active_channels", "discard_pre")),
        *((name, "u2") for name in ("discard_post", "center_sample", "encoding_space_ref")),
        (
            "idx",
            [(name, "u2") for name in (*COUNTERS, "kspace_encode_step_1", "kspace_encode_step_2")],
        ),
    ]
)


@dataclass(frozen=True)
class RawGroup:
    """The acquisitions of a measurement, and its k-space."""

    heads: np.ndarray  # (n,) with the fields of `HEAD`
    read: Callable[[np.ndarray], Iterator[np.ndarray]]  # (C, N) complex64 of each of these rows
    ny: int
    nx: int  # with oversampling
    centre: int  # the line of zero frequency
    shown: int  # columns of the image
    notes: tuple[str, ...] = ()

    def rows(self, *bits: int) -> np.ndarray:
        """The acquisitions that have one of these flags."""
        wanted = np.uint64(sum(1 << (bit - 1) for bit in bits))
        return np.flatnonzero(self.heads["flags"].astype(np.uint64) & wanted)

    @property
    def imaging(self) -> np.ndarray:
        """The rows of the lines of images."""
        is_line = self.heads["encoding_space_ref"] == 0
        is_line[self.rows(NOISE, CALIBRATION, *OTHERS)] = False
        return np.flatnonzero(is_line)

    @property
    def calibration(self) -> np.ndarray:
        """The rows of calibration lines that are in the k-space of the images."""
        is_line = self.heads["encoding_space_ref"] == 0
        is_line[self.rows(NOISE, *OTHERS)] = False
        rows = self.rows(CALIBRATION)
        return rows[is_line[rows]]


@dataclass(frozen=True)
class Lines:
    """The acquisitions of a series: where each one is in the file and in k-space."""

    rows: np.ndarray  # in the file
    frame: np.ndarray
    line: np.ndarray
    column: np.ndarray  # of the first sample
    keep: np.ndarray  # (n, 2) first sample, and one past the last
    reverse: np.ndarray  # bool: read out from the other side


@dataclass
class Imaging:
    """The lines of images of a measurement, by series."""

    measurement: RawGroup
    path: Path
    frame_name: str = field(init=False)
    keys: list[dict[str, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = self.measurement.imaging
        idx = self.measurement.heads["idx"][self.rows]
        if len(np.unique(idx["kspace_encode_step_2"])) > 1:
            raise InputError(
                f"{self.path} is three-dimensional; expected slices: reconstruct it along z"
            )
        self.frame_name = "phase" if len(np.unique(idx["phase"])) > 1 else "repetition"
        self.keys, self.of_row = series_keys(idx, self.frame_name)
        coils = self.measurement.heads["active_channels"][self.rows]
        self.n_coils = int(coils.max())
        if np.ptp(coils):
            raise InputError(f"{self.path} has lines of other numbers of coils: export it again")
        frames = idx[self.frame_name]
        self.n_frames = max(len(np.unique(frames[self.of_row == i])) for i in range(len(self.keys)))

    def series(self, i: int, name: str, noise: np.ndarray | None) -> Series:
        """Read the acquisitions of a series and put them together."""
        m = self.measurement
        rows = self.rows[self.of_row == i]
        lines = lines_of(m, rows, self.frame_name, self.path)
        n_frames = int(lines.frame.max()) + 1
        n_bytes = 8 * n_frames * self.n_coils * m.ny * m.nx
        what = f"a slice of {self.path} has {n_bytes / 1e9:.1f} GB"
        require_memory(2 * n_bytes, what, MEMORY_REMEDY)
        kspace, count = put_together(m, lines, n_frames, self.n_coils)
        maps, notes = self.maps(rows, kspace, count)
        kspace /= np.maximum(count, 1)[:, None, :, None]
        if m.shown < m.nx:
            kspace = without_oversampling(kspace, m.shown)
            notes.append(f"readout oversampling is removed: {m.nx} to {m.shown} columns")
        if n_frames < self.n_frames:
            notes.append(
                f"{n_frames} {self.frame_name}s were measured, of other series {self.n_frames}"
            )
        series = series_of(name, kspace, True, count > 0, maps, str(self.path), noise)
        series.notes[:0] = notes
        return series

    def maps(
        self, rows: np.ndarray, kspace: np.ndarray, count: np.ndarray
    ) -> tuple[np.ndarray | None, list[str]]:
        """Sensitivity maps (C, Y, X) of a series from its calibration lines and the sum of its
        imaging lines (T, C, Y, X), and a note; None if its imaging lines are enough, or both too
        few."""
        m = self.measurement
        centre = calibration_lines(m.ny)
        slices = m.heads["idx"]["slice"]
        calibration = m.calibration[slices[m.calibration] == slices[rows[0]]]
        fits = (m.heads["active_channels"][calibration] == self.n_coils).all()
        is_open = not (count.sum(0)[centre] > 0).all()
        if self.n_coils < 2 or not len(calibration) or not fits or not is_open:
            return None, []
        lines = lines_of(m, calibration, None, self.path)
        total, more = put_together(m, lines, 1, self.n_coils)
        number = np.asarray(count.sum(0) + more[0])
        if not (number[centre] > 0).all():
            return None, []
        gaps = np.flatnonzero(number == 0) - m.ny // 2
        reach = min([m.ny // 2, *np.abs(gaps).tolist()])
        window = np.clip(np.cos(np.pi / 2 * (np.arange(m.ny) - m.ny // 2) / reach), 0, None)
        window[np.abs(np.arange(m.ny) - m.ny // 2) >= reach] = 0
        average = (kspace.sum(0) + total[0]) * (window / np.maximum(number, 1))[:, None]
        average = without_oversampling(average.astype(np.complex64), m.shown)
        maps = sensitivity_maps(ifftc(torch.from_numpy(average))[None])[0].numpy()
        return maps, [f"{len(calibration)} calibration lines are used for sensitivity maps"]


def raw_scan(
    path: Path,
    kind: str,
    measurements: Mapping[str, RawGroup],
    unusable: Mapping[str, InputError],
) -> Scan:
    """The scan of the measurements of a file, by name; `unusable`: what is wrong with others.

    Raises:
        InputError: there are no lines of images, or not of slices.
    """
    parts, problems = {}, dict(unusable)
    for group, measurement in measurements.items():
        try:
            if len(measurement.imaging):
                parts[group] = Imaging(measurement, path)
        except InputError as error:
            problems[group] = error
    if not parts:
        none = InputError(f"{path} has no imaging lines; expected a cine: export it again")
        raise next(iter(problems.values()), none)
    notes = [f"{group} is left out: {problem}" for group, problem in problems.items()]
    series = {}
    for group, part in parts.items():
        of_group = f"{group}: " if len(measurements) > 1 else ""
        m = part.measurement
        if n_left_out := len(m.heads) - len(m.imaging):
            what = "lines of noise, calibration, navigation or other are no image"
            notes.append(f"{of_group}{n_left_out} {what}")
        notes += [f"{of_group}{note}" for note in m.notes]
        notes.append(f"{of_group}frames are the {part.frame_name}s")
        prefix = f"{group}_" if len(parts) > 1 else ""
        series.update({prefix + name_of(key): (part, i) for i, key in enumerate(part.keys)})

    def load() -> Iterator[Series]:
        for name, (part, i) in series.items():
            others = [m for m in measurements.values() if m is not part.measurement]
            noise = noise_of([part.measurement, *others], part.n_coils)
            yield part.series(i, name, noise)

    return Scan(path, kind, list(series), load, notes)


def noise_of(measurements: Sequence[RawGroup], n_coils: int) -> np.ndarray | None:
    """The samples (C, N) of the first measurement that has a scan of the noise of these coils."""
    for m in measurements:
        rows = m.rows(NOISE)
        if n_coils > 1 and len(rows) and (m.heads["active_channels"][rows] == n_coils).all():
            return np.concatenate(list(m.read(rows)), axis=1)
    return None


def series_keys(idx: np.ndarray, frame_name: str) -> tuple[list[dict[str, int]], np.ndarray]:
    """The counters that tell series apart, for each series, and the series of each acquisition."""
    counters = [name for name in COUNTERS if name != frame_name]
    table = np.stack([idx[name].astype(int) for name in counters], axis=1)
    values, of_row = np.unique(table, axis=0, return_inverse=True)
    shown = [i for i, name in enumerate(counters) if name == "slice" or np.ptp(values[:, i])]
    keys = [{counters[i]: int(value[i]) for i in shown} for value in values]
    return keys, of_row.ravel()


def name_of(key: Mapping[str, int]) -> str:
    """The name of a series, counted from 1: "slice_1"."""
    return "_".join(f"{name}_{value + 1}" for name, value in key.items())


def lines_of(m: RawGroup, rows: np.ndarray, frame_name: str | None, path: Path) -> Lines:
    """Where acquisitions belong; without a name of the frames, all in one.

    Raises:
        InputError: outside of k-space as the header has it.
    """
    heads = m.heads[rows]
    n = heads["number_of_samples"].astype(int)
    first, end = heads["discard_pre"].astype(int), n - heads["discard_post"]
    reverse = heads["flags"].astype(np.uint64) & np.uint64(1 << (REVERSE - 1)) != 0
    centre = heads["center_sample"].astype(int)
    centre = np.where(centre > 0, centre, n // 2)
    first, end = np.where(reverse, n - end, first), np.where(reverse, n - first, end)
    centre = np.where(reverse, n - 1 - centre, centre)
    column = m.nx // 2 - centre + first
    line = heads["idx"]["kspace_encode_step_1"].astype(int) - m.centre + m.ny // 2
    outside = (line < 0) | (line >= m.ny) | (column < 0) | (column + end - first > m.nx)
    if outside.any():
        raise InputError(
            f"{path}: {np.count_nonzero(outside)} lines lie outside of k-space of {m.ny} x {m.nx},"
            " as the header has it: correct matrixSize or encodingLimits"
        )
    frame = np.zeros(len(rows), int)
    if frame_name is not None:
        frame = np.unique(heads["idx"][frame_name], return_inverse=True)[1].ravel()
    return Lines(rows, frame, line, column, np.stack((first, end), 1), reverse)


def put_together(
    m: RawGroup, lines: Lines, n_frames: int, n_coils: int
) -> tuple[np.ndarray, np.ndarray]:
    """The sum of lines (T, C, Y, X), and how many there are of each, (T, Y)."""
    kspace = np.zeros((n_frames, n_coils, m.ny, m.nx), np.complex64)
    count = np.zeros((n_frames, m.ny), int)
    for i, coils in enumerate(m.read(lines.rows)):
        coils = coils[:, ::-1] if lines.reverse[i] else coils
        first, end = lines.keep[i]
        t, y, x = lines.frame[i], lines.line[i], lines.column[i]
        kspace[t, :, y, x : x + end - first] += coils[:, first:end]
        count[t, y] += 1
    return kspace, count


def without_oversampling(kspace: np.ndarray, nx: int) -> np.ndarray:
    """K-space (..., X) of the middle `nx` columns of its image."""
    images = ifftc(torch.from_numpy(kspace), axes=(-1,))
    first = kspace.shape[-1] // 2 - nx // 2
    return fftc(images[..., first : first + nx], axes=(-1,)).numpy()
