"""Many scans to one training file, `cine.npz`, as `load_cine` of `dataset.py` reads it.

    python dataset.py convert IN... cine.npz [--setting value ...]

Every fully sampled cine becomes a sample of one size, number of frames and scale
(`formats/fitting.py`). What is no scan is skipped, with the reason: reconstructions, label maps,
the same images once more.

With `keep_coils` the k-space of all coils is kept as it was measured, and a scan of their noise if
every sample has one; samples of another shape than the first are skipped.

Samples are written to a temporary file as they are read, so that one scan at a time is in memory.
"""

import hashlib
import os
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy_format

from data.coils import require_coils, require_noise
from data.kspace import combine_coils, is_full, measured_lines
from formats.bart import bart_data
from formats.dicom import read_dicom
from formats.fitting import sample_of
from formats.reading import kind_of, read_file
from formats.series import Series, require_usable
from physics.fourier import ifftc
from util.errors import InputError
from util.files import whole_file
from util.progress import progress
from util.settings import typed

SIZE = 192, 192  # lines and columns of a sample, as in the reference
LABELS = 16  # gray values at most that make a map of labels
DEBUG = "CINE_DEBUG"  # environment variable: show where an unexpected error was raised
ROUNDS = 200_000  # of the hash that makes a pseudonym, about 0.1 s, against trying many names
COMPRESSION = 1  # of zlib: the fastest


@dataclass(frozen=True)
class ConvertedSeries:
    """What became of a series, or of a scan that could not be read."""

    source: str
    series: str  # "" for a whole scan
    patient: str  # as in the file that is written; "" if skipped
    result: str  # "read, ..." or "skipped: ..."

    @property
    def was_read(self) -> bool:
        return bool(self.patient)


@dataclass(frozen=True)
class Outcome:
    """What a series becomes."""

    series: str
    patient: str
    result: str  # as of a `ConvertedSeries`
    notes: list[str]
    sample: np.ndarray | None  # (T, Y, X), or (T, C, Y, X) of coils; None: it is skipped


def convert(
    inputs: tuple[str, ...],  # scans: files, and folders, which are searched
    output: str,  # the file to write, such as cine.npz; it must not exist
    *,
    # -- samples
    size: tuple[int, ...] | None = None,  # lines and columns; None: 192 192, smaller ones skipped
    n_frames: int = 20,  # frames of a sample, over one heartbeat
    keep_phase: bool = False,  # write complex images; default: magnitudes
    keep_coils: bool = False,  # write the k-space of all coils, of any size, instead of images
    # -- reading
    axes: str | None = None,  # order of the axes in all files, such as 'x y t'
    # -- patients
    keep_names: bool = False,  # write the names of patients; default: pseudonyms
) -> tuple[list[ConvertedSeries], list[str]]:
    """Convert scans of any format to one training file.

    Returns:
        what became of each series, and notes on all of them.

    Raises:
        InputError: a setting cannot be used, `output` exists, or nothing could be read.
    """
    given = typed(convert, dict(locals()))
    inputs, size = given["inputs"], given["size"]
    target = checked_output(given["output"])
    may_pad, size = size is not None, size or SIZE
    if len(size) not in (1, 2) or min(size) < 1:
        raise InputError(f"--size is {size}, expected lines and columns, such as 192 192")
    if n_frames < 2:
        raise InputError(f"--n-frames is {n_frames}, expected at least 2")
    shape: tuple[int, ...] = (n_frames, size[0], size[-1])
    undersampled = False  # whether the samples of k-space are

    def made(series: Series) -> tuple[np.ndarray, str]:
        """The sample of a series, and what was done."""
        nonlocal shape, undersampled
        if not keep_coils:
            images = full_images(series, keep_phase)
            require_new(images, f"{source} ({series.name})", known)
            return sample_of(images, (n_frames, size[0], size[-1]), may_pad)
        sample = kspace_of_coils(series)
        require_new(sample, f"{source} ({series.name})", known)
        if groups and sample.shape != shape:
            raise InputError(f"its shape is not {' x '.join(map(str, shape))}, as of the first")
        kind = not is_full(measured_lines(sample, series.name))
        if groups and kind != undersampled:
            kinds = ("undersampled", "fully sampled")
            raise InputError(f"{kinds[undersampled]}, and the first is {kinds[kind]}")
        shape, undersampled = sample.shape, kind
        if undersampled:
            series.notes.append("undersampled: for train.py --supervision self")
        noises.append(series.noise)
        return sample, "as measured"

    noises: list[np.ndarray | None] = []
    known: dict[bytes, str] = {}  # series by the hash of their images
    if keep_coils and (n_frames, may_pad, keep_phase) != (20, False, False):
        raise InputError(
            "--size, --n-frames and --keep-phase are for images, and --keep-coils keeps k-space as"
            " it was measured: leave them out"
        )

    # the scans of all inputs, and the files that are none
    rows: list[ConvertedSeries] = []
    groups: list[str] = []
    notes: Counter[str] = Counter()
    scans, others = find_scans(inputs)
    notes.update(others)
    owners = patients_of_files(scans)
    try:
        # samples go to a file as they are read, because the header needs their number
        with tempfile.TemporaryFile(dir=target.parent) as samples:
            items = progress(scans.items(), "reading", len(scans), lambda item: 1, unit="scan")
            for source, files in items:
                for found in read_samples(source, files, owners[source], given["axes"], made):
                    notes.update(found.notes)
                    patient = ""
                    if found.sample is not None:
                        samples.write(found.sample.data)
                        patient = found.patient if keep_names else pseudonym(found.patient)
                        groups.append(patient)
                    rows.append(ConvertedSeries(str(source), found.series, patient, found.result))
            if not groups:
                reasons = rows[0].result if rows else "there is no scan"
                raise InputError(f"nothing could be read from {', '.join(inputs)}: {reasons}")
            samples.seek(0)
            dtype = np.dtype(np.complex64 if keep_phase or keep_coils else np.float32)
            key = "kspace" if keep_coils else "dataset"
            others_kept = {"groups": np.array(groups, dtype=str), **common_noise(noises)}
            write_npz(target, key, samples, (len(groups), *shape), dtype, others_kept)
    except OSError as error:
        raise InputError(f"{target} could not be written ({error.strerror}): free space") from None
    return rows, [note if n == 1 else f"{note} ({n} times)" for note, n in notes.items()]


def checked_output(output: str) -> Path:
    """The file to write; InputError if it cannot be, or exists."""
    target = Path(output)
    if target.suffix != ".npz":
        raise InputError(f"the output is {output!r}, expected a name that ends in .npz: it is last")
    if target.exists():
        raise InputError(f"{target} exists and is not overwritten: name another, or remove it")
    if not target.parent.is_dir():
        raise InputError(f"the folder {target.parent} does not exist: make it first")
    return target


def find_scans(inputs: Sequence[str]) -> tuple[dict[Path, list[Path]], list[str]]:
    """The scans among files and in folders, in order: {file or folder of DICOM files: its files};
    and a note for each file in a folder that is of no known format.

    Raises:
        InputError: an input does not exist.
    """
    scans: dict[Path, list[Path]] = {}
    others = []
    for name in inputs:
        path = bart_data(Path(name)) or Path(name)
        if not path.exists():
            raise InputError(f"{path} does not exist: name files, or folders to search")
        files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
        for file in files:
            if bart_data(file) not in (None, file):
                continue  # a header, whose data are another file
            is_hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            try:
                kind = None if is_hidden else kind_of(file)
            except OSError:
                kind = "unreadable"
            if kind == "dicom" and file != path:
                scans.setdefault(file.parent, []).append(file)
            elif kind is not None or file == path:
                scans[file] = [file]
            else:
                suffix = file.suffix or "none"
                others.append(f"a file of no known format is left out (suffix: {suffix})")
    return scans, others


def patients_of_files(scans: dict[Path, list[Path]]) -> dict[Path, str]:
    """The patient of each scan, where its header names none: the first folder below the one that
    all scans have in common, else the name of the file."""
    if not scans:
        return {}
    parents = [path.absolute().parent for path in scans]
    common = Path(os.path.commonpath(parents))
    owners = {}
    for path in scans:
        below = path.absolute().relative_to(common).parts
        owners[path] = below[0] if len(below) > 1 else path.name.partition(".")[0]
    return owners


@cache
def pseudonym(patient: str) -> str:
    """A name that stands for a patient, the same in every conversion.

    It is a hash that is slow to compute. Who has a list of names or numbers can still find out
    which of them are in a file.
    """
    digest = hashlib.pbkdf2_hmac("sha256", patient.encode("utf-8", "replace"), b"cine", ROUNDS)
    return f"patient_{digest.hex()[:12]}"


def read_samples(
    source: Path,
    files: Sequence[Path],
    owner: str,
    axes: str | None,
    made: Callable[[Series], tuple[np.ndarray, str]],
) -> Iterator[Outcome]:
    """What becomes of each series of a scan, in turn, or of the scan if it cannot be read.

    Args:
        owner: the patient, if neither header nor file has one.
        made: the sample of a series, and what was done; InputError if it is skipped.
    """
    try:
        scan = read_dicom(source, None, files) if source.is_dir() else read_file(source, axes)
        notes = scan.notes
        for i, series in enumerate(scan.load()):
            patient = series.patient or owner
            if not series.patient and not scan.one_patient and len(scan) > 1:
                patient = f"{owner}/{i}"  # of unknown patients, each sample counts as one
            sample = None
            try:
                require_usable(series, source)
                sample, done = made(series)
                result = f"read, {' x '.join(map(str, series.values.shape))}, {done}"
            except InputError as error:
                result = f"skipped: {error}"
            yield Outcome(series.name, patient, result, [*notes, *series.notes], sample)
            notes = []
    except InputError as error:
        yield Outcome("", "", f"skipped: {error}", [], None)
    except OSError as error:
        yield Outcome("", "", f"skipped: {source} ({error.strerror or error})", [], None)
    except Exception as error:  # of one scan, which must not end the work on the others
        if os.environ.get(DEBUG):
            raise
        reason = f"{source} cannot be read ({type(error).__name__}: {error})"
        hint = f"the environment variable {DEBUG}=1 shows where"
        yield Outcome("", "", f"skipped: {reason}; {hint}", [], None)


def full_images(series: Series, keep_phase: bool) -> np.ndarray:
    """The images (T, Y, X) of a series, as they are stored.

    Raises:
        InputError: it is undersampled, does not move, or has no phase although it is kept.
    """
    values = series.values
    if series.not_a_scan:
        raise InputError(series.not_a_scan)
    if series.is_kspace:
        coils = values if values.ndim == 4 else values[:, None]
        if not is_full(measured_lines(coils, series.name)):
            raise InputError("undersampled k-space, where training needs full k-space")
        if values.ndim == 4:
            values, note = combine_coils(values, series.maps)
            series.notes.append(note)
        else:
            values = ifftc(torch.from_numpy(values)).numpy()
    if series.mask is not None and not series.is_kspace and not is_full(series.mask):
        raise InputError("images with a mask, which may be undersampled")
    if keep_phase and values.dtype.kind != "c":
        raise InputError("magnitudes, which have no phase (--keep-phase)")
    if (values == values[0]).all():
        raise InputError("all frames are equal, which is no cine")
    if (n_levels := len(np.unique(values[0]))) <= LABELS and (values == values.round()).all():
        raise InputError(f"{n_levels} whole numbers are all its values, as of a map of labels")
    return values if keep_phase else np.abs(values)


def require_new(values: np.ndarray, name: str, known: dict[bytes, str]) -> None:
    """Raise InputError if a series was read before, as when a folder has a copy of a scan.

    `known`: the names of the series that were read, by the hash of their values; gets this one.
    """
    digest = hashlib.sha256(np.ascontiguousarray(values).data).digest()
    if digest in known:
        raise InputError(f"the same images as of {known[digest]}, which was read before")
    known[digest] = name


def kspace_of_coils(series: Series) -> np.ndarray:
    """The k-space (T, C, Y, X) of a series, of one coil or several, fully sampled or not.

    Raises:
        InputError: it is images.
    """
    if not series.is_kspace:
        raise InputError("images, which are no k-space (--keep-coils)")
    kspace = series.values if series.values.ndim == 4 else series.values[:, None]
    require_coils(kspace, series.name)
    if series.noise is not None:
        require_noise(series.noise, kspace.shape[1], series.name)
    return np.ascontiguousarray(kspace)


def common_noise(scans: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
    """The noise (N, C, n) of samples, of as many values as all have; empty if some have none."""
    known = [scan for scan in scans if scan is not None]
    if not known or len(known) < len(scans):
        return {}
    n = min(scan.shape[1] for scan in known)
    return {"noise": np.stack([scan[:, :n] for scan in known])}


def write_npz(
    target: Path,
    key: str,
    samples: IO[bytes],
    shape: tuple[int, ...],
    dtype: np.dtype,
    others: dict[str, np.ndarray],
) -> None:
    """Write an array, copied from `samples`, and other ones, whole or not at all. K-space, which is
    large and mostly noise, is not compressed."""
    method = zipfile.ZIP_STORED if key == "kspace" else zipfile.ZIP_DEFLATED
    header = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with (
        whole_file(target) as file,
        zipfile.ZipFile(file, "w", method, compresslevel=COMPRESSION) as archive,
    ):
        with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
            npy_format.write_array_header_2_0(member, header)
            shutil.copyfileobj(samples, member)
        for name, array in others.items():
            with archive.open(f"{name}.npy", "w") as member:
                npy_format.write_array(member, array, allow_pickle=False)


def summary(rows: Sequence[ConvertedSeries], notes: Sequence[str]) -> list[str]:
    """The table of what was read and skipped, and why, then the notes."""
    read = [row for row in rows if row.was_read]
    widths = [max((len(text) for text in texts), default=0) for texts in (
        [row.source for row in rows], [row.series for row in rows], [row.patient for row in rows]
    )]  # fmt: skip
    lines = [
        "  ".join(
            (
                row.source.ljust(widths[0]),
                row.series.ljust(widths[1]),
                row.patient.ljust(widths[2]),
                row.result,
            )
        )
        for row in rows
    ]
    lines += [f"NOTICE: {note}" for note in notes]
    n_patients = len({row.patient for row in read})
    n_skipped = len(rows) - len(read)
    return [*lines, f"{len(read)} samples of {n_patients} patients; {n_skipped} skipped"]
