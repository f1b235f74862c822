"""What an array of unknown meaning is: images or k-space, and which of its axes is which.

A name or a number of frames says little, so the values are measured (`formats/likeness.py`), also
where a format has a usual order: neighbours along the time axis must be as alike as frames are, and
an axis is of coils if what lies along it shows the same edges. Where the values contradict, or do
not decide, the array is refused with the `--axes` that would say it.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from data.centring import looks_like_kspace
from formats.axes import Guess, middle, parse_axes, spelled, to_frames
from formats.likeness import COILS, SLICES, are_frames, common_edges
from util.errors import InputError

FRAMES, OTHERS = 8, 3  # measured frames, from the middle; measured slices and coils
Part = Callable[[tuple[slice, ...]], np.ndarray]  # a part of an array, float32 or complex64


@dataclass(frozen=True)
class Planes:
    """Whole planes of an array, whose values say what its axes are."""

    block: np.ndarray
    order: str
    shape: tuple[int, ...]  # of the array
    where: str

    @classmethod
    def of(cls, take: Part, order: str, shape: Sequence[int], where: str) -> "Planes":
        """Of the first slices and coils, in the middle of time."""
        part = []
        for letter, n in zip(order, shape, strict=True):
            few = min(n, {"t": FRAMES, "s": OTHERS, "c": OTHERS}.get(letter, n))
            first = (n - few) // 2 if letter == "t" else 0
            part.append(slice(first, first + few))
        block = np.nan_to_num(take(tuple(part)), posinf=0, neginf=0)
        return cls(block, order, tuple(shape), where)

    def frames(self, along: str = "") -> np.ndarray:
        """(T, C, Y, X) with C along the axis `along`, if any; of others, the first item."""
        block, letters = self.block, ""
        for letter in self.order:
            if letter in "tyx" + along:
                letters += letter
            else:
                block = block.take(0, len(letters))
        return to_frames(block, letters.replace("s", "c"))


def is_kspace_by_values(planes: Planes, named: bool | None) -> tuple[bool, list[str]]:
    """Whether complex values are k-space, and a note if nothing else says it.

    Args:
        named: what the name of the array says; None: neither.

    Raises:
        InputError: values and name contradict, or neither decides.
    """
    measured = looks_like_kspace(planes.frames("c" if "c" in planes.order else "s"))
    if named is None and measured is not None:
        what = "k-space, as its energy is in one place" if measured else "images"
        return measured, [f"complex values of a name that says neither are taken as {what}"]
    if named is None:
        says = "may be k-space or images"
    elif measured == (not named):
        says = "is named as images, but its energy is in one place as in k-space"
        if named:
            says = "is named as k-space, but its energy is spread as in images"
    else:
        return named, []
    raise InputError(
        f"{planes.where} {says}; expected a name that fits: call it 'kspace' or 'images'"
    )


def order_of(
    take: Part,
    shape: Sequence[int],
    axes: str | None,
    known: str | None,
    usual: Sequence[str],
    is_kspace: bool | None,
    where: str,
) -> tuple[str, str, list[str]]:
    """The order of the axes, how it is known ("" if that goes without saying), and notes.

    Args:
        axes: as the user gives it, which is taken.
        known: as the format has it.
        usual: orders that the format is written in, for a guess.
        is_kspace: None: complex values, of either kind.
    """
    if axes is not None:
        order = parse_axes(axes, shape, where)
        try:
            return order, "", Guess(take(middle(shape)), shape, usual, where).doubt(order)
        except InputError:  # more axes than can be guessed
            return order, "", []
    if known is not None:
        if {"t", "y", "x"} <= set(known):
            return known, "as the format has them", []
        raise InputError(
            f"{where} is {tuple(shape)}, in this format '{spelled(known)}' without time; expected"
            f" a cine: if one of the axes is time, name it with --axes, such as --axes"
            f" '{spelled(known.replace('s', 't'))}'"
        )
    block = take(middle(shape))
    order = Guess(block, shape, usual, where).axes
    if is_kspace and sampled_along_x(block, order):
        order = order.translate(str.maketrans("xy", "yx"))
    return order, "which is a guess", []


def sampled_along_x(block: np.ndarray, order: str) -> bool:
    """Whether columns of k-space are empty instead of lines."""
    for letter in "sc":
        if letter in order:
            block, order = block.take(0, order.index(letter)), order.replace(letter, "")
    filled = (to_frames(block, order) != 0).any(1)  # (T, Y, X)
    of_columns = (filled == filled.any(1, keepdims=True)).all()
    of_lines = (filled == filled.any(2, keepdims=True)).all()
    return bool(of_columns and not of_lines)


def require_time(planes: Planes, is_kspace: bool) -> None:
    """Raise InputError if neighbours along t are less alike than frames are."""
    order, shape = planes.order, planes.shape
    frames = planes.frames("c" if "c" in order else "s")
    if len(frames) > 1 and not are_frames(frames, is_kspace):
        raise InputError(
            f"{planes.where} is {shape}, and along the axis of {shape[order.index('t')]} its values"
            " change everywhere, as slices and coils do; expected frames over time, of which few"
            " places change: choose a cine, or, if that axis is time, say so with --axes"
            f" '{spelled(order)}'"
        )


def with_coils_named(planes: Planes, is_kspace: bool) -> str:
    """The order with its axes of slices and coils called s and c as the values have them.

    Raises:
        InputError: the values do not decide.
    """
    letters = list(planes.order)
    places = [i for i, letter in enumerate(letters) if letter in "sc"]
    edges = {}
    for i in places:
        if planes.shape[i] == 1:
            letters[i] = "-"
        else:
            edges[i] = common_edges(planes.frames(letters[i]), is_kspace)
    # magnitudes of coils are like those of thin slices
    has_phase = planes.block.dtype.kind == "c"
    ways, fitting = [], []
    for way in itertools.permutations("sc", len(edges)):
        fits = True
        for letter, (i, share) in zip(way, edges.items(), strict=True):
            letters[i] = letter
            fits = fits and (share > COILS and has_phase if letter == "c" else share < SLICES)
        ways.append("".join(letters))
        fitting += ways[-1:] if fits else []
    if len(fitting) == 1:
        return fitting[0]
    shares = ", ".join(f"{share:.2f} along that of {planes.shape[i]}" for i, share in edges.items())
    either = " or ".join(f"--axes '{spelled(way)}'" for way in ways)
    raise InputError(
        f"{planes.where} is {planes.shape}, and its values do not tell coils (more than {COILS} of"
        f" their edges in common, and a phase) from slices (less than {SLICES}): {shares}; expected"
        f" their meaning: give {either}"
    )


def by_values(
    take: Part,
    order: str,
    shape: Sequence[int],
    named: bool | None,
    where: str,
    may_be_alike: bool = False,
) -> tuple[str, bool, list[str]]:
    """What the values say of an array in this order: the order with its slices and coils told
    apart, whether it is k-space, and notes.

    Args:
        named: whether the name says that it is k-space; None: complex values of either kind.
        may_be_alike: slices of images are slices, however alike they are.

    Raises:
        InputError: they contradict, or do not decide.
    """
    planes = Planes.of(take, order, shape, where)
    is_kspace, notes = False, list[str]()
    if planes.block.dtype.kind == "c":
        is_kspace, notes = is_kspace_by_values(planes, named)
    require_time(planes, is_kspace)
    if is_kspace or not may_be_alike:
        order = with_coils_named(planes, is_kspace)
    return order, is_kspace, notes


def other_order(
    problem: InputError,
    take: Part,
    known: str,
    shape: Sequence[int],
    usual: Sequence[str],
    named: bool | None,
    where: str,
) -> InputError:
    """The error that the values contradict the order that the format has, with the one that they
    fit, if any; else the problem itself."""
    try:
        order, _, _ = order_of(take, shape, None, None, usual, named, where)
        order, _, _ = by_values(take, order, shape, named, where)
    except InputError:
        return problem
    if spelled(order) == spelled(known):
        return problem
    return InputError(
        f"{where} is {tuple(shape)}, and its values are not '{spelled(known)}', as the format has"
        f" them, but fit '{spelled(order)}'; expected the order that holds: give --axes"
        f" '{spelled(order)}', or --axes '{spelled(known)}'"
    )
