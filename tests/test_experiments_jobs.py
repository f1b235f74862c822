"""Experiments whose runs are real processes: killed, stopped and continued."""

import signal
import time
from types import SimpleNamespace

import pytest
from helpers import SMALL, experiments_table

from ablation import jobs
from experiments import experiments
from train import train
from training.run_folder import ARRAYS, METRICS, read_config
from util.errors import Interrupted
from util.stop import recorded_signals

CALL = {**SMALL, "num_epochs": 10, "validate_every": 10, "baselines": ("zero_filled",)}
CALL |= {"only": ("batch_norm",), "seeds": 1, "jobs": 2}


def test_a_stopped_run_ends_as_if_it_had_not_been_and_a_killed_one_is_resumed(
    tmp_path, tiny_npz, monkeypatch
):
    folder, processes, start_process = tmp_path / "out", [], jobs.start_process
    runs = [
        folder / "runs" / row / "seed0" for row in ("model=unet", "batch_norm=False,model=unet")
    ]

    def noted(*arguments):
        processes.append(start_process(*arguments))
        return processes[-1]

    def sleep(seconds):
        time.sleep(0.01)
        if all((run / "history.csv").exists() for run in runs):
            processes[1].kill()
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "start_process", noted)
        patch.setattr(jobs, "time", SimpleNamespace(sleep=sleep, perf_counter=time.perf_counter))
        with (
            recorded_signals(),
            pytest.raises(Interrupted, match=r"stopped by SIGTERM in .*; continue with: the same"),
        ):
            experiments(folder, **CALL, data=str(tiny_npz))
    assert [process.returncode for process in processes] == [75, -signal.SIGKILL]

    experiments(folder, **CALL, data=str(tiny_npz))
    assert {row["row"] for row in experiments_table(folder)} == {"with batch norm", "without"}
    for run in runs:
        kept = {path.name for path in run.iterdir()}
        assert {"output.txt", "checkpoint_best.pt"} <= kept
        assert not kept & {"checkpoint_last.pt", ARRAYS}
    train(str(tmp_path / "whole"), **read_config(runs[0])["settings"])
    assert (runs[0] / METRICS).read_bytes() == (tmp_path / "whole" / METRICS).read_bytes()
