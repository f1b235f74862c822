"""What a run leaves in its folder: text, tables, pictures, arrays and TensorBoard logs.

Files are written whole, to a temporary name first, so that a crash never leaves half of one.
Scores have one name everywhere: `train/loss`, `validation/psnr`, `test/ssim`.
"""

import contextlib
import csv
import io
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid

import figures
from errors import InputError
from metrics import SCORES, definitions, moving_region
from runtime import not_written, whole_file

CONFIG, OUTPUT, METRICS = "config.json", "output.txt", "metrics.csv"
LESIONS, HISTORY = "lesions.csv", "history.csv"
ARRAYS, TENSORBOARD = "reconstructions.npz", "tensorboard"
FILM_COLOURS = 128
FILM_MILLISECONDS = 50  # a frame: 20 frames are one heartbeat of a second
EPOCH_COLUMNS = {  # width and format
    "epoch": (5, "d"),
    "train/loss": (13, ".3e"),
    "validation/loss": (15, ".3e"),
    "validation/psnr": (15, ".3f"),
    "validation/ssim": (15, ".4f"),
    "learning_rate": (13, ".3e"),
    "seconds": (8, ".1f"),
}


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with whole_file(path) as file:
        file.write(content)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """The settings and circumstances of the run, as JSON."""
    write_bytes(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def read_config(folder: Path) -> dict[str, Any]:
    """What `write_config` wrote; InputError if it cannot be read."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        settings = dict(config["settings"])
        settings["split"]  # every run has one
        config["settings"] = {  # JSON has no tuples
            k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / CONFIG} is damaged ({error}): start a new run") from None
    return config


def write_metrics(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """`metrics.csv`, a row for each test sample and method. Written last: the run is finished."""
    write_table(folder / METRICS, rows)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as CSV, a column for every key; empty where a row has no such key."""
    text = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    table = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow(
            {
                key: f"{value:.8g}" if isinstance(value, float) else value
                for key, value in row.items()
            }
        )
    write_bytes(path, text.getvalue().encode())


def read_history(folder: Path) -> list[dict[str, float]]:
    """The rows of `history.csv`, a dict for each completed epoch; none if there is no such file."""
    return _read_numbers(folder / HISTORY)


def read_lesions(folder: Path) -> list[dict[str, Any]]:
    """The rows of `lesions.csv`, numbers but for the method; none if there is no such file."""
    return _read_numbers(folder / LESIONS)


def _read_numbers(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, all as numbers but a method's name, without empty cells."""
    try:
        with path.open(newline="") as file:
            return [
                {k: value if k == "method" else float(value) for k, value in row.items() if value}
                for row in csv.DictReader(file)
            ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): start a new run") from None


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.csv`, scores as float."""
    try:
        with (folder / METRICS).open(newline="") as file:
            rows = [
                {key: float(value) if key in SCORES else value for key, value in row.items()}
                for row in csv.DictReader(file)
            ]
        assert rows
        assert rows[0].keys() >= {"acc", "method", *SCORES}
    except (OSError, ValueError, TypeError, AssertionError):
        raise InputError(
            f"{folder / METRICS} is damaged: remove it, and --resume makes it anew"
        ) from None
    return rows


def peak_memory(history: Sequence[Mapping[str, float]]) -> float:
    """Most memory of any session of the run, in bytes; 0 where it could not be measured."""
    return max((entry.get("peak_memory", 0.0) for entry in history), default=0.0)


def mean_scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """{method: {score: mean over samples}} of the rows of `metrics.csv`."""
    methods = dict.fromkeys(row["method"] for row in rows)
    return {
        method: {
            name: float(np.mean([row[name] for row in rows if row["method"] == method]))
            for name in SCORES
        }
        for method in methods
    }


def epoch_header() -> str:
    """The names over the columns of `epoch_line`."""
    return "  ".join(f"{name:>{width}}" for name, (width, _) in EPOCH_COLUMNS.items())


def epoch_line(entry: Mapping[str, float]) -> str:
    """An epoch of the history as a line; "-" where it was not validated."""
    cells = {
        name: format(entry[name], form) if name in entry else "-"
        for name, (_, form) in EPOCH_COLUMNS.items()
    }
    return "  ".join(f"{cells[name]:>{width}}" for name, (width, _) in EPOCH_COLUMNS.items())


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
                cells.append(f"{mean_and_spread(values, 5 if name in ('loss', 'nmse') else 3):<19}")
            lines.append("  ".join(cells).rstrip())
    return lines


def mean_and_spread(values: np.ndarray, digits: int) -> str:
    """ "mean ± std" over samples, without a std for a single one; "absent" for NaN."""
    if np.isnan(values).any():
        return "absent"
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def write_output(
    folder: Path,
    facts: Mapping[str, Sequence[str]],
    history: Sequence[Mapping[str, float]],
    results: Sequence[str] = (),
    caveats: Sequence[str] = (),
) -> None:
    """`output.txt`, the report that reads on its own, and its epochs as `history.csv`.

    Args:
        facts: lines by heading: data, split, mask, model, ...
        history: a dict for each completed epoch.
        results: lines on the test set, once there are any.
        caveats: what must be known of the results.
    """
    parts = [
        f"{heading}\n" + "\n".join(f"  {line}" for line in lines)
        for heading, lines in facts.items()
    ]
    if history:
        write_table(folder / HISTORY, history)
        parts.append("\n".join(["Training", epoch_header(), *map(epoch_line, history)]))
    if results:
        meaning = [f"  {name}: {text}" for name, text in definitions().items()]
        parts += ["\n".join(results), "\n".join(["Definitions", *meaning])]
        parts.append("\n".join(["Caveats", *(f"  {line}" for line in caveats)]))
    write_bytes(folder / OUTPUT, ("\n\n".join(parts) + "\n").encode())


def write_figure(path: Path, figure: Figure, dpi: int) -> None:
    """A figure as PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    write_bytes(path, content.getvalue())


def write_pictures(
    folder: Path,
    sample: int,
    target: np.ndarray,
    reconstructions: Mapping[str, np.ndarray],
    shown: str,
    dpi: int,
) -> None:
    """The pictures of one test sample, in a folder for each kind.

    Args:
        target: (T, Y, X).
        reconstructions: (T, Y, X) by method; "zero_filled" is the aliased magnitude.
        shown: the method whose reconstruction is drawn in full.
    """
    kinds = {
        "under_sampling": (reconstructions["zero_filled"], "undersampled (zero-filled)"),
        "full_sampling": (target, "fully sampled"),
        "reconstruction": (reconstructions[shown], f"reconstruction ({shown})"),
    }
    name = f"sample_{sample:04d}.png"
    for kind, (images, title) in kinds.items():
        figure = figures.frames_figure(images, title=f"sample {sample}: {title}")
        write_figure(folder / kind / name, figure, dpi)
    error = np.abs(reconstructions[shown] - target)
    title = f"sample {sample}: |{shown} - fully sampled|"
    write_figure(folder / "error" / name, figures.error_figure(error, title), dpi)

    moving = moving_region(torch.from_numpy(target)[None])[0]  # (Y, X)
    row = int(moving.sum(dim=-1).argmax())
    profiles = {"target": target, **reconstructions}
    figure = figures.profiles_figure(
        {method: images[:, row] for method, images in profiles.items()}, target[0], row
    )
    write_figure(folder / "profiles" / name, figure, dpi)


def write_film(
    folder: Path, target: np.ndarray, aliased: np.ndarray, reconstruction: np.ndarray, shown: str
) -> None:
    """`cine.gif`: fully sampled, aliased, reconstruction and error side by side, beating."""
    panels = {"fully sampled": target, "undersampled": aliased, shown: reconstruction}
    frames = figures.cine_panels(panels, np.abs(reconstruction - target))
    # Dithering would put noise into the film, and make it larger.
    first, *others = (frame.quantize(FILM_COLOURS, dither=Image.Dither.NONE) for frame in frames)
    content = io.BytesIO()
    first.save(
        content, "GIF", save_all=True, append_images=others, duration=FILM_MILLISECONDS, loop=0
    )
    write_bytes(folder / "cine.gif", content.getvalue())


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """`reconstructions.npz`: index, target, aliased and reconstruction of the test samples."""
    with whole_file(folder / ARRAYS) as file:
        np.savez(file, allow_pickle=False, **arrays)


class TensorBoard:
    """Scalars by epoch, a few validation samples as pictures, and the settings as a table."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], epoch: int):
        """Log into `folder`; what was logged after `epoch` is dropped, so that a run can go on."""
        self.path = folder / TENSORBOARD
        new = not self.path.exists()
        if not new:
            # Files are read in the order of the second in their names, then of the process.
            time.sleep(1 - time.time() % 1)
        with self.explained():
            self.writer = SummaryWriter(str(self.path), purge_step=epoch + 1)
            if new:
                table = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
                self.writer.add_text("settings", f"| setting | value |\n|---|---|\n{table}")

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn a full disk into an InputError."""
        try:
            yield
        except OSError as error:
            raise InputError(not_written(self.path, error)) from None

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        """Log each finite value under its name."""
        with self.explained():
            for name, value in values.items():
                if math.isfinite(value):
                    self.writer.add_scalar(name, value, epoch)
            self.writer.flush()

    def images(self, epoch: int, name: str, panels: Sequence[Tensor]) -> None:
        """Panels (Y, X) side by side, all on the window of the data."""
        grid = make_grid([panel.cpu()[None] for panel in panels], nrow=len(panels), pad_value=1)
        with self.explained():
            self.writer.add_image(name, grid.clamp(*figures.WINDOW), epoch)

    def close(self) -> None:
        with self.explained():
            self.writer.close()
