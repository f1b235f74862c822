"""Reading and checking the cine data.

A data file is an `.npz` with the key `dataset` (or a plain `.npy`): fully sampled magnitude images
[n_samples, n_frames, ny, nx] in [0, 1], or complex ones of such magnitude, and optionally
`groups` [n_samples], the patient of each sample. A sample is one slice over one heartbeat: time is
cyclic, and the last frame is followed by the first.

Headers and sizes are read, and compared with the file and the memory, before anything is allocated;
samples are then read one at a time, so that only images in single precision are ever held. Nothing
is ever unpickled. An input that cannot be used raises `InputError`, which names the
problem, what was expected and what to do.

    python dataset.py convert IN... cine.npz [--setting value ...]

makes such a file from scans of other formats (`formats/convert.py`).
"""

import hashlib
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from phantom.cached import load_phantom
from util.command_line import Parser, main, parse_command_line
from util.errors import InputError
from util.progress import say
from util.stored import MAGIC, ZIP_MAGIC, Stored, require_memory, stored_in

KEY, GROUPS_KEY = "dataset", "groups"
PHANTOM = "phantom"  # the name of the built-in data, in place of a file
PHANTOM_SAMPLES, PHANTOM_SIZE = 200, (192, 192)
EXPECTED = f"expected an .npz with '{KEY}' [n_samples, n_frames, ny, nx], in [0, 1] (or complex)"
REMEDY = (
    "get or make it as described under 'Data' in the README, put it in this folder or name it with"
    " --data, or run on the built-in phantom with --data phantom"
)
MOST_NAMED = 20  # samples in one line; all are in config.json
REAL_EXCESS = 2.0**-24  # over 1: float32 rounds this to 1
COMPLEX_EXCESS = 1e-5  # over 1: the rounded magnitude of values divided by their magnitude
MEMORY_REMEDY = "make a smaller file, give --n-samples, or use a larger machine"
COPIES = 4  # of one sample, while it is checked and measured


@dataclass
class Cine:
    """Checked data."""

    images: Tensor  # (n_samples, T, Y, X) float32 in [0, 1], or complex64 of such magnitude
    groups: np.ndarray | None  # (n_samples,) patient of each sample, if known
    hashes: list[str]  # of each sample's float32 values
    source: str  # the file's name, or "phantom"
    notices: list[str]  # what the user should know about the data, a line each

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, Y, X)"""
        return tuple(self.images.shape[1:])  # type: ignore[return-value]

    @property
    def hash(self) -> str:
        """One hash of all samples, in their order."""
        return hashlib.sha256("".join(self.hashes).encode()).hexdigest()[:16]


def load_cine(
    data: str,
    n_samples: int | None,
    complex_pairs: bool,
    normalise: bool,
    n_frames: int,
    data_seed: int,
) -> Cine:
    """Load and check a data file, or make the phantom.

    Args:
        data: path of an .npz or .npy file, or "phantom".
        n_samples: use only the first n samples; None for all (of the phantom: 200).
        complex_pairs: the array has a last axis of 2, the real and the imaginary part.
        normalise: divide every sample by its maximum.
        n_frames, data_seed: number of frames and seed of the phantom; ignored for a file.

    Raises:
        InputError: the file cannot be used.
    """
    groups = None
    notices: list[str] = []
    if data == PHANTOM:
        if complex_pairs:
            raise InputError("--complex-pairs is for a file: for a phantom with phase give --phase")
        shape = (n_frames, *PHANTOM_SIZE)
        array = load_phantom(n_samples or PHANTOM_SAMPLES, shape, data_seed)
        check_values(array, array, normalise, data)
    else:
        array, groups, notices = read_file(Path(data), n_samples, complex_pairs, normalise)
    images = torch.from_numpy(array)
    hashes = [hashlib.sha256(memoryview(sample.numpy())).hexdigest()[:16] for sample in images]
    return Cine(images, groups, hashes, PHANTOM if data == PHANTOM else Path(data).name, notices)


def read_file(
    path: Path, n_samples: int | None, complex_pairs: bool, normalise: bool
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """The images of an .npz or .npy file, as `Cine` has them, the groups (or None) and notices."""
    try:
        if path.exists() and not path.is_file():
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise InputError(f"{path} is {kind}; {EXPECTED}: name a file")
        groups = None
        notices: list[str] = []
        with path.open("rb") as file:
            magic = file.read(6)
            file.seek(0)
            if magic == MAGIC:
                stored = Stored(lambda: path.open("rb"), path.stat().st_size, str(path), EXPECTED)
            elif magic[:2] == ZIP_MAGIC:
                stored, groups, notices = read_npz(file, path)
            else:
                problem = f"is neither .npz nor .npy (it begins with {magic!r})"
                problem = problem if magic else "is empty"
                raise InputError(f"{path} {problem}; {EXPECTED}: {REMEDY}")
            images = read_images(stored, groups, n_samples, complex_pairs, normalise, str(path))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {EXPECTED}: {REMEDY}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {EXPECTED}") from None
    if groups is not None and groups.dtype.kind == "S":
        groups = np.char.decode(groups, "utf-8", "backslashreplace")  # as JSON wants names
    return images, None if groups is None else groups[:n_samples], notices


def read_npz(file: IO[bytes], path: Path) -> tuple[Stored, np.ndarray | None, list[str]]:
    """The dataset of an open .npz file, its groups (or None) and notices."""
    members = stored_in(file, path, EXPECTED)
    notices = []
    key = KEY
    if KEY not in members:
        others = [name for name in members if name != GROUPS_KEY]
        if len(others) != 1:
            keys = ", ".join(map(repr, members)) or "none"
            raise InputError(f"{path} has no key '{KEY}', its keys are {keys}; {EXPECTED}")
        key = others[0]
        notices.append(f"no key '{KEY}' in {path.name}; its only array, '{key}', is used")

    groups = None
    if GROUPS_KEY in members:
        of_groups = members[GROUPS_KEY]()
        require_memory(of_groups.n_bytes, of_groups, MEMORY_REMEDY)
        groups = of_groups.whole()
    return members[key](), groups, notices


def read_images(
    stored: Stored,
    groups: np.ndarray | None,
    n_samples: int | None,
    complex_pairs: bool,
    normalise: bool,
    data: str,
) -> np.ndarray:
    """The first `n_samples` (None: all) of a stored dataset, checked, in single precision."""
    shape, dtype = stored.shape, stored.dtype
    if complex_pairs:
        shape, dtype = joined_pairs(shape, dtype, data)
    check_axes(shape, dtype, groups, n_samples, data)
    n = n_samples or shape[0]
    require_memory(
        memory_needed(n, shape, dtype, stored.n_bytes * stored.is_fortran), stored, MEMORY_REMEDY
    )
    images = np.empty((n, *shape[1:]), single(dtype))
    samples = stored.samples(n)
    if complex_pairs:
        samples = joined(samples, np.empty(shape[1:], dtype))
    check_values(samples, images, normalise, data)
    return images


def joined(pairs: Iterable[np.ndarray], sample: np.ndarray) -> Iterator[np.ndarray]:
    """Complex samples, each in the memory of `sample`, from those whose last axis is real and
    imaginary part."""
    for pair in pairs:
        sample.real, sample.imag = pair[..., 0], pair[..., 1]
        yield sample


def single(dtype: np.dtype) -> np.dtype:
    """The type that values of `dtype` are kept in."""
    return np.dtype(np.complex64 if dtype.kind == "c" else np.float32)


def memory_needed(
    n_samples: int, shape: Sequence[int], dtype: np.dtype, n_bytes_whole: int = 0
) -> int:
    """Bytes that are taken at most while images (N, T, Y, X) of `dtype` are read, checked and
    measured: the first `n_samples`, and copies of one.

    `n_bytes_whole`: of an array in Fortran order, which is read whole.
    """
    kept = single(dtype).itemsize
    n_bytes_each = n_samples * kept + COPIES * max(kept, dtype.itemsize)  # of a value of a sample
    return math.prod(shape[1:]) * n_bytes_each + n_bytes_whole


def check_axes(
    shape: tuple[int, ...],
    dtype: np.dtype,
    groups: np.ndarray | None,
    n_samples: int | None,
    data: str,
) -> None:
    """InputError unless axes, types and groups are those of cine data."""
    if len(shape) != 4 or 0 in shape:
        remedy = ""
        if len(shape) == 5 and shape[-1] == 2:
            remedy = ": --complex-pairs takes the last axis as real and imaginary part"
        elif len(shape) == 5 and 0 not in shape:
            remedy = (
                ": dataset.reshape(-1, *dataset.shape[2:]) makes a sample of every slice, where the"
                " first two axes are patient and slice"
            )
        raise InputError(f"{data}: the array is {shape}; {EXPECTED}, no axis of length 0{remedy}")
    n_frames, ny, nx = shape[1:]
    if 2 * nx <= min(n_frames, ny):
        raise InputError(
            f"{data}: the array is {shape}, whose last axis is much the shortest, as if it"
            f" were the frames; {EXPECTED}: np.moveaxis(dataset, -1, 1) makes it so"
        )
    if dtype.names and len(dtype.names) == 2:
        real, imaginary = dtype.names
        raise InputError(
            f"{data}: the array has the fields {real!r} and {imaginary!r}; {EXPECTED}:"
            f" dataset[{real!r}] + 1j * dataset[{imaginary!r}] makes complex values"
        )
    if dtype.kind not in "biufc":
        raise InputError(f"{data}: the array is of type {dtype}; {EXPECTED}")
    if n_samples is not None and n_samples > shape[0]:
        raise InputError(f"{data} holds {shape[0]} samples, --n-samples asks for {n_samples}")
    if groups is None:
        return
    known = groups.dtype.kind in "biuSU" or (
        groups.dtype.kind == "f" and bool(np.isfinite(groups).all())
    )
    if groups.shape != shape[:1] or not known:
        raise InputError(
            f"{data}: '{GROUPS_KEY}' is {groups.shape} {groups.dtype}; expected ({shape[0]},)"
            " numbers or names, the patient of each sample, none missing (NaN)"
        )
    if groups.dtype.kind in "SU" and (nameless := np.flatnonzero(np.char.strip(groups) == "")).size:
        raise InputError(
            f"{data}: '{GROUPS_KEY}' has no name for the samples {name_list(nameless.tolist())}:"
            " give every patient one, or leave the key out"
        )


def joined_pairs(
    shape: tuple[int, ...], dtype: np.dtype, data: str
) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of complex values whose real and imaginary part are the array's last axis."""
    if len(shape) != 5 or shape[-1] != 2 or dtype.kind not in "biuf":
        raise InputError(
            f"{data}: the array is {shape} {dtype}, but --complex-pairs expects"
            " [n_samples, n_frames, ny, nx, 2] of real numbers: leave the flag out"
        )
    return shape[:-1], np.result_type(dtype, np.complex64)


def check_values(
    samples: Iterable[np.ndarray], images: np.ndarray, normalise: bool, data: str
) -> None:
    """Put the samples into `images`, float32 in [0, 1], or complex64 of magnitude up to 1;
    InputError if they cannot be.

    Integers and other floats are converted without scaling. A sample may be an item of `images`.
    """
    is_complex = images.dtype.kind == "c"
    limit = 1 + (COMPLEX_EXCESS if is_complex else REAL_EXCESS)
    low, high, n_bad = np.inf, 0.0, 0
    first: tuple[int, ...] = ()
    for i, sample in enumerate(samples):
        finite = np.isfinite(sample)
        if not finite.all():
            n_bad += int(finite.size - np.count_nonzero(finite))
            place = (int(k) for k in np.unravel_index(finite.argmin(), sample.shape))
            first = first or (i, *place)
            continue
        size = np.abs(sample) if is_complex else sample
        peak = size.max()
        low, high = min(low, float(size.min())), max(high, float(peak))
        if low < 0 or (high > limit and not normalise):
            continue  # it is refused below
        if normalise and peak > 0:
            is_whole = sample.dtype.kind in "biu"
            wide = np.dtype(np.float64) if is_whole else np.result_type(sample.dtype, np.float32)
            scale = np.abs(wide.type(peak))
            np.divide(sample, scale, out=images[i], dtype=wide, casting="same_kind")
        else:
            images[i] = sample
    if n_bad:
        raise InputError(
            f"{data}: {n_bad} values are NaN or infinite, the first at {first}: repair or remove"
            " these samples"
        )
    if low < 0 or (high > limit and not normalise):
        raise InputError(
            f"{data}: {'magnitudes' if is_complex else 'values'} lie in [{low:g}, {high:.7g}],"
            " expected [0, 1]: "
            + (
                "magnitude images have no negative values"
                if low < 0
                else "--normalise divides every sample by its maximum"
            )
        )


def name_list(samples: Sequence[int]) -> str:
    """Samples in words: "0, 3, 5"; only the first few of many."""
    more = len(samples) - MOST_NAMED
    return ", ".join(map(str, samples[:MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


def from_command_line() -> None:
    """`convert()` with the arguments of the command line, and its table."""
    from formats.convert import convert, summary  # which nothing else here needs

    parser = Parser(description="Make a training file from scans; convert --help has its settings.")
    parser.add_argument("command", choices=["convert"])
    parser.parse_args(sys.argv[1:2])
    given = parse_command_line(convert, sys.argv[2:], program="dataset.py convert")
    say("\n".join(summary(*convert(**given))))


if __name__ == "__main__":
    sys.exit(main("dataset.py", from_command_line, "nothing was written"))
