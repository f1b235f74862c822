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
    """Pictures and arrays of the test part, for one method; the profiles show further methods.

    Args:
        shown: the method whose reconstructions are drawn and stored.
        methods: all methods of the test.
        num_pictures: samples to draw.
        dpi: pixels per inch.
    """

    def __init__(
        self,
        folder: Path,
        shown: str,
        methods: Mapping[str, Method],
        num_pictures: int,
        dpi: int,
    ):
        self.folder, self.shown, self.methods = folder, shown, methods
        self.num_pictures, self.dpi = num_pictures, dpi
        self.n_drawn = 0
        self.arrays: dict[str, list[np.ndarray]] = {
            "index": [], "target": [], "aliased": [], "reconstruction": []
        }  # fmt: skip

    @torch.no_grad()
    def add(self, scored: Scored) -> None:
        """Collect the arrays of a batch, and draw its samples until there are enough pictures.

        Reconstructions that are not in `scored`, because their scores were cached, are computed.
        """
        batch, images = scored.batch, scored.images

        def made_by(name: str, n: int) -> np.ndarray:
            if name in images:
                return images[name][:n].cpu().numpy()
            return self.methods[name](batch.aliased[:n], batch.mask[:n]).abs().cpu().numpy()

        target = batch.target.cpu().numpy()
        shown = made_by(self.shown, len(batch.samples))
        if not self.arrays["target"]:  # the film shows the first sample
            aliased = batch.aliased[0].abs().cpu().numpy()
            write_film(self.folder, target[0], aliased, shown[0], self.shown)
            lines = batch.mask[0, :, :, 0].cpu().numpy()
            figure = figures.mask_figure(lines, nx=target.shape[-1])
            write_figure(self.folder / "mask.png", figure, self.dpi)
        to_draw = batch.samples[: max(0, self.num_pictures - self.n_drawn)]
        others = [name for name in BESIDE if name in self.methods and name != self.shown]
        pictured = {name: made_by(name, len(to_draw)) for name in others if to_draw}
        pictured["zero_filled"] = batch.aliased.abs().cpu().numpy()
        for i, sample in enumerate(to_draw):
            series = {self.shown: shown[i], **{name: array[i] for name, array in pictured.items()}}
            write_pictures(self.folder, sample, target[i], series, self.shown, self.dpi)
        self.n_drawn += len(to_draw)
        self.arrays["index"].append(np.array(batch.samples))
        self.arrays["target"].append(target)
        self.arrays["aliased"].append(batch.aliased.cpu().numpy())
        self.arrays["reconstruction"].append(shown)

    def close(self) -> None:
        """Write the arrays."""
        write_arrays(self.folder, {k: np.concatenate(pieces) for k, pieces in self.arrays.items()})
