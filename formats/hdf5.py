"""HDF5 files: MATLAB's v7.3, those with fastMRI's keys, and others.

MATLAB stores its axes in reverse; here they are as MATLAB shows them. The k-space of CMRxRecon is
(x, y, c, s, t), of single coils (x, y, s, t), of one slice (x, y, c, t). fastMRI's k-space is
(t, c, x, y) here, of single coils (t, x, y): its first axis is time, unless its header counts
slices. The values have to agree (`formats/meaning.py`). Layouts:

- C. Wang et al., "CMRxRecon: a publicly available k-space dataset and benchmark to advance deep
  learning for cardiac MRI", Sci Data 11:687, 2024, and https://cmrxrecon.github.io/2025/Data.html
- J. Zbontar et al., "fastMRI: an open dataset and benchmarks for accelerated MRI",
  arXiv:1811.08839, 2018.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.stored import UnchangedFile, require_memory
from formats.arrays import MEMORY_REMEDY, ChosenArray, FileLayout, scan_of_arrays
from formats.ismrmrd import number, parse_header
from formats.series import Scan, damage_explained, optional
from formats.variables import Variable, last_part

MATLAB_CLASS = "MATLAB_class"  # an attribute of every variable of MATLAB
MATLAB_EMPTY = "MATLAB_empty"  # an attribute of those whose values are the lengths of no axes
MOST_ITEMS = 1000  # of a cell
MATLAB_GROUPS = ("#refs#", "#subsystem#")  # contents of cells and objects
FASTMRI_KEYS = ("ismrmrd_header", "reconstruction_rss", "reconstruction_esc")
CMRXRECON = {5: "xycst", 4: "xyst"}
CMRXRECON_NAMES = ("kspace", "kus")  # and those that begin with kspace_
FASTMRI = {4: "tcxy", 3: "txy"}
MATLAB_ORDERS = ("yxt", "yxst", "xyt", "xyst")


def cmrxrecon_axes(variable: Variable, is_kspace: bool) -> str | None:
    """The order of k-space in a MATLAB file; None: unknown."""
    name = last_part(variable.name)
    if is_kspace and (name in CMRXRECON_NAMES or name.startswith("kspace_")):
        return CMRXRECON.get(len(variable.shape))
    return None


MATLAB = FileLayout("MATLAB file", MATLAB_ORDERS, cmrxrecon_axes, is_convention=True)


def read_hdf5(
    path: Path, axes: str | None, mask: Variable | None = None
) -> tuple[Scan, ChosenArray, bool]:
    """The scan in an HDF5 file, its array, and whether MATLAB wrote it; `mask`: to use instead of
    its own.

    Raises:
        InputError: h5py is not installed, the file is damaged, or no array can be used.
    """
    variables, form = hdf5_variables(path)
    return *scan_of_arrays(path, form, variables, axes, mask), form is MATLAB


def hdf5_variables(path: Path) -> tuple[list[Variable], FileLayout]:
    """The arrays of an HDF5 file, and what its layout says about them.

    Raises:
        InputError: h5py is not installed, or the file is damaged.
    """
    h5py = optional("h5py")
    datasets: dict[str, Any] = {}  # their place, shape and dtype
    is_matlab = False
    with damage_explained(path), h5py.File(path, "r") as file:

        def note(name: str, item: Any) -> None:
            nonlocal is_matlab
            is_array = isinstance(item, h5py.Dataset) and item.shape is not None
            if not is_array or name.split("/")[0] in MATLAB_GROUPS:
                return
            is_matlab |= MATLAB_CLASS in item.attrs
            if MATLAB_EMPTY in item.attrs or item.attrs.get(MATLAB_CLASS) == b"char":
                return
            items = cell_items(h5py, name, item)
            datasets.update({key: (it.name, it.shape, it.dtype) for key, it in items.items()})

        file.visititems(note)
        header = file["ismrmrd_header"][()] if "ismrmrd_header" in datasets else None
        is_fastmri = not is_matlab and any(key in datasets for key in FASTMRI_KEYS)
    variables = [
        hdf5_variable(h5py, path, name, place, shape, dtype, is_matlab)
        for name, (place, shape, dtype) in datasets.items()
    ]
    if is_matlab:
        form = MATLAB
    elif is_fastmri:
        known = partial(fastmri_axes, n_slices_in(header, path))
        form = FileLayout("fastMRI file", (), known, is_convention=True)
    else:
        form = FileLayout("HDF5 file", ("tyx", "styx"), lambda variable, is_kspace: None)
    return variables, form


def cell_items(h5py: Any, name: str, item: Any) -> dict[str, Any]:
    """The arrays in a cell of MATLAB, which are references, as "name{1}"; of others, the array."""
    if h5py.check_ref_dtype(item.dtype) is None:
        return {name: item}
    found = [item.file[ref] for ref in np.ravel(item[()])[:MOST_ITEMS] if ref]
    arrays = [
        x for x in found if isinstance(x, h5py.Dataset) and h5py.check_ref_dtype(x.dtype) is None
    ]
    return {f"{name}{{{i}}}": array for i, array in enumerate(arrays, 1) if array.shape is not None}


def n_slices_in(header: Any, path: Path) -> int:
    """The slices that fastMRI's header counts; 1 if there is no header."""
    limit = "encoding/encodingLimits/slice/maximum"
    return 1 if header is None else number(parse_header(header, path), limit, 0) + 1


def fastmri_axes(n_slices: int, variable: Variable, is_kspace: bool) -> str | None:
    """The order of an array of a fastMRI file of `n_slices` slices; None: unknown."""
    order = FASTMRI.get(len(variable.shape))
    if order is not None and variable.shape[0] == n_slices > 1:
        return order.replace("t", "s")
    return order


def hdf5_variable(
    h5py: Any,
    path: Path,
    name: str,
    place: str,
    shape: Sequence[int],
    dtype: np.dtype,
    reverse: bool,
) -> Variable:
    """The array at a place of a file, read when asked for; with `reverse` its axes are reversed."""

    def take(part: tuple[slice, ...]) -> np.ndarray:
        with damage_explained(path), h5py.File(path, "r") as file:
            array = file[place][part[::-1] if reverse else part]
        return array.transpose() if reverse else array

    return Variable(name, tuple(shape[::-1] if reverse else shape), dtype, take)


class HDF5Array:
    """A numeric array of an HDF5 file, like a `Stored`: its items are read when asked for."""

    is_fortran, can_be_mapped = False, True

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype):
        self.path, self.name, self.shape, self.dtype = path, name, shape, dtype
        self.where = f"'{name}' in {path}"
        self.n_bytes = math.prod(shape) * dtype.itemsize
        self.file = UnchangedFile(path)

    def __str__(self) -> str:
        return f"{self.where} is {self.shape} {self.dtype}"

    def whole(self) -> np.ndarray:
        """The array.

        Raises:
            InputError: it is larger than the memory.
        """
        require_memory(self.n_bytes, self, MEMORY_REMEDY)
        return self._read(())

    def mapped(self, i: int) -> np.ndarray:
        """The i-th item."""
        self.file.check()
        return self._read(i)

    def samples(self, n: int) -> Iterator[np.ndarray]:
        """The first n items, one at a time."""
        return (self._read(i) for i in range(n))

    def _read(self, part: Any) -> np.ndarray:
        h5py = optional("h5py")
        with damage_explained(self.path), h5py.File(self.path, "r") as file:
            array = file[self.name]
            if h5py.check_string_dtype(array.dtype) is not None:
                return np.asarray(array.asstr()[part], dtype=str)
            return np.asarray(array[part])


def hdf5_arrays(path: Path) -> dict[str, HDF5Array]:
    """The arrays of numbers or names at the top of an HDF5 file.

    Raises:
        InputError: h5py is not installed, or the file is damaged.
    """
    h5py = optional("h5py")
    with damage_explained(path), h5py.File(path, "r") as file:
        return {
            name: HDF5Array(path, name, item.shape, item.dtype)
            for name, item in file.items()
            if isinstance(item, h5py.Dataset) and item.shape is not None
        }
