import platform
import subprocess
import sys

import pytest
import torch
from helpers import ROOT

from util import memory
from util.errors import InputError


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_lack_of_memory_is_known_in_the_words_of_all_libraries(message):
    with (
        pytest.raises(InputError, match=r"out of memory .*: remedy"),
        memory.explained_out_of_memory("remedy"),
    ):
        raise RuntimeError(message)


def test_other_errors_are_not_taken_for_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes"), memory.explained_out_of_memory("remedy"):
        raise RuntimeError("shapes do not fit")
    out_of_memory = pytest.raises(InputError, match=r"out of memory \(MemoryError\): remedy")
    with out_of_memory, memory.explained_out_of_memory("remedy"):
        raise MemoryError


FRESH_PAGES = """
import resource, sys, torch
from util.memory import reuse_memory
reuse_memory(float(sys.argv[1]))
for _ in range(20):  # the first ones find no piece that fits
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MiB, freed at once
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
@pytest.mark.parametrize(("needed", "reused"), [("0", True), ("inf", False)])
def test_freed_memory_is_used_again_where_there_is_room(needed, reused):
    command = [sys.executable, "-c", FRESH_PAGES, needed]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (int(done.stdout) < 20) == reused


def test_the_limit_of_a_container_or_job_counts_with_what_it_uses(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    monkeypatch.setattr(memory, "control_groups", lambda: [tmp_path])
    assert memory.available_memory() == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_memory() > 600_000
    (tmp_path / "memory.limit_in_bytes").write_text("500000\n")
    (tmp_path / "memory.usage_in_bytes").write_text("600000\n")
    assert memory.available_memory() == 0


OWN_PEAK = (
    "import torch; from util.memory import peak_memory; print(peak_memory(torch.device('cpu')))"
)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems are left alone")
def test_peak_memory_is_that_of_the_process_and_not_of_its_parent():
    large = torch.ones(2**28)  # 1 GiB
    command = [sys.executable, "-c", OWN_PEAK]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 1e7 < float(done.stdout) < 2**30 < memory.peak_memory(large.device)
