"""Shrinkage of image series in small patches, the steps of `patch_sparse` and `patch_low_rank`.

A real series (B, T, Y, X) is divided into square patches of pixels, each with all frames. In a
patch few coefficients of a transform in space and time hold the image, while what undersampling
leaves spreads over all: small coefficients are shrunk, large ones stay. The grid of patches lies at
a cyclic shift that differs from step to step (cycle spinning), so that its seams leave no trace.
Where the patches do not divide the image, the last ones continue at the opposite edge, and of what
they give there twice the first counts.

A coefficient c becomes `c max(0, 1 - t^2 / |c|^2)`, the non-negative garrote: nothing remains at
the threshold t, nearly all far above, where a soft threshold takes t from every one.

References:
  R. Coifman, D. Donoho, "Translation-invariant de-noising", Wavelets and Statistics, Lecture Notes
    in Statistics 103:125-150, 1995 (cycle spinning).
  L. Breiman, "Better subset regression using the nonnegative garrote", Technometrics 37:373-384,
    1995; H.-Y. Gao, "Wavelet shrinkage denoising using the non-negative garrote", J Comput Graph
    Stat 7:469-488, 1998.
  M. Lustig et al., "k-t SPARSE: high frame rate dynamic MRI exploiting spatio-temporal sparsity",
    ISMRM 2006 (a transform in space and temporal frequency).
  J. Caballero et al., "Dictionary learning and time sparsity for dynamic MR data reconstruction",
    IEEE Trans Med Imaging 33:979-994, 2014 (patches).
  J. Trzasko, A. Manduca, "Local versus global low-rank promotion in dynamic MRI series
    reconstruction", ISMRM 2011; T. Zhang, J. Pauly, I. Levesque, "Accelerating parameter mapping
    with a locally low rank constraint", Magn Reson Med 73:655-661, 2015 (a temporal basis for every
    block).
  L. Zhang et al., "Two-stage image denoising by principal component analysis with local pixel
    grouping", Pattern Recognit 43:1531-1549, 2010 (shrinkage of local principal components).
"""

import contextlib
import math
from functools import lru_cache

import torch
from torch import Tensor

PATCH = 4  # pixels along each axis of the patches with a fixed temporal transform
BLOCK, BLOCK_PATCH = 12, 6  # pixels of the blocks with a temporal basis of their own; their patches
FINE_WEIGHT = 0.7  # threshold of the finest detail along each axis, relative to the coarsest
GOLDEN = 1.32471795724474602596  # its powers give well-spread points in the plane (Roberts, 2018)

TINY = torch.finfo(torch.float32).tiny


def shift_of(step: int, size: int) -> tuple[int, int]:
    """The shift of a grid of patches of `size` pixels in a step: along Y and X, 0 to size - 1.

    The shifts of successive steps cover the patch evenly, and are the same for all series.
    """
    y, x = ((step + 0.5) / GOLDEN % 1, (step + 0.5) / GOLDEN**2 % 1)
    return int(y * size), int(x * size)


def shrink_patches(
    images: Tensor,
    threshold: float | Tensor,
    shift: tuple[int, int],
    mean_weight: float = 1.0,
    harmonic_power: float = 0.0,
) -> Tensor:
    """Shrink the coefficients of patches of 4 x 4 pixels in space and temporal frequency.

    The transform is the orthonormal DCT of every patch times the orthonormal temporal FFT.

    Args:
        images: (B, T, Y, X) float32, of a peak of about 1.
        threshold: that of the coarsest detail; it falls to half for the finest, as the signal does.
            One for all series, or for each, (B, 1, 1).
        shift: of the grid, in pixels; see `shift_of`.
        mean_weight: relative threshold of the temporal mean.
        harmonic_power: the relative threshold of harmonic h of the heartbeat is h to this power.
    """
    transform = temporal_transform(images.shape[1])
    basis, paired, harmonic = (part.to(images.device) for part in transform)
    space = patch_transform(PATCH).to(images)
    weight = torch.where(harmonic > 0, harmonic.clamp(min=1) ** harmonic_power, mean_weight)

    pixels = patches_of(images, PATCH, PATCH, shift)  # (B, T, N P)
    n_patches = pixels.shape[2] // PATCH**2
    limits = threshold * weight[:, None] * fineness(PATCH, n_patches).to(images.device)  # (T, N P)
    coefficients = _times(basis @ pixels, space.T)
    energy = paired @ coefficients.square()
    coefficients = coefficients * garrote(energy, limits)
    pixels = basis.mT @ _times(coefficients, space)
    return joined(pixels, images.shape, PATCH, PATCH, shift)


def shrink_components(images: Tensor, threshold: float | Tensor, shift: tuple[int, int]) -> Tensor:
    """Shrink the coefficients of blocks of 12 x 12 pixels in their own temporal components.

    A block as a matrix (T, 144) has low rank: its pixels share few courses over time. These, the
    left singular vectors, are its temporal basis, found as eigenvectors of the Gram matrix (T, T);
    in space each component is transformed by the DCT of patches of 6 x 6. Components that the
    image does not need have small coefficients only, and vanish.

    `images`, `threshold`, `shift`: as in `shrink_patches`.
    """
    space = patch_transform(BLOCK_PATCH).to(images)
    inside = (BLOCK // BLOCK_PATCH) ** 2  # patches in a block
    limits = threshold * fineness(BLOCK_PATCH, inside).to(images.device)  # (144,) or (B, 1, 144)
    limits = limits if limits.dim() == 1 else limits[:, None]

    pixels = patches_of(images, BLOCK, BLOCK_PATCH, shift).unflatten(2, (-1, BLOCK**2))
    blocks = pixels.transpose(1, 2).contiguous()  # (B, N, T, 144)
    basis = eigenvectors(blocks @ blocks.mT)  # (B, N, T, T)
    coefficients = _times(basis.mT @ blocks, space.T)
    coefficients = coefficients * garrote(coefficients.square(), limits)
    blocks = basis @ _times(coefficients, space)
    pixels = blocks.transpose(1, 2).flatten(2)
    return joined(pixels, images.shape, BLOCK, BLOCK_PATCH, shift)


def _times(pixels: Tensor, matrix: Tensor) -> Tensor:
    """Pixels (..., N P), patch by patch, times a matrix (P, P)."""
    return (pixels.unflatten(-1, (-1, len(matrix))) @ matrix).flatten(-2)


def garrote(energy: Tensor, threshold: Tensor) -> Tensor:
    """The factor `max(0, 1 - t^2 / e)` for energies e = |c|^2 and thresholds t."""
    one = torch.ones((), device=energy.device)
    return torch.addcdiv(one, threshold.square(), energy.clamp(min=TINY), value=-1).clamp(min=0)


def eigenvectors(matrices: Tensor) -> Tensor:
    """Eigenvectors of symmetric matrices (..., T, T), in columns; computed on the CPU where the
    device has no eigensolver (mps).

    In single precision LAPACK fails on some matrices of rank 1, such as those of a background that
    is the same in all frames, and gives NaN for some of black blocks, whose values are denormal;
    then all are taken in double precision.
    """
    if matrices.is_meta:  # costs are being counted
        return matrices
    on = matrices if matrices.device.type in ("cpu", "cuda") else matrices.cpu()
    vectors = None
    with contextlib.suppress(torch.linalg.LinAlgError):
        vectors = torch.linalg.eigh(on).eigenvectors
    if vectors is None or not vectors.isfinite().all():
        vectors = torch.linalg.eigh(on.double()).eigenvectors
    return vectors.to(matrices)


def patches_of(images: Tensor, block: int, patch: int, shift: tuple[int, int]) -> Tensor:
    """The pixels of images (B, T, Y, X) in the order block, patch, pixel: (B, T, N block^2).

    Blocks of `block` x `block` pixels begin at `shift`, and each is divided into patches.
    """
    n_samples, n_frames, *shape = images.shape
    there, _ = patch_pixels(tuple(shape), block, patch)
    moved = torch.arange(math.prod(shape)).view(*shape)
    moved = moved.roll((-shift[0], -shift[1]), dims=(0, 1)).flatten()[there].to(images.device)
    pixels = images.reshape(n_samples * n_frames, -1).index_select(1, moved)
    return pixels.view(n_samples, n_frames, -1)


def joined(
    pixels: Tensor, shape: torch.Size, block: int, patch: int, shift: tuple[int, int]
) -> Tensor:
    """The inverse of `patches_of`: pixels to images of a shape (B, T, Y, X)."""
    _, back = patch_pixels(tuple(shape[2:]), block, patch)
    moved = back.roll(shift, dims=(0, 1)).flatten().to(pixels.device)
    return pixels.flatten(0, 1).index_select(1, moved).view(shape)


@lru_cache(maxsize=64)
def patch_pixels(shape: tuple[int, int], block: int, patch: int) -> tuple[Tensor, Tensor]:
    """The pixels of all patches of an image (Y, X), and where each pixel is among them.

    Returns:
        indices (N block^2,) of the flat image, in the order block, patch, pixel; and the inverse
        (Y, X), which of the pixels that are there twice takes the first.
    """
    ny, nx = shape
    rows, columns = (torch.arange(math.ceil(n / block) * block) for n in shape)
    inside = block // patch

    def in_patches(grid: Tensor) -> Tensor:
        parts = grid.view(len(rows) // block, inside, patch, len(columns) // block, inside, patch)
        return parts.permute(0, 3, 1, 4, 2, 5).flatten()

    there = in_patches(rows[:, None] % ny * nx + columns % nx)
    cells = torch.arange(len(there)).view(len(rows), len(columns))
    back = in_patches(cells).argsort().view_as(cells)[:ny, :nx]
    return there, back


@lru_cache(maxsize=64)
def temporal_transform(n_frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """The orthonormal temporal Fourier transform of real series, as a matrix.

    Returns:
        its rows (T, T), cosines and sines; the matrix (T, T) that takes c^2 to its mean over the
        pair of a cosine and a sine, which is the |c|^2 of the complex wave; and the number of the
        harmonic of each row, (T,).
    """
    times = torch.arange(n_frames, dtype=torch.float64) / n_frames
    number = torch.arange(n_frames)
    harmonic = (number + 1) // 2  # mean, cosine and sine of 1, of 2, ...; at last T / 2
    phase = 2 * math.pi * harmonic[:, None] * times
    rows = torch.where(number[:, None] % 2 == 1, phase.cos(), phase.sin())
    rows[0] = 1
    twice = (2 * harmonic) % n_frames != 0  # a wave of two rows
    rows = rows * torch.where(twice, math.sqrt(2), 1.0)[:, None]
    same = harmonic == harmonic[:, None]
    paired = torch.where(same, torch.where(twice, 0.5, 1.0)[:, None], 0.0)
    return (rows / math.sqrt(n_frames)).float(), paired.float(), harmonic.float()


@lru_cache(maxsize=64)
def patch_transform(size: int) -> Tensor:
    """The orthonormal DCT of patches, as a matrix (P, P) for P = size^2 pixels."""
    number = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi * number[:, None] * (number + 0.5) / size) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return torch.kron(rows, rows).float()


@lru_cache(maxsize=64)
def fineness(size: int, n_patches: int) -> Tensor:
    """Relative thresholds (N P,) of the coefficients of N patches, which fall along each axis."""
    axis = torch.linspace(1, FINE_WEIGHT, size)
    return (axis[:, None] * axis).flatten().repeat(n_patches)
