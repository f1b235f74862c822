"""The report page of a reconstructed scan, as a `Page`."""

from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.series_view import SeriesView, view_series
from metrics import definitions
from report.page import Page
from report.pictures import BEST
from report.run_page import score_line
from report.scan_pictures import TRUTH, shown_series
from report.scan_text import caveat_lines, network_lines, series_notes, verdict_of
from report.tables import score_tables
from scan.reconstruction import TRAINING_FREE, Reconstruction


def scan_view(result: Reconstruction) -> SeriesView:
    """A series for the player."""
    series = shown_series(result)
    roles = {TRUTH: "truth", TRAINING_FREE[0]: "undersampled", result.best: BEST}
    roles[result.network] = "network"
    known = TRUTH if result.truth is not None else None
    return view_series(result.name, series, roles, known)


def scan_page(
    name: str,
    facts: Mapping[str, Sequence[str]],
    results: Sequence[Reconstruction],
    views: Sequence[SeriesView],
) -> Page:
    """`report.html` of a scan.

    Args:
        name: of the scan.
        facts: lines on the scan and on how it was reconstructed, by heading.
        views: of the series that are shown.
    """
    rows = [row for result in results for row in result.rows]
    patients = np.array([result.patient for result in results])
    notes = [f"{r.name}: {note}" for r in results for note in series_notes(r)]
    details = {**facts, "Network": network_lines(results), "Series": notes}
    return Page(
        title=f"Reconstruction of {name}",
        score=score_line(rows, patients) if rows else "measured undersampled: no truth, no scores",
        summary=scan_summary(results),
        verdict=verdict_of(results),
        views=views,
        pictures_note=f"{len(views)} of {len(results)} series.",
        tables=score_tables(rows, groups=patients),
        caveats=caveat_lines(results),
        details=details | ({"Definitions": definitions()} if rows else {}),
    )


def scan_summary(results: Sequence[Reconstruction]) -> str:
    """What was done, in two sentences."""
    trials = sum(bool(result.rows) for result in results)
    accelerations = [result.measurement.acceleration for result in results]
    low, high = min(accelerations), max(accelerations)
    acc = f"{low:.1f}" if high - low < 0.05 else f"{low:.1f} to {high:.1f}"
    kinds = [f"{trials} fully sampled series, undersampled retrospectively"] if trials else []
    if trials < len(results):
        kinds.append(f"{len(results) - trials} series that were measured undersampled")
    names = ", ".join(dict.fromkeys(result.network for result in results))
    return (
        f"{' and '.join(kinds)}, at acceleration {acc}. Each was reconstructed by a network"
        f" ({names}) and by methods that need no training."
    )
