"""The report of a run: on the screen, in `output.txt`, in TensorBoard, and as a page."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from data.quality import score_notices
from evaluation.bench import Reference
from evaluation.scoring import Example, ScoreRow
from evaluation.summary import best_baseline, by_condition, n_samples_of
from metrics import definitions
from report.limits import caveats, outside_the_training, remedies
from report.page import write_page
from report.pictures import FigureForm, Gallery, write_figure
from report.run_page import progress_page, run_page, score_line, training_charts
from report.tables import Table, result_tables
from report.tensorboard import TensorBoard
from report.text import (
    as_text,
    epoch_header,
    epoch_line,
    kept_lines,
    reference_lines,
    test_lines,
    verdict_lines,
)
from report.training_figures import curves_figure
from training import run_folder
from training.losses import loss_text
from training.run import Run
from util.files import as_bytes, write_bytes, write_csv
from util.progress import counted, duration, say

BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"  # of training
WARM_STEPS = 3  # after which the time left is estimated
LOGGED_SAMPLES = 2  # validation samples whose pictures go to TensorBoard
LOGGED_EPOCHS = 10  # how often in a run these are logged


@dataclass
class Results:
    """The results of the test."""

    rows: list[ScoreRow]  # of `metrics.csv`
    lesions: list[dict[str, Any]]  # of `lesions.csv`; none if not tested
    times: list[str]  # the time that the parts of the run took
    notes: Sequence[str] = ()  # what the verdict says before the scores
    error_maps: Sequence[dict[str, Any]] = ()  # of `error_map.csv`; none if not asked for


class Report:
    """Everything that a run tells. In all processes but the first it does nothing."""

    def __init__(self, run: Run):
        self.run, self.speaks = run, run.world.is_first
        self.facts: dict[str, list[str]] = {}  # lines by heading: data, split, mask, ...
        self.history: list[dict[str, float]] = []  # an entry for each completed epoch
        self.reference: Reference | None = None
        self.board: TensorBoard | None = None
        self.bar: tqdm | None = None
        self.seconds: list[float] | None = []  # of the first steps; None: the time left was told
        self.n_left = 0  # steps
        self.n_slow = 0  # the first of them, until all starts are made that are kept

    def add(self, heading: str, lines: Sequence[str]) -> None:
        """Take lines into the report under a heading, without printing them."""
        if lines:
            self.facts[heading] = list(lines)

    def say(self, heading: str, lines: Sequence[str]) -> None:
        """Take lines into the report under a heading, and print them."""
        self.add(heading, lines)
        if lines:
            say(f"{heading}: " + "\n  ".join(lines))

    def compare_with(self, reference: Reference | None) -> None:
        """Show the reference beside every epoch."""
        self.reference = reference
        if reference is not None:
            self.add("Reference", reference_lines(reference))
            for line in self.facts["Reference"]:
                say(line)

    # -- training, as `training.loop.Listener` has it

    def begin(self, history: list[dict[str, float]], n_done: int) -> None:
        self.history = history
        if not self.speaks:
            return
        run = self.run
        self.board = self.new_board(len(history))
        total = run.settings.num_epochs * run.n_steps
        self.bar = tqdm(
            total=total, initial=n_done, unit="step", disable=None, dynamic_ncols=True,
            bar_format=BAR,
        )  # fmt: skip
        self.n_left = total - n_done
        if run.keeps_starts and self.n_left:
            n_starts = run.settings.mask_pool * len(run.parts["train"])
            self.n_slow = math.ceil(n_starts / run.settings.batch_size)
            say(
                f"the first {counted(self.n_slow, 'step')} make and keep the starts of the masks,"
                " which is slow; the time left is told then"
            )
        if len(history) < run.settings.num_epochs:
            say(epoch_header(self.reference, self.run.validation_scores))

    def step(self, n: int, loss: float, seconds: float) -> None:
        if self.bar is None:
            return
        self.bar.set_postfix(loss=f"{loss:.2e}", refresh=False)
        self.bar.update(n)
        self.n_left, self.n_slow = self.n_left - n, self.n_slow - n
        if self.seconds is not None and self.n_slow < 0:
            self.seconds += [seconds / n] * n
            if len(self.seconds) >= min(WARM_STEPS, self.run.n_steps):
                say(time_left(self.seconds, self.n_left))
                self.seconds = None

    def n_examples(self, epoch: int) -> int:
        s = self.run.settings
        interval = s.validate_every * max(1, s.num_epochs // s.validate_every // LOGGED_EPOCHS)
        logged = epoch % interval == 0 or epoch in (s.validate_every, s.num_epochs)
        return LOGGED_SAMPLES if logged and self.speaks else 0

    def epoch(self, entry: Mapping[str, float], examples: Sequence[Example]) -> None:
        if self.board is None:
            return
        self.board.examples(int(entry["epoch"]), examples)
        self.board.curves(entry, self.reference)
        self.write()
        if examples:
            page = progress_page(self.run, self.history, self.reference, self.facts, examples)
            write_page(self.run.folder / run_folder.REPORT, page)
        say(epoch_line(entry, self.reference, self.run.validation_scores))
        if len(self.history) == self.run.settings.num_epochs:
            self.say("Network", kept_lines(self.history, self.reference))

    def close(self) -> None:
        """Close bar and logs."""
        for part in (self.bar, self.board):
            if part is not None:
                part.close()
        self.bar = self.board = None

    def new_board(self, epoch: int) -> TensorBoard:
        """The logs of TensorBoard, after `epoch`; tags and tables have the loss in words."""
        settings = vars(self.run.settings)
        loss = loss_text(settings["loss"])
        return TensorBoard(self.run.folder, {**settings, "loss": loss}, epoch)

    # -- files

    def write(self, verdict: Sequence[str] = (), results: Mapping[str, Any] | None = None) -> None:
        """`output.txt`, and its epochs as `history.csv`.

        Args:
            verdict: the results in short, which come first.
            results: further parts at the end, by heading.
        """
        if not self.speaks:
            return
        folder = self.run.folder
        text = as_text({"Verdict": verdict, **self.facts})
        if self.history:
            write_csv(folder / run_folder.HISTORY, self.history)
            columns = self.reference, self.run.validation_scores
            epochs = [epoch_line(entry, *columns) for entry in self.history]
            text += "\n".join(["", "Training", epoch_header(*columns), *epochs, ""])
        if results:
            text += "\n" + as_text(results)
        write_bytes(folder / run_folder.OUTPUT, as_bytes(text))

    def finish(self, results: Results, gallery: Gallery) -> None:
        """Write the results of the test: tables, logs, pictures, and the page at last."""
        if not self.speaks:
            return
        run, s, folder, groups = self.run, self.run.settings, self.run.folder, self.run.cine.groups
        rows, lesions = results.rows, results.lesions
        origin = [*run.cine.origin, *outside_the_training(run), *results.notes]
        helping = remedies(s, run.n_coils) if run.has_network else []
        verdict = verdict_lines(rows, groups, helping, origin)
        tables = result_tables(rows, lesions, groups, True, results.error_maps)
        parts: dict[str, Sequence[str | Table]] = {
            "Test": [*test_lines(n_samples_of(rows), self.history), *tables],
            "Time": results.times,
            "Warnings about these scores": score_notices(run.cine.quality, run.parts["test"]),
        }
        self.write(
            verdict, {**parts, "Definitions": definitions(run.test_scores), "Caveats": caveats(run)}
        )
        if lesions:
            write_csv(folder / run_folder.LESIONS, lesions)
        if results.error_maps:
            write_csv(folder / run_folder.ERROR_MAP, results.error_maps)
        run_folder.write_metrics(folder, rows)
        self.board = self.board or self.new_board(len(self.history))
        self.board.results(rows, gallery.shown, verdict, len(self.history))
        self.close()
        say(as_text({**parts, "Verdict": verdict}).rstrip())
        form = FigureForm(s.picture_format, s.picture_width, s.picture_dpi)
        if self.history:
            curves = curves_figure(self.history, self.reference, form.width)
            write_figure(folder / f"curves.{form.format}", curves, form.dpi)
        at_first = next(iter(by_condition(rows).values()))
        views = gallery.write(form, best_baseline(at_first))
        page = run_page(
            run,
            result_tables(rows, lesions, groups, error_maps=results.error_maps),
            score_line(rows, groups),
            verdict,
            training_charts(self.history, self.reference),
            {**self.facts, "Time": results.times},
            views,
        )
        write_page(folder / run_folder.REPORT, page)


def time_left(seconds: Sequence[float], n_steps: int) -> str:
    """The time of the steps that are left, from a few, the fastest and the slowest of which give
    the margin."""
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return (
        f"about {duration(middle * n_steps)} of training left ({duration(low * n_steps)} to"
        f" {duration(high * n_steps)}, by {counted(len(seconds), 'step')}), then the test"
    )
