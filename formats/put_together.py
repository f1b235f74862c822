"""A series of what a file has: k-space centred and its lines looked at, coil images combined."""

import numpy as np

from data.centring import centred, with_middle_in_the_middle
from data.kspace import centred_mask, fitting_mask, listed, only_whole_lines, sampling_notes
from formats.series import Series
from util.errors import InputError


def series_of(
    name: str,
    frames: np.ndarray,
    is_kspace: bool,
    mask: np.ndarray | None,
    maps: np.ndarray | None,
    where: str,
    noise: np.ndarray | None = None,
) -> Series:
    """A series from (T, C, Y, X) as a file has it: centred, mask arranged; coil images combined.

    Frames without any measured line, lines that were measured in part and coils that are zero are
    left out, with a note.

    Args:
        mask: (T, Y) or (1, Y) bool in the file's order of lines.
        maps: (C, Y, X), sensitivities.
        noise: (C, N), a scan of the coils' noise.

    Raises:
        InputError: mask, maps or zeros do not fit.
    """
    where = f"{where} ({name})"
    if not is_kspace:
        return series_of_images(name, frames, mask)
    if not np.isfinite(frames).all() or not frames.any():
        frames = frames if frames.shape[1] > 1 else frames[:, 0]
        return Series(name, frames, True)  # refused as a series
    n_coils = frames.shape[1]
    frames, maps, noise, notes = without_dead_coils(frames, maps, noise)
    frames, shifts, moved = centred(frames)
    frames, exchanged = with_middle_in_the_middle(frames)
    if maps is not None and (exchanged or max(map(abs, shifts)) > 2):
        raise InputError(
            f"{where}: {(exchanged + moved)[0]}, so sensitivity maps may not be where the image is;"
            " expected centred k-space with maps: centre both with np.fft.fftshift, or leave the"
            " maps out"
        )
    frames, lines, partial = only_whole_lines(frames, where)
    notes += moved + exchanged + partial
    if mask is not None:
        mask, of_mask = fitting_mask(mask, lines, shifts[0], where)
        notes += of_mask
    empty = np.flatnonzero(~lines.any(1))
    if len(empty):
        notes.append(f"frames without any line are left out: {listed(empty)} of {len(frames)}")
        full = lines.any(1)
        frames, lines, mask = frames[full], lines[full], None if mask is None else mask[full]
    notes += sampling_notes(lines)
    left_out = tuple(empty.tolist())
    if n_coils == 1:
        return Series(name, frames[:, 0], True, mask, "", notes, left_out=left_out)
    return Series(name, frames, True, mask, "", notes, maps, noise, left_out=left_out)


def series_of_images(name: str, frames: np.ndarray, mask: np.ndarray | None) -> Series:
    """A series of images (T, C, Y, X); see `series_of`."""
    notes = []
    empty = np.flatnonzero(~frames.any((1, 2, 3)))
    if 0 < len(empty) < len(frames):
        notes.append(f"frames that are zero: {listed(empty)} of {len(frames)}, cut them off")
    if frames.shape[1] > 1:
        note = "coil images are combined by root-sum-of-squares: the phase is lost"
        notes.append(f"{frames.shape[1]} {note}")
        frames = np.sqrt((np.abs(frames) ** 2).sum(1, keepdims=True))
    if mask is not None:
        mask = np.broadcast_to(mask, (len(frames), frames.shape[2]))
        mask, of_mask = centred_mask(mask)
        notes += of_mask
    return Series(name, frames[:, 0], False, mask, "", notes)


def without_dead_coils(
    frames: np.ndarray, maps: np.ndarray | None, noise: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None, list[str]]:
    """K-space (T, C, Y, X), maps and noise without the coils that are zero everywhere; a note."""
    alive = np.asarray(frames.any(axis=(0, 2, 3)))
    if alive.all():
        return frames, maps, noise, []
    note = f"coils that are zero everywhere are left out: {listed(np.flatnonzero(~alive))}"
    if maps is not None and len(maps) == alive.size:
        maps = maps[alive]
    if noise is not None and len(noise) == alive.size:
        noise = noise[alive]
    return frames[:, alive], maps, noise, [f"{note} of {alive.size}"]
