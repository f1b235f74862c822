"""The arrays in a file of another program, and which of them is the cine, by its name.

Known names come first; the last part of a name counts, in any case. An array of another name is
taken if it is the only one of three axes or more. Integers and floats become float32 without
scaling; fields of real and imaginary part, or a last axis of both, become complex.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util.errors import InputError

KSPACE_NAMES = ("kspace", "kspace_full", "kspace_single_full", "kus", "kdata", "ksp", "k_space")
KSPACE_BEGINNINGS = ("kspace_", "kdata_", "ksp_")
CINE_NAME, CINE_ORDER = "dataset", "styx"  # of a training file
IMAGE_NAMES = (
    CINE_NAME, "images", "image", "img", "cine", "target", "reconstruction_esc",
    "reconstruction_rss", "img4ranking",
)  # fmt: skip
MASK_NAMES = ("mask", "us_mask", "usmask", "sampling_mask", "acquisition_mask", "masks")
MASK_WORD = re.compile("mask(?!ed)")  # in the names of others, which are masks if they fit
CELL = re.compile(r"[({]\d+[)}]$")  # the number of an item of a cell or struct array
MAP_NAMES = (
    "sensitivity_maps", "sensitivities", "sens_maps", "sens", "coil_maps", "coilmap", "coilmaps",
    "csm", "smaps", "maps",
)  # fmt: skip
GROUPS_NAME = "groups"
NOISE_NAME = "noise"  # a scan of the coils' noise


@dataclass(frozen=True)
class Variable:
    """An array in a file."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    take: Callable[[tuple[slice, ...]], np.ndarray]  # a part of it
    along_first: Callable[[], Iterator[np.ndarray]] | None = None  # its items, with less memory

    def items(self, axis: int) -> Iterator[np.ndarray]:
        """The items of an axis, in turn."""
        if axis == 0 and self.along_first is not None:
            yield from self.along_first()
            return
        whole = tuple(slice(0, n) for n in self.shape)
        for i in range(self.shape[axis]):
            part = self.take((*whole[:axis], slice(i, i + 1), *whole[axis + 1 :]))
            yield part.reshape(*self.shape[:axis], *self.shape[axis + 1 :])

    def whole(self) -> np.ndarray:
        """The array."""
        return self.take(tuple(slice(0, n) for n in self.shape))


def last_part(name: str) -> str:
    """The name without its groups and without the number of an item, in lower case."""
    return CELL.sub("", name).rpartition("/")[2].lower()


def is_kspace_name(name: str) -> bool:
    """Whether a name is known for k-space."""
    return last_part(name) in KSPACE_NAMES or last_part(name).startswith(KSPACE_BEGINNINGS)


def is_mask_name(name: str) -> bool:
    """Whether a name can be that of a mask."""
    return MASK_WORD.search(last_part(name)) is not None


def can_be_kspace(variable: Variable) -> bool:
    """Whether an array has a name of k-space; if the name only begins so, complex values of three
    axes or more, too."""
    if last_part(variable.name) in KSPACE_NAMES:
        return True
    is_complex = variable.dtype.kind == "c" or is_pair(variable.dtype) or has_pairs(variable)
    return is_kspace_name(variable.name) and is_complex and n_long_axes(variable) > 2


def n_long_axes(variable: Variable) -> int:
    """The number of axes longer than 1."""
    return sum(n > 1 for n in variable.shape)


def choose(variables: Sequence[Variable], path: Path) -> tuple[Variable, list[str]]:
    """The cine among the arrays of a file, and notes.

    Raises:
        InputError: none of them can be it, or several.
    """
    others = [
        v
        for v in variables
        if (v.dtype.kind in "biufc" or is_pair(v.dtype))
        and last_part(v.name) not in (*MAP_NAMES, GROUPS_NAME, NOISE_NAME)
        and (can_be_kspace(v) or not is_mask_name(v.name))
    ]
    cines = [v for v in others if n_long_axes(v) > 2]
    for names in (*KSPACE_NAMES, None, *IMAGE_NAMES):  # None: names that begin like k-space
        found = [v for v in others if last_part(v.name) == names]
        if names is None:
            found = [v for v in others if can_be_kspace(v)]
        found = [v for v in found if v in cines] or found
        if len(found) == 1:
            left = ", ".join(repr(v.name) for v in cines if v is not found[0])
            return found[0], [f"{found[0].name!r} is read, and not {left}"] if left else []
        if found:
            break
    else:
        found = cines or ([v for v in others if len(v.shape) == 2] if len(others) == 1 else [])
        if len(found) == 1:
            return found[0], [f"no array has a known name; {found[0].name!r} alone can be a cine"]
    listed = ", ".join(f"{v.name!r} {v.shape}" for v in variables) or "none"
    problem = "several arrays could be the cine" if found else "no array can be a cine"
    raise InputError(
        f"{path}: {problem}, its arrays are {listed}; expected one under a known name: call it"
        " 'dataset' for images or 'kspace' for k-space"
    )


def is_pair(dtype: np.dtype) -> bool:
    """Whether values are records of a real and an imaginary part."""
    return dtype.names is not None and len(dtype.names) == 2 and dtype.names[0].lower()[0] == "r"


def as_numbers(array: np.ndarray) -> np.ndarray:
    """The values as float32 or complex64, copied."""
    if array.dtype.names:
        real, imaginary = array.dtype.names
        joined = np.empty(array.shape, np.complex64)
        joined.real, joined.imag = array[real], array[imaginary]
        return joined
    return array.astype(np.complex64 if array.dtype.kind == "c" else np.float32)


def complex_variable(variable: Variable) -> Variable:
    """The variable with its last axis, of real and imaginary part, as complex values."""

    def take(part: tuple[slice, ...]) -> np.ndarray:
        pair = as_numbers(variable.take((*part, slice(0, 2))))
        return pair[..., 0] + 1j * pair[..., 1]

    return Variable(variable.name, variable.shape[:-1], np.dtype(np.complex64), take)


def has_pairs(variable: Variable) -> bool:
    """Whether the last axis of real values can be the real and the imaginary part."""
    is_real = variable.dtype.kind in "biuf"
    enough = 4 if is_kspace_name(variable.name) else 5
    return is_real and variable.shape[-1:] == (2,) and len(variable.shape) >= enough
