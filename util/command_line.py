"""The command line, made from the signature of a function, and what every command has in common.

Flags, keyword arguments and edited defaults do the same, because all come from the signature (see
`util/settings.py`). Arguments may stand in a file, given as `@file`: several on a line, comments
behind `#`. A flag that is given again later wins; `none` stands for None.
"""

import argparse
import contextlib
import difflib
import inspect
import io
import os
import re
import shlex
import sys
import typing
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from util.errors import EXIT_INPUT, EXIT_INTERRUPTED, EXIT_KEYBOARD, InputError, Interrupted
from util.launcher import require_one_process
from util.settings import flag, kinds_of, matches, settings_of

SUITE = Path(__file__).resolve().parent.parent
NONE = "none"  # the word for None
QUOTED = re.compile(r"""(["'])(.*?)\1""")
WORD_OR_COMMENT = re.compile(
    r"""\s*((?P<comment>\#.*)|(?P<word>([^\s"']|"[^"]*"|'[^']*')+))""", re.VERBOSE
)


class Parser(argparse.ArgumentParser):
    """A parser that reads argument files and whose errors are one line.

    An argument file is found from any folder if it lies in the folder of the suite.
    """

    def __init__(self, **keywords):
        super().__init__(fromfile_prefix_chars="@", allow_abbrev=False, **keywords)

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        line, words, position = arg_line.removeprefix("\ufeff").rstrip(), [], 0
        while position < len(line):
            match = WORD_OR_COMMENT.match(line, position)
            if match is None:
                self.error(f"a quotation mark is not closed in the argument file's line {line!r}")
            if match["comment"]:
                break
            words.append(QUOTED.sub(r"\2", match["word"]))
            position = match.end()
        return [self.located(word) for word in words]

    def located(self, word: str) -> str:
        """The word, with the path of an argument file that is not in the working folder."""
        path = Path(word[1:])
        if not word.startswith("@") or path.exists():
            return word
        if not (SUITE / path).exists():
            self.error(f"the argument file {path} does not exist{similar_recipe(path)}")
        return f"@{SUITE / path}"

    def parse_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else args
        try:
            return super().parse_args([self.located(word) for word in words], namespace)
        except UnicodeDecodeError as error:
            self.error(f"an argument file is not UTF-8 text ({error})")
        except RecursionError:
            self.error("an argument file names itself")

    def error(self, message: str) -> typing.NoReturn:
        words = re.findall(r"--[\w-]+", message) if message.startswith("unrecognized") else []
        for word in words:
            known = [option for option in self._option_string_actions if option.startswith("--")]
            if close := difflib.get_close_matches(word, known, n=1):
                message += f"; did you mean {close[0]} for {word}?"
        self.refuse(message)

    def refuse(self, message: str) -> typing.NoReturn:
        self.exit(EXIT_INPUT, f"{self.prog}: error: {message} (--help lists all settings)\n")


class LineParser(Parser):
    """A parser of a line of a file, or of Python's text, whose errors are InputErrors."""

    def refuse(self, message: str) -> typing.NoReturn:
        raise InputError(f"{self.prog}: {message}")


def similar_recipe(path: Path) -> str:
    """A clause that names the recipe most like a path."""
    known = sorted(str(file.relative_to(SUITE)) for file in SUITE.glob("recipes/*.txt"))
    close = difflib.get_close_matches(str(path), known, n=1, cutoff=0.5)
    return f"; did you mean @{close[0]}?" if close else f", such as @{known[0]}" if known else ""


def main(
    program: str, command: Callable[[], object], after_keyboard: str, several: bool = False
) -> int:
    """Run a command; returns its exit status. An error is one line on standard error.

    Args:
        after_keyboard: what to do after a second Ctrl-C.
        several: it may run in several processes of torchrun.
    """
    prepare_streams()
    try:
        if not several:
            require_one_process(program)
        command()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe has gone, as in `tables.py run | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except InputError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except Interrupted as stopped:
        print(f"{program}: {stopped}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print(f"{program}: interrupted; {after_keyboard}", file=sys.stderr)
        return EXIT_KEYBOARD
    return 0


def prepare_streams() -> None:
    """Make standard output and error take any text, whatever they are connected to."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell, or a program without a console
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for what its encoding lacks


def parse_command_line(
    function: Callable,
    argv: list[str] | None = None,
    more: Callable | None = None,
    without: Iterable[str] = (),
    choices: Mapping[str, Collection[str]] = MappingProxyType({}),
    program: str | None = None,
    prefix_of: Callable[[str], str] = lambda name: "",
) -> dict[str, Any]:
    """The arguments for `function` that the command line gives, and no others.

    A positional parameter is a positional argument, of one or more words for a tuple; every keyword
    is a flag with `-` for `_`; a bool has `--flag` and `--no-flag`. With `more`, the keywords of
    this function follow, except those in `without`. `program`: the command in the help, if it is
    more than the script. `prefix_of`: of a setting's help. Exits with status 2 at an
    unknown flag or a wrong type.
    """
    parser = Parser(
        prog=program,
        description=(inspect.getdoc(function) or "").split("\n\n")[0],
        epilog="Positional arguments come first: a flag of several values would take them."
        " @file reads arguments from a file.",
        argument_default=argparse.SUPPRESS,
    )
    hints = _add_arguments(parser, function, {}, choices, prefix_of)
    if more is not None:
        hints |= _add_arguments(parser, more, dict.fromkeys(without) | hints, choices, prefix_of)
    given = vars(parser.parse_args(argv))
    return {name: _as_annotated(value, hints[name]) for name, value in given.items()}


def parse_line(
    function: Callable, line: str, without: Container[str], source: str
) -> dict[str, Any]:
    """The settings of `function`, but those in `without`, that flags on a line give.

    Raises:
        InputError: a flag or a value is wrong; it begins with `source`.
    """
    parser = LineParser(prog=source, add_help=False, argument_default=argparse.SUPPRESS)
    hints = _add_arguments(parser, function, without, {}, lambda name: "")
    given = vars(parser.parse_args(parser.convert_arg_line_to_args(line)))
    return {name: _as_annotated(value, hints[name]) for name, value in given.items()}


def _add_arguments(
    parser: argparse.ArgumentParser,
    function: Callable,
    without: Container[str],
    choices: Mapping[str, Collection[str]],
    prefix_of: Callable[[str], str],
) -> dict[str, Any]:
    """Add the parameters of a function, except those in `without`; returns their annotations."""
    hints = inspect.get_annotations(function)
    groups: dict[str, argparse._ArgumentGroup] = {}
    added = {}
    for setting in settings_of(function):
        if setting.name in without:
            continue
        added[setting.name] = hints[setting.name]
        if not setting.has_default:
            several = any(typing.get_origin(k) is tuple for k in kinds_of(hints[setting.name]))
            words = "+" if several else None
            parser.add_argument(setting.name, help=setting.help.replace("%", "%%"), nargs=words)
            continue
        title = setting.group or "options"
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        text = f"{prefix_of(setting.name)}{setting.help} (default: {setting.default_text})"
        if unnamed := [k for k in choices.get(setting.name, ()) if k not in setting.help]:
            text += f"; also: {', '.join(unnamed)}"
        groups[title].add_argument(
            flag(setting.name),
            help=text.replace("%", "%%"),
            **_argparse_type(hints[setting.name]),
        )
    return added


def as_flags(given: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command line, the inverse of `parse_command_line`."""
    words = []
    for name, value in given.items():
        if isinstance(value, bool):
            words.append(flag(name) if value else flag(f"no_{name}"))
        elif isinstance(value, tuple):
            words += [flag(name), *map(str, value)]
        elif str(value).startswith("@"):  # alone it would name an argument file
            words.append(f"{flag(name)}={value}")
        else:
            words += [flag(name), NONE if value is None else str(value)]
    return words


def as_argument_file(given: Mapping[str, Any]) -> str:
    """Settings as an argument file, a flag on a line."""
    lines = []
    for name, value in given.items():
        words = as_flags({name: value})
        lines.append(
            " ".join(word if re.fullmatch(r"[^\s\"'#]+", word) else _quoted(word) for word in words)
        )
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    mark = "'" if '"' in word else '"'
    return f"{mark}{word}{mark}"


def given_command(script: str) -> str | None:
    """The command line of this process, if it runs `script`; None in a notebook, for instance."""
    if Path(sys.argv[0]).name != script:
        return None
    return shlex.join(["python", *sys.argv])


def _argparse_type(hint: Any) -> dict[str, Any]:
    """The keywords of `add_argument` for an annotation."""
    kinds = kinds_of(hint)
    if bool in kinds:
        return {"action": argparse.BooleanOptionalAction}
    for kind in kinds:
        if typing.get_origin(kind) is tuple:
            part = typing.get_args(kind)[0]
            if typing.get_origin(part) is tuple:  # given several times, each with some values
                return {"action": "append", "nargs": "+"}
            return {"type": _reader(part, hint), "nargs": "*" if part is str else "+"}
    return {"type": _reader(kinds[0], hint), "metavar": kinds[0].__name__.upper()}


def _reader(kind: Any, hint: Any) -> Callable[[str], Any]:
    """What makes a value of a word; `none` is None where the annotation allows it. Of text or
    numbers, a number where it reads as one."""
    kinds = sorted(kinds_of(kind), key=lambda one: one is str)

    def read(word: str) -> Any:
        if word == NONE and matches(None, hint):
            return None
        for one in kinds[:-1]:
            with contextlib.suppress(ValueError):
                return one(word)
        return kinds[-1](word)

    read.__name__ = kinds[-1].__name__  # for argparse's messages
    return read


def _as_annotated(value: Any, hint: Any) -> Any:
    """What argparse made of a flag, as the annotation wants it."""
    if not isinstance(value, list):
        return value
    if value == [None]:
        return None
    value = [tuple(item) if isinstance(item, list) else item for item in value]
    return value[0] if len(value) == 1 and matches(value[0], hint) else tuple(value)
