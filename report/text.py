"""`output.txt`: the report of a run, which can be read on its own; and its lines on the screen."""

from collections.abc import Mapping, Sequence

from evaluation.bench import Effort, Reference
from evaluation.error_score import FEWEST
from evaluation.held_out import HELD_OUT, score_named
from evaluation.intervals import advantages
from evaluation.summary import Rows, by_condition, main_score, means_of, n_samples_of, titles_of
from metrics import SCORES, Score
from report.tables import Groups, Table, difference_text, main_title, wrapped
from training.run_folder import highest_peak
from util.progress import counted, duration

ADVANTAGE = "advantage"  # of the network over the best training-free method, a column
History = Sequence[Mapping[str, float]]  # an entry for each completed epoch


def as_text(parts: Mapping[str, Sequence[str | Table]]) -> str:
    """Headings with their lines, which are wrapped, and tables, which are not; empty parts are
    omitted."""
    blocks = []
    for heading, lines in parts.items():
        block = [heading]
        for line in lines:
            block += line.text() if isinstance(line, Table) else wrapped([line])
            if isinstance(line, Table) and line.note:
                block += wrapped([line.note])
        if lines:
            blocks.append("\n".join(block))
    return "\n\n".join(blocks) + "\n"


def epoch_columns(
    reference: Reference | None, scores: Mapping[str, Score]
) -> dict[str, tuple[int, str]]:
    """The columns of `epoch_line`, with width and format; `scores`: those of the validation."""
    columns = {"epoch": (5, "d"), "train/loss": (10, ".3e")}
    for name, score in scores.items():
        if score.logged:
            title = f"validation/{name}"
            form = f".{score.digits + 1}f" if score.higher_is_better else ".3e"
            columns[title] = (max(15, len(title)), form)
        if reference and name == reference.score:
            columns[ADVANTAGE] = (9, "+.2f")
    return columns | {"learning_rate": (13, ".3e"), "seconds": (7, ".1f")}


def epoch_header(reference: Reference | None, scores: Mapping[str, Score] = SCORES) -> str:
    """The names above the columns of `epoch_line`."""
    columns = epoch_columns(reference, scores)
    return " ".join(f"{name:>{width}}" for name, (width, _) in columns.items())


def epoch_line(
    entry: Mapping[str, float], reference: Reference | None, scores: Mapping[str, Score] = SCORES
) -> str:
    """An epoch of the history as a line; "-" if it was not validated. With a reference, a column
    has the difference to it."""
    if reference and reference.column in entry:
        entry = {**entry, ADVANTAGE: entry[reference.column] - reference.value}
    return " ".join(
        f"{format(entry[name], form) if name in entry else '-':>{width}}"
        for name, (width, form) in epoch_columns(reference, scores).items()
    )


def chosen_by(history: History) -> str:
    """The column of the history by which the best epoch is chosen."""
    held_out = f"validation/{HELD_OUT}"
    return held_out if any(held_out in entry for entry in history) else "validation/psnr"


def reference_lines(reference: Reference) -> list[str]:
    """What the epochs are compared with; see `epoch_line`."""
    return [
        f"{reference.column} of the best training-free method, {reference.method}:"
        f" {reference.value:.3f}",
        f"{ADVANTAGE}: {reference.column} of the network minus this",
    ]


def kept_lines(history: History, reference: Reference | None) -> list[str]:
    """That the network which is kept is below the best training-free method on the validation
    part, if it is."""
    if reference is None:
        return []
    by = chosen_by(history)
    best = max((entry for entry in history if by in entry), key=lambda entry: entry[by])
    behind = reference.value - best[reference.column]
    if behind <= 0:
        return []
    return [
        f"WARNING: the network of epoch {best['epoch']:.0f}, which is kept, is {behind:.2f} dB"
        f" below {reference.method} on the validation part ({reference.column}): it is not worth"
        " its training yet"
    ]


def stage_lines(psnr: Sequence[float], masks: str) -> list[str]:
    """The mean PSNR over the test samples after each stage of a network; `masks`: their title."""
    values = ", ".join(f"{value:.2f}" for value in psnr)
    return [f"test, {masks}: mean PSNR in dB after each stage {values}"]


def error_map_lines(factors: Mapping[str, float]) -> list[str]:
    """Where the bounds of error maps are from; `factors`: those of a calibration, by method."""
    if factors:
        found = " and ".join(f"{factor:.2f} ({name})" for name, factor in factors.items())
        return [
            f"90 % bounds are the expected error times {found}, by conformal risk control on the"
            " validation part, by which the epoch was chosen, too"
        ]
    return [
        "90 % bounds are those of phantoms and of the weights that come with the project: a"
        f" calibration needs {FEWEST} patients in the validation part, and their ground truth"
    ]


def verdict_lines(
    rows: Rows,
    groups: Groups,
    remedies: Sequence[str] = (),
    origin: Sequence[str] = (),
    unit: str = "test sample",
) -> list[str]:
    """The scores in order, and the networks against the best training-free method, for each
    condition; first the `origin` of the data, last the `remedies` of a network that is behind.
    """
    lines, behind, parts = list(origin), "", by_condition(rows)
    titles = titles_of(parts)
    for condition, own in parts.items():
        ranked = ", ".join(f"{name} {mean:.2f}" for name, mean in means_of(own).items())
        score = main_score(own)
        title, tested = main_title(own), counted(n_samples_of(own), unit)
        lines.append(f"{titles[condition]}, mean {title} of {tested} in dB: {ranked}")
        differences = [one for one in advantages(own, groups) if one.score == score]
        for difference in differences:
            text = difference_text(difference.interval, score_named(score).digits)
            lines.append(f"{difference.first} minus {difference.second}: {text} dB")
        best = max(differences, key=lambda one: one.interval.mean, default=None)
        if best is not None and best.interval.mean < 0:
            behind = best.first
    if behind and remedies:
        lines.append(
            f"{behind} scores below the best training-free method. Try: {'; '.join(remedies)}"
        )
    return lines


def test_lines(n_samples: int, history: History) -> list[str]:
    """What was tested, and the training that led to it."""
    title = f"{counted(n_samples, 'sample')}, mean ± standard deviation over samples"
    if history:
        by = chosen_by(history)
        best = max((entry for entry in history if by in entry), key=lambda entry: entry[by])
        how = "validation PSNR" if by == "validation/psnr" else "held-out lines in validation"
        title += f"; the network of epoch {best['epoch']:.0f}, chosen by {how}"
    peak = highest_peak(history)
    return [title + (f"; peak memory {peak / 1e9:.2f} GB" if peak else "")]


def time_line(spent: Mapping[str, Effort], history: History, test: float, resumed: bool) -> str:
    """The time of search, training and test, and what of it the cache saved.

    Args:
        spent: of a `Bench`; the validation scores of the training-free methods are of the search.
        test: its seconds, with lesions.
        resumed: whether this call continued an earlier one, whose search and test do not count.
    """

    def text(seconds: float, *parts: Effort) -> str:
        cached = sum(part.cached for part in parts)
        n_results = cached + sum(part.computed for part in parts)
        share = f"{cached} of {n_results}" if cached < n_results else "all"
        return duration(seconds) + (f" ({share} results cached)" if cached else "")

    search = spent["search"], spent["validation"]
    times = [f"search {text(sum(part.seconds for part in search), *search)}"]
    if history:
        times.append(f"training {duration(sum(entry['seconds'] for entry in history))}")
    times.append(f"test {text(test, spent['test'])}")
    return ", ".join(times) + ("; search and test in the last call" if resumed else "")
