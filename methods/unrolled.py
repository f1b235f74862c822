"""What the field's unrolled networks have in common: stages from a start, with physics in each.

    x = start; for every stage: x = stage(x, measured lines)

`dc_cnn`, `crnn`, `varnet` and `modl` differ in the network of a stage, in how it is brought back to
the measured lines, and in whether stages share weights. Real and imaginary part are two channels of
every frame; with the real-image prior there is one. Convolutions have zeros beyond the image, as in
the papers, along Y too. The last layer of a stage starts at zero, so that training begins at the
start, as that of all networks here; the papers draw it at random.

The physics treats columns separately, so that they may train on strips. A strip of `varnet` is
divided by its own deviation, that of the others has the values of the whole image, off its ends.
"""

import itertools
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from methods.baselines import Measured, zero_filled
from methods.layers import as_convolved, set_zero
from methods.start import ZERO_FILLED, initial_images
from physics.fourier import join_complex, split_complex
from physics.sense import measurement_of


class Unrolled(nn.Module, ABC):
    """A network of `stages` stages; called like all networks (see `model.py`).

    With `real_image` the images are real throughout, and the output is real and signed; otherwise
    it is complex64.
    """

    def __init__(self, stages: int, real_image: bool, start: str):
        super().__init__()
        self.n_stages, self.real_image, self.start = stages, real_image, start
        self.parts = 1 if real_image else 2
        self.gradient_checkpointing = False  # recompute activations in the backward pass

    def forward(
        self, aliased: Tensor, mask: Tensor, maps: Tensor | None = None, start: Tensor | None = None
    ) -> Tensor:
        return self.by_stage(aliased, mask, maps, start)[-1]

    def by_stage(
        self, aliased: Tensor, mask: Tensor, maps: Tensor | None = None, start: Tensor | None = None
    ) -> list[Tensor]:
        """The reconstructions after each stage; the last one is the network's."""
        measured = measurement_of(aliased, mask, maps, self.real_image)
        with torch.no_grad():
            if start is not None:
                images = start
            elif self.start == ZERO_FILLED:
                images = zero_filled(measured)
            else:
                images = initial_images(self.start, measured)
            memory = self.prepared(measured, images)
        reconstructions = []
        for number in range(self.n_stages):
            images, memory = self.stage(number, images, measured, memory)
            reconstructions.append(images)
        return reconstructions

    def prepared(self, measured: Measured, start: Tensor) -> Any:
        """The memory that the first stage gets; without gradient."""
        return None

    @abstractmethod
    def stage(
        self, number: int, images: Tensor, measured: Measured, memory: Any
    ) -> tuple[Tensor, Any]:
        """The images (B, T, Y, X) after a stage, and the memory that the next one gets."""

    def as_channels(self, *images: Tensor) -> Tensor:
        """Real images, or the two parts of complex ones, as channels: (B, parts, T, Y, X), in the
        type of the convolutions."""
        parts = images if self.real_image else sum(map(split_complex, images), ())
        return as_convolved(torch.stack(parts, dim=1))

    def as_images(self, channels: Tensor) -> Tensor:
        """Inverse of `as_channels` for one series: (B, T, Y, X), float32 or complex64."""
        parts = channels.float().unbind(dim=1)
        return parts[0] if self.real_image else join_complex(*parts)


def convolutions(
    in_channels: int, features: int, out_channels: int, layers: int, batch_norm: bool = False
) -> nn.Sequential:
    """Layers of 3 x 3 x 3 convolutions over (T, Y, X), with ReLU between them; the last starts at
    zero. With `batch_norm` there is one after all but the last."""
    widths = [in_channels, *[features] * (layers - 1), out_channels]
    parts: list[nn.Module] = []
    for number, (before, after) in enumerate(itertools.pairwise(widths), start=1):
        last = number == layers
        parts.append(nn.Conv3d(before, after, 3, padding=1, bias=last or not batch_norm))
        if not last:
            parts += [nn.BatchNorm3d(after)] if batch_norm else []
            parts.append(nn.ReLU(inplace=True))
    set_zero(parts[-1])
    return nn.Sequential(*parts)
