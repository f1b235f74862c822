"""Data consistency with several coils (SENSE): `y_c = U F S_c m`.

U masks phase-encoding lines and the readout is fully sampled, so the columns of an image are
independent here too: a strip of columns gives the same numbers as the whole image. One coil of
sensitivity 1 gives those of `physics/consistency.py`.

References:
  K. Pruessmann et al., "SENSE: sensitivity encoding for fast MRI", Magn Reson Med 42:952-962, 1999.
  K. Pruessmann et al., "Advances in sensitivity encoding with arbitrary k-space trajectories", Magn
    Reson Med 46:638-651, 2001 (conjugate gradients).
  K. Hammernik et al., "Learning a variational network for reconstruction of accelerated MRI data",
    Magn Reson Med 79:3055-3071, 2018 (gradient steps in a network).
"""

from typing import Any

import torch
from torch import Tensor

from physics.coils import TINY, combine, expand
from physics.consistency import DataConsistency
from physics.fourier import in_single, undersample

CG_STEPS = 8  # of conjugate gradients


def measurement_of(
    aliased: Tensor, mask: Tensor, maps: Tensor | None = None, real_image: bool = False
) -> "DataConsistency | CoilConsistency":
    """The measured lines of image series; of coil images, if there are `maps`."""
    if maps is None:
        return DataConsistency(aliased, mask, real_image)
    if real_image:
        raise ValueError("images of several coils are complex: real_image must be False")
    return CoilConsistency(aliased, mask, maps)


def as_measured(aliased: Tensor, mask: Tensor, maps: Tensor | None) -> tuple[Tensor, ...]:
    """What methods are called with: `(aliased, mask)`, or of several coils `(aliased, mask, maps)`
    (see `model.py`)."""
    return (aliased, mask) if maps is None else (aliased, mask, maps)


def aliased_by(images: Tensor, mask: Tensor, maps: Tensor | None = None) -> Tensor:
    """The aliased image (B, T, Y, X) of fully sampled ones, or with maps the aliased coil images
    (B, T, C, Y, X)."""
    lines = mask if maps is None else mask[:, :, None]
    return undersample(seen_by(images, maps), lines)


def seen_by(images: Tensor, maps: Tensor | None) -> Tensor:
    """Images (B, T, Y, X), or with maps what each coil sees of them, (B, T, C, Y, X)."""
    return images if maps is None else expand(images, maps)


class CoilConsistency:
    """The measured lines of several coils, and steps towards the images that agree with them.

    It is used like a `DataConsistency` of complex images.

    Attributes:
        zero_filled: A^H y, (B, T, Y, X) complex64.
        known: (B, T, 1, Y, 1) bool, ky from 0 upwards, True for measured lines.
    """

    real_image = False

    def __init__(self, aliased: Tensor, mask: Tensor, maps: Tensor):
        """
        Args:
            aliased: coil images F^-1 y, (B, T, C, Y, X) complex64.
            mask: U, (B, T, Y, 1), centred.
            maps: S, (B, C, Y, X) complex64.
        """
        self.aliased, self.maps = in_single(aliased), in_single(maps)
        self.conjugate = self.maps.conj().resolve_conj()
        self.mask = torch.fft.ifftshift(mask.to(torch.float32), dim=-2)
        self.known = self.mask[:, :, None] > 0
        self.zero_filled = combine(self.aliased, self.maps)

    @property
    def lines(self) -> Tensor:
        """(B, T, C, Y, X) complex64, ky from 0 upwards, zero if not measured."""
        return self.known * torch.fft.fft(self.aliased, dim=-2, norm="ortho")

    def transform(self, images: Tensor) -> Tensor:
        """Images (B, T, Y, X) to all lines of all coils, (B, T, C, Y, X)."""
        return torch.fft.fft(expand(in_single(images), self.maps), dim=-2, norm="ortho")

    def inverse(self, lines: Tensor) -> Tensor:
        """Adjoint of `transform`, and its inverse where the maps have norm 1: (B, T, Y, X)."""
        return combine(torch.fft.ifft(lines, dim=-2, norm="ortho"), self.maps)

    def normal(self, images: Tensor) -> Tensor:
        """A^H A m, (B, T, Y, X) complex64, differentiable."""
        return _Normal.apply(in_single(images), self)

    def enforce(self, images: Tensor, weight: Tensor | None = None) -> Tensor:
        """A step along the gradient of the lines' error, `z + l A^H (y - A z)`.

        For a single coil of sensitivity 1 this replaces the measured lines, as `DataConsistency`
        does. Of several coils the lines do not fix the image; further steps come nearer.

        Args:
            images: z, (B, T, Y, X), complex.
            weight: v of the step's length l = v / (1 + v) for noisy lines; None: infinite.
        """
        towards = self.zero_filled - self.normal(images)
        return images + (towards if weight is None else weight / (1 + weight) * towards)

    def descend(self, images: Tensor, gradient: Tensor, step: float) -> Tensor:
        """A step along the negative gradient of `|A m - y|^2 / 2` and another term together."""
        return images - step * (gradient + self.normal(images) - self.zero_filled)

    def apply_normal(self, images: Tensor) -> Tensor:
        """A^H A m without gradient."""
        n_frames = images.shape[1]
        # frame by frame on a CPU, where the coils of one frame fit into its cache
        few = 1 if images.device.type == "cpu" else n_frames
        result = torch.empty_like(images)
        for first in range(0, n_frames, few):
            frames = slice(first, first + few)
            kspace = torch.fft.fft(expand(images[:, frames], self.maps), dim=-2, norm="ortho")
            kspace *= self.mask[:, frames, None]
            coils = torch.fft.ifft(kspace, dim=-2, norm="ortho")
            coils *= self.conjugate[:, None]
            torch.sum(coils, dim=2, out=result[:, frames])
        return result

    def proximal(self, images: Tensor, weight: float | Tensor, n_steps: int = CG_STEPS) -> Tensor:
        """`argmin_m weight |A m - y|^2 + |m - z|^2` for images z (B, T, Y, X), without gradient, by
        conjugate gradients for `(1 + v A^H A) (m - z) = v A^H (y - A z)`.

        Every column has its own step lengths, so that it does not depend on its neighbours.
        """
        residual = weight * (self.zero_filled - self.apply_normal(images))
        return self._solved(images, residual, weight, n_steps)

    def solve(self, images: Tensor, weight: Tensor, n_steps: int) -> Tensor:
        """`proximal`, differentiable in the images and the weight, a tensor of one number: the
        gradient is that of the minimum itself, and so exact if `n_steps` reach it."""
        return _Solve.apply(in_single(images), weight, self, n_steps)

    def _solved(
        self, images: Tensor, residual: Tensor, weight: float | Tensor, n_steps: int
    ) -> Tensor:
        """The images plus `(1 + v A^H A)^-1` of the residual, by conjugate gradients."""
        direction, energy = residual, _dot(residual, residual)
        for _ in range(n_steps):
            applied = direction + weight * self.apply_normal(direction)
            length = energy / _dot(direction, applied).clamp(min=TINY)
            images = images + length * direction
            residual = residual - length * applied
            before, energy = energy, _dot(residual, residual)
            direction = residual + energy / before.clamp(min=TINY) * direction
        return images


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Real part of the inner product of columns, (B, T, 1, X)."""
    return (a.real * b.real + a.imag * b.imag).sum(dim=-2, keepdim=True)


class _Normal(torch.autograd.Function):
    """A^H A, which is its own adjoint: nothing is stored for the backward pass."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, measured: CoilConsistency) -> Tensor:
        ctx.measured = measured
        return measured.apply_normal(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.measured.apply_normal(gradients[0]), None


class _Solve(torch.autograd.Function):
    """`m = (1 + v A^H A)^-1 (z + v A^H y)`. The inverse is its own adjoint: the backward pass is
    the same solve, of the gradient, and nothing of the iterations is stored (H. Aggarwal et al.,
    IEEE Trans Med Imaging 38:394-405, 2019)."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, measured: CoilConsistency, n_steps: int
    ) -> Tensor:
        ctx.measured, ctx.n_steps = measured, n_steps
        solution = measured.proximal(images, weight, n_steps)
        ctx.save_for_backward(solution, weight)
        return solution

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (solution, weight), measured = ctx.saved_tensors, ctx.measured
        (gradient,) = gradients
        zeros = torch.zeros_like(gradient)
        of_images = measured._solved(zeros, gradient, weight, ctx.n_steps)
        change = measured.zero_filled - measured.apply_normal(solution)
        return of_images, _dot(of_images, change).sum(), None, None
