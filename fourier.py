"""The Fourier transform of MRI, undersampling with it, and consistency with what was measured.

Conventions, stated here once: transforms are orthonormal (energy is kept) and centred (zero
frequency at index n//2 of k-space, the middle of the field of view at n//2 of the image). Axes are
(..., T, Y, X): frame, phase-encoding line, readout. Everything is computed in float32 / complex64,
whatever comes in.

A Cartesian mask samples the readout X fully. The transform along X then cancels, and a mask of
shape (..., Y, 1) is applied with a one-dimensional transform along Y: the same numbers, less work.
"""

import torch
from torch import Tensor


def _single(x: Tensor) -> Tensor:
    return x.to(torch.complex64 if x.is_complex() else torch.float32)


def fftc(image: Tensor, axes: tuple[int, ...] = (-2, -1)) -> Tensor:
    """Centred orthonormal FFT over `axes`: image (real or complex) to k-space, complex64."""
    shifted = torch.fft.ifftshift(_single(image), dim=axes)
    return torch.fft.fftshift(torch.fft.fftn(shifted, dim=axes, norm="ortho"), dim=axes)


def ifftc(kspace: Tensor, axes: tuple[int, ...] = (-2, -1)) -> Tensor:
    """Inverse, and adjoint, of `fftc`: k-space to image, complex64."""
    shifted = torch.fft.ifftshift(_single(kspace), dim=axes)
    return torch.fft.fftshift(torch.fft.ifftn(shifted, dim=axes, norm="ortho"), dim=axes)


def undersample(target: Tensor, mask: Tensor) -> Tensor:
    """Aliased image `b = F^-1 U F m` of fully sampled images.

    Args:
        target: m, (..., Y, X), real or complex.
        mask: U, centred, (..., Y, X), or (..., Y, 1) where all of the readout is sampled alike.

    Returns:
        (..., Y, X) complex64. Zero-filled reconstruction is its magnitude.
    """
    axes = (-2,) if mask.shape[-1] == 1 else (-2, -1)
    # Shifting the mask instead of image and k-space gives the same b: the centring of the image
    # only modulates k-space, which commutes with U.
    lines = torch.fft.ifftshift(mask.to(torch.float32), dim=axes)
    kspace = torch.fft.fftn(_single(target), dim=axes, norm="ortho")
    return torch.fft.ifftn(kspace * lines, dim=axes, norm="ortho")


class Measured:
    """The measured lines of image series, and consistency with them.

    The readout is fully sampled, so everything is done in (ky, x) space: every column of an image
    is a problem of its own, and a strip of columns gives the same numbers as the whole image.

    With `real_image` the images are taken to be real. Then each column has a Hermitian spectrum,
    `F(-ky) = conj F(ky)`: a measured line tells its mirror line, the lines 0 to Y//2 tell all, and
    where both of a pair were measured their mean is taken. True for magnitude images, wrong for
    images with a phase.

    Attributes:
        lines: (B, T, K, X) complex64, ky from 0 upwards (not centred), zero where not known; K is
            Y, or Y//2 + 1 for real images.
        known: (B, T, K, 1) bool.
    """

    def __init__(self, aliased: Tensor, mask: Tensor, real_image: bool):
        """Take the measured lines out of `aliased` (B, T, Y, X), given its centred `mask`
        (B, T, Y, 1)."""
        self.ny, self.real_image = aliased.shape[-2], real_image
        count = torch.fft.ifftshift(mask.to(torch.float32), dim=-2)
        lines = count * torch.fft.fft(_single(aliased), dim=-2, norm="ortho")
        if real_image:
            own = torch.arange(self.ny // 2 + 1, device=mask.device)
            mirror = -own % self.ny
            lines = lines[..., own, :] + lines[..., mirror, :].conj()
            count = count[..., own, :] + count[..., mirror, :]
        self.lines = lines / count.clamp(min=1)
        self.known = count > 0

    def transform(self, images: Tensor) -> Tensor:
        """Images (B, T, Y, X) to lines (B, T, K, X)."""
        if self.real_image:
            return torch.fft.rfft(_single(images.real), dim=-2, norm="ortho")
        return torch.fft.fft(_single(images), dim=-2, norm="ortho")

    def inverse(self, lines: Tensor) -> Tensor:
        """Inverse of `transform`: (B, T, Y, X), float32 for real images, else complex64."""
        if self.real_image:
            return torch.fft.irfft(lines, n=self.ny, dim=-2, norm="ortho")
        return torch.fft.ifft(lines, dim=-2, norm="ortho")

    def consistent(self, images: Tensor, weight: Tensor | None = None) -> Tensor:
        """The images with their known lines replaced by the measured ones.

        Args:
            images: (B, T, Y, X), real or complex; never a magnitude of complex images.
            weight: v of `(k + v k0) / (1 + v)` for noisy measurements k0 (J. Schlemper et al.,
                IEEE Trans Med Imaging 37:491-503, 2018, eq. 7); None: infinite, k0 as it is.
        """
        lines = self.transform(images)
        kept = self.lines if weight is None else (lines + weight * self.lines) / (1 + weight)
        return self.inverse(torch.where(self.known, kept, lines))


def split_complex(image: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part, each of the image's shape and float32; zeros for a real image."""
    image = _single(image)
    if image.is_complex():
        return image.real, image.imag
    return image, torch.zeros_like(image)


def join_complex(real: Tensor, imaginary: Tensor) -> Tensor:
    """Inverse of `split_complex`: a complex64 image of the parts' shape."""
    return torch.complex(_single(real), _single(imaginary))
