"""Files of every format, each written with the library of that format."""

import h5py
import ismrmrd
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


def save_mat73(path, **arrays):
    """As MATLAB does: axes reversed, complex values as records, a header before HDF5's."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            stored = array.T
            if array.dtype.kind == "c":
                stored = np.empty(array.T.shape, [("real", "f4"), ("imag", "f4")])
                stored["real"], stored["imag"] = array.T.real, array.T.imag
            file[name] = stored
            file[name].attrs["MATLAB_class"] = np.bytes_("single")
        file.create_group("#refs#")["a"] = np.zeros((3, 4, 5))
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")


FOV = "<fieldOfView_mm><x>{x}</x><y>300</y><z>8</z></fieldOfView_mm>"
RAW_HEADER = f"""<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<subjectInformation><patientName>Doe^Jane</patientName></subjectInformation>
<experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz>
</experimentalConditions><encoding>
<encodedSpace><matrixSize><x>{{nx}}</x><y>{{ny}}</y><z>1</z></matrixSize>{FOV.format(x="{wide}")}</encodedSpace>
<reconSpace><matrixSize><x>{{shown}}</x><y>{{ny}}</y><z>1</z></matrixSize>{FOV.format(x=300)}</reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{{last}}</maximum>
<center>{{centre}}</center></kspace_encoding_step_1></encodingLimits>
<trajectory>{{trajectory}}</trajectory></encoding></ismrmrdHeader>"""


def save_ismrmrd(path, kspace, oversampling=1, trajectory="cartesian", noise=None):
    """Raw data: k-space (S, T, C, Y, X) without the lines that are zero, and a scan of noise."""
    n_coils, ny, nx = kspace.shape[2:]
    noise = np.ones((n_coils, 20), np.complex64) if noise is None else noise
    header = RAW_HEADER.format(
        nx=nx,
        ny=ny,
        shown=nx // oversampling,
        wide=300 * oversampling,
        last=ny - 1,
        centre=ny // 2,
        trajectory=trajectory,
    )
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=True) as file:
        file.write_xml_header(header.encode())
        scan = ismrmrd.Acquisition.from_array(noise)
        scan.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        file.append_acquisition(scan)
        # as measured: line by line, of every slice and frame
        for y, s, t in np.argwhere(np.moveaxis(kspace.any(axis=(2, 4)), 2, 0)).tolist():
            samples = np.ascontiguousarray(kspace[s, t, :, y], np.complex64)
            line = ismrmrd.Acquisition.from_array(samples)
            line.center_sample = nx // 2
            line.idx.slice, line.idx.phase, line.idx.kspace_encode_step_1 = s, t, y
            file.append_acquisition(line)
