import importlib
import inspect
import json
import os
import resource
import subprocess
import sys

import pytest
from helpers import ROOT

from metrics import SCORES
from model import MODELS, about_models, architecture_settings
from train import train
from training.checks import CHOICES
from util.errors import InputError
from util.settings import defaults_of
from util.source import Absent, Source, early_arguments

SCRIPTS = ("train", "reconstruct", "experiments", "benchmark", "score", "tables")
LIBRARIES = {"torch", "matplotlib", "scipy", "skimage", "numpy"}


def run(*words, cwd=ROOT, **environment) -> subprocess.CompletedProcess:
    """`python words`, with a list of the modules that it imported on standard error."""
    command = [sys.executable, "-X", "importtime", *map(str, words)]
    environment = {**os.environ, "COLUMNS": "100", **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def imported(done: subprocess.CompletedProcess) -> set[str]:
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def printed_by_imported(script: str, words, monkeypatch, capsys) -> tuple[str, str]:
    """What the imported module prints for a command line, on both streams."""
    monkeypatch.setattr("sys.argv", [f"{script}.py", *words])
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        importlib.import_module(script).arguments()
    return tuple(capsys.readouterr())


@pytest.mark.parametrize("words", [*SCRIPTS, "score export", "dataset", "dataset convert"])
def test_help_is_that_of_the_imported_functions_and_imports_no_library(words, monkeypatch, capsys):
    script, *more = words.split()
    done = run(f"{script}.py", *more, "--help")
    assert done.returncode == 0
    text, _ = printed_by_imported(script, [*more, "--help"], monkeypatch, capsys)
    assert done.stdout == text
    assert not imported(done) & LIBRARIES


@pytest.mark.parametrize(
    "words",
    [
        "train",
        "train out --num-epoch 5",
        "train out --num-epochs five",
        "train out @recipes/cascad.txt",
        "reconstruct scan out --no-such-flag",
        "experiments out --no-such-flag",
        "benchmark out @missing.txt",
        "score out.npz --num-epochs 5",
        "score export out --lable x",
        "tables run --scores psnrr",
    ],
)
def test_mistakes_end_before_the_imports(words, monkeypatch, capsys):
    script, *more = words.split()
    done = run(f"{script}.py", *more)
    assert done.returncode == 2
    _, text = printed_by_imported(script, more, monkeypatch, capsys)
    assert done.stderr.endswith(text)
    assert text.startswith((f"{script}.py: error: ", f"{script}.py export: error: ", "usage:"))
    assert not imported(done) & LIBRARIES


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        ("train {}", "cine.npz"),
        ("train {} --data no.npz", "no.npz"),
        ("experiments {} --data no.npz", "no.npz"),
        ("reconstruct no.h5 {}", "no.h5"),
    ],
)
def test_data_that_are_not_there_end_before_the_imports(tmp_path, words, missing):
    script, *more = words.format(tmp_path / "new").split()
    done = run(ROOT / f"{script}.py", *more, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{script}.py: error: {missing} does not exist; expected an .npz" in done.stderr
    assert not imported(done) & LIBRARIES
    assert not any(tmp_path.iterdir())


def test_names_that_stand_for_data_are_left_to_the_imports(tmp_path, monkeypatch):
    """BART's without a suffix, and data of a run that is continued."""
    (tmp_path / "scan.cfl").touch()
    for script, *words in (
        ("reconstruct", str(tmp_path / "scan"), "out"),
        ("train", str(tmp_path / "new"), "--resume"),
        ("train", str(tmp_path), "--data", "no.npz"),
        ("train", 300 * "long"),
    ):
        monkeypatch.setattr("sys.argv", [f"{script}.py", *words])
        if words == [300 * "long"]:
            with pytest.raises(InputError, match=r"cine\.npz does not exist"):
                importlib.import_module(script).arguments()
        else:
            assert importlib.import_module(script).arguments()


def test_help_takes_less_than_a_second_of_the_cpu():
    seconds = []
    for _ in range(3):  # the machine may be busy
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, ROOT / "train.py", "--help"], capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 1


def test_names_that_are_read_are_those_that_are_imported():
    code = """if True:
        import json
        from pathlib import Path
        from util.source import Source
        from util.settings import defaults_of
        model, checks = Source(Path("model.py")), Source(Path("training/checks.py"))
        settings = defaults_of(Source(Path("train.py")).train)
        print(json.dumps({
            "choices": {name: list(choices) for name, choices in checks.CHOICES.items()},
            "models": {name: model.architecture_settings(name) for name in model.MODELS},
            "about": {name: model.about_models(name) for name in settings},
        }))
    """
    done = run("-c", code)
    assert not imported(done) & LIBRARIES
    assert json.loads(done.stdout) == {
        "choices": {name: list(choices) for name, choices in CHOICES.items()},
        "models": {name: list(architecture_settings(name)) for name in MODELS},
        "about": {name: about_models(name) for name in defaults_of(train)},
    }


@pytest.mark.parametrize(
    ("default", "shown", "slow"), [("7", "7", False), ("int(torch.tensor(8))", "8", True)]
)
def test_an_edited_default_is_in_the_help(tmp_path, default, shown, slow):
    """One that a library computes takes the imports."""
    text = (ROOT / "train.py").read_text()
    edited = text.replace("num_epochs: int = 400", f"num_epochs: int = {default}")
    edited = edited.replace("from torch import nn\n", "import torch\nfrom torch import nn\n")
    (tmp_path / "mine.py").write_text(edited)
    done = run(tmp_path / "mine.py", "--help", PYTHONPATH=str(ROOT))
    assert f"no training, only scores (default: {shown})" in " ".join(done.stdout.split())
    assert defaults_of(train)["num_epochs"] == 400
    assert ("torch" in imported(done)) is slow


MODULE = '''"""Text.

More."""
from __future__ import annotations
import os.path
import no_library.part as part
from no_library import Base, decorator
from metrics import SCORES as OF_THE_SUITE, psnr

A, (B, *C) = 1, (2, 3, 4)
NAMES: dict[str, type[Base]] = {"a": 1, "b": part.function(2)}
NAMES["c"] = 3
for letter in "de":
    NAMES[letter] = 4
NAMES.update(f=5)
TABLE = tuple(name for name in NAMES if name != SKIPPED)
SKIPPED = "a"
try:
    import no_other
except ImportError:
    no_other = None
if __name__ == "__main__":
    A = unknown

class Own(Base):
    LETTERS = [SKIPPED, os.path.sep]
    def __init__(self, width: int = len(SKIPPED), image: part.Image | None = None): unknown

class Inherits(Own):
    pass

@decorator(3)
def decorated(): pass

def known():
    from os.path import sep
    return __doc__, A, B, C, list(NAMES), TABLE, Inherits.LETTERS, sep
'''


def test_statements_are_executed_as_by_an_import(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MODULE)
    read = Source(path)
    names = ["a", "b", "c", "d", "e", "f"]
    letters = ["a", os.path.sep]
    known = ("Text.\n\nMore.", 1, 2, [3, 4], names, tuple(names[1:]), letters, os.path.sep)
    assert read.known() == known
    assert list(inspect.signature(read.Inherits).parameters) == ["width", "image"]
    assert list(read.OF_THE_SUITE) == list(SCORES)
    assert isinstance(read.decorated, Absent)
    with pytest.raises(AttributeError, match="missing"):
        _ = read.missing


@pytest.mark.parametrize(
    "text",
    [
        "str(part.value)",
        "f'{part.value}'",
        "', '.join(part.names)",
        "list(part.names)",
        "[part.value] == str([part.value])",
        "'a' in part.names",
        "1 if part.value else 2",
        "part.value + 1",
        "part.__version__ > '2'",
        "inspect.signature(part.function)",
        "inspect.signature(Net)",
        "not_defined",
        "1 / 0",
    ],
)
def test_what_a_library_makes_is_left_to_the_imports(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(
        "import inspect\nfrom no_library import part\nclass Net(part.Net): pass\n"
        f"def arguments():\n    return {text}\n"
    )
    assert early_arguments(str(path)) is None


def test_arguments_are_read_once(tmp_path):
    """As from a pipe, which cannot be read again."""
    read, write = os.pipe()
    os.write(write, str(tmp_path / "folder").encode())
    os.close(write)
    command = [sys.executable, ROOT / "tables.py", f"@/dev/fd/{read}"]
    done = subprocess.run(command, capture_output=True, text=True, pass_fds=[read])
    os.close(read)
    assert done.stderr.startswith(f"tables.py: error: {tmp_path / 'folder'} is no folder of a run")
