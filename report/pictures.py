"""Pictures, film and arrays of the test part, written into the folder of a run."""

import io
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.batches import Batch
from data.stored import GrowingArrays
from evaluation.error_map import ErrorMap
from evaluation.heart_view import HeartView
from evaluation.scoring import Scored
from evaluation.series_view import ErrorView, SeriesView, view_errors, view_series
from methods.baselines import BASELINES, Method
from metrics import moving_region
from report import figures
from report.film import film_frames, palette
from report.names import GROUND_TRUTH, in_words
from training.run_folder import ARRAYS
from util.errors import InputError
from util.files import not_written, whole_file, write_bytes
from util.plotting import AxesImage, Figure
from util.progress import say

ALSO_SHOWN = ("view_sharing", "kt_sparse", "patch_low_rank")  # baselines whose profiles are shown
BEST = "best training-free method"
FILM_MILLISECONDS = 50  # per frame: 20 frames are one heartbeat of a second
N_GRAYS = 32  # colours of an error picture that are grays
ERROR_MAPS = "error_map"  # folder
MP4_BEATS = 5  # as it does not begin again by itself
UNDATED = {  # metadata by format: without what differs from time to time
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}


@dataclass(frozen=True)
class FigureForm:
    """How figures are written."""

    format: str  # "png", "pdf" or "svg"
    width: float  # inches
    dpi: int  # pixels per inch of "png"


@figures.default_style
def write_figure(path: Path, figure: Figure, dpi: int, of_errors: bool = False) -> None:
    """A figure as a file of the format that the name ends with; images in PDF and SVG keep their
    own pixels. A PNG `of_errors` has 256 colours, those of errors and grays: a third of the
    bytes."""
    if path.suffix != ".png":
        for image in figure.findobj(AxesImage):
            image.set_interpolation("none")
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], dpi=dpi, metadata=UNDATED[path.suffix])
    if of_errors and path.suffix == ".png":
        colours = Image.new("P", (1, 1))
        colours.putpalette(palette(N_GRAYS))
        picture = Image.open(content).convert("RGB")
        picture = picture.quantize(palette=colours, dither=Image.Dither.NONE)
        content = io.BytesIO()
        picture.save(content, "PNG", optimize=True, dpi=(dpi, dpi))
    write_bytes(path, content.getvalue())


def write_pictures(
    folder: Path,
    sample: int,
    target: np.ndarray | None,
    reconstructions: Mapping[str, np.ndarray],
    shown: str,
    form: FigureForm,
) -> None:
    """The pictures of one test sample, in a folder for each kind; those of all frames are PNG.

    Args:
        target: (T, Y, X); None: the truth is not known, and there are no errors and profiles.
        reconstructions: (T, Y, X) by method; "zero_filled" is the aliased magnitude.
        shown: the method whose reconstruction and error are drawn.
    """
    kinds = {
        "under_sampling": (reconstructions["zero_filled"], in_words("zero_filled")),
        "reconstruction": (reconstructions[shown], in_words(shown)),
    }
    if target is not None:
        kinds["full_sampling"] = target, GROUND_TRUTH
    name = f"sample_{sample:04d}"
    for kind, (images, title) in kinds.items():
        figure = figures.frames_figure(images, title=f"sample {sample}: {title}")
        write_figure(folder / kind / f"{name}.png", figure, form.dpi)
    if target is None:
        return
    error = np.abs(reconstructions[shown] - target)
    title = f"sample {sample}: error |{in_words(shown)} - {GROUND_TRUTH}|"
    figure = figures.error_figure(error, title)
    write_figure(folder / "error" / f"{name}.png", figure, form.dpi, of_errors=True)

    moving = moving_region(torch.from_numpy(target)[None])[0]  # (Y, X)
    row, column = (int(moving.sum(dim=d).argmax()) for d in (-1, -2))
    series = {GROUND_TRUTH: target, **reconstructions}
    figure = figures.profiles_figure(series, row, column, form.width)
    write_figure(folder / "profiles" / f"{name}.{form.format}", figure, form.dpi)


def write_film(
    folder: Path, series: Mapping[str, np.ndarray], view: HeartView, compared: bool = True
) -> None:
    """`cine.gif`: whole images, the heart and its errors, beating; the first of `series` (T, Y, X)
    is the truth, if they are `compared`. The same as `cine.mp4`, if `imageio_ffmpeg` is there."""
    first, *others = frames = film_frames(series, view, compared)
    content = io.BytesIO()
    first.save(
        content, "GIF", save_all=True, append_images=others, duration=FILM_MILLISECONDS, loop=0
    )
    write_bytes(folder / "cine.gif", content.getvalue())
    write_mp4(folder / "cine.mp4", frames)


def write_mp4(path: Path, frames: Sequence[Image.Image]) -> None:
    """Some beats of a film as MP4; nothing without `imageio_ffmpeg`."""
    try:
        import imageio_ffmpeg  # only here, because it is optional
    except ImportError:
        return
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / path.name
        try:
            writer = imageio_ffmpeg.write_frames(
                str(film), frames[0].size, fps=1000 / FILM_MILLISECONDS, quality=8
            )
            writer.send(None)  # it begins
            for frame in MP4_BEATS * list(frames):
                writer.send(frame.convert("RGB").tobytes())
            writer.close()
            content = film.read_bytes()
        except (OSError, RuntimeError) as error:
            say(f"NOTICE: {path} was not made: {error}")
            return
    write_bytes(path, content)


class Gallery:
    """Pictures and arrays of the test part, for one method; others are shown beside it.

    `add` collects while the methods are scored, arrays on disk; `write` draws when the scores are
    on disk. `reconstructions.npz` has index, target, mask, aliased and reconstruction of the test
    samples; no aliased images if they are to be small, no target if it is not known. Error maps are
    in files of their own, `error_map/sample_0007.npz`, of all samples or, without arrays, of those
    that are drawn.
    """

    def __init__(
        self,
        folder: Path,
        shown: str,
        methods: Mapping[str, Method],
        num_pictures: int,
        arrays: str,
        n_samples: int,
        role: str = "network",
        beside: Sequence[str] = ALSO_SHOWN,
    ):
        """
        Args:
            folder: of the run.
            shown: the method of which all frames are drawn and kept.
            methods: all methods of the test.
            num_pictures: samples to draw.
            arrays: which arrays of all samples to keep: "all", "small" or "none".
            n_samples: of the test part.
            role: what it is that is neither the truth nor training-free, in a word.
            beside: methods that are shown beside, if they are there, and the best training-free.
        """
        self.folder = folder
        self.shown, self.methods, self.num_pictures = shown, methods, num_pictures
        self.drawn: list[tuple[Batch, dict[str, Tensor]]] = []  # a sample, and what is known of it
        self.kept = arrays
        self.arrays = GrowingArrays(folder / ARRAYS, n_samples)
        self.role, self.beside = role, beside

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
            "mask": batch.mask[..., 0].to(torch.uint8),
            "aliased": batch.combined,
            "reconstruction": shown,
        }
        if batch.image is not None:
            known["target"] = batch.target
        if self.kept == "small":
            known |= {k: known[k].half() for k in ("target", "reconstruction") if k in known}
            del known["aliased"]  # of images of one coil, target and mask give it
        if batch.maps is not None:
            known["maps"] = batch.maps
        self.arrays.add({name: array.cpu().numpy() for name, array in known.items()})

    def lacks_error_map(self, sample: int) -> bool:
        """Whether there is no file yet of an error map that is kept."""
        return self.keeps_error_map(sample) and not self.error_map_file(sample).exists()

    def keeps_error_map(self, sample: int) -> bool:
        """Whether the error map of a sample is kept."""
        return self.kept != "none" or any(batch.samples == [sample] for batch, _ in self.drawn)

    def error_map_file(self, sample: int) -> Path:
        """The file of an error map."""
        return self.folder / ERROR_MAPS / f"sample_{sample:04d}.npz"

    def add_error_map(self, sample: int, found: ErrorMap) -> None:
        """Write the error map of a sample, if it is kept.

        Raises:
            InputError: it could not be written.
        """
        if not self.keeps_error_map(sample):
            return
        path = self.error_map_file(sample)
        try:
            path.parent.mkdir(exist_ok=True)
            with whole_file(path) as file:
                np.savez(
                    file,
                    expected_error=found.expected.numpy(),
                    error_bound=found.bound.numpy(),
                    factor=found.factor,
                    seconds=found.seconds,
                )
        except OSError as error:
            raise InputError(not_written(path, error)) from None

    def error_view(
        self, sample: int, images: Tensor, target: np.ndarray | None
    ) -> ErrorView | None:
        """The error map of images (T, Y, X) as they are shown; None: there is none."""
        path = self.error_map_file(sample)
        if not path.exists():
            return None
        with np.load(path) as stored:
            expected = stored["expected_error"]
            numbers = stored["factor"].item(), stored["seconds"].item()
        found = ErrorMap(torch.from_numpy(expected), *numbers)
        view = view_errors(found, images, None if target is None else torch.from_numpy(target))
        return replace(view, expected=expected)  # as the images are

    @torch.no_grad()
    def write(self, form: FigureForm, best: str | None) -> dict[int, SeriesView]:
        """Write the arrays, then film, mask and pictures.

        Returns what was drawn, by sample, for the report.

        `best`: the training-free method to show beside; None: there is none.
        """
        views: dict[int, SeriesView] = {}
        folder = self.folder
        self.arrays.close()
        first = self.drawn[0][0]
        lines, nx = first.mask[0, ..., 0].cpu().numpy().astype(np.uint8), first.aliased.shape[-1]
        drawn = {"mask": figures.mask_figure(lines, nx, form.width)}
        if first.maps is not None:
            drawn["maps"] = figures.maps_figure(first.maps[0].cpu().numpy(), form.width)
        for name, figure in drawn.items():
            write_figure(folder / f"{name}.{form.format}", figure, form.dpi)
        names = dict.fromkeys([best, *self.beside] if best else self.beside)
        there = {*self.methods, *self.drawn[0][1]}
        beside = [name for name in names if name in there and name != self.shown]
        for number, (batch, images) in enumerate(self.drawn):
            target = None if batch.image is None else batch.target[0].cpu().numpy()
            made = {"zero_filled": batch.combined[0].abs().cpu().numpy()}
            pictured = number < self.num_pictures  # else it is for the film alone
            for name in dict.fromkeys([*(beside if pictured else beside[:1]), self.shown]):
                if name not in images:
                    images[name] = self.methods[name](*batch.measured).abs()
                made[name] = images[name][0].cpu().numpy()
            chosen = dict.fromkeys(("zero_filled", *beside[:1], self.shown))
            series = {name: made[name] for name in chosen}
            if target is not None:
                series = {GROUND_TRUTH: target, **series}
            sample, compared = batch.samples[0], target is not None
            roles, truth = self.roles(series, best), GROUND_TRUTH if compared else None
            errors = self.error_view(sample, images[self.shown][0].cpu(), target)
            view = view_series(f"test sample {sample}", series, roles, truth, errors=errors)
            if number == 0:
                write_film(folder, series, view.heart, compared)
            if pictured:
                views[sample] = view
                title = f"sample {sample}"
                figure = figures.heart_figure(series, view.heart, title, form.width, compared)
                path = folder / "heart" / f"sample_{sample:04d}.{form.format}"
                write_figure(path, figure, form.dpi)
                write_pictures(folder, sample, target, made, self.shown, form)
        return views

    def roles(self, names: Collection[str], best: str | None) -> dict[str, str]:
        """What each of the series shown is, in a few words."""
        known = {GROUND_TRUTH: "fully sampled", "zero_filled": "undersampled", best: BEST}
        return {
            name: known.get(name, "training-free method" if name in BASELINES else self.role)
            for name in names
        }
