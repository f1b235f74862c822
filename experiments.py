"""Run the reference's experiments, some beyond them, or your own, and compare every row with its
control.

    python experiments.py output_folder [--only group ...] [--seeds n] [--jobs n] [--setting value]
    python experiments.py output_folder --vary stages 3 5 8 --vary loss mse l1 [--setting value]

A row is one setting of `train()` changed in its control, or a row of your own (see
`ablation/sweep.py`); settings given here hold for all rows. Every row runs with several seeds, each
in a process of its own, in `runs/`; the split and the test masks are the same for all. Rows with
equal settings share their runs, finished runs are kept, and the same command continues where an
earlier one was stopped (see `ablation/jobs.py`). The tables show mean, spread and the paired
difference to the control (see `ablation/results.py`).
"""

from util.source import early_arguments

if __name__ == "__main__":  # help and wrong flags end here, before the slow imports
    GIVEN = early_arguments(__file__)

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ablation.groups import GROUPS, MEMORY, Experiment, Group
from ablation.jobs import Jobs
from ablation.runs import RUNS, folder_name, read_runs
from ablation.summary import FILES, write_report
from ablation.sweep import (
    ROWS,
    SWEEP,
    Rows,
    group_of,
    read_rows,
    varied_rows,
    with_earlier,
    write_rows,
)
from dataset import require_data
from model import about_models
from train import train
from training.checks import CHOICES, check_settings
from training.settings import unused_settings
from util.command_line import main, parse_command_line
from util.errors import InputError, Interrupted
from util.files import claimed_folder, require_only
from util.machine import environments, fast_precision, pick_device
from util.progress import say
from util.settings import defaults_of, flag, require_choices, typed
from util.stop import StopRequest, recorded_signals

KNOWN = (RUNS, ROWS, *FILES)  # what its folder may hold
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
    vary: tuple[tuple[str, ...], ...]
    | Mapping[str, Sequence[Any]] = (),  # a setting and its values; again: all combinations
    one_at_a_time: bool = False,  # change one setting of the first row at a time
    rows: str | None = None,  # file of rows of your own: a label, a colon and flags on each line
    seeds: int = 3,  # runs of every row, with seeds from --seed on
    jobs: int = 1,  # runs at the same time; they share the CPU cores, or have a GPU each
    **settings,
) -> None:
    """Run groups of experiments, or your own, and write tables and figures of all that have run.

    Args:
        vary: with text as on a command line, or {"stages": [3, 5], "loss": ["mse", ("l1", 2.0)]}.
        settings: of `train()`, for all rows.

    Raises:
        InputError: a setting, the data or the folder cannot be used as they are.
        Interrupted: stopped by a signal or `max_minutes`; the same call continues.
    """
    own = own_rows(only, vary, one_at_a_time, rows)
    check_given(only, seeds, jobs, settings)
    common = DEFAULTS | RUN_DEFAULTS | settings
    if own:
        check_rows(own, common)
    else:
        check_settings(common)
    wanted_groups = chosen(only, own, settings)
    max_minutes = settings.pop("max_minutes", None)
    device = pick_device(settings.get("device"))
    settings["precision"] = settings.get("precision") or fast_precision(device)
    only_known = partial(require_only, KNOWN)
    with claimed_folder(os.fspath(output_folder), only_known) as folder:
        stop = StopRequest(max_minutes, SAME_COMMAND)
        stop.progressed()  # no piece of work is awaited: runs save their own state
        groups = GROUPS
        if all_own := with_earlier(train, folder, own):
            groups = GROUPS | {SWEEP: group_of(all_own)}
        planned_rows = []
        for name, group in groups.items():
            try:
                planned_rows += planned(folder, name, group, settings)
            except InputError:  # settings of this call that do not go with a group
                if name in wanted_groups:
                    raise
        read_runs(planned_rows, DEFAULTS)
        if own:
            write_rows(folder, all_own)
        first = settings.get("seed", DEFAULTS["seed"])
        wanted = [
            (row, seed)
            for seed in range(first, first + seeds)
            for row in planned_rows
            if row.group in wanted_groups
            and (row.group != SWEEP or row.name in own)
            and (row.group != MEMORY or seed == first)
        ]
        try:
            Jobs(wanted, DEFAULTS, environments(jobs, device), stop, tries_all=bool(own)).run()
        except (InputError, Interrupted):
            with contextlib.suppress(InputError):  # which must not hide why it ended
                report(folder, planned_rows, settings, groups)
            raise
        report(folder, planned_rows, settings, groups)
        say(f"written: {', '.join(name for name in FILES if (folder / name).exists())} in {folder}")


def own_rows(
    only: tuple[str, ...] | None,
    vary: tuple[tuple[str, ...], ...] | Mapping[str, Sequence[Any]],
    one_at_a_time: bool,
    file: str | os.PathLike[str] | None,
) -> Rows:
    """The rows of your own that are asked for; none: groups are. InputError if they are unclear."""
    given = {"--only": only is not None, "--vary": bool(vary), "--rows": file is not None}
    if sum(given.values()) > 1:
        names = " and ".join(name for name, there in given.items() if there)
        raise InputError(f"{names} cannot be combined: give one of them, and another folder others")
    if one_at_a_time and not vary:
        raise InputError("--one-at-a-time is for --vary: give settings to vary, or leave it out")
    if file is not None:
        return read_rows(train, Path(file))
    return varied_rows(train, vary, one_at_a_time) if vary else {}


def check_given(
    only: tuple[str, ...] | None, seeds: int, jobs: int, settings: dict[str, Any]
) -> None:
    """Raise InputError if a group is unknown, or a setting makes no sense."""
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


def chosen(only: tuple[str, ...] | None, own: Rows, settings: dict[str, Any]) -> tuple[str, ...]:
    """The groups to run, with notices of settings that they set; the memory comes with "cnn3d"."""
    groups = {SWEEP: group_of(own)} if own else {name: GROUPS[name] for name in GROUP_NAMES}
    names = tuple(name for name in groups if only is None or name in only)
    for name in names:
        rows = groups[name].rows.values()
        for given in settings:
            if given in groups[name].base or all(given in changes for changes in rows):
                say(f"NOTICE: {flag(given)} does not apply to the group {name}, which sets it")
    return (*names, MEMORY) if "cnn3d" in names else names


def check_rows(rows: Rows, common: dict[str, Any]) -> None:
    """Raise InputError if the settings of a row of your own make no sense."""
    for label, changes in rows.items():
        settings = common | changes
        try:
            check_settings(settings)
        except InputError as error:
            raise InputError(f"row {label!r}: {error}") from None
        if not settings["num_epochs"]:
            raise InputError(
                f"row {label!r}: --num-epochs is 0, but rows are compared by what they learn"
            )
        for line in unused_settings(settings, common):
            say(f"{line} (row {label})")


def planned(folder: Path, name: str, group: Group, given: dict[str, Any]) -> list[Experiment]:
    """The rows of a group, with all their settings; InputError if these make no sense."""
    common = DEFAULTS | RUN_DEFAULTS | given
    of_group = common | group.base
    rows = []
    for label, changes in group.rows.items():
        settings = of_group | {k: v(of_group) if callable(v) else v for k, v in changes.items()}
        check_settings(settings)
        changed = {k: v for k, v in settings.items() if v != common[k]}
        rows.append(Experiment(name, label, settings, folder / RUNS / folder_name(changed)))
    return rows


def report(
    folder: Path,
    rows: Sequence[Experiment],
    settings: dict[str, Any],
    groups: Mapping[str, Group],
) -> None:
    """Read the runs again and write the report of all that are finished."""
    if (folder / RUNS).exists():
        read_runs(rows, DEFAULTS)
        write_report(folder, rows, settings, groups)


def arguments() -> dict[str, Any]:
    """The arguments for `experiments()` on the command line.

    Raises:
        InputError: new experiments have no data.
    """
    choices = CHOICES | {"only": GROUP_NAMES}
    given = parse_command_line(
        experiments, None, train, NOT_SHARED, choices, prefix_of=about_models
    )
    if not os.path.exists(given["output_folder"]):
        require_data(given.get("data", DEFAULTS["data"]))
    return given


def from_command_line(given: dict[str, Any] | None = None) -> None:
    """`experiments()` with the arguments of the command line; `given`: these, if parsed before."""
    experiments(**(arguments() if given is None else given))


if __name__ == "__main__":
    with recorded_signals():  # until the last message
        after = f"to continue, give {SAME_COMMAND}"
        sys.exit(main("experiments.py", partial(from_command_line, GIVEN), after))
