"""Experiments in real processes: stopped, killed, several at once, and shared."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, SMALL, experiments_table

from training.run_folder import ARRAYS, METRICS
from util.command_line import as_flags

SECONDS = 240  # that a process may take
WITH, WITHOUT = "model=unet/seed0", "batch_norm=False,model=unet/seed0"  # the runs of batch_norm


@pytest.fixture
def begin(tmp_path, tiny_npz):
    """Starts `experiments.py` in a process, which is ended with the test."""
    with contextlib.ExitStack() as stack:

        def start(folder: Path, data: Path = tiny_npz, **settings) -> subprocess.Popen:
            words = as_flags(SMALL | {"num_epochs": 20, "data": str(data), **settings})
            process = subprocess.Popen(
                [
                    sys.executable, "-W", "error", str(ROOT / "experiments.py"), str(folder),
                    "--only", "batch_norm", "--seeds", "1", *words,
                ],
                cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            stack.callback(process.communicate)
            stack.callback(process.terminate)
            return process

        yield start


def finished(process: subprocess.Popen) -> str:
    """What a process printed that has ended well."""
    out, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, error
    return out


def rows_of(folder: Path) -> set[str]:
    """The rows that have results."""
    return {row["row"] for row in experiments_table(folder)}


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists()


def signal_all(process: subprocess.Popen, number: int) -> None:
    """Send a signal to a process and its runs, as a batch system does when a job ends."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    for pid in (process.pid, *map(int, children)):
        os.kill(pid, number)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are listed on Linux")
def test_runs_are_stopped_continued_shared_and_taken_up(tmp_path, begin):
    folder = tmp_path / "out"
    runs = folder / "runs"
    stopped = begin(folder, jobs=2)
    wait_for(runs / WITH / "history.csv")
    stopped.send_signal(signal.SIGTERM)
    _, error = stopped.communicate(timeout=SECONDS)
    assert stopped.returncode == 75, error
    assert re.search(
        r"stopped by SIGTERM in .*; continue with: the same command again$", error.strip()
    )
    assert not (runs / WITH / METRICS).exists()

    log = (runs / WITH).with_suffix(".log")
    before = log.stat().st_size
    killed = begin(folder)
    deadline = time.monotonic() + SECONDS
    while "Data: " not in log.read_text()[before:] and time.monotonic() < deadline:
        time.sleep(0.01)
    signal_all(killed, signal.SIGSTOP)  # it must not end before the other begins
    other = begin(folder)
    wait_for(runs / WITHOUT / METRICS)
    signal_all(killed, signal.SIGKILL)
    out = finished(other)
    assert re.findall(r"^\[(\d/2)\] batch_norm: (.*), seed", out, re.MULTILINE) == [
        ("1/2", "without"), ("2/2", "with batch norm")
    ]  # fmt: skip
    assert "written: experiments.md, experiments.csv, experiments.png" in out
    assert rows_of(folder) == {"with batch norm", "without"}
    assert len(re.findall(r"^Command: .* --resume$", log.read_text(), re.MULTILINE)) == 2
    kept = {path.name for path in (runs / WITH).iterdir()}
    assert {"output.txt", "metrics.csv", "history.csv", "checkpoint_best.pt"} <= kept
    assert not kept & {"checkpoint_last.pt", ARRAYS}


def test_the_error_of_a_run_is_the_error_of_the_command(tmp_path, begin):
    process = begin(tmp_path / "out", tmp_path / "missing.npz", jobs=2)
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert error.startswith("experiments.py: error: ")
    assert "missing.npz" in error
    assert error.count("\n") == 1
