"""The frames of a film of images, the heart and its errors, as GIF has them: with one palette."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from evaluation.heart_view import HeartView
from report.figures import ERROR_CMAP, error_scale
from util.plotting import matplotlib

CAPTION, PANEL = 14, 128  # pixels of a film: above a panel, and its width and height
N_GRAYS = 128  # of the palette of a film; the rest are colours of the error


def film_frames(
    series: Mapping[str, np.ndarray], view: HeartView, compared: bool = True
) -> list[Image.Image]:
    """The frames of a film: whole images, the heart, and its errors, a column for each method.

    All frames have one palette, half grays and half the colours of the error, so that gray is
    gray. `series` and `view` as for `heart_figure`; not `compared`: the first is no truth, and
    there are no errors.
    """
    names = list(series)
    truth, scale = view.crop(series[names[0]]), error_scale(series, view) if compared else 1.0
    n_rows = 3 if compared else 2
    height = (PANEL + CAPTION) * n_rows + (0 if compared else CAPTION)
    low, high = view.window
    columns = []
    for name, images in series.items():
        heart = view.crop(images)
        error = np.abs(heart - truth) / scale
        columns.append(
            [
                _levels(images),
                _levels((heart - low) / (high - low)),
                _levels(error) + N_GRAYS if name != names[0] else None,
            ][:n_rows]
        )
    frames = []
    for t in range(len(truth)):
        film = Image.new("P", (PANEL * len(names), height))
        film.putpalette(_palette())
        draw = ImageDraw.Draw(film)
        for i, (name, panels) in enumerate(zip(names, columns, strict=True)):
            captions = [name, "heart", f"error, 0 to {scale:.2g}"][:n_rows]
            for row, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
                corner = i * PANEL, row * (PANEL + CAPTION)
                if panel is not None:
                    place = (corner[0], corner[1] + CAPTION)
                    film.paste(_enlarged(panel[t], view.aspect), place)
                    draw.text((corner[0] + 3, corner[1] + 2), caption, fill=N_GRAYS - 1)
        draw.text((3, 2 * (PANEL + CAPTION) + 2), f"frame {t + 1} of {len(truth)}", fill=127)
        frames.append(film)
    return frames


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
    return Image.fromarray(panel, mode="P")


def _palette() -> list[int]:
    """128 grays, then 128 colours of the error."""
    grays = np.linspace(0, 255, N_GRAYS)[:, None].repeat(3, axis=1)
    colours = matplotlib.colormaps[ERROR_CMAP](np.linspace(0, 1, 256 - N_GRAYS), bytes=True)
    return np.concatenate([grays, colours[:, :3]]).round().astype(int).ravel().tolist()
