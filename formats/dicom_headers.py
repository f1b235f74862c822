"""Headers of DICOM files: what they say of each image, in plain values, and which images are left
out. Enhanced files hold several frames, whose values are in functional groups, of a frame or
shared.
"""

import math
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formats.dicom_values import Header, read_dataset
from formats.series import OWN

DIRECTORY = "1.2.840.10008.1.3.10"  # the class of a DICOMDIR
DICOMDIR = "that list others (DICOMDIR)"  # why it is left out
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # the class of screen captures, and the start of its kinds
DERIVED = "Cine reconstruction by a dynamic MRI reconstruction suite"
PHASE_KINDS = ("P", "PHASE", "R", "REAL", "I", "IMAGINARY", "VELOCITY", "PHASE MAP", "VELOCITY MAP")
# private values: group, creator, element
KIND_TAGS = ((0x0043, "GEMS_PARM_01", 0x2F), (0x2005, "Philips MR Imaging DD 001", 0x11))
KIND_NUMBERS = {"1": "P", "2": "R", "3": "I"}
MOSAIC_TAG = (0x0019, "SIEMENS MR HEADER", 0x0A)  # the number of its slices
TIME_KEYS = (
    "TriggerTime", "NominalCardiacTriggerDelayTime", "TemporalPositionIdentifier",
    "TemporalPositionIndex",
)  # fmt: skip
ORDER_KEYS = ("InstanceNumber", "FrameAcquisitionDateTime", "AcquisitionTime", "ContentTime")
SET_KEYS = ("AcquisitionNumber", "ImageType", "EchoTime", "SequenceName")  # that tell sets apart


@dataclass(frozen=True, eq=False)
class Frame:
    """An image, and what its header says of it; None or "" where it does not."""

    file: Path
    index: int  # in its file
    n_in_file: int
    uid: str
    study: str
    series: str
    number: int  # of the series
    description: str  # of the series
    patient: str
    shape: tuple[int, int]  # rows, columns
    echo: str
    orientation: tuple[float, ...] | None  # directions of a row and of a column
    corner: tuple[float, ...] | None  # mm
    location: float | None  # mm, along the normal
    times: Mapping[str, float | None]  # by keyword, of TIME_KEYS and ORDER_KEYS
    sets: Mapping[str, str]  # by keyword, of SET_KEYS
    slope: float
    intercept: float
    direction: str  # of phase encoding: "ROW", "COL" or ""
    spacing: tuple[float, ...] | None  # mm from row to row, and from column to column
    n_lines: int | None  # phase encodings of the acquisition
    lines_fov: float | None  # field of view along them over that along the readout, percent
    not_a_scan: str  # why it is no image as the scanner made it
    bad: frozenset[str]  # keywords of values that cannot be read

    @property
    def in_series(self) -> tuple:
        """What images of one DICOM series have in common, also where it has no UID."""
        return self.series, self.study, self.patient, 0 if self.series else self.number


class Skipped(Exception):
    """An image that is left out; the reason in words that follow a number."""


def frames_in(pydicom: Any, file: Path) -> Iterator[Frame | str]:
    """The images of a file; instead of one that is left out, the reason."""
    with warnings.catch_warnings():  # about values that are not quite as the standard has them
        warnings.simplefilter("ignore")
        try:
            with file.open("rb") as opened:
                dataset = read_dataset(pydicom, opened, stop_before_pixels=True)
                n_bytes = file.stat().st_size - opened.tell()
            n_frames = require_image(dataset, n_bytes)
            groups = functional_groups(dataset, n_frames)
        except Skipped as reason:
            yield str(reason)
            return
        except Exception:  # pydicom fails in many ways on damaged files
            yield "damaged"
            return
        for index in range(n_frames):
            try:
                yield frame_of(Header([*groups[index], dataset]), file, index, n_frames)
            except Skipped as reason:
                yield str(reason)
            except Exception:
                yield "damaged"


def require_image(dataset: Any, n_bytes: int) -> int:
    """The number of frames of a file with `n_bytes` of pixels; raises `Skipped` unless it may be an
    image of a cine."""
    header = Header([dataset])
    meta = Header([dataset.file_meta])
    if DIRECTORY in (meta.text("MediaStorageSOPClassUID"), header.text("SOPClassUID")):
        raise Skipped(DICOMDIR)
    if not header.text("SOPClassUID"):
        raise Skipped("damaged")
    if (modality := header.text("Modality") or "unknown") != "MR":
        raise Skipped(f"of modality {modality[:16]}")
    rows, columns = header.number("Rows"), header.number("Columns")
    if not rows or not columns:
        raise Skipped("without an image")
    if (header.number("SamplesPerPixel") or 1) != 1:
        raise Skipped("in colour")
    if "MOSAIC" in header.texts("ImageType") or header.private(*MOSAIC_TAG) not in ("", "0", "1"):
        raise Skipped("that are mosaics of slices (export one slice a file)")
    n_frames = int(header.number("NumberOfFrames") or 1)
    depth = (header.number("BitsAllocated") or 16) / 8
    if header.value("ModalityLUTSequence") is not None:
        raise Skipped("whose values are numbers in a table (ModalityLUTSequence)")
    syntax = dataset.file_meta.TransferSyntaxUID
    is_plain = not (syntax.is_compressed or syntax.is_deflated)
    if is_plain and n_bytes < rows * columns * depth * n_frames:
        raise Skipped("that are truncated (copy them again)")
    return n_frames


def functional_groups(dataset: Any, n_frames: int) -> list[list[Any]]:
    """The functional groups of every frame: its own, then the shared ones.

    Raises `Skipped` for several frames of which nothing says what they are.
    """
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    own = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    if n_frames > 1 and len(own) != n_frames and not Header([dataset]).number("FrameTime"):
        raise Skipped(
            "with several frames without their positions or times (export them as enhanced MR"
            " images, or a frame a file)"
        )
    own = own if len(own) == n_frames else [None] * n_frames
    return [
        [
            element.value[0]
            for item in (frame, *shared)
            if item is not None
            for element in item
            if element.VR == "SQ" and element.value
        ]
        for frame in own
    ]


def is_phase(header: Header) -> bool:
    """Whether an image holds phase, velocity, or a real or imaginary part."""
    kinds = header.texts("FrameType")[2:] or header.texts("ImageType")[2:]
    private = [header.private(*tag) for tag in KIND_TAGS]
    kinds += [header.text("ComplexImageComponent"), *(KIND_NUMBERS.get(k, k) for k in private)]
    return any(kind in PHASE_KINDS or kind.partition("_")[0] in PHASE_KINDS for kind in kinds)


def made_from_others(header: Header) -> str:
    """Why an image is none that the scanner made from its measurement; "" if it may be one."""
    if header.text("DerivationDescription").startswith(DERIVED):
        return OWN
    if header.text("SOPClassUID").startswith(CAPTURE):
        return "a screen capture"
    if header.texts("ImageType")[:2] == ["DERIVED", "SECONDARY"]:
        return "derived from other images (ImageType DERIVED, SECONDARY)"
    return ""


def lines_of(header: Header) -> int | None:
    """The number of phase encodings in the plane."""
    matrix = header.numbers("AcquisitionMatrix", 4)  # rows and columns of readout, then of phase
    steps = max(matrix[2:]) if matrix else header.number("MRAcquisitionPhaseEncodingStepsInPlane")
    return int(steps) if steps else None


def directions_of(header: Header) -> tuple[float, ...] | None:
    """The directions of a row and of a column, which have a length of about 1."""
    found = header.numbers("ImageOrientationPatient", 6)
    if found and not all(0.9 < math.hypot(*part) < 1.1 for part in (found[:3], found[3:])):
        header.bad.add("ImageOrientationPatient")
        return None
    return found


def frame_of(header: Header, file: Path, index: int, n_in_file: int) -> Frame:
    """What the header says of a frame; raises `Skipped` if it is no image of a cine."""
    if is_phase(header):
        raise Skipped("of phase or of real or imaginary part")
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        if keyword in header.bad:
            raise Skipped(f"whose {keyword} is not a number")
    times = {key: header.number(key) for key in (*TIME_KEYS, *ORDER_KEYS)}
    if n_in_file > 1:
        times["InstanceNumber"] = (times["InstanceNumber"] or 0) + index / n_in_file
        if frame_time := header.number("FrameTime"):
            times["TriggerTime"] = index * frame_time
    direction = re.sub("^COLUMN$", "COL", header.text("InPlanePhaseEncodingDirection"))
    return Frame(
        file,
        index,
        n_in_file,
        f"{header.text('SOPInstanceUID') or file}/{index}",
        header.text("StudyInstanceUID"),
        header.text("SeriesInstanceUID"),
        int(header.number("SeriesNumber") or 0),
        header.text("SeriesDescription"),
        header.text("PatientID") or header.text("PatientName"),
        (int(header.number("Rows") or 0), int(header.number("Columns") or 0)),
        header.text("EchoNumbers"),
        directions_of(header),
        header.numbers("ImagePositionPatient", 3),
        header.number("SliceLocation"),
        times,
        {key: header.text(key) for key in SET_KEYS},
        1.0 if slope is None else slope,
        0.0 if intercept is None else intercept,
        direction if direction in ("ROW", "COL") else "",
        header.numbers("PixelSpacing", 2),
        lines_of(header),
        header.number("PercentPhaseFieldOfView"),
        made_from_others(header),
        frozenset(header.bad),
    )
