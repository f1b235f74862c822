"""Data consistency: putting the measured k-space lines back into estimated images.

The readout is fully sampled, so everything is computed in (ky, x) space: the columns of an image
are independent, and a strip of columns gives the same numbers as the whole image.

Reference: J. Schlemper et al., "A deep cascade of convolutional neural networks for dynamic MR
image reconstruction", IEEE Trans Med Imaging 37:491-503, 2018.
"""

import torch
from torch import Tensor

from physics.fourier import in_single


class DataConsistency:
    """The measured lines of image series, and the projection onto the images that agree with them.

    With `real_image` the images are assumed to be real-valued. Each column then has a Hermitian
    spectrum, `F(-ky) = conj F(ky)`: a measured line also gives its conjugate-symmetric partner, and
    the lines 0 to Y//2 determine the column. If both lines of a pair were measured, their mean is
    used. The assumption holds for magnitude images and is wrong for images with a phase.

    Attributes:
        lines: (B, T, K, X) complex64, ky from 0 upwards (not centred), zero if not known; K is Y,
            or Y//2 + 1 for real images.
        known: (B, T, K, 1) bool, True for measured lines and those that follow by symmetry.
    """

    def __init__(self, aliased: Tensor, mask: Tensor, real_image: bool):
        """Take the measured lines out of `aliased` (B, T, Y, X), given its centred `mask`
        (B, T, Y, 1)."""
        self.ny, self.real_image = aliased.shape[-2], real_image
        count = torch.fft.ifftshift(mask.to(torch.float32), dim=-2)
        lines = count * torch.fft.fft(in_single(aliased), dim=-2, norm="ortho")
        if real_image:
            first = torch.arange(self.ny // 2 + 1, device=mask.device)
            partner = -first % self.ny
            lines = lines[..., first, :] + lines[..., partner, :].conj()
            count = count[..., first, :] + count[..., partner, :]
        self.lines = lines / count.clamp(min=1)
        self.known = count > 0

    def transform(self, images: Tensor) -> Tensor:
        """Images (B, T, Y, X) to lines (B, T, K, X)."""
        if self.real_image:
            return torch.fft.rfft(in_single(images.real), dim=-2, norm="ortho")
        return torch.fft.fft(in_single(images), dim=-2, norm="ortho")

    def inverse(self, lines: Tensor) -> Tensor:
        """Inverse of `transform`: (B, T, Y, X), float32 for real images, else complex64."""
        if self.real_image:
            return torch.fft.irfft(lines, n=self.ny, dim=-2, norm="ortho")
        return torch.fft.ifft(lines, dim=-2, norm="ortho")

    def enforce(self, images: Tensor, weight: Tensor | None = None) -> Tensor:
        """The images with their known lines replaced by the measured ones.

        Args:
            images: (B, T, Y, X), real or complex; never a magnitude of complex images.
            weight: v of `(k + v k0) / (1 + v)` for noisy measurements k0 (Schlemper et al., eq. 7);
                None: infinite, the lines become k0.
        """
        lines = self.transform(images)
        combined = self.lines if weight is None else (lines + weight * self.lines) / (1 + weight)
        return self.inverse(torch.where(self.known, combined, lines))

    def solve(self, images: Tensor, weight: Tensor, n_steps: int) -> Tensor:
        """`argmin_m weight |A m - y|^2 + |m - z|^2` for images z (B, T, Y, X), differentiable in z
        and the weight; in closed form. With `real_image` A has the known lines, those that follow
        by symmetry too. `n_steps`: of `CoilConsistency.solve`."""
        return self.enforce(images, weight)

    def descend(self, images: Tensor, gradient: Tensor, step: float) -> Tensor:
        """A step along the negative gradient of another term, then the projection."""
        return self.enforce(images - step * gradient)
