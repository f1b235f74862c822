"""Writing reconstructions in the format that their scan was read from."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from formats.series import Scan
from util.errors import InputError
from util.files import not_written, write_bytes

PRIVATE = 0o700  # of folders whose files name a patient: for the user alone


def write_like(scan: Scan, reconstructions: Mapping[str, np.ndarray], folder: Path) -> list[str]:
    """Write reconstructions as files of the scan's own format.

    NIfTI: one file with the input's shape and affine. DICOM: new series in `dicom/`, with new UIDs
    and "DERIVED". MATLAB: `reconstruction` in a `.mat` file, with the input's order of axes. Other
    formats have none. Series that are missing are zero, in DICOM left out.

    Args:
        reconstructions: (T, Y, X) images by the name of their series, in the scale of the input.
        folder: made if it is not there.

    Returns:
        the names of the files, relative to `folder`; a folder of DICOM files is one name.

    Raises:
        InputError: they could not be written, and nothing is left half-written; or a file with
            this name is there.
    """
    if scan.write is None or not reconstructions:
        return []
    files = scan.write(reconstructions)
    names = sorted({Path(name).parts[0] for name in files})
    for name in names:
        if (folder / name).exists():
            raise InputError(f"{folder / name} exists and is not overwritten: name a new folder")
    made = []
    try:
        for name, content in files.items():
            first, *rest = Path(name).parts
            path = folder / (f"{first}.{os.getpid()}.tmp" if rest else first)
            made += [] if path in made else [path]
            if rest:
                path = path.joinpath(*rest)
                path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, content)
        for path in made:
            if path.is_dir():
                path.chmod(PRIVATE)
                path.rename(folder / path.name.removesuffix(f".{os.getpid()}.tmp"))
    except BaseException as error:
        for path in made:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(True)
        if isinstance(error, OSError):
            raise InputError(not_written(folder, error)) from None
        raise
    return names
