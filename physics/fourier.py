"""The centred Fourier transform of MRI, and undersampling.

Conventions of the whole suite: transforms are orthonormal (they preserve energy) and centred (zero
frequency at index n//2 of k-space, the middle of the field of view at n//2 of the image). Axes are
(..., T, Y, X): frame, phase-encoding line, readout. Everything is computed in float32 or complex64,
whatever the type of the input.

A Cartesian mask samples the readout X fully. The transform along X then cancels, and a mask of
shape (..., Y, 1) is applied with a one-dimensional transform along Y: the same numbers, less work.
"""

import torch
from torch import Tensor


def in_single(x: Tensor) -> Tensor:
    """`x` as complex64 if it is complex, else as float32."""
    return x.to(torch.complex64 if x.is_complex() else torch.float32)


def fftc(image: Tensor, axes: tuple[int, ...] = (-2, -1)) -> Tensor:
    """Centred orthonormal FFT over `axes`: image (real or complex) to k-space, complex64."""
    shifted = torch.fft.ifftshift(in_single(image), dim=axes)
    return torch.fft.fftshift(torch.fft.fftn(shifted, dim=axes, norm="ortho"), dim=axes)


def ifftc(kspace: Tensor, axes: tuple[int, ...] = (-2, -1)) -> Tensor:
    """Inverse, and adjoint, of `fftc`: k-space to image, complex64."""
    shifted = torch.fft.ifftshift(in_single(kspace), dim=axes)
    return torch.fft.fftshift(torch.fft.ifftn(shifted, dim=axes, norm="ortho"), dim=axes)


def undersample(target: Tensor, mask: Tensor) -> Tensor:
    """Aliased image `b = F^-1 U F m` of fully sampled images.

    Args:
        target: m, (..., Y, X), real or complex.
        mask: U, centred, (..., Y, X), or (..., Y, 1) if it is constant along the readout.

    Returns:
        (..., Y, X) complex64. The zero-filled reconstruction is its magnitude.
    """
    axes = (-2,) if mask.shape[-1] == 1 else (-2, -1)
    # Shifting the mask instead of image and k-space gives the same b: the centring of the image
    # only modulates k-space, which commutes with U.
    lines = torch.fft.ifftshift(mask.to(torch.float32), dim=axes)
    kspace = torch.fft.fftn(in_single(target), dim=axes, norm="ortho")
    return torch.fft.ifftn(kspace * lines, dim=axes, norm="ortho")


def split_complex(image: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part, each of the image's shape and float32; zeros for a real image."""
    image = in_single(image)
    if image.is_complex():
        return image.real, image.imag
    return image, torch.zeros_like(image)


def join_complex(real: Tensor, imaginary: Tensor) -> Tensor:
    """Inverse of `split_complex`: a complex64 image of the parts' shape."""
    return torch.complex(in_single(real), in_single(imaginary))
