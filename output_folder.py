"""The output folder of a run: made, locked against a second process, and never shared with what
was there before."""

import contextlib
import os
from collections.abc import Callable, Container, Iterator
from pathlib import Path

from errors import InputError
from report import CONFIG, METRICS

try:
    import fcntl
except ImportError:  # Windows has no advisory locks on folders
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def claimed_folder(name: str, check_content: Callable[[Path], None]) -> Iterator[Path]:
    """The output folder, made if need be, and locked against a second process.

    Args:
        check_content: raises InputError where it holds what a new run would mix with.

    Folders that were made here and stay empty, because the run could not start, are removed.

    Raises:
        InputError: it is no folder to write to, is in use, or holds what a new run would mix with.
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
                if not any(path.iterdir()):
                    path.rmdir()


def in_use(folder: Path) -> bool:
    """Whether another process has claimed the folder."""
    if fcntl is None or not folder.exists():
        return False
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def holds_a_run(folder: Path) -> None:
    """InputError unless the folder holds a run to resume."""
    if not (folder / CONFIG).exists():
        raise InputError(f"{folder} holds no run to resume ({CONFIG} is missing)")


def is_empty(folder: Path) -> None:
    """InputError unless the folder holds nothing."""
    if (folder / CONFIG).exists():
        state = "a finished run" if (folder / METRICS).exists() else "an unfinished run"
        raise InputError(f"{folder} holds {state}: name another folder, or go on with --resume")
    holds_only((f"{CONFIG}.tmp",), folder)  # left by a run that was killed as it began


def holds_only(known: Container[str], folder: Path) -> None:
    """InputError unless the folder holds nothing but files of the names `known`."""
    if content := sorted(path.name for path in folder.iterdir() if path.name not in known):
        raise InputError(
            f"{folder} holds {len(content)} other files ({content[0]}, ...), and nothing is"
            " overwritten: name a new or an empty folder"
        )
