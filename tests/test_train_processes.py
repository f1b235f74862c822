"""A run of several processes, as `torchrun` starts them, on the CPU with gloo."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import worker
from helpers import METHODS, ROOT, TINY, report_of, rows_of

from metrics import SCORES
from train import train
from training import checkpoint as ckpt
from training.checks import check_world
from training.run_folder import is_finished, read_config, read_history
from util.command_line import as_flags
from util.errors import InputError
from util.world import ALONE, World

# batch norm would see a share of the batch only, which is another network
SETTINGS = TINY | {"batch_norm": False, "batch_size": 4, "initial_lr": 1e-3, "num_epochs": 10}


def torchrun(n: int, script: Path, words: list[str], *extra: str) -> subprocess.Popen:
    """A script in n processes, each with one thread, its output in one stream."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, f"--nproc-per-node={n}", *extra, "--", str(script), *words]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )


def several(n: int, folder: Path, data: Path, *extra: str, **changes) -> subprocess.Popen:
    words = as_flags({"data": str(data), **SETTINGS, **changes})
    return torchrun(n, ROOT / "train.py", [str(folder), *words], *extra)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_npz) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(str(folder), data=str(tiny_npz), **SETTINGS)
    return folder


def assert_same_scores(folder: Path, alone: Path) -> None:
    """Every test sample is scored once, and as by one process.

    Sums over processes are rounded in another order: 1e-7 of a gradient. Adam divides a gradient by
    its size, so a few weights whose gradient is near zero move by another part of the learning
    rate, 1e-3; the scores of so few steps agree to far less than what is reported.
    """
    rows, expected = rows_of(folder), rows_of(alone)
    names = ("sample", "pattern", "acc", "method")
    assert [[row[k] for k in names] for row in rows] == [
        [row[k] for k in names] for row in expected
    ]
    for score in SCORES:
        found = np.array([float(row[score]) for row in rows])
        wanted = np.array([float(row[score]) for row in expected])
        np.testing.assert_allclose(found, wanted, rtol=1e-3, err_msg=score)


def process_of_rank(launcher: subprocess.Popen, rank: int, but: int = 0) -> int:
    """The process id of a rank among the children of torchrun; waits for another than `but`."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, IndexError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                environment = (folder / "environ").read_bytes().split(b"\0")
                found = parent == launcher.pid and f"RANK={rank}".encode() in environment
                if found and int(folder.name) != but:
                    return int(folder.name)
        time.sleep(0.05)
    raise AssertionError("no such process")


def wait_for_epochs(folder: Path, n: int, launcher: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and launcher.poll() is None:
        with contextlib.suppress(Exception):  # it is just being written
            if len(read_history(folder)) >= n:
                return
        time.sleep(0.02)
    pytest.fail(f"epoch {n} never came: {launcher.communicate()}")


def test_steps_of_three_processes_are_those_of_one(tmp_path, tiny_npz, images):
    output = tmp_path / "found.pt"
    launcher = torchrun(3, ROOT / "tests" / "worker.py", [str(tiny_npz), str(output)])
    text, _ = launcher.communicate(timeout=200)
    assert launcher.returncode == 0, text
    found = torch.load(output, weights_only=True)
    for name in worker.SETTINGS:
        expected = worker.gradients_and_weights(name, torch.from_numpy(images), ALONE)
        n = len(expected) // 2 + 1  # loss and gradients, then weights
        for value, wanted in zip(found[name][:n], expected[:n], strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-6)


def test_a_run_of_two_processes_scores_as_one(tmp_path, tiny_npz, alone):
    folder = tmp_path / "run"
    launcher = several(2, folder, tiny_npz, lesions=True, error_map=True)
    text, _ = launcher.communicate(timeout=200)
    assert launcher.returncode == 0, text
    assert_same_scores(folder, alone)
    assert text.count("Data: tiny.npz") == 1  # one process speaks
    assert "2 processes, the first on cpu (1 thread)" in report_of(folder)
    assert read_config(folder)["processes"] == 2
    with (
        np.load(folder / "reconstructions.npz") as arrays,
        np.load(alone / "reconstructions.npz") as expected,
    ):
        np.testing.assert_array_equal(arrays["index"], expected["index"])
        np.testing.assert_array_equal(arrays["aliased"], expected["aliased"])
        np.testing.assert_allclose(arrays["reconstruction"], expected["reconstruction"], atol=1e-3)
    lines = (folder / "lesions.csv").read_text().splitlines()
    n_test = len({row["sample"] for row in rows_of(folder)})
    assert len(set(lines)) == len(lines) > n_test * len(METHODS)
    assert len((folder / "error_map.csv").read_text().splitlines()) == 1 + 2 * n_test


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="finds processes in /proc"
)


@needs_proc
def test_killed_processes_start_again_and_then_one_continues(tmp_path, tiny_npz, alone, capsys):
    folder = tmp_path / "run"
    launcher = several(2, folder, tiny_npz, "--max-restarts=1")
    first = process_of_rank(launcher, 1)
    wait_for_epochs(folder, 1, launcher)
    os.kill(first, signal.SIGKILL)
    second = process_of_rank(launcher, 1, but=first)
    wait_for_epochs(folder, len(read_history(folder)) + 1, launcher)
    os.kill(second, signal.SIGKILL)
    killed = time.monotonic()
    text, _ = launcher.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert launcher.returncode != 0
    lost = "train.py: another of the 2 processes of this run was lost; continue with: python"
    assert text.count(lost) == 2, text
    assert not is_finished(folder)
    train(str(folder), resume=True)
    assert "NOTICE: processes was 2 and is now 1" in capsys.readouterr().out
    assert_same_scores(folder, alone)


@needs_proc
@pytest.mark.parametrize("ranks", [(0, 1), (0,)])
def test_a_stop_of_one_process_or_all_saves_the_steps_done(tmp_path, tiny_npz, ranks):
    folder = tmp_path / "run"
    launcher = several(2, folder, tiny_npz, num_epochs=300, dropout=0.1)
    processes = [process_of_rank(launcher, rank) for rank in ranks]
    wait_for_epochs(folder, 1, launcher)
    for process in processes:  # all, and then torchrun again, as Slurm does
        os.kill(process, signal.SIGTERM)
    if len(ranks) == 2:
        launcher.send_signal(signal.SIGTERM)
    text, _ = launcher.communicate(timeout=60)
    assert text.count("train.py: stopped by SIGTERM in epoch") == 1
    last = ckpt.load_checkpoint(folder / ckpt.LAST)
    assert last["epoch"] >= 1
    assert len(last["random_states"]["others"]) == 1
    assert not list(folder.glob("*.tmp"))


def test_a_batch_has_a_sample_for_each_process():
    check_world({"batch_size": 6, "accumulation": 2}, World(size=3))
    check_world({"batch_size": 1, "accumulation": 2}, ALONE)
    with pytest.raises(InputError, match="--batch-size 6 with --accumulation 2 gives 3 samples to"):
        check_world({"batch_size": 6, "accumulation": 2}, World(size=4))


@pytest.mark.parametrize("n_items", [0, 1, 2, 7])
def test_shares_are_a_division(n_items):
    items = list(range(n_items))
    shares = [World(rank, 3).share(items) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == items
    assert ALONE.merged(items) == items
    assert [ALONE.from_first(1), ALONE.gathered(1), ALONE.any(True)] == [1, [1], True]
    assert list(ALONE.mapped(str, items)) == list(map(str, items))
