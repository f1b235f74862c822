"""ISMRMRD raw data in HDF5; `formats/raw_lines.py` puts its lines together.

Oversampling is what the field of view of the encoding has beyond that of the image. The format:

S. J. Inati et al., "ISMRM Raw data format: a proposed standard for MRI raw datasets", Magn Reson
Med 77:411-421, 2017.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from formats.raw_lines import RawGroup, raw_scan
from formats.series import Scan, damage_explained, optional
from util.errors import InputError

ROWS = 256  # acquisitions read at a time
FIELDS = {"data", "head", "traj"}
SAME = 0.01  # of a field of view: less is rounding


def raw_groups(file: Any) -> list[str]:
    """The groups of an open HDF5 file that hold ISMRMRD data."""
    found = []

    def note(name: str, item: Any) -> None:
        if hasattr(item, "keys") and {"xml", "data"} <= set(item.keys()):
            names = getattr(item["data"], "dtype", np.dtype("f4")).names
            if names is not None and set(names) >= FIELDS:
                found.append(name)

    file.visititems(note)
    return found


class PlainBuilder(ElementTree.TreeBuilder):
    """Refuses a document type, whose entities could fill the memory, in any encoding."""

    def doctype(self, *_: object) -> None:
        """Called at its beginning."""
        raise ValueError("it declares a document type")


def parse_header(text: Any, path: Path) -> ElementTree.Element:
    """The XML header, without name spaces.

    Raises:
        InputError: it is no XML.
    """
    content = text if isinstance(text, (bytes, str)) else np.asarray(text).ravel()[0]
    if isinstance(content, bytes):
        content = bytes(content)
        if b"\0" in content[:4]:  # UTF-16, whose last zero HDF5 takes for the end of the text
            content += b"\0" * (len(content) % 2)
    else:
        content = str(content)
    parser = ElementTree.XMLParser(target=PlainBuilder())
    try:
        root = ElementTree.fromstring(content, parser)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(
            f"{path} has an XML header that cannot be read ({error}): export it again"
        ) from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def number(header: ElementTree.Element, place: str, otherwise: int) -> int:
    """A whole number in the header, such as "encoding/encodedSpace/matrixSize/x"."""
    text = (header.findtext(place) or "").strip()
    return int(text) if text.isdigit() else otherwise


def field_of_view(header: ElementTree.Element, axis: str) -> float:
    """That of the image over that of the encoding; nan if the header has not both."""
    lengths = []
    for space in ("reconSpace", "encodedSpace"):
        try:
            text = header.findtext(f"encoding/{space}/fieldOfView_mm/{axis}")
            lengths.append(float(text or 0))
        except ValueError:
            lengths.append(0.0)
    return lengths[0] / lengths[1] if min(lengths) > 0 else float("nan")


def read_ismrmrd(path: Path, axes: str | None) -> Scan:
    """The scan in an ISMRMRD file: the series of all its groups.

    Raises:
        InputError: the file is damaged, or not Cartesian and two-dimensional.
    """
    if axes is not None:
        raise InputError(f"{path} is ISMRMRD, whose header names the axes: leave --axes out")
    h5py = optional("h5py")
    measurements: dict[str, RawGroup] = {}
    unusable: dict[str, InputError] = {}
    with damage_explained(path), h5py.File(path, "r") as file:
        for group in raw_groups(file):
            name = group.replace("/", "_")
            try:
                header = parse_header(file[f"{group}/xml"][()], path)
                heads = file[f"{group}/data"].fields("head")[:]
                read = partial(read_rows, h5py, path, f"{group}/data", heads)
                measurements[name] = raw_group_of(header, heads, read, path)
            except InputError as error:
                unusable[name] = error
    return raw_scan(path, "ISMRMRD file", measurements, unusable)


def raw_group_of(header: ElementTree.Element, heads: np.ndarray, read: Any, path: Path) -> RawGroup:
    """A group of a file."""
    trajectory = (header.findtext("encoding/trajectory") or "cartesian").strip().lower()
    if trajectory != "cartesian":
        raise InputError(
            f"{path} has a {trajectory} trajectory; expected a Cartesian one: regrid it first"
        )
    encoded, recon = "encoding/encodedSpace/matrixSize", "encoding/reconSpace/matrixSize"
    samples, steps = heads["number_of_samples"], heads["idx"]["kspace_encode_step_1"]
    nx = number(header, f"{encoded}/x", int(samples.max(initial=1)))
    ny = number(header, f"{encoded}/y", int(steps.max(initial=0)) + 1)
    centre = number(header, "encoding/encodingLimits/kspace_encoding_step_1/center", ny // 2)
    notes = []
    shares = [field_of_view(header, axis) for axis in "xy"]
    if np.isnan(shares).any():
        shares = [number(header, f"{recon}/{axis}", n) / n for axis, n in (("x", nx), ("y", ny))]
        notes.append("oversampling is taken from matrix sizes: the header has no fields of view")
    shown, middle = (
        n if share > 1 - SAME else max(1, round(n * share))
        for n, share in zip((nx, ny), shares, strict=True)
    )
    if middle < ny:
        notes.append(
            f"phase oversampling is left in: the image is the middle {middle} of {ny} lines"
        )
    return RawGroup(heads, read, ny, nx, centre, shown, tuple(notes))


def read_rows(
    h5py: Any, path: Path, place: str, heads: np.ndarray, rows: np.ndarray
) -> Iterator[np.ndarray]:
    """The samples (C, N) of these acquisitions, read in runs of neighbours."""
    with damage_explained(path), h5py.File(path, "r") as file:
        dataset = file[place]
        for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            for start in range(0, len(run), ROWS):
                part = run[start : start + ROWS]
                lines = dataset.fields("data")[int(part[0]) : int(part[-1]) + 1]
                for row, samples in zip(part, lines, strict=True):
                    n_coils = int(heads["active_channels"][row])
                    yield samples.view(np.complex64).reshape(n_coils, -1)
