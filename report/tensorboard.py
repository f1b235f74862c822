"""TensorBoard logs of a run: curves by epoch, pictures of validation samples, settings, results.

A run has the name of its folder in TensorBoard, which draws a line for each run in the chart of a
tag. Further lines therefore are runs beside it: `name-train` with the training loss, and for
instance `name-kt_sparse` with the best training-free method. Capitals sort first, and so the group
`Validation` does. `name` alone has hyperparameters: their table lists the settings that differ
first, because no description of the experiment, which would fix its columns, is written.
"""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from evaluation.bench import Reference
from evaluation.heart_view import find_heart
from evaluation.scoring import Example
from evaluation.summary import Rows, mean_scores, scores_in
from metrics import psnr
from model import MODELS, architecture_settings
from report.figures import default_style
from report.names import GROUND_TRUTH, in_words
from report.tables import Table, score_tables
from report.training_figures import progress_figure
from training.run_folder import TENSORBOARD, of_the_run
from util.errors import InputError
from util.files import as_bytes, not_written
from util.plotting import Figure, FigureCanvasAgg

NOT_HYPERPARAMETERS = (
    "baselines",
    "error_map",
    "lesions",
    "num_pictures",
    "picture_dpi",
    "picture_format",
    "picture_width",
)  # without effect on scores


class TensorBoard:
    """The logs in a run's folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], epoch: int):
        """Log into `folder`; drop entries after `epoch`, so that a run can be continued.

        Logs that are there are continued, whatever the folder was called when they began.
        """
        self.root = folder / TENSORBOARD
        there = [path.parent for path in self.root.rglob("events.*")]
        there.sort(key=lambda path: (len(path.parts), path.name))  # the run before those beside it
        self.path = there[0] if there else self.root / setting_text(folder.resolve().name)
        self.settings, self.epoch = settings, epoch
        self.writers: dict[str, SummaryWriter] = {}
        if there:
            # Readers order files by the second and process in their names: await the next second.
            time.sleep(1 - time.time() % 1)
            return
        rows = [[name, setting_text(value)] for name, value in settings.items()]
        with self.explained():
            writer = self.writer()
            writer.add_text("settings", "\n".join(Table(["setting", "value"], rows).markdown()))
            _, start, _ = hparams(hyperparameters(settings), {})
            writer.file_writer.add_summary(start)  # type: ignore[attr-defined]
            writer.flush()

    def writer(self, name: str = "") -> SummaryWriter:
        """The writer of the run, or of the run `name` beside it."""
        if name not in self.writers:
            path = self.root / f"{self.path.name}-{name}" if name else self.path
            self.writers[name] = SummaryWriter(str(path), purge_step=self.epoch + 1)
        return self.writers[name]

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn a full disk into an InputError."""
        try:
            yield
        except OSError as error:
            raise InputError(not_written(self.path, error)) from None

    def scalars(self, values: Mapping[str, float], epoch: int, name: str = "") -> None:
        """Log each finite value under its tag, for the run or for the run `name` beside it."""
        with self.explained():
            writer = self.writer(name)
            for tag, value in values.items():
                if math.isfinite(value):
                    writer.add_scalar(tag, value, epoch)
            writer.flush()

    def curves(self, entry: Mapping[str, float], reference: Reference | None) -> None:
        """Log an epoch.

        Args:
            entry: of the history.
            reference: the best training-free method and its PSNR on the validation part.
        """
        epoch, mse = int(entry["epoch"]), self.settings["loss"] == "mse"
        values = {
            name.replace("validation/", "Validation/"): value
            for name, value in entry.items()
            if name.startswith("validation/")
        } | {
            "training/learning_rate": entry["learning_rate"],
            "training/seconds": entry["seconds"],
            "training/peak_memory_GB": entry["peak_memory"] / 1e9,
        }
        if not mse:  # of another size than the loss of the validation
            values[f"training/loss_{self.settings['loss']}"] = entry["train/loss"]
        self.scalars(values, epoch)
        if mse:
            self.scalars({"Validation/loss": entry["train/loss"]}, epoch, "train")
        if reference:
            name = reference.column.replace("validation/", "Validation/")
            self.scalars({name: reference.value}, epoch, reference.method)

    def examples(self, epoch: int, examples: Sequence[Example]) -> None:
        """The heart in some validation samples, as it is reconstructed after `epoch`."""
        for example in examples:
            target, aliased, reconstruction = (
                None if images is None else images.cpu()
                for images in (example.target, example.aliased, example.reconstruction)
            )
            assert aliased is not None
            assert reconstruction is not None
            series = {in_words("zero_filled"): aliased, "network": reconstruction}
            if target is not None:
                scores = {k: psnr(images, target).item() for k, images in series.items()}
                series = {f"{k}\n{scores[k]:.2f} dB": images for k, images in series.items()}
                series = {GROUND_TRUTH: target, **series}
            figure = progress_figure(
                {name: images.numpy() for name, images in series.items()},
                find_heart(reconstruction if target is None else target),
                f"validation sample {example.sample}, epoch {epoch}",
                compared=target is not None,
            )
            with self.explained():
                tag = f"Validation_pictures/sample_{example.sample:04d}"
                self.writer().add_image(tag, rendered(figure), epoch, dataformats="HWC")

    def results(self, rows: Rows, shown: str, verdict: Sequence[str], epoch: int) -> None:
        """The results of the test: verdict and scores as text, a few scores as numbers.

        Args:
            rows: of `metrics.csv`.
            shown: the method whose scores are logged as numbers.
            verdict: the results in short, one per line.
        """
        means = mean_scores(rows)[shown]
        known = scores_in(rows)
        logged = [name for name, score in known.items() if score.logged and score.compared]
        self.scalars({f"test/{name}": means[name] for name in logged}, epoch)
        lines = [f"- {line}" for line in verdict]
        for table in score_tables(rows, list(known), differences=False):
            lines += ["", *table.markdown(), "", table.note]
        text = "\n".join(lines)
        with self.explained():
            self.writer().add_text("results", text, epoch)
            _, _, end = hparams({}, {})
            self.writer().file_writer.add_summary(end)  # type: ignore[attr-defined]

    def close(self) -> None:
        with self.explained():
            for writer in self.writers.values():
                writer.close()


def hyperparameters(settings: Mapping[str, Any]) -> dict[str, float | str]:
    """The settings that the scores of a network depend on, as numbers or text."""
    of_models = {name for model in MODELS for name in architecture_settings(model)}
    unused = {*NOT_HYPERPARAMETERS, *of_models} - {*architecture_settings(settings["model"])}
    return {
        name: value if type(value) in (int, float) else setting_text(value)
        for name, value in of_the_run(settings).items()
        if name not in unused
    }


def setting_text(value: Any) -> str:
    """A setting as it is given as a flag; file names that are not text are escaped."""
    words = value if isinstance(value, tuple) else (value,)
    text = " ".join("none" if word is None else str(word) for word in words) or "none"
    return as_bytes(text).decode()


@default_style
def rendered(figure: Figure) -> np.ndarray:
    """A figure as (Y, X, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
