"""`output.txt`: the report of a run, which can be read on its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.intervals import advantages, spread
from evaluation.lesion import CONTRASTS, DIAMETERS
from evaluation.lesion_score import kept_contrasts
from metrics import SCORES, definitions
from report.markdown import difference_text, interval_meaning, kept_text, mean_and_spread
from training.run_folder import HISTORY, OUTPUT, peak_memory
from util.files import as_bytes, write_bytes, write_csv

EPOCH_COLUMNS = {  # width and format
    "epoch": (5, "d"),
    "train/loss": (13, ".3e"),
    "validation/loss": (15, ".3e"),
    "validation/psnr": (15, ".3f"),
    "validation/ssim": (15, ".4f"),
    "learning_rate": (13, ".3e"),
    "seconds": (8, ".1f"),
}
LESION_MEANING = f"""\
A disc of contrast {" or ".join(f"{c:+g}" for c in CONTRASTS)}, with a smooth edge, is added to
each test sample (images are in [0, 1]) at a point of the moving heart and moves with it. The point
is found without a segmentation, and so is not always in the wall. Each series is reconstructed with
and without the disc. kept: the fraction of its contrast in the difference of the two, mean over
frames and contrasts, ± standard deviation over samples (1: all, 0: erased). worst: the mean over
samples of the worst frame. ghost: the fraction of the contrast that appears where the disc is half
a heartbeat later and is not now (0: none)."""


def write_output(
    folder: Path,
    facts: Mapping[str, Sequence[str]],
    history: Sequence[Mapping[str, float]],
    results: Sequence[str] = (),
    caveats: Sequence[str] = (),
) -> None:
    """`output.txt`, and its epochs as `history.csv`.

    Args:
        facts: lines by heading: data, split, mask, model, ...
        history: an entry for each completed epoch.
        results: lines about the test set, once there are any.
        caveats: limits of the results, a line each.
    """
    parts = [
        f"{heading}\n" + "\n".join(f"  {line}" for line in lines)
        for heading, lines in facts.items()
    ]
    if history:
        write_csv(folder / HISTORY, history)
        parts.append("\n".join(["Training", epoch_header(), *map(epoch_line, history)]))
    if results:
        meaning = [f"  {name}: {text}" for name, text in definitions().items()]
        parts += ["\n".join(results), "\n".join(["Definitions", *meaning])]
        parts.append("\n".join(["Caveats", *(f"  {line}" for line in caveats)]))
    write_bytes(folder / OUTPUT, as_bytes("\n\n".join(parts) + "\n"))


def epoch_header() -> str:
    """The names above the columns of `epoch_line`."""
    return "  ".join(f"{name:>{width}}" for name, (width, _) in EPOCH_COLUMNS.items())


def epoch_line(entry: Mapping[str, float]) -> str:
    """An epoch of the history as a line; "-" if it was not validated."""
    cells = {
        name: format(entry[name], form) if name in entry else "-"
        for name, (_, form) in EPOCH_COLUMNS.items()
    }
    return "  ".join(f"{cells[name]:>{width}}" for name, (width, _) in EPOCH_COLUMNS.items())


def result_lines(
    rows: Sequence[Mapping[str, Any]],
    lesions: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, float]],
    groups: Sequence | np.ndarray | None,
    notices: Sequence[str],
) -> list[str]:
    """The results on the test set: scores, advantage over the training-free methods, lesions.

    Args:
        notices: what touches these scores, a line each.
        rows, lesions: of `metrics.csv` and `lesions.csv`.
        groups: patient of each sample of the data; None: unknown.
    """
    lines = [result_title(len({row["sample"] for row in rows}), history)]
    lines += [*score_table(rows), *notices, *advantage_lines(rows, groups)]
    return lines + (["", *lesion_table(lesions)] if lesions else [])


def result_title(n_samples: int, history: Sequence[Mapping[str, float]]) -> str:
    """What was tested, and the training that led to it."""
    title = f"Test: {n_samples} samples, mean ± standard deviation over samples"
    if not history:
        return title
    best = max((e for e in history if "validation/psnr" in e), key=lambda e: e["validation/psnr"])
    minutes = sum(entry["seconds"] for entry in history) / 60
    peak = peak_memory(history)
    return (
        f"{title}; the network of epoch {best['epoch']:.0f}, chosen by validation PSNR;"
        f" {minutes:.1f} minutes of training" + (f", {peak / 1e9:.2f} GB at most" if peak else "")
    )


def score_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of mean ± std (n - 1) over the test samples, a line for each method; a table for each
    acceleration."""
    lines = []
    for acc in dict.fromkeys(row["acc"] for row in rows):
        title = f"acceleration {float(acc):g}"
        lines.append("  ".join([f"{title:<22}", *(f"{'test/' + name:<19}" for name in SCORES)]))
        own = [row for row in rows if row["acc"] == acc]
        for method in dict.fromkeys(row["method"] for row in own):
            cells = [f"{method:<22}"]
            for name in SCORES:
                values = np.array([row[name] for row in own if row["method"] == method])
                digits = 5 if name in ("loss", "nmse") else 3
                text = mean_and_spread(float(values.mean()), spread(values), digits)
                cells.append(f"{text:<19}")
            lines.append("  ".join(cells).rstrip())
    return lines


def advantage_lines(
    rows: Sequence[Mapping[str, Any]], groups: Sequence | np.ndarray | None
) -> list[str]:
    """The advantage of the network over the best training-free method in each score, a line for
    each acceleration; none if there is nothing to compare."""
    by_acc: dict[float | None, list[str]] = {}
    network = ""
    for difference in advantages(rows, groups):
        network = difference.first
        text = difference_text(difference.interval, 3)
        cells = by_acc.setdefault(difference.acc, [])
        cells.append(f"{difference.score} {text} ({difference.second})")
    if not by_acc:
        return []
    meaning = interval_meaning(groups is not None)
    return [
        f"{network} minus the best training-free method, paired by sample, {meaning}",
        *(f"acceleration {acc:g}: {', '.join(cells)}" for acc, cells in by_acc.items()),
    ]


def lesion_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of the contrast that is kept of lesions, a line for each method, and their meaning."""
    title = f"Lesion test, acceleration {rows[0]['acc']:g}, by diameter in pixels"
    table = [["method", *(f"{diameter:g}: kept, worst, ghost" for diameter in DIAMETERS)]]
    for method, kept in kept_contrasts(rows).items():
        table.append([method, *(kept_text(kept.get(diameter)) for diameter in DIAMETERS)])
    lines = ["  ".join(f"{cell:<22}" for cell in cells).rstrip() for cells in table]
    return [title, *lines, *LESION_MEANING.splitlines()]
