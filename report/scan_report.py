"""The files of `reconstruct.py`: a folder for each series; scores, report and page of the scan."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from evaluation.heart_view import HeartView, find_heart
from evaluation.series_view import ErrorView, SeriesView, view_errors, view_series
from metrics import definitions
from report.figures import heart_figure
from report.names import GROUND_TRUTH
from report.page import Page
from report.pictures import BEST, FigureForm, write_figure, write_film
from report.run_page import score_line
from report.scan_text import (
    caveat_lines,
    network_lines,
    scan_summary,
    series_notes,
    series_table,
    verdict_of,
)
from report.tables import Table, result_tables
from report.text import as_text
from scan.reconstruction import UNDERSAMPLED, Reconstruction
from training.run_folder import METRICS, OUTPUT
from util.errors import InputError
from util.files import as_bytes, not_written, whole_file, write_bytes, write_csv

IMAGES = "reconstruction.npz"

Facts = Mapping[str, Sequence[str]]  # lines on the scan and how it was reconstructed, by heading


def write_series(folder: Path, result: Reconstruction, form: FigureForm) -> None:
    """Images and pictures of a series in a folder of its own, which is there only when complete.

    Raises:
        InputError: they could not be written.
    """
    temporary, final = folder / f"{result.name}.tmp", folder / result.name
    try:
        temporary.mkdir()
        write_images(temporary / IMAGES, result)
        write_scan_pictures(temporary, result, form)
        temporary.rename(final)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise InputError(not_written(final, error)) from None
        raise


def write_images(path: Path, result: Reconstruction) -> None:
    """The images (T, Y, X) as an .npz: `reconstruction`, training-free ones by their names, `mask`
    (T, Y), `target` if the truth is known; if they were asked for `expected_error` and
    `error_bound` of the reconstruction, and of the best training-free method behind its name; in
    the units of the input."""
    arrays = {"reconstruction": result.images[result.network].numpy()}
    arrays |= {name: result.images[name].numpy() for name in (UNDERSAMPLED, result.best)}
    arrays["mask"] = result.measurement.mask[0, ..., 0].cpu().numpy().astype(np.uint8)
    if result.truth is not None:
        arrays["target"] = result.truth.numpy()
    for name, found in result.errors.items():
        of_method = "" if name == result.network else f"{name}_"
        arrays[f"{of_method}expected_error"] = found.expected.numpy()
        arrays[f"{of_method}error_bound"] = found.bound.numpy()
    with whole_file(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def write_scan_pictures(folder: Path, result: Reconstruction, form: FigureForm) -> None:
    """`cine.gif` and the figure `heart` of a series."""
    series = shown_series(result)
    compared = result.truth is not None
    view = heart_of(result, series)
    write_film(folder, series, view, compared)
    figure = heart_figure(series, view, result.name, form.width, compared)
    write_figure(folder / f"heart.{form.format}", figure, form.dpi)


def heart_of(result: Reconstruction, series: Mapping[str, np.ndarray]) -> HeartView:
    """The heart in the truth, or, if that is not known, in the network's images."""
    reference = series[GROUND_TRUTH if result.truth is not None else result.network]
    view = find_heart(torch.from_numpy(reference), result.aspect)
    return replace(view, pixel_width=result.pixel_width, frame_time=result.frame_time)


def shown_series(result: Reconstruction) -> dict[str, np.ndarray]:
    """The magnitudes (T, Y, X) to show, turned as viewers show them, the truth first if it is
    known, the network's last; divided by the maximum of the truth, or of the network's images."""
    names = [UNDERSAMPLED, result.best, result.network]
    shown = {name: result.images[name].abs() for name in names}
    if result.truth is not None:
        shown = {GROUND_TRUTH: result.truth.abs(), **shown}
    peak = peak_of(result)
    if result.is_turned:
        shown = {name: images.transpose(1, 2).contiguous() for name, images in shown.items()}
    return {name: (images / peak).numpy() for name, images in shown.items()}


def peak_of(result: Reconstruction) -> float:
    """The maximum of the truth, or, if that is not known, of the network's images."""
    reference = result.images[result.network] if result.truth is None else result.truth
    return reference.abs().max().item()


def error_view(result: Reconstruction) -> ErrorView | None:
    """The error map of the network's images as `shown_series` shows them; None: there is none."""
    found = result.errors.get(result.network)
    if found is None:
        return None
    view = view_errors(found, result.images[result.network], result.truth)
    if not result.is_turned:
        return view
    return replace(view, expected=np.ascontiguousarray(view.expected.transpose(0, 2, 1)))


def error_lines(results: Sequence[Reconstruction]) -> list[str]:
    """What the error maps say, a line for each; none if they were not asked for."""
    beyond = "; this is outside of the training, where the bound may be too narrow"
    return [
        f"{result.name}, {name}: {line}{beyond if result.outside else ''}"
        for result in results
        for name, line in result.error_lines.items()
    ]


def write_results(folder: Path, facts: Facts, results: Sequence[Reconstruction]) -> None:
    """`output.txt`, and `metrics.csv` of the series whose truth is known."""
    rows, patients = rows_and_patients(results)
    if rows:
        named = [
            {"series": result.name} | {k: v for k, v in row.items() if k != "sample"}
            for result in results
            for row in result.rows
        ]
        write_csv(folder / METRICS, named)
    parts: dict[str, Sequence[str | Table]] = {
        "Verdict": verdict_of(results),
        **facts,
        "Network": network_lines(results),
        "Error map": error_lines(results),
        "Series": [series_table(results), *notes_of(results)],
        "Scores": result_tables(rows, [], patients, all_scores=True),
        "Definitions": definitions() if rows else [],
        "Caveats": caveat_lines(results),
    }
    write_bytes(folder / OUTPUT, as_bytes(as_text(parts)))


def scan_view(result: Reconstruction) -> SeriesView:
    """A series for the player."""
    series = shown_series(result)
    roles = {GROUND_TRUTH: "fully sampled", UNDERSAMPLED: "undersampled", result.best: BEST}
    roles[result.network] = "network"
    known = GROUND_TRUTH if result.truth is not None else None
    heart, errors = heart_of(result, series), error_view(result)
    return view_series(result.name, series, roles, known, heart, errors)


def scan_page(
    name: str, facts: Facts, results: Sequence[Reconstruction], views: Sequence[SeriesView]
) -> Page:
    """`report.html` of the scan `name`; `views`: of the series that are shown."""
    rows, patients = rows_and_patients(results)
    details = {**facts, "Network": network_lines(results), "Series": notes_of(results)}
    if lines := error_lines(results):
        details["Error map"] = lines
    return Page(
        title=f"Reconstruction of {name}",
        score=score_line(rows, patients)
        if rows
        else "measured undersampled: no ground truth, no scores",
        summary=scan_summary(results),
        verdict=verdict_of(results),
        views=views,
        pictures_note=f"{len(views)} of {len(results)} series.",
        tables=result_tables(rows, [], patients),
        caveats=caveat_lines(results),
        details=details | ({"Definitions": definitions()} if rows else {}),
    )


def rows_and_patients(results: Sequence[Reconstruction]) -> tuple[list, np.ndarray]:
    """The rows of scores of all series, and the patient of each series."""
    rows = [row for result in results for row in result.rows]
    return rows, np.array([result.patient for result in results])


def notes_of(results: Sequence[Reconstruction]) -> list[str]:
    """The notes on all series, one per line; one that several have is given once."""
    series: dict[str, list[str]] = {}  # by note
    for result in results:
        for note in series_notes(result):
            series.setdefault(note, []).append(result.name)
    several = len(results) > 1
    return [
        f"{'all series' if several and len(names) == len(results) else ', '.join(names)}: {note}"
        for note, names in series.items()
    ]
