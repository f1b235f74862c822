"""The folder of a run: the names of its files, reading and writing its tables, its settings.

The results of the test go to a journal first. `metrics.csv` is written when there are all, pictures
follow, and the journal is removed: then the run is finished. Scores have one name in all files:
`train/loss`, `validation/psnr`, `test/ssim`.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from CS_mask import UNNAMED
from evaluation.held_out import WITHOUT_TRUTH
from metrics import SCORES
from model import MODELS, architecture_settings
from util.command_line import as_argument_file
from util.errors import InputError
from util.files import as_bytes, claimed_folder, read_csv, require_only, write_bytes, write_csv
from util.launcher import launch_name
from util.settings import flag
from util.world import World

CONFIG, OUTPUT, METRICS = "config.json", "output.txt", "metrics.csv"
LESIONS, ERROR_MAP, HISTORY = "lesions.csv", "error_map.csv", "history.csv"
REPORT = "report.html"
ARRAYS, TENSORBOARD = "reconstructions.npz", "tensorboard"
SETTINGS = "settings.txt"  # an argument file
NAMES = ("method", "pattern")  # columns of tables that are text
JOURNAL = "test_rows.jsonl"  # results of a test that is not finished
# settings of this call, not of the run
OF_THE_CALL = ("resume", "max_minutes", "max_steps", "data", "device", "arrays")


def is_run(folder: Path) -> bool:
    """Whether the folder holds a run, finished or not."""
    return (folder / CONFIG).exists()


def is_finished(folder: Path) -> bool:
    """Whether the run in the folder is finished, its pictures too."""
    return (folder / METRICS).exists() and not (folder / JOURNAL).exists()


def is_of_this_launch(folder: Path) -> bool:
    """Whether the folder holds a run that this call of torchrun began."""
    return is_run(folder) and read_config(folder).get("launch") == launch_name() is not None


def require_run(folder: Path) -> None:
    """Raise InputError if the folder holds no run to resume."""
    if not is_run(folder):
        raise InputError(f"{folder} holds no run to resume ({CONFIG} is missing)")


def require_empty(folder: Path) -> None:
    """Raise InputError if the folder holds anything."""
    if is_run(folder):
        state = "a finished run" if is_finished(folder) else "an unfinished run"
        raise InputError(f"{folder} holds {state}: name another folder, or continue with --resume")
    require_only((CONFIG,), folder)


@contextlib.contextmanager
def claimed(name: str, resume: bool, world: World) -> Iterator[tuple[Path, bool]]:
    """The folder of a run, claimed by the first process for all, and whether to continue the run
    in it: if asked for, or if torchrun has begun it and started the processes again.

    Raises:
        InputError: as `claimed_folder`; there is no run to continue, or one that must not be lost.
    """
    if not world.is_first:
        yield Path(name), world.from_first(resume)
        return
    resume = resume or (world.restarted and is_of_this_launch(Path(name)))
    with claimed_folder(name, require_run if resume else require_empty) as folder:
        yield folder, world.from_first(resume)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """`config.json`: the settings of the run and what they were run on."""
    write_bytes(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def write_settings(folder: Path, settings: Mapping[str, Any], command: str | None) -> None:
    """`settings.txt`: the settings as an argument file, which makes the same run again."""
    origin = f"with: {command}" if command else "from Python"
    wanted = of_the_run(settings) | {name: settings[name] for name in ("data", "arrays")}
    text = f"# A run begun {origin}\n# The same again: python train.py new_folder @this_file\n"
    write_bytes(folder / SETTINGS, as_bytes(text + as_argument_file(wanted)))


def read_config(folder: Path) -> dict[str, Any]:
    """The content of `config.json`; InputError if it cannot be read."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        settings = dict(config["settings"])
        settings["split"]  # every run has one
        config["settings"] = {  # JSON has no tuples
            k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / CONFIG} is damaged ({error}): start a new run") from None
    return config


def stored_settings(
    folder: Path, given: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of the run in `folder`, with those in `OF_THE_CALL` as given now. A setting that
    is newer than the run has its default.

    The data are then recognised by their values (see `require_same_data`).

    Raises:
        InputError: another given setting contradicts a stored one.
    """
    stored = read_config(folder)["settings"]
    known = {**defaults, **stored}
    free = list(OF_THE_CALL)
    if stored.get("initial_weights") and stored.get("model") in MODELS:
        free += ["model", *architecture_settings(stored["model"])]  # the checkpoint's
    differing = [
        f"{flag(name)} {value} (the run has {known[name]})"
        for name, value in given.items()
        if name not in free and known[name] != value
    ]
    if differing:
        remedy = "leave them out, or start a new run in another folder"
        if is_finished(folder):
            remedy += f", from its weights with --initial-weights {folder / 'checkpoint_best.pt'}"
        raise InputError(
            f"--resume continues with the settings of the run, but these differ:"
            f" {', '.join(differing)}: {remedy}"
        )
    return stored | {name: given[name] for name in OF_THE_CALL if name in given}


def device_asked_for(folder: Path, device: str | None) -> str | None:
    """The device of a call; None: that of the run in `folder`, if there is one."""
    if device is None and is_run(folder):
        stored: str | None = read_config(folder)["settings"].get("device")
        return stored
    return device


def of_the_run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that make a run what it is, without those in `OF_THE_CALL`."""
    return {name: value for name, value in settings.items() if name not in OF_THE_CALL}


def require_same_data(folder: Path, data_hash: str, given: Sequence[Sequence[str]]) -> None:
    """Raise InputError if the run in `folder` was begun with other data, or with other masks of a
    file (`CS_mask.Sampling.given`)."""
    config = read_config(folder)
    if config.get("masks", []) != [list(mask) for mask in given]:
        raise InputError(
            f"{folder} was begun with other masks than {config['settings']['pattern']} has now: put"
            " its masks back, or start a new run in another folder"
        )
    before = config["data"].get("hash")
    if before != data_hash:
        raise InputError(
            f"{folder} was begun with other data (hash {before}, now {data_hash}): give the path of"
            " its data with --data, or start a new run in another folder"
        )


def write_metrics(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """`metrics.csv`: a row for each test sample, pattern, acceleration and method."""
    write_csv(folder / METRICS, rows)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.csv`, scores as float, all else as text. A score that the file does not
    have, because it is newer, is NaN: absent; a pattern is that of older runs."""
    absent = {"pattern": UNNAMED, **dict.fromkeys(SCORES, math.nan)}
    known = {**SCORES, **WITHOUT_TRUTH}
    try:
        rows: list[dict[str, Any]] = [
            absent | {k: float(v) if k in known else v for k, v in row.items()}
            for row in read_csv(folder / METRICS)
        ]
        complete = bool(rows) and rows[0].keys() >= {"sample", "acc", "method"}
    except (OSError, ValueError, TypeError):
        complete = False
    if not complete:
        raise InputError(f"{folder / METRICS} is damaged: remove it, and --resume makes it anew")
    return rows


def read_history(folder: Path) -> list[dict[str, float]]:
    """The rows of `history.csv`, one for each completed epoch; none if there is no such file."""
    return _read_numbers(folder / HISTORY)


def read_lesions(folder: Path) -> list[dict[str, Any]]:
    """The rows of `lesions.csv`; none if there is no such file."""
    return _read_numbers(folder / LESIONS)


def _read_numbers(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, all as numbers except names, without empty cells."""
    try:
        return [
            {k: value if k in NAMES else float(value) for k, value in row.items() if value}
            for row in read_csv(path)
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): start a new run") from None


def highest_peak(history: Sequence[Mapping[str, float]]) -> float:
    """Peak memory over all sessions of a run, in bytes; 0 if it could not be measured."""
    return max((entry.get("peak_memory", 0.0) for entry in history), default=0.0)
