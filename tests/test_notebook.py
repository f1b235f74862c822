"""The notebook of the documentation: it is its Markdown, its code runs, and it is small."""

import json
import sys

import pytest
from notebook import NOTEBOOK, SOURCE, cells_of, run_code, without_windows

TEXT = SOURCE.read_text()
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
REMEDY = "run python tests/notebook.py"


def test_the_notebook_is_its_markdown():
    made = [(cell["cell_type"], "".join(cell["source"])) for cell in CELLS]
    assert made == cells_of(TEXT), REMEDY
    assert NOTEBOOK.stat().st_size < 600_000


def test_the_code_of_the_notebook_runs(tmp_path, monkeypatch):
    """As it is, with as many pictures and lines as the notebook keeps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # which the code changes
    scope: dict = {}
    with without_windows():
        blocks = [piece for kind, piece in cells_of(TEXT) if kind == "code"]
        outputs = list(run_code(blocks, scope))
    for cell, (printed, pictures) in zip(
        (cell for cell in CELLS if cell["cell_type"] == "code"), outputs, strict=True
    ):
        kept = ["".join(one["text"]) for one in cell["outputs"] if "text" in one]
        assert printed.count("\n") == "".join(kept).count("\n"), REMEDY
        assert len(pictures) == len(cell["outputs"]) - len(kept), REMEDY
    psnr = {name: own["psnr"].item() for name, own in scope["scores"].items()}
    best, second, *_ = sorted(psnr, key=psnr.__getitem__, reverse=True)
    assert (best, second) == ("cascade_phantom, calibrated", "patch_low_rank")
    assert psnr["view_sharing"] < psnr["mine"] < psnr["patch_low_rank"]
    table = outputs[-1][0].splitlines()[1:]
    shown = [float(line[28:].split()[0]) for line in table]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] == pytest.approx(psnr[best], abs=1e-3)
