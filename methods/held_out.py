"""Measured lines that are held out: what predicts them well predicts lines that were not measured.

Most measured lines are near the centre of k-space, and those that were not are elsewhere. So the
error of a line is weighted by the inverse of how often its frequency is measured (inverse
probability weighting). Images are (B, T, Y, X), of coils (B, T, C, Y, X); lines are (B, T, Y, 1),
centred.

References: C. Millard and M. Chiew, "A theoretical framework for self-supervised MR image
reconstruction using sub-sampling via variable density Noisier2Noise", IEEE Trans Comput Imaging
9:707-720, 2023 (`hide`).
S. Ramani, T. Blu and M. Unser, "Monte-Carlo SURE: a black-box optimization of regularization
parameters for general denoising algorithms", IEEE Trans Image Process 17:1540-1554, 2008
(`given_error`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from CS_mask import hermitian_mirror
from physics.fourier import in_single, undersample

HELD_OUT = 0.1  # of the lines outside the centre
SMALLEST_CENTRE = 3  # lines around zero frequency that are never held out
SMOOTH = 4.0  # lines over which the weight is smoothed
RAREST = 0.02  # share of the frames of a series that measure a line, at least
LEAST_OFTEN = 0.005  # the same, for a loss of which many series have a share
PROBE = 0.1  # of the noise: a change that single precision resolves, and a network takes linearly


def hide(
    mask: Tensor, share: float, real_image: bool, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Hide a share of the measured lines outside the centre of one series, for training without the
    truth.

    A network gets the other lines, and its error is that of the hidden ones. With h the share, p
    how often a line is measured, and u how often it is known, by itself or by its partner, a line
    is hidden with probability p h, and is missing in what the network gets with probability
    1 - u (1 - h). The error of a hidden line is weighted with the ratio of the two: its expectation
    is then the error of all that is missing, of lines that are independent of one another (Millard
    and Chiew, 2023). p and u are counted in the frames of the series and smoothed over frequencies;
    p is at least `LEAST_OFTEN`.

    Args:
        mask: (1, T, Y, 1), centred.
        real_image: a line determines its conjugate-symmetric partner.

    Returns:
        the lines that the network gets, and the weights of the hidden ones, 0 elsewhere; both
        (1, T, Y, 1) float32.
    """
    either = torch.maximum(mask, hermitian_mirror(mask)) if real_image else mask
    outside = ~centre_lines(mask, real_image)
    often, known = (_smooth(lines.mean(dim=1, keepdim=True), outside) for lines in (mask, either))
    weight = (1 - known * (1 - share)) / (share * often.clamp(min=LEAST_OFTEN))
    lines = mask.bool() & outside
    hidden = lines & random_lines(lines, share, rng)
    return mask * ~hidden, hidden * weight


def hidden_error(images: Tensor, measured: Tensor, weight: Tensor) -> Tensor:
    """The weighted squared error of hidden lines per pixel, (B,), an estimate of the mean squared
    error of the images: without that of lines that a network got.

    Args:
        images: (B, T, Y, X), or coil images (B, T, C, Y, X), whose errors are added.
        measured: the same, aliased by all measured lines.
        weight: (B, T, Y, 1) or (B, T, 1, Y, 1), centred; see `hide`.
    """
    difference = torch.fft.fft(in_single(images) - in_single(measured), dim=-2, norm="ortho")
    energy = torch.fft.ifftshift(weight, dim=-2) * difference.abs().square()
    n_pixels = images.shape[1] * images.shape[-2] * images.shape[-1]
    return energy.flatten(1).sum(dim=1) / n_pixels


def given_error(
    images: Tensor, again: Tensor, measured: Tensor, change: Tensor, lines: Tensor
) -> Tensor:
    """Stein's unbiased estimate (SURE) of the squared error per pixel, (B,), of the lines that a
    network got with noise.

    Of n real numbers y with noise of deviation s, of which the network makes f(y), it is
    |f(y) - y|^2 - n s^2 + 2 s^2 div f(y). The divergence is b (f(y + e b) - f(y)) / e in
    expectation, for white noise b of deviation 1 (Ramani et al., 2008). Here e is `PROBE` s, so
    that the change e b tells s. Lines known through their partner alone do not count.

    Args:
        images, again: f(y) and f(y + e b), (B, T, Y, X), or coil images (B, T, C, Y, X).
        measured: y, the same aliased by all measured lines.
        change: e b, the same.
        lines: the lines that the network got, (B, T, Y, 1) or (B, T, 1, Y, 1), centred.
    """
    got = torch.fft.ifftshift(lines, dim=-2)

    def kspace(values: Tensor) -> Tensor:
        return got * torch.fft.fft(in_single(values), dim=-2, norm="ortho")

    probe, moved = kspace(change), kspace(again - images)
    energy = kspace(images - measured).abs().square()
    energy = energy + (2 * (probe.conj() * moved).real - probe.abs().square()) / PROBE**2
    n_pixels = images.shape[1] * images.shape[-2] * images.shape[-1]
    return energy.flatten(1).sum(dim=1) / n_pixels


@dataclass
class HeldOut:
    """A share of the measured lines held out; lines are (1, T, Y, 1), centred."""

    lines: Tensor  # bool: those held out
    seen: Tensor  # float32: the others
    # (1, T, Y, X) complex64: the images aliased by the others; of coils (1, T, C, Y, X)
    given: Tensor
    outside: Tensor  # bool: all measured lines outside the centre
    often: Tensor  # (1, 1, Y, 1): share of the frames that measured a line


def hold_out(
    aliased: Tensor,
    mask: Tensor,
    maps: Tensor | None,
    real_image: bool,
    rng: np.random.Generator,
    share: float = HELD_OUT,
) -> HeldOut:
    """Hold out a share of the lines outside the centre of one series, (1, T, Y, X) or of coils
    (1, T, C, Y, X), at least one of them; `real_image`: a line determines its conjugate-symmetric
    partner."""
    outside = mask.bool() & ~centre_lines(mask, real_image)
    lines = outside & random_lines(outside, share, rng)
    if outside.any() and not lines.any():
        lines = _one_of(outside, rng)
    seen = mask * ~lines
    given = undersample(aliased, of_coils(seen, maps))
    often = mask.mean(dim=1, keepdim=True)
    if real_image:
        often = torch.maximum(often, hermitian_mirror(often))
    return HeldOut(lines, seen, given, outside, often)


def _one_of(lines: Tensor, rng: np.random.Generator) -> Tensor:
    """One of some lines (1, T, Y, 1) bool, with its conjugate-symmetric partner if that is among
    them."""
    places = lines.nonzero()
    one = torch.zeros_like(lines)
    one[tuple(places[rng.integers(len(places))])] = True
    return (one | hermitian_mirror(one)) & lines


def line_weights(often: Tensor) -> Tensor:
    """The weight of the error of each line, (1, 1, Y, 1): the inverse of how often its frequency is
    measured, `often`, smoothed over frequencies; at most `1 / RAREST`."""
    return 1 / _smooth(often, torch.ones_like(often, dtype=torch.bool)).clamp(min=RAREST)


def _smooth(often: Tensor, lines: Tensor) -> Tensor:
    """Values of each line (1, 1, Y, 1), smoothed over some `lines`, bool of that shape; 1 for the
    others."""
    line = torch.arange(often.shape[2], dtype=torch.float32, device=often.device)
    near = (-0.5 * ((line[:, None] - line) / SMOOTH) ** 2).exp() * lines[0, 0, :, 0]
    smooth = (near / near.sum(dim=1, keepdim=True).clamp(min=1e-30)) @ often
    return torch.where(lines, smooth, 1.0)


def of_coils(lines: Tensor, maps: Tensor | None) -> Tensor:
    """Lines (B, T, Y, 1) as those of coil images, (B, T, 1, Y, 1), if there are maps."""
    return lines if maps is None else lines[:, :, None]


def line_errors(images: Tensor, others: Tensor, weight: Tensor) -> Tensor:
    """The part of each line, zero frequency first, in the mean squared difference of some lines of
    images (B, T, Y, X), real or complex, or coil images (B, T, C, Y, X).

    `weight`: (B, T, Y, 1) or (B, T, 1, Y, 1), centred; of each line, 0 for those that do not count.
    In orthonormal k-space the sum is the error per pixel that these lines contribute, if all lines
    had as much.
    """
    difference = torch.fft.fft(in_single(images) - in_single(others), dim=-2, norm="ortho")
    energy = torch.fft.ifftshift(weight, dim=-2) * difference.abs().square()
    return energy.sum(dim=-1) / (weight.sum().clamp(min=1e-9) * images.shape[-1])


def line_error(images: Tensor, others: Tensor, weight: Tensor) -> Tensor:
    """The mean squared difference of some lines; see `line_errors`."""
    return line_errors(images, others, weight).sum()


def centre_lines(mask: Tensor, real_image: bool) -> Tensor:
    """The lines around zero frequency that all frames measured, (1, 1, Y, 1) bool, at least
    `SMALLEST_CENTRE`; with their partners, if images are real-valued."""
    ny = mask.shape[-2]
    always = mask.bool().all(dim=1)[0, :, 0].tolist()
    first = end = ny // 2
    while end < ny and always[end]:
        end += 1
    while first > 0 and always[first - 1]:
        first -= 1
    centre = torch.zeros(ny, dtype=torch.bool, device=mask.device)
    centre[first:end] = True
    half = SMALLEST_CENTRE // 2
    centre[max(0, ny // 2 - half) : ny // 2 + half + 1] = True
    lines = centre[None, None, :, None]
    return lines | hermitian_mirror(lines) if real_image else lines


def random_lines(lines: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Random lines of every frame, (1, T, Y, 1) bool, a line and its conjugate-symmetric partner
    always together: with the real-image prior one gives the other."""
    n_frames, ny = lines.shape[1:3]
    frequency = (torch.arange(ny) - ny // 2).abs()  # 0 to Y // 2
    chosen = torch.from_numpy(rng.random((n_frames, ny // 2 + 1)) < share)
    return chosen[:, frequency][None, ..., None].to(lines.device)
