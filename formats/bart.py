"""BART's `.cfl` and `.hdr`: complex values in Fortran order, and the lengths of 16 dimensions.

The dimensions have fixed meanings: 0 readout, 1 phase encoding, 3 coil, 10 time, 13 slice (or 11,
a second time, where 10 has length 1). Whether the values are k-space or images is not stated, and
is measured. Reconstructions are written in the same dimensions. The meanings: `src/misc/mri.h` in
https://github.com/mrirecon/bart. BART's transforms are centred and, with `-u`, orthonormal, as
here.

M. Uecker et al., "Berkeley Advanced Reconstruction Toolbox", Proc Intl Soc Mag Reson Med 23:2486,
2015.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from formats.arrays import OWN_NAME, FileLayout, scan_of_arrays
from formats.axes import from_frames
from formats.series import Scan, damage_explained, in_order
from formats.variables import Variable
from util.errors import InputError

DATA, HEADER = ".cfl", ".hdr"
HEADER_START = b"# Dimensions"
DIMENSIONS = "xy-c------t--s--"  # the letter of each
TIME, SECOND_TIME = 10, 11
CREATOR = "# Creator\nDynamic cardiac MRI reconstruction"  # at the end of a header of this suite
NAMES = ("READ", "PHS1", "PHS2", "COIL", "MAPS", "TE", "COEFF", "COEFF2", "ITER", "CSHIFT", "TIME",
         "TIME2", "LEVEL", "SLICE", "AVG", "BATCH")  # fmt: skip
TYPE = np.dtype("<c8")


def bart_data(path: Path) -> Path | None:
    """The `.cfl` file that a path means: itself, its header, or the name of both; None: another
    file."""
    is_part = path.suffix.lower() in (DATA, HEADER)
    data = path.with_suffix(DATA) if is_part else path.with_name(path.name + DATA)
    header = data.with_suffix(HEADER)
    if path.suffix.lower() == DATA and not header.is_file():
        return path
    if (not is_part and path.exists()) or not (data.is_file() and header.is_file()):
        return None
    with header.open("rb") as file:
        return data if file.read(len(HEADER_START)) == HEADER_START else None


def read_bart(path: Path, axes: str | None) -> Scan:
    """The scan in a `.cfl` file and its header.

    Raises:
        InputError: the header is missing or damaged, a dimension has no use, or there is no cine.
    """
    variable, known = bart_variable(path, axes is not None)
    form = FileLayout("BART file", (), lambda variable, is_kspace: known)
    scan, choice = scan_of_arrays(path, form, [variable], axes)
    scan.write = partial(bart_files, path.stem, tuple(scan.names), choice.axes, scan.left_out)
    return scan


def bart_variable(path: Path, any_dimension: bool = False) -> tuple[Variable, str]:
    """The array in a `.cfl` file, and the order of its axes.

    `any_dimension`: those without a use may be longer than 1.

    Raises:
        InputError: the header is missing or damaged, or a dimension has no use.
    """
    shape = bart_shape(path)
    order = list(DIMENSIONS)
    if len(shape) > SECOND_TIME and shape[TIME] == 1:
        order[TIME], order[SECOND_TIME] = "-", "t"
    longer = [i for i, n in enumerate(shape) if n > 1 and order[i : i + 1] in ([], ["-"])]
    if longer and not any_dimension:
        i = longer[0]
        name = NAMES[i] if i < len(NAMES) else "unknown"
        raise InputError(
            f"{path}: its dimension {i} ({name}) has length {shape[i]}; expected readout, phase"
            f" encoding, coils, time and slices: take one with 'bart slice {i} 0', or name the"
            " axes with --axes"
        )

    def take(part: tuple[slice, ...]) -> np.ndarray:
        with damage_explained(path):
            return np.array(np.memmap(path, TYPE, "r", 0, shape, "F")[part])

    name = OWN_NAME if CREATOR in path.with_suffix(HEADER).read_text() else "array"
    return Variable(name, shape, TYPE, take), "".join(order[: len(shape)])


def bart_shape(path: Path) -> tuple[int, ...]:
    """The lengths of the dimensions, compared with the size of the data."""
    header = path.with_suffix(HEADER)
    try:
        with header.open() as file:
            lines = file.read(10_000).splitlines()
    except FileNotFoundError:
        raise InputError(
            f"{path} is BART's data without its header {header.name}: copy it beside it"
        ) from None
    try:
        shape = tuple(int(word) for word in lines[1].split())
    except (ValueError, IndexError):
        shape = ()
    if not shape or min(shape) < 1:
        raise InputError(f"{header} has no lengths of dimensions in its second line: copy it again")
    expected, size = math.prod(shape) * TYPE.itemsize, path.stat().st_size
    if expected != size:
        raise InputError(
            f"{path} has {size} bytes, and {shape} of its header are {expected}: it is truncated or"
            " of another header, copy both again"
        )
    return shape


def bart_files(
    stem: str,
    names: tuple[str, ...],
    axes: str,
    left_out: Mapping[str, Sequence[int]],
    reconstructions: Mapping[str, np.ndarray],
) -> dict[str, bytes]:
    """The contents of a `.cfl` file and its header by name; frames that were left out are zero."""
    array = from_frames(in_order(names, reconstructions, left_out), axes)
    return bart_pair(f"{stem}_reconstruction", array, CREATOR)


def bart_pair(name: str, array: np.ndarray, creator: str = "") -> dict[str, bytes]:
    """The contents of a `.cfl` file and its header by name, of an array in BART's dimensions.

    `creator`: lines at the end of the header.
    """
    lines = [HEADER_START.decode(), " ".join(map(str, array.shape)), *filter(None, [creator])]
    return {
        name + DATA: array.astype(TYPE).tobytes(order="F"),
        name + HEADER: "".join(f"{line}\n" for line in lines).encode(),
    }


def in_dimensions(array: np.ndarray, axes: str) -> np.ndarray:
    """An array of axes such as "tcyx" in BART's 16 dimensions."""
    ordered = sorted(axes, key=DIMENSIONS.index)
    lengths = dict(zip(axes, array.shape, strict=True))
    turned = array.transpose([axes.index(axis) for axis in ordered])
    shape = [1] * len(DIMENSIONS)
    for axis in axes:
        shape[DIMENSIONS.index(axis)] = lengths[axis]
    return turned.reshape(shape)
