"""NIfTI files. Axes are (x, y, s, t), or with x and y as `dim_info` of the header has them.

What is written has the shape, the affine and the header of the input, without its free texts.
"""

import gzip
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from formats.arrays import ChosenArray, FileLayout, Variable, scan_of_arrays
from formats.axes import from_frames
from formats.series import Scan, damage_explained, in_order, optional
from util.errors import InputError

TEXTS = ("descrip", "aux_file", "intent_name", "db_name")  # of the header, not written
DESCRIPTION = "DERIVED: cine reconstruction"


def read_nifti(path: Path, axes: str | None) -> Scan:
    """The scan in a NIfTI file.

    Raises:
        InputError: nibabel is not installed, the file is damaged or no cine.
    """
    nibabel = optional("nibabel")
    with damage_explained(path):
        image = nibabel.load(path)
        shape, dtype = tuple(image.shape), image.get_data_dtype()
        order = nifti_axes(image.header, len(shape))
    if dtype.names is not None:
        raise InputError(f"{path} is a colour image; expected gray images: export it as such")
    read = partial(part_of, image, path)
    single = np.dtype(np.complex64 if dtype.kind == "c" else np.float32)
    variable = Variable("image", shape, single, read)
    form = FileLayout("NIfTI file", (), lambda variable, is_kspace: order)
    scan, choice = scan_of_arrays(path, form, [variable], axes)
    scan.write = partial(nifti_file, path, tuple(scan.names), choice)
    return scan


def nifti_axes(header: Any, n_axes: int) -> str | None:
    """The order of axes that the header means; None: more than it can have."""
    frequency, phase, _ = header.get_dim_info()
    plane = {frequency: "x", phase: "y"}
    if None in plane or len(plane) < 2:
        plane = {0: "x", 1: "y"}
    order = "".join(plane.get(axis, "s") for axis in range(3)) + "t"
    return order[:n_axes] + "-" * (n_axes - len(order)) if n_axes > 2 else None


def part_of(image: Any, path: Path, part: tuple[slice, ...]) -> np.ndarray:
    """A part of the image, scaled as the header says."""
    with damage_explained(path):
        return np.asarray(image.dataobj[part])


def nifti_file(
    path: Path,
    names: tuple[str, ...],
    choice: ChosenArray,
    reconstructions: Mapping[str, np.ndarray],
) -> dict[str, bytes]:
    """The content of a NIfTI file by its name: shape, affine and header as in the file at `path`,
    compressed if that is."""
    nibabel = optional("nibabel")
    image = nibabel.load(path)
    array = from_frames(in_order(names, reconstructions), choice.axes)
    header = image.header.copy()
    header.set_data_dtype(array.dtype)
    header.extensions.clear()
    for text in TEXTS:
        header[text] = b""
    header["descrip"] = DESCRIPTION.encode()
    kind = nibabel.Nifti2Image if isinstance(image, nibabel.Nifti2Pair) else nibabel.Nifti1Image
    content = kind(array, image.affine, header).to_bytes()
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    if path.suffix == ".gz":
        return {f"{stem}_reconstruction.nii.gz": gzip.compress(content, mtime=0)}
    return {f"{stem}_reconstruction.nii": content}
