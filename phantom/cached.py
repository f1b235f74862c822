"""The phantom kept in the cache: made once, then read.

The file's name has a hash of all code that makes the images, so that other code makes its own.
"""

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from phantom.scanner import checked_shape, phantom
from util.cache import cache_folder, source_hash

CODE = source_hash(  # of everything that makes the images
    "phantom.scanner", "phantom.anatomy", "phantom.heart", "util.random_streams", follow=False
)
KEEP_DAYS = 7  # of a file in the cache that is not read


def load_phantom(
    n_samples: int, shape: Sequence[int] = (20, 192, 192), seed: int = 0
) -> np.ndarray:
    """`phantom`, made once and then read from the cache (see `util.cache`).

    A file that is unreadable or holds too few samples is made anew, and so is one that other code
    made. If the folder cannot be written, a notice goes to standard error, and the data are
    returned all the same.
    """
    shape = checked_shape(n_samples, shape, seed)
    folder = cache_folder() / "phantom"
    path = folder / f"{CODE}_seed{seed}_{'x'.join(map(str, shape))}.npy"
    samples = _read(path, n_samples, shape)
    if samples is None:
        samples = phantom(n_samples, shape, seed, progress=True)
        try:
            _write(path, samples)
            _remove_unused(folder)
        except OSError as error:
            print(f"the phantom was not cached in {folder}: {error}", file=sys.stderr)
    return samples


def _remove_unused(folder: Path) -> None:
    """Remove phantoms that were not read for `KEEP_DAYS`: those of earlier code, above all."""
    for path in folder.glob("*.npy"):
        if time.time() - path.stat().st_mtime > KEEP_DAYS * 24 * 3600:
            path.unlink(missing_ok=True)


def _read(path: Path, n_samples: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """The first `n_samples` of a file, or None if they are not complete."""
    try:
        stored = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, OverflowError):
        return None
    if stored.dtype != np.float32 or stored.shape[1:] != shape or len(stored) < n_samples:
        return None
    samples = np.array(stored[:n_samples])
    with contextlib.suppress(OSError):
        os.utime(path)  # it was used
    whole = samples.min(initial=0) == 0 and (samples.max(axis=(1, 2, 3)) == 1).all()
    return samples if whole else None


def _write(path: Path, samples: np.ndarray) -> None:
    """Save under a temporary name first, so that no process reads an incomplete file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.save(file, samples)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
