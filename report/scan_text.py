"""`output.txt` of `reconstruct.py`: what was reconstructed, how, and what the images are worth."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.intervals import advantages
from evaluation.scoring import mean_scores
from metrics import definitions
from report.markdown import DIGITS, difference_text, interval_meaning
from report.text import in_columns, score_table, wrapped
from scan.adaptation import Adapted
from scan.measurement import BRIGHT_LEVEL, BRIGHT_QUANTILE
from scan.reconstruction import Reconstruction
from scan.weights import outside_lines, training_lines
from training.run_folder import OUTPUT
from util.files import as_bytes, write_bytes
from util.progress import duration

TABLES = ("Series", "Scores")  # parts whose lines are not wrapped


def write_scan_output(
    folder: Path,
    facts: Mapping[str, Sequence[str]],
    results: Sequence[Reconstruction],
) -> None:
    """`output.txt` of the series that are finished.

    `facts`: lines on the scan and on how it was reconstructed, by heading.
    """
    rows = [row for result in results for row in result.rows]
    parts = {**facts, "Network": network_lines(results), "Series": series_table(results)}
    if rows:
        parts = {"Verdict": verdict_of(results), **parts, "Scores": score_table(rows)}
        parts["Definitions"] = [f"{name}: {text}" for name, text in definitions().items()]
    parts["Caveats"] = caveat_lines(results)
    text = [
        "\n".join([heading, *(lines if heading in TABLES else wrapped(lines))])
        for heading, lines in parts.items()
    ]
    write_bytes(folder / OUTPUT, as_bytes("\n\n".join(text) + "\n"))


def verdict_of(results: Sequence[Reconstruction]) -> list[str]:
    """The mean PSNR of each method, and each network against the best training-free method; nothing
    where no truth is known."""
    rows = [row for result in results for row in result.rows]
    if not rows:
        return []
    patients = [result.patient for result in results]
    means = {name: scores["psnr"] for name, scores in mean_scores(rows).items()}
    ranked = ", ".join(
        f"{name} {means[name]:.2f}" for name in sorted(means, key=lambda n: -means[n])
    )
    lines = [f"mean PSNR of {len({row['sample'] for row in rows})} series in dB: {ranked}"]
    compared: dict[str, list[str]] = {}
    for difference in advantages(rows, patients):
        text = difference_text(difference.interval, DIGITS[difference.score])
        cells = compared.setdefault(difference.first, [])
        cells.append(f"{difference.score} {text} ({difference.second})")
    lines += [
        f"{name} minus the best training-free method of each score, {interval_meaning(True)}:"
        f" {', '.join(cells)}"
        for name, cells in compared.items()
    ]
    return lines


def series_table(results: Sequence[Reconstruction]) -> list[str]:
    """A line for each series, and below it what is to be known about it."""
    head = ["series", "frames x lines x columns", "images", "acceleration", "time"]
    table, below = [head], []
    for result in results:
        measured = result.measurement
        kind = "real-valued" if measured.is_real else "complex"
        size = " x ".join(map(str, measured.shape))
        cells = [result.name, size, kind, f"{measured.acceleration:.2f}", duration(result.seconds)]
        table.append(cells)
        below += wrapped([f"{result.name}: {note}" for note in series_notes(result)])
    return [*in_columns(table), *below]


def series_notes(result: Reconstruction) -> list[str]:
    """What is to be known about a series, a line each."""
    return [
        *result.notes,
        f"scaled by 1 / {result.measurement.scale:.4g}, which is undone in the output",
        *outside_lines(result.weights, result.measurement),
    ]


def network_lines(results: Sequence[Reconstruction]) -> list[str]:
    """What the weights were trained on, and what adapting them to the scan brought."""
    lines = (
        line for r in results for line in training_lines(r.weights) + adaptation_lines(r.adapted)
    )
    return list(dict.fromkeys(lines))


def adaptation_lines(adapted: Adapted | None) -> list[str]:
    """What the scan-specific fine-tuning did, by the lines that were held out."""
    if adapted is None:
        return []
    if math.isnan(adapted.before):
        return ["adaptation: too few measured lines to hold some out; the weights are unchanged"]
    if not adapted.steps:
        return ["adaptation: no step within the time; the weights are unchanged"]
    if not adapted.kept:
        return [f"adaptation: no gain in {adapted.steps} steps; the weights are unchanged"]
    gain = 10 * math.log10(adapted.before / adapted.after)
    return [
        f"adapted to {adapted.series} series together: the error of held-out measured lines fell by"
        f" {gain:.2f} dB, with the weights of step {adapted.kept} of {adapted.steps}"
    ]


def caveat_lines(results: Sequence[Reconstruction]) -> list[str]:
    """The limits of the images and scores, a line each."""
    lines = []
    if any(result.rows for result in results):
        lines += [
            "Series whose truth is known were undersampled retrospectively: no scanner measured"
            " these lines.",
            "Scores are of magnitudes, divided by the maximum of the fully sampled ones. The"
            " training-free methods have their usual parameters, not tuned on these data.",
        ]
    if not all(result.rows for result in results):
        lines.append(
            "Series that were measured undersampled have no known truth, and so no scores: compare"
            " the methods, and do not take a sharp image for a right one."
        )
    if any(result.measurement.is_real for result in results):
        lines.append(
            "Real-valued series: all methods assumed real images, whose k-space is Hermitian. This"
            " holds for magnitude images, and makes them easier than raw k-space of a scanner (E."
            " Shimron et al., 'Implicit data crimes', PNAS 2022)."
        )
    lines.append(
        "The scale is such that the"
        f" {BRIGHT_QUANTILE:.1%} quantile of the view-shared images is {BRIGHT_LEVEL:g}, as in the"
        " images that the networks are trained on."
    )
    lines.append("Not for diagnosis.")
    return lines
