"""Figures of images, masks, profiles and curves: arrays in, a matplotlib `Figure` out.

Images are (T, Y, X), or (Y, X) for one frame, on one gray window for all frames. Figures have the
default style of matplotlib, whatever the user's settings. Only `imsshow`, which a user calls, shows
or saves anything.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from PIL import Image, ImageDraw

WINDOW = (0.0, 1.0)  # the range of the data: the same in every picture
ERROR_WINDOW = (0.0, 0.2)  # of |reconstruction - target|: the same in every picture
ERROR_CMAP = "inferno"
TILE = 2.0  # inches per frame
CAPTION = 16  # pixels above the panels of a cine

default_style = style.context("default")  # a decorator, and a context


@default_style
def imsshow(
    images: np.ndarray,
    titles: Sequence[str] | None = None,
    num_col: int = 5,
    cmap: str = "gray",
    window: tuple[float, float] | None = WINDOW,
    colorbar: bool = False,
    dpi: int = 100,
    save_path: str | Path | None = None,
) -> None:
    """Show a grid of frames, or save it.

    Args:
        images: (T, Y, X), or (Y, X) for one; complex images by their magnitude.
        titles: one for each frame, or None.
        num_col: frames in a row.
        window: gray values (lowest, highest), one for all frames; None for the range of `images`.
        colorbar: draw one.
        dpi: pixels per inch; a frame is two inches.
        save_path: write a picture there instead of showing it.
    """
    images = np.abs(images) if np.iscomplexobj(images) else np.asarray(images)
    window = window or (float(images.min()), float(images.max()))
    if save_path is not None:
        frames_figure(images, titles, num_col, cmap, window, colorbar).savefig(save_path, dpi=dpi)
    elif matplotlib.get_backend().lower() == "agg":
        print("imsshow: no screen to show images on; give save_path to save them", file=sys.stderr)
    else:
        from matplotlib import pyplot  # only here, because it needs the user's backend

        figure = pyplot.figure(dpi=dpi)
        frames_figure(images, titles, num_col, cmap, window, colorbar, figure=figure)
        pyplot.show()


@default_style
def frames_figure(
    images: np.ndarray,
    titles: Sequence[str] | None = None,
    num_col: int = 5,
    cmap: str = "gray",
    window: tuple[float, float] = WINDOW,
    colorbar: bool = False,
    title: str | None = None,
    figure: Figure | None = None,
) -> Figure:
    """A grid of the frames of (T, Y, X), or of one (Y, X), all on the same window."""
    images = images[None] if images.ndim == 2 else images
    if images.ndim != 3 or len(images) == 0:
        raise ValueError(f"images must be (T, Y, X) or (Y, X), got {images.shape}")
    columns = min(num_col, len(images))
    rows = math.ceil(len(images) / columns)
    figure = figure or Figure()
    figure.set_size_inches(TILE * columns + colorbar, TILE * rows + (0.4 if title or titles else 0))
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    axes = grid_of_axes(figure, len(images), num_col)
    for i, (axis, image) in enumerate(zip(axes, images, strict=False)):
        shown = axis.imshow(image, cmap=cmap, vmin=window[0], vmax=window[1], interpolation="none")
        if titles is not None:
            axis.set_title(titles[i], fontsize=8, pad=2)
    if colorbar:
        figure.colorbar(shown, ax=axes, fraction=0.05, pad=0.01)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def grid_of_axes(parent: FigureBase, n: int, num_col: int) -> list[Axes]:
    """Axes without frames, row by row, enough for `n` images, at most `num_col` in a row."""
    columns = min(num_col, n)
    axes = parent.subplots(math.ceil(n / columns), columns, squeeze=False).ravel().tolist()
    for axis in axes:
        axis.axis("off")
    return axes


@default_style
def error_figure(error: np.ndarray, title: str) -> Figure:
    """The frames of |reconstruction - target|, on a fixed scale with its colour bar."""
    return frames_figure(error, cmap=ERROR_CMAP, window=ERROR_WINDOW, colorbar=True, title=title)


@default_style
def profiles_figure(profiles: Mapping[str, np.ndarray], frame: np.ndarray, row: int) -> Figure:
    """The target's first frame (Y, X) with the row drawn, and the x-t profiles (T, X) by method."""
    figure = Figure(figsize=(3.2 + 2.2 * len(profiles), 3.2), layout="constrained")
    axes = figure.subplots(1, 1 + len(profiles), squeeze=False)[0]
    axes[0].imshow(frame, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1])
    axes[0].axhline(row, color="orange", linewidth=1)
    axes[0].set_title(f"target, frame 0, row {row}", fontsize=9)
    axes[0].axis("off")
    for axis, (name, profile) in zip(axes[1:], profiles.items(), strict=True):
        axis.imshow(profile.T, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], aspect="auto")
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("frame", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[1].set_ylabel("x (pixel)", fontsize=8)
    return figure


@default_style
def mask_figure(mask: np.ndarray, nx: int) -> Figure:
    """Lines (T, Y) of one sample: every frame's mask drawn `nx` wide, and the ky-t view."""
    figure = Figure(figsize=(13, 7), layout="constrained")
    figure.set_facecolor("0.85")  # so that white lines at a border are visible
    left, right = figure.subfigures(1, 2, width_ratios=(3, 1), squeeze=False)[0]
    axes = grid_of_axes(left, len(mask), num_col=5)
    for t, (axis, lines) in enumerate(zip(axes, mask, strict=False)):
        axis.imshow(np.repeat(lines[:, None], nx, axis=1), cmap="gray", vmin=0, vmax=1)
        axis.set_title(f"frame {t}", fontsize=8, pad=2)
    left.suptitle("masks, k-space of every frame", fontsize=10)
    axis = right.subplots()
    axis.imshow(mask.T, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="none")
    axis.set(xlabel="frame", ylabel="phase-encoding line ky", title="ky-t sampling pattern")
    return figure


@default_style
def curves_figure(history: Sequence[Mapping[str, float]]) -> Figure:
    """Loss, PSNR, SSIM and learning rate by epoch."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = {
        "loss": ("train/loss", "validation/loss"),
        "PSNR (dB)": ("validation/psnr",),
        "SSIM (3-D)": ("validation/ssim",),
        "learning rate": ("learning_rate",),
    }
    for axis, (label, names) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for name in names:
            points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
            if points:
                axis.plot(
                    *zip(*points, strict=True), label=name, marker="." if len(points) < 50 else ""
                )
        axis.set(
            xlabel="epoch", ylabel=label, yscale="log" if label.startswith("loss") else "linear"
        )
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    return figure


def cine_panels(panels: Mapping[str, np.ndarray], error: np.ndarray) -> list[Image.Image]:
    """The frames of a film: captioned panels (T, Y, X) in a row, the error in colour last."""
    colours = matplotlib.colormaps[ERROR_CMAP](error / ERROR_WINDOW[1], bytes=True)[..., :3]
    gray = [
        (255 * np.clip(images, *WINDOW)).astype(np.uint8)[..., None].repeat(3, axis=-1)
        for images in panels.values()
    ]
    film = np.concatenate([*gray, colours], axis=2)  # (T, Y, panels X, 3)
    film = np.pad(film, ((0, 0), (CAPTION, 0), (0, 0), (0, 0)))
    frames = []
    for array in film:
        frame = Image.fromarray(array)
        draw = ImageDraw.Draw(frame)
        for i, name in enumerate([*panels, f"error, 0 to {ERROR_WINDOW[1]:g}"]):
            draw.text((4 + i * error.shape[-1], 2), name, fill="white")
        frames.append(frame)
    return frames
