"""MATLAB's `.mat` files: version 5 by scipy, version 7.3, which is HDF5, by h5py.

Axes are those that MATLAB shows, (y, x, t) or (y, x, s, t) unless they look otherwise. What is
written is version 5, which every MATLAB reads.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.stored import require_memory
from formats.arrays import MEMORY_REMEDY, OWN_NAME, ChosenArray, scan_of_arrays
from formats.axes import from_frames
from formats.hdf5 import MATLAB
from formats.series import Scan, damage_explained, in_order, optional
from formats.variables import Variable
from util.errors import InputError

HEADER, TAG = 128, 8  # bytes of the header of the file, and of a variable
COMPRESSED, CHUNK = 15, 4096  # the type of a variable, and bytes that hold its own tag
LARGEST = 2**31  # bytes of a variable of version 5


def read_mat5(path: Path, axes: str | None, mask: Variable | None = None) -> Scan:
    """The scan in a `.mat` file of version 5 or 4; `mask`: to use instead of its own.

    Raises:
        InputError: scipy is not installed, the file is damaged, or no array can be used.
    """
    scan, choice = scan_of_arrays(path, MATLAB, mat5_variables(path), axes, mask)
    scan.write = mat_writer(scan, choice)
    return scan


def mat5_variables(path: Path) -> list[Variable]:
    """The arrays of a `.mat` file of version 5, also those in structs and cells: "name/field" and
    "name{1}". The file is read whole.

    Raises:
        InputError: scipy is not installed, the file is damaged, or larger than the memory.
    """
    scipy_io = optional("scipy.io", "scipy")
    with damage_explained(path):
        n_bytes = sum(sizes_in(path))
        require_memory(2 * n_bytes, f"{path} has {n_bytes / 1e9:.1f} GB", MEMORY_REMEDY)
        contents = scipy_io.loadmat(path)
    return [
        Variable(name, array.shape, array.dtype, array.__getitem__)
        for key, value in contents.items()
        for name, array in arrays_in(key, value)
    ]


def sizes_in(path: Path) -> Iterator[int]:
    """The bytes of each variable of a `.mat` file of version 5, unpacked: of a compressed one,
    those that its first bytes claim, more than which are not read."""
    with path.open("rb") as file:
        header = file.read(HEADER)
        order = "<" if header.endswith(b"IM") else ">"
        while len(tag := file.read(TAG)) == TAG:
            kind, n_bytes = struct.unpack(f"{order}II", tag)
            start = file.tell()
            if kind == COMPRESSED:
                unpacked = zlib.decompressobj().decompress(file.read(CHUNK), TAG)
                yield struct.unpack(f"{order}II", unpacked)[1]
            else:
                yield n_bytes
            file.seek(start + n_bytes)


def arrays_in(name: str, value: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of numbers in a variable, by name: itself, or those in a struct or a cell."""
    if not isinstance(value, np.ndarray):
        return
    if value.dtype.names is None and value.dtype != object:
        if value.dtype.kind in "biufc":
            yield name, value
        return
    for i, item in enumerate(value.ravel(order="F"), 1):
        brackets = "({})" if value.dtype.names else "{{{}}}"
        place = name + (brackets.format(i) if value.size > 1 or not value.dtype.names else "")
        if value.dtype.names is None:
            yield from arrays_in(place, item)
        for field in value.dtype.names or ():
            yield from arrays_in(f"{place}/{field}", item[field])


def mat_writer(scan: Scan, choice: ChosenArray):
    """What makes a `.mat` file of reconstructions, in the order of axes of the scan's array."""
    return partial(mat_file, scan.path.stem, tuple(scan.names), choice.axes, scan.left_out)


def mat_file(
    stem: str,
    names: tuple[str, ...],
    axes: str,
    left_out: Mapping[str, Sequence[int]],
    reconstructions: Mapping[str, np.ndarray],
) -> dict[str, bytes]:
    """The content of a `.mat` file by its name; frames that were left out are zero."""
    images = from_frames(in_order(names, reconstructions, left_out), axes)
    return {f"{stem}_reconstruction.mat": mat_content({OWN_NAME: images})}


def mat_content(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The content of a `.mat` file of arrays.

    Raises:
        InputError: scipy is not installed, or an array is too large.
    """
    for name, array in arrays.items():
        if array.nbytes >= LARGEST:
            raise InputError(
                f"the {name} has {array.nbytes / 1e9:.1f} GB, and a variable of a .mat file at most"
                " 2 GB: use the .npz file"
            )
    file = io.BytesIO()
    optional("scipy.io", "scipy").savemat(file, dict(arrays), do_compression=True)
    return file.getvalue()
