"""Tables and figures of experiments: the scores of every row, compared to its control."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ablation.groups import GROUPS, MEMORY, Experiment, Group
from ablation.results import Comparison, Result, compare
from evaluation.intervals import FEWEST_CLEAR, compared_scores
from metrics import SCORES
from report.figures import default_style
from report.pictures import write_figure
from report.tables import Table, difference_text, interval_meaning, mean_and_spread
from util.command_line import as_flags
from util.files import as_bytes, write_bytes, write_csv
from util.plotting import Figure

TABLES, VALUES, FIGURE = "experiments.md", "experiments.csv", "experiments.png"
LATEX = "experiments.tex"  # the tables of the groups
FILES = (TABLES, LATEX, VALUES, FIGURE)
DPI = 120
MEANING = """\
Scores: mean ± standard deviation over the test samples; the scores of a sample are first averaged
over the seeds. Difference: to the control (the row without a difference), paired by sample,
{interval}; bold if the interval, as shown, excludes zero and there are at least {fewest} {units}.
The interval covers the variation over {units}, not over seeds; the spread over seeds is the
standard deviation of the seeds' means. Without any true difference, one interval in twenty excludes
zero by chance. Lesions: the contrast that is kept of small discs in the heart, where it was tested.
Minutes: training with validation, for one run. Memory: the peak over the runs of a row{memory}.
Best training-free: the training-free method with the highest mean PSNR on the same samples and
masks."""


def write_report(
    folder: Path,
    rows: Sequence[Experiment],
    given: Mapping[str, Any],
    groups: Mapping[str, Group] = GROUPS,
) -> None:
    """Write tables and figure of all rows that have results; nothing if there are no results."""
    results = [result for row in rows for result in row.results.values()]
    if not results:
        return
    summary: list[list[str]] = []
    lines: list[str] = []
    latex: list[str] = []
    comparisons: dict[str, dict[str, Comparison]] = {}
    values = []
    for name, group in groups.items():
        group_rows = [row for row in rows if row.group == name]
        control = next((row.results for row in group_rows if row.name == group.control), {})
        shown = [row for row in group_rows if row.results or row.failure]
        if len(shown) < 2:
            continue
        if name == MEMORY:
            table = memory_table(shown, group.title)
        else:
            table = group_table(shown, control, group.title)
            summary += summary_rows(shown, control)
            comparisons[group.title] = {
                row.name: compare(row.results, control, "psnr") for row in shown if row.results
            }
        lines += ["", f"## {group.title} (`{name}`)", "", *table.markdown()]
        latex += ["", *table.latex()] if latex else table.latex()
        values += [entry for row in shown for entry in csv_rows(row, control)]
    head = ["# Experiments", "", *header_lines(results, given)]
    if summary:
        psnr, *others = (SCORES[score].title for score in compared_scores())
        columns = ["group", "row", psnr, "difference", *others]
        head += ["", "## All groups", "", *Table(columns, summary).markdown()]
    write_bytes(folder / TABLES, as_bytes("\n".join(head + lines) + "\n"))
    if latex:
        write_bytes(folder / LATEX, as_bytes("\n".join(latex) + "\n"))
    if values:
        write_csv(folder / VALUES, values)
    if comparisons:
        write_figure(folder / FIGURE, comparison_figure(comparisons), DPI)


def header_lines(results: Sequence[Result], given: Mapping[str, Any]) -> list[str]:
    """Settings, data and machine of the runs, and the meaning of the columns."""
    config = results[0].config
    parts = ", ".join(f"{len(part)} {name}" for name, part in config["split"].items())
    commits = sorted({str(result.config["git_commit"]) for result in results})
    versions = sorted({str(result.config["versions"]["torch"]) for result in results})
    devices = sorted({str(result.config["device"]) for result in results})
    data = config["data"]
    units = "samples" if data["groups"] is None else "patients"
    memory = (
        ", of tensors on the GPU"
        if "cuda" in devices[0]
        else ", of the whole process with interpreter and data"
    )
    return [
        f"Settings of all rows: `{' '.join(as_flags(given)) or 'the defaults'}`.",
        f"Data: {data['source']} (hash {data['hash']}), {parts} samples.",
        f"Device: {', '.join(devices)}; torch {', '.join(versions)}; commit {', '.join(commits)}.",
        "",
        *MEANING.format(
            interval=interval_meaning(data["groups"] is not None),
            fewest=FEWEST_CLEAR,
            units=units,
            memory=memory,
        ).splitlines(),
    ]


def summary_rows(rows: Sequence[Experiment], control: Mapping[int, Result]) -> list[list[str]]:
    """The cells of a group's rows in the table of all groups."""
    table_rows = []
    for row in rows:
        group = f"`{row.group}`" if row is rows[0] else ""
        cells = [row.failure]
        if row.results:
            psnr, *others = (compare(row.results, control, score) for score in compared_scores())
            cells = [
                mean_and_spread(psnr.mean, psnr.std, SCORES["psnr"].digits),
                difference(psnr, "psnr", row, control),
                *(
                    mean_and_spread(other.mean, float("nan"), SCORES[name].digits)
                    for name, other in zip(compared_scores()[1:], others, strict=True)
                ),
            ]
        table_rows.append([group, row.name, *cells])
    return table_rows


def group_table(rows: Sequence[Experiment], control: Mapping[int, Result], title: str) -> Table:
    """The table of a group."""
    tested = [run.lesion_contrast for row in rows for run in row.results.values()]
    with_lesions = not np.isnan(tested).all()
    table_rows = []
    for row in rows:
        if not row.results:
            table_rows.append([row.name, row.failure])
            continue
        cells = [row.name]
        for score in compared_scores():
            comparison = compare(row.results, control, score)
            cells.append(mean_and_spread(comparison.mean, comparison.std, SCORES[score].digits))
            cells.append(difference(comparison, score, row, control))
        seed_spread = compare(row.results, control, "psnr").seed_spread
        runs = list(row.results.values())
        best, psnr = runs[0].best_baseline
        if with_lesions:
            cells.append(mean_and_spread(lesions_of(runs), float("nan"), 3))
        cells += [
            str(len(runs)) + (f" ({row.failure})" if row.failure else ""),
            "" if np.isnan(seed_spread) else f"{seed_spread:.2f}",
            f"{np.mean([run.minutes for run in runs]):.1f}",
            gigabytes(runs),
            f"{runs[0].config['parameters']:,}",
            f"{best} {psnr:.2f}" if best else "",
        ]
        table_rows.append(cells)
    return Table(["row", *heads(with_lesions)], table_rows, title)


def lesions_of(runs: Sequence[Result]) -> float:
    """The contrast that is kept of lesions, the mean over seeds; NaN if not tested."""
    return float(np.mean([run.lesion_contrast for run in runs]))


def heads(with_lesions: bool) -> list[str]:
    """The heads of the table of a group."""
    return [
        *(cell for score in compared_scores() for cell in (SCORES[score].title, "difference")),
        *(["lesions"] if with_lesions else []),
        "seeds",
        "spread over seeds (dB)",
        "minutes",
        "GB",
        "parameters",
        "best training-free",
    ]


def memory_table(rows: Sequence[Experiment], title: str) -> Table:
    """Peak memory of the models."""
    table_rows = []
    for row in rows:
        runs = list(row.results.values())
        seconds = f"{60 * runs[0].minutes:.0f}" if runs else ""
        table_rows.append([row.name, gigabytes(runs) or row.failure, seconds])
    return Table(["model", "peak memory (GB)", "seconds"], table_rows, title)


def csv_rows(row: Experiment, control: Mapping[int, Result]) -> list[dict[str, Any]]:
    """The lines of `experiments.csv` for a row, one for each score."""
    if not row.results:
        return []
    runs = list(row.results.values())
    best, psnr = runs[0].best_baseline
    return [
        {
            "group": row.group,
            "row": row.name,
            "score": score,
            "mean": comparison.mean,
            "std": comparison.std,
            "seed_spread": comparison.seed_spread,
            "difference": comparison.difference.mean,
            "low": comparison.difference.low,
            "high": comparison.difference.high,
            "n_units": comparison.difference.n_units,
            "n_samples": len(runs[0].samples),
            "n_seeds": len(runs),
            "best_baseline": best,
            "best_baseline_psnr": psnr,
            "parameters": runs[0].config["parameters"],
            "lesion_contrast": lesions_of(runs),
            "minutes": float(np.mean([run.minutes for run in runs])),
            "peak_memory": max(run.peak_memory for run in runs),
        }
        for score in SCORES
        for comparison in [compare(row.results, control, score)]
    ]


def difference(
    comparison: Comparison, score: str, row: Experiment, control: Mapping[int, Result]
) -> str:
    """ "+0.50 [0.10, 0.90]", bold if the interval clearly excludes zero; "" for the control."""
    if row.results is control or not comparison.difference.n_units:
        return ""
    text = difference_text(comparison.difference, SCORES[score].digits)
    return f"**{text}**" if comparison.difference.excludes_zero(SCORES[score].digits) else text


def gigabytes(runs: Sequence[Result]) -> str:
    """The peak memory of these runs; "" if it was not measured."""
    peak = max((run.peak_memory for run in runs), default=0)
    return f"{peak / 1e9:.2f}" if peak else ""


@default_style
def comparison_figure(groups: Mapping[str, Mapping[str, Comparison]]) -> Figure:
    """The rows of some groups: the paired difference of PSNR to the control, and PSNR.

    Left: the difference with its 95 % interval, hollow unless that clearly excludes zero; none for
    the control. Right: the mean and its standard deviation over seeds.
    """
    height = 0.6 + sum(0.55 + 0.28 * len(rows) for rows in groups.values())
    figure = Figure(figsize=(11, height), layout="constrained")
    heights = [1.2 + len(rows) for rows in groups.values()]
    axes = figure.subplots(
        len(groups), 2, squeeze=False, sharex="col", height_ratios=heights,
        width_ratios=(3, 1),
    )  # fmt: skip
    for (left, right), (title, rows) in zip(axes, groups.items(), strict=True):
        for place, row in enumerate(rows.values()):
            difference = row.difference
            if difference.mean:  # 0: the control itself
                clear = difference.excludes_zero(SCORES["psnr"].digits)
                half = np.nan_to_num(difference.high - difference.mean)  # 0: no interval
                left.errorbar(
                    difference.mean, place, xerr=half, fmt="o", color="C0", markersize=4,
                    capsize=2, markerfacecolor="C0" if clear else "white",
                )  # fmt: skip
            right.errorbar(
                row.mean, place, xerr=row.seed_spread, fmt="o", color="C1", markersize=4, capsize=2
            )
        left.set_title(title, loc="left", fontsize=9)
        left.set_yticks(range(len(rows)), list(rows), fontsize=8)
        right.set_yticks(range(len(rows)), [])
        left.axvline(0, color="0.5", linewidth=1)
        for axis in (left, right):
            axis.set_ylim(len(rows) - 0.4, -0.6)
            axis.grid(alpha=0.3, axis="x")
            axis.tick_params(labelsize=8, labelbottom=True)
    axes[-1, 0].set_xlabel("PSNR minus that of the control (dB), 95 % interval", fontsize=8)
    axes[-1, 1].set_xlabel("PSNR (dB), ± std over seeds", fontsize=8)
    return figure
