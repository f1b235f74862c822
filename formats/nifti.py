"""NIfTI files, told by their content and not by their name.

Axes are (x, y, s, t), or with x and y as `dim_info` of the header has them; where the fourth axis
has length 1 and a fifth is longer, the fifth is time. What is written has the shape, the affine and
the header of the input, without its free texts.
"""

import contextlib
import gzip
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from formats.arrays import ChosenArray, FileLayout, scan_of_arrays
from formats.axes import from_frames, spelled
from formats.content import acquired_lines, looks_like_phase
from formats.series import OWN, Scan, Series, damage_explained, in_order, optional
from formats.variables import Variable
from util.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
NIFTI_MAGICS = (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0")
NIFTI_PLACES = (344, 4)  # of version 1 and 2
SUFFIXES = (".gz", ".nii", ".hdr", ".img")
TEXTS = ("descrip", "aux_file", "intent_name", "db_name")  # of the header, not written
MILLISECONDS = {"sec": 1000.0, "msec": 1.0, "usec": 0.001}  # of a unit of time
DESCRIPTION = "DERIVED: cine reconstruction"


def nifti_magic(head: bytes) -> bytes:
    """The magic number in the first bytes of a file; empty if it is no NIfTI."""
    found = [head[place : place + 4] for place in NIFTI_PLACES]
    return next((magic for magic in found if magic in NIFTI_MAGICS), b"")


def read_nifti(path: Path, axes: str | None) -> Scan:
    """The scan in a NIfTI file.

    Raises:
        InputError: nibabel is not installed, the file is damaged or no cine.
    """
    variable, header, order = nifti_variable(path)
    shape = variable.shape
    if order is None and axes is None and len(shape) > 4:
        raise InputError(
            f"{path} is {shape}, five axes or more, of which not all are places or times; expected"
            " (x, y, s, t): name their order with --axes, such as --axes 'x y s t c', or export"
            " images alone"
        )
    form = FileLayout("NIfTI file", ("xyst",), lambda variable, is_kspace: order)
    scan, choice = scan_of_arrays(path, form, [variable], axes)
    if axes is None and "-t" in choice.axes:
        scan.notes.append(
            f"the axes {shape} are taken as '{spelled(choice.axes)}', as the fourth has length 1"
            " (--axes sets them)"
        )
    scan.load = partial(described, scan.load, header, choice.axes)
    scan.write = partial(nifti_file, path, tuple(scan.names), choice)
    return scan


def nifti_variable(path: Path) -> tuple[Variable, Any, str | None]:
    """The array in a NIfTI file, its header, and the order of axes that this means; None: it cannot
    tell.

    Raises:
        InputError: nibabel is not installed, the file is damaged, or a colour image.
    """
    with damage_explained(path), opened(path) as image:
        shape, dtype = tuple(image.shape), image.get_data_dtype()
        header = image.header.copy()
        order = nifti_axes(header, shape)
    if dtype.names is not None:
        raise InputError(f"{path} is a colour image; expected gray images: export it as such")
    single = np.dtype(np.complex64 if dtype.kind == "c" else np.float32)
    return Variable("image", shape, single, partial(part_of, path)), header, order


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The image in a file, compressed or not, whatever its name.

    Raises:
        InputError: nibabel is not installed, or the values are in a file that cannot be found.
    """
    nibabel = optional("nibabel")
    nibabel.imageglobals.logger.setLevel("CRITICAL")  # it tells of every value that it corrects
    with path.open("rb") as file:
        is_compressed = file.read(2) == GZIP_MAGIC
    with gzip.open(path) if is_compressed else path.open("rb") as file:
        magic = nifti_magic(file.read(348))
        file.seek(0)
        if magic.startswith(b"ni"):  # a pair of files
            if path.name.removesuffix(".gz").endswith(".hdr"):
                yield nibabel.load(path)
                return
            raise InputError(
                f"{path} is the header of a pair of NIfTI files; expected a name that ends in .hdr,"
                " beside its .img: rename both"
            )
        kind = nibabel.Nifti2Image if magic == NIFTI_MAGICS[2] else nibabel.Nifti1Image
        holder = nibabel.FileHolder(fileobj=file)
        yield kind.from_file_map({"header": holder, "image": holder})


def nifti_axes(header: Any, shape: Sequence[int]) -> str | None:
    """The order of axes that the header means; None: it cannot tell.

    The fifth axis is time if the fourth has length 1, unless the header calls it a vector's.
    """
    n_axes = len(shape)
    longer = [axis for axis in range(4, n_axes) if shape[axis] > 1]
    is_vector = header.get_intent()[0] == "vector"
    if n_axes < 3 or longer not in ([], [4]) or (longer and (shape[3] > 1 or is_vector)):
        return None
    frequency, phase, _ = header.get_dim_info()
    plane = {frequency: "x", phase: "y"}
    if None in plane or len(plane) < 2:
        flat = [axis for axis in range(3) if shape[axis] == 1]
        slices = flat[0] if len(flat) == 1 else 2  # the axis of a single slice, or the last
        plane = dict(zip((axis for axis in range(3) if axis != slices), "xy", strict=True))
    order = "".join(plane.get(axis, "s") for axis in range(3))
    order += "-t" if longer else "t"
    return order[:n_axes] + "-" * (n_axes - len(order))


def part_of(path: Path, part: tuple[slice, ...]) -> np.ndarray:
    """A part of the image, scaled as the header says."""
    with damage_explained(path), opened(path) as image:
        return np.asarray(image.dataobj[part])


def described(load: Any, header: Any, axes: str) -> Iterator[Series]:
    """The series with what header and values say of them."""
    zooms = [float(zoom) for zoom in header.get_zooms()]
    spacing = tuple(zooms[axes.index(axis)] for axis in "yx")
    unit = MILLISECONDS.get(header.get_xyzt_units()[1], 0.0)
    frame_time = unit * zooms[axes.index("t")] if "t" in axes else 0.0
    is_own = header["descrip"].tobytes().startswith(DESCRIPTION.encode())
    for series in load():
        series.spacing = spacing if min(spacing) > 0 and np.isfinite(spacing).all() else None
        series.frame_time = frame_time if 0 < frame_time < np.inf else None
        images = series.values
        usable = not series.is_kspace and len(images) > 1 and np.isfinite(images).all()
        if is_own:
            series.not_a_scan = OWN
        elif usable and images.dtype.kind == "f" and looks_like_phase(images):
            series.not_a_scan = "its values are those of phase images"
        if usable:
            series.n_acquired, notes = acquired_lines(images, None)
            series.notes += notes
        yield series


def nifti_file(
    path: Path,
    names: tuple[str, ...],
    choice: ChosenArray,
    reconstructions: Mapping[str, np.ndarray],
) -> dict[str, bytes]:
    """The content of a NIfTI file by its name: shape, affine and header as in the file at `path`,
    compressed if that is."""
    nibabel = optional("nibabel")
    with damage_explained(path), opened(path) as image:
        header = image.header.copy()
        affine = image.affine if np.isfinite(image.affine).all() else None
        is_second = isinstance(header, nibabel.Nifti2Header)
    array = from_frames(in_order(names, reconstructions), choice.axes)
    header.set_data_dtype(array.dtype)
    header.extensions.clear()
    for text in TEXTS:
        if text in header:  # version 2 has fewer
            header[text] = b""
    header["descrip"] = DESCRIPTION.encode()
    kind = nibabel.Nifti2Image if is_second else nibabel.Nifti1Image
    content = kind(array, affine, header).to_bytes()
    stem = path.name
    for suffix in SUFFIXES:
        stem = stem[: -len(suffix)] if stem.lower().endswith(suffix) else stem
    with path.open("rb") as file:
        is_compressed = file.read(2) == GZIP_MAGIC
    if is_compressed:
        return {f"{stem}_reconstruction.nii.gz": gzip.compress(content, mtime=0)}
    return {f"{stem}_reconstruction.nii": content}
