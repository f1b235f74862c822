"""The command line, made from a function's signature.

A setting's name, type, default and help stand in one place: as a keyword of the function, with an
annotation and a comment behind it. This module reads them there, so that a flag, a keyword argument
and an edited default do the same. Supported types: bool, int, float, str, tuples of one of these
(`tuple[float, ...]`), and unions with None or of a type and its tuple (`float | tuple[float, ...]`:
a single value stays single).
"""

import argparse
import inspect
import io
import math
import tokenize
import types
import typing
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from errors import InputError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others of the project."""

    def error(self, message: str) -> typing.NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists all settings)\n")


def parse_command_line(
    function: Callable,
    argv: list[str] | None = None,
    more: Callable | None = None,
    without: Iterable[str] = (),
) -> dict[str, Any]:
    """The arguments for `function` that the command line gives, and no others.

    A positional parameter is a positional argument, every keyword a flag with `-` for `_`;
    a bool has `--flag` and `--no-flag`. With `more`, the keywords of this function follow, but for
    those named in `without`. Exits with status 2 at an unknown flag or a wrong type.
    """
    parser = Parser(
        description=(inspect.getdoc(function) or "").split("\n\n")[0],
        epilog="Positional arguments come first: a flag of several values would take them.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    hints = _add_arguments(parser, function, {})
    if more is not None:
        hints |= _add_arguments(parser, more, dict.fromkeys(without) | hints)
    given = vars(parser.parse_args(argv))
    return {name: _as_annotated(value, hints[name]) for name, value in given.items()}


def _add_arguments(
    parser: argparse.ArgumentParser, function: Callable, without: Container[str]
) -> dict[str, Any]:
    """Add the parameters of a function, but for those in `without`; returns their annotations."""
    help_of, hints = comments(function), typing.get_type_hints(function)
    added = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in without or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        added[name] = hints[name]
        text = help_of[name].replace("%", "%%")
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            parser.add_argument(name, help=text)
            continue
        default = parameter.default
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        parser.add_argument(
            flag(name), help=f"{text} (default: {shown})", **_argparse_type(hints[name])
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
        else:
            words += [flag(name), str(value)]
    return words


def check_types(function: Callable, given: dict[str, Any]) -> None:
    """InputError unless every value is of the type that `function` annotates; numbers finite."""
    hints = typing.get_type_hints(function)
    for name, value in given.items():
        if name not in hints:
            raise InputError(f"{flag(name)} is not a setting of this version of the code")
        if not _matches(value, hints[name]):
            hint = hints[name]
            expected = hint.__name__ if isinstance(hint, type) else str(hint)
            expected = expected.replace("float", "finite float")
            raise InputError(f"{flag(name)} is {value!r}, expected {expected}")


def flag(name: str) -> str:
    """The command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def resumed_settings(
    stored: dict[str, Any], given: dict[str, Any], free: tuple[str, ...]
) -> dict[str, Any]:
    """The stored settings of a run, with the `free` ones as given now.

    Raises:
        InputError: another given setting contradicts a stored one.
    """
    differing = {
        name: value
        for name, value in given.items()
        if name not in free and name in stored and stored[name] != value
    }
    if differing:
        listed = ", ".join(
            f"{flag(name)} {value} (the run has {stored[name]})"
            for name, value in differing.items()
        )
        raise InputError(
            f"--resume goes on with the settings of the run, but these differ: {listed}:"
            " leave them out, or start a new run in another folder"
        )
    return stored | {name: given[name] for name in free if name in given}


def comments(function: Callable) -> dict[str, str]:
    """The comment behind each parameter in the source of `function`, lines joined."""
    parameters = inspect.signature(function).parameters
    found = dict.fromkeys(parameters, "")
    current = None
    depth = 0
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(function)).readline):
        if token.type == tokenize.OP and token.string in "([{":
            depth += 1
        elif token.type == tokenize.OP and token.string in ")]}":
            depth -= 1
            if depth == 0:
                break
        elif token.type == tokenize.NAME and depth == 1 and token.string in parameters:
            current = token.string
        elif token.type == tokenize.COMMENT and current and not token.string.startswith("# --"):
            found[current] += " " + token.string.lstrip("# ")
    return {name: text.strip() for name, text in found.items()}


def _argparse_type(hint: Any) -> dict[str, Any]:
    """The keywords of `add_argument` for an annotation."""
    kinds = _kinds(hint)
    if bool in kinds:
        return {"action": argparse.BooleanOptionalAction}
    for kind in kinds:
        if typing.get_origin(kind) is tuple:
            part = typing.get_args(kind)[0]
            return {"type": part, "nargs": "*" if part is str else "+"}
    return {"type": kinds[0], "metavar": kinds[0].__name__.upper()}


def _as_annotated(value: Any, hint: Any) -> Any:
    """What argparse made of a flag, as the annotation wants it."""
    if not isinstance(value, list):
        return value
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
