import os
import subprocess
import sys

import pytest
import torch
from helpers import ROOT

from util import machine
from util.errors import InputError


def test_best_device_is_cuda_then_a_working_mps_then_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machine, "why_not", lambda device: "")
    assert machine.pick_device(None).type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(machine, "fft_works", lambda device: True)
    assert machine.pick_device(None).type == "mps"
    monkeypatch.setattr(machine, "fft_works", lambda device: False)
    assert machine.pick_device(None).type == "cpu"


def test_a_gpu_that_cannot_be_used_is_left_with_a_reason_unless_it_is_named(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(machine, "why_not", lambda device: "no kernel image is available")
    assert machine.pick_device(None).type == "cpu"
    assert (
        "NOTICE: the GPU cannot be used (no kernel image is available)" in capsys.readouterr().out
    )
    with pytest.raises(InputError, match=r"cuda cannot be used here .no kernel image"):
        machine.pick_device("cuda")


def test_a_gpu_that_is_named_by_its_number_becomes_the_current_one(monkeypatch):
    current = []
    monkeypatch.setattr(machine, "why_not", lambda device: "")
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    machine.pick_device("cuda")
    machine.pick_device("cuda:1")
    assert current == [torch.device("cuda:1")]


@pytest.mark.parametrize("name", ["meta", "cuda:99", "nothing"])
def test_devices_that_do_not_work_are_named(name):
    with pytest.raises(InputError, match=f"--device {name} cannot be used here"):
        machine.pick_device(name)


def test_peak_memory_counts_from_the_beginning_of_a_run(monkeypatch):
    resets = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: resets.append(True))
    for is_used in (False, True):  # asking would begin to use a GPU
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda is_used=is_used: is_used)
        machine.make_deterministic(0)
        assert bool(resets) == is_used


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch has one way only")
def test_rounding_is_known_whichever_way_it_was_set():
    script = (
        "import torch; from util.machine import make_deterministic, rounding;"
        " gpu = torch.device('cuda'); make_deterministic(0); print(rounding(gpu));"
        " torch.backends.cudnn.conv.fp32_precision = 'ieee'; print(rounding(gpu));"
        " print(torch.get_float32_matmul_precision())"
    )
    environment = os.environ | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}  # which is not followed
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    first, second, products = done.stdout.splitlines()
    assert first == ", float32 convolutions in TF32, matrix products without"
    assert second == ", float32 convolutions without TF32, matrix products without"
    assert products == "highest"


@pytest.mark.parametrize(
    ("n_processes", "n_threads", "given", "expected"),
    [(2, 16, None, "8"), (3, 16, None, "5"), (4, 2, None, "1"), (2, 16, "4", "4")],
)
def test_processes_share_the_threads(monkeypatch, n_processes, n_threads, given, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    variables = {"OMP_NUM_THREADS": expected}
    cpu = torch.device("cpu")
    assert machine.environments(n_processes, cpu) == [variables] * n_processes
    assert machine.environments(1, cpu) == [{}]


@pytest.mark.parametrize(
    ("device", "n_gpus", "visible", "expected"),
    [
        ("cuda", 2, None, ["0", "1", "0"]),
        ("cuda", 2, "5, 3", ["5", "3", "5"]),
        ("cuda", 1, "GPU-ab", ["GPU-ab"] * 3),
        ("cuda", 1, "MIG-a, MIG-b", ["MIG-a", "MIG-b", "MIG-a"]),  # torch counts one
        ("cuda", 2, "2,0,-1,1", ["2", "0", "2"]),  # what follows -1 is not visible
        ("cuda:1", 2, None, [None] * 3),
        ("cpu", 2, None, [None] * 3),
    ],
)
def test_gpus_are_dealt_out(monkeypatch, device, n_gpus, visible, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    shares = machine.environments(3, torch.device(device))
    assert [share.get("CUDA_VISIBLE_DEVICES") for share in shares] == expected
    assert machine.environments(1, torch.device(device)) == [{}]


def test_fft_is_tried_for_real(monkeypatch):
    assert machine.fft_works(torch.device("cpu"))
    monkeypatch.setattr(torch.fft, "ifft2", lambda kspace: kspace)
    assert not machine.fft_works(torch.device("cpu"))


def test_commit_of_the_code_is_a_hash_or_absent():
    commit = machine.git_commit()
    assert commit is None or len(commit.removesuffix("-dirty")) == 40


@pytest.mark.parametrize(
    ("known", "device", "precision"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, "cpu", "bfloat16"),
        ({"avx512_bf16": True, "amx_bf16": False}, "cpu", "float32"),
        ({}, "cpu", "float32"),
        ({"amx_bf16": True}, "mps", "float32"),
        ((8, 0), "cuda", "bfloat16"),
        ((7, 5), "cuda", "float32"),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster(monkeypatch, known, device, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: known)
    assert machine.fast_precision(torch.device(device)) == precision
    faster = {"bfloat16": "faster: this CPU has AMX", "float32": "slower: this CPU has no AMX"}
    why = faster[precision] if device == "cpu" else ""
    assert why in machine.about_precision(torch.device(device))
