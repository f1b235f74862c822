"""The values in DICOM files, read without raising.

A value that is missing, that cannot be read, or that has another number of values is None, and its
keyword is kept if it was there (`Header.bad`).
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

PREAMBLE, MAGIC = 128, b"DICM"
LONG_KINDS = (b"OB", b"OW", b"OF", b"SQ", b"UN", b"UT")  # whose length takes four bytes


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by its magic number, or, without preamble, by its first elements."""
    with path.open("rb") as file:
        head = file.read(4 * PREAMBLE)
    if head[PREAMBLE : PREAMBLE + len(MAGIC)] == MAGIC:
        return True
    return any(begins_with_elements(head, order) for order in "<>")


def begins_with_elements(head: bytes, order: str) -> bool:
    """Whether a file begins with two elements of groups 2 or 8, in the order of their tags."""
    start, tags = 0, [(0, 0)]
    while len(tags) < 3:
        if start + 12 > len(head):
            return False
        group, element = struct.unpack_from(f"{order}HH", head, start)
        kind = head[start + 4 : start + 6]
        if kind.isalpha() and kind.isupper():
            long = kind in LONG_KINDS
            (length,) = struct.unpack_from(
                f"{order}{'I' if long else 'H'}", head, start + 6 + 2 * long
            )
            start += 8 + 4 * long
        else:
            (length,) = struct.unpack_from(f"{order}I", head, start + 4)
            start += 8
        if group not in (2, 8) or (group, element) <= tags[-1]:
            return False
        tags.append((group, element))
        start += length
    return True


def read_dataset(pydicom: Any, file: Path | BinaryIO, **options: Any) -> Any:
    """A file's dataset, also without preamble or meta information."""
    dataset = pydicom.dcmread(file, force=True, **options)
    if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
        is_implicit, is_little = dataset.original_encoding
        syntax = pydicom.uid.ImplicitVRLittleEndian
        if not is_implicit:
            uid = pydicom.uid
            syntax = uid.ExplicitVRLittleEndian if is_little else uid.ExplicitVRBigEndian
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


class Header:
    """The values of one image: those of its functional groups before those of its file."""

    def __init__(self, datasets: Sequence[Any]):
        self.datasets = datasets
        self.bad: set[str] = set()

    def value(self, keyword: str) -> Any:
        """The value as pydicom has it; None: missing, empty or unreadable."""
        for dataset in self.datasets:
            try:
                if keyword in dataset:
                    value = dataset[keyword].value
                    if value is not None and value != "" and value != []:
                        return value
            except Exception:
                self.bad.add(keyword)
        return None

    def numbers(self, keyword: str, n: int) -> tuple[float, ...] | None:
        """Exactly `n` finite numbers."""
        value = self.value(keyword)
        if value is None:
            return None
        several = hasattr(value, "__iter__") and not isinstance(value, str | bytes)
        try:
            numbers = tuple(float(part) for part in (value if several else [value]))
        except (TypeError, ValueError, OverflowError):
            numbers = ()
        if len(numbers) != n or not np.isfinite(numbers).all():
            self.bad.add(keyword)
            return None
        return numbers

    def number(self, keyword: str) -> float | None:
        """One finite number."""
        numbers = self.numbers(keyword, 1)
        return None if numbers is None else numbers[0]

    def texts(self, keyword: str) -> list[str]:
        """The values as texts."""
        value = self.value(keyword)
        if value is None:
            return []
        return [str(value)] if isinstance(value, str) else [str(part) for part in value]

    def text(self, keyword: str) -> str:
        """The value as a text."""
        value = self.value(keyword)
        return "" if value is None else str(value)

    def private(self, group: int, creator: str, element: int) -> str:
        """A private value that is a short text or number, which may have lost its type."""
        for dataset in self.datasets:
            try:
                value = dataset.private_block(group, creator)[element].value
            except Exception:
                continue
            if isinstance(value, bytes):
                text = value.strip(b" \0").decode("ascii", "replace")
                value = text if text.isalnum() else int.from_bytes(value[:2], "little")
            return str(value)
        return ""
