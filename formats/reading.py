"""Reading a scan: which format a file or a folder has, by its content, and its series.

    for series in read_scan(Path("scan.nii.gz")):
        print(series.name, series.values.shape, series.notes)

Formats: `.npz` and `.npy`, MATLAB's `.mat`, HDF5 (fastMRI's and CMRxRecon's layouts), ISMRMRD,
Siemens twix, BART, NIfTI and DICOM. docs/formats.md has their keys and axes.
"""

import contextlib
import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.stored import MAGIC, ZIP_MAGIC
from formats.bart import DATA, bart_data, read_bart
from formats.dicom import read_dicom
from formats.dicom_values import is_dicom
from formats.hdf5 import hdf5_variables, read_hdf5
from formats.ismrmrd import raw_groups, read_ismrmrd
from formats.matlab import mat5_variables, mat_writer, read_mat5
from formats.nifti import GZIP_MAGIC, nifti_magic, read_nifti
from formats.numpy_files import numpy_variables, read_numpy
from formats.series import Scan, damage_explained, optional
from formats.twix import is_twix, read_twix
from formats.variables import Variable, is_mask_name, last_part
from util.errors import InputError

KINDS = (
    "expected an .npz, .npy, .mat, HDF5, ISMRMRD, NIfTI, BART, twix or DICOM file, or a folder of"
    " DICOM files"
)
MASK_KINDS = "expected a mask as .npy, .npz, .mat or HDF5"
NO_MASK = "{path}: a mask is taken only with .npy, .npz, .mat and HDF5 scans: leave --mask out"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
HDF5_STARTS = (0, 512, 1024, 2048)  # where it may stand; MATLAB's header comes before it
MAT5_MAGIC = b"MATLAB 5.0 MAT-file"
BRUKER = ("acqp", "visu_pars")  # files of ParaVision, beside the data of a scan or an image
HEAD = 4096  # bytes that tell the format


def read_scan(path: Path, axes: str | None = None, mask: Path | None = None) -> Scan:
    """Open a scan: iterate over it to read its series one at a time; `len` is their number.

    Args:
        path: a file, or a folder of DICOM files, which may lie in folders below it.
        axes: order of the axes of the array, such as "x y t"; None: as the file says, else a guess,
            which is in the notes.
        mask: a file of named arrays with the measured lines, instead of those in the scan.

    Raises:
        InputError: it cannot be read, is no cine, or has other axes. Iterating raises it, too.
    """
    path = Path(path)
    lines = None if mask is None else read_mask(Path(mask))
    with opened(path, KINDS):
        if path.is_dir():
            if mask is not None:
                raise InputError(NO_MASK.format(path=path))
            files = [file for file in sorted(path.rglob("*")) if file.is_file() and is_dicom(file)]
            if not files:
                refuse_bruker(path, [*BRUKER, *(f"*/{name}" for name in BRUKER)])
                raise InputError(f"{path} is a folder without DICOM files; {KINDS}")
            return read_dicom(path, axes, files)
        return read_file(path, axes, lines)


@contextlib.contextmanager
def opened(path: Path, kinds: str) -> Iterator[None]:
    """Turn what opening a file raises into an InputError; `kinds`: what was expected."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {kinds}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); {kinds}") from None


def read_file(path: Path, axes: str | None, mask: Variable | None = None) -> Scan:
    """The scan in a file."""
    path = bart_data(path) or path
    kind = kind_of(path)
    if kind == "hdf5" and is_ismrmrd(path):
        kind = "ismrmrd"
    if mask is not None and kind in ("dicom", "nifti", "ismrmrd", "bart", "twix"):
        raise InputError(NO_MASK.format(path=path))
    if kind == "numpy":
        return read_numpy(path, axes, mask)
    if kind == "dicom":
        return read_dicom(path, axes, [path])
    if kind == "nifti":
        return read_nifti(path, axes)
    if kind == "ismrmrd":
        return read_ismrmrd(path, axes)
    if kind == "bart":
        return read_bart(path, axes)
    if kind == "twix":
        return read_twix(path, axes)
    if kind == "mat5":
        return read_mat5(path, axes, mask)
    if kind == "hdf5":
        scan, choice, is_matlab = read_hdf5(path, axes, mask)
        scan.write = mat_writer(scan, choice) if is_matlab else None
        return scan
    refuse_bruker(path.parent, BRUKER)
    raise unknown(path)


def refuse_bruker(folder: Path, patterns: Sequence[str]) -> None:
    """Raise InputError if a folder has files of Bruker's ParaVision."""
    if any(next(folder.glob(pattern), None) for pattern in patterns):
        raise InputError(
            f"{folder} is of Bruker's ParaVision, which is not read here; expected a converted"
            " scan: BrkRaw (pip install brkraw) makes NIfTI of its images"
        )


def is_ismrmrd(path: Path) -> bool:
    """Whether an HDF5 file holds raw data of ISMRMRD."""
    h5py = optional("h5py")
    with damage_explained(path), h5py.File(path, "r") as file:
        return bool(raw_groups(file))


def read_mask(path: Path) -> Variable:
    """The mask in a file of its own: the array of a known name, or the only one.

    Raises:
        InputError: it cannot be read, or holds no such array.
    """
    with opened(path, MASK_KINDS):
        kind = kind_of(path)
        if kind == "numpy":
            variables = numpy_variables(path)
        elif kind == "mat5":
            variables = mat5_variables(path)
        elif kind == "hdf5":
            variables, _ = hdf5_variables(path)
        else:
            raise InputError(f"{path} is no file of arrays; {MASK_KINDS}")
    variables = [v for v in variables if v.dtype.kind in "biufc" and math.prod(v.shape) > 1]
    found = [v for v in variables if is_mask_name(v.name)] or variables
    found = [v for v in found if last_part(v.name) == "mask"] or found
    if len(found) != 1:
        listed = ", ".join(f"{v.name!r} {v.shape}" for v in variables) or "none"
        raise InputError(f"{path}: its arrays are {listed}; expected one mask: call it 'mask'")
    return found[0]


def unknown(path: Path) -> InputError:
    """The error that a file is of no known format."""
    with path.open("rb") as file:
        head = file.read(6)
    found = f"is of no known format (it begins with {head!r})" if head else "is empty"
    return InputError(f"{path} {found}; {KINDS}")


def kind_of(path: Path) -> str | None:
    """The format of a file by its first bytes: "numpy", "hdf5", "mat5", "nifti", "twix", "dicom";
    "bart" by its name; None if it is none of them.

    Raises:
        OSError: it cannot be read.
    """
    if path.suffix.lower() == DATA:
        return "bart"
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(GZIP_MAGIC):
        try:
            with gzip.open(path) as file:
                head = file.read(HEAD)
        except (EOFError, zlib.error):
            head = b""
    if head.startswith((MAGIC, ZIP_MAGIC)):
        return "numpy"
    if any(head[start : start + len(HDF5_MAGIC)] == HDF5_MAGIC for start in HDF5_STARTS):
        return "hdf5"
    if head.startswith(MAT5_MAGIC):
        return "mat5"
    if nifti_magic(head):
        return "nifti"
    if is_twix(path):
        return "twix"
    return "dicom" if is_dicom(path) else None
