"""Print the scores of finished runs as Markdown tables, for the README or a paper.

    python tables.py run [run ...] [--scores psnr ssim ...] [--html page.html]

A row for each network, named after its model and the run's folder, and for each training-free
method, the best PSNR first; a method with the same scores in several runs, because data and masks
are the same, has one row. A table for each pattern and acceleration. Then each network minus the
best training-free method of its run, and the contrast kept of lesions in runs that tested it. With
`--html` also a page with these tables, the curves of training, the settings that differ, and links
to the reports of the runs.
"""

from util.source import early_arguments

if __name__ == "__main__":  # help and wrong flags end here, before the slow imports
    GIVEN = early_arguments(__file__)

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np

from CS_mask import Condition
from evaluation.held_out import HELD_OUT
from evaluation.summary import Columns, by_condition, columns_of, n_samples_of, titles_of
from methods.baselines import BASELINES
from metrics import SCORES
from report.chart import N_COLOURS, Chart, Line
from report.page import Link, Page, write_page
from report.run_page import PSNR_CURVE, score_line
from report.tables import Table, advantage_table, lesion_table, score_table, shown_scores
from training.run_folder import (
    CONFIG,
    METRICS,
    REPORT,
    is_finished,
    is_run,
    read_config,
    read_history,
    read_lesions,
    read_metrics,
)
from util.command_line import Parser, main
from util.errors import InputError
from util.progress import counted


def finished(folders: Sequence[Path]) -> list[Path]:
    """The folders of finished runs; a notice on standard error for each unfinished one.

    Raises:
        InputError: a folder holds no run, or none is finished.
    """
    for folder in folders:
        if not is_run(folder):
            scores = folder / METRICS
            hint = f"; the scores of reconstruct.py are in {scores}" if scores.exists() else ""
            raise InputError(
                f"{folder} is no folder of a run ({CONFIG} is missing): name folders that train.py"
                f" wrote{hint}"
            )
    unfinished = [folder for folder in folders if is_run(folder) and not is_finished(folder)]
    for folder in unfinished:
        print(
            f"NOTICE: {folder} is unfinished and left out: continue it with python train.py"
            f" {shlex.quote(str(folder))} --resume",
            file=sys.stderr,
        )
    rest = [folder for folder in folders if folder not in unfinished]
    if not rest:
        raise InputError("no run is finished: there are no scores yet")
    return rest


def of_equal_tests(folders: Sequence[Path]) -> list[list[Path]]:
    """The folders in groups whose runs were tested on the same samples of the same data."""
    groups: dict[str, list[Path]] = {}
    for folder in folders:
        samples = sorted({int(row["sample"]) for row in read_metrics(folder)})
        data = read_config(folder)["data"].get("hash")
        groups.setdefault(f"{data} {samples}", []).append(folder)
    return list(groups.values())


def run_tables(folders: Sequence[Path], scores: Sequence[str] | None = None) -> list[Table]:
    """A table for each acceleration, best PSNR first; tables of their own for runs that were tested
    on other samples, whose scores cannot be compared."""
    names = dict(unique_names(folders))
    groups = of_equal_tests(folders)
    tables = []
    for group in groups:
        title = ""
        if len(groups) > 1:
            runs = ", ".join(names[folder] for folder in group)
            n_samples = n_samples_of(read_metrics(group[0]))
            title = f"Tested on the same {counted(n_samples, 'sample')}: {runs}"
        methods = methods_of({folder: names[folder] for folder in group})
        titles = titles_of(methods) if len(methods) > 1 else dict.fromkeys(methods, "")
        for condition, columns in sorted(
            methods.items(), key=lambda item: (item[0].pattern or "", item[0].acc or 0)
        ):
            whole = "; ".join(filter(None, (title, titles[condition])))
            main = "psnr" if "psnr" in next(iter(columns.values())) else HELD_OUT
            ranked = sorted(
                columns.items(),
                key=lambda item: -np.nan_to_num(item[1][main].mean(), nan=-np.inf),
            )
            tables.append(score_table(dict(ranked), scores, whole[:1].upper() + whole[1:]))
    return tables


def methods_of(names: Mapping[Path, str]) -> dict[Condition, dict[str, Columns]]:
    """{condition: {label: scores}} of runs with the same test samples, by folder and name."""
    result: dict[Condition, dict[str, Columns]] = {}
    for folder, name in names.items():
        for condition, rows in by_condition(read_metrics(folder)).items():
            for method, columns in columns_of(rows).items():
                label = f"`{method}`" if method in BASELINES else f"`{method}`, {name}"
                methods = result.setdefault(condition, {})
                if label in methods and not equal_scores(methods[label], columns):
                    label = f"{label}, {name}"  # the same method on other masks
                methods[label] = columns
    return result


def unique_names(folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """The folders, each with a name that no other has."""
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return list(zip(folders, names, strict=True))


def more_tables(folders: Sequence[Path]) -> list[Table]:
    """Each network minus the best training-free method of its run, and the contrast that is kept of
    lesions in the runs that tested it."""
    runs = {
        name: (read_metrics(folder), read_config(folder)["data"].get("groups"))
        for folder, name in unique_names(folders)
    }
    tables = [advantage_table(runs)]
    tables += [lesion_table(read_lesions(folder), name) for folder, name in unique_names(folders)]
    return [table for table in tables if table is not None]


def as_markdown(tables: Sequence[Table]) -> str:
    """The tables in Markdown, an empty line between them."""
    return "\n\n".join("\n".join(table.markdown()) for table in tables)


def as_latex_file(tables: Sequence[Table]) -> str:
    """The tables in LaTeX, to be included in a document."""
    needed = "% needs \\usepackage{booktabs}"
    return "\n\n".join([needed, *("\n".join(table.latex()) for table in tables)])


def runs_page(folders: Sequence[Path], tables: Sequence[Table], place: Path) -> Page:
    """A page of several runs.

    `place`: the folder of the page; its links to the reports of the runs are relative to it.
    """
    names = unique_names(folders)
    equal = len(of_equal_tests(folders)) == 1
    links, lines = [], []
    for number, (folder, name) in enumerate(names):
        rows = read_metrics(folder)
        result = score_line(rows, read_config(folder)["data"].get("groups"))
        report = folder / REPORT
        path = Path(os.path.relpath(report.resolve(), place.resolve())).as_posix()
        links.append(Link(quote(path) if report.exists() else "", name, result))
        history = [entry for entry in read_history(folder) if "validation/psnr" in entry]
        if history:
            epochs, values = ([e[key] for e in history] for key in ("epoch", "validation/psnr"))
            lines.append(Line(name, epochs, values, 1 + number % (N_COLOURS - 1)))
    tested = "the same samples" if equal else "different samples, so that scores cannot be compared"
    return Page(
        title="Cardiac cine reconstruction: runs compared",
        score=f"{counted(len(names), 'run')}: {', '.join(name for _, name in names)}",
        summary=f"Each run was scored with training-free methods. They were tested on {tested}.",
        tables=[*tables, *different_settings(names)],
        curves=[Chart(PSNR_CURVE, "epoch", "PSNR (dB)", lines)] if lines else [],
        links=links,
    )


def different_settings(names: Sequence[tuple[Path, str]]) -> list[Table]:
    """The settings that are not the same in all runs; none if all are."""
    settings = [read_config(folder)["settings"] for folder, _ in names]
    rows = [
        [key, *(str(of_run.get(key, "-")) for of_run in settings)]
        for key in dict.fromkeys(key for of_run in settings for key in of_run)
        if len({str(of_run.get(key, "-")) for of_run in settings}) > 1
    ]
    heads = ["setting", *(name for _, name in names)]
    return [Table(heads, rows, "Settings that differ")] if rows else []


def equal_scores(first: Columns, second: Columns) -> bool:
    """Whether two methods have the same scores, to the digits that are stored."""
    return all(
        first[name].shape == second[name].shape
        and np.allclose(first[name], second[name], rtol=1e-4, equal_nan=True)
        for name in first
    )


def arguments() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = Parser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--scores", nargs="+", choices=list(SCORES), default=shown_scores())
    parser.add_argument("--latex", action="store_true", help="print LaTeX, for booktabs")
    parser.add_argument("--html", type=Path, help="also write a page with these tables, .html")
    return parser.parse_args()


def from_command_line(given: argparse.Namespace | None = None) -> None:
    """Print the tables of the runs that the command line names; `given`: its arguments, if parsed
    before."""
    asked_for = arguments() if given is None else given
    page = asked_for.html
    if page is not None and page.suffix != ".html":
        raise InputError(f"--html is {page}, expected the name of a file that ends in .html")
    runs = finished(asked_for.runs)
    tables = run_tables(runs, asked_for.scores) + more_tables(runs)
    if page is not None:
        write_page(page, runs_page(runs, tables, page.parent))
    print(as_latex_file(tables) if asked_for.latex else as_markdown(tables))


if __name__ == "__main__":
    sys.exit(main("tables.py", partial(from_command_line, GIVEN), "nothing was printed"))
