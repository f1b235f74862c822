"""K-space as files have it: which lines were measured, and its coils.

Axes are (T, C, Y, X): frame, coil, phase-encoding line, readout. Coil images are combined by
sensitivity maps, `m = sum conj(S) b / sum |S|^2`, or by root-sum-of-squares, which loses the phase:
P. B. Roemer et al., "The NMR phased array", Magn Reson Med 16:192-225, 1990.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from physics.fourier import ifftc
from util.errors import InputError

NEAR = 2  # lines or columns of the centre where the highest energy may be
SCATTERED = 0.05  # share of zeros within measured lines that may be chance


def only_whole_lines(kspace: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """K-space (T, C, Y, X) without lines that were measured in part, its lines (T, Y) that are not
    zero, and a note.

    Raises:
        InputError: see `measured_lines`.
    """
    lines = measured_lines(kspace, where)
    columns = (kspace != 0).any((0, 1, 2))
    share = np.count_nonzero(kspace[..., columns], axis=(1, 3)) / (
        kspace.shape[1] * max(1, np.count_nonzero(columns))
    )
    partial = lines & (share < 1 - SCATTERED)
    if not partial.any() or np.count_nonzero(partial) > SCATTERED * np.count_nonzero(lines):
        return kspace, lines, []
    kspace = kspace * ~partial[:, None, :, None]
    frames = listed(np.flatnonzero(partial.any(1)))
    note = f"lines measured only in part are left out: {partial.sum()} (in frame {frames})"
    return kspace, lines & ~partial, [note]


def sampling_notes(lines: np.ndarray) -> list[str]:
    """How many lines (T, Y) were measured, and what is unusual in it; none if all were."""
    if is_full(lines):
        return []
    count, ny = lines.sum(1), lines.shape[1]
    never = ny - np.count_nonzero(lines.any(0))
    span = f"{count.min()}" if count.min() == count.max() else f"{count.min()} to {count.max()}"
    notes = [f"{span} of {ny} lines were measured in a frame, {never} in no frame"]
    if len(few := np.flatnonzero(count < np.median(count) / 2)):
        notes.append(f"less than half as many lines as usual: frame {listed(few)}")
    if len(without := np.flatnonzero(~lines[:, ny // 2])):
        notes.append(f"the centre of k-space was not measured: frame {listed(without)}")
    return notes


def listed(frames: np.ndarray) -> str:
    """Frames in words, counted from 1."""
    return ", ".join(str(frame + 1) for frame in frames)


def measured_lines(kspace: np.ndarray, where: str) -> np.ndarray:
    """(T, Y) bool: the lines of k-space (T, C, Y, X) that are not zero.

    Raises:
        InputError: the zeros are not whole lines (or whole columns, as of a partial echo).
    """
    filled = (kspace != 0).any(1)  # (T, Y, X)
    lines, columns = filled.any(2), filled.any((0, 1))
    n_expected = lines.sum() * columns.sum()
    if (n_zeros := int(n_expected - filled.sum())) > SCATTERED * n_expected:
        raise InputError(
            f"{where}: {n_zeros} zeros of k-space are within lines that hold other values; expected"
            " whole phase-encoding lines of zeros where nothing was measured (Cartesian sampling):"
            " name the order of the axes with --axes if y is another one"
        )
    return lines


def is_full(lines: np.ndarray) -> bool:
    """Whether lines (T, Y) are all measured, but for empty ones at both ends, the same in all
    frames: zero-padding, or partial Fourier."""
    first = lines[0]
    if not first.any() or (lines != first).any():
        return False
    at = np.flatnonzero(first)
    return bool(first[at[0] : at[-1] + 1].all())


def arrange_mask(mask: np.ndarray, axes: str, shape: Sequence[int], where: str) -> np.ndarray:
    """The mask of a file as lines (S, T, Y) bool; S or T of length 1 if it is the same for all.

    Its axes are those of the array (`axes` and `shape`), or some of them, in any order: (Y,),
    (T, Y), (Y, X), all of them.

    Raises:
        InputError: its shape or its pattern fits no order.
    """
    if mask.dtype.kind not in "biufc" or not np.isin(mask, (0, 1)).all():
        raise InputError(
            f"{where}: the mask has other values than 0 and 1; expected 1 for measured lines"
        )
    mask = mask.astype(bool).squeeze()
    size = {letter: n for letter, n in zip(axes, shape, strict=True) if letter != "-" and n > 1}
    fitting = [
        order
        for order in itertools.permutations(size, mask.ndim)
        if tuple(size[letter] for letter in order) == mask.shape and "y" in order
    ]
    fitting.sort(key=lambda order: ("s" in order, list(order) != [a for a in axes if a in order]))
    for order in fitting:
        whole = mask.transpose([order.index(letter) for letter in "stcyx" if letter in order])
        missing = [i for i, letter in enumerate("stcyx") if letter not in order]
        whole = np.expand_dims(whole, missing)  # (S, T, C, Y, X), some of length 1
        lines = np.logical_or.reduce(whole, axis=(2, 4), keepdims=True)
        if (whole == lines).all():
            return lines[:, :, 0, :, 0]
    raise InputError(
        f"{where}: the mask is {mask.shape} for an array of {tuple(shape)} ('{' '.join(axes)}');"
        " expected the measured lines (y,) or (t, y), the same for all of a line: correct the mask,"
        " or name the order of the axes with --axes"
    )


def fitting_mask(
    mask: np.ndarray, lines: np.ndarray, shift: int, where: str
) -> tuple[np.ndarray, list[str]]:
    """The mask (T, Y) of a file for k-space that was rolled by `shift` lines and has `lines`
    (T, Y) that are not zero; and notes.

    Raises:
        InputError: it does not fit.
    """
    ny = lines.shape[1]
    mask = np.broadcast_to(mask, lines.shape)
    if is_full(lines) and not mask[:, lines[0]].all():  # full data say nothing about the mask
        mask, notes = centred_mask(mask)
        return mask, ["k-space is fully sampled, and there is a mask for it", *notes]
    ways = [(np.roll(mask, shift, 1), ""), (mask, "with zero frequency in the middle")]
    ways.append((np.roll(mask, ny // 2, 1), "with zero frequency first"))
    ways.sort(key=lambda way: -np.count_nonzero(way[0] & lines))
    ways.sort(key=lambda way: np.count_nonzero(lines & ~way[0]))
    best, how = ways[0]
    notes = [f"the mask is taken {how}, other than k-space"] if how else []
    if outside := np.count_nonzero(lines & ~best):
        raise InputError(
            f"{where}: {outside} lines of k-space hold values where the mask has none; expected"
            " zeros in the lines that were not measured: correct the mask, or leave it out"
        )
    if empty := np.count_nonzero(best & ~lines):
        notes.append(f"{empty} lines that the mask calls measured are zero")
    return best.copy(), notes


def centred_mask(mask: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """A mask (T, Y) with zero frequency in the middle, where it is densest; and notes."""
    ny = mask.shape[1]
    near = slice(max(0, ny // 2 - NEAR), ny // 2 + NEAR + 1)
    rolled = np.roll(mask, ny // 2, 1)
    if np.count_nonzero(rolled[:, near]) > np.count_nonzero(mask[:, near]):
        return rolled, ["the mask is taken with zero frequency first"]
    return mask.copy(), []


def combine_coils(kspace: np.ndarray, maps: np.ndarray | None) -> tuple[np.ndarray, str]:
    """Fully sampled centred k-space (T, C, Y, X) to images (T, Y, X), and a note.

    With `maps` (C, Y, X) complex64, else float32 by root-sum-of-squares.
    """
    images = np.empty(
        (len(kspace), *kspace.shape[2:]), np.float32 if maps is None else np.complex64
    )
    for frame, image in zip(kspace, images, strict=True):
        coils = ifftc(torch.from_numpy(np.ascontiguousarray(frame))).numpy()
        if maps is None:
            np.sqrt(np.square(np.abs(coils)).sum(0), out=image)
        else:
            weight = np.square(np.abs(maps)).sum(0)
            image[...] = (maps.conj() * coils).sum(0) / np.where(weight > 0, weight, 1)
    n = kspace.shape[1]
    if maps is None:
        return images, f"{n} coils are combined by root-sum-of-squares: the phase is lost"
    return images, f"{n} coils are combined with the sensitivity maps of the file"
