"""Arrays in `.npy` and `.npz` files: headers are read and checked before any value is.

Headers and sizes are compared with the file and with the memory before anything is allocated.
Values are then read whole, or an item of the first axis at a time. Nothing is ever unpickled.
"""

import contextlib
import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from util.errors import InputError
from util.files import not_written, whole_file
from util.memory import available_memory

MAGIC = npy_format.MAGIC_PREFIX  # the first bytes of an .npy file
ZIP_MAGIC = b"PK"  # and of an .npz file
LONGEST_HEADER = 10_000  # bytes; numpy's limit
CHUNK = 2**16  # bytes read at a time
LOCAL_HEADER = 30  # bytes of the header of a member of a zip file, before name and extra field
ENCRYPTED = 1  # a flag of a member


class UnchangedFile:
    """A file that is read in parts over a long time, and must stay as it is meanwhile."""

    def __init__(self, path: Path):
        self.path, self.before = path, state_of(path)

    def check(self) -> None:
        """Raise InputError if the file was changed, replaced or removed."""
        with contextlib.suppress(FileNotFoundError):
            if state_of(self.path) == self.before:
                return
        raise InputError(
            f"{self.path} was changed or removed while it was in use: work on a file that nothing"
            " writes to, and start again"
        )


def state_of(path: Path) -> tuple[int, ...]:
    """What tells whether a file has changed. The time of a change to its entry, which no program
    can set, counts beside that of its content."""
    about = path.stat()
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


class Stored:
    """An array in a file: its header is read and checked at once, its values when asked for."""

    def __init__(
        self,
        opened: Callable[[], IO[bytes]],
        size: int,
        where: str,
        expected: str,
        place: Callable[[], tuple[Path, int]] | None = None,
    ):
        """`opened` opens its `size` bytes, header included.

        `where`, `expected`: its place, and a clause such as "expected an image", for messages.
        `place`: gives the file that has these bytes as they are, and where they begin; None if they
        are compressed.
        """
        self.opened, self.where, self.place = opened, where, place
        self.start: tuple[UnchangedFile, int] | None = None  # and where the first value is
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

    @property
    def can_be_mapped(self) -> bool:
        """Whether items can be read one by one, in any order, from where they lie."""
        return self.place is not None and not self.is_fortran

    def mapped(self, i: int) -> np.ndarray:
        """The i-th item, whose values are read from the file when they are used. The map ends with
        the array, so that memory has no more of the file than what is in use."""
        assert self.place is not None
        if self.start is None:
            path, start = self.place()
            self.start = UnchangedFile(path), start + self.header_size
        file, start = self.start
        file.check()
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        return np.memmap(file.path, self.dtype, "r", start + i * size, self.shape[1:])

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
        plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & ENCRYPTED
        place = (lambda: (path, start_of(file, info))) if plain else None
        where = f"'{name}' in {path}"
        return Stored(lambda: archive.open(info), info.file_size, where, expected, place)

    names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    return {name: partial(stored, info, name) for name, info in names.items()}


class GrowingArrays:
    """Arrays of `n` items each that become an `.npz` file, written as the items come, so that
    memory holds none of them."""

    def __init__(self, path: Path, n: int):
        self.path, self.n = path, n
        self.names: list[str] = []

    def add(self, items: Mapping[str, np.ndarray]) -> None:
        """The next items of every array, (n_items, ...) each.

        Raises:
            InputError: they could not be written; what was written is removed.
        """
        try:
            if not self.names:
                self._remove_parts()
                for name, values in items.items():
                    self._begin(name, values)
            for name, values in items.items():
                with self._part(name).open("ab") as file:
                    file.write(values.tobytes())
        except OSError as error:
            self._remove_parts()
            raise InputError(not_written(self.path, error)) from None

    def close(self) -> None:
        """Write the `.npz` file, if there are any arrays, and remove what it was made of, and what
        an earlier call may have left.

        Raises:
            InputError: it could not be written.
        """
        try:
            if self.names:
                with whole_file(self.path) as file, zipfile.ZipFile(file, "w") as archive:
                    for name in self.names:
                        archive.write(self._part(name), f"{name}.npy")
        finally:
            self._remove_parts()

    def _begin(self, name: str, values: np.ndarray) -> None:
        """Write the header of an array whose first items are `values`."""
        header: dict[str, Any] = {"descr": npy_format.dtype_to_descr(values.dtype)}
        header |= {"fortran_order": False, "shape": (self.n, *values.shape[1:])}
        with self._part(name).open("wb") as file:
            npy_format.write_array_header_1_0(file, header)
        self.names.append(name)

    def _part(self, name: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{name}.part")

    def _remove_parts(self) -> None:
        self.names.clear()
        for part in self.path.parent.glob(f"{self.path.name}.*.part"):
            part.unlink(missing_ok=True)


def start_of(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where the bytes of a member of a zip file begin: behind its local header, whose last two
    numbers are the lengths of name and extra field (APPNOTE.TXT of PKWARE, 4.3.7)."""
    position = file.tell()
    file.seek(info.header_offset + LOCAL_HEADER - 4)
    lengths = int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")
    file.seek(position)
    return info.header_offset + LOCAL_HEADER + lengths


def require_memory(needed: int, what: object, remedy: str) -> None:
    """Raise InputError unless `needed` bytes are free; `what` needs them, such as a `Stored`."""
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
