"""`output.txt`: the report of a run, which can be read on its own."""

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.bench import Spent
from evaluation.intervals import advantages, spread
from evaluation.lesion import CONTRASTS, DIAMETERS
from evaluation.lesion_score import kept_contrasts
from evaluation.scoring import mean_scores
from metrics import SCORES, definitions
from report.markdown import (
    DIGITS,
    difference_text,
    interval_meaning,
    kept_text,
    mean_and_spread,
)
from training.run_folder import HISTORY, OUTPUT, peak_memory
from util.files import as_bytes, write_bytes, write_csv
from util.progress import duration

WIDTH = 100  # columns
WITHOUT_SPREAD = ("loss", "nmse")  # in the table of scores, whose width is limited
ADVANTAGE = "advantage"  # of the network over the best training-free method, a column
EPOCH_COLUMNS = {  # width and format
    "epoch": (5, "d"),
    "train/loss": (10, ".3e"),
    "validation/loss": (15, ".3e"),
    "validation/psnr": (15, ".3f"),
    ADVANTAGE: (9, "+.2f"),
    "validation/ssim": (15, ".4f"),
    "learning_rate": (13, ".3e"),
    "seconds": (7, ".1f"),
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
    verdict: Sequence[str] = (),
    reference: tuple[str, float] | None = None,
) -> None:
    """`output.txt`, and its epochs as `history.csv`.

    Args:
        facts: lines by heading: data, split, mask, model, ...
        history: an entry for each completed epoch.
        results: lines about the test set, once there are any.
        caveats: limits of the results, a line each.
        verdict: the results in short, which come first.
        reference: see `epoch_line`.
    """
    parts = ["\n".join(["Verdict", *wrapped(verdict)])] if verdict else []
    parts += ["\n".join([heading, *wrapped(lines)]) for heading, lines in facts.items()]
    if history:
        write_csv(folder / HISTORY, history)
        epochs = [epoch_line(entry, reference) for entry in history]
        parts.append("\n".join(["Training", epoch_header(reference), *epochs]))
    if results:
        meaning = [f"{name}: {text}" for name, text in definitions().items()]
        parts += ["\n".join(results), "\n".join(["Definitions", *wrapped(meaning)])]
        parts.append("\n".join(["Caveats", *wrapped(caveats)]))
    write_bytes(folder / OUTPUT, as_bytes("\n\n".join(parts) + "\n"))


def wrapped(lines: Sequence[str], indent: str = "  ") -> list[str]:
    """Lines of at most `WIDTH` columns, the continuations indented further."""
    return [
        piece
        for line in lines
        for piece in textwrap.wrap(
            line,
            WIDTH,
            initial_indent=indent,
            subsequent_indent=indent + "  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def stage_lines(psnr: Sequence[float], acc: float) -> list[str]:
    """The mean PSNR over the test samples after each stage of a cascade."""
    values = ", ".join(f"{value:.2f}" for value in psnr)
    return [f"test, acceleration {acc:g}: mean PSNR in dB after each stage {values}"]


def epoch_columns(reference: tuple[str, float] | None) -> dict[str, tuple[int, str]]:
    """The columns of `epoch_line`, with width and format."""
    return {k: column for k, column in EPOCH_COLUMNS.items() if reference or k != ADVANTAGE}


def epoch_header(reference: tuple[str, float] | None) -> str:
    """The names above the columns of `epoch_line`."""
    return " ".join(f"{name:>{width}}" for name, (width, _) in epoch_columns(reference).items())


def epoch_line(entry: Mapping[str, float], reference: tuple[str, float] | None) -> str:
    """An epoch of the history as a line; "-" if it was not validated.

    `reference`: the best training-free method and its PSNR on the validation part, in dB; with it,
    a column has the difference to it.
    """
    if reference and "validation/psnr" in entry:
        entry = {**entry, ADVANTAGE: entry["validation/psnr"] - reference[1]}
    return " ".join(
        f"{format(entry[name], form) if name in entry else '-':>{width}}"
        for name, (width, form) in epoch_columns(reference).items()
    )


def reference_lines(reference: tuple[str, float]) -> list[str]:
    """What the epochs are compared with; see `epoch_line`."""
    best, psnr = reference
    return [
        f"validation/psnr of the best training-free method, {best}: {psnr:.3f}",
        f"{ADVANTAGE}: validation/psnr of the network minus this",
    ]


def verdict_lines(
    rows: Sequence[Mapping[str, Any]],
    groups: Sequence | np.ndarray | None,
    remedies: Sequence[str],
    origin: Sequence[str] = (),
) -> list[str]:
    """The scores in order, the network against the best training-free method, and what helps a
    network that is behind (`remedies`); for each acceleration. First the `origin` of the data."""
    lines = list(origin)
    behind = ""
    for acc in dict.fromkeys(row["acc"] for row in rows):
        own = [row for row in rows if row["acc"] == acc]
        means = {name: scores["psnr"] for name, scores in mean_scores(own).items()}
        ranked = sorted(means, key=lambda name: -means[name])
        n_samples = len({row["sample"] for row in own})
        lines.append(
            f"acceleration {float(acc):g}, mean PSNR of {n_samples} test samples in dB: "
            + ", ".join(f"{name} {means[name]:.2f}" for name in ranked)
        )
        for difference in advantages(own, groups):
            if difference.score == "psnr":
                text = difference_text(difference.interval, 2)
                lines.append(f"{difference.first} minus {difference.second}: {text} dB")
                behind = difference.first if difference.interval.mean < 0 else behind
    if behind:
        lines.append(
            f"{behind} scores below the best training-free method. Try: {'; '.join(remedies)}"
        )
    return lines


def result_lines(
    rows: Sequence[Mapping[str, Any]],
    lesions: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, float]],
    groups: Sequence | np.ndarray | None,
    notices: Sequence[str],
    times: str,
) -> list[str]:
    """The results on the test set: scores, advantage over the training-free methods, lesions.

    Args:
        rows, lesions: of `metrics.csv` and `lesions.csv`.
        groups: patient of each sample of the data; None: unknown.
        notices: what touches these scores, a line each.
        times: of `time_line`.
    """
    title = result_title(len({row["sample"] for row in rows}), history)
    lines = [*wrapped([title, times], ""), *score_table(rows), *wrapped(notices, "")]
    lines += wrapped(advantage_lines(rows, groups), "")
    return lines + (["", *lesion_table(lesions)] if lesions else [])


def result_title(n_samples: int, history: Sequence[Mapping[str, float]]) -> str:
    """What was tested, and the training that led to it."""
    title = f"Test: {n_samples} samples, mean ± standard deviation over samples"
    if history:
        validated = [entry for entry in history if "validation/psnr" in entry]
        best = max(validated, key=lambda entry: entry["validation/psnr"])
        title += f"; the network of epoch {best['epoch']:.0f}, chosen by validation PSNR"
    peak = peak_memory(history)
    return title + (f"; peak memory {peak / 1e9:.2f} GB" if peak else "")


def time_line(
    spent: Mapping[str, Spent],
    history: Sequence[Mapping[str, float]],
    test: float,
    resumed: bool,
) -> str:
    """The time of search, training and test, and what of it the cache saved.

    Args:
        spent: of a `Bench`; the validation scores of the training-free methods are of the search.
        test: its seconds, with lesions.
        resumed: whether this call continued an earlier one, whose search and test do not count.
    """

    def text(seconds: float, *parts: Spent) -> str:
        cached = sum(part.cached for part in parts)
        n_results = cached + sum(part.computed for part in parts)
        share = f"{cached} of {n_results}" if cached < n_results else "all"
        return duration(seconds) + (f" ({share} results cached)" if cached else "")

    search = spent["search"], spent["validation"]
    times = [f"search {text(sum(part.seconds for part in search), *search)}"]
    if history:
        times.append(f"training {duration(sum(entry['seconds'] for entry in history))}")
    times.append(f"test {text(test, spent['test'])}")
    return f"Time: {', '.join(times)}" + ("; search and test in the last call" if resumed else "")


def score_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of mean ± std (n - 1) over the test samples, a line for each method; a table for each
    acceleration. Of some scores only the mean: `metrics.csv` has all values."""
    lines = []
    for acc in dict.fromkeys(row["acc"] for row in rows):
        table = [[f"acceleration {float(acc):g}", *SCORES]]
        own = [row for row in rows if row["acc"] == acc]
        for method in dict.fromkeys(row["method"] for row in own):
            cells = [method]
            for name in SCORES:
                values = np.array([row[name] for row in own if row["method"] == method])
                std = math.nan if name in WITHOUT_SPREAD else spread(values)
                cells.append(mean_and_spread(float(values.mean()), std, DIGITS[name]))
            table.append(cells)
        lines += in_columns(table)
    return lines


def in_columns(table: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table as lines of text, columns as wide as their cells."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def advantage_lines(
    rows: Sequence[Mapping[str, Any]], groups: Sequence | np.ndarray | None
) -> list[str]:
    """The advantage of each network over the best training-free method in each score, a line for
    each acceleration; none if there is nothing to compare."""
    cells: dict[str, dict[float | None, list[str]]] = {}  # by network and acceleration
    for difference in advantages(rows, groups):
        text = difference_text(difference.interval, 3)
        at_acc = cells.setdefault(difference.first, {}).setdefault(difference.acc, [])
        at_acc.append(f"{difference.score} {text} ({difference.second})")
    meaning = interval_meaning(groups is not None)
    lines = []
    for network, by_acc in cells.items():
        lines.append(f"{network} minus the best training-free method, paired by sample, {meaning}")
        lines += [f"acceleration {acc:g}: {', '.join(one)}" for acc, one in by_acc.items()]
    return lines


def lesion_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of the contrast that is kept of lesions, a line for each method, and their meaning."""
    title = f"Lesion test, acceleration {rows[0]['acc']:g}: kept, worst, ghost by diameter"
    table = [["method", *(f"{diameter:g} pixels" for diameter in DIAMETERS)]]
    for method, kept in kept_contrasts(rows).items():
        cells = [kept_text(kept.get(diameter)) for diameter in DIAMETERS]
        # without leading zeros and commas, for the width
        table.append([method, *(re.sub(r"\b0\.", ".", cell.replace(",", "")) for cell in cells)])
    return [title, *in_columns(table), *LESION_MEANING.splitlines()]
