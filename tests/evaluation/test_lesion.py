import math

import pytest
import torch

from evaluation.lesion import (
    find_path,
    ghost_contrast,
    kept_contrast,
    lesion,
    sample_at,
    track,
    windows_at,
)
from phantom.anatomy import Canvas
from phantom.heart import Heart
from phantom.scanner import FINER, TURNED, phantom
from util.random_streams import Stream, generator

N_FRAMES, SIZE = 12, 64


def drifting(amplitude: float = 4.0):
    """A smooth texture that swings sideways, (T, Y, X) in [0, 1], and its shift (T, 2)."""
    time = 2 * math.pi * torch.arange(N_FRAMES) / N_FRAMES
    shift = amplitude * torch.stack((time.cos() - 1, 0.5 * time.sin()), dim=-1)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    y, x = y - shift[:, 0, None, None], x - shift[:, 1, None, None]
    texture = (y / 3).sin() + (x / 4 + y / 9).sin() + (x / 2.5 - 1).cos()
    return 0.3 + texture / 15, shift


def test_a_known_motion_is_followed():
    series, shift = drifting()
    start = torch.tensor([[32, 30], [28, 36]])
    paths, mismatch, gap = track(series, start)
    torch.testing.assert_close(paths, start[:, None] + shift, atol=0.5, rtol=0)
    assert mismatch.max() < 1e-3
    assert gap.max() < 0.5


def test_path_lies_in_the_moving_part_and_moves():
    series = torch.from_numpy(phantom(1, (20, 96, 96), seed=0))[0]
    path = find_path(series)
    assert path.shape == (20, 2)
    excursion = (path[:, None] - path[None]).norm(dim=-1).max()
    assert 1 < excursion < 20
    rows, columns = path.round().long().unbind(dim=-1)
    moving = series.std(dim=0)
    assert moving[rows, columns].mean() > 2 * moving.mean()


def test_path_begins_in_or_beside_the_heart_wall():
    """In most phantoms, whose hearts are known."""
    radii = []  # 0 at the inner side of the left ventricle's wall, 1 at the outer
    for i, series in enumerate(phantom(6, (20, 192, 192), seed=1)):
        rng = generator(Stream.PHANTOM, 1, i)  # as the phantom draws them
        turned = rng.random() < TURNED
        heart = Heart(rng)
        canvas = Canvas(rng, FINER * 192, FINER * 192)
        u, v = heart.local(*canvas.positions(FINER))
        inner, outer = heart.radii(0)
        path = find_path(torch.from_numpy(series))[0].round().long()
        y, x = path.flip(0) if turned else path
        radii.append((torch.hypot(u, v)[y, x].item() - inner) / (outer - inner))
    assert sum(-0.5 < radius < 1.5 for radius in radii) >= 4, radii


def test_a_series_without_motion_has_a_path_too():
    still = torch.rand(1, 40, 40, generator=torch.manual_seed(0)).expand(5, -1, -1)
    path = find_path(still)
    assert (path - path[:1]).abs().max() < 1e-3


def test_windows_and_samples_are_linear_between_pixels():
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    image = 2 * y + 3 * x
    window = windows_at(image, torch.tensor([[20.25, 30.5]]), reach=2)[0]
    assert window.shape == (5, 5)
    assert window[0, 1].item() == pytest.approx(2 * 18.25 + 3 * 29.5)
    assert window.mean().item() == pytest.approx(2 * 20.25 + 3 * 30.5)
    values = sample_at(image[None].repeat(2, 1, 1), torch.tensor([[5.5, 7.25], [1.0, 2.0]]))
    torch.testing.assert_close(values, torch.tensor([2 * 5.5 + 3 * 7.25, 8.0]))


@pytest.mark.parametrize("contrast", [0.2, -0.2])
@pytest.mark.parametrize("diameter", [3.0, 6.0])
def test_lesion_has_its_size_contrast_and_place(diameter, contrast):
    series = torch.full((3, 40, 40), 0.5)
    path = torch.tensor([[20.0, 20.0], [21.5, 18.0], [20.0, 22.25]])
    added = lesion(series, path, diameter, contrast)
    assert added.sum(dim=(1, 2)) / contrast == pytest.approx(
        [math.pi * diameter**2 / 4] * 3, rel=0.15
    )
    assert added[0, 20, 20].item() == pytest.approx(contrast, rel=0.02)
    y, x = torch.arange(40.0)[:, None], torch.arange(40.0)
    for frame in range(3):
        weight = added[frame] / added[frame].sum()
        centre = torch.stack(((weight * y).sum(), (weight * x).sum()))
        torch.testing.assert_close(centre, path[frame], atol=0.05, rtol=0)


def test_lesion_stays_within_the_range_of_images():
    series = torch.rand(4, 30, 30, generator=torch.manual_seed(0))
    for contrast in (0.9, -0.9):
        marked = series + lesion(series, torch.full((4, 2), 15.0), 6.0, contrast)
        assert marked.min() >= -1e-6
        assert marked.max() <= 1 + 1e-6


def test_kept_and_ghost_of_known_reconstructions():
    series = torch.full((8, 48, 48), 0.5)
    time = 2 * math.pi * torch.arange(8) / 8
    path = torch.stack((24 + 8 * time.cos(), 24 + 8 * time.sin()), dim=-1)
    added = lesion(series, path, 6.0, 0.2)
    torch.testing.assert_close(kept_contrast(added, added), torch.ones(8))
    torch.testing.assert_close(kept_contrast(0.4 * added, added), torch.full((8,), 0.4))
    torch.testing.assert_close(ghost_contrast(added, added), torch.zeros(8), atol=0.02, rtol=0)
    assert not kept_contrast(torch.zeros_like(added), added).any()
    smeared = added.mean(dim=0, keepdim=True).expand_as(added)
    kept, ghost = kept_contrast(smeared, added), ghost_contrast(smeared, added)
    assert (kept < 0.4).all()  # the time average: mostly erased,
    assert (ghost > 0.1).all()  # and invented elsewhere
    torch.testing.assert_close(kept, ghost, atol=0.05, rtol=0)  # as much here as there


def test_a_lesion_that_cannot_be_added_and_the_ghost_of_one_that_hardly_moves_are_absent():
    still = torch.full((8, 2), 20.0)
    none = lesion(torch.zeros(8, 40, 40), still, 6.0, -0.2)
    added = lesion(torch.full((8, 40, 40), 0.5), still, 6.0, 0.2)
    assert kept_contrast(none, none).isnan().all()
    assert ghost_contrast(added, added).isnan().all()


@pytest.mark.parametrize("size", [(6, 9), (12, 40), (17, 17)])
def test_small_images_have_a_path_inside(size):
    series = torch.rand(5, *size, generator=torch.manual_seed(0))
    path = find_path(series)
    assert path.min() > -1.5
    assert (path < torch.tensor(size) + 0.5).all()
