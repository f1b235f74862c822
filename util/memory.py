"""Memory: how much is free, how much was used, what to do when it runs out."""

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from util.errors import InputError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of glibc's mallopt, from its malloc.h
OUT_OF_MEMORY = (  # in messages, also of cuDNN, cuBLAS and cuFFT
    "out of memory", "can't allocate memory", "not enough memory", "alloc_failed",
    "unable to find an engine",
)  # fmt: skip


@contextlib.contextmanager
def explained_out_of_memory(remedy: str) -> Iterator[None]:
    """Turn running out of memory, on any device, into an InputError with a remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        text = str(error).lower()
        if not isinstance(error, MemoryError) and not any(mark in text for mark in OUT_OF_MEMORY):
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"out of memory ({first}): {remedy}") from None


def reuse_memory(needed: float) -> None:
    """Reuse freed memory for the next tensors, if `needed` bytes are free.

    glibc returns large blocks to the system, which clears every page before it hands them out
    again. This takes more than half of the time of a training step on large batches. With reuse,
    the process stays at its peak memory, which fragmentation raises by a third. Other C libraries
    are not changed.
    """
    if platform.libc_ver()[0] == "glibc" and needed < (available_memory() or 0):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never


def peak_memory(device: torch.device) -> float:
    """Peak memory so far, in bytes: of tensors on a CUDA device, else of the whole process, with
    the interpreter and the data; 0 if the system does not report it."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError, ValueError):  # Linux; getrusage would include the parent's
        text = Path("/proc/self/status").read_text()
        for line in text.splitlines():
            if line.startswith("VmHWM"):
                return float(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows has none
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def free_memory(device: torch.device) -> int:
    """Bytes of free memory of a device, 0 if the system does not report it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory() or 0


def available_memory() -> int | None:
    """Bytes of free memory, or None if the system does not report it.

    The least of what the machine, the control groups of a container or a batch job, and the limits
    of this process (`ulimit -d` and `-v`) have left.
    """
    free = list(left_by_limits())
    with contextlib.suppress(OSError, ValueError, AttributeError):
        free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):
        text = Path("/proc/meminfo").read_text()
        free += [int(x.split()[1]) * 1024 for x in text.splitlines() if x.startswith("MemAvail")]
    for folder in control_groups():
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),  # version 1
        ):
            with contextlib.suppress(OSError, ValueError):  # "max" is no number
                left = int((folder / limit).read_text()) - int((folder / used).read_text())
                free.append(max(0, left))
    return min(free, default=None)


def left_by_limits() -> Iterator[int]:
    """Bytes that the limits of this process leave, on Linux."""
    with contextlib.suppress(OSError, ValueError, ImportError):
        import resource

        status = Path("/proc/self/status").read_text()
        used = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if "kB" in line}
        for limit, name in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
            allowed, _ = resource.getrlimit(limit)
            if allowed != resource.RLIM_INFINITY:
                yield max(0, allowed - int(used[name]) * 1024)


def control_groups() -> list[Path]:
    """The folders of the memory control groups that this process is in, from the innermost."""
    root, folders = Path("/sys/fs/cgroup"), []
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                base = root / controllers
                inner = base / path.lstrip("/")
                folders += [inner, *(f for f in inner.parents if base in (f, *f.parents))]
    return folders or [root]
