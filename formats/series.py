"""A scan and its cine series, the same for every file format.

A series is one slice over one heartbeat, (T, Y, X): T frame, Y phase-encoding line, X readout.
K-space of several coils is (T, C, Y, X).
Time is cyclic. K-space is centred (zero frequency at n // 2), as in `physics/fourier.py`.
Names and notes hold nothing of a file's header that could name a patient.
"""

import contextlib
import errno
import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType

import numpy as np

from util.errors import InputError

OWN = "a reconstruction by this suite"  # why a series is no scan

# of reconstructions (T, Y, X) by the name of their series: the content of files, by name
Writer = Callable[[Mapping[str, np.ndarray]], dict[str, bytes]]


@dataclass
class Series:
    """One cine series: a slice over one heartbeat."""

    name: str  # unique in its scan, safe as a file name
    # (T, Y, X) float32 or complex64: images, or centred k-space; of several coils (T, C, Y, X)
    values: np.ndarray
    is_kspace: bool
    mask: np.ndarray | None = None  # (T, Y) bool, the measured lines, if the file has a mask
    patient: str = ""  # as the header or file names the patient; "" if it does not
    notes: list[str] = field(default_factory=list)  # what was guessed, combined or changed
    maps: np.ndarray | None = None  # (C, Y, X) sensitivities, if the file has them
    noise: np.ndarray | None = None  # (C, N), a scan of the coils' noise alone, if the file has one
    not_a_scan: str = ""  # why it is none, such as a reconstruction; "" if nothing says so
    spacing: tuple[float, ...] | None = None  # mm from line to line, and from column to column
    frame_time: float | None = None  # ms from frame to frame, if the file has it
    is_turned: bool = False  # viewers show Y from left to right, and X from top to bottom
    n_acquired: int | None = None  # lines that the scanner measured, if fewer than the images have
    left_out: tuple[int, ...] = ()  # frames of the file without any measured line

    @property
    def aspect(self) -> float:
        """The height of a pixel over its width, as viewers show it; 1 if it is not known."""
        along_y, along_x = self.spacing or (1.0, 1.0)
        return along_x / along_y if self.is_turned else along_y / along_x

    @property
    def pixel_width(self) -> float | None:
        """The width of a pixel in mm, as viewers show it; None if it is not known."""
        return None if self.spacing is None else self.spacing[0 if self.is_turned else 1]


@dataclass
class Scan:
    """The series of a file or a folder. Iterating reads them, one at a time."""

    path: Path
    kind: str  # of file, such as "NIfTI file"
    names: list[str]  # of the series, in order
    load: Callable[[], Iterator[Series]]  # reads the series, unchecked
    notes: list[str] = field(default_factory=list)  # what was guessed or skipped
    write: Writer | None = None  # files of this format from reconstructions; None: it has none
    one_patient: bool = True  # all series are of one patient, if the file does not say otherwise
    # frames without any measured line, by the name of the series, of those that were read
    left_out: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Series]:
        for series in self.load():
            require_usable(series, self.path)
            yield series


def require_values(values: np.ndarray, where: str) -> None:
    """Raise InputError unless all values (T, Y, X) or (T, C, Y, X) are finite, and some are not
    zero."""
    finite = np.isfinite(values)
    if not finite.all():
        first = tuple(int(k) for k in np.unravel_index(finite.argmin(), values.shape))
        axes = "frame, line, column" if values.ndim == 3 else "frame, coil, line, column"
        raise InputError(
            f"{where}: {finite.size - np.count_nonzero(finite)} values are NaN or infinite, the"
            f" first at {axes} {first}: repair or remove this series"
        )
    if not values.any():
        raise InputError(f"{where}: all values are zero: remove this series")


def require_usable(series: Series, path: Path) -> None:
    """Raise InputError unless the values are those of a cine: finite, several frames, magnitudes
    not negative, not all zero."""
    values, where = series.values, f"{path} ({series.name})"
    require_values(values, where)
    if len(values) < 2:
        raise InputError(
            f"{where} is {values.shape}, a single frame; expected a cine (frames, lines, columns):"
            " if another axis is time, name the order with --axes, such as --axes 'x y t'"
        )
    if values.dtype.kind == "f" and (low := float(values.min())) < 0:
        raise InputError(
            f"{where}: values begin at {low:g}; expected magnitudes, which are not negative, or"
            " complex images: export magnitude images"
        )


def in_order(
    names: Sequence[str],
    reconstructions: Mapping[str, np.ndarray],
    left_out: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> np.ndarray:
    """The reconstructions (T, Y, X) as one array (S, T, Y, X), zero for series that are missing and
    for the frames of each series that were left out."""
    whole = {name: with_left_out(x, left_out.get(name, ())) for name, x in reconstructions.items()}
    missing = np.zeros_like(next(iter(whole.values())))
    return np.stack([whole.get(name, missing) for name in names])


def with_left_out(images: np.ndarray, left_out: Sequence[int]) -> np.ndarray:
    """Images (T, Y, X) with zeros for the frames of the file that were left out."""
    there = np.ones(len(images) + len(left_out), bool)
    there[list(left_out)] = False
    whole = np.zeros((len(there), *images.shape[1:]), images.dtype)
    whole[there] = images
    return whole


def optional(module: str, package: str | None = None) -> ModuleType:
    """Import a library that only some formats need.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = package or module
        raise InputError(
            f"this format needs the package {package} ({error}): pip install {package}"
        ) from None


@contextlib.contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """Turn whatever a library raises on a file into an InputError: what the system refuses has
    words of its own, the rest is damage."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: name a scan that does") from None
    except Exception as error:  # libraries fail in many ways on what is not theirs
        reason = str(error).partition("\n")[0] or type(error).__name__
        if refused := refused_by_system(error):
            raise InputError(f"{path} cannot be read now: {refused}") from None
        raise InputError(f"{path} is truncated or damaged ({reason}): copy it again") from None


def refused_by_system(error: Exception) -> str | None:
    """What the operating system says, with a remedy; None: it has nothing to do with it. HDF5 has
    the system's number in its text."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := re.search(r"errno = (\d+)", str(error))):
        number = int(found[1])
    if number is None:
        return None
    remedies = {
        errno.EAGAIN: "another program has it open to write: close it there, or copy the file",
        errno.EACCES: "you have no permission: ask its owner, or copy it to your own folder",
        errno.ESTALE: "the network drive was mounted anew: open the folder again, and try again",
    }
    remedy = remedies.get(number, "check the drive, and try again")
    return f"{os.strerror(number)}; {remedy}"
