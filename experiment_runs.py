"""What the runs of experiments left on disk: results, failures, and whether they belong together.

The runs of a row lie in `row.folder`: `seed0/` is a run's folder, `seed0.log` what it printed, and
`seed0.failure` why it has no result.
"""

from collections.abc import Sequence
from pathlib import Path

import checkpoint as ckpt
import report
from comparison import Result, read_result
from errors import InputError
from experiment_groups import GROUPS, Row
from settings import flag

FAILURE = ".failure"  # ending of a file that says why a seed has no run


def read_runs(rows: Sequence[Row]) -> None:
    """Give the rows their finished runs, or the reason why there is none.

    Raises:
        InputError: a run has other settings than its row, or other data than its group.
    """
    for row in rows:
        row.results = finished_runs(row)
        failures = sorted(row.folder.glob(f"*{FAILURE}"))
        row.failure = failures[-1].read_text() if failures else ""
    check_same_data(rows)


def check_same_data(rows: Sequence[Row]) -> None:
    """InputError if the runs of a group have other data, or another split, than each other."""
    for group in GROUPS:
        seen: dict[str, Path] = {}
        for row in (row for row in rows if row.group == group):
            for seed, result in row.results.items():
                seen.setdefault(result.data, row.folder / f"seed{seed}")
        if len(seen) > 1:
            one, other, *_ = seen.values()
            raise InputError(
                f"{one} and {other} have other data, or another split, than each other: remove one"
                " of them, or name another output folder for the changed data"
            )


def finished_runs(row: Row) -> dict[int, Result]:
    """The finished runs of a row, by seed; InputError if a run has other settings."""
    results = {}
    for folder in sorted(row.folder.glob("seed*")):
        if not (folder / report.CONFIG).exists():
            continue
        stored = report.read_config(folder)["settings"]
        seed = int(stored["seed"])
        differing = [
            f"{flag(name)} {value} (the run has {stored.get(name)})"
            for name, value in (row.settings | {"seed": seed}).items()
            if name not in ("resume", "max_minutes")
            and (name not in stored or stored[name] != value)
            and not (name == "real_image" and value is None)  # the data decide
        ]
        if differing:
            raise InputError(
                f"{folder} holds a run of other settings: {', '.join(differing)}; give the same"
                " settings as before, or name another folder"
            )
        if (folder / report.METRICS).exists():
            results[seed] = read_result(folder)
    return results


def tidy(folder: Path) -> None:
    """Remove what a finished run made that is large and needed no more."""
    for name in (ckpt.LAST, report.ARRAYS):
        (folder / name).unlink(missing_ok=True)
