"""Writing reconstructions as DICOM: copies of the input's files with new pixels and UIDs, a new
series, "DERIVED", and the patient, study and geometry of the input.

An enhanced file becomes one enhanced file again, with the frames that were reconstructed. Files are
written with explicit types and little-endian, whatever those of the input.
"""

import io
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from formats.dicom_headers import DERIVED, Frame
from formats.dicom_slices import Slice
from formats.dicom_values import Header, read_dataset
from formats.series import damage_explained, optional

LARGEST = 2**16 - 1  # of a stored pixel
SERIES_STEP = 1000  # added to the number of the series
REMOVED = (
    "SmallestImagePixelValue", "LargestImagePixelValue", "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "ModalityLUTSequence", "VOILUTSequence", "IconImageSequence", "DigitalSignaturesSequence",
    "PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)  # fmt: skip
OVERLAYS = range(0x6000, 0x6100)  # groups
SCALING = "PixelValueTransformationSequence"
Part = tuple[Frame, tuple, np.ndarray]  # an image, its series, and new pixels (rows, columns)


def dicom_files(
    slices: Sequence[Slice],
    taken: Mapping[str, Sequence[Frame]],
    reconstructions: Mapping[str, np.ndarray],
) -> dict[str, bytes]:
    """The files of new DICOM series, by name, with the magnitude of the reconstructions.

    `taken`: the images of each series, by its name, in the order of its frames.
    """
    pydicom = optional("pydicom")
    peak = max(float(np.abs(images).max()) for images in reconstructions.values())
    slope = f"{(peak or 1.0) / LARGEST:.9e}"  # at most 16 characters
    parts: dict[Path, list[Part]] = defaultdict(list)
    names: dict[Path, str] = {}
    for of_slice in slices:
        if of_slice.name not in reconstructions:
            continue
        images = np.abs(reconstructions[of_slice.name])
        images = images.transpose(0, 2, 1) if of_slice.is_turned else images
        stored = np.clip(np.rint(images / float(slope)), 0, LARGEST).astype("<u2")
        frames = taken.get(of_slice.name, of_slice.frames)
        for i, (frame, pixels) in enumerate(zip(frames, stored, strict=True), start=1):
            parts[frame.file].append((frame, of_slice.first.in_series, pixels))
            names.setdefault(frame.file, f"dicom/{of_slice.name}/{i:04d}.dcm")
    uids: dict[tuple, str] = {}
    files = {}
    for file, of_file in parts.items():
        with warnings.catch_warnings(), damage_explained(file):
            warnings.simplefilter("ignore")
            files[names[file]] = derived(pydicom, file, of_file, slope, uids)
    return files


def derived(
    pydicom: Any, source: Path, parts: Sequence[Part], slope: str, uids: dict[tuple, str]
) -> bytes:
    """A derived DICOM file: the header of `source` with other pixels.

    `uids`: of new series by the series that they come from; added to.
    """
    dataset = native(pydicom, read_dataset(pydicom, source))
    original = pydicom.Dataset()
    original.ReferencedSOPClassUID = dataset.SOPClassUID
    original.ReferencedSOPInstanceUID = dataset.get("SOPInstanceUID", "")
    header = Header([dataset])
    kind = header.texts("ImageType")[2:]
    uid = pydicom.uid.generate_uid
    dataset.SeriesInstanceUID = uids.setdefault(parts[0][1], uid())
    dataset.SOPInstanceUID = uid()
    dataset.SeriesNumber = int(header.number("SeriesNumber") or 0) + SERIES_STEP
    dataset.SeriesDescription = "Cine reconstruction"
    dataset.ImageType = ["DERIVED", "SECONDARY", *kind]
    dataset.DerivationDescription = DERIVED
    dataset.SourceImageSequence = [original]
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    scaled = dataset
    if "PerFrameFunctionalGroupsSequence" in dataset:
        scaled = keep_frames(pydicom, dataset, [frame.index for frame, *_ in parts])
    scaled.RescaleSlope, scaled.RescaleIntercept, scaled.RescaleType = slope, "0", "US"
    if parts[0][0].n_in_file > 1:
        dataset.NumberOfFrames = len(parts)
    pixels = np.stack([pixels for *_, pixels in parts])
    dataset.add_new("PixelData", "OW", pixels.tobytes())
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def native(pydicom: Any, dataset: Any) -> Any:
    """The values of a dataset that can be read, in this machine's order of bytes, without private
    ones, overlays, pixels, and what does not fit other pixels."""
    copy = pydicom.Dataset()
    is_big = getattr(dataset, "original_encoding", (False, True))[1] is False
    for tag in list(dataset.keys()):
        if tag.is_private or tag.group in OVERLAYS:
            continue
        try:
            element = dataset[tag]
            if element.keyword in REMOVED:
                continue
            if element.VR == "SQ":
                items = [native(pydicom, item) for item in element.value]
                element = pydicom.DataElement(tag, "SQ", pydicom.Sequence(items))
            elif is_big and element.VR == "OW":
                element.value = np.frombuffer(element.value, ">u2").astype("<u2").tobytes()
            pydicom.filewriter.write_data_element(scratch(pydicom), element)
            copy[tag] = element
        except Exception:  # a value that cannot be read or written is left out
            continue
    return copy


def scratch(pydicom: Any) -> Any:
    """A buffer to try whether an element can be written."""
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    return buffer


def keep_frames(pydicom: Any, dataset: Any, indices: Sequence[int]) -> Any:
    """Keep the functional groups of some frames, in this order; returns the item of the shared ones
    that is to hold the scaling."""
    own = dataset.PerFrameFunctionalGroupsSequence
    dataset.PerFrameFunctionalGroupsSequence = [own[i] for i in indices]
    if not dataset.get("SharedFunctionalGroupsSequence"):
        dataset.SharedFunctionalGroupsSequence = [pydicom.Dataset()]
    for item in (
        *dataset.PerFrameFunctionalGroupsSequence,
        *dataset.SharedFunctionalGroupsSequence,
    ):
        if SCALING in item:
            delattr(item, SCALING)
        for types in item.get("MRImageFrameTypeSequence") or []:
            types.FrameType = ["DERIVED", "SECONDARY", *Header([types]).texts("FrameType")[2:]]
    scaled = pydicom.Dataset()
    setattr(dataset.SharedFunctionalGroupsSequence[0], SCALING, [scaled])
    return scaled
