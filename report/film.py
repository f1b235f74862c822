"""The frames of a film of images, the heart and its errors, as GIF has them: with one palette."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evaluation.heart_view import HeartView
from report.figures import ERROR_CMAP, error_scale
from report.names import in_words
from util.plotting import matplotlib

CAPTION, PANEL = 32, 256  # pixels above a panel, and of its width and height; films need 16 n
LETTERS = 18  # pixels
N_GRAYS = 128  # of the palette of a film; the rest are colours of the error


def film_frames(
    series: Mapping[str, np.ndarray], view: HeartView, compared: bool = True
) -> list[Image.Image]:
    """The frames of a film: whole images, the heart, and its errors, a column for each method.

    All frames have one palette, half grays and half the colours of the error, so that gray is
    gray. `series` and `view` as for `heart_figure`; not `compared`: the first is no truth, and
    there are no errors.
    """
    names, n_frames = list(series), len(next(iter(series.values())))
    truth, scale = view.crop(series[names[0]]), error_scale(series, view) if compared else 1.0
    n_rows = 3 if compared else 2
    height = (PANEL + CAPTION) * n_rows + (0 if compared else CAPTION)
    low, high = view.window
    panels: list[tuple[int, int, np.ndarray]] = []  # left, top, and levels (T, Y, X)
    captions = Image.new("L", (PANEL * len(names), height))
    for i, (name, images) in enumerate(series.items()):
        heart, left = view.crop(images), i * PANEL
        rows = {
            in_words(name): _levels(images),
            "heart": _levels((heart - low) / (high - low)),
            f"error, 0 to {scale:g}": N_GRAYS + _levels(np.abs(heart - truth) / scale),
        }
        n_shown = min(n_rows, 2 if i == 0 else 3)  # the truth has no error
        for row, (caption, levels) in enumerate(list(rows.items())[:n_shown]):
            top = row * (PANEL + CAPTION)
            _write(captions, caption, left, top)
            panels.append((left, top + CAPTION, levels))
    frames = []
    for t in range(n_frames):
        film = captions.copy()
        last = view.moment(n_frames - 1).removeprefix("frame ")
        _write(film, f"{view.moment(t)} of {last}", 0, 2 * (PANEL + CAPTION))
        for left, top, levels in panels:
            film.paste(_enlarged(levels[t], view.aspect), (left, top))
        film.putpalette(palette(N_GRAYS))
        frames.append(film)
    return frames


def _write(film: Image.Image, text: str, left: int, top: int) -> None:
    """A caption in white, with the grays of the palette at its edges."""
    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", LETTERS)
    ImageDraw.Draw(film).text((left + 5, top + 5), text, fill=N_GRAYS - 1, font=font)


def _levels(images: np.ndarray) -> np.ndarray:
    """Images in [0, 1] as uint8 indices of one half of the palette."""
    return np.round((N_GRAYS - 1) * np.clip(images, 0, 1)).astype(np.uint8)


def _enlarged(levels: np.ndarray, aspect: float) -> Image.Image:
    """Palette indices (Y, X), interpolated to fit into a panel; one half of the palette only.
    `aspect`: the height of a pixel over its width."""
    base = N_GRAYS * (levels.max() >= N_GRAYS)
    image = Image.fromarray((levels - base).astype(np.uint8))
    height, width = levels.shape[0] * aspect, levels.shape[1]
    size = [max(1, round(PANEL * n / max(height, width))) for n in (width, height)]
    resized = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
    panel = np.full((PANEL, PANEL), base, np.uint8)
    top, left = (PANEL - size[1]) // 2, (PANEL - size[0]) // 2
    panel[top : top + size[1], left : left + size[0]] += np.minimum(resized, N_GRAYS - 1)
    return Image.fromarray(panel)


def palette(n_grays: int) -> list[int]:
    """256 colours: grays, then those of the error."""
    grays = np.linspace(0, 255, n_grays)[:, None].repeat(3, axis=1)
    colours = matplotlib.colormaps[ERROR_CMAP](np.linspace(0, 1, 256 - n_grays), bytes=True)
    return np.concatenate([grays, colours[:, :3]]).round().astype(int).ravel().tolist()
