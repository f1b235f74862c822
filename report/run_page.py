"""The report page of a run: its results as a `Page`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.intervals import COMPARED, advantages, paired_differences, spread
from evaluation.lesion import DIAMETERS
from evaluation.lesion_score import kept_contrasts
from evaluation.scoring import best_baseline, mean_scores
from evaluation.series_view import SeriesView
from methods.baselines import BASELINES
from metrics import definitions
from report.chart import Chart, Line
from report.description import caveats, remedies, summary
from report.markdown import (
    ABSENT,
    DIGITS,
    TITLES,
    Table,
    difference_text,
    interval_meaning,
    kept_text,
    mean_and_spread,
)
from report.page import BEST, NETWORK, Page
from report.text import LESION_MEANING, verdict_lines
from training.quality import score_notices
from training.run import Run

SHOWN = ("psnr", "ssim", "ssim_2d", "moving_psnr")  # scores in the tables
VALIDATION = 4  # number of the colour of its loss
PSNR_CURVE = "PSNR on the validation part"

Rows = Sequence[Mapping[str, Any]]
Groups = Sequence | np.ndarray | None


def run_page(
    run: Run,
    rows: Rows,
    lesions: Rows,
    history: Sequence[Mapping[str, float]],
    reference: tuple[str, float] | None,
    facts: Mapping[str, Sequence[str]],
    views: Mapping[int, SeriesView],
) -> Page:
    """`report.html` of a run.

    Args:
        rows, lesions: of `metrics.csv` and `lesions.csv`.
        history: an entry for each completed epoch.
        reference: the best training-free method and its PSNR on the validation part.
        facts: lines by heading: data, split, mask, model, ...
        views: what was drawn, by sample.
    """
    groups, test, tested = run.cine.groups, run.parts["test"], run.test_accelerations
    several = f", the first of the {len(tested)} tested" if len(tested) > 1 else ""
    settings = [f"{name}: {value}" for name, value in vars(run.settings).items()]
    meaning = [f"{TITLES[name]}: {text}" for name, text in definitions().items()]
    return Page(
        title=f"Cardiac cine reconstruction: {run.folder.resolve().name}",
        score=score_line(rows, groups),
        summary=summary(run, len(history)),
        verdict=verdict_lines(rows, groups, remedies(run.settings, run.n_coils), run.cine.origin),
        views=list(views.values()),
        pictures_note=(
            f"{len(views)} of the {len(test)} test samples, at acceleration {tested[0]:g}{several}."
        ),
        tables=result_tables(rows, lesions, groups),
        curves=training_charts(history, reference),
        caveats=[*score_notices(run.quality, test), *caveats(run)],
        details={**facts, "Definitions": meaning, "Settings": settings},
    )


def score_line(rows: Rows, groups: Groups) -> str:
    """The result at the first acceleration in one line."""
    at_first = [row for row in rows if row["acc"] == rows[0]["acc"]]
    means = {name: scores["psnr"] for name, scores in mean_scores(at_first).items()}
    best = best_baseline(at_first)
    networks = [name for name in means if name not in BASELINES]
    if not networks:
        assert best is not None
        return f"{best}: {decibel(means[best])}, the best of {len(means)} training-free methods"
    network = networks[-1]  # the one that is shown: averaged, or adapted, if there are two
    if best is None:
        return f"{network}: {decibel(means[network])}"
    (found,) = paired_differences(at_first, network, best, groups, ("psnr",))
    difference = difference_text(found.interval, DIGITS["psnr"])
    return (
        f"{network}: {decibel(means[network])}, {difference} dB against the best training-free"
        f" method ({best}, {decibel(means[best])})"
    )


def decibel(value: float) -> str:
    return ABSENT if math.isnan(value) else f"{value:.{DIGITS['psnr']}f} dB"


def score_tables(rows: Rows, groups: Groups) -> list[Table]:
    """For each acceleration the scores of all methods, the highest PSNR first, and in PSNR their
    difference to the best training-free method."""
    tables = []
    for acc in dict.fromkeys(row["acc"] for row in rows):
        own = [row for row in rows if row["acc"] == acc]
        means = {name: scores["psnr"] for name, scores in mean_scores(own).items()}
        best = best_baseline(own)
        cells = []
        for name in sorted(means, key=lambda name: -np.nan_to_num(means[name], nan=-math.inf)):
            line = [name]
            for score in SHOWN:
                values = np.array([row[score] for row in own if row["method"] == name])
                line.append(mean_and_spread(values.mean(), spread(values), DIGITS[score]))
            if best is not None:
                line.append("" if name == best else difference_cell(own, name, best, groups))
            cells.append(line)
        n_samples = len({row["sample"] for row in own})
        heads = ["method", *(TITLES[score] for score in SHOWN)]
        note = f"Mean ± standard deviation over {n_samples} test samples."
        if best is not None:
            heads.append(f"PSNR minus {best} (dB)")
            note += f" Differences are paired by sample: {interval_meaning(groups is not None)}."
        tables.append(Table(heads, cells, f"Acceleration {float(acc):g}", note))
    return tables


def difference_cell(rows: Rows, first: str, second: str, groups: Groups) -> str:
    """The paired difference in PSNR."""
    (found,) = paired_differences(rows, first, second, groups, ("psnr",))
    return difference_text(found.interval, DIGITS["psnr"])


def advantage_table(rows: Rows, groups: Groups) -> Table | None:
    """Each network minus the best training-free method of each score; None without both."""
    lines: dict[tuple[str, float | None], list[str]] = {}
    for found in advantages(rows, groups):
        label = f"{found.first}, acceleration {found.acc:g}"
        cells = lines.setdefault((found.first, found.acc), [label])
        cells.append(f"{difference_text(found.interval, DIGITS[found.score])} ({found.second})")
    if not lines:
        return None
    heads = ["", *(TITLES[score] for score in COMPARED)]
    title = "Minus the best training-free method of each score"
    return Table(heads, list(lines.values()), title, f"{interval_meaning(groups is not None)}.")


def lesion_table(rows: Rows) -> Table:
    """The contrast that each method keeps of lesions."""
    cells = [
        [name, *(kept_text(kept.get(diameter)) for diameter in DIAMETERS)]
        for name, kept in kept_contrasts(rows).items()
    ]
    title = f"Lesion test, acceleration {rows[0]['acc']:g}: kept, worst, ghost by diameter"
    heads = ["method", *(f"{diameter:g} pixels" for diameter in DIAMETERS)]
    return Table(heads, cells, title, " ".join(LESION_MEANING.split()))


def training_charts(
    history: Sequence[Mapping[str, float]], reference: tuple[str, float] | None
) -> list[Chart]:
    """PSNR, loss, SSIM and learning rate by epoch.

    `reference`: the best training-free method and its PSNR on the validation part.
    """

    def line(name: str, colour: int = NETWORK) -> Line:
        points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
        return Line(name, [x for x, _ in points], [y for _, y in points], colour)

    if not history:
        return []
    psnr = [line("validation/psnr")]
    if reference is not None:
        ends = [history[0]["epoch"], history[-1]["epoch"]]
        psnr.append(Line(f"{reference[0]}, training-free", ends, [reference[1]] * 2, BEST))
    return [
        Chart(PSNR_CURVE, "epoch", "PSNR (dB)", psnr),
        Chart(
            "Loss",
            "epoch",
            "loss",
            [line("train/loss"), line("validation/loss", VALIDATION)],
            log=True,
        ),
        Chart("SSIM on the validation part", "epoch", "SSIM (3-D)", [line("validation/ssim")]),
        Chart("Learning rate", "epoch", "learning rate", [line("learning_rate")]),
    ]


def result_tables(rows: Rows, lesions: Rows, groups: Groups) -> list[Table]:
    """All tables of the test."""
    advantage = advantage_table(rows, groups)
    tables = score_tables(rows, groups) + ([advantage] if advantage else [])
    return tables + ([lesion_table(lesions)] if lesions else [])
