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


def test_the_same_command_twice_and_runs_at_once_end_with_the_same_table(tmp_path, begin):
    """The first two share the runs; the second is stopped in the middle and continued."""
    both = [begin(tmp_path / "whole"), begin(tmp_path / "whole")]
    printed = "".join(finished(process) for process in both)
    assert len(re.findall(r"^\[\d/2\]", printed, re.MULTILINE)) == 2
    assert "written: experiments.md, experiments.csv, experiments.png" in printed
    assert rows_of(tmp_path / "whole") == {"with batch norm", "without"}

    stopped = begin(tmp_path / "stopped", jobs=2)
    runs = tmp_path / "stopped" / "runs"
    wait_for(runs / WITH / "history.csv")
    stopped.send_signal(signal.SIGTERM)
    _, error = stopped.communicate(timeout=SECONDS)
    assert stopped.returncode == 75, error
    assert re.search(
        r"stopped by SIGTERM in .*; continue with: the same command again$", error.strip()
    )
    assert not (runs / WITH / METRICS).exists()
    finished(begin(tmp_path / "stopped", jobs=2))
    assert experiments_table(tmp_path / "stopped") == experiments_table(tmp_path / "whole")
    kept = {path.name for path in (runs / WITH).iterdir()}
    assert {"output.txt", "metrics.csv", "history.csv", "checkpoint_best.pt"} <= kept
    assert not kept & {"checkpoint_last.pt", ARRAYS}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are listed on Linux")
def test_the_run_of_a_killed_process_is_taken_up_by_another(tmp_path, begin):
    runs = tmp_path / "out" / "runs"
    killed = begin(tmp_path / "out")
    wait_for(runs / WITH / "history.csv")
    signal_all(killed, signal.SIGSTOP)  # it must not end before the other begins
    other = begin(tmp_path / "out")
    wait_for(runs / WITHOUT / "config.json")
    signal_all(killed, signal.SIGKILL)
    out = finished(other)
    assert re.findall(r"^\[(\d/2)\] batch_norm: (.*), seed", out, re.MULTILINE) == [
        ("1/2", "without"), ("2/2", "with batch norm")
    ]  # fmt: skip
    assert rows_of(tmp_path / "out") == {"with batch norm", "without"}
    assert "seed0 --resume\n" in (runs / WITH).with_suffix(".log").read_text()


def test_the_error_of_a_run_is_the_error_of_the_command(tmp_path, begin):
    process = begin(tmp_path / "out", tmp_path / "missing.npz", jobs=2)
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert error.startswith("experiments.py: error: ")
    assert "missing.npz" in error
    assert error.count("\n") == 1
