"""Run the reference's experiments, and some beyond them, and compare every row with its control.

    python experiments.py output_folder [--only group ...] [--seeds n] [--setting value ...]

A row is one setting of `train()` changed in its control; settings given here hold for all rows.
Without `--precision`, all rows compute in bfloat16 on CPUs that have instructions for it. Every row
runs with several seeds, each in a process of its own, in `runs/`; the split and the test masks
stay. Rows that are equal share their runs, finished runs are kept, and the same command goes on
where an earlier one was stopped. The tables say mean, spread and the paired difference to the
control (see `comparison.py`).
"""

import contextlib
import inspect
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import report
import runtime
from checks import check_settings
from comparison import read_result
from errors import InputError
from experiment_groups import GROUPS, MEMORY, RATES, Row
from experiment_report import FILES, write_rates, write_report
from experiment_runs import FAILURE, check_same_data, read_runs, tidy
from model import ARCHITECTURE, count_cost
from output_folder import claimed_folder, holds_only, in_use
from run import pass_size
from runtime import say
from settings import as_flags, check_types, flag, parse_command_line
from train import EXIT_INPUT, EXIT_INTERRUPTED, EXIT_KEYBOARD, train

RUNS = "runs"
KNOWN = (RUNS, *FILES, *(f"{name}.tmp" for name in FILES))  # what its folder may hold
TRAIN = Path(__file__).resolve().with_name("train.py")
GO_ON = "the same command again"
POLL_SECONDS = 0.2  # how often a running child is looked at
EACH_RUN = {"num_pictures": 0}  # of all rows, unless given
NOT_GIVEN = ("output_folder", "resume", "initial_weights")  # settings that rows cannot share
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(train).parameters.items()
    if parameter.default is not inspect.Parameter.empty
}


def experiments(
    output_folder: str
    | os.PathLike[str],  # folder for runs and tables: new, empty, or one of an earlier call
    *,
    only: tuple[str, ...] | None = None,  # groups to run: base, refiner, branches, batch_norm,
    # augmentation, cnn3d, beyond, acceleration, learning_rate; None: all
    seeds: int = 3,  # runs of every row, with seeds from --seed on
    **settings,
) -> None:
    """Run groups of experiments and write tables and figures of all that have run.

    Args:
        settings: of `train()`, for all rows.

    Raises:
        InputError: a setting, the data or the folder cannot be used as they are.
        runtime.Interrupted: stopped by a signal or `max_minutes`; the same call goes on.
    """
    groups = check_given(only, seeds, settings)
    max_minutes = settings.pop("max_minutes", None)
    device = runtime.pick_device(settings.get("device"))
    settings.setdefault("precision", runtime.fast_precision(device))
    with (
        claimed_folder(os.fspath(output_folder), partial(holds_only, KNOWN)) as folder,
        runtime.StopRequest(max_minutes) as stop,
    ):
        rows = [row for name in GROUPS for row in planned(folder, name, settings)]
        read_runs(rows)
        first = settings.get("seed", DEFAULTS["seed"])
        wanted = [
            (row, seed)
            for seed in range(first, first + seeds)
            for row in rows
            if row.group in groups or (row.group == MEMORY and "cnn3d" in groups and seed == first)
        ]
        if RATES in groups:
            write_rates(folder, SimpleNamespace(**DEFAULTS | settings))
        try:
            run_all(wanted, stop)
        finally:
            read_runs(rows)
            write_report(folder, rows, settings)
        say(f"written: {', '.join(name for name in FILES if (folder / name).exists())} in {folder}")


def check_given(
    only: tuple[str, ...] | None, seeds: int, settings: dict[str, Any]
) -> tuple[str, ...]:
    """The groups to run; InputError if one is unknown, or a setting makes no sense."""
    known = (*(name for name in GROUPS if name != MEMORY), RATES)
    for name in only or ():
        if name not in known:
            raise InputError(f"--only is {name!r}, expected some of {', '.join(known)}")
    if type(seeds) is not int or seeds < 1:
        raise InputError(f"--seeds is {seeds!r}, expected a whole number of at least 1")
    for name in NOT_GIVEN:
        if name in settings:
            raise InputError(f"{flag(name)} cannot be given for all rows: leave it out")
    if settings.get("num_epochs") == 0:
        raise InputError("--num-epochs is 0, but rows are compared by what they learn: give more")
    check_types(train, settings)
    check_settings(SimpleNamespace(**DEFAULTS | settings))
    groups = tuple(name for name in known if only is None or name in only)
    for name in groups:
        rows = GROUPS[name].rows.values() if name in GROUPS else ()
        for given in settings:
            if rows and (given in GROUPS[name].base or all(given in changes for changes in rows)):
                say(f"NOTICE: {flag(given)} does not apply to the group {name}, which sets it")
    return groups


def planned(folder: Path, name: str, given: dict[str, Any]) -> list[Row]:
    """The rows of a group, with all their settings; InputError if these make no sense."""
    common = DEFAULTS | EACH_RUN | given
    before = common | GROUPS[name].base
    rows = []
    for label, changes in GROUPS[name].rows.items():
        settings = before | {k: v(before) if callable(v) else v for k, v in changes.items()}
        check_settings(SimpleNamespace(**settings))
        changed = {k: v for k, v in settings.items() if v != common[k]}
        rows.append(Row(name, label, settings, folder / RUNS / folder_name(changed)))
    return rows


def folder_name(changed: Mapping[str, Any]) -> str:
    """A name for the runs of these changes: "dropout=0.3,model=unet"."""
    parts = [
        f"{name}={'+'.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in sorted(changed.items())
    ]
    return ",".join(parts) or "as_given"


def run_all(wanted: Sequence[tuple[Row, int]], stop: runtime.StopRequest) -> None:
    """Run what has no result yet, one after the other, and tell how far it is."""
    runs: dict[Path, tuple[Row, int]] = {}  # equal rows share theirs
    for row, seed in wanted:
        runs.setdefault(row.folder / f"seed{seed}", (row, seed))
    missing = [folder for folder in runs if not (folder / report.METRICS).exists()]
    works = len(runs) > len(missing)
    for folder in runs.keys() - set(missing):
        tidy(folder)
    say(f"{len(runs)} runs, {len(runs) - len(missing)} of them finished before")
    started = time.perf_counter()
    for done, folder in enumerate(missing, start=1):
        row, seed = runs[folder]
        failure = too_large(row, wanted) or run_one(row, seed, folder, stop)
        if failure and not works:  # nothing ever did: the settings or the data are at fault
            raise InputError(failure)
        works = True
        kept = folder.with_suffix(FAILURE)
        if failure:
            row.folder.mkdir(parents=True, exist_ok=True)
            report.write_bytes(kept, failure.encode())
            outcome = failure
        else:
            kept.unlink(missing_ok=True)
            row.results[seed] = read_result(folder)
            check_same_data([other for other, _ in wanted])
            outcome = f"{row.results[seed].scores['psnr'].mean():.2f} dB"
        minutes = (time.perf_counter() - started) / 60
        say(
            f"[{done}/{len(missing)}] {row.group}: {row.name}, seed {seed}: {outcome};"
            f" {minutes:.1f} minutes, about {minutes / done * (len(missing) - done):.0f} left"
        )


def run_one(row: Row, seed: int, folder: Path, stop: runtime.StopRequest) -> str:
    """Run `train.py` in a process of its own, from the start or from where it was stopped.

    Returns:
        Why it failed; "" if it did not.

    Raises:
        runtime.Interrupted: asked to stop; the run has saved what it needs to go on.
    """
    row.folder.mkdir(parents=True, exist_ok=True)
    if in_use(folder):
        say(f"waiting for the run in {folder}, which another process has begun")
    while in_use(folder):
        if stop:
            raise runtime.Interrupted(f"stopped by {stop.reason}", folder, GO_ON)
        time.sleep(POLL_SECONDS)
    words = ["--resume"]
    if not (folder / report.CONFIG).exists():
        settings = row.settings | {"seed": seed}
        words = as_flags({k: v for k, v in settings.items() if v != DEFAULTS[k]})
    command = [sys.executable, str(TRAIN), str(folder), *words]
    log = folder.with_suffix(".log")
    with log.open("a") as output, child(command, output) as process:
        while process.poll() is None:
            if stop:
                process.terminate()
                process.wait()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
    if process.returncode == 0:
        tidy(folder)
        return ""
    if stop or process.returncode == EXIT_INTERRUPTED:
        reason = stop.reason or "a signal to the run"
        raise runtime.Interrupted(f"stopped by {reason}", folder, GO_ON)
    if process.returncode < 0:
        return f"killed by signal {-process.returncode}, perhaps for want of memory; see {log}"
    message = (log.read_text().strip() or "no message").splitlines()[-1]
    return message.removeprefix("train.py: error: ")


@contextlib.contextmanager
def child(command: Sequence[str], output) -> Iterator[subprocess.Popen]:
    """A process in a session of its own, so that Ctrl-C reaches it through us alone; it does not
    outlive the block."""
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
    """Why a training step of a row cannot fit this computer; "" if it may, or on a GPU, which says
    so itself."""
    own = (  # on the same data: the group has its own
        other for other, _ in wanted if (other.group == MEMORY) == (row.group == MEMORY)
    )
    known = next((result for other in own for result in other.results.values()), None)
    s, free = row.settings, runtime.available_memory()
    on_cpu = known is not None and known.config["device"].startswith("cpu")
    if known is None or not on_cpu or free is None or s["gradient_checkpointing"]:
        return ""
    _, n_frames, ny, nx = known.config["data"]["shape"]
    settings = s | {"real_image": known.config["settings"]["real_image"]}
    architecture = {name: settings[name] for name in ARCHITECTURE[s["model"]]}
    shape = (n_frames, ny, min(nx, s["strip"] or nx))
    size = pass_size(s["batch_size"], s["accumulation"], known.config["split"])
    counted = count_cost(s["model"], size, shape, **architecture).activation_bytes
    if s["precision"] == "bfloat16":
        counted //= 2  # about: what is kept is mostly in bfloat16 then
    if counted < free:
        return ""
    return f"not run: {counted / 1e9:.3g} GB of activations counted, {free / 1e9:.3g} GB are free"


def main() -> int:
    """The command line; returns the exit status."""
    try:
        experiments(**parse_command_line(experiments, more=train, without=NOT_GIVEN))
    except InputError as error:
        print(f"experiments.py: error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except runtime.Interrupted as stopped:
        print(f"experiments.py: {stopped}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print("experiments.py: interrupted; the same command goes on", file=sys.stderr)
        return EXIT_KEYBOARD
    return 0


if __name__ == "__main__":
    sys.exit(main())
