"""The command line of a script, read from the source before its slow imports.

Importing torch and others takes seconds, which `--help` and wrong flags need not wait for. The
function `arguments` of a script needs signatures and names alone. Here it runs in a module that is
read, not imported: a statement of the file is executed when a name that it defines is asked for.
Names of the suite's other modules are found in the same way; `Absent` stands for libraries. If
anything depends on these, the imports decide: no result is wrong, it is only as late as before.
"""

import ast
import builtins
import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from util.cache import source_file
from util.command_line import prepare_streams
from util.errors import EXIT_INPUT, InputError
from util.launcher import started_by_torchrun


def early_arguments(script: str) -> Any:
    """What the function `arguments` of a script returns; None if that takes the script's imports.

    Exits at `--help` and at mistakes in the command line, as `arguments` does.
    """
    if started_by_torchrun():  # main() comes first: several processes may be refused
        return None
    prepare_streams()
    try:
        return Source(Path(script)).arguments()
    except InputError as error:
        print(f"{Path(script).name}: error: {error}", file=sys.stderr)
        sys.exit(EXIT_INPUT)
    except Exception:  # whatever it is: with the imports it is raised again, or does not occur
        return None
    finally:
        _module.cache_clear()


class Source:
    """A module of the suite, whose attributes are read from its file when they are asked for."""

    def __init__(self, path: Path, name: str = ""):
        self._names, self._name = _Names(path), name

    def __getattr__(self, name: str) -> Any:
        with contextlib.suppress(KeyError):
            return self._names[name]
        module = _module(f"{self._name}.{name}")  # of a folder
        if module is None:
            raise AttributeError(name)
        return module


class Absent:
    """An object of a library that is not imported.

    Annotations, bases and decorators may have it. What it is, as text, truth, sequence or
    signature, is not known, and asking for it is an error.
    """

    __repr__ = __bool__ = __iter__ = None  # type: ignore[assignment]
    __signature__ = NotImplemented

    def __getattr__(self, name: str) -> "Absent":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *arguments, **keywords) -> "Absent":
        return self

    def __getitem__(self, key: object) -> "Absent":
        return self

    def __or__(self, other: object) -> "Absent":  # of types
        return self

    __ror__ = __or__

    def __mro_entries__(self, bases: tuple) -> tuple[type]:
        return (_AbsentClass,)


class _AbsentClass:
    __init__ = Absent()


class _Names(dict):
    """The global names of a module, each defined when it is first looked up."""

    def __init__(self, path: Path):
        tree = ast.parse(path.read_bytes())
        imports = {**vars(builtins), "__import__": _import}
        super().__init__(__name__=path.stem, __file__=str(path), __builtins__=imports)
        self["__doc__"] = ast.get_docstring(tree)
        self.path, self.done = path, set[ast.stmt]()
        self.statements: dict[str, list[ast.stmt]] = {}  # those that may define or change a name
        for statement in tree.body:
            for name, part in _defined(statement):
                self.statements.setdefault(name, []).append(part)

    def __missing__(self, name: str) -> Any:
        for statement in self.statements.get(name, ()):
            if statement not in self.done:
                self.done.add(statement)
                self.execute(statement)
        if name not in self:
            raise KeyError(name)
        return self[name]

    def execute(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.ClassDef):  # Python looks for its names without __missing__
            for name in _read_at_once(statement):
                with contextlib.suppress(KeyError):
                    self[name]
        exec(compile(ast.Module([statement], []), self.path, "exec"), self)


def _defined(statement: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    """The names that a statement may define or change, each with the part of it that does."""
    nodes: list[Any] = [statement]
    match statement:
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            yield name, statement
            return
        case ast.ImportFrom(module, names, level):
            for one in names:
                part = ast.copy_location(ast.ImportFrom(module, [one], level), statement)
                yield one.asname or one.name, part
            return
        case ast.Import(names):
            for one in names:
                yield one.asname or one.name.partition(".")[0], statement
            return
        case ast.Assign(nodes):
            pass
        case ast.AnnAssign(node):
            nodes = [node]
    found = (part for node in nodes for part in ast.walk(node))
    for name in {part.id for part in found if isinstance(part, ast.Name)}:
        yield name, statement


def _read_at_once(node: ast.AST) -> set[str]:
    """The names that are read when a definition is executed, not those in bodies of functions."""
    if isinstance(node, ast.Name):
        return {node.id}
    parts = set(ast.iter_child_nodes(node))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        parts -= set(node.body)
    return set().union(*map(_read_at_once, parts))


def _import(name: str, names=None, local=None, wanted=(), level: int = 0) -> Any:
    """`__import__` of modules that are read: what is imported already and the standard library as
    they are, the suite from its source."""
    top = name.partition(".")[0]
    if name in sys.modules or top in sys.stdlib_module_names:
        return __import__(name, names, local, wanted, level)
    return _module(name if wanted else top) or Absent()


@functools.cache
def _module(name: str) -> Source | None:
    """A module or a folder of the suite; None: it is not the suite's."""
    path = source_file(name) or source_file(f"{name}.__init__")
    return None if path is None else Source(path, name)
