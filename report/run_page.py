"""The report page of a run: its results as a `Page`."""

import math
from collections.abc import Mapping, Sequence

from data.quality import score_notices
from evaluation.bench import Reference
from evaluation.held_out import HELD_OUT, WITHOUT_TRUTH
from evaluation.scoring import Example
from evaluation.series_view import SeriesView, view_series
from evaluation.summary import (
    Rows,
    best_baseline,
    by_condition,
    main_score,
    means_of,
    networks_of,
    titles_of,
)
from metrics import SCORES, definitions
from report.chart import Chart, Line
from report.description import run_summary
from report.limits import caveats
from report.names import GROUND_TRUTH
from report.page import BEST, NETWORK, Page
from report.tables import ABSENT, Groups, Table, main_difference, main_title
from report.text import History, chosen_by
from training.run import Run
from util.progress import counted

VALIDATION = 4  # number of the colour of its loss
RELOAD_SECONDS = 30  # of the page while a run is trained
PSNR_CURVE = "PSNR on the validation part"
HELD_OUT_CURVE = "Held-out lines of the validation part"


def run_page(
    run: Run,
    tables: Sequence[Table],
    score: str,
    verdict: Sequence[str],
    charts: Sequence[Chart],
    facts: Mapping[str, Sequence[str]],
    views: Mapping[int, SeriesView],
) -> Page:
    """`report.html` of a run.

    Args:
        tables: of `result_tables`.
        score: of `score_line`.
        verdict: of `report.text.verdict_lines`.
        charts: of `training_charts`.
        facts: lines by heading: data, split, mask, model, ...
        views: the series that were drawn, by sample.
    """
    test, tested = run.parts["test"], titles_of(run.test_conditions)
    first = next(iter(tested.values()))
    several = f", the first of the {len(tested)} tested" if len(tested) > 1 else ""
    settings = [f"{name}: {value}" for name, value in vars(run.settings).items()]
    n_epochs = int(charts[0].lines[0].xs[-1]) if charts else 0
    return Page(
        title=f"Cardiac cine reconstruction: {run.folder.resolve().name}",
        score=score,
        summary=run_summary(run, n_epochs),
        verdict=verdict,
        views=list(views.values()),
        pictures_note=f"{len(views)} of {counted(len(test), 'test sample')} ({first}{several}).",
        tables=tables,
        curves=charts,
        caveats=[*score_notices(run.cine.quality, test), *caveats(run)],
        details={**facts, "Definitions": definitions(run.test_scores), "Settings": settings},
    )


def progress_page(
    run: Run,
    history: History,
    reference: Reference | None,
    facts: Mapping[str, Sequence[str]],
    examples: Sequence[Example],
) -> Page:
    """`report.html` while a run is trained: the curves so far, and the heart of the `examples`."""
    n_epochs, entry = len(history), history[-1]
    score = f"epoch {n_epochs} of {run.settings.num_epochs}: "
    by = chosen_by(history)
    score += f"{decibel(entry[by])} on the validation part"
    if reference is not None:
        score += f", {decibel(reference.value)} without training ({reference.method})"
    return Page(
        title=f"In training: {run.folder.resolve().name}",
        score=score,
        summary="This page reloads itself every half minute. The results of the test, on"
        " samples that training and validation never see, will take its place.",
        views=[example_view(example, run.settings.model) for example in examples],
        pictures_note="Validation samples, of which the best epoch is chosen.",
        curves=training_charts(history, reference),
        details=facts,
        reload=RELOAD_SECONDS,
    )


def example_view(example: Example, model: str) -> SeriesView:
    """A validation sample for the player."""
    images = {"zero_filled": example.aliased, model: example.reconstruction}
    truth = None
    if example.target is not None:
        truth, images = GROUND_TRUTH, {GROUND_TRUTH: example.target, **images}
    return view_series(
        f"validation sample {example.sample}",
        {name: series.cpu().numpy() for name, series in images.items()},
        {GROUND_TRUTH: "fully sampled", "zero_filled": "undersampled", model: "network"},
        truth,
    )


def score_line(rows: Rows, groups: Groups) -> str:
    """The result at the first condition in one line."""
    at_first = next(iter(by_condition(rows).values()))
    means, best = means_of(at_first), best_baseline(at_first)
    networks = networks_of(at_first)
    what = "" if main_score(rows) == "psnr" else f"{main_title(rows)} "  # a PSNR needs no name
    if not networks:
        assert best is not None
        n_methods = counted(len(means), "training-free method")
        return f"{best}: {what}{decibel(means[best])}, the best of {n_methods}"
    network = networks[-1]  # the one that is shown: averaged, or adapted, if there are two
    if best is None:
        return f"{network}: {what}{decibel(means[network])}"
    return (
        f"{network}: {what}{decibel(means[network])},"
        f" {main_difference(at_first, network, best, groups)} dB against the best training-free"
        f" method ({best}, {decibel(means[best])})"
    )


def decibel(value: float) -> str:
    return ABSENT if math.isnan(value) else f"{value:.{SCORES['psnr'].digits}f} dB"


def training_charts(history: History, reference: Reference | None) -> list[Chart]:
    """PSNR, loss, the other scores that are logged, and the learning rate by epoch."""

    def line(name: str, colour: int = NETWORK) -> Line:
        points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
        return Line(name, [x for x, _ in points], [y for _, y in points], colour)

    if not history:
        return []
    main = "psnr" if any("validation/psnr" in entry for entry in history) else HELD_OUT
    psnr = [line(f"validation/{main}")]
    if reference is not None:
        ends = [history[0]["epoch"], history[-1]["epoch"]]
        psnr.append(Line(f"{reference.method}, training-free", ends, [reference.value] * 2, BEST))
    losses = [line("train/loss"), line("validation/loss", VALIDATION)]
    logged = {name.removeprefix("validation/") for entry in history for name in entry}
    known = {**WITHOUT_TRUTH, **SCORES}
    others = [name for name in known if name in logged and name not in (main, "loss")]
    title = known[main].title
    return [
        Chart(PSNR_CURVE if main == "psnr" else HELD_OUT_CURVE, "epoch", title, psnr),
        Chart("Loss", "epoch", "loss", losses, log=True),
        *(
            Chart(
                f"{known[name].title} on the validation part",
                "epoch",
                known[name].title,
                [line(f"validation/{name}")],
            )
            for name in others
        ),
        Chart("Learning rate", "epoch", "learning rate", [line("learning_rate")]),
    ]
