"""MATLAB's `.mat` files: version 5 by scipy, version 7.3, which is HDF5, by h5py.

Axes are those that MATLAB shows, (y, x, t) or (y, x, s, t) unless they look otherwise. What is
written is version 5, which every MATLAB reads.
"""

import io
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from data.stored import require_memory
from formats.arrays import MEMORY_REMEDY, ChosenArray, Variable, scan_of_arrays
from formats.axes import from_frames
from formats.hdf5 import MATLAB
from formats.series import Scan, damage_explained, in_order, optional
from util.errors import InputError

BYTES = {"double": 8, "single": 4, "logical": 1}  # of a real value of MATLAB's classes
KEY = "reconstruction"  # of what is written
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
    """The arrays of a `.mat` file of version 5 or 4, which is read whole.

    Raises:
        InputError: scipy is not installed, or the file is damaged.
    """
    scipy_io = optional("scipy.io", "scipy")
    with damage_explained(path):
        sizes = {
            name: math.prod(shape) * BYTES.get(kind, 8)
            for name, shape, kind in scipy_io.whosmat(path)
            if kind in BYTES or kind.startswith(("int", "uint"))
        }
        require_memory(2 * sum(sizes.values()), f"{path} has {len(sizes)} arrays", MEMORY_REMEDY)
        arrays = scipy_io.loadmat(path, variable_names=list(sizes)) if sizes else {}
    return [
        Variable(name, arrays[name].shape, arrays[name].dtype, arrays[name].__getitem__)
        for name in sizes
    ]


def mat_writer(scan: Scan, choice: ChosenArray):
    """What makes a `.mat` file of reconstructions, in the order of axes of the scan's array."""
    return partial(mat_file, scan.path.stem, tuple(scan.names), choice.axes)


def mat_file(
    stem: str, names: tuple[str, ...], axes: str, reconstructions: Mapping[str, np.ndarray]
) -> dict[str, bytes]:
    """The content of a `.mat` file by its name."""
    images = from_frames(in_order(names, reconstructions), axes)
    if images.nbytes >= LARGEST:
        raise InputError(
            f"the reconstruction has {images.nbytes / 1e9:.1f} GB, and a variable of a .mat file at"
            " most 2 GB: use the .npz file"
        )
    file = io.BytesIO()
    optional("scipy.io", "scipy").savemat(file, {KEY: images}, do_compression=True)
    return {f"{stem}_reconstruction.mat": file.getvalue()}
