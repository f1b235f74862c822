"""Files that hold named arrays: which one is the cine, what its axes are, and its series.

Known names come first; the last part of a name counts, in any case. An array of another name is
taken if it is the only one of three axes or more. Integers and floats become float32 without
scaling; fields of real and imaginary part, or a last axis of both, become complex.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.kspace import (
    arrange_mask,
    centred,
    centred_mask,
    fitting_mask,
    looks_like_kspace,
    measured_lines,
)  # fmt: skip
from data.stored import require_memory
from formats.axes import Guess, middle, parse_axes, spelled, to_frames
from formats.series import Scan, Series
from util.errors import InputError

KSPACE_NAMES = ("kspace", "kspace_full", "kspace_single_full", "kus", "kdata", "ksp", "k_space")
KSPACE_BEGINNINGS = ("kspace_", "kdata_", "ksp_")
CINE_NAME = "dataset"  # of a training file
IMAGE_NAMES = (
    CINE_NAME, "images", "image", "img", "cine", "target", "reconstruction_esc",
    "reconstruction_rss", "img4ranking",
)  # fmt: skip
MASK_NAMES = ("mask", "us_mask", "usmask", "sampling_mask", "acquisition_mask", "masks")
MASK_BEGINNINGS = ("mask", "us_mask", "usmask")
MAP_NAMES = (
    "sensitivity_maps", "sensitivities", "sens_maps", "sens", "coil_maps", "coilmap", "coilmaps",
    "csm", "smaps", "maps",
)  # fmt: skip
GROUPS_NAME = "groups"
NOISE_NAME = "noise"  # a scan of the coils' noise
COLOURS = (3, 4)  # samples of a pixel
MEMORY_REMEDY = "split the file, or use a larger machine"


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


@dataclass(frozen=True)
class FileLayout:
    """What a format says about its arrays."""

    kind: str  # in words, such as "NumPy file"
    usual: tuple[str, ...]  # usual orders of axes, for a guess
    known: Callable[[Variable, bool], str | None]  # order of an array (and whether it is k-space)
    one_patient: bool = True


@dataclass(frozen=True)
class ChosenArray:
    """The array of a file that is the cine."""

    variable: Variable
    axes: str
    is_kspace: bool | None  # None: complex values, of either kind
    notes: list[str]


def last_part(name: str) -> str:
    """The name without its groups, in lower case."""
    return name.rpartition("/")[2].lower()


def is_kspace_name(name: str) -> bool:
    """Whether a name is known for k-space."""
    return last_part(name) in KSPACE_NAMES or last_part(name).startswith(KSPACE_BEGINNINGS)


def is_mask_name(name: str) -> bool:
    """Whether a name is known for a mask."""
    return last_part(name) in MASK_NAMES or last_part(name).startswith(MASK_BEGINNINGS)


def choose(variables: Sequence[Variable], path: Path) -> tuple[Variable, list[str]]:
    """The cine among the arrays of a file, and notes.

    Raises:
        InputError: none of them can be it, or several.
    """
    others = [
        v
        for v in variables
        if not is_mask_name(v.name)
        and last_part(v.name) not in (*MAP_NAMES, GROUPS_NAME, NOISE_NAME)
        and (v.dtype.kind in "biufc" or is_pair(v.dtype))
    ]
    kspace = [v for v in others if is_kspace_name(v.name)]
    if len(kspace) == 1:
        return kspace[0], []
    for known in (*KSPACE_NAMES, *IMAGE_NAMES):
        if found := [v for v in others if last_part(v.name) == known]:
            return found[0], []
    found = [v for v in others if len([n for n in v.shape if n > 1]) > 2]
    found = found or ([v for v in others if len(v.shape) == 2] if len(others) == 1 else [])
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


def understand(
    variables: Sequence[Variable], form: FileLayout, axes: str | None, path: Path
) -> ChosenArray:
    """Choose the array of a file and find out its axes and whether it is k-space."""
    variable, notes = choose(variables, path)
    where = f"{path}: '{variable.name}'"
    named = is_kspace_name(variable.name)
    is_real = variable.dtype.kind in "biuf"
    if is_real and variable.shape[-1:] == (2,) and (named or len(variable.shape) == 5):
        variable, is_real = complex_variable(variable), False
        notes.append("its last axis, of length 2, is taken as real and imaginary part")
    if variable.dtype == np.uint8 and variable.shape[-1] in COLOURS and axes is None:
        raise InputError(
            f"{where} is {variable.shape} {variable.dtype}, as colour images are; expected gray"
            " images: convert them, or name the order of the axes with --axes"
        )
    if named and is_real:
        raise InputError(
            f"{where} is {variable.dtype}; expected complex k-space: save it complex, or under the"
            " name 'dataset' if it holds images"
        )
    require_readable(variable, where)
    order, of_axes = order_of(variable, form, axes, where)
    either = not is_real and last_part(variable.name) not in IMAGE_NAMES
    is_kspace = True if named else None if either else False
    return ChosenArray(variable, order, is_kspace, notes + of_axes)


def require_readable(variable: Variable, where: str) -> None:
    """Raise InputError if an array is empty or larger than the memory."""
    if 0 in variable.shape:
        raise InputError(f"{where} is {variable.shape}, which is empty; expected images")
    n_bytes = math.prod(variable.shape) * variable.dtype.itemsize
    require_memory(n_bytes, f"{where} is {variable.shape} {variable.dtype}", MEMORY_REMEDY)


def order_of(
    variable: Variable, form: FileLayout, axes: str | None, where: str
) -> tuple[str, list[str]]:
    """The order of the axes: as given, as the format has it, or guessed; and notes."""
    is_kspace = is_kspace_name(variable.name)
    order = form.known(variable, is_kspace)
    if axes is None and order is not None:
        if {"t", "y", "x"} <= set(order):
            return order, []
        raise InputError(
            f"{where} is {variable.shape}, in this format '{spelled(order)}' without time; expected"
            f" a cine: if one of the axes is time, name it with --axes, such as --axes"
            f" '{spelled(order.replace('s', 't'))}'"
        )
    block = as_numbers(variable.take(middle(variable.shape)))
    if axes is not None:
        order = parse_axes(axes, variable.shape, where)
        try:
            return order, Guess(block, variable.shape, form.usual, where).doubt(order)
        except InputError:  # more axes than can be guessed
            return order, []
    guess = Guess(block, variable.shape, form.usual, where)
    if is_kspace and sampled_along_x(block, guess.axes):
        order = guess.axes.translate(str.maketrans("xy", "yx"))
        return order, [guess.note.replace(guess.spelled, spelled(order))]
    return guess.axes, [guess.note]


def sampled_along_x(block: np.ndarray, order: str) -> bool:
    """Whether columns of k-space are empty instead of lines."""
    if "s" in order:
        block = block.take(0, order.index("s"))
    filled = (to_frames(block, order) != 0).any(1)  # (T, Y, X)
    of_columns = (filled == filled.any(1, keepdims=True)).all()
    of_lines = (filled == filled.any(2, keepdims=True)).all()
    return bool(of_columns and not of_lines)


def scan_of_arrays(
    path: Path,
    form: FileLayout,
    variables: Sequence[Variable],
    axes: str | None,
    mask: Variable | None = None,
) -> tuple[Scan, ChosenArray]:
    """The scan that a file of named arrays holds, and which array it is.

    Args:
        axes: order of the axes, as the user gives it; None: known from the format, or guessed.
        mask: to use instead of the file's own.

    Raises:
        InputError: no array can be used, or the axes do not fit.
    """
    choice = understand(variables, form, axes, path)
    variable, order = choice.variable, choice.axes
    extra = {v.name: v for v in variables if v.name != variable.name}
    mask = mask or next((v for name, v in extra.items() if is_mask_name(name)), None)
    maps = next((v for name, v in extra.items() if last_part(name) in MAP_NAMES), None)
    noise = next((v for name, v in extra.items() if last_part(name) == NOISE_NAME), None)
    n_series = variable.shape[order.index("s")] if "s" in order else 1
    word = "slice" if form.one_patient else "sample"
    names = [f"{word}_{i:0{len(str(n_series))}d}" for i in range(1, n_series + 1)]
    where = f"{path}: '{variable.name}'"
    patients, lines = patients_in(variables, n_series), None
    if mask is not None:
        of_mask = where if mask.name in extra else f"{where}, mask '{mask.name}'"
        if math.prod(mask.shape) > math.prod(variable.shape):
            raise InputError(
                f"{of_mask}: the mask is {mask.shape}, larger than the scan; expected its measured"
                " lines: name another file"
            )
        lines = arrange_mask(mask.whole(), order, variable.shape, of_mask)

    def load() -> Iterator[Series]:
        items = variable.items(order.index("s")) if "s" in order else iter([variable.whole()])
        for i, item in enumerate(items):
            frames = to_frames(as_numbers(item), order)
            of_item = None if lines is None else lines[min(i, len(lines) - 1)]
            coil_maps = None if maps is None else maps_for(maps, order, variable.shape, i, where)
            series = series_of(names[i], frames, choice.is_kspace, of_item, coil_maps, where)
            series.patient = patients[i] if patients is not None else ""
            if noise is not None and series.is_kspace and series.values.ndim == 4:
                scan = as_numbers(noise.whole())
                series.noise = scan[i] if scan.ndim == 3 and len(scan) == n_series else scan
            yield series

    return Scan(path, form.kind, names, load, choice.notes, None, form.one_patient), choice


def maps_for(
    maps: Variable, order: str, shape: Sequence[int], index: int, where: str
) -> np.ndarray | None:
    """The sensitivity maps (C, Y, X) of a series; None if there are no coils.

    Raises:
        InputError: they do not have the axes of the array without time, or without time and slices.
    """
    if "c" not in order:
        return None
    for without in ("t", "ts"):
        letters = [letter for letter in order if letter not in without]
        size = [n for letter, n in zip(order, shape, strict=True) if letter not in without]
        if maps.shape == tuple(size):
            values: np.ndarray = as_numbers(maps.whole()).astype(np.complex64)
            if "s" in letters:
                values = values.take(index, letters.index("s"))
            return to_frames(values[None], "t" + "".join(letters))[0]
    raise InputError(
        f"{where}: the sensitivity maps '{maps.name}' are {maps.shape} for an array of"
        f" {tuple(shape)} ('{spelled(order)}'); expected its axes without time, in the same order"
    )


def series_of(
    name: str,
    frames: np.ndarray,
    is_kspace: bool | None,
    mask: np.ndarray | None,
    maps: np.ndarray | None,
    where: str,
) -> Series:
    """A series from (T, C, Y, X) as a file has it: centred, mask arranged; coil images combined.

    Args:
        is_kspace: None: complex values, k-space if their energy is in one place.
        mask: (T, Y) or (1, Y) bool in the file's order of lines.

    Raises:
        InputError: mask or zeros do not fit.
    """
    where, notes = f"{where} ({name})", []
    if is_kspace is None:
        is_kspace = bool(np.isfinite(frames).all()) and looks_like_kspace(frames)
        what = "k-space, as its energy is in one place" if is_kspace else "images"
        notes.append(f"complex values of a name that says neither are taken as {what}")
    if not is_kspace:
        if frames.shape[1] > 1:
            note = "coil images are combined by root-sum-of-squares: the phase is lost"
            notes.append(f"{frames.shape[1]} {note}")
            frames = np.sqrt((np.abs(frames) ** 2).sum(1, keepdims=True))
        if mask is not None:
            mask = np.broadcast_to(mask, (len(frames), frames.shape[2]))
            mask, of_mask = centred_mask(mask)
            notes += of_mask
        return Series(name, frames[:, 0], False, mask, "", notes)
    if not np.isfinite(frames).all():
        frames = frames if frames.shape[1] > 1 else frames[:, 0]
        return Series(name, frames, True, None, "", notes)  # refused as a series
    frames, shifts, moved = centred(frames)
    notes += moved
    if any(shifts) and maps is not None:
        raise InputError(
            f"{where}: {moved[0]}, so sensitivity maps may not be where the image is; expected"
            " centred k-space with maps: centre both with np.fft.fftshift, or leave the maps out"
        )
    lines = measured_lines(frames, where)
    if mask is not None:
        mask, of_mask = fitting_mask(mask, lines, shifts[0], where)
        notes += of_mask
    if frames.shape[1] == 1:
        return Series(name, frames[:, 0], True, mask, "", notes)
    return Series(name, frames, True, mask, "", notes, maps)


def patients_in(variables: Sequence[Variable], n: int) -> list[str] | None:
    """The patient of each sample, if the file has `groups` of this number."""
    groups = next((v for v in variables if last_part(v.name) == GROUPS_NAME), None)
    if groups is None or groups.shape != (n,) or groups.dtype.kind not in "biufSU":
        return None
    values = groups.whole()
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "backslashreplace")
    return [str(value) for value in values]
