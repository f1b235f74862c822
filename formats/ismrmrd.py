"""ISMRMRD raw data in HDF5: Cartesian, two-dimensional, of one coil or several.

Frames are the cardiac phases, or the repetitions where there is one phase. Averages are averaged,
readout oversampling is removed, lines of noise whiten the coils, calibration lines are left out.
The format:

S. J. Inati et al., "ISMRM Raw data format: a proposed standard for MRI raw datasets", Magn Reson
Med 77:411-421, 2017.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch

from data.stored import require_memory
from formats.arrays import MEMORY_REMEDY, series_of
from formats.series import Scan, Series, damage_explained, optional
from physics.fourier import fftc, ifftc
from util.errors import InputError

# bits of an acquisition's flags, counted from 1 as in ismrmrd.h
NOISE, CALIBRATION, NAVIGATION, PHASE_CORRECTION = 19, 20, 23, 24
REVERSE, FEEDBACK, DUMMY = 22, 28, 27
LEFT_OUT = (NOISE, CALIBRATION, NAVIGATION, PHASE_CORRECTION, FEEDBACK, DUMMY)
ROWS = 256  # acquisitions read at a time
FIELDS = {"data", "head", "traj"}


@dataclass(frozen=True)
class Lines:
    """The acquisitions of a series: where each one is in the file and in k-space."""

    rows: np.ndarray  # in the file
    frame: np.ndarray
    line: np.ndarray
    column: np.ndarray  # of the first sample
    keep: np.ndarray  # (n, 2) first sample, and one past the last
    reverse: np.ndarray  # bool: read out from the other side


def raw_group(file: Any) -> str | None:
    """The group of an open HDF5 file that holds ISMRMRD data; None if there is none."""
    for name, item in file.items():
        if hasattr(item, "keys") and {"xml", "data"} <= set(item.keys()):
            names = getattr(item["data"], "dtype", np.dtype("f4")).names
            if names is not None and set(names) >= FIELDS:
                return str(name)
    return None


def parse_header(text: Any, path: Path) -> ElementTree.Element:
    """The XML header, without name spaces.

    Raises:
        InputError: it is no XML.
    """
    content = text if isinstance(text, (bytes, str)) else np.asarray(text).ravel()[0]
    content = content if isinstance(content, bytes) else str(content).encode()
    try:
        if b"<!DOCTYPE" in content:
            raise ValueError("it declares a document type")
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(
            f"{path} has an XML header that cannot be read ({error}): export it again"
        ) from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def number(header: ElementTree.Element, place: str, otherwise: int) -> int:
    """A whole number in the header, such as "encoding/encodedSpace/matrixSize/x"."""
    text = (header.findtext(place) or "").strip()
    return int(text) if text.isdigit() else otherwise


def read_ismrmrd(path: Path, axes: str | None) -> Scan:
    """The scan in an ISMRMRD file.

    Raises:
        InputError: the file is damaged, or not Cartesian and two-dimensional.
    """
    if axes is not None:
        raise InputError(f"{path} is ISMRMRD, whose header names the axes: leave --axes out")
    h5py = optional("h5py")
    with damage_explained(path), h5py.File(path, "r") as file:
        group = raw_group(file)
        header = parse_header(file[f"{group}/xml"][()], path)
        heads = file[f"{group}/data"].fields("head")[:]
    trajectory = (header.findtext("encoding/trajectory") or "cartesian").strip().lower()
    if trajectory != "cartesian":
        raise InputError(
            f"{path} has a {trajectory} trajectory; expected a Cartesian one: regrid it first"
        )
    # the acquisitions that are lines of images, and those of noise
    bits = sum(1 << (bit - 1) for bit in LEFT_OUT)
    flags = heads["flags"].astype(np.uint64)
    of_noise = np.flatnonzero(flags & np.uint64(1 << (NOISE - 1)))
    noise_coils = set(heads["active_channels"][of_noise].tolist())
    used = (flags & np.uint64(bits)) == 0
    used &= heads["encoding_space_ref"] == 0
    if not used.any():
        raise InputError(f"{path} has no imaging lines; expected a cine: export it again")
    notes = []
    if n_left_out := np.count_nonzero(~used):
        notes.append(f"{n_left_out} lines of noise, calibration, navigation or other are no image")
    rows = np.flatnonzero(used)
    heads = heads[rows]
    # series and frames, by the counters of the lines
    if len(np.unique(heads["idx"]["kspace_encode_step_2"])) > 1:
        raise InputError(f"{path} is three-dimensional; expected slices: reconstruct it along z")
    frame_name = "phase" if len(np.unique(heads["idx"]["phase"])) > 1 else "repetition"
    notes.append(f"frames are the {frame_name}s")
    geometry = Geometry(path, header, heads, frame_name)
    keys, of_row = series_keys(heads["idx"], frame_name)
    names = [name_of(key) for key in keys]

    def load() -> Iterator[Series]:
        for i, name in enumerate(names):
            lines = geometry.lines(heads[of_row == i], rows[of_row == i])
            series = geometry.series(h5py, f"{group}/data", name, lines)
            if noise_coils == {geometry.n_coils} and geometry.n_coils > 1:
                series.noise = geometry.noise(h5py, f"{group}/data", of_noise)
            yield series

    return Scan(path, "ISMRMRD file", names, load, notes)


def series_keys(idx: np.ndarray, frame_name: str) -> tuple[list[dict[str, int]], np.ndarray]:
    """The counters that tell series apart, for each series, and the series of each acquisition."""
    counters = ["slice", "contrast", "set", "phase", "repetition"]
    counters.remove(frame_name)
    table = np.stack([idx[name].astype(int) for name in counters], axis=1)
    values, of_row = np.unique(table, axis=0, return_inverse=True)
    shown = [i for i, name in enumerate(counters) if name == "slice" or np.ptp(values[:, i])]
    keys = [{counters[i]: int(value[i]) for i in shown} for value in values]
    return keys, of_row.ravel()


def name_of(key: Mapping[str, int]) -> str:
    """The name of a series, counted from 1: "slice_1"."""
    return "_".join(f"{name}_{value + 1}" for name, value in key.items())


class Geometry:
    """Sizes of k-space, and where acquisitions belong in it."""

    def __init__(self, path: Path, header: ElementTree.Element, heads: np.ndarray, frame_name: str):
        encoded, recon = "encoding/encodedSpace/matrixSize", "encoding/reconSpace/matrixSize"
        self.path, self.frame_name = path, frame_name
        self.frames = np.unique(heads["idx"][frame_name])
        self.nx = number(header, f"{encoded}/x", int(heads["number_of_samples"].max()))
        self.ny = number(
            header, f"{encoded}/y", int(heads["idx"]["kspace_encode_step_1"].max()) + 1
        )
        self.shown = min(number(header, f"{recon}/x", self.nx), self.nx)
        limits = "encoding/encodingLimits/kspace_encoding_step_1"
        self.centre = number(header, f"{limits}/center", self.ny // 2)
        self.n_coils = int(heads["active_channels"].max())
        if np.ptp(heads["active_channels"]):
            raise InputError(f"{path} has lines of other numbers of coils: export it again")
        n_bytes = 8 * len(self.frames) * self.n_coils * self.ny * self.nx
        require_memory(2 * n_bytes, f"a slice of {path} has {n_bytes / 1e9:.1f} GB", MEMORY_REMEDY)

    def lines(self, heads: np.ndarray, rows: np.ndarray) -> Lines:
        """Where acquisitions belong.

        Raises:
            InputError: outside of k-space as the header has it.
        """
        n = heads["number_of_samples"].astype(int)
        first, end = heads["discard_pre"].astype(int), n - heads["discard_post"]
        reverse = heads["flags"].astype(np.uint64) & np.uint64(1 << (REVERSE - 1)) != 0
        centre = heads["center_sample"].astype(int)
        centre = np.where(centre > 0, centre, n // 2)
        first, end = np.where(reverse, n - end, first), np.where(reverse, n - first, end)
        centre = np.where(reverse, n - 1 - centre, centre)
        column = self.nx // 2 - centre + first
        line = heads["idx"]["kspace_encode_step_1"].astype(int) - self.centre + self.ny // 2
        outside = (line < 0) | (line >= self.ny) | (column < 0) | (column + end - first > self.nx)
        if outside.any():
            raise InputError(
                f"{self.path}: {np.count_nonzero(outside)} lines lie outside of k-space of"
                f" {self.ny} x {self.nx}, as the header has it: correct matrixSize or"
                " encodingLimits"
            )
        frame = np.searchsorted(self.frames, heads["idx"][self.frame_name])
        return Lines(rows, frame, line, column, np.stack((first, end), 1), reverse)

    def series(self, h5py: Any, place: str, name: str, lines: Lines) -> Series:
        """Read the acquisitions of a series and put them together."""
        kspace = np.zeros((len(self.frames), self.n_coils, self.ny, self.nx), np.complex64)
        count = np.zeros((len(self.frames), self.ny), int)
        i = 0
        with damage_explained(self.path), h5py.File(self.path, "r") as file:
            for samples in read_rows(file[place], lines.rows):
                coils = samples.view(np.complex64).reshape(self.n_coils, -1)
                coils = coils[:, ::-1] if lines.reverse[i] else coils
                first, end = lines.keep[i]
                t, y, x = lines.frame[i], lines.line[i], lines.column[i]
                kspace[t, :, y, x : x + end - first] += coils[:, first:end]
                count[t, y] += 1
                i += 1
        kspace /= np.maximum(count, 1)[:, None, :, None]
        notes = []
        if self.shown < self.nx:
            kspace = without_oversampling(kspace, self.shown)
            notes.append(f"readout oversampling is removed: {self.nx} to {self.shown} columns")
        series = series_of(name, kspace, True, count > 0, None, str(self.path))
        series.notes[:0] = notes
        return series

    def noise(self, h5py: Any, place: str, rows: np.ndarray) -> np.ndarray:
        """The samples (C, N) of the noise scan."""
        with damage_explained(self.path), h5py.File(self.path, "r") as file:
            lines = [samples.view(np.complex64) for samples in read_rows(file[place], rows)]
        return np.concatenate([line.reshape(self.n_coils, -1) for line in lines], axis=1)


def read_rows(dataset: Any, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The samples of these acquisitions, float32 pairs, read in runs of neighbours."""
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        for start in range(0, len(run), ROWS):
            part = run[start : start + ROWS]
            yield from dataset.fields("data")[int(part[0]) : int(part[-1]) + 1]


def without_oversampling(kspace: np.ndarray, nx: int) -> np.ndarray:
    """K-space (..., X) of the middle `nx` columns of its image."""
    images = ifftc(torch.from_numpy(kspace), axes=(-1,))
    first = kspace.shape[-1] // 2 - nx // 2
    return fftc(images[..., first : first + nx], axes=(-1,)).numpy()
