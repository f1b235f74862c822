"""Masks that come as a file, for training and testing on the lines of others."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.kspace import arrange_mask, centred_mask
from formats.reading import read_mask
from util.errors import InputError
from util.progress import say


def read_masks(path: Path, shape: Sequence[int]) -> np.ndarray:
    """The masks of a file for images of `shape` = (T, Y, X): (N, T, Y) bool, centred.

    The file (see `read_mask`) has lines (Y,), which are taken for all frames, (T, Y), or several
    masks (N, T, Y); or whole masks with an axis X; with these axes in any order.

    Raises:
        InputError: it cannot be read, does not fit, or has a frame without lines.
    """
    found, (n_frames, ny, nx) = read_mask(path).whole(), shape
    masks = None
    for n_masks in dict.fromkeys((1, *found.shape)):
        try:
            masks = arrange_mask(found, "styx", (n_masks, n_frames, ny, nx), str(path))
        except InputError:
            continue
        break
    if masks is None:
        raise InputError(
            f"{path}: the mask is {found.shape}, and the images have {n_frames} frames of {ny}"
            f" lines and {nx} columns; expected zeros and ones ({ny},), ({n_frames}, {ny}), or"
            f" several masks (n, {n_frames}, {ny})"
        )
    if not masks.any(axis=-1).all():
        raise InputError(f"{path}: a frame has no measured line; expected some in each")
    masks = np.broadcast_to(masks, (len(masks), n_frames, ny))
    centred, notes = centred_mask(masks.reshape(-1, ny))
    for note in notes:
        say(f"{path.name}: {note}")
    return centred.reshape(masks.shape)
