"""The words of `reconstruct.py`: what was reconstructed, how, and what the images are worth."""

import math
from collections.abc import Sequence

from report.description import PHASE_REMOVED
from report.tables import Table
from report.text import verdict_lines
from scan.adaptation import Adapted
from scan.measurement import BRIGHT_LEVEL, BRIGHT_QUANTILE
from scan.reconstruction import Reconstruction
from scan.weights import size_notes, training_lines
from util.progress import counted, duration


def verdict_of(results: Sequence[Reconstruction]) -> list[str]:
    """Lines outside of the weights' training, the mean PSNR of each method, and each network
    against the best training-free method; no scores where no truth is known."""
    outside = [line for result in results for line in result.outside]
    rows = [row for result in results for row in result.rows]
    patients = [result.patient for result in results]
    return verdict_lines(rows, patients, origin=list(dict.fromkeys(outside)), unit="series")


def series_table(results: Sequence[Reconstruction]) -> Table:
    """A row for each series."""
    rows = []
    for result in results:
        measured = result.measurement
        kind = "real-valued" if measured.is_real else "complex"
        size = " x ".join(map(str, measured.shape))
        time = duration(result.seconds)
        rows.append([result.name, size, kind, f"{measured.acceleration:.2f}", time])
    heads = ["series", "frames x lines x columns", "images", "acceleration", "time"]
    return Table(heads, rows)


def series_notes(result: Reconstruction) -> list[str]:
    """Notes on a series, one per line."""
    return [
        *result.notes,
        f"scaled by 1 / {result.measurement.scale:.4g}, which is undone in the output",
        *result.outside,
        *size_notes(result.weights, result.measurement),
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
    if not adapted.best:
        return [
            f"adaptation: no gain in {counted(adapted.steps, 'step')}; the weights are unchanged"
        ]
    found = (
        f"the error of held-out measured lines fell by {adapted.gain:.2f} ±"
        f" {adapted.gain_error:.2f} dB (mean over the lines and its standard error), with the"
        f" weights of step {adapted.best} of {adapted.steps}"
    )
    if not adapted.is_better:
        return [f"adaptation: {found}: no clear gain, so the weights are unchanged"]
    return [f"adapted to {adapted.series} series together: {found}"]


def caveat_lines(results: Sequence[Reconstruction]) -> list[str]:
    """The limits of the images and scores, one per line."""
    lines = []
    if any(result.rows for result in results):
        lines += [
            "Series whose ground truth is known were undersampled retrospectively: no scanner"
            " measured these lines.",
            "Scores are of magnitudes, divided by the maximum of the fully sampled ones. The"
            " training-free methods have their usual parameters, not tuned on these data.",
        ]
    if not all(result.rows for result in results):
        lines.append(
            "Series that were measured undersampled have no known ground truth, and so no scores:"
            " compare the methods, and do not take a sharp image for a right one."
        )
    if any(result.measurement.is_real for result in results):
        lines.append(
            "Real-valued series: all methods assumed real images, whose k-space is Hermitian. This"
            " holds for magnitude images, and makes them easier than raw k-space of a scanner (E."
            " Shimron et al., 'Implicit data crimes', PNAS 2022)."
        )
    if not all(result.measurement.is_real for result in results):
        lines.append(f"Complex series: {PHASE_REMOVED}.")
    lines.append(
        "The scale is such that the"
        f" {BRIGHT_QUANTILE:.1%} quantile of the view-shared images is {BRIGHT_LEVEL:g}, as in the"
        " images that the networks are trained on."
    )
    lines.append("Not for diagnosis.")
    return lines


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
