"""Running what has no result yet: several runs at once, shared with other processes and machines.

A run is held by a lock on its log. `train.py`, which writes the log, has the lock as well: the run
is free as soon as both this process and that one have ended or were killed. Whether a run is to be
started, to be resumed, or to be left alone is decided only while it is held.
"""

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ablation.groups import Row
from ablation.results import read_result
from ablation.runs import FAILURE, check_same_data, remove_large_files, too_large
from training.run_folder import is_finished, is_run
from util.command_line import as_flags
from util.errors import EXIT_INTERRUPTED, InputError, Interrupted
from util.files import in_use, locked_file, write_bytes
from util.progress import say
from util.stop import StopRequest

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
POLL_SECONDS = 0.2  # between two looks at the runs of this process
LOOK_SECONDS = 10  # between two looks at the runs of others, while this process could take one


@dataclass(frozen=True)
class Job:
    """A run that this process has started."""

    folder: Path
    log: IO[bytes]  # locked
    process: subprocess.Popen
    environment: dict[str, str]
    started: float  # in seconds, of time.perf_counter


class Jobs:
    """The runs of one call: those to do, those that run, and the reason of the first failure."""

    def __init__(
        self,
        wanted: Sequence[tuple[Row, int]],
        defaults: Mapping[str, Any],
        environments: Sequence[dict[str, str]],
        stop: StopRequest,
    ):
        """`wanted`: rows with seeds. `defaults`: the settings of `train()` that need no flag.
        `environments`: variables for each of the runs that may run at once."""
        self.wanted, self.defaults, self.stop = wanted, defaults, stop
        self.n_at_once, self.free = len(environments), list(environments)
        self.runs: dict[Path, tuple[Row, int]] = {}  # rows with equal settings share theirs
        for row, seed in wanted:
            self.runs.setdefault(row.folder / f"seed{seed}", (row, seed))
        self.pending = [folder for folder in self.runs if not is_finished(folder)]
        self.failed_before = {folder: failure_time(folder) for folder in self.pending}
        self.n_missing = len(self.pending)
        self.works = self.n_missing < len(self.runs)
        self.failure = ""
        self.running: list[Job] = []
        self.minutes: list[float] = []  # of the runs that have ended
        self.started = time.perf_counter()

    def run(self) -> int:
        """Run what has no result and is not held by other processes; returns how many they hold.

        Raises:
            InputError: no run has ever worked, or two have different data.
            Interrupted: a stop was requested; the runs have saved their state.
        """
        for folder in self.runs.keys() - set(self.pending):
            remove_large_files(folder)
        say(f"{len(self.runs)} runs, {len(self.runs) - self.n_missing} of them finished before")
        try:
            self.start_more()
            while self.running:
                for job in self.wait():
                    self.close(job)
                self.start_more()
        finally:
            self.terminate()
        return len(self.pending)

    def start_more(self) -> None:
        """Start runs that nobody holds, until as many run as may run at once."""
        if self.failure and not self.works and not self.may_work():
            return
        for folder in list(self.pending):
            if not self.free:
                return
            log = hold(folder)
            if log is None:
                continue
            self.pending.remove(folder)
            self.start(folder, log)

    def may_work(self) -> bool:
        """Whether to go on after a failure before any run has worked; only others can tell.

        Raises:
            InputError: no other can: the settings or the data are at fault.
        """
        if self.running:
            return False
        self.works = any(is_finished(folder) for folder in self.runs)
        if not self.works and not any(is_held(folder) for folder in self.pending):
            raise InputError(self.failure)
        return True

    def start(self, folder: Path, log: IO[bytes]) -> None:
        """Start a held run, unless another process has run it meanwhile, or it cannot fit."""
        row, seed = self.runs[folder]
        started = time.perf_counter()
        with contextlib.ExitStack() as held:
            held.enter_context(log)
            if is_finished(folder):
                row.results[seed] = read_result(folder)
            elif failure_time(folder) != self.failed_before[folder]:
                return
            elif reason := too_large(row, self.wanted):
                self.record(folder, reason, started)
            else:
                environment = self.free.pop(0)
                process = start_process(row, seed, folder, self.defaults, log, environment)
                self.running.append(Job(folder, log, process, environment, started))
                held.pop_all()

    def wait(self) -> list[Job]:
        """The runs that have ended; none if it is time to look for runs that others gave up."""
        deadline = time.monotonic() + LOOK_SECONDS
        while not (ended := [job for job in self.running if job.process.poll() is not None]):
            if self.stop.requested():
                folders = ", ".join(str(job.folder) for job in self.running)
                self.terminate()
                self.stop.check(f"in {folders}")
            if self.pending and self.free and time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        return ended

    def close(self, job: Job) -> None:
        """Record what has become of a run, and give it free."""
        self.running.remove(job)
        self.free.append(job.environment)
        with job.log:
            failure = self.failure_of(job)
            if failure and in_use(job.folder):  # somebody has just started it by hand
                self.pending.append(job.folder)
            else:
                self.record(job.folder, failure, job.started)

    def failure_of(self, job: Job) -> str:
        """The reason why a run has failed; "" on success; Interrupted if it can be continued."""
        status = job.process.returncode
        if status == 0:
            return ""
        self.stop.check(f"in {job.folder}")
        if status == EXIT_INTERRUPTED:
            raise Interrupted(
                f"{job.folder} was stopped by a signal; continue with: {self.stop.continue_with}"
            )
        if status < 0:
            return f"killed by signal {-status}, perhaps out of memory; see {job.log.name}"
        job.log.seek(0)
        lines = job.log.read().decode("utf-8", "replace").strip().splitlines()
        return (lines or ["no message"])[-1].removeprefix("train.py: error: ")

    def record(self, folder: Path, failure: str, started: float) -> None:
        """Keep the result of a run, or the reason why it has none, and report the progress."""
        row, seed = self.runs[folder]
        record = folder.with_suffix(FAILURE)
        if failure:
            write_bytes(record, failure.encode())
            self.failure = self.failure or failure
            outcome = failure
        else:
            self.works = True
            remove_large_files(folder)
            record.unlink(missing_ok=True)
            row.results[seed] = read_result(folder)
            check_same_data([other for other, _ in self.wanted])
            outcome = f"{row.results[seed].scores['psnr'].mean():.2f} dB"
        now = time.perf_counter()
        self.minutes.append((now - started) / 60)
        left = len(self.pending) + len(self.running)
        rounds = math.ceil(left / self.n_at_once)
        say(
            f"[{self.n_missing - left}/{self.n_missing}] {row.group}: {row.name}, seed {seed}:"
            f" {outcome}; {(now - self.started) / 60:.1f} minutes, about"
            f" {sum(self.minutes) / len(self.minutes) * rounds:.0f} left"
        )

    def terminate(self) -> None:
        """Stop the runs, which save their state, and wait for them."""
        for job in self.running:
            if job.process.poll() is None:
                job.process.terminate()
        for job in self.running:
            job.process.wait()
            job.log.close()


def start_process(
    row: Row,
    seed: int,
    folder: Path,
    defaults: Mapping[str, Any],
    log: IO[bytes],
    environment: Mapping[str, str],
) -> subprocess.Popen:
    """Start `train.py` on a run, or resume the run if there is one in the folder.

    It has a session of its own, so that Ctrl-C reaches it only through this process.
    """
    words = ["--resume"]
    if not is_run(folder):
        settings = row.settings | {"seed": seed}
        words = as_flags({k: v for k, v in settings.items() if v != defaults[k]})
    return subprocess.Popen(
        [sys.executable, str(TRAIN), str(folder), *words],
        stdout=log,
        stderr=subprocess.STDOUT,
        env=os.environ | environment,
        start_new_session=True,
    )


def hold(folder: Path) -> IO[bytes] | None:
    """The log of a run, locked until it is closed; None if another process holds the run."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        log = locked_file(folder.with_suffix(".log"))
    except BlockingIOError:
        return None
    if in_use(folder):  # by a `train.py` that was started by hand
        log.close()
        return None
    with contextlib.suppress(OSError):
        os.utime(folder)  # a network file system then looks anew what is in it
    return log


def is_held(folder: Path) -> bool:
    """Whether another process holds a run."""
    log = hold(folder)
    if log is not None:
        log.close()
    return log is None


def failure_time(folder: Path) -> int:
    """When the failure of a run was recorded, in nanoseconds; 0 if there is no record."""
    with contextlib.suppress(FileNotFoundError):
        return folder.with_suffix(FAILURE).stat().st_mtime_ns
    return 0
