import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from CS_mask import cartesian_mask
from report import figures
from report.pictures import write_figure


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


def test_imsshow_takes_complex_images_and_their_own_range(tmp_path, images):
    path = tmp_path / "a.png"
    figures.imsshow(images[0] * 1j, window=None, colorbar=True, save_path=path)
    assert path.stat().st_size > 1000


def test_imsshow_without_a_screen_says_so(images, capsys):
    figures.imsshow(images[0])
    assert "give save_path" in capsys.readouterr().err


def test_other_axes_are_refused():
    with pytest.raises(ValueError, match=r"images must be \(T, Y, X\)"):
        figures.frames_figure(np.zeros((2, 3, 4, 5)))


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


def test_film_has_a_frame_for_every_frame(images):
    target = images[0]
    film = figures.cine_panels({"a": target, "b": target}, np.zeros_like(target))
    assert len(film) == 8
    assert film[0].size == (3 * 36, 32 + figures.CAPTION)
    pixels = np.asarray(film[2])[figures.CAPTION :, :36, 0]
    assert np.abs(pixels / 255 - target[2]).max() < 1 / 255


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


def test_a_backend_that_is_not_installed_does_no_harm():
    code = "import report.figures, train"
    backend = {"MPLBACKEND": "module://not_installed_anywhere.backend"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | backend, check=True)
