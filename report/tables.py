"""The tables of scores, differences and lesions: made once, rendered as text, Markdown or HTML.

A table is rendered as Markdown by `markdown`, as LaTeX by `latex`, as text by `text`, and as HTML
by the page's template (`report/templates/page.html`). The numbers are those of `evaluation/`.
"""

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.error_map import PROMISED
from evaluation.held_out import score_named
from evaluation.intervals import FEWEST, Interval, advantages, paired_differences, spread
from evaluation.lesion import CONTRASTS, DIAMETERS
from evaluation.lesion_score import KeptContrast, kept_contrasts
from evaluation.summary import (
    Columns,
    Rows,
    best_baseline,
    by_condition,
    columns_of,
    condition_of,
    main_score,
    means_of,
    n_samples_of,
    scores_in,
    titles_of,
)
from metrics import SCORES, Score
from util.progress import counted

WIDTH = 100  # columns of text
ABSENT = "absent"  # a score that could not be computed
MEAN_OF_TEST = "Mean ± standard deviation over the test samples"
MEAN_MEANING = f"{MEAN_OF_TEST}. The best PSNR comes first."
LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$",
}  # fmt: skip
LESION_MEANING = (
    f"A disc of contrast {' or '.join(f'{c:+g}' for c in CONTRASTS)}, with a smooth edge, is added"
    " to each test sample (images are in [0, 1]) at a point of the moving heart and moves with it."
    " The point is found without a segmentation, and so is not always in the wall. Each series is"
    " reconstructed with and without the disc. kept: the fraction of its contrast in the difference"
    " of the two, mean over frames and contrasts, ± standard deviation over samples (1: all, 0:"
    " erased). worst: the mean over samples of the worst frame. ghost: the fraction of the contrast"
    " that appears where the disc is half a heartbeat later and is not now (0: none). The method"
    " that keeps most of all discs comes first."
)
ERROR_MAP_MEANING = (
    "held: the share of the pixels whose error is within the bound, mean over samples, and in"
    f" brackets the lowest; {PROMISED:.0%} are promised, on average. bound, error: their mean over"
    " the pixels. In the moving region and in the rest of the image. rank correlation: of expected"
    " and true error, both smoothed over a few pixels."
)

Groups = Sequence | np.ndarray | None  # patient of each sample of the data; None: unknown


@dataclass(frozen=True)
class Table:
    """A table of text; the first cell of a row names it."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    note: str = ""  # the meaning of the cells

    def markdown(self) -> list[str]:
        """Its lines in Markdown, without the note; short rows end with empty cells."""
        lines = ["| " + " | ".join(self.heads) + " |", "|---" * len(self.heads) + "|"]
        for row in self.rows:
            cells = [*row, *[""] * (len(self.heads) - len(row))]
            lines.append("| " + " | ".join(cells) + " |")
        return [*([f"{self.title}:", ""] if self.title else []), *lines]

    def latex(self) -> list[str]:
        """Its lines in LaTeX, a floating table with its note in the caption; for the package
        booktabs."""
        caption = ". ".join(filter(None, (self.title.rstrip("."), self.note)))
        rows = [[*row, *[""] * (len(self.heads) - len(row))] for row in self.rows]
        heads, *cells = (
            "    " + " & ".join(map(as_latex, row)) + r" \\" for row in (self.heads, *rows)
        )
        return [
            r"\begin{table}",
            r"  \centering",
            *([rf"  \caption{{{as_latex(caption)}}}"] if caption else []),
            rf"  \begin{{tabular}}{{l{'r' * (len(self.heads) - 1)}}}",
            *(r"    \toprule", heads, r"    \midrule", *cells, r"    \bottomrule"),
            r"  \end{tabular}",
            r"\end{table}",
        ]

    def text(self) -> list[str]:
        """Its lines as text, without the note: in columns or, if these are too wide, a paragraph
        for each row."""
        title = [self.title] if self.title else []
        short = [[re.sub(r"\b0\.", ".", cell) for cell in row] for row in self.rows]
        for rows in (self.rows, short):  # without leading zeros, if these make it too wide
            table = [self.heads, *rows]
            widths = [max(len(row[i]) for row in table) for i in range(len(self.heads))]
            if sum(widths) + 2 * len(widths) - 2 <= WIDTH:
                return title + [
                    "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()
                    for row in table
                ]
        paragraphs = (
            f"{name}: "
            + "; ".join(f"{h} {c}" for h, c in zip(self.heads[1:], cells, strict=True) if c)
            for name, *cells in self.rows
        )
        return title + wrapped(list(paragraphs), "")


def as_latex(text: str) -> str:
    """Text as LaTeX has it: special characters, `code`, **bold**, plus or minus, and minus signs
    of numbers."""
    text = "".join(LATEX.get(character, character) for character in text)
    text = re.sub(r"`([^`]*)`", r"\\texttt{\1}", text)
    text = re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", text)
    return re.sub(r"(?<![\w.])-(?=[\d.])", "$-$", text)


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


def result_tables(
    rows: Rows,
    lesions: Rows,
    groups: Groups,
    all_scores: bool = False,
    error_maps: Rows = (),
) -> list[Table]:
    """All tables of a test: scores, advantages, lesions, error maps.

    `all_scores`: for text, which is not as wide as a page: without differences beside the scores.
    """
    names = list(scores_in(rows)) if all_scores else None
    scores = score_tables(rows, names, groups, not all_scores)
    more = (
        advantage_table({"": (rows, groups)}),
        lesion_table(lesions),
        error_map_table(error_maps),
    )
    return scores + [table for table in more if table is not None]


def score_tables(
    rows: Rows,
    scores: Sequence[str] | None = None,
    groups: Groups = None,
    differences: bool = True,
) -> list[Table]:
    """For each condition the scores of all methods, the best PSNR first, and the paired
    difference of their PSNR to the best training-free method.

    Args:
        scores: their names; None: those that are shown.
        differences: whether to have that column.
    """
    tables, parts = [], by_condition(rows)
    titles = titles_of(parts)
    for condition, own in parts.items():
        best = best_baseline(own) if differences else None
        columns = columns_of(own)
        table = score_table({name: columns[name] for name in means_of(own)}, scores)
        heads, cells = list(table.heads), [list(row) for row in table.rows]
        samples = counted(n_samples_of(own), "test sample")
        first = f"The best {main_title(own)} comes first."
        note = f"Mean ± standard deviation over {samples}. {first}"
        if best is not None:
            heads.append(f"{main_title(own)} minus {best} (dB)")
            note += f" Differences are paired by sample: {interval_meaning(groups is not None)}."
            for name, line in zip(means_of(own), cells, strict=True):
                line.append("" if name == best else main_difference(own, name, best, groups))
        title = titles[condition]
        tables.append(Table(heads, cells, title[:1].upper() + title[1:], note))
    return tables


def score_table(
    methods: Mapping[str, Columns],
    scores: Sequence[str] | None = None,
    title: str = "",
    note: str | None = None,
) -> Table:
    """The scores of methods, a row for each: mean ± standard deviation over their samples.

    `methods`: the best PSNR first.
    """
    known = next(iter(methods.values()))  # other ones if the truth is not known
    names = [name for name in scores or shown_scores() if name in known] or list(known)
    cells = [
        [
            method,
            *(
                mean_and_spread(
                    columns[name].mean(),
                    spread(columns[name]) if score_named(name).with_spread else math.nan,
                    score_named(name).digits,
                )
                for name in names
            ),
        ]
        for method, columns in methods.items()
    ]
    if note is None:
        note = MEAN_MEANING if "psnr" in known else f"{MEAN_OF_TEST}."
    return Table(["method", *(score_named(name).title for name in names)], cells, title, note)


def shown_scores(scores: Mapping[str, Score] = SCORES) -> list[str]:
    """The scores in the tables of pages and papers."""
    return [name for name, score in scores.items() if score.shown]


def main_title(rows: Rows) -> str:
    """The title of the main score, without its unit."""
    return score_named(main_score(rows)).title.removesuffix(" (dB)")


def main_difference(rows: Rows, first: str, second: str, groups: Groups) -> str:
    """The paired difference in the main score, with its interval."""
    score = main_score(rows)
    (difference,) = paired_differences(rows, first, second, groups, (score,))
    return difference_text(difference.interval, score_named(score).digits)


def advantage_table(runs: Mapping[str, tuple[Rows, Groups]]) -> Table | None:
    """Each network minus the best training-free method of each score, for every run and
    condition; None if there is nothing to compare.

    `runs`: rows and patients by the name of the run, "" if there is one alone.
    """
    lines: dict[str, dict[str, str]] = {}
    titles = titles_of(condition_of(row) for rows, _ in runs.values() for row in rows)
    for run, (rows, groups) in runs.items():
        for one in advantages(rows, groups):
            label = ", ".join(filter(None, (one.first, run, titles[one.condition])))
            text = difference_text(one.interval, score_named(one.score).digits)
            lines.setdefault(label, {})[one.score] = f"{text} ({one.second})"
    if not lines:
        return None
    scores = list(dict.fromkeys(score for cells in lines.values() for score in cells))
    known = {groups is not None for _, groups in runs.values()}
    units = (
        interval_meaning(known.pop())
        if len(known) == 1
        else (f"where patients are known, {interval_meaning(True)}; else over samples")
    )
    return Table(
        ["", *(score_named(score).title for score in scores)],
        [[label, *(cells.get(k, ABSENT) for k in scores)] for label, cells in lines.items()],
        "Minus the best training-free method of each score",
        f"Paired by sample, {units}.",
    )


def lesion_table(rows: Rows, run: str = "") -> Table | None:
    """The contrast that each method keeps of lesions, the most first; None if they were not
    tested."""
    if not rows:
        return None
    contrasts = kept_contrasts(rows)

    def kept_of_all(method: str) -> float:
        return sum(kept.mean for kept in contrasts[method].values())

    cells = [
        [method, *(kept_text(contrasts[method].get(diameter)) for diameter in DIAMETERS)]
        for method in sorted(contrasts, key=kept_of_all, reverse=True)
    ]
    masks = condition_of(rows[0]).title(with_pattern=True)
    title = f"Lesion test, {', '.join(filter(None, (run, masks)))}: kept, worst, ghost"
    heads = ["method", *(f"{diameter:g} pixels" for diameter in DIAMETERS)]
    return Table(heads, cells, title, LESION_MEANING)


def error_map_table(rows: Rows) -> Table | None:
    """What the error maps say and, if the truth is known, were worth, a row for each method; None
    if there are none."""
    if not rows:
        return None
    is_tested = "correlation" in rows[0]
    cells = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        cells.append([method, *(bound_text(own, region) for region in ("still", "moving"))])
        if is_tested:
            cells[-1].append(f"{np.mean([row['correlation'] for row in own]):.2f}")
    heads = ["method", "still", "moving", *["rank correlation"] * is_tested]
    title = "held (lowest), bound, error" if is_tested else "mean 90 % bound"
    return Table(heads, cells, f"Error map: {title}", ERROR_MAP_MEANING if is_tested else "")


def bound_text(rows: Rows, region: str) -> str:
    """ "0.94 (0.81) 0.030 0.007": what a region held, its bound and its error; "0.030", the bound
    alone, without the truth."""
    named = [f"{value}_{region}" for value in ("bound", "held", "error")]
    values = np.array([[row[name] for name in named if name in row] for row in rows])
    values = values[~np.isnan(values[:, 0])]  # of samples with such a region
    if not len(values):
        return ABSENT
    bound, *tested = values.mean(axis=0)
    if not tested:
        return f"{bound:.4f}"
    held, error = tested
    return f"{held:.3f} ({values[:, 1].min():.2f}) {bound:.4f} {error:.4f}"


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
    """The meaning of the mean and the brackets of differences."""
    units = "patients" if patients_known else "samples"
    return f"mean over {units} [95 % t interval, none for fewer than {FEWEST} {units}]"


def kept_text(kept: KeptContrast | None) -> str:
    """ "0.96±0.02 0.91 0.01": contrast of lesions kept, in the worst frame, and in the ghost."""
    if kept is None:
        return "-"
    std = "" if math.isnan(kept.std) else f"±{kept.std:.2f}"
    ghost = "-" if math.isnan(kept.ghost) else f"{kept.ghost:.2f}"
    return f"{kept.mean:.2f}{std} {kept.worst_frame:.2f} {ghost}"
