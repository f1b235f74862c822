"""`.npz` and `.npy` files. `dataset` has the axes of a training file, (s, t, y, x); other axes are
guessed. `groups` are the patients of the samples. Nothing is unpickled."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from data.stored import MAGIC, Stored, stored_in
from formats.arrays import FileLayout, scan_of_arrays
from formats.series import Scan
from formats.variables import (
    CINE_NAME,
    CINE_ORDER,
    IMAGE_NAMES,
    MASK_NAMES,
    Variable,
    is_kspace_name,
)
from util.errors import InputError

EXPECTED = "expected an array of images or k-space"
ALONE = "array"  # the name of the array of an .npy file


def cine_axes(variable: Variable, is_kspace: bool) -> str | None:
    """The axes of the array of a training file; None for others, and if its last axis is much the
    shortest, as if it were the frames."""
    if is_kspace and len(variable.shape) == 5:
        return "stcyx"  # as of a training file of several coils
    if variable.name != CINE_NAME or len(variable.shape) != 4:
        return None
    _, n_frames, ny, nx = variable.shape
    return None if 2 * nx <= min(n_frames, ny) else CINE_ORDER


FORM = FileLayout("NumPy file", ("tyx", "styx"), cine_axes, one_patient=False, is_convention=True)


def read_numpy(path: Path, axes: str | None, mask: Variable | None = None) -> Scan:
    """The scan in an .npz or .npy file; `mask`: to use instead of its own.

    Raises:
        InputError: the file is damaged, or no array can be used.
    """
    return scan_of_arrays(path, FORM, numpy_variables(path), axes, mask)[0]


def numpy_variables(path: Path) -> list[Variable]:
    """The arrays of an .npz or .npy file.

    Raises:
        InputError: one that could be the cine is damaged, or all are.
    """
    variables = []
    with arrays_of(path) as arrays:
        refused: dict[str, InputError] = {}
        for name, opened in arrays.items():
            try:
                variables.append(variable_of(path, name, opened()))
            except InputError as error:
                refused[name] = error
    for name, problem in refused.items():
        if not variables or name in IMAGE_NAMES or is_kspace_name(name) or name in MASK_NAMES:
            raise problem
    return variables


@contextlib.contextmanager
def arrays_of(path: Path) -> Iterator[dict[str, Callable[[], Stored]]]:
    """The arrays of a file by name, while it is open."""
    with path.open("rb") as file:
        is_npy = file.read(len(MAGIC)) == MAGIC
        file.seek(0)
        if is_npy:
            size = path.stat().st_size
            yield {ALONE: lambda: Stored(lambda: path.open("rb"), size, str(path), EXPECTED)}
        else:
            yield stored_in(file, path, EXPECTED)


def variable_of(path: Path, name: str, stored: Stored) -> Variable:
    """An array of a file, read when asked for."""

    def take(part: tuple[slice, ...]) -> np.ndarray:
        with arrays_of(path) as arrays:
            array = arrays[name]()
            is_whole = all(p == slice(0, n) for p, n in zip(part, array.shape, strict=True))
            if is_whole or array.is_fortran:
                return array.whole()[part]
            first, end = part[0].start, part[0].stop
            items = enumerate(array.samples(end))
            return np.stack([item[part[1:]].copy() for i, item in items if i >= first])

    def along_first() -> Iterator[np.ndarray]:
        with arrays_of(path) as arrays:
            yield from arrays[name]().samples(stored.shape[0])

    return Variable(name, stored.shape, stored.dtype, take, along_first)
