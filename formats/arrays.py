"""Files that hold named arrays: what the axes of the cine are, its measured lines, and its series.

Which array is the cine is found by `formats/variables.py`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.kspace import arrange_mask
from data.stored import require_memory
from formats.axes import spelled, to_frames
from formats.meaning import Planes, by_values, is_kspace_by_values, order_of, other_order
from formats.put_together import series_of
from formats.series import OWN, Scan, Series
from formats.variables import (
    CINE_ORDER,
    GROUPS_NAME,
    IMAGE_NAMES,
    MAP_NAMES,
    MASK_NAMES,
    NOISE_NAME,
    Variable,
    as_numbers,
    choose,
    complex_variable,
    has_pairs,
    is_kspace_name,
    is_mask_name,
    last_part,
)
from util.errors import InputError

OWN_NAME = "reconstruction"  # of what this suite writes
COLOURS = (3, 4)  # samples of a pixel
MEMORY_REMEDY = "split the file, or use a larger machine"


@dataclass(frozen=True)
class FileLayout:
    """What a format says about its arrays."""

    kind: str  # in words, such as "NumPy file"
    usual: tuple[str, ...]  # usual orders of axes, for a guess
    known: Callable[[Variable, bool], str | None]  # order of an array (and whether it is k-space)
    one_patient: bool = True
    is_convention: bool = False  # files do not state the known order: the values have to agree


@dataclass(frozen=True)
class ChosenArray:
    """The array of a file that is the cine."""

    variable: Variable
    axes: str
    is_kspace: bool
    notes: list[str]


def understand(
    variables: Sequence[Variable], form: FileLayout, axes: str | None, path: Path
) -> ChosenArray:
    """Choose the array of a file and find out its axes and whether it is k-space.

    Raises:
        InputError: there is no such array, or its values contradict its name, its format, or both
            of two meanings.
    """
    variable, notes = choose(variables, path)
    where = f"{path}: '{variable.name}'"
    if has_pairs(variable):
        variable = complex_variable(variable)
        notes.append("its last axis, of length 2, is taken as real and imaginary part")
    if variable.dtype == np.uint8 and variable.shape[-1] in COLOURS and axes is None:
        raise InputError(
            f"{where} is {variable.shape} {variable.dtype}, as colour images are; expected gray"
            " images: convert them, or name the order of the axes with --axes"
        )
    is_real = variable.dtype.kind in "biuf"
    named = True if is_kspace_name(variable.name) else None
    if named and is_real:
        raise InputError(
            f"{where} is {variable.dtype}; expected complex k-space: save it complex, or under the"
            " name 'dataset' if it holds images"
        )
    if is_real or last_part(variable.name) in IMAGE_NAMES:
        named = False
    require_readable(variable, where)

    def take(part: tuple[slice, ...]) -> np.ndarray:
        return as_numbers(variable.take(part))

    shape = variable.shape
    known = form.known(variable, bool(named))
    order, how, of_axes = order_of(take, shape, axes, known, form.usual, named, where)
    is_measured = axes is None and (known is None or form.is_convention)
    if is_real and not is_measured:
        return ChosenArray(variable, order, False, notes + of_axes)
    if not is_measured:
        is_kspace, of_values = is_kspace_by_values(Planes.of(take, order, shape, where), named)
        return ChosenArray(variable, order, is_kspace, notes + of_axes + of_values)
    try:
        are_samples = known == CINE_ORDER
        found, is_kspace, of_values = by_values(take, order, shape, named, where, are_samples)
    except InputError as error:
        if known is None:
            raise
        raise other_order(error, take, order, shape, form.usual, named, where) from None
    if spelled(found) != spelled(order):
        how = "as the values have them"
    of_axes.append(f"the axes {shape} are taken as '{spelled(found)}', {how} (--axes sets them)")
    return ChosenArray(variable, found, is_kspace, notes + of_axes + of_values)


def require_readable(variable: Variable, where: str) -> None:
    """Raise InputError if an array is empty or larger than the memory."""
    if 0 in variable.shape:
        raise InputError(f"{where} is {variable.shape}, which is empty; expected images")
    n_bytes = math.prod(variable.shape) * variable.dtype.itemsize
    require_memory(n_bytes, f"{where} is {variable.shape} {variable.dtype}", MEMORY_REMEDY)


def lines_among(
    variables: Sequence[Variable], order: str, shape: Sequence[int], where: str
) -> tuple[np.ndarray | None, list[str]]:
    """The measured lines (S, T, Y) that a file gives for its cine, if any, and notes.

    An array called 'mask' must fit; others that only have the word in their name are taken if they
    do.

    Raises:
        InputError: it does not fit, or several do.
    """
    named = [v for v in variables if is_mask_name(v.name) and v.dtype.kind in "biufc"]
    exact = [v for v in named if last_part(v.name) in MASK_NAMES and 0 not in v.shape]
    if exact:
        return arranged(exact[0], order, shape, where), []
    fitting, notes = {}, []
    for mask in named:
        try:
            fitting[mask.name] = arranged(mask, order, shape, where)
        except InputError:
            notes.append(f"{mask.name!r} {mask.shape} is no mask of these lines: left aside")
    if len(fitting) > 1:
        raise InputError(
            f"{where}: {', '.join(map(repr, fitting))} all fit as its mask; expected one: call it"
            " 'mask', or name a file of it with --mask"
        )
    return next(iter(fitting.values()), None), notes


def arranged(mask: Variable, order: str, shape: Sequence[int], where: str) -> np.ndarray:
    """A mask as lines (S, T, Y); see `arrange_mask`."""
    if math.prod(mask.shape) > math.prod(shape) or 0 in mask.shape:
        raise InputError(
            f"{where}: the mask is {mask.shape}, larger than the scan or empty; expected its"
            " measured lines: name another file"
        )
    return arrange_mask(mask.whole(), order, shape, where)


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
    others = [v for v in variables if v.name != variable.name]
    maps = next((v for v in others if last_part(v.name) in MAP_NAMES), None)
    noise = next((v for v in others if last_part(v.name) == NOISE_NAME), None)
    for found in (maps, noise):
        if found is not None:
            require_readable(found, f"{path}: '{found.name}'")
    n_series = variable.shape[order.index("s")] if "s" in order else 1
    word = "slice" if form.one_patient else "sample"
    names = [f"{word}_{i:0{len(str(n_series))}d}" for i in range(1, n_series + 1)]
    where = f"{path}: '{variable.name}'"
    patients = patients_in(variables, n_series)
    if mask is None:
        lines, of_mask = lines_among(others, order, variable.shape, where)
        choice.notes.extend(of_mask)
    else:
        lines = arranged(mask, order, variable.shape, f"{where}, mask '{mask.name}'")
    left_out: dict[str, tuple[int, ...]] = {}
    is_own = any(last_part(v.name) == OWN_NAME for v in variables)

    def load() -> Iterator[Series]:
        items = variable.items(order.index("s")) if "s" in order else iter([variable.whole()])
        for i, item in enumerate(items):
            frames = to_frames(as_numbers(item), order)
            series = series_of(
                names[i],
                frames,
                choice.is_kspace,
                None if lines is None else lines[min(i, len(lines) - 1)],
                None if maps is None else maps_for(maps, order, variable.shape, i, where),
                where,
                None if noise is None else noise_for(noise, i, n_series),
            )
            series.patient = patients[i] if patients is not None else ""
            series.not_a_scan = f"{OWN}, as the name '{OWN_NAME}' says" if is_own else ""
            left_out[series.name] = series.left_out
            yield series

    scan = Scan(path, form.kind, names, load, choice.notes, None, form.one_patient, left_out)
    return scan, choice


def noise_for(noise: Variable, index: int, n_series: int) -> np.ndarray:
    """The scan of noise (C, N) of a series, as the file has it."""
    values = as_numbers(noise.whole())
    return values[index] if values.ndim == 3 and len(values) == n_series else values


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


def patients_in(variables: Sequence[Variable], n: int) -> list[str] | None:
    """The patient of each sample, if the file has `groups` of this number."""
    groups = next((v for v in variables if last_part(v.name) == GROUPS_NAME), None)
    if groups is None or groups.shape != (n,) or groups.dtype.kind not in "biufSU":
        return None
    values = groups.whole()
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "backslashreplace")
    return [str(value) for value in values]
