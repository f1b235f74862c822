import pytest
import torch
from torch.nn import functional as F

from methods.layers import ShiftBlock, ShiftInTime, temporal_bands


def shifted_by_rolls(frames: torch.Tensor, n: int, rows: int) -> torch.Tensor:
    """What `ShiftInTime` computes, in the plainest way."""
    mixed = torch.cat(
        (frames[..., :n].roll(1, 1), frames[..., n : 2 * n].roll(-1, 1), frames[..., 2 * n :]), -1
    )
    ny = frames.shape[2]
    return mixed[:, :, torch.arange(-rows, ny + rows) % ny]


@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("n_frames", [1, 2, 5])
def test_shift_in_time_and_its_gradient(rows, n_frames):
    frames = torch.randn(2, n_frames, 4, 3, 8, dtype=torch.float64, requires_grad=True)
    shifted = ShiftInTime.apply(frames, 2, rows)
    expected = shifted_by_rolls(frames, 2, rows)
    torch.testing.assert_close(shifted, expected, rtol=0, atol=0)
    weight = torch.randn_like(shifted)
    (ours,) = torch.autograd.grad((shifted * weight).sum(), frames)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), frames)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_bands_of_a_device_are_kept_where_captured_steps_read_them():
    device = torch.device("cpu")
    assert temporal_bands(8, device) is temporal_bands(8, device)


def test_gradient_of_the_output_is_left_alone():
    frames = torch.randn(1, 2, 4, 3, 8, requires_grad=True)
    gradient = torch.ones(1, 2, 8, 3, 8)
    ShiftInTime.apply(frames, 2, 2).backward(gradient)
    assert (gradient == 1).all()


@pytest.mark.parametrize("cyclic", [True, False])
def test_block_is_a_convolution_of_images_that_continue_along_y(cyclic):
    block = ShiftBlock(8, cyclic=cyclic)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x = torch.randn(6, 8, 10, 7)  # two series of three frames
    mixed = shifted_by_rolls(x.unflatten(0, (2, 3)).permute(0, 1, 3, 4, 2), 2, 0)
    mixed = mixed.permute(0, 1, 4, 2, 3).flatten(0, 1)

    def convolved(image: torch.Tensor, layer: torch.nn.Conv2d) -> torch.Tensor:
        padded = F.pad(image, (0, 0, 1, 1), mode="circular" if cyclic else "constant")
        return F.conv2d(padded, layer.weight, layer.bias, padding=(0, 1))

    expected = x + convolved(F.relu(convolved(mixed, block.first)), block.second)
    torch.testing.assert_close(block(x, 3), expected)
