"""Run the reference's experiments, and some beyond them, and compare every row with its control.

    python experiments.py output_folder [--only group ...] [--seeds n] [--jobs n] [--setting value]

A row is one setting of `train()` changed in its control; settings given here hold for all rows.
Every row runs with several seeds, each in a process of its own, in `runs/`; the split and the test
masks are the same for all. Rows with equal settings share their runs, finished runs are kept, and
the same command continues where an earlier one was stopped (see `ablation/jobs.py`). The tables
show mean, spread and the paired difference to the control (see `ablation/results.py`).
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ablation.groups import GROUPS, MEMORY, Experiment
from ablation.jobs import Jobs
from ablation.runs import RUNS, folder_name, read_runs
from ablation.summary import FILES, write_report
from model import about_models
from train import train
from training.checks import CHOICES, check_settings
from util.command_line import main, parse_command_line
from util.errors import InputError, Interrupted
from util.files import claimed_folder, require_only
from util.machine import environments, fast_precision, pick_device
from util.progress import say
from util.settings import defaults_of, flag, require_choices, typed
from util.stop import StopRequest, recorded_signals

KNOWN = (RUNS, *FILES)  # what its folder may hold
RUN_DEFAULTS = {"num_pictures": 0, "arrays": "none"}  # of all rows, unless given
# settings that cannot be given for all rows
NOT_SHARED = ("output_folder", "resume", "initial_weights", "arrays")
DEFAULTS = defaults_of(train)
SAME_COMMAND = "the same command again"
GROUP_NAMES = tuple(name for name in GROUPS if name != MEMORY)


def experiments(
    output_folder: str | os.PathLike[str],  # folder for runs and tables: new, or of an earlier call
    *,
    # -- experiments
    only: tuple[str, ...] | None = None,  # groups to run, such as base refiner; None: all
    seeds: int = 3,  # runs of every row, with seeds from --seed on
    jobs: int = 1,  # runs at the same time; they share the CPU cores, or have a GPU each
    **settings,
) -> None:
    """Run groups of experiments and write tables and figures of all that have run.

    Args:
        settings: of `train()`, for all rows.

    Raises:
        InputError: a setting, the data or the folder cannot be used as they are.
        Interrupted: stopped by a signal or `max_minutes`; the same call continues.
    """
    groups = check_given(only, seeds, jobs, settings)
    max_minutes = settings.pop("max_minutes", None)
    device = pick_device(settings.get("device"))
    settings["precision"] = settings.get("precision") or fast_precision(device)
    only_known = partial(require_only, KNOWN)
    with claimed_folder(os.fspath(output_folder), only_known) as folder:
        stop = StopRequest(max_minutes, SAME_COMMAND)
        stop.progressed()  # no piece of work is awaited: runs save their own state
        rows = [row for name in GROUPS for row in planned(folder, name, settings)]
        read_runs(rows, DEFAULTS)
        first = settings.get("seed", DEFAULTS["seed"])
        wanted = [
            (row, seed)
            for seed in range(first, first + seeds)
            for row in rows
            if row.group in groups or (row.group == MEMORY and "cnn3d" in groups and seed == first)
        ]
        try:
            Jobs(wanted, DEFAULTS, environments(jobs, device), stop).run()
        except (InputError, Interrupted):
            with contextlib.suppress(InputError):  # which must not hide why it ended
                report(folder, rows, settings)
            raise
        report(folder, rows, settings)
        say(f"written: {', '.join(name for name in FILES if (folder / name).exists())} in {folder}")


def check_given(
    only: tuple[str, ...] | None, seeds: int, jobs: int, settings: dict[str, Any]
) -> tuple[str, ...]:
    """The groups to run; InputError if one is unknown, or a setting makes no sense."""
    require_choices({"only": only}, {"only": GROUP_NAMES})
    for name, number in (("seeds", seeds), ("jobs", jobs)):
        if type(number) is not int or number < 1:
            raise InputError(f"{flag(name)} is {number!r}, expected a whole number of at least 1")
    for name in NOT_SHARED:
        if name in settings:
            raise InputError(f"{flag(name)} cannot be given for all rows: leave it out")
    if settings.get("num_epochs") == 0:
        raise InputError("--num-epochs is 0, but rows are compared by what they learn: give more")
    settings.update(typed(train, settings))
    check_settings(DEFAULTS | settings)
    groups = tuple(name for name in GROUP_NAMES if only is None or name in only)
    for name in groups:
        rows = GROUPS[name].rows.values()
        for given in settings:
            if given in GROUPS[name].base or all(given in changes for changes in rows):
                say(f"NOTICE: {flag(given)} does not apply to the group {name}, which sets it")
    return groups


def planned(folder: Path, name: str, given: dict[str, Any]) -> list[Experiment]:
    """The rows of a group, with all their settings; InputError if these make no sense."""
    common = DEFAULTS | RUN_DEFAULTS | given
    of_group = common | GROUPS[name].base
    rows = []
    for label, changes in GROUPS[name].rows.items():
        settings = of_group | {k: v(of_group) if callable(v) else v for k, v in changes.items()}
        check_settings(settings)
        changed = {k: v for k, v in settings.items() if v != common[k]}
        rows.append(Experiment(name, label, settings, folder / RUNS / folder_name(changed)))
    return rows


def report(folder: Path, rows: Sequence[Experiment], settings: dict[str, Any]) -> None:
    """Read the runs again and write the report of all that are finished."""
    if (folder / RUNS).exists():
        read_runs(rows, DEFAULTS)
        write_report(folder, rows, settings)


def from_command_line() -> None:
    """`experiments()` with the arguments of the command line."""
    choices = CHOICES | {"only": GROUP_NAMES}
    given = parse_command_line(
        experiments, None, train, NOT_SHARED, choices, prefix_of=about_models
    )
    experiments(**given)


if __name__ == "__main__":
    with recorded_signals():  # until the last message
        sys.exit(main("experiments.py", from_command_line, f"to continue, give {SAME_COMMAND}"))
