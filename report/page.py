"""`report.html`: plain data in, one page out that needs no other file and no network.

A page has a player of the series (`report/templates/page.js`), charts, tables and text, which name
the methods in words; only the details have the names of the settings. The frames
of a series lie side by side in one 8-bit picture, once cropped to the heart and once whole; gray
window, errors and profiles are made from it in the browser.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from evaluation.series_view import SeriesView
from report.chart import DASHES, Chart, Line, svg
from report.figures import ERROR_CMAP, error_scale, fitting_scale
from report.names import in_words
from report.tables import Table
from util.files import as_bytes, write_bytes
from util.plotting import matplotlib

TEMPLATES = Path(__file__).parent / "templates"
WHOLE_VALUES = 5e6  # pixels of all whole images of a page, before they are shown smaller
HEART_VALUES = 8e6  # the same of the hearts
ERROR_RANGE = 4  # highest error scale that can be set, over the one that fits
TRUTH, ZERO_FILLED, BEST, NETWORK = range(4)  # numbers of colours of lines
ERROR_TITLE = "Error of the network by frame, mean over the moving region"
EXPECTED = "expected error"  # the panel of the error map
PSNR_TITLE = "PSNR by frame, of whole images"


@dataclass(frozen=True)
class Link:
    """A link to another file, relative to the page."""

    href: str  # empty: there is no such file
    text: str
    about: str = ""


@dataclass(frozen=True)
class Page:
    """What a page says; empty parts are omitted."""

    title: str
    score: str  # the result in one line
    summary: str  # what was done, in two sentences
    verdict: Sequence[str] = ()  # more of the result, a paragraph each
    views: Sequence[SeriesView] = ()
    pictures_note: str = ""  # what is shown of what there is
    tables: Sequence[Table] = ()
    curves: Sequence[Chart] = ()
    caveats: Sequence[str] = ()
    details: Mapping[str, Sequence[str]] = field(default_factory=dict)  # lines by heading
    links: Sequence[Link] = ()
    reload: int = 0  # seconds after which the browser reads the page again; 0: never


def write_page(path: Path, page: Page) -> None:
    """A page as a file."""
    write_bytes(path, as_bytes(render(page)))


def render(page: Page) -> str:
    """A page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["in_words"] = in_words
    style, script = (Markup((TEMPLATES / f"page.{kind}").read_text()) for kind in ("css", "js"))
    return environment.get_template("page.html").render(
        page=page,
        style=style,
        script=script,
        player=player_data(page.views),
        views=[view_section(view) for view in page.views],
        charts=[drawn_chart(chart) for chart in page.curves],
    )


def drawn_chart(chart: Chart) -> dict[str, Any]:
    """A chart as the template takes it."""
    dashes = [DASHES[line.colour % len(DASHES)] for line in chart.lines]
    return {"chart": chart, "svg": Markup(svg(chart)), "dashes": dashes}


def view_section(view: SeriesView) -> dict[str, Any]:
    """The charts of a series, as the template takes them."""
    charts = []
    colours = line_colours(view)
    frames = range(1, view.n_frames + 1)
    if view.psnr and view.n_frames > 1:
        lines = [Line(k, frames, v.tolist(), colours[k]) for k, v in view.psnr.items()]
        charts.append(Chart(PSNR_TITLE, "frame", "PSNR (dB)", lines, by_frame=True))
    if view.errors is not None and view.n_frames > 1:
        curves = list(view.errors.by_frame.items())
        lines = [Line(k, frames, v.tolist(), 2 + i) for i, (k, v) in enumerate(curves)]
        charts.append(Chart(ERROR_TITLE, "frame", "share of the peak", lines, by_frame=True))
    line = "" if view.errors is None else view.errors.line
    return {"title": view.title, "line": line, "charts": [drawn_chart(chart) for chart in charts]}


def line_colours(view: SeriesView) -> dict[str, int]:
    """The number of the colour of each series: the same in all charts of a page."""
    names = [name for name in view.images if name != view.truth]
    given = dict(zip(names, range(1, len(names) + 1), strict=True))
    if len(names) > 1:
        given[names[-1]] = NETWORK
    return given | ({view.truth: TRUTH} if view.truth is not None else {})


def player_data(views: Sequence[SeriesView]) -> dict[str, Any]:
    """What the player shows, for JSON."""
    colours = matplotlib.colormaps[ERROR_CMAP](np.linspace(0, 1, 256), bytes=True)[:, :3]
    whole = sum(image.size for view in views for image in view.images.values())
    heart = sum(view.heart.crop(image).size for view in views for image in view.images.values())
    limits = ((HEART_VALUES, heart), (WHOLE_VALUES, whole))
    zooms = [math.sqrt(min(1.0, limit / max(1, n))) for limit, n in limits]
    return {
        "colours": base64.b64encode(colours.tobytes()).decode(),
        "views": [player_view(view, *zooms) for view in views],
    }


def player_view(view: SeriesView, heart_zoom: float, whole_zoom: float) -> dict[str, Any]:
    """A series for the player: panels in the order of the images."""
    heart, reference = view.heart, view.images[view.truth or list(view.images)[-1]]
    hearts = {name: heart.crop(images) for name, images in view.images.items()}
    limit = highest(reference)
    error = error_scale(view.images, heart) if view.truth is not None else 1.0
    layers = error_layers(view, heart_zoom, whole_zoom)
    return {
        "frames": view.n_frames,
        "truth": None if view.truth is None else list(view.images).index(view.truth),
        "panels": [
            {
                "name": in_words(name),
                "role": view.roles.get(name, ""),
                "psnr": finite(view.psnr.get(name)),
            }
            for name in view.images
        ],
        "layers": layers,
        "heart": player_part(hearts, highest(heart.crop(reference)), heart_zoom)
        | {"top": heart.top, "left": heart.left},
        "whole": player_part(view.images, limit, whole_zoom) | {"top": 0, "left": 0},
        "window": heart.window,
        "aspect": heart.aspect,
        "limit": limit,
        "error": error,
        "errorLimit": min(limit, ERROR_RANGE * error),
        "row": heart.top + heart.size // 2,
        "column": heart.left + heart.size // 2,
        "farthest": heart.farthest,
    }


def error_layers(view: SeriesView, heart_zoom: float, whole_zoom: float) -> list[dict[str, Any]]:
    """The error map as a further panel with a scale of its own, if there is one."""
    if view.errors is None:
        return []
    expected = view.errors.expected
    inside = view.heart.crop(expected)
    limit = fitting_scale(inside)
    *_, last = view.images
    return [
        {
            "name": EXPECTED,
            "role": f"of {in_words(last)}, 0 to {limit:g} and more",
            "heart": player_part({EXPECTED: inside}, limit, heart_zoom)["sources"][0],
            "whole": player_part({EXPECTED: expected}, limit, whole_zoom)["sources"][0],
        }
    ]


def player_part(images: Mapping[str, np.ndarray], peak: float, zoom: float) -> dict[str, Any]:
    """All series (T, Y, X) of a part of the image, as pictures in which `peak` is white."""
    n_frames, ny, nx = next(iter(images.values())).shape
    size = [max(1, round(zoom * n)) for n in (ny, nx)] if zoom < 1 else [ny, nx]
    across = math.ceil(math.sqrt(n_frames))
    return {
        "size": size,
        "zoom": size[0] / ny,
        "across": across,
        "peak": peak,
        "sources": [picture(series, peak, size, across) for series in images.values()],
    }


def picture(series: np.ndarray, peak: float, size: Sequence[int], across: int) -> str:
    """The frames (T, Y, X) side by side, `across` in a row, as an 8-bit PNG in base64."""
    levels = np.nan_to_num(series * (255 / peak), nan=0.0, posinf=255.0)
    levels = np.round(np.clip(levels, 0, 255)).astype(np.uint8)
    down = math.ceil(len(series) / across)
    sheet = np.zeros((down * size[0], across * size[1]), np.uint8)
    for t, frame in enumerate(levels):
        image = Image.fromarray(frame)
        if frame.shape != tuple(size):
            image = image.resize((size[1], size[0]), Image.Resampling.BOX)
        top, left = t // across * size[0], t % across * size[1]
        sheet[top : top + size[0], left : left + size[1]] = np.asarray(image)
    content = io.BytesIO()
    Image.fromarray(sheet).save(content, "PNG", compress_level=6)
    return base64.b64encode(content.getvalue()).decode()


def highest(image: np.ndarray) -> float:
    """The highest finite value, or 1 if none is above 0."""
    peak = float(np.nan_to_num(image, nan=0.0, posinf=0.0).max(initial=0.0))
    return peak if peak > 0 else 1.0


def finite(values: np.ndarray | None) -> list[float | None] | None:
    """Values for JSON, which has no NaN."""
    if values is None:
        return None
    return [round(float(v), 3) if math.isfinite(v) else None for v in values]
