"""DICOM files: the magnitude cines of a folder, or of an enhanced file of several frames.

`formats/dicom_headers.py` reads what the headers say, `formats/dicom_slices.py` sorts images into
slices and frames, `formats/dicom_files.py` writes a new series. Y is the phase-encoding direction
(InPlanePhaseEncodingDirection), rows if it is not given. Files of other modalities, colour images,
mosaics, phase images, and positions with one image only are left out.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from data.stored import require_memory
from formats.arrays import MEMORY_REMEDY
from formats.content import acquired_lines, looks_like_phase
from formats.dicom_files import dicom_files
from formats.dicom_headers import DICOMDIR, Frame, frames_in
from formats.dicom_slices import Slice, frame_time_of, sorted_slices
from formats.dicom_values import Header, read_dataset
from formats.series import Scan, Series, damage_explained, optional
from util.errors import InputError


def read_dicom(path: Path, axes: str | None, files: Sequence[Path]) -> Scan:
    """The scan in the DICOM `files` of the folder `path`.

    Raises:
        InputError: pydicom is not installed, or there is no cine.
    """
    if axes is not None:
        raise InputError(f"{path} is DICOM, whose headers name the axes: leave --axes out")
    pydicom = optional("pydicom")
    frames: list[Frame] = []
    skipped: Counter[str] = Counter()
    for file in files:
        found = list(frames_in(pydicom, file))
        frames += [frame for frame in found if isinstance(frame, Frame)]
        n, what = (len(files), "files") if len(found) == 1 else (len(found), "frames of a file")
        skipped.update(f"of {n} {what} {r}" for r in found if isinstance(r, str))
    if path.is_file() and any(reason.endswith(DICOMDIR) for reason in skipped):
        raise InputError(
            f"{path} is a DICOMDIR, a list of other files; expected images: name their folder,"
            f" {path.parent}"
        )
    slices, more = sorted_slices(frames)
    notes = [f"{n} {reason} are left out" for reason, n in skipped.items()] + more
    slices, more = without_phase(pydicom, slices)
    notes += more
    if not slices:
        reasons = "; ".join(notes) or "no DICOM file could be read"
        raise InputError(
            f"{path} holds no cine: {reasons}; expected several MR images at a slice position"
        )
    taken: dict[str, tuple[Frame, ...]] = {}  # by series: the images that could be read

    def load() -> Iterator[Series]:
        read = reader(pydicom)
        for of_slice in slices:
            yield dicom_series(read, of_slice, taken)

    write = partial(dicom_files, slices, taken)
    return Scan(path, "DICOM folder", [s.name for s in slices], load, notes, write)


def reader(pydicom: Any) -> Callable[[Frame], np.ndarray]:
    """A function that reads an image, rescaled as its header says, (rows, columns) float32. It
    keeps the last file, which may hold several."""

    @lru_cache(maxsize=1)
    def stored(file: Path) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with damage_explained(file):
                dataset = read_dataset(pydicom, file)
                syntax = dataset.file_meta.TransferSyntaxUID
                if Header([dataset]).number("NumberOfFrames") is None:  # or it cannot be read
                    dataset.pop("NumberOfFrames", None)
            try:
                pixels: np.ndarray = dataset.pixel_array
                return pixels
            except Exception as error:  # as many as there are decoders
                reason = str(error).partition("\n")[0]
                remedy = "copy it again"
                if syntax.is_compressed:
                    remedy = "pip install pylibjpeg[all], or export uncompressed files"
                raise InputError(
                    f"{file} has pixels that cannot be read ({reason}): {remedy}"
                ) from None

    def read(frame: Frame) -> np.ndarray:
        pixels = stored(frame.file)
        pixels = pixels[frame.index] if frame.n_in_file > 1 else pixels
        return (pixels * np.float64(frame.slope) + frame.intercept).astype(np.float32)

    return read


def images_of(
    read: Callable[[Frame], np.ndarray], of_slice: Slice
) -> tuple[np.ndarray, tuple[Frame, ...], list[str]]:
    """The images (T, rows, columns) of a slice, those that could be read, and a note on others.

    Raises:
        InputError: none could be read, or they need more memory than there is.
    """
    n_bytes = 4 * len(of_slice.frames) * of_slice.first.shape[0] * of_slice.first.shape[1]
    require_memory(n_bytes, f"a slice has {n_bytes / 1e9:.1f} GB", MEMORY_REMEDY)
    images, frames, errors = [], [], []
    for frame in of_slice.frames:
        try:
            images.append(read(frame))
            frames.append(frame)
        except InputError as error:
            errors.append(error)
    if not images:
        raise errors[0]
    n, n_left_out = len(of_slice.frames), len(errors)
    notes = [f"{n_left_out} of {n} images are left out: {errors[0]}"] if errors else []
    return np.stack(images), tuple(frames), notes


def without_phase(pydicom: Any, slices: Sequence[Slice]) -> tuple[list[Slice], list[str]]:
    """The slices without those of several acquisitions at a place whose values are phases, which
    no header tells; and notes."""
    read, kept, notes = reader(pydicom), [], []
    for one in slices:
        if one.n_acquisitions > 1 and looks_like_phase(images_of(read, one)[0]):
            notes.append(f"{one.name} is left out: its values are those of phase images")
        else:
            kept.append(one)
    return kept, notes


def dicom_series(
    read: Callable[[Frame], np.ndarray],
    of_slice: Slice,
    taken: MutableMapping[str, tuple[Frame, ...]],
) -> Series:
    """Read a slice. `taken`: gets the images that could be read."""
    first, notes = of_slice.first, list(of_slice.notes)
    images, taken[of_slice.name], more = images_of(read, of_slice)
    notes += more
    spacing = first.spacing
    if of_slice.is_turned:
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
        spacing = spacing and spacing[::-1]
        notes.append("phase encoding runs along the rows: Y and X are exchanged")
    series = Series(of_slice.name, images, False, None, first.patient, notes)
    series.is_turned, series.spacing = of_slice.is_turned, spacing
    series.frame_time = frame_time_of(taken[of_slice.name])
    reasons = [frame.not_a_scan for frame in of_slice.frames if frame.not_a_scan]
    phase = ["its values are those of phase images"] if looks_like_phase(images) else []
    series.not_a_scan = next(iter(reasons + phase), "")
    reach = 1.0  # field of view of the images over that of the lines
    if spacing and first.lines_fov:
        ny, nx = images.shape[1:]
        reach = 100 / first.lines_fov * ny * spacing[0] / (nx * spacing[1])
    series.n_acquired, note = acquired_lines(images, first.n_lines, reach)
    series.notes += note
    return series
