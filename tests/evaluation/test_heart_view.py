import pytest
import torch
from helpers import make_images

from evaluation.heart_view import find_heart


def beating(row=70, column=40, n_frames=20, shape=(96, 112)) -> torch.Tensor:
    """A bright disc that contracts to the middle of the beat, (T, Y, X) in [0, 1]."""
    y, x = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
    distance = ((y - row).square() + (x - column).square()).sqrt()
    radius = 9 + 3 * torch.cos(2 * torch.pi * torch.arange(n_frames) / n_frames)
    disc = torch.sigmoid(radius[:, None, None] - distance)
    return 0.6 * disc + 0.1 * torch.rand(shape, generator=torch.manual_seed(0))


def holds(view, row, column) -> bool:
    return (
        view.top + 8 < row < view.top + view.size - 8
        and view.left + 8 < column < view.left + view.size - 8
    )


def test_the_heart_is_found_with_its_farthest_frame():
    series = beating()
    view = find_heart(series)
    assert holds(view, 70, 40)
    assert view.farthest == 10
    assert list(view.frames) == ["frame 1", "frame 11, farthest from 1"]
    assert view.crop(series).shape == (20, view.size, view.size)
    assert 0 <= view.window[0] < view.window[1] <= 0.75


@pytest.mark.parametrize("blemish", ["border row", "bright spot", "black box in one frame"])
def test_other_changes_do_not_mislead(blemish):
    series = beating()
    if blemish == "border row":
        series[::2, 0] = 1
    elif blemish == "bright spot":
        series[::2, 20:22, 90:92] = 1
    else:
        series[5, 5:30, 60:110] = 0
        series[:, 5:30, 60:110] += 0.3 * (torch.arange(20) != 5)[:, None, None]
    assert holds(find_heart(series), 70, 40)


@pytest.mark.parametrize("shape", [(8, 32, 36), (3, 21, 17), (1, 40, 40)])
def test_small_and_still_series_have_a_view_inside_the_image(shape):
    for series in (torch.from_numpy(make_images(1, *shape))[0], torch.zeros(shape)):
        view = find_heart(series)
        crop = view.crop(series)
        assert crop.shape[1] == crop.shape[2] == view.size > 0
        assert view.window[0] < view.window[1]
