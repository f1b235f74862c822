"""The notebook of the documentation, made from its Markdown: run this file after a change of it.

    python tests/notebook.py

Text is a cell, and so is each block of Python. The code is run here, and the notebook keeps what it
prints and shows.
"""

import base64
import contextlib
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

DOCS = Path(__file__).resolve().parent.parent / "docs"
SOURCE, NOTEBOOK = DOCS / "first_notebook.md", DOCS / "first_notebook.ipynb"
QUIET = "template"  # a backend that shows nothing
DPI, COLOURS = 64, 48  # of the pictures that are kept


def cells_of(text: str) -> list[tuple[str, str]]:
    """The cells of a page in Markdown, ("markdown" or "code", its text)."""
    pieces = re.split(r"```python\n(.*?)```", text, flags=re.DOTALL)  # text and code in turn
    kinds = [("code" if i % 2 else "markdown", piece.strip()) for i, piece in enumerate(pieces)]
    return [(kind, piece) for kind, piece in kinds if piece]


def run_code(blocks: list[str], scope: dict[str, Any]) -> Iterator[tuple[str, list[bytes]]]:
    """Run blocks of code in one scope: what each prints, and its figures as PNG."""
    for block in blocks:
        printed, pictures = io.StringIO(), []
        with contextlib.redirect_stdout(printed):
            exec(compile(block, SOURCE.name, "exec"), scope)
        for number in pyplot.get_fignums():
            pictures.append(small_png(pyplot.figure(number)))
        pyplot.close("all")
        yield printed.getvalue(), pictures


def small_png(figure: Figure) -> bytes:
    """A picture of a figure, in few pixels and colours."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(small, format="png", optimize=True)
    return small.getvalue()


@contextlib.contextmanager
def without_windows() -> Iterator[None]:
    """Figures are made, and not shown."""
    before = pyplot.get_backend()
    pyplot.switch_backend(QUIET)
    try:
        yield
    finally:
        pyplot.switch_backend(before)


def notebook(text: str) -> dict[str, Any]:
    """A page in Markdown as a notebook in nbformat 4.5, with the output of its code."""
    cells = cells_of(text)
    with without_windows():
        outputs = list(run_code([piece for kind, piece in cells if kind == "code"], {}))
    made: list[dict[str, Any]] = []
    for number, (kind, piece) in enumerate(cells):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        cell["source"] = piece.splitlines(keepends=True)
        if kind == "code":
            printed, pictures = outputs.pop(0)
            count = 1 + sum(one["cell_type"] == "code" for one in made)
            cell |= {"execution_count": count, "outputs": outputs_of(printed, pictures)}
        made.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def outputs_of(printed: str, pictures: list[bytes]) -> list[dict[str, Any]]:
    """The output of a cell: pictures first, as notebooks show them before the last line."""
    data = [{"image/png": base64.b64encode(picture).decode()} for picture in pictures]
    shown = [{"output_type": "display_data", "data": one, "metadata": {}} for one in data]
    lines = printed.splitlines(keepends=True)
    return shown + [{"output_type": "stream", "name": "stdout", "text": lines}] * bool(lines)


if __name__ == "__main__":
    os.chdir(DOCS)  # where Jupyter runs it
    made = json.dumps(notebook(SOURCE.read_text()), indent=1, ensure_ascii=False)
    NOTEBOOK.write_text(made + "\n")
