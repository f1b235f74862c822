"""The command line, made from the signature of a function, and what every command has in common.

A setting's name, type, default and help stand in one place: a keyword of the function with an
annotation and a comment on its line. This module reads them there, so that a flag, a keyword
argument and an edited default do the same. A comment `# -- title` begins a group of settings.
Supported types: bool, int, float, str, tuples of one of these (`tuple[float, ...]`), and unions
with None or of a type and its tuple (`float | tuple[float, ...]`: a single value stays single).

Arguments may stand in a file, given as `@file`: several on a line, comments behind `#`. A flag that
is given again later wins; `none` stands for None.
"""

import argparse
import contextvars
import dataclasses
import difflib
import functools
import inspect
import io
import math
import os
import re
import shlex
import sys
import tokenize
import types
import typing
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from util.errors import EXIT_INPUT, EXIT_INTERRUPTED, EXIT_KEYBOARD, InputError, Interrupted

explicit: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("explicit")
NONE = "none"  # the word for None
QUOTED = re.compile(r"""(["'])(.*?)\1""")
WORD_OR_COMMENT = re.compile(
    r"""\s*((?P<comment>\#.*)|(?P<word>([^\s"']|"[^"]*"|'[^']*')+))""", re.VERBOSE
)


class Parser(argparse.ArgumentParser):
    """A parser that reads argument files and whose errors are one line."""

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
        return words

    def parse_args(self, *arguments, **keywords):
        try:
            return super().parse_args(*arguments, **keywords)
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
        self.exit(EXIT_INPUT, f"{self.prog}: error: {message} (--help lists all settings)\n")


def main(program: str, command: Callable[[], object], after_keyboard: str) -> int:
    """Run a command; returns its exit status. An error is one line on standard error.

    `after_keyboard`: what to do after a second Ctrl-C.
    """
    prepare_streams()
    try:
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
) -> dict[str, Any]:
    """The arguments for `function` that the command line gives, and no others.

    A positional parameter is a positional argument, of one or more words for a tuple; every keyword
    is a flag with `-` for `_`; a bool has `--flag` and `--no-flag`. With `more`, the keywords of
    this function follow, except those in `without`. `program`: the command in the help, if it is
    more than the script. Exits with status 2 at an unknown flag or a wrong type.
    """
    parser = Parser(
        prog=program,
        description=(inspect.getdoc(function) or "").split("\n\n")[0],
        epilog="Positional arguments come first: a flag of several values would take them."
        " @file reads arguments from a file.",
        argument_default=argparse.SUPPRESS,
    )
    hints = _add_arguments(parser, function, {}, choices)
    if more is not None:
        hints |= _add_arguments(parser, more, dict.fromkeys(without) | hints, choices)
    given = vars(parser.parse_args(argv))
    return {name: _as_annotated(value, hints[name]) for name, value in given.items()}


def _add_arguments(
    parser: argparse.ArgumentParser,
    function: Callable,
    without: Container[str],
    choices: Mapping[str, Collection[str]],
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
            several = any(typing.get_origin(k) is tuple for k in _kinds(hints[setting.name]))
            words = "+" if several else None
            parser.add_argument(setting.name, help=setting.help.replace("%", "%%"), nargs=words)
            continue
        title = setting.group or "options"
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        text = f"{setting.help} (default: {setting.default_text})"
        if unnamed := [k for k in choices.get(setting.name, ()) if k not in setting.help]:
            text += f"; of {', '.join(unnamed)}"
        groups[title].add_argument(
            flag(setting.name),
            help=text.replace("%", "%%"),
            **_argparse_type(hints[setting.name]),
        )
    return added


@dataclasses.dataclass(frozen=True)
class Setting:
    """A parameter of a function, as its source describes it."""

    name: str
    help: str  # the comment on its line
    group: str  # the last title before it; "" before the first
    default: Any  # inspect.Parameter.empty: none

    @property
    def has_default(self) -> bool:
        return self.default is not inspect.Parameter.empty

    @property
    def default_text(self) -> str:
        """The default as on a command line."""
        if isinstance(self.default, tuple):
            return " ".join(map(str, self.default)) or "none"
        return str(self.default)


def settings_of(function: Callable) -> list[Setting]:
    """The parameters of a function in order, with their comments and groups."""
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    help_of, group_of = dict.fromkeys(parameters, ""), dict.fromkeys(parameters, "")
    name, group, depth = "", "", 0
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(function)).readline):
        if token.type == tokenize.OP and token.string in "([{":
            depth += 1
        elif token.type == tokenize.OP and token.string in ")]}":
            depth -= 1
            if depth == 0:
                break
        elif token.type == tokenize.NAME and depth == 1 and token.string in parameters:
            name = token.string
            group_of[name] = group
        elif token.type == tokenize.COMMENT and token.string.startswith("# -- "):
            group = token.string.removeprefix("# -- ")
        elif token.type == tokenize.COMMENT and name:
            help_of[name] = token.string.lstrip("# ")
    return [
        Setting(name, help_of[name], group_of[name], parameter.default)
        for name, parameter in parameters.items()
    ]


def defaults_of(function: Callable) -> dict[str, Any]:
    """The default of every parameter of a function that has one."""
    return {s.name: s.default for s in settings_of(function) if s.has_default}


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


def notes_explicit(function: Callable) -> Callable:
    """A decorator: while the function runs, `explicit` has the names of the keywords given to it.

    So a keyword that equals its default can be told from one that was left out.
    """

    @functools.wraps(function)
    def call(*arguments, **keywords):
        token = explicit.set(frozenset(keywords))
        try:
            return function(*arguments, **keywords)
        finally:
            explicit.reset(token)

    return call


def as_argument_file(given: Mapping[str, Any]) -> str:
    """Settings as an argument file, a flag on a line."""
    lines = []
    for name, value in given.items():
        name_word, *values = as_flags({name: value})
        quoted = [word if re.fullmatch(r"[^\s\"'#]+", word) else _quoted(word) for word in values]
        lines.append(" ".join([name_word, *quoted]))
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    mark = "'" if '"' in word else '"'
    return f"{mark}{word}{mark}"


def given_command(script: str) -> str | None:
    """The command line of this process, if it runs `script`; None in a notebook, for instance."""
    if Path(sys.argv[0]).name != script:
        return None
    return shlex.join(["python", *sys.argv])


def typed(function: Callable, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values with the types that `function` annotates.

    Numpy scalars become numbers, paths become text and lists become tuples.

    Raises:
        InputError: a value has another type, or a number is not finite.
    """
    hints = inspect.get_annotations(function)
    values = {name: _plain(value) for name, value in given.items()}
    for name, value in values.items():
        if name not in hints:
            raise InputError(f"{flag(name)} is not a setting of this version of the code")
        if not _matches(value, hints[name]):
            hint = hints[name]
            expected = hint.__name__ if isinstance(hint, type) else str(hint)
            expected = expected.replace("float", "finite float")
            raise InputError(f"{flag(name)} is {value!r}, expected {expected}")
    return values


def _plain(value: Any) -> Any:
    """Numbers, text and tuples for what stands for them in Python."""
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def flag(name: str) -> str:
    """The command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def _argparse_type(hint: Any) -> dict[str, Any]:
    """The keywords of `add_argument` for an annotation."""
    kinds = _kinds(hint)
    if bool in kinds:
        return {"action": argparse.BooleanOptionalAction}
    for kind in kinds:
        if typing.get_origin(kind) is tuple:
            part = typing.get_args(kind)[0]
            return {"type": _reader(part, hint), "nargs": "*" if part is str else "+"}
    return {"type": _reader(kinds[0], hint), "metavar": kinds[0].__name__.upper()}


def _reader(kind: type, hint: Any) -> Callable[[str], Any]:
    """What makes a value of a word; `none` is None where the annotation allows it."""

    def read(word: str) -> Any:
        return None if word == NONE and _matches(None, hint) else kind(word)

    read.__name__ = kind.__name__  # for argparse's messages
    return read


def _as_annotated(value: Any, hint: Any) -> Any:
    """What argparse made of a flag, as the annotation wants it."""
    if not isinstance(value, list):
        return value
    if value == [None]:
        return None
    return value[0] if len(value) == 1 and _matches(value[0], hint) else tuple(value)


def _kinds(hint: Any) -> list[Any]:
    """The types that a setting may have, but None."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return [kind for kind in kinds if kind is not types.NoneType]


def _matches(value: Any, hint: Any) -> bool:
    if value is None:
        return isinstance(hint, types.UnionType) and types.NoneType in typing.get_args(hint)
    return any(_is_a(value, kind) for kind in _kinds(hint))


def _is_a(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is tuple:
        part = typing.get_args(kind)[0]
        return isinstance(value, tuple) and all(_is_a(item, part) for item in value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind
