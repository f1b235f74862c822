"""The layout of the project: which folders may import which."""

import re
from pathlib import Path

import pytest
from helpers import ROOT

from util.cache import project_imports

# Floors from the ground up: a module imports only from floors below its own, or from its own room.
FLOORS = [
    {"util"},
    {"physics", "CS_mask", "metrics"},
    {"phantom"},
    {"formats", "methods"},
    {"dataset"},
    {"model"},
    {"training"},
    {"evaluation"},
    {"scan"},
    {"report"},
    {"ablation", "timing", "train", "tables", "reconstruct"},
    {"experiments", "benchmark"},
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


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_module_imports_only_from_floors_below(path):
    own = room(path)
    for module in project_imports(ROOT / path):
        other = module.split(".")[0]
        assert other == own or FLOOR_OF[other] < FLOOR_OF[own], f"{path} imports {module}"


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
