"""Files that are written whole or not at all, CSV tables and claimed folders."""

import contextlib
import csv
import io
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from util.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no advisory locks on folders
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write: first under another name, then renamed over `path`.

    Raises:
        InputError: it could not be written; the file that was there before is untouched.
    """
    # two processes have two files, on two machines, too
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:  # an interruption, too
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        # torch reports a full disk as a RuntimeError of its writer
        is_full = isinstance(error, RuntimeError) and "inline_container" in str(error)
        if isinstance(error, OSError) or is_full:
            raise InputError(not_written(path, error)) from None
        raise


def not_written(path: Path, error: BaseException) -> str:
    """The message for a file that could not be written."""
    reason = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
    return (
        f"{path} could not be written ({reason}); its earlier content is untouched: free some disk"
        " space, then continue"
    )


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with whole_file(path) as file:
        file.write(content)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV with a column for every key; a cell is empty where a row has no such key.

    Floats have eight significant digits.
    """
    text = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    table = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({k: f"{v:.8g}" if isinstance(v, float) else v for k, v in row.items()})
    write_bytes(path, as_bytes(text.getvalue()))


def as_bytes(text: str) -> bytes:
    """Text in UTF-8; file names that are not text are escaped."""
    return text.encode("utf-8", "backslashreplace")


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, every cell as text; with or without Excel's byte-order mark.

    Raises:
        OSError, ValueError: the file cannot be read.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def require_there(path: str | os.PathLike[str], expected: str) -> None:
    """Raise InputError if nothing has this path; whether it can be read is another question."""
    try:
        os.stat(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {expected}") from None
    except OSError:
        return


@contextlib.contextmanager
def claimed_folder(name: str, check_content: Callable[[Path], None]) -> Iterator[Path]:
    """The output folder, made if it does not exist, and locked against a second process.

    Folders that were made here and stay empty, because the run could not start, are removed.

    Args:
        check_content: raises InputError if the folder holds what a new run would mix with.

    Raises:
        InputError: the folder cannot be written, is in use, or was refused by `check_content`.
    """
    if not name.strip():
        raise InputError("output_folder is empty text: name a folder for the results")
    folder = Path(name)
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"{folder} is a file: name a folder for the results") from None
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}): name another") from None
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"{folder} is in use by another run: name another") from None
        try:
            if not os.access(folder, os.W_OK):
                raise InputError(f"{folder} is read-only: name a folder that can be written to")
            check_content(folder)
            yield folder
        finally:
            for path in made:
                with contextlib.suppress(OSError):  # it is not empty
                    path.rmdir()


def require_only(known: Collection[str], folder: Path) -> None:
    """Raise InputError if the folder holds files of other names than `known` and their temporary
    ones, which a killed process leaves."""

    def is_known(name: str) -> object:
        base = name.removesuffix(".tmp")
        return name in known or (base != name and {base, base.rpartition(".")[0]} & set(known))

    if others := sorted(path.name for path in folder.iterdir() if not is_known(path.name)):
        raise InputError(
            f"{folder} holds {len(others)} other files ({others[0]}, ...), and nothing is"
            " overwritten: name a new or an empty folder"
        )
