"""The machine: device, determinism, precision, versions."""

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from util.errors import InputError
from util.progress import counted, say

FIRST_BFLOAT16 = (8, 0)  # compute capability of CUDA devices
AMX = "amx_bf16"  # matrix instructions of CPUs for bfloat16, as torch names them


def pick_device(name: str | None) -> torch.device:
    """The named device, or the best available: CUDA if it works, else MPS if its FFT works, else
    the CPU. A GPU that is named by its number becomes the current one.

    Raises:
        InputError: the named device is unknown or not available.
    """
    if name is None:
        if torch.cuda.is_available():
            if not (reason := why_not(torch.device("cuda"))):
                return torch.device("cuda")
            say(f"NOTICE: the GPU cannot be used ({reason}), so the CPU is: --device cuda insists")
        if torch.backends.mps.is_available() and fft_works(torch.device("mps")):
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(name)
        reason = why_not(device)
    except RuntimeError:
        reason = "it is no device of torch"
    if reason:
        raise InputError(
            f"--device {name} cannot be used here ({reason}): leave it out to take the best device,"
            " or give cpu, cuda, cuda:1 or mps"
        )
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def why_not(device: torch.device) -> str:
    """Why a device cannot be used, such as a GPU that is full, exclusive to another process, or too
    old for this torch; "" if it can: a convolution is tried."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return "CUDA is not available"
    try:
        image = torch.ones(1, 1, 4, 4, device=device)
        torch.nn.functional.conv2d(image, image[..., :3, :3]).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def fft_works(device: torch.device) -> bool:
    """Whether a Fourier round trip on `device` returns the input."""
    image = torch.linspace(0, 1, 6 * 8).reshape(6, 8)
    try:
        returned = torch.fft.ifft2(torch.fft.fft2(image.to(device))).real.cpu()
    except (RuntimeError, NotImplementedError):
        return False
    return torch.allclose(returned, image, atol=1e-5)


def environments(n_processes: int, device: torch.device) -> list[dict[str, str]]:
    """Environment variables for processes that run at the same time, for each of them.

    They share the threads of this one equally, unless OMP_NUM_THREADS is set, which then holds for
    each. If `device` is CUDA without an index, each has one of the visible GPUs, in turn. A single
    process gets no variables.
    """
    if n_processes == 1:
        return [{}]
    n_threads = max(1, torch.get_num_threads() // n_processes)
    threads = os.environ.get("OMP_NUM_THREADS", str(n_threads))
    shares = [{"OMP_NUM_THREADS": threads} for _ in range(n_processes)]
    if device.type == "cuda" and device.index is None:
        n_gpus = torch.cuda.device_count()
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = given.split(",") if given else [str(i) for i in range(n_gpus)]
        names = [name.strip() for name in names]
        if not all(name.startswith("MIG") for name in names):  # of which a process sees only one
            names = names[:n_gpus]
        for i, share in enumerate(shares):
            share["CUDA_VISIBLE_DEVICES"] = names[i % len(names)]
    return shares


def make_deterministic(seed: int) -> None:
    """Seed torch's global generator and choose algorithms that give the same bits every time, and
    matrix products in full single precision, whatever the environment says; peak memory counts from
    here."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # By default this also fills uninitialised memory, which no operation reads before writing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.set_float32_matmul_precision("highest")
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(seed)


def require_compiler() -> None:
    """Raise InputError if there is no C++ compiler, which torch.compile calls."""
    known = (os.environ.get("CXX", "g++"), "g++", "clang++")
    if not any(map(shutil.which, known)):
        raise InputError(
            "--compile needs a C++ compiler, and none was found: install one (on Debian and Ubuntu:"
            " apt install g++), or leave the flag out"
        )


def fast_precision(device: torch.device) -> str:
    """The faster precision of convolutions: "bfloat16" on a CPU with AMX and on a CUDA device of
    compute capability 8.0 or later, else "float32".

    A CPU that has bfloat16 instructions but no AMX (avx512_bf16) trains at 0.6 to 0.7 of the speed
    that it has in float32.
    """
    if device.type == "cuda":
        return (
            "bfloat16" if torch.cuda.get_device_capability(device) >= FIRST_BFLOAT16 else "float32"
        )
    return "bfloat16" if device.type == "cpu" and has_amx() else "float32"


def has_amx() -> bool:
    """Whether the CPU has AMX instructions for bfloat16."""
    if hasattr(torch.cpu, "get_capabilities"):  # since torch 2.10
        return bool(torch.cpu.get_capabilities().get(AMX))
    return torch.cpu._is_amx_tile_supported()


def about_precision(device: torch.device) -> str:
    """Which precision is the faster one on a CPU, and why: a clause for the report; empty on other
    devices."""
    if device.type != "cpu":
        return ""
    if has_amx():
        return " (bfloat16 is faster: this CPU has AMX)"
    return " (bfloat16 is slower: this CPU has no AMX that torch knows of)"


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on the device; from the CPU to a GPU by pinned memory, which nothing waits for."""
    if tensor.device.type != "cpu" or torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def versions() -> dict[str, str]:
    """Versions of the software that computes the results."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a plain str, which checkpoints can hold
        "numpy": np.__version__,
        "matplotlib": importlib.metadata.version("matplotlib"),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def processor() -> str:
    """The name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hardware(device: torch.device) -> str:
    """The device in words, on a CPU with the number of threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({counted(torch.get_num_threads(), 'thread')})"


def rounding(device: torch.device) -> str:
    """How float32 is rounded on a GPU: a clause for the report; empty on a CPU."""
    if device.type != "cuda":
        return ""
    try:
        in_tf32 = torch.backends.cudnn.allow_tf32
    except RuntimeError:  # it was set by operation
        in_tf32 = torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
    return f", float32 convolutions {'in' if in_tf32 else 'without'} TF32, matrix products without"


def git_commit() -> str | None:
    """Commit of this code, with "-dirty" if it was edited since; None outside its repository."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
