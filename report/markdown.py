"""Scores as text: titles and digits, mean ± spread, differences, and Markdown tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.intervals import FEWEST, Interval
from evaluation.lesion_score import KeptContrast

TITLES = {
    "loss": "MSE",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM (3-D)",
    "ssim_2d": "SSIM (2-D)",
    "nmse": "NMSE",
    "moving_psnr": "moving PSNR (dB)",
}
DIGITS = {"loss": 5, "psnr": 2, "ssim": 3, "ssim_2d": 3, "nmse": 4, "moving_psnr": 2}
ABSENT = "absent"  # a score that could not be computed


@dataclass(frozen=True)
class Table:
    """A table of text, for Markdown or a page; the first cell of a row names it."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    note: str = ""  # what the cells mean

    def markdown(self) -> list[str]:
        """Its lines in Markdown, without the note."""
        return [*([f"{self.title}:", ""] if self.title else []), *table(self.heads, self.rows)]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; rows shorter than `heads` end with empty cells."""
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [*row, *[""] * (len(heads) - len(row))]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def mean_and_spread(mean: float, std: float, digits: int) -> str:
    """ "mean ± std"; without the std if that is NaN, and "absent" if the mean is NaN."""
    if math.isnan(mean):
        return ABSENT
    return f"{mean:.{digits}f}" + ("" if math.isnan(std) else f" ± {std:.{digits}f}")


def difference_text(difference: Interval, digits: int) -> str:
    """ "+0.50 [0.10, 0.90]": a mean difference and its interval, if it has one."""
    if math.isnan(difference.mean):
        return ABSENT
    text = f"{difference.mean:+.{digits}f}"
    if math.isnan(difference.low):
        return text
    return f"{text} [{difference.low:.{digits}f}, {difference.high:.{digits}f}]"


def interval_meaning(patients_known: bool) -> str:
    """What the mean and the brackets of differences are."""
    units = "patients" if patients_known else "samples"
    return f"mean over {units} [95 % t interval, none for fewer than {FEWEST} {units}]"


def kept_text(kept: KeptContrast | None) -> str:
    """ "0.96±0.02, 0.91, 0.01": contrast of lesions kept, in the worst frame, and in the ghost."""
    if kept is None:
        return "-"
    std = "" if math.isnan(kept.std) else f"±{kept.std:.2f}"
    ghost = "-" if math.isnan(kept.ghost) else f"{kept.ghost:.2f}"
    return f"{kept.mean:.2f}{std}, {kept.worst_frame:.2f}, {ghost}"
