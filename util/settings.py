"""Settings, read from the signature of a function.

A setting's name, type, default and help stand in one place: a keyword of the function with an
annotation and a comment on its line. A comment `# -- title` begins a group of settings. Supported
types: bool, int, float, str, tuples of one of these (`tuple[float, ...]`) or of two (`tuple[str |
float, ...]`: what reads as a number is one), and unions with None or of a type and its tuple
(`float | tuple[float, ...]`: a single value stays single). A function, annotated with `Callable`,
is no setting: it is for Python alone.
"""

import contextvars
import dataclasses
import difflib
import functools
import inspect
import io
import math
import operator
import os
import tokenize
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from util.errors import InputError

explicit: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("explicit")


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
    parameters = inspect.signature(function).parameters
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
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        and not any(typing.get_origin(k) is Callable for k in kinds_of(parameter.annotation))
    ]


def defaults_of(function: Callable) -> dict[str, Any]:
    """The default of every parameter of a function that has one."""
    return {s.name: s.default for s in settings_of(function) if s.has_default}


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
        if not matches(value, hints[name]):
            hint = hints[name]
            expected = hint.__name__ if isinstance(hint, type) else str(hint)
            expected = expected.replace("float", "finite float")
            raise InputError(f"{flag(name)} is {value!r}, expected {expected}")
    return values


def _plain(value: Any) -> Any:
    """Numbers, text and tuples for what stands for them in Python."""
    import numpy as np  # not above: the help of a command does without it

    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def require_bounds(
    given: Mapping[str, Any],
    at_least: Mapping[str, float],
    at_most: Mapping[str, float] = MappingProxyType({}),
    more_than: Mapping[str, float] = MappingProxyType({}),
    less_than: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Raise InputError at the first setting that is out of bounds, unless it is absent or None."""
    for bounds, expected, holds in (
        (at_least, "at least", operator.ge),
        (at_most, "at most", operator.le),
        (more_than, "more than", operator.gt),
        (less_than, "less than", operator.lt),
    ):
        for name, bound in bounds.items():
            value = given.get(name)
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and not holds(number, bound):
                    raise InputError(f"{flag(name)} is {value}, expected {expected} {bound}")


def require_choices(given: Mapping[str, Any], choices: Mapping[str, Collection[Any]]) -> None:
    """Raise InputError at the first setting with another value than its choices."""
    for name, possible in choices.items():
        value = given.get(name)
        for item in value if isinstance(value, tuple) else (value,):
            if item is not None and item not in possible:
                expected = ", ".join(map(str, possible))
                hint = did_you_mean(str(item), map(str, possible))
                if "," in str(item):
                    hint = ": separate several by spaces"
                raise InputError(f"{flag(name)} is {item!r}, expected one of {expected}{hint}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A clause that names the known word most like this one; "" if none is."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def flag(name: str) -> str:
    """The command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def kinds_of(hint: Any) -> list[Any]:
    """The types that a setting may have, but None."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return [kind for kind in kinds if kind is not types.NoneType]


def matches(value: Any, hint: Any) -> bool:
    if value is None:
        return isinstance(hint, types.UnionType) and types.NoneType in typing.get_args(hint)
    return any(_is_a(value, kind) for kind in kinds_of(hint))


def _is_a(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is tuple:
        part = typing.get_args(kind)[0]
        return isinstance(value, tuple) and all(matches(item, part) for item in value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind
