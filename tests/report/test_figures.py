import base64
import dataclasses
import io
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from helpers import ROOT
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from CS_mask import cartesian_mask
from evaluation.bench import Reference
from evaluation.heart_view import find_heart
from formats.series import Series
from report import figures, training_figures
from report.film import CAPTION, PANEL, film_frames
from report.names import GROUND_TRUTH
from report.pictures import write_figure
from report.scan_report import heart_of, shown_series


def shown_images(figure):
    return [image for axis in figure.axes for image in axis.get_images()]


def titles_of(figure):
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_all_frames_share_one_window(images):
    figure = figures.frames_figure(images[0], title="x")
    shown = shown_images(figure)
    assert len(shown) == 8
    assert {image.get_clim() for image in shown} == {figures.WINDOW}
    assert np.array_equal(shown[3].get_array(), images[0, 3])


@pytest.mark.parametrize(("size", "scale"), [(0.01, 0.02), (0.099, 0.1), (0.21, 0.25), (3, 3)])
def test_an_error_has_a_scale_that_fits_and_is_stated(images, size, scale):
    error = size * images[0] / np.quantile(images[0], figures.SHOWN_ERRORS)
    figure = figures.error_figure(error, "error")
    frames = shown_images(figure)[:8]
    assert {image.get_clim() for image in frames} == {(0, scale)}
    assert len(figure.axes) > len(frames)  # the colour bar's axis
    assert figure.get_suptitle() == f"error, 0 to {scale:g}"


def test_an_error_that_is_not_finite_is_drawn(images):
    assert figures.fitting_scale(np.full((2, 3), np.nan)) == figures.SMALLEST_SCALE
    assert figures.fitting_scale(np.full((2, 3), np.inf)) == figures.SMALLEST_SCALE


@pytest.mark.parametrize("shape", [(20, 24, 30), (24, 30)])
def test_imsshow_saves_a_grid(tmp_path, shape):
    mask = cartesian_mask((1, *shape), acc=4, sample_n=2, centred=True, seed=0)
    path = tmp_path / "mask.png"
    figures.imsshow(
        mask[0], num_col=5, cmap="gray", titles=[str(i) for i in range(20)], save_path=path, dpi=30
    )
    with Image.open(path) as picture:
        width, height = picture.size
    assert width == (300 if len(shape) == 3 else 60)
    assert height > (240 if len(shape) == 3 else 60)


def test_imsshow_takes_complex_images_and_needs_a_screen_or_a_path(tmp_path, images, capsys):
    path = tmp_path / "a.png"
    figures.imsshow(images[0] * 1j, window=None, colorbar=True, save_path=path)
    assert path.stat().st_size > 1000
    figures.imsshow(images[0])
    assert "give save_path" in capsys.readouterr().err


def test_other_axes_are_refused():
    with pytest.raises(ValueError, match=r"images must be \(T, Y, X\)"):
        figures.frames_figure(np.zeros((2, 3, 4, 5)))


def test_maps_figure_draws_magnitude_and_phase_of_every_coil():
    maps = np.exp(1j * np.arange(10 * 6 * 5).reshape(10, 6, 5)).astype(np.complex64)
    maps[:, 0] = 0
    figure = figures.maps_figure(maps, width=7.2)
    shown = shown_images(figure)
    assert titles_of(figure) == [f"coil {i}" for i in range(1, 11)]
    assert len(shown) == 2 * 10
    np.testing.assert_allclose(shown[0].get_array(), np.abs(maps[0]))


def test_mask_figure_draws_every_frame_and_the_ky_t_view():
    mask = cartesian_mask((8, 32, 1), 4, 4, centred=True, seed=0)[..., 0]
    figure = figures.mask_figure(mask, nx=30, width=7.2)
    shown = shown_images(figure)
    assert titles_of(figure) == [f"frame {t}" for t in range(1, 9)]
    assert len(shown) == 9
    assert shown[0].get_array().shape == (32, 30)
    assert np.array_equal(shown[-1].get_array(), mask.T)
    assert shown[-1].get_extent() == [0.5, 8.5, 31.5, -0.5]  # frames count from 1


def test_profiles_run_along_both_axes(images):
    series = {GROUND_TRUTH: images[0], "kt_sparse": images[1]}
    figure = figures.profiles_figure(series, row=5, column=7, width=7.2)
    assert titles_of(figure) == ["place in frame 1", "ground truth", "k-t sparse"]
    place, *above, first, second = shown_images(figure)
    assert np.array_equal(place.get_array(), images[0, 0])
    for i, (along_y, along_x) in enumerate(zip(above, (first, second), strict=True)):
        assert np.array_equal(along_y.get_array(), images[i, :, :, 7].T)
        assert np.array_equal(along_x.get_array(), images[i, :, 5].T)
        assert along_x.get_extent()[:2] == [0.5, 8.5]  # frames count from 1


def test_many_profiles_are_drawn_in_several_rows(images):
    series = {f"method {i}": images[i] for i in range(8)}
    figure = figures.profiles_figure(series, row=5, column=7, width=3.5)
    assert len(shown_images(figure)) == 1 + 2 * 8
    assert len(titles_of(figure)) == 9


def test_curves(images):
    history = [
        {"epoch": 1, "train/loss": 0.2, "learning_rate": 0.1},
        {"epoch": 2, "train/loss": 0.1, "learning_rate": 0.0, "validation/loss": 0.3},
    ]
    loss, psnr, *_ = training_figures.curves_figure(history, None, width=7.2).axes
    assert [len(line.get_xdata()) for line in loss.get_lines()] == [2, 1]
    assert psnr.get_lines() == []
    history = [entry | {"validation/psnr": 30.0 + entry["epoch"]} for entry in history]
    axis = training_figures.curves_figure(history, Reference("kt_sparse", 36.5), width=7.2).axes[1]
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert texts == ["validation/psnr", "k-t sparse"]
    assert all(tick == int(tick) for tick in axis.get_xticks())


def views(images):
    truth = images[0]
    series = {GROUND_TRUTH: truth, "zero_filled": 0.5 * truth, "best": 0.98 * truth, "net": truth}
    return series, find_heart(torch.from_numpy(truth))


def test_film_frames_are_gray_where_they_show_images(images):
    series, view = views(images)
    frames = film_frames(series, view)
    assert len(frames) == 8
    size = PANEL + CAPTION
    assert frames[0].size == (4 * PANEL, 3 * size)
    assert all(frame.getpalette() == frames[0].getpalette() for frame in frames)
    colours = np.asarray(frames[0].convert("RGB")).astype(int)
    spread = colours.max(axis=-1) - colours.min(axis=-1)
    assert spread[: 2 * size].max() == 0  # whole images and the heart
    errors = spread[2 * size + CAPTION :]
    assert errors[:, :PANEL].max() == 0  # the truth has none
    assert errors[:, PANEL : 2 * PANEL].max() > 50


def test_the_error_scale_fits_the_methods_and_not_zero_filling(images):
    series, view = views(images)
    scale = figures.error_scale(series, view)
    assert figures.SMALLEST_SCALE <= scale < 0.03
    assert figures.error_scale({k: series[k] for k in (GROUND_TRUTH, "zero_filled")}, view) > 0.3
    assert figures.error_scale({k: series[k] for k in (GROUND_TRUTH, "net")}, view) == 0.02


def test_heart_figure_has_a_column_for_every_method(images):
    series, view = views(images)
    figure = figures.heart_figure(series, view, "sample 3", width=7.2)
    assert titles_of(figure) == ["ground truth", "zero-filled", "best", "net"]
    assert figure.axes[9].get_ylabel() == "error, frame 1"
    profile = figure.axes[4 * len(series)].get_images()[0]  # the fifth row
    expected = np.tile(view.crop(series[GROUND_TRUTH])[:, :, view.size // 2], (2, 1)).T
    np.testing.assert_array_equal(profile.get_array(), expected)
    assert "sample 3" in figure.get_suptitle()
    figure.savefig(io.BytesIO())
    alone = figures.heart_figure(series, view, "sample 3", width=7.2, compared=False)
    assert len(alone.axes) == 4 * len(series)  # without errors


def test_the_scale_of_errors_is_stated_under_the_heart(images):
    series, view = views(images)
    texts = texts_of(figures.heart_figure(series, view, "sample 3", width=7.2))
    assert f"{figures.error_scale(series, view):g}" in texts
    assert "error: |method - ground\ntruth|" in texts


@pytest.mark.parametrize(("pixel_width", "bar"), [(2.0, 10), (0.4, 2), (None, None), (0.01, None)])
def test_a_bar_shows_the_scale_where_pixels_are_known(images, pixel_width, bar):
    series, view = views(images)  # of 16 pixels
    known = dataclasses.replace(view, pixel_width=pixel_width)
    figure = figures.heart_figure(series, known, "sample 3", width=3.5)
    bars = [patch for patch in figure.axes[len(series)].patches if isinstance(patch, Rectangle)]
    assert [text for text in texts_of(figure) if text.endswith(" mm")] == [f"{bar} mm"][: len(bars)]
    assert len(bars) == (bar is not None)
    if bar is not None:
        assert bars[0].get_width() * pixel_width == pytest.approx(bar)


def test_frames_are_named_by_their_time_where_it_is_known(images):
    series, view = views(images)
    known = dataclasses.replace(view, frame_time=40.0)
    texts = texts_of(figures.heart_figure(series, known, "sample 3", width=7.2))
    assert {"0 ms", "error, 0 ms", "640 ms"} <= set(texts)  # of two beats of 8 frames
    assert any(f"{40 * view.farthest} ms, farthest" in text for text in texts)
    assert not any("frame 1" in text for text in texts)


@pytest.mark.parametrize("width", [3.5, 7.2])
def test_figures_fit_a_column_and_their_letters_can_be_read(images, width):
    series, view = views(images)
    longer = {**series, "hermitian_view_sharing": images[0], "cascade_calibrated": images[0]}
    history = [{"epoch": 1, "train/loss": 0.2, "learning_rate": 0.1, "validation/psnr": 20.0}]
    mask = cartesian_mask((20, 32, 1), 4, 4, centred=True, seed=0)[..., 0]
    for figure in (
        figures.heart_figure(series, view, "sample 3", width),
        figures.profiles_figure(longer, 5, 7, width),
        figures.mask_figure(mask, 32, width),
        training_figures.curves_figure(history, Reference("kt_sparse", 36.5), width),
    ):
        assert figure.get_figwidth() <= width
        assert min(text.get_fontsize() for text in figure.findobj(Text)) >= 7
        figure.savefig(io.BytesIO(), dpi=100)
        for axis in figure.axes:
            box = axis.title.get_window_extent()
            assert not axis.get_title() or (box.x0 >= 0 and box.x1 <= 100 * width), axis.get_title()


@pytest.mark.parametrize("form", ["pdf", "svg"])
def test_vector_files_have_text_and_the_pixels_of_the_images(tmp_path, images, form):
    series, view = views(images)

    def written(name) -> bytes:
        figure = figures.heart_figure(series, view, "sample 3", width=3.5)
        write_figure(tmp_path / f"{name}.{form}", figure, dpi=20)
        return (tmp_path / f"{name}.{form}").read_bytes()

    content = written("a")
    assert content == written("b")
    if form == "svg":
        assert b">zero-filled</text>" in content
        pictures = re.findall(rb'href="data:image/png;base64,\s*([^"]*)"', content)
        sizes = {Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures}
        assert (view.size, view.size) in sizes
    else:
        assert b"/FontFile2" in content  # TrueType: its letters can be edited
        assert b"/Type3" not in content
        assert f"/Width {view.size}".encode() in content


def test_pixels_that_are_not_square_keep_their_proportions(images):
    series, view = views(images[:, :, :32, :32])
    tall = dataclasses.replace(view, aspect=2.0)
    figure = figures.heart_figure(series, tall, "sample 3", width=7.2)
    n = len(series)
    assert {axis.get_aspect() for axis in figure.axes[: 2 * n]} == {2.0}
    film = np.asarray(film_frames(series, tall)[0].convert("L"))[CAPTION : CAPTION + PANEL, :PANEL]
    columns = np.flatnonzero(film.any(axis=0))
    assert PANEL / 4 - 1 <= columns[0] <= PANEL / 4 + 1  # half as wide as high
    assert 3 * PANEL / 4 - 2 <= columns[-1] <= 3 * PANEL / 4 + 1


@pytest.mark.parametrize("is_turned", [False, True])
def test_series_are_shown_as_viewers_show_them(images, is_turned):
    shown = Series("a", images[0], False, spacing=(1.0, 2.0), is_turned=is_turned)
    assert shown.aspect == (2 if is_turned else 0.5)
    assert shown.pixel_width == (1 if is_turned else 2)
    truth = torch.from_numpy(images[0])
    result = SimpleNamespace(
        images={"zero_filled": truth, "net": truth}, best="zero_filled", network="net", truth=truth,
        is_turned=is_turned,
    )  # fmt: skip
    expected = images[0] / images[0].max()
    for series in shown_series(result).values():
        np.testing.assert_allclose(series, expected.swapaxes(1, 2) if is_turned else expected)


def test_the_heart_of_a_scan_has_the_scales_of_its_file(images):
    result = SimpleNamespace(
        truth=images, aspect=1.0, pixel_width=1.4, frame_time=40.0, network="net"
    )
    view = heart_of(result, {GROUND_TRUTH: images[0]})
    assert (view.pixel_width, view.frame_time) == (1.4, 40.0)
    assert (view.moment(2), views(images)[1].moment(2)) == ("80 ms", "frame 3")


def test_progress_figure_has_the_same_scales_for_every_reconstruction(images):
    series, view = views(images)
    for name in ("best", "net"):
        shown = {
            "truth": series[GROUND_TRUTH],
            "undersampled": series["zero_filled"],
            name: series[name],
        }
        figure = training_figures.progress_figure(shown, view, "sample 3, epoch 5")
        assert titles_of(figure) == ["truth", "undersampled", name, "error"]
        assert figure.get_suptitle() == "sample 3, epoch 5"
        panels = shown_images(figure)[:12]  # the thirteenth is the colour bar
        windows = [*[view.window] * 3, training_figures.PROGRESS_ERROR_WINDOW] * 3
        assert [panel.get_clim() for panel in panels] == windows
        errors = np.abs(view.crop(series[name] - series[GROUND_TRUTH]))
        np.testing.assert_array_equal(panels[3].get_array(), errors[0])
        np.testing.assert_array_equal(panels[7].get_array(), errors[view.farthest])
        motion = np.tile(view.crop(series[name])[:, :, view.size // 2], (2, 1)).T
        np.testing.assert_array_equal(panels[10].get_array(), motion)


@pytest.mark.parametrize(
    "settings",
    [
        {"text.usetex": True},
        {"image.origin": "lower"},
        {"figure.dpi": 30, "savefig.bbox": "tight", "axes.grid": True, "font.size": 30},
        {"image.interpolation": "bicubic", "axes.facecolor": "red", "lines.marker": "x"},
    ],
)
def test_pictures_do_not_depend_on_the_users_settings(tmp_path, settings):
    def drawn(name) -> bytes:
        frames = np.linspace(0, 1, 2 * 8 * 9).reshape(2, 8, 9)
        history = [{"epoch": 1, "train/loss": 0.1, "learning_rate": 1e-3}]
        write_figure(tmp_path / name, figures.frames_figure(frames, title="a"), 50)
        curves = training_figures.curves_figure(history, None, width=7.2)
        write_figure(tmp_path / f"curves_{name}", curves, 50)
        return (tmp_path / name).read_bytes() + (tmp_path / f"curves_{name}").read_bytes()

    plain = drawn("plain.png")
    with matplotlib.rc_context(settings):
        assert drawn("changed.png") == plain


@pytest.mark.parametrize(
    "backend",
    ["module://not_installed.backend", "module://matplotlib_inline.backend_inline", "nonsense"],
)
def test_a_backend_that_is_not_installed_does_no_harm(backend):
    """Whatever is imported first; matplotlib is imported in one place, as the layout has it."""
    code = (
        f"import tables, report.figures, train, os; assert os.environ['MPLBACKEND'] == {backend!r}"
    )
    environment = os.environ | {"MPLBACKEND": backend}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


def test_a_backend_that_was_named_is_used_to_show_figures():
    code = "import report.figures, matplotlib; print(matplotlib.get_backend())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"MPLBACKEND": "svg"}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "svg"
