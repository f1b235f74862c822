"""`crnn`: a convolutional recurrent network over time and iterations (CRNN-MRI).

    x = enforce(x + CNN(x, hidden states of the last iteration))

All iterations share their weights. An iteration has a layer that is recurrent over time, in both
directions, and over iterations; three layers that are recurrent over iterations; and a convolution.
All are 3 x 3 convolutions of frames, with ReLU. Data consistency is exact for one coil; for several
it is a gradient step (see `physics/sense.py`). Hidden states start at zero, also those before the
first and after the last frame.

The layers of the authors' published code have 297,794 parameters for two channels, as here.

Reference: C. Qin et al., "Convolutional recurrent neural networks for dynamic MR image
reconstruction", IEEE Trans Med Imaging 38:280-290, 2019.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.baselines import Measured
from methods.layers import run_block, set_zero
from methods.unrolled import Unrolled

ITERATED = 3  # layers that are recurrent over iterations alone


class BothWays(nn.Module):
    """The layer that is recurrent over time and iterations (BCRNN-t-i): its states forwards and
    backwards in time, with the same weights, added."""

    def __init__(self, in_channels: int, features: int):
        super().__init__()
        self.of_input = nn.Conv2d(in_channels, features, 3, padding=1)
        self.over_time = nn.Conv2d(features, features, 3, padding=1)
        self.over_iterations = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor, hidden: Tensor, n_frames: int) -> Tensor:
        """Frames (B T, channels, Y, X) and the layer's last output to its next one, (B T, features,
        Y, X)."""
        given = self.of_input(x) + self.over_iterations(hidden)
        frames = given.unflatten(0, (-1, n_frames))
        both = torch.cat((frames, frames.flip(1)))  # (2 B, T, features, Y, X)
        state, states = torch.zeros_like(both[:, 0]), []
        for frame in both.unbind(dim=1):
            state = F.relu(frame + self.over_time(state))
            states.append(state)
        forwards, backwards = torch.stack(states, dim=1).chunk(2)
        return (forwards + backwards.flip(1)).flatten(0, 1)


class Iteration(nn.Module):
    """The layers of an iteration."""

    def __init__(self, parts: int, features: int):
        super().__init__()
        self.both_ways = BothWays(parts, features)
        self.of_input, self.over_iterations = (
            nn.ModuleList(nn.Conv2d(features, features, 3, padding=1) for _ in range(ITERATED))
            for _ in range(2)
        )
        self.project = nn.Conv2d(features, parts, kernel_size=3, padding=1)
        set_zero(self.project)

    def forward(self, x: Tensor, n_frames: int, *hidden: Tensor) -> tuple[Tensor, ...]:
        """Frames (B T, parts, Y, X) and the states of the last iteration to a correction of these
        frames, and the next states."""
        x = self.both_ways(x, hidden[0], n_frames)
        states = [x]
        for of_input, over_iterations, before in zip(
            self.of_input, self.over_iterations, hidden[1:], strict=True
        ):
            x = F.relu(of_input(x) + over_iterations(before))
            states.append(x)
        return self.project(x), *states


class CRNN(Unrolled):
    """Iterations with the same weights and states that are handed on; at least two frames."""

    OWN: ClassVar = {"stages": 5, "features": 64, "strip": 32}
    LEAST_FRAMES = 2  # it is recurrent over time

    def __init__(self, stages: int, features: int, real_image: bool, start: str):
        super().__init__(stages, real_image, start)
        self.features = features
        self.iteration = Iteration(self.parts, features)

    def stage(
        self, number: int, images: Tensor, measured: Measured, memory: list[Tensor] | None
    ) -> tuple[Tensor, list[Tensor]]:
        n_batch, n_frames, ny, nx = images.shape
        x = self.as_channels(images).transpose(1, 2).flatten(0, 1)  # (B T, parts, Y, X)
        if memory is None:
            memory = (1 + ITERATED) * [x.new_zeros(n_batch * n_frames, self.features, ny, nx)]
        correction, *states = run_block(
            self.iteration, x, n_frames, *memory, recompute=self.gradient_checkpointing
        )
        channels = correction.unflatten(0, (-1, n_frames)).transpose(1, 2)
        return measured.enforce(images + self.as_images(channels)), states
