"""Files of every format, each written with the library of that format."""

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

SLOPE, INTERCEPT = 0.5, 0.0


def fft2c(images):
    """Centred orthonormal transform over the last two axes, as numpy does it."""
    shifted = np.fft.ifftshift(images, axes=(-2, -1))
    return np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=(-2, -1))


def with_phase(images):
    """Complex images with a smooth phase."""
    ny, nx = images.shape[-2:]
    y, x = np.mgrid[:ny, :nx]
    return (images * np.exp(1j * (0.5 + y / ny - x / nx))).astype(np.complex64)


def write_dicom(path, pixels, **tags):
    """A classic MR image of `pixels` (rows, columns) uint16, stored with slope 0.5."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID = MRImageStorage
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    image.Modality, image.PatientID, image.PatientName = "MR", "4711", "Doe^Jane"
    image.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    image.SeriesNumber = 7
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.ImagePositionPatient = [0, 0, 0]
    image.PixelSpacing = [1.4, 1.4]
    image.InPlanePhaseEncodingDirection = "COL"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    image.RescaleSlope, image.RescaleIntercept = SLOPE, INTERCEPT
    image.Rows, image.Columns = pixels.shape
    image.PixelData = pixels.astype("<u2").tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(image, name)
        else:
            setattr(image, name, value)
    image.save_as(path, enforce_file_format=True)


def write_dicom_folder(folder, slices, **tags):
    """Slices (S, T, Y, X) uint16, a file a frame, in shuffled order of names and numbers."""
    folder.mkdir()
    n_slices, n_frames = slices.shape[:2]
    order = np.random.default_rng(0).permutation(n_slices * n_frames)
    for number, place in enumerate(order):
        s, t = divmod(int(place), n_frames)
        write_dicom(
            folder / f"IM{number:04d}",
            slices[s, t],
            **{
                "ImagePositionPatient": [0, 0, 8.0 * s],
                "TriggerTime": 40.0 * t,
                "InstanceNumber": int(number) + 1,
            }
            | tags,
        )


def dicom_of(path):
    return pydicom.dcmread(path)
