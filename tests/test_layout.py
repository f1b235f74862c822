"""The layout of the project: which folders may import which."""

import ast
import re
from pathlib import Path

import pytest
from helpers import ROOT

from util.cache import project_imports, source_file

# Floors from the ground up: a module imports only from floors below its own, or from its own room.
FLOORS = [
    {"util"},
    {"physics", "CS_mask", "metrics"},
    {"phantom"},
    {"data", "methods"},
    {"formats"},
    {"dataset"},
    {"model"},
    {"evaluation"},
    {"training"},
    {"scan"},
    {"report"},
    {"ablation", "timing", "train", "tables", "reconstruct"},
    {"experiments", "benchmark", "score"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
SOURCES = sorted(
    path.relative_to(ROOT)
    for path in ROOT.rglob("*.py")
    if not {"tests", "site-packages"} & set(path.parts)
    and not any(part.startswith(".") for part in path.parts)
)


def room(path: Path) -> str:
    """The folder of a source file, or the module itself if it is in the root."""
    return path.parts[0].removesuffix(".py")


def test_every_room_has_its_floor():
    assert {room(path) for path in SOURCES} == FLOOR_OF.keys()


def is_below(module: str, path: Path) -> bool:
    other, own = module.split(".")[0], room(path)
    return other == own or FLOOR_OF[other] < FLOOR_OF[own]


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_module_imports_and_names_only_floors_below(path):
    """Names in strings, such as the modules whose sources it hashes; docstrings and comments may
    name any."""
    for module in project_imports(ROOT / path):
        assert is_below(module, path), f"{path} imports {module}"
    tree = ast.parse((ROOT / path).read_bytes())
    nodes = list(ast.walk(tree))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
    dotted = {x for x in texts if isinstance(x, str) and re.fullmatch(r"\w+(\.\w+)+", x)}
    hashed = {
        argument.value
        for node in nodes
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "source_hash"
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }
    for module in filter(source_file, dotted | hashed):
        assert is_below(module, path), f"{path} names {module}"


def test_folders_re_export_nothing():
    for path in SOURCES:
        if path.name == "__init__.py":
            assert (ROOT / path).read_text() == "", path


def test_matplotlib_is_imported_in_one_place():
    """So that no backend that the environment names can fail the import."""
    for path in SOURCES:
        text = (ROOT / path).read_text()
        imported = re.search(r"^(import|from) matplotlib", text, re.MULTILINE)
        assert not imported or path == Path("util/plotting.py"), path
