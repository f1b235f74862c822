"""Pictures, film and arrays of the test part, written into the folder of a run."""

import io
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.batches import Batch
from data.stored import GrowingArrays
from evaluation.heart_view import HeartView
from evaluation.scoring import Scored
from evaluation.series_view import SeriesView, view_series
from methods.baselines import BASELINES, Method
from metrics import moving_region
from report import figures
from report.film import film_frames
from training.run_folder import ARRAYS
from util.files import write_bytes
from util.plotting import Figure

ALSO_SHOWN = ("view_sharing", "kt_sparse", "patch_low_rank")  # baselines whose profiles are shown
BEST = "best training-free method"
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
    folder: Path, series: Mapping[str, np.ndarray], view: HeartView, compared: bool = True
) -> None:
    """`cine.gif`: whole images, the heart and its errors, beating; the first of `series` (T, Y, X)
    is the truth, if they are `compared`."""
    first, *others = film_frames(series, view, compared)
    content = io.BytesIO()
    first.save(
        content, "GIF", save_all=True, append_images=others, duration=FILM_MILLISECONDS, loop=0
    )
    write_bytes(folder / "cine.gif", content.getvalue())


class Gallery:
    """Pictures and arrays of the test part, for one method; others are shown beside it.

    `add` collects while the methods are scored, arrays on disk; `write` draws when the scores are
    on disk. `reconstructions.npz` has index, target, mask, aliased and reconstruction of the test
    samples; no aliased images if they are to be small.
    """

    def __init__(
        self,
        folder: Path,
        shown: str,
        methods: Mapping[str, Method],
        num_pictures: int,
        arrays: str,
        n_samples: int,
    ):
        """
        Args:
            folder: of the run.
            shown: the method of which all frames are drawn and kept.
            methods: all methods of the test.
            num_pictures: samples to draw.
            arrays: which arrays of all samples to keep: "all", "small" or "none".
            n_samples: of the test part.
        """
        self.folder = folder
        self.shown, self.methods, self.num_pictures = shown, methods, num_pictures
        self.drawn: list[tuple[Batch, dict[str, Tensor]]] = []  # a sample, and what is known of it
        self.kept = arrays
        self.arrays = GrowingArrays(folder / ARRAYS, n_samples)

    @torch.no_grad()
    def add(self, scored: Scored) -> None:
        """Collect the arrays of a batch."""
        batch, images = scored.batch, scored.images
        n_left = max(1, self.num_pictures) - len(self.drawn)  # the film needs one
        if self.kept == "none" and not n_left:
            return
        shown = images.get(self.shown)
        if shown is None:  # its scores were cached
            shown = self.methods[self.shown](*batch.measured).abs()
        for i in range(len(batch.samples[:n_left])):
            one = {name: array[i : i + 1] for name, array in images.items()}
            self.drawn.append((batch.sample(i), one | {self.shown: shown[i : i + 1]}))
        if self.kept == "none":
            return
        known = {
            "index": torch.tensor(batch.samples),
            "target": batch.target,
            "mask": batch.mask[..., 0].to(torch.uint8),
            "aliased": batch.combined,
            "reconstruction": shown,
        }
        if self.kept == "small":
            known |= {name: known[name].half() for name in ("target", "reconstruction")}
            del known["aliased"]  # of images of one coil, target and mask give it
        if batch.maps is not None:
            known["maps"] = batch.maps
        self.arrays.add({name: array.cpu().numpy() for name, array in known.items()})

    @torch.no_grad()
    def write(self, dpi: int, best: str | None) -> dict[int, SeriesView]:
        """Write the arrays, then film, mask and pictures at `dpi` pixels per inch.

        Returns what was drawn, by sample, for the report.

        `best`: the training-free method to show beside; None: there is none.
        """
        views: dict[int, SeriesView] = {}
        folder = self.folder
        self.arrays.close()
        first = self.drawn[0][0]
        lines, nx = first.mask[0, ..., 0].cpu().numpy().astype(np.uint8), first.target.shape[-1]
        write_figure(folder / "mask.png", figures.mask_figure(lines, nx), dpi)
        if first.maps is not None:
            write_figure(folder / "maps.png", figures.maps_figure(first.maps[0].cpu().numpy()), dpi)
        names = [best, *ALSO_SHOWN] if best else list(ALSO_SHOWN)
        beside = [name for name in names if name in self.methods and name != self.shown]
        for number, (batch, images) in enumerate(self.drawn):
            target = batch.target[0].cpu()
            made = {"zero_filled": batch.combined[0].abs().cpu().numpy()}
            pictured = number < self.num_pictures  # else it is for the film alone
            for name in dict.fromkeys([*(beside if pictured else beside[:1]), self.shown]):
                if name not in images:
                    images[name] = self.methods[name](*batch.measured).abs()
                made[name] = images[name][0].cpu().numpy()
            chosen = dict.fromkeys(("zero_filled", *beside[:1], self.shown))
            series = {"truth": target.numpy(), **{name: made[name] for name in chosen}}
            sample = batch.samples[0]
            view = view_series(f"test sample {sample}", series, self.roles(series, best), "truth")
            if number == 0:
                write_film(folder, series, view.heart)
            if pictured:
                views[sample] = view
                figure = figures.heart_figure(series, view.heart, f"sample {sample}")
                write_figure(folder / "heart" / f"sample_{sample:04d}.png", figure, dpi)
                write_pictures(folder, sample, target.numpy(), made, self.shown, dpi)
        return views

    def roles(self, names: Collection[str], best: str | None) -> dict[str, str]:
        """What each of the series shown is, in a few words."""
        known = {"truth": "fully sampled", "zero_filled": "undersampled", best: BEST}
        return {
            name: known.get(name, "training-free method" if name in BASELINES else "network")
            for name in names
        }
