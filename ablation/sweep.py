"""A sweep of your own: rows that vary settings, given as values of settings or in a file.

The first row is the control. The rows of a folder are kept in its `rows.txt`, so that a later call
adds to them; in the form of that file, rows can be written by hand, too:

    # a label, a colon and flags on each line; `#` begins a comment
    mse: --loss mse
    mse and edges: --loss mse 1 hfen 3
"""

import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.groups import Group
from util.command_line import as_argument_file, parse_line
from util.errors import InputError
from util.files import as_bytes, write_bytes
from util.settings import did_you_mean, flag, kinds_of, settings_of, typed

SWEEP = "sweep"  # the group of the rows
ROWS = "rows.txt"
WORDS = {"yes": True, "no": False}  # of settings that are on or off
# rows are compared on the same samples; seeds are those of --seed and --seeds
FIXED = (
    "output_folder", "resume", "initial_weights", "arrays", "data", "n_samples", "complex_pairs",
    "normalise", "split", "data_seed", "seed", "device", "max_minutes", "max_steps",
)  # fmt: skip

Rows = dict[str, dict[str, Any]]  # changed settings by label
Varied = Iterable[Sequence[Any]] | Mapping[str, Sequence[Any]]  # settings, each with its values


def varied_rows(function: Callable, varied: Varied, one_at_a_time: bool) -> Rows:
    """The combinations of values of some settings of `function`, or, with `one_at_a_time`, the
    first values and all that differ from them in one setting.

    A value is one of Python, or text as on a command line: "mse 1 ssim 0.01"; "yes" or "no".

    Raises:
        InputError: a setting or a value is unknown.
    """
    pairs = varied.items() if isinstance(varied, Mapping) else [(one[0], one[1:]) for one in varied]
    values: dict[str, dict[str, Any]] = {}  # by setting, then by text
    for given, those in pairs:
        name = str(given).removeprefix("--").replace("-", "_")
        if name in values:
            raise InputError(f"--vary has {name} twice: give it all its values at once")
        if not those:
            raise InputError(f"--vary {name} has no values: add two or more")
        values[name] = {}
        for value in those:
            text = value_text(value)
            if text in values[name]:
                raise InputError(f"--vary {name} has {text} twice")
            values[name][text] = value_of(function, name, value)
    names = list(values)
    combinations = [
        dict(zip(names, one, strict=True)) for one in itertools.product(*values.values())
    ]
    rows: Rows = {}
    for texts in combinations:
        changed = [name for name in names if texts[name] != combinations[0][name]]
        if one_at_a_time and len(changed) > 1:
            continue
        named = changed if one_at_a_time and changed else names
        label = ", ".join(f"{name} {texts[name] or 'none'}" for name in named)
        rows[label] = {name: values[name][texts[name]] for name in names}
    return rows


def value_text(value: Any) -> str:
    """A value as on a command line: "mse 1 ssim 0.01", "yes"."""
    if isinstance(value, (tuple, list)):
        return " ".join(map(str, value))
    words = [word for word, meaning in WORDS.items() if value is meaning]
    return words[0] if words else str(value)


def value_of(function: Callable, name: str, value: Any) -> Any:
    """The value of a setting of `function` from text, or as it is; InputError if it has none."""
    hints = inspect.get_annotations(function)
    known = [setting.name for setting in settings_of(function) if setting.name not in FIXED]
    if name in FIXED:
        raise InputError(f"--vary {name}: {flag(name)} must be the same in all rows")
    if name not in known:
        raise InputError(f"--vary {name}: there is no such setting{did_you_mean(name, known)}")
    if bool in kinds_of(hints[name]):
        if value_text(value) not in WORDS:
            raise InputError(f"--vary {name} is {value!r}, expected yes or no")
        return WORDS[value_text(value)]
    if not isinstance(value, str):
        return typed(function, {name: value})[name]
    source = f"--vary {name} {value}"
    return parse_line(function, f"{flag(name)} {value}", FIXED, source)[name]


def read_rows(function: Callable, path: Path) -> Rows:
    """The rows of a file.

    Raises:
        InputError: there is no such file, or a line is not a label with flags of `function`.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--rows {path} cannot be read: {error}") from None
    rows: Rows = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        source = f"{path}, line {number}"
        match = re.fullmatch(r"\s*(.+?)\s*:(\s.*)?", line)
        if match is None:
            raise InputError(f"{source}: expected a label, a colon and flags, found {line!r}")
        if match[1] in rows:
            raise InputError(f"{source}: the label {match[1]!r} is there twice")
        flags = match[2] or ""
        if fixed := [flag(name) for name in FIXED if flag(name) in flags.split()]:
            raise InputError(f"{source}: {fixed[0]} must be the same in all rows")
        rows[match[1]] = parse_line(function, flags, FIXED, source)
    if not rows:
        raise InputError(f"{path} has no rows: write a label, a colon and flags on each line")
    return rows


def write_rows(folder: Path, rows: Rows) -> None:
    """`rows.txt`: the rows of a folder, the control first."""
    lines = [
        " ".join([f"{label}:", *as_argument_file(changes).splitlines()]).rstrip()
        for label, changes in rows.items()
    ]
    text = "# Rows for experiments.py --rows; the first is the control\n" + "\n".join(lines) + "\n"
    write_bytes(folder / ROWS, as_bytes(text))


def with_earlier(function: Callable, folder: Path, rows: Rows) -> Rows:
    """The rows of earlier calls in the folder, followed by new ones.

    Raises:
        InputError: they have another control, or another row of the same label.
    """
    path = folder / ROWS
    if not path.exists():
        return rows
    earlier = read_rows(function, path)
    control = next(iter(earlier))
    if rows and next(iter(rows.items())) != (control, earlier[control]):
        raise InputError(
            f"{path} has the control {control!r}, and this call {next(iter(rows))!r}: put the same"
            " row first, or name another folder"
        )
    for label in rows:
        if earlier.get(label, rows[label]) != rows[label]:
            raise InputError(
                f"{path} has a row {label!r} of other settings: give it another label, or name"
                " another folder"
            )
    return earlier | rows


def group_of(rows: Rows) -> Group:
    """The rows as a group, whose control is the first."""
    control = next(iter(rows))
    return Group(f"Sweep, against {control}", control, dict(rows))
