"""The runs of experiments: running one in a separate process, and reading the results.

The runs of a row are in `row.folder`: `seed0/` is a run's folder, `seed0.log` its output, and
`seed0.failure` the reason why it has no result.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.groups import GROUPS, MEMORY, Row
from ablation.results import Result, read_result
from model import architecture_settings, count_cost
from training.checkpoint import LAST
from training.run import pass_size
from training.run_folder import ARRAYS, is_finished, is_run, of_the_run, read_config
from util.command_line import as_flags, flag
from util.errors import EXIT_INTERRUPTED, InputError, Interrupted
from util.files import in_use
from util.machine import available_memory
from util.progress import say
from util.stop import StopRequest

RUNS = "runs"  # the folder of all runs, in the output folder of the experiments
FAILURE = ".failure"  # suffix of the file with the reason why a seed has no result
TRAIN = Path(__file__).resolve().parent.parent / "train.py"
POLL_SECONDS = 0.2  # between two checks of a running process


def folder_name(changed: Mapping[str, Any]) -> str:
    """A name for the runs of these changes: "dropout=0.3,model=unet"."""
    parts = [
        f"{name}={'+'.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in sorted(changed.items())
    ]
    return ",".join(parts) or "as_given"


def run_one(
    row: Row, seed: int, folder: Path, defaults: Mapping[str, Any], stop: StopRequest
) -> str:
    """Run `train.py` in a separate process, from the start or from where it was stopped.

    Args:
        defaults: the default settings of `train()`, which need no flag.

    Returns:
        The reason of a failure; "" on success.

    Raises:
        Interrupted: a stop was requested; the run has saved its state and can be continued.
    """
    row.folder.mkdir(parents=True, exist_ok=True)
    if in_use(folder):
        say(f"waiting for the run in {folder}, which another process has started")
    while in_use(folder):
        stop.check(f"while waiting for {folder}")
        time.sleep(POLL_SECONDS)
    words = ["--resume"]
    if not is_run(folder):
        settings = row.settings | {"seed": seed}
        words = as_flags({k: v for k, v in settings.items() if v != defaults[k]})
    command = [sys.executable, str(TRAIN), str(folder), *words]
    log = folder.with_suffix(".log")
    with log.open("a") as output, child(command, output) as process:
        while process.poll() is None:
            if stop.requested():
                process.terminate()
                process.wait()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
    if process.returncode == 0:
        remove_large_files(folder)
        return ""
    stop.check(f"in {folder}")
    if process.returncode == EXIT_INTERRUPTED:
        raise Interrupted(f"{folder} was stopped by a signal; continue with: {stop.continue_with}")
    if process.returncode < 0:
        return f"killed by signal {-process.returncode}, perhaps out of memory; see {log}"
    message = (log.read_text().strip() or "no message").splitlines()[-1]
    return message.removeprefix("train.py: error: ")


@contextlib.contextmanager
def child(command: Sequence[str], output) -> Iterator[subprocess.Popen]:
    """A process in a new session, so that Ctrl-C reaches it only through its parent. It is
    terminated at the end of the block."""
    process = subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def too_large(row: Row, wanted: Sequence[tuple[Row, int]]) -> str:
    """The reason why a training step of a row cannot fit into memory; "" if it may fit, or on a
    GPU, where torch raises an error. It is judged by finished runs on the same data."""
    same_data = (  # the memory group uses other data than the rest
        other for other, _ in wanted if (other.group == MEMORY) == (row.group == MEMORY)
    )
    results = (result for other in same_data for result in other.results.values())
    known: Result | None = next(results, None)
    s, free = row.settings, available_memory()
    on_cpu = known is not None and known.config["device"].startswith("cpu")
    if known is None or not on_cpu or free is None or s["gradient_checkpointing"]:
        return ""
    _, n_frames, ny, nx = known.config["data"]["shape"]
    settings = s | {"real_image": known.config["settings"]["real_image"]}
    architecture = {name: settings[name] for name in architecture_settings(s["model"])}
    shape = (n_frames, ny, min(nx, s["strip"] or nx))
    size = pass_size(s["batch_size"], s["accumulation"], known.config["split"])
    counted = count_cost(s["model"], size, shape, **architecture).activation_bytes
    if s["precision"] == "bfloat16":
        counted //= 2  # approximately: most stored activations are in bfloat16
    if counted < free:
        return ""
    return f"not run: {counted / 1e9:.3g} GB of activations counted, {free / 1e9:.3g} GB are free"


def read_runs(rows: Sequence[Row]) -> None:
    """Fill in the rows' finished runs, or the reason why there is none.

    Raises:
        InputError: a run has other settings than its row, or other data than its group.
    """
    for row in rows:
        row.results = finished_runs(row)
        failures = sorted(row.folder.glob(f"*{FAILURE}"), key=seed_of)
        row.failure = failures[-1].read_text() if failures else ""
    check_same_data(rows)


def check_same_data(rows: Sequence[Row]) -> None:
    """Raise InputError unless the runs of each group have the same data and split."""
    for group in GROUPS:
        seen: dict[str, Path] = {}
        for row in (row for row in rows if row.group == group):
            for seed, result in row.results.items():
                seen.setdefault(result.data, row.folder / f"seed{seed}")
        if len(seen) > 1:
            one, other, *_ = seen.values()
            raise InputError(
                f"{one} and {other} have different data or splits: remove one of them, or name"
                " another output folder for the changed data"
            )


def finished_runs(row: Row) -> dict[int, Result]:
    """The finished runs of a row, by seed; InputError if a run has other settings."""
    results = {}
    for folder in sorted(filter(is_run, row.folder.glob("seed*")), key=seed_of):
        stored = read_config(folder)["settings"]
        seed = int(stored["seed"])
        differing = [
            f"{flag(name)} {value} (the run has {stored.get(name)})"
            for name, value in of_the_run(row.settings | {"seed": seed}).items()
            if (name not in stored or stored[name] != value)
            and not (name == "real_image" and value is None)  # the data decide
        ]
        if differing:
            raise InputError(
                f"{folder} holds a run of other settings: {', '.join(differing)}; give the same"
                " settings as before, or name another folder"
            )
        if is_finished(folder):
            results[seed] = read_result(folder)
    return results


def seed_of(path: Path) -> int:
    """The seed in the name of a run, `seed10`, and of the files about it."""
    digits = path.stem.removeprefix("seed")
    return int(digits) if digits.isdecimal() else -1


def remove_large_files(folder: Path) -> None:
    """Remove the large files of a finished run that are no longer needed."""
    for name in (LAST, ARRAYS):
        (folder / name).unlink(missing_ok=True)
