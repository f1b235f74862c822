"""DICOM files: the magnitude cines of a folder, sorted into slices and frames.

A series is one slice of one DICOM series: same SeriesInstanceUID, orientation, position along the
normal, size and kind of image. Frames are sorted by TriggerTime, else by TemporalPositionIdentifier
or InstanceNumber. Y is the phase-encoding direction (InPlanePhaseEncodingDirection), rows if it is
not given. Files of other modalities, colour images, and positions with one image only are left out.

What is written is a new DICOM series: copies of the input's files with new UIDs, "DERIVED", and the
patient and study of the input.
"""

import io
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.stored import require_memory
from formats.arrays import MEMORY_REMEDY
from formats.series import Scan, Series, damage_explained, optional
from util.errors import InputError

PREAMBLE, MAGIC = 128, b"DICM"
SUFFIXES = (".dcm", ".ima", ".dicom")
MILLIMETRE_DIGITS, ORIENTATION_DIGITS = 1, 3  # to which positions and directions are compared
LARGEST = 2**16 - 1  # of a stored pixel
SERIES_STEP = 1000  # added to the number of the series
PHASE_KINDS = ("P", "PHASE", "R", "REAL", "I", "IMAGINARY", "VELOCITY")  # of ImageType
DERIVED = "Cine reconstruction by a dynamic MRI reconstruction suite"
UNEVEN = 1.5  # a gap between trigger times over their usual one, at which a frame may be missing


@dataclass(frozen=True)
class Slice:
    """The files of a series, sorted by time, and what their headers say."""

    name: str
    files: tuple[Path, ...]
    shape: tuple[int, int]  # rows, columns
    is_turned: bool  # the phase encoding runs along the rows, from left to right
    patient: str
    notes: tuple[str, ...]


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its magic number."""
    with path.open("rb") as file:
        return file.read(PREAMBLE + len(MAGIC))[PREAMBLE:] == MAGIC


def read_dicom(path: Path, axes: str | None, files: Sequence[Path]) -> Scan:
    """The scan in the DICOM `files` of the folder `path`.

    Raises:
        InputError: pydicom is not installed, or there is no cine.
    """
    if axes is not None:
        raise InputError(f"{path} is DICOM, whose headers name the axes: leave --axes out")
    pydicom = optional("pydicom")
    slices, notes = sorted_slices(headers_of(pydicom, files), len(files))
    if not slices:
        reasons = "; ".join(notes) or "no DICOM file could be read"
        raise InputError(
            f"{path} holds no cine: {reasons}; expected several MR images at a slice position"
        )

    def load() -> Iterator[Series]:
        for of_slice in slices:
            yield dicom_series(pydicom, of_slice)

    write = partial(dicom_files, slices)
    return Scan(path, "DICOM folder", [s.name for s in slices], load, notes, write)


def headers_of(pydicom: Any, files: Sequence[Path]) -> Iterator[tuple[Path, Any]]:
    """The files that are DICOM, with their headers without pixels."""
    for file in files:
        with warnings.catch_warnings():  # about values that are not quite as the standard has them
            warnings.simplefilter("ignore")
            try:
                yield file, pydicom.dcmread(file, stop_before_pixels=True)
            except Exception:  # pydicom fails in many ways on damaged files
                yield file, None


def reason_to_skip(header: Any) -> str:
    """Why a file is no image of a cine, in words that follow a number; "" if it may be one."""
    if header is None or "SOPClassUID" not in header:
        return "damaged"
    if (modality := str(header.get("Modality", "unknown"))) != "MR":
        return f"of modality {modality[:16]}"
    if not header.get("Rows") or not header.get("Columns"):
        return "without an image"
    if int(header.get("SamplesPerPixel", 1)) != 1:
        return "in colour"
    if int(header.get("NumberOfFrames", 1) or 1) > 1:
        return "with several frames (export them as classic MR images, a frame a file)"
    if any(kind in PHASE_KINDS for kind in image_type(header)[2:]):
        return "of phase or of real or imaginary part"
    return ""


def image_type(header: Any) -> list[str]:
    """The values of ImageType."""
    value = header.get("ImageType") or []
    return [value] if isinstance(value, str) else [str(part) for part in value]


def place_of(header: Any) -> tuple[tuple[float, ...], float]:
    """Orientation and position along the normal in mm, as slices are told apart by them."""
    directions = header.get("ImageOrientationPatient")
    corner = header.get("ImagePositionPatient")
    if directions is None or corner is None or len(directions) != 6 or len(corner) != 3:
        return (), round(float(header.get("SliceLocation") or 0), MILLIMETRE_DIGITS)
    turned = np.array([float(value) for value in directions])
    normal = np.cross(turned[:3], turned[3:])
    position = float(normal @ np.array([float(value) for value in corner]))
    orientation = tuple((turned.round(ORIENTATION_DIGITS) + 0.0).tolist())
    return orientation, round(position, MILLIMETRE_DIGITS) + 0.0


def sorted_slices(
    headers: Iterator[tuple[Path, Any]], n_files: int
) -> tuple[list[Slice], list[str]]:
    """The slices with several frames, by series and position, and notes on what is left out."""
    skipped: Counter[str] = Counter()
    seen: set[str] = set()
    groups: dict[tuple, list[tuple[Path, Any]]] = defaultdict(list)
    for file, header in headers:
        reason = reason_to_skip(header)
        uid = "" if reason else str(header.get("SOPInstanceUID", file))
        if reason or uid in seen:
            skipped[reason or "that repeat another"] += 1
            continue
        seen.add(uid)
        series = str(header.get("SeriesInstanceUID", ""))
        kind = (int(header.Rows), int(header.Columns), str(header.get("EchoNumbers", "")))
        number = int(header.get("SeriesNumber") or 0)
        place = place_of(header)
        groups[(number, series, place, kind)].append((file, header))
    notes = [f"{n} of {n_files} files {reason} are left out" for reason, n in skipped.items()]
    longest: dict[str, int] = defaultdict(int)
    for key, group in groups.items():
        longest[key[1]] = max(longest[key[1]], len(group))
    slices: list[Slice] = []
    counts: Counter[int] = Counter()
    numbers: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for key in sorted(groups):
        number, series, group = key[0], key[1], groups[key]
        if reason := reason_to_leave_out(group, longest[series]):
            left_out[reason] += 1
            continue
        if series not in numbers:
            counts[number] += 1
            repeated = f"_{counts[number]}" if counts[number] > 1 else ""
            numbers[series] = f"series_{number}{repeated}"
        n_before = sum(s.name.startswith(f"{numbers[series]}_slice_") for s in slices)
        slices.append(slice_of(f"{numbers[series]}_slice_{n_before + 1:02d}", group))
    notes += [f"{n} slice positions {reason} are left out" for reason, n in left_out.items()]
    return slices, notes


def reason_to_leave_out(group: Sequence[tuple[Path, Any]], longest: int) -> str:
    """Why the images at a position are no cine, in words that follow a number; "" if they are."""
    if len(group) == 1:
        return "with a single image"
    if len(group) < longest:
        return f"with {len(group)} images, where others of the series have {longest},"
    times = [header.get("TriggerTime") for _, header in group]
    if None not in times and len({float(time) for time in times}) == 1:
        return "whose images are all of one trigger time"
    return ""


def slice_of(name: str, group: Sequence[tuple[Path, Any]]) -> Slice:
    """A slice from its files and headers."""
    first = group[0][1]
    notes = []
    for key in ("TriggerTime", "NominalCardiacTriggerDelayTime", "TemporalPositionIdentifier"):
        values = [header.get(key) for _, header in group]
        if None not in values and len({float(value) for value in values}) == len(values):
            break
    else:
        key, values = "InstanceNumber", [header.get("InstanceNumber") or 0 for _, header in group]
        notes.append("without trigger times that differ; frames are sorted by InstanceNumber")
        if len(set(values)) < len(values):
            key, values = "name", [str(file) for file, _ in group]
            notes[-1] = "without times or numbers; frames are sorted by the names of their files"
    if key != "name":
        values = [float(value) for value in values]
    order = sorted(range(len(group)), key=values.__getitem__)
    if key == "TriggerTime" and len(order) > 2:
        gaps = np.diff([values[i] for i in order])
        if gaps.max() > UNEVEN * np.median(gaps):
            notes.append(
                f"trigger times are uneven (steps of {gaps.min():g} to {gaps.max():g} ms): frames"
                " may be missing"
            )
    direction = str(first.get("InPlanePhaseEncodingDirection") or "")
    if direction not in ("ROW", "COL"):
        notes.append("the direction of phase encoding is not given; columns are assumed")
    return Slice(
        name,
        tuple(group[i][0] for i in order),
        (int(first.Rows), int(first.Columns)),
        direction == "ROW",
        str(first.get("PatientID") or "") or str(first.get("PatientName") or ""),
        tuple(notes),
    )


def pixels_of(pydicom: Any, file: Path) -> np.ndarray:
    """An image, rescaled as its header says, (rows, columns) float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with damage_explained(file):
            dataset = pydicom.dcmread(file)
            syntax = dataset.file_meta.TransferSyntaxUID
        try:
            stored = dataset.pixel_array
        except Exception as error:  # as many as there are decoders
            reason = str(error).partition("\n")[0]
            remedy = "copy it again"
            if syntax.is_compressed:
                remedy = "pip install pylibjpeg[all], or export uncompressed files"
            raise InputError(
                f"{file} has pixels that cannot be read ({reason}): {remedy}"
            ) from None
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    scaled = stored * np.float64(1 if slope is None else slope)
    return (scaled + np.float64(0 if intercept is None else intercept)).astype(np.float32)


def dicom_series(pydicom: Any, of_slice: Slice) -> Series:
    """Read a slice."""
    n_bytes = 4 * len(of_slice.files) * of_slice.shape[0] * of_slice.shape[1]
    require_memory(n_bytes, f"a slice has {n_bytes / 1e9:.1f} GB", MEMORY_REMEDY)
    images = np.empty((len(of_slice.files), *of_slice.shape), np.float32)
    for image, file in zip(images, of_slice.files, strict=True):
        image[...] = pixels_of(pydicom, file)
    notes = list(of_slice.notes)
    if of_slice.is_turned:
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
        notes.append("phase encoding runs along the rows: Y and X are exchanged")
    return Series(of_slice.name, images, False, None, of_slice.patient, notes)


def dicom_files(
    slices: Sequence[Slice], reconstructions: Mapping[str, np.ndarray]
) -> dict[str, bytes]:
    """The files of new DICOM series, by name, with the magnitude of the reconstructions."""
    pydicom = optional("pydicom")
    peak = max(float(np.abs(images).max()) for images in reconstructions.values())
    slope = f"{(peak or 1.0) / LARGEST:.9e}"  # at most 16 characters
    uids: dict[str, str] = {}
    files = {}
    for of_slice in slices:
        if of_slice.name not in reconstructions:
            continue
        images = np.abs(reconstructions[of_slice.name])
        images = images.transpose(0, 2, 1) if of_slice.is_turned else images
        stored = np.clip(np.rint(images / float(slope)), 0, LARGEST).astype("<u2")
        for i, (source, pixels) in enumerate(zip(of_slice.files, stored, strict=True), start=1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                content = derived(pydicom, source, pixels, slope, uids)
            files[f"dicom/{of_slice.name}/{i:04d}.dcm"] = content
    return files


REMOVED = (
    "SmallestImagePixelValue", "LargestImagePixelValue", "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "ModalityLUTSequence", "VOILUTSequence", "IconImageSequence", "DigitalSignaturesSequence",
)  # fmt: skip


def derived(
    pydicom: Any, source: Path, pixels: np.ndarray, slope: str, uids: dict[str, str]
) -> bytes:
    """A derived DICOM file: the header of `source` with other pixels (rows, columns) uint16.

    `uids`: of new series by the UID of the series that they come from; added to.
    """
    with damage_explained(source):
        dataset = pydicom.dcmread(source)
    original = pydicom.Dataset()
    original.ReferencedSOPClassUID = dataset.SOPClassUID
    original.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    dataset.remove_private_tags()
    for keyword in REMOVED:
        if keyword in dataset:
            delattr(dataset, keyword)
    series = str(dataset.get("SeriesInstanceUID", ""))
    dataset.SeriesInstanceUID = uids.setdefault(series, pydicom.uid.generate_uid())
    dataset.SOPInstanceUID = pydicom.uid.generate_uid()
    dataset.SeriesNumber = int(dataset.get("SeriesNumber") or 0) + SERIES_STEP
    dataset.SeriesDescription = "Cine reconstruction"
    dataset.ImageType = ["DERIVED", "SECONDARY", *image_type(dataset)[2:]]
    dataset.DerivationDescription = DERIVED
    dataset.SourceImageSequence = [original]
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = slope, "0", "US"
    dataset.add_new("PixelData", "OW", pixels.tobytes())
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
