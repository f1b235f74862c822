import signal
import threading

import pytest
import torch

import runtime
from errors import InputError


def test_signals_are_noted_and_handlers_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with runtime.StopRequest(None) as stop:
        assert not stop
        signal.raise_signal(signal.SIGTERM)
        assert stop
        assert stop.reason == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before


def test_second_ctrl_c_interrupts_at_once():
    with runtime.StopRequest(None) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_time_is_up():
    with runtime.StopRequest(1e-9) as stop:
        assert stop
        assert stop.reason == "max_minutes"
    with runtime.StopRequest(60) as stop:
        assert not stop


def test_works_outside_the_main_thread():
    results = []

    def work():
        with runtime.StopRequest(None) as stop:
            results.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [False]


def test_best_device_is_cuda_then_a_working_mps_then_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runtime.pick_device(None).type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(runtime, "fft_works", lambda device: True)
    assert runtime.pick_device(None).type == "mps"
    monkeypatch.setattr(runtime, "fft_works", lambda device: False)
    assert runtime.pick_device(None).type == "cpu"


def test_fft_is_tried_for_real(monkeypatch):
    assert runtime.fft_works(torch.device("cpu"))
    monkeypatch.setattr(runtime, "ifftc", lambda kspace: kspace)
    assert not runtime.fft_works(torch.device("cpu"))


def test_other_errors_are_not_taken_for_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes"), runtime.explained_out_of_memory("remedy"):
        raise RuntimeError("shapes do not fit")
    out_of_memory = pytest.raises(InputError, match=r"out of memory \(MemoryError\): remedy")
    with out_of_memory, runtime.explained_out_of_memory("remedy"):
        raise MemoryError


def test_commit_of_the_code_is_a_hash_or_absent():
    commit = runtime.git_commit()
    assert commit is None or len(commit.removesuffix("-dirty")) == 40
