"""Running what has no result yet: runs as processes of `train.py`, several at once."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ablation.groups import Experiment
from ablation.results import read_result
from ablation.runs import FAILURE, check_same_data, too_large
from training.run_folder import is_finished, is_run
from util.command_line import as_flags
from util.errors import EXIT_INTERRUPTED, InputError, Interrupted
from util.files import write_bytes
from util.launcher import environment_of_child
from util.progress import counted, say
from util.stop import StopRequest

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
POLL_SECONDS = 0.2  # between two looks at the processes


class Jobs:
    """The runs of one call: those to do, those that run, and the reason of the first failure."""

    def __init__(
        self,
        wanted: Sequence[tuple[Experiment, int]],  # rows with seeds
        defaults: Mapping[str, Any],  # the settings of `train()` that need no flag
        environments: Sequence[dict[str, str]],  # variables of each of the runs at once
        stop: StopRequest,
        tries_all: bool = False,  # also if none has worked; else the data are taken to be at fault
    ):
        self.wanted, self.defaults, self.free, self.stop = wanted, defaults, [*environments], stop
        self.tries_all = tries_all
        self.runs: dict[Path, tuple[Experiment, int]] = {}  # rows with equal settings share theirs
        for row, seed in wanted:
            self.runs.setdefault(row.folder / f"seed{seed}", (row, seed))
        self.pending = [folder for folder in self.runs if not is_finished(folder)]
        self.running: dict[Path, tuple[subprocess.Popen, dict[str, str]]] = {}
        self.n_missing, self.started = len(self.pending), time.perf_counter()
        self.works, self.failure = self.n_missing < len(self.runs), ""

    def run(self) -> None:
        """Run what has no result.

        Raises:
            InputError: no run has ever worked, or two have different data.
            Interrupted: a stop was requested; the runs have saved their state.
        """
        n_runs = counted(len(self.runs), "run")
        say(f"{n_runs}, {len(self.runs) - self.n_missing} of them finished before")
        try:
            self.start_more()
            while self.running:
                self.wait()
                self.start_more()
        finally:
            self.terminate()

    def start_more(self) -> None:
        """Start runs until as many run as may run at once; none after a failure, until one works.

        Raises:
            InputError: none has worked, and none can: the settings or the data are at fault.
        """
        if self.failure and not self.works and not (self.tries_all and self.pending):
            if not self.running:
                raise InputError(self.failure)
            return
        while self.pending and self.free:
            folder = self.pending.pop(0)
            row, seed = self.runs[folder]
            if reason := too_large(row, self.wanted):
                self.record(folder, reason)
                continue
            environment = self.free.pop(0)
            row.folder.mkdir(parents=True, exist_ok=True)
            with folder.with_suffix(".log").open("ab") as log:
                process = start_process(row, seed, folder, self.defaults, log, environment)
            self.running[folder] = process, environment

    def wait(self) -> None:
        """Wait until a run has ended, and record it."""
        while not (ended := [k for k, (p, _) in self.running.items() if p.poll() is not None]):
            if self.stop.requested():
                self.terminate()
                self.stop.end(f"in {', '.join(map(str, self.running))}")
            time.sleep(POLL_SECONDS)
        for folder in ended:
            process, environment = self.running.pop(folder)
            self.free.append(environment)
            if process.returncode:
                self.stop.check(f"in {folder}")
            self.record(folder, failure_of(folder, process.returncode, self.stop.continue_with))

    def record(self, folder: Path, failure: str) -> None:
        """Keep the result of a run, or the reason why it has none, and report the progress."""
        row, seed = self.runs[folder]
        record = folder.with_suffix(FAILURE)
        if failure:
            write_bytes(record, failure.encode())
            self.failure = self.failure or failure
            outcome = failure
        else:
            self.works = True
            record.unlink(missing_ok=True)
            row.results[seed] = read_result(folder)
            check_same_data([other for other, _ in self.wanted])
            outcome = f"{row.results[seed].scores['psnr'].mean():.2f} dB"
        minutes = (time.perf_counter() - self.started) / 60
        left = len(self.pending) + len(self.running)
        done = self.n_missing - left
        say(
            f"[{done}/{self.n_missing}] {row.group}: {row.name}, seed {seed}: {outcome};"
            f" {minutes:.1f} minutes, about {minutes / done * left:.0f} left"
        )

    def terminate(self) -> None:
        """Stop the runs, which save their state, and wait for them."""
        for process, _ in self.running.values():
            process.terminate()
        for process, _ in self.running.values():
            process.wait()


def failure_of(folder: Path, status: int, continue_with: str) -> str:
    """The reason why a run has failed; "" on success; Interrupted if it can be continued."""
    log = folder.with_suffix(".log")
    if status == EXIT_INTERRUPTED:
        raise Interrupted(f"{folder} was stopped by a signal; continue with: {continue_with}")
    if status < 0:
        return f"killed by signal {-status}, perhaps out of memory; see {log}"
    lines = log.read_text("utf-8", "replace").strip().splitlines() if status else [""]
    return (lines or ["no message"])[-1].removeprefix("train.py: error: ")


def start_process(
    row: Experiment,
    seed: int,
    folder: Path,
    defaults: Mapping[str, Any],
    log: IO[bytes],
    environment: Mapping[str, str],
) -> subprocess.Popen:
    """Start `train.py` on a run, or resume the run if there is one in the folder.

    It has a session of its own, so that Ctrl-C reaches it only through this process, and it stops
    when this process has ended.
    """
    words = ["--resume"]
    if not is_run(folder):
        settings = row.settings | {"seed": seed}
        words = as_flags({k: v for k, v in settings.items() if v != defaults[k]})
    return subprocess.Popen(
        [sys.executable, str(TRAIN), str(folder), *words],
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment_of_child(environment),
        start_new_session=True,
    )
