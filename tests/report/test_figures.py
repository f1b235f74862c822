import dataclasses
import io
import os
import subprocess
import sys
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from helpers import ROOT
from PIL import Image

from CS_mask import cartesian_mask
from evaluation.bench import Reference
from evaluation.heart_view import find_heart
from formats.series import Series
from report import figures
from report.film import CAPTION, PANEL, film_frames
from report.pictures import write_figure
from report.scan_report import shown_series


def shown_images(figure):
    return [image for axis in figure.axes for image in axis.get_images()]


def test_all_frames_share_one_window(images):
    figure = figures.frames_figure(images[0], title="x")
    shown = shown_images(figure)
    assert len(shown) == 8
    assert {image.get_clim() for image in shown} == {figures.WINDOW}
    assert np.array_equal(shown[3].get_array(), images[0, 3])


def test_error_has_a_fixed_scale_and_a_colour_bar(images):
    figure = figures.error_figure(images[0] * 0.01, "error")
    frames = shown_images(figure)
    assert {image.get_clim() for image in frames} == {figures.ERROR_WINDOW}
    assert len(figure.axes) > len(frames)  # the colour bar's axis


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
    shown = shown_images(figures.maps_figure(maps))
    assert len(shown) == 2 * 10
    np.testing.assert_allclose(shown[0].get_array(), np.abs(maps[0]))


def test_mask_figure_draws_every_frame_and_the_ky_t_view():
    mask = cartesian_mask((8, 32, 1), 4, 4, centred=True, seed=0)[..., 0]
    shown = shown_images(figures.mask_figure(mask, nx=30))
    assert len(shown) == 9
    assert shown[0].get_array().shape == (32, 30)
    assert np.array_equal(shown[-1].get_array(), mask.T)


def test_profiles_and_curves(images):
    figure = figures.profiles_figure({"target": images[0, :, 5]}, images[0, 0], row=5)
    assert np.array_equal(shown_images(figure)[1].get_array(), images[0, :, 5].T)
    history = [
        {"epoch": 1, "train/loss": 0.2, "learning_rate": 0.1},
        {"epoch": 2, "train/loss": 0.1, "learning_rate": 0.0, "validation/loss": 0.3},
    ]
    loss, psnr, *_ = figures.curves_figure(history).axes
    assert [len(line.get_xdata()) for line in loss.get_lines()] == [2, 1]
    assert psnr.get_lines() == []
    history = [entry | {"validation/psnr": 30.0 + entry["epoch"]} for entry in history]
    axis = figures.curves_figure(history, Reference("kt_sparse", 36.5)).axes[1]
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert texts == ["validation/psnr", "kt_sparse"]
    assert all(tick == int(tick) for tick in axis.get_xticks())


def views(images):
    truth = images[0]
    series = {"truth": truth, "zero_filled": 0.5 * truth, "best": 0.98 * truth, "net": truth}
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
    assert figures.error_scale({k: series[k] for k in ("truth", "zero_filled")}, view) > 0.3
    assert figures.error_scale({k: series[k] for k in ("truth", "net")}, view) == 0.02


def test_heart_figure_has_a_column_for_every_method(images):
    series, view = views(images)
    figure = figures.heart_figure(series, view, "sample 3")
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == list(series)
    profile = figure.axes[4 * len(series)].get_images()[0]  # the fifth row
    expected = np.tile(view.crop(series["truth"])[:, :, view.size // 2], (2, 1)).T
    np.testing.assert_array_equal(profile.get_array(), expected)
    assert "sample 3" in figure.get_suptitle()
    figure.savefig(io.BytesIO())
    alone = figures.heart_figure(series, view, "sample 3", compared=False)
    assert len(alone.axes) == 4 * len(series)  # without errors


def test_pixels_that_are_not_square_keep_their_proportions(images):
    series, view = views(images[:, :, :32, :32])
    tall = dataclasses.replace(view, aspect=2.0)
    figure = figures.heart_figure(series, tall, "sample 3")
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
    truth = torch.from_numpy(images[0])
    result = SimpleNamespace(
        images={"zero_filled": truth, "net": truth}, best="zero_filled", network="net", truth=truth,
        is_turned=is_turned,
    )  # fmt: skip
    expected = images[0] / images[0].max()
    for series in shown_series(result).values():
        np.testing.assert_allclose(series, expected.swapaxes(1, 2) if is_turned else expected)


def test_progress_figure_has_the_same_scales_for_every_reconstruction(images):
    series, view = views(images)
    for name in ("best", "net"):
        shown = {
            "truth": series["truth"],
            "undersampled": series["zero_filled"],
            name: series[name],
        }
        figure = figures.progress_figure(shown, view, "sample 3, epoch 5")
        titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
        assert titles == ["truth", "undersampled", name, "error"]
        assert figure.get_suptitle() == "sample 3, epoch 5"
        panels = shown_images(figure)[:12]  # the thirteenth is the colour bar
        windows = [*[view.window] * 3, figures.PROGRESS_ERROR_WINDOW] * 3
        assert [panel.get_clim() for panel in panels] == windows
        errors = np.abs(view.crop(series[name] - series["truth"]))
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
        write_figure(tmp_path / f"curves_{name}", figures.curves_figure(history), 50)
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
