"""The runs of experiments: where they are, what they have given, and whether one fits into memory.

The runs of a row are in `row.folder`: `seed0/` is a run's folder, `seed0.log` its output, and
`seed0.failure` the reason why it has no result.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.groups import MEMORY, Experiment
from ablation.results import Result, read_result
from model import architecture_settings, count_cost
from training.run import pass_size
from training.run_folder import is_finished, is_run, of_the_run, read_config
from training.settings import with_own_values
from util.errors import InputError
from util.memory import available_memory
from util.settings import flag

BY_DATA = ("real_image", "in_channels", "out_channels")  # unless they are given
RUNS = "runs"  # the folder of all runs, in the output folder of the experiments
LONGEST_NAME = 150  # of a folder, which file systems limit
FAILURE = ".failure"  # suffix of the file with the reason why a seed has no result


def folder_name(changed: Mapping[str, Any]) -> str:
    """A name for the runs of these changes: "dropout=0.3,model=unet"; a long one ends in a hash."""
    parts = [
        f"{name}={'+'.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in sorted(changed.items())
    ]
    name = ",".join(parts).replace("/", "_").replace("\\", "_") or "as_given"
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def too_large(row: Experiment, wanted: Sequence[tuple[Experiment, int]]) -> str:
    """The reason why a training step of a row cannot fit into memory; "" if it may fit, or on a
    GPU, where torch raises an error. It is judged by finished runs on the same data."""
    same_data = (  # the memory group uses other data than the rest
        other for other, _ in wanted if (other.group == MEMORY) == (row.group == MEMORY)
    )
    results = (result for other in same_data for result in other.results.values())
    known: Result | None = next(results, None)
    free = available_memory()
    on_cpu = known is not None and known.config["device"].startswith("cpu")
    if known is None or not on_cpu or free is None or row.settings["gradient_checkpointing"]:
        return ""
    s = with_own_values(row.settings)
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


def read_runs(rows: Sequence[Experiment], defaults: Mapping[str, Any]) -> None:
    """Fill in the rows' finished runs, or the reason why there is none.

    `defaults`: of `train()`; a setting that is newer than a run has its default there.

    Raises:
        InputError: a run has other settings than its row, or other data than its group.
    """
    for row in rows:
        row.results = finished_runs(row, defaults)
        row.failure = last_failure(row)
    check_same_data(rows)


def last_failure(row: Experiment) -> str:
    """The reason why the last of the failed seeds of a row has no result; "" if none has failed."""
    for record in sorted(row.folder.glob(f"*{FAILURE}"), key=seed_of, reverse=True):
        if not is_finished(record.with_suffix("")):
            return record.read_text()
    return ""


def check_same_data(rows: Sequence[Experiment]) -> None:
    """Raise InputError unless the runs of each group have the same data and split."""
    for group in dict.fromkeys(row.group for row in rows):
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


def finished_runs(row: Experiment, defaults: Mapping[str, Any]) -> dict[int, Result]:
    """The finished runs of a row, by seed; InputError if a run has other settings."""
    results = {}
    for folder in sorted(filter(is_run, row.folder.glob("seed*")), key=seed_of):
        stored = read_config(folder)["settings"]
        known = with_own_values({**defaults, **stored})
        seed, wanted = int(stored["seed"]), with_own_values(row.settings)
        differing = [
            f"{flag(name)} {value} (the run has {known[name]})"
            for name, value in of_the_run(wanted | {"seed": seed}).items()
            if known[name] != value and not (name in BY_DATA and value == defaults[name])
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
