"""Reading and checking the cine data.

A data file is an `.npz` with the key `dataset` (or a plain `.npy`): fully sampled magnitude images
[n_samples, n_frames, ny, nx] in [0, 1], or complex ones of such magnitude, and optionally
`groups` [n_samples], the patient of each sample. A sample is one slice over one heartbeat: time is
cyclic, and the last frame is followed by the first.

Headers and sizes are read, and compared with the file and the memory, before anything is allocated;
nothing is ever unpickled. An input that cannot be used raises `InputError`, which names the
problem, what was expected and what to do.
"""

import hashlib
import io
import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy_format
from torch import Tensor

from phantom.scanner import load_phantom
from util.errors import InputError
from util.machine import available_memory

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
LONGEST_HEADER = 10_000  # bytes; numpy's limit


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
    notices: list[str] = []
    groups = None
    if data == PHANTOM:
        if complex_pairs:
            raise InputError("--complex-pairs is for a file: for a phantom with phase give --phase")
        shape = (n_frames, *PHANTOM_SIZE)
        array = load_phantom(n_samples or PHANTOM_SAMPLES, shape, data_seed)
    else:
        array, groups, notices = read_arrays(Path(data))
        if complex_pairs:
            array = join_pairs(array, data)
        check_axes(array, groups, n_samples, data)
        if groups is not None and groups.dtype.kind == "S":
            groups = np.char.decode(groups, "utf-8", "backslashreplace")  # as JSON wants names
        array, groups = array[:n_samples], None if groups is None else groups[:n_samples]
    images = torch.from_numpy(check_values(array, normalise, data))
    hashes = [hashlib.sha256(memoryview(sample.numpy())).hexdigest()[:16] for sample in images]
    return Cine(images, groups, hashes, PHANTOM if data == PHANTOM else Path(data).name, notices)


def read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """The dataset, its groups (or None) and notices, as stored in an .npz or .npy file."""
    try:
        if path.exists() and not path.is_file():
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise InputError(f"{path} is {kind}; {EXPECTED}: name a file")
        with path.open("rb") as file:
            magic = file.read(6)
            file.seek(0)
            if magic == npy_format.MAGIC_PREFIX:
                size = path.stat().st_size
                return read_npy(lambda: path.open("rb"), size, str(path)), None, []
            if magic[:2] == b"PK":
                return read_npz(file, path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {EXPECTED}: {REMEDY}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {EXPECTED}") from None
    problem = "is empty" if not magic else f"is neither .npz nor .npy (it begins with {magic!r})"
    raise InputError(f"{path} {problem}; {EXPECTED}: {REMEDY}")


def read_npz(file: IO[bytes], path: Path) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Read the dataset and the groups from an open .npz file."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InputError(f"{path} is truncated or damaged ({error}): copy it again") from None
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    notices = []
    key = KEY
    if KEY not in members:
        others = [name for name in members if name != GROUPS_KEY]
        if len(others) != 1:
            keys = ", ".join(map(repr, members)) or "none"
            raise InputError(f"{path} has no key '{KEY}', its keys are {keys}; {EXPECTED}")
        key = others[0]
        notices.append(f"no key '{KEY}' in {path.name}; its only array, '{key}', is used")

    def read(name: str) -> np.ndarray:
        info = members[name]
        where = f"'{name}' in {path}"
        try:
            return read_npy(lambda: archive.open(info), info.file_size, where)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as e:
            raise InputError(
                f"{where} is truncated or damaged ({e}): copy the file again"
            ) from None

    return read(key), read(GROUPS_KEY) if GROUPS_KEY in members else None, notices


def read_npy(opened: Callable[[], IO[bytes]], size: int, where: str) -> np.ndarray:
    """Read one array of `size` bytes, header included, after checking what its header claims."""
    try:
        with opened() as file:
            shape, dtype, header_size = read_header(file)
    except Exception as error:  # numpy parses the header as Python, which fails in many ways
        reason = str(error).partition("\n")[0]
        raise InputError(f"{where} has a damaged header ({reason}); {EXPECTED}") from None
    if dtype.hasobject:
        raise InputError(
            f"{where} holds Python objects, which are never unpickled; {EXPECTED}: save it again as"
            " an array of numbers, names as np.array(names, dtype=str)"
        )
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != size - header_size:
        raise InputError(
            f"{where} claims {shape} {dtype}, {claimed} bytes, but holds {size - header_size}:"
            " it is truncated or damaged, copy it again"
        )
    kept = np.dtype(np.complex64 if dtype.kind == "c" else np.float32)
    needed = claimed + math.prod(shape) * kept.itemsize * (dtype != kept)
    memory = available_memory()
    if memory is not None and needed > memory:
        raise InputError(
            f"{where} is {shape} {dtype} and needs {needed / 1e9:.1f} GB of memory, but"
            f" {memory / 1e9:.1f} GB are free: make a smaller file or use a larger machine"
        )
    try:
        with opened() as file:
            array = npy_format.read_array(file, allow_pickle=False)
            file.read(1)  # reaching the end of a zip member checks its CRC
            return array
    except (ValueError, EOFError) as error:
        raise InputError(f"{where} is truncated or damaged ({error}): copy it again") from None


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and size in bytes of an .npy header; ValueError if it is none."""
    start = file.read(8)
    version = npy_format.read_magic(io.BytesIO(start))
    readers = {
        (1, 0): (2, npy_format.read_array_header_1_0),
        (2, 0): (4, npy_format.read_array_header_2_0),
    }
    if version not in readers:
        raise ValueError(f"unknown .npy version {version}")
    n_bytes, reader = readers[version]
    start += file.read(n_bytes)
    length = int.from_bytes(start[8:], "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"its header claims {length} bytes, more than {LONGEST_HEADER}")
    start += file.read(length)
    shape, _, dtype = reader(io.BytesIO(start[8:]))
    if any(isinstance(n, bool) or n < 0 for n in shape):
        raise ValueError(f"its shape is {shape}")
    return shape, dtype, len(start)


def check_axes(
    array: np.ndarray, groups: np.ndarray | None, n_samples: int | None, data: str
) -> None:
    """InputError unless the arrays' axes and types are those of cine data."""
    if array.ndim != 4 or 0 in array.shape:
        remedy = ""
        if array.ndim == 5 and array.shape[-1] == 2:
            remedy = ": --complex-pairs takes the last axis as real and imaginary part"
        elif array.ndim == 5 and 0 not in array.shape:
            remedy = (
                ": dataset.reshape(-1, *dataset.shape[2:]) makes a sample of every slice, where the"
                " first two axes are patient and slice"
            )
        raise InputError(
            f"{data}: the array is {array.shape}; {EXPECTED}, no axis of length 0{remedy}"
        )
    n_frames, ny, nx = array.shape[1:]
    if 2 * nx <= min(n_frames, ny):
        raise InputError(
            f"{data}: the array is {array.shape}, whose last axis is much the shortest, as if it"
            f" were the frames; {EXPECTED}: np.moveaxis(dataset, -1, 1) makes it so"
        )
    if array.dtype.names and len(array.dtype.names) == 2:
        real, imaginary = array.dtype.names
        raise InputError(
            f"{data}: the array has the fields {real!r} and {imaginary!r}; {EXPECTED}:"
            f" dataset[{real!r}] + 1j * dataset[{imaginary!r}] makes complex values"
        )
    if array.dtype.kind not in "biufc":
        raise InputError(f"{data}: the array is of type {array.dtype}; {EXPECTED}")
    if n_samples is not None and n_samples > len(array):
        raise InputError(f"{data} holds {len(array)} samples, --n-samples asks for {n_samples}")
    if groups is None:
        return
    known = groups.dtype.kind in "biuSU" or (
        groups.dtype.kind == "f" and bool(np.isfinite(groups).all())
    )
    if groups.shape != (len(array),) or not known:
        raise InputError(
            f"{data}: '{GROUPS_KEY}' is {groups.shape} {groups.dtype}; expected ({len(array)},)"
            " numbers or names, the patient of each sample, none missing (NaN)"
        )
    if groups.dtype.kind in "SU" and (nameless := np.flatnonzero(np.char.strip(groups) == "")).size:
        raise InputError(
            f"{data}: '{GROUPS_KEY}' has no name for the samples {name_list(nameless.tolist())}:"
            " give every patient one, or leave the key out"
        )


def join_pairs(array: np.ndarray, data: str) -> np.ndarray:
    """Complex values from an array whose last axis is real and imaginary part."""
    if array.ndim != 5 or array.shape[-1] != 2 or array.dtype.kind not in "biuf":
        raise InputError(
            f"{data}: the array is {array.shape} {array.dtype}, but --complex-pairs expects"
            " [n_samples, n_frames, ny, nx, 2] of real numbers: leave the flag out"
        )
    return array[..., 0] + 1j * array[..., 1].astype(np.float32)


def check_values(array: np.ndarray, normalise: bool, data: str) -> np.ndarray:
    """The values as contiguous native float32 in [0, 1], or InputError; complex ones as complex64
    of magnitude up to 1.

    Integers and other floats are converted without scaling.
    """
    is_complex = array.dtype.kind == "c"
    peaks, low, n_bad = [], np.inf, 0
    first: tuple[int, ...] = ()
    for i, sample in enumerate(array):  # one at a time, which needs no copies of the whole
        finite = np.isfinite(sample)
        if not finite.all():
            n_bad += int(finite.size - np.count_nonzero(finite))
            place = (int(k) for k in np.unravel_index(finite.argmin(), sample.shape))
            first = first or (i, *place)
        size = np.abs(sample) if is_complex else sample
        peaks.append(size.max())
        low = min(low, float(size.min()))
    if n_bad:
        raise InputError(
            f"{data}: {n_bad} values are NaN or infinite, the first at {first}: repair or remove"
            " these samples"
        )
    high = float(max(peaks))
    limit = 1 + (COMPLEX_EXCESS if is_complex else REAL_EXCESS)
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
    single = np.complex64 if is_complex else np.float32
    if not normalise:
        return np.ascontiguousarray(array, dtype=single)
    exact = np.dtype(np.float64)  # for integers
    wide = exact if array.dtype.kind in "biu" else np.result_type(array.dtype, np.float32)
    in_place = array.dtype == single and array.flags.c_contiguous and array.flags.writeable
    images = array if in_place else np.empty(array.shape, dtype=single)
    for i, (sample, peak) in enumerate(zip(array, peaks, strict=True)):
        images[i] = sample.astype(wide, copy=False) / (np.abs(wide.type(peak)) if peak > 0 else 1)
    return images


def name_list(samples: Sequence[int]) -> str:
    """Samples in words: "0, 3, 5"; only the first few of many."""
    more = len(samples) - MOST_NAMED
    return ", ".join(map(str, samples[:MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
