"""Pictures, film and arrays of the test part, written into the folder of a run."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from evaluation.scoring import Scored
from methods.baselines import Method
from metrics import moving_region
from report import figures
from training.run_folder import ARRAYS
from util.files import whole_file, write_bytes

BESIDE = ("view_sharing", "kt_sparse", "low_rank_sparse")  # baselines whose profiles are shown
FILM_COLOURS = 128
FILM_MILLISECONDS = 50  # per frame: 20 frames are one heartbeat of a second


@figures.default_style
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
        shown: the method whose reconstruction and error are drawn.
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
    """`cine.gif`: fully sampled, aliased, reconstruction and error side by side, in a loop."""
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
        np.savez(file, **arrays)  # type: ignore[arg-type]


class Gallery:
    """Pictures and arrays of the test part, for one method; the profiles show others beside it.

    `add` collects while the methods are scored, `write` draws when the scores are on disk.
    """

    def __init__(self, shown: str, methods: Mapping[str, Method], num_pictures: int):
        """
        Args:
            shown: the method of which all frames are drawn and kept.
            methods: all methods of the test.
            num_pictures: samples to draw.
        """
        self.shown, self.methods, self.num_pictures = shown, methods, num_pictures
        self.drawn: dict[int, dict[str, np.ndarray]] = {}  # reconstructions of a sample by method
        self.lines: np.ndarray | None = None  # (T, Y) mask of the first sample
        self.arrays: dict[str, list[np.ndarray]] = {
            "index": [], "target": [], "aliased": [], "reconstruction": []
        }  # fmt: skip

    @torch.no_grad()
    def add(self, scored: Scored) -> None:
        """Collect the arrays of a batch.

        Reconstructions that `scored` lacks, because their scores were cached, are made here.
        """
        batch, images = scored.batch, scored.images

        def made_by(name: str, n: int) -> np.ndarray:
            if name in images:
                return images[name][:n].cpu().numpy()
            return self.methods[name](batch.aliased[:n], batch.mask[:n]).abs().cpu().numpy()

        shown = made_by(self.shown, len(batch.samples))
        aliased = batch.aliased.cpu().numpy()
        if self.lines is None:
            self.lines = batch.mask[0, :, :, 0].cpu().numpy()
        to_draw = batch.samples[: max(0, self.num_pictures - len(self.drawn))]
        beside = [name for name in BESIDE if name in self.methods and name != self.shown]
        series = {name: made_by(name, len(to_draw)) for name in beside if to_draw}
        series = {self.shown: shown, **series, "zero_filled": np.abs(aliased)}
        for i, sample in enumerate(to_draw):
            self.drawn[sample] = {name: array[i] for name, array in series.items()}
        self.arrays["index"].append(np.array(batch.samples))
        self.arrays["target"].append(batch.target.cpu().numpy())
        self.arrays["aliased"].append(aliased)
        self.arrays["reconstruction"].append(shown)

    def write(self, folder: Path, dpi: int) -> None:
        """Write the arrays, then film, mask and pictures at `dpi` pixels an inch."""
        arrays = {name: np.concatenate(pieces) for name, pieces in self.arrays.items()}
        write_arrays(folder, arrays)
        target, aliased = arrays["target"], np.abs(arrays["aliased"][0])
        write_film(folder, target[0], aliased, arrays["reconstruction"][0], self.shown)
        assert self.lines is not None
        figure = figures.mask_figure(self.lines, nx=target.shape[-1])
        write_figure(folder / "mask.png", figure, dpi)
        for i, (sample, series) in enumerate(self.drawn.items()):
            write_pictures(folder, sample, target[i], series, self.shown, dpi)
