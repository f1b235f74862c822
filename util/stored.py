"""Arrays in `.npy` and `.npz` files: headers are read and checked before any value is.

Headers and sizes are compared with the file and with the memory before anything is allocated.
Values are then read whole, or an item of the first axis at a time. Nothing is ever unpickled.
"""

import contextlib
import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy_format

from util.errors import InputError
from util.machine import available_memory

MAGIC = npy_format.MAGIC_PREFIX  # the first bytes of an .npy file
ZIP_MAGIC = b"PK"  # and of an .npz file
LONGEST_HEADER = 10_000  # bytes; numpy's limit
CHUNK = 2**16  # bytes read at a time


class Stored:
    """An array in a file: its header is read and checked at once, its values when asked for."""

    def __init__(self, opened: Callable[[], IO[bytes]], size: int, where: str, expected: str):
        """`opened` opens its `size` bytes, header included.

        `where`, `expected`: its place, and a clause such as "expected an image", for messages.
        """
        self.opened, self.where = opened, where
        try:
            with opened() as file:
                self.shape, self.is_fortran, self.dtype, self.header_size = read_header(file)
        except Exception as error:  # numpy parses the header as Python, which fails in many ways
            reason = str(error).partition("\n")[0]
            raise InputError(f"{where} has a damaged header ({reason}); {expected}") from None
        if self.dtype.hasobject:
            raise InputError(
                f"{where} holds Python objects, which are never unpickled; {expected}: save it"
                " again as an array of numbers, names as np.array(names, dtype=str)"
            )
        self.n_bytes = math.prod(self.shape) * self.dtype.itemsize
        if self.n_bytes != size - self.header_size:
            raise InputError(
                f"{where} claims {self.shape} {self.dtype}, {self.n_bytes} bytes, but holds"
                f" {size - self.header_size}: it is truncated or damaged, copy it again"
            )

    def __str__(self) -> str:
        return f"{self.where} is {self.shape} {self.dtype}"

    def whole(self) -> np.ndarray:
        """The array."""
        with self._explained(), self.opened() as file:
            array = npy_format.read_array(file, allow_pickle=False)
            file.read(1)  # reaching the end of a zip member checks its CRC
            return array

    def samples(self, n: int) -> Iterator[np.ndarray]:
        """The first n items of the first axis, one at a time, each in the memory of the one before;
        from the whole array if it is in Fortran order."""
        if self.is_fortran:
            yield from self.whole()[:n]
            return
        sample = np.empty(self.shape[1:], self.dtype)
        with self._explained(), self.opened() as file:
            file.read(self.header_size)
            for _ in range(n):
                left = sample.reshape(-1).view(np.uint8)
                while len(left):
                    piece = file.read(min(CHUNK, len(left)))
                    if not piece:
                        raise EOFError("it ends too early")
                    left[: len(piece)] = np.frombuffer(piece, np.uint8)
                    left = left[len(piece) :]
                yield sample
            while isinstance(file, zipfile.ZipExtFile) and file.read(CHUNK):
                pass  # reaching its end checks its CRC

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what a damaged file raises into an InputError."""
        try:
            yield
        except (
            zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError
        ) as error:  # fmt: skip
            raise InputError(
                f"{self.where} is truncated or damaged ({error}): copy the file again"
            ) from None


def stored_in(file: IO[bytes], path: Path, expected: str) -> dict[str, Callable[[], Stored]]:
    """The arrays of an open .npz file by name; calling one reads and checks its header.

    Raises:
        InputError: the file is damaged.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InputError(f"{path} is truncated or damaged ({error}): copy it again") from None

    def stored(info: zipfile.ZipInfo, name: str) -> Stored:
        size = info.file_size
        return Stored(lambda: archive.open(info), size, f"'{name}' in {path}", expected)

    names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    return {name: partial(stored, info, name) for name, info in names.items()}


def require_memory(needed: int, what: object, remedy: str) -> None:
    """Raise InputError unless so many bytes are free; `what` needs them, such as a `Stored`."""
    memory = available_memory()
    if memory is not None and needed > memory:
        raise InputError(
            f"{what} and needs {needed / 1e9:.1f} GB of memory, but {memory / 1e9:.1f} GB are free:"
            f" {remedy}"
        )


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether it is in Fortran order, dtype, and size in bytes of an .npy header;
    ValueError if it is none."""
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
    shape, is_fortran, dtype = reader(io.BytesIO(start[8:]))
    if any(isinstance(n, bool) or n < 0 for n in shape):
        raise ValueError(f"its shape is {shape}")
    return shape, is_fortran, dtype, len(start)
