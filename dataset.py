"""Reading and checking the cine data.

A data file is an `.npz` with the key `dataset` (or a plain `.npy`): fully sampled magnitude images
[n_samples, n_frames, ny, nx] in [0, 1], or complex ones of such magnitude, and optionally
`groups` [n_samples], the patient of each sample. A sample is one slice over one heartbeat: time is
cyclic, and the last frame is followed by the first. In place of `dataset` it may have `kspace`,
k-space of several coils (`data/coil_data.py`), and HDF5 files may have that too. Undersampled
k-space, each sample with its own lines, is for training without the truth.

Headers and sizes are compared with the file and the memory before anything is allocated.
Samples are then read one at a time. Those of a compressed file, or of a small one, are held in
single precision. A large uncompressed `.npy`, or member of an `.npz`, is mapped into memory: a
sample is read from it when it is used, and it may be larger than the memory. Its checks read it
once; they are remembered (`data/remembered.py`). Nothing is ever unpickled. An input that cannot
be used raises `InputError`, which names the problem, what was expected and what to do.

    python dataset.py convert IN... cine.npz [--setting value ...]

makes such a file from scans of other formats (`formats/convert.py`).
"""

from util.source import early_arguments

if __name__ == "__main__":  # help and wrong flags end here, before the slow imports
    GIVEN = early_arguments(__file__)

import hashlib
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from CS_mask import given_lines
from data.coil_data import (
    AXES,
    CoilFindings,
    coil_memory,
    read_coils,
    require_kspace,
    require_lines_within,
    require_noise_of,
)
from data.quality import Quality, measure
from data.remembered import remembered
from data.samples import (
    CoilSamples,
    Images,
    MappedImages,
    checked,
    complex_samples,
    joined_pairs,
    single,
)
from data.stored import MAGIC, ZIP_MAGIC, Stored, require_memory, stored_in
from formats.hdf5 import HDF5Array, hdf5_arrays
from formats.reading import kind_of
from phantom.cached import load_phantom
from util.cache import source_hash
from util.command_line import Parser, main, parse_command_line
from util.errors import InputError
from util.files import require_there
from util.progress import name_list, progress, say

KEY, GROUPS_KEY = "dataset", "groups"
COILS_KEY, NOISE_KEY, MASK_KEY = "kspace", "noise", "mask"
PHANTOM = "phantom"  # the name of the built-in data, in place of a file
PHANTOM_SAMPLES, PHANTOM_SIZE = 200, (192, 192)
SYNTHETIC = "synthetic phantom: no patient was measured"
EXPECTED = f"expected an .npz with '{KEY}' [n_samples, n_frames, ny, nx], in [0, 1] (or complex)"
REMEDY = (
    "get or make it as described under 'Data' in the README, put it in this folder or name it with"
    " --data, or run on the built-in phantom with --data phantom"
)
MEMORY_REMEDY = (
    "save it with np.savez, uncompressed and in C order, which need not fit, give --n-samples, or"
    " use a larger machine"
)
COPIES = 5  # of one sample, while it is checked and measured
MEASURED_BYTES = 8192  # of the properties of a sample, with its thumbnail
CODE = source_hash("dataset")  # of this file and all that it imports
MAPPED_FROM = 1e9  # bytes of an uncompressed array from which it is not held, but mapped


@dataclass
class Cine:
    """Checked data."""

    # (n_samples, T, Y, X) float32 in [0, 1], or complex64 of such magnitude; of several coils
    # (n_samples, T, C, Y, X) complex64, whose combined images have such a magnitude
    images: Images
    groups: np.ndarray | None  # (n_samples,) patient of each sample, if known
    hashes: list[str]  # of each sample's float32 values
    source: str  # the file's name, or "phantom"
    notices: list[str]  # warnings and notes about the data, one per line
    quality: Quality  # measured properties of all samples
    # of undersampled k-space: the measured lines of each, as `CS_mask.Sampling.given` has them
    lines: tuple[tuple[str, ...], ...] = ()

    @property
    def is_undersampled(self) -> bool:
        """Whether there is no truth: only some lines of k-space were measured."""
        return bool(self.lines)

    @property
    def measured(self) -> np.ndarray:
        """The measured lines of undersampled k-space, (n_samples, T, Y) bool."""
        return np.stack([given_lines(lines) for lines in self.lines])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, Y, X)"""
        n_frames, *_, ny, nx = self.images.shape[1:]
        return n_frames, ny, nx

    @property
    def n_coils(self) -> int | None:
        """None: images of no coils."""
        return self.images.shape[2] if len(self.images.shape) == 5 else None

    @property
    def origin(self) -> list[str]:
        """The origin of the data, which every report of scores names, one per line."""
        return [SYNTHETIC] if self.source == PHANTOM else []

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
    if data == PHANTOM:
        if complex_pairs:
            raise InputError("--complex-pairs is for a file: for a phantom with phase give --phase")
        shape = (n_frames, *PHANTOM_SIZE)
        array = load_phantom(n_samples or PHANTOM_SAMPLES, shape, data_seed)
        hashes, measured = take(checked(array, array.dtype, normalise, data), array)
        patients = np.arange(len(array))  # each sample is one of its own
        images, quality = torch.from_numpy(array), Quality.of(measured)
        return Cine(images, patients, hashes, PHANTOM, [SYNTHETIC], quality)
    return read_data_file(Path(data), n_samples, complex_pairs, normalise)


def require_data(data: str) -> None:
    """Raise InputError if data, as `load_cine` takes them, are not there."""
    if data != PHANTOM:
        require_there(data, f"{EXPECTED}: {REMEDY}")


def read_data_file(path: Path, n_samples: int | None, complex_pairs: bool, normalise: bool) -> Cine:
    """The content of a data file; see `load_cine`."""
    require_data(str(path))
    try:
        if path.exists() and not path.is_file():
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise InputError(f"{path} is {kind}; {EXPECTED}: name a file")
        with path.open("rb") as file:
            contents = contents_of(file, path)
            stored, groups = contents.stored, contents.groups
            shape, dtype = stored.shape, stored.dtype
            if contents.is_kspace:
                require_kspace(shape, dtype, stored.where)
                if complex_pairs:
                    raise InputError("--complex-pairs is for images: leave it out with k-space")
            else:
                if complex_pairs:
                    shape, dtype = joined_pairs(shape, dtype, str(path))
                check_axes(shape, dtype, str(path))
            check_samples(shape[0], groups, n_samples, str(path))
            n = n_samples or shape[0]
            mapped = stored.can_be_mapped and stored.n_bytes >= MAPPED_FROM
            result: ReadSamples
            if contents.is_kspace:
                result = read_kspace(contents, n, mapped, path)
            elif mapped:
                result = mapped_images(contents, n, complex_pairs, normalise, path)
            else:
                result = read_images(contents, n, complex_pairs, normalise, path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be read ({reason}); {EXPECTED}") from None
    if groups is not None and groups.dtype.kind == "S":
        groups = np.char.decode(groups, "utf-8", "backslashreplace")  # as JSON wants names
    groups = None if groups is None else groups[:n_samples]
    notices = [*contents.notices, *result.notices]
    quality = Quality.of(result.measured)
    lines = tuple(result.lines)
    return Cine(result.images, groups, result.hashes, path.name, notices, quality, lines)


@dataclass
class Contents:
    """What a data file holds, unread."""

    stored: Stored | HDF5Array  # images, or k-space
    is_kspace: bool
    groups: np.ndarray | None = None
    noise: np.ndarray | None = None  # of the coils, if there is a scan of it
    mask: np.ndarray | None = None  # of the lines of k-space, if they are given
    notices: list[str] = field(default_factory=list)

    @property
    def images(self) -> Stored:
        """The array, which is images: HDF5 has k-space alone."""
        assert isinstance(self.stored, Stored)
        return self.stored


def contents_of(file: IO[bytes], path: Path) -> Contents:
    """The contents of an open data file."""
    magic = file.read(6)
    file.seek(0)
    if magic == MAGIC:
        size = path.stat().st_size
        stored = Stored(lambda: path.open("rb"), size, str(path), EXPECTED, lambda: (path, 0))
        return Contents(stored, len(stored.shape) == 5 and stored.dtype.kind == "c")
    if magic[:2] == ZIP_MAGIC:
        return contents_of_npz(file, path)
    if magic and kind_of(path) == "hdf5":
        arrays = hdf5_arrays(path)
        if COILS_KEY not in arrays:
            keys = ", ".join(map(repr, arrays)) or "none"
            raise InputError(
                f"{path} is HDF5 without '{COILS_KEY}', its arrays are {keys}; expected"
                f" '{COILS_KEY}' {AXES}: python dataset.py convert reads other files"
            )
        groups, noise, mask = (
            arrays[key].whole() if key in arrays else None
            for key in (GROUPS_KEY, NOISE_KEY, MASK_KEY)
        )
        return Contents(arrays[COILS_KEY], True, groups, noise, mask)
    problem = f"is neither .npz nor .npy (it begins with {magic!r})" if magic else "is empty"
    raise InputError(f"{path} {problem}; {EXPECTED}: {REMEDY}")


def contents_of_npz(file: IO[bytes], path: Path) -> Contents:
    """The contents of an open .npz file."""
    members = stored_in(file, path, EXPECTED)

    def small(name: str) -> np.ndarray | None:
        """An array that is read whole; None: there is none."""
        if name not in members:
            return None
        stored = members[name]()
        require_memory(stored.n_bytes, stored, MEMORY_REMEDY)
        return stored.whole()

    groups = small(GROUPS_KEY)
    if KEY in members:
        return Contents(members[KEY](), False, groups)
    if COILS_KEY in members:
        return Contents(members[COILS_KEY](), True, groups, small(NOISE_KEY), small(MASK_KEY))
    others = [name for name in members if name != GROUPS_KEY]
    if len(others) != 1:
        keys = ", ".join(map(repr, members)) or "none"
        raise InputError(f"{path} has no key '{KEY}', its keys are {keys}; {EXPECTED}")
    (key,) = others
    notice = f"no key '{KEY}' in {path.name}; its only array, '{key}', is used"
    return Contents(members[key](), False, groups, notices=[notice])


@dataclass
class ReadSamples:
    """The samples of a data file, and what was found in them."""

    images: Images
    hashes: list[str]
    measured: list[Any]  # properties of each sample
    notices: list[str] = field(default_factory=list)
    lines: list[tuple[str, ...]] = field(default_factory=list)  # see `CoilFindings`


def read_images(
    contents: Contents,
    n_samples: int,
    complex_pairs: bool,
    normalise: bool,
    path: Path,
) -> ReadSamples:
    """The first samples of stored images, checked, in single precision."""
    stored, data = contents.images, str(path)
    shape, dtype = stored.shape, stored.dtype
    if complex_pairs:
        shape, dtype = joined_pairs(shape, dtype, data)
    whole = stored.n_bytes * stored.is_fortran
    require_memory(memory_needed(n_samples, shape, dtype, whole), stored, MEMORY_REMEDY)
    samples: Iterable[np.ndarray] = stored.samples(n_samples)
    if complex_pairs:
        samples = complex_samples(samples)
    images = np.empty((n_samples, *shape[1:]), single(dtype))
    hashes, measured = take(checked(samples, images.dtype, normalise, data), images)
    return ReadSamples(torch.from_numpy(images), hashes, measured)


def mapped_images(
    contents: Contents,
    n_samples: int,
    complex_pairs: bool,
    normalise: bool,
    path: Path,
) -> ReadSamples:
    """The first samples of stored images, read when they are used; checked once."""
    stored = contents.images
    images = MappedImages(stored, n_samples, complex_pairs, normalise)
    require_memory(memory_needed(0, images.shape, stored.dtype), stored, MEMORY_REMEDY)
    stored.mapped(0)  # finds where the array begins while its file is open

    def find() -> dict[str, Any]:
        samples: Iterable[np.ndarray] = stored.samples(n_samples)
        samples = progress(samples, f"reading {path.name}", n_samples, lambda sample: 1)
        if complex_pairs:
            samples = complex_samples(samples)
        good = checked(samples, images.dtype, normalise, str(path))
        hashes, measured = take(good, None)
        return {"hashes": hashes, "measured": measured}

    settings = [complex_pairs, normalise]
    return ReadSamples(images, **remembered(find, path, stored, n_samples, settings, CODE))


def read_kspace(
    contents: Contents,
    n_samples: int,
    mapped: bool,
    path: Path,
) -> ReadSamples:
    """The coil images of the first samples of stored k-space; of a mapped file, made when they are
    used, and checked once."""
    stored, noise, where = contents.stored, contents.noise, str(path)
    _, n_frames, n_coils, ny, nx = stored.shape
    whole = stored.n_bytes * stored.is_fortran
    n_kept = 0 if mapped else n_samples
    require_memory(coil_memory(stored.shape, n_kept, whole), stored, MEMORY_REMEDY)
    require_noise_of(noise, n_samples, n_coils, where)
    images: Images
    if mapped:
        stored.mapped(0)  # finds where the array begins while its file is open

        def find() -> dict[str, Any]:
            return read_coils(stored, noise, n_samples, None, where).as_json()

        scans = (
            None if noise is None else [hashlib.sha256(noise.tobytes()).hexdigest(), *noise.shape]
        )
        known = remembered(find, path, stored, n_samples, scans, CODE)
        result = CoilFindings.of_json(known)
        images = CoilSamples(stored, result.whiten, result.scales)
    else:
        images = torch.empty(n_samples, n_frames, n_coils, ny, nx, dtype=torch.complex64)
        result = read_coils(stored, noise, n_samples, images, where)
    if contents.mask is not None:
        require_lines_within(contents.mask, stored.shape, result.lines, where)
    return ReadSamples(images, result.hashes, result.measured, result.notices, result.lines)


def take(samples: Iterable[np.ndarray], images: np.ndarray | None) -> tuple[list[str], list[Any]]:
    """The hashes and properties of checked samples, which are put into `images`, if given."""
    hashes, measured = [], []
    for i, sample in enumerate(samples):
        if images is not None:
            images[i] = sample
        hashes.append(hashlib.sha256(sample.data).hexdigest()[:16])
        measured.append(measure(torch.from_numpy(sample)))
    return hashes, measured


def memory_needed(
    n_samples: int, shape: Sequence[int], dtype: np.dtype, n_bytes_whole: int = 0
) -> int:
    """Bytes that are taken at most while images (N, T, Y, X) of `dtype` are read, checked and
    measured: the first `n_samples`, and copies of one.

    `n_bytes_whole`: of an array in Fortran order, which is read whole.
    """
    kept = single(dtype).itemsize
    n_bytes_each = n_samples * kept + COPIES * max(kept, dtype.itemsize)  # of a value of a sample
    measured = n_samples * MEASURED_BYTES
    return math.prod(shape[1:]) * n_bytes_each + measured + n_bytes_whole


def check_axes(shape: tuple[int, ...], dtype: np.dtype, data: str) -> None:
    """InputError unless axes and type are those of cine images."""
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


def check_samples(
    n_stored: int, groups: np.ndarray | None, n_samples: int | None, data: str
) -> None:
    """InputError unless `n_samples` are stored, and groups name the patient of each."""
    if n_samples is not None and n_samples > n_stored:
        raise InputError(f"{data} holds {n_stored} samples, --n-samples asks for {n_samples}")
    if groups is None:
        return
    known = groups.dtype.kind in "biuSU" or (
        groups.dtype.kind == "f" and bool(np.isfinite(groups).all())
    )
    if groups.shape != (n_stored,) or not known:
        raise InputError(
            f"{data}: '{GROUPS_KEY}' is {groups.shape} {groups.dtype}; expected ({n_stored},)"
            " numbers or names, the patient of each sample, none missing (NaN)"
        )
    if groups.dtype.kind in "SU" and (nameless := np.flatnonzero(np.char.strip(groups) == "")).size:
        raise InputError(
            f"{data}: '{GROUPS_KEY}' has no name for the samples {name_list(nameless.tolist())}:"
            " give every patient one, or leave the key out"
        )


def arguments() -> dict[str, Any]:
    """The arguments for `convert()` on the command line."""
    from formats.convert import convert  # which nothing else here needs

    parser = Parser(description="Make a training file from scans; convert --help has its settings.")
    parser.add_argument("command", choices=["convert"])
    parser.parse_args(sys.argv[1:2])
    return parse_command_line(convert, sys.argv[2:], program="dataset.py convert")


def from_command_line(given: dict[str, Any] | None = None) -> None:
    """`convert()` with the arguments of the command line, and its table; `given`: these, if parsed
    before."""
    from formats.convert import convert, summary

    say("\n".join(summary(*convert(**(arguments() if given is None else given)))))


if __name__ == "__main__":
    sys.exit(main("dataset.py", partial(from_command_line, GIVEN), "nothing was written"))
