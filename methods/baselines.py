"""Training-free reconstructions: the baselines of the networks.

Each takes the `DataConsistency` of image series in [0, 1], which holds their measured lines, and
returns the images (B, T, Y, X): real with the real-image prior, else complex. Their magnitude is
scored. Measured lines are never changed, even if they are noisy, unless a method says so; the
methods differ in how they fill the missing lines. Of several coils (`CoilConsistency`) no image
agrees with all lines: a projection becomes a step towards those that come nearest, and the methods
are the SENSE versions. Frames are cyclic (see `dataset.py`). The iterative methods start from view
sharing; their parameters are searched on training samples (`evaluation/tuning.py`).

References:
  Hermitian completion: D. Feinberg et al., "Halving MR imaging time by conjugation: demonstration
    at 3.5 kG", Radiology 161:527-531, 1986.
  view sharing: R. Jones et al., "K-space substitution: a novel dynamic imaging technique", Magn
    Reson Med 29:830-834, 1993.
  CG-SENSE: K. Pruessmann et al., "Advances in sensitivity encoding with arbitrary k-space
    trajectories", Magn Reson Med 46:638-651, 2001.
  k-t sparse: M. Lustig et al., "k-t SPARSE: high frame rate dynamic MRI exploiting spatio-temporal
    sparsity", ISMRM 2006; by projections onto convex sets (POCS) with a falling threshold.
  temporal total variation: L. Feng et al., "Golden-angle radial sparse parallel MRI (GRASP)", Magn
    Reson Med 72:707-717, 2014, solved with A. Chambolle and T. Pock, "A first-order primal-dual
    algorithm for convex problems", J Math Imaging Vis 40:120-145, 2011; of several coils with L.
    Condat, "A primal-dual splitting method for convex optimization involving Lipschitzian,
    proximable and linear composite terms", J Optim Theory Appl 158:460-479, 2013.
  low rank plus sparse: R. Otazo et al., "Low-rank plus sparse matrix decomposition for accelerated
    dynamic MRI with separation of background and dynamic components", Magn Reson Med 73:1125-1136,
    2015.
  patches of complex images: the phase of the low-resolution image is removed, as in homodyne
    reconstruction of partial Fourier: D. Noll, D. Nishimura, A. Macovski, "Homodyne detection in
    magnetic resonance imaging", IEEE Trans Med Imaging 10:154-163, 1991; E. Haacke, E. Lindskog, W.
    Lin, "A fast, iterative, partial-Fourier technique capable of local phase recovery", J Magn
    Reson 92:126-145, 1991 (POCS).
  patch sparse, patch low rank: see `methods/patches.py`; momentum after Y. Nesterov, "A method for
    solving the convex programming problem with convergence rate O(1/k^2)", Soviet Math Dokl
    27:372-376, 1983.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from methods.arguments import require_measured
from methods.patches import BLOCK, PATCH, shift_of, shrink_components, shrink_patches
from physics.consistency import DataConsistency
from physics.fourier import fftc, ifftc, join_complex, split_complex
from physics.noise import noise_level
from physics.sense import CoilConsistency, measurement_of

# (aliased, mask) to images, as networks are called; of several coils (aliased, mask, maps)
Method = Callable[..., Tensor]
Measured = DataConsistency | CoilConsistency
Level = float | Tensor  # a threshold, or one for each sample, (B, 1, 1)
Rule = Callable[[Tensor, Level, int], Tensor]  # (real images, threshold, turn) to shrunk ones

N_STEPS = 60  # of every iterative method but those with patches
# Primal and dual step of temporal TV. Their product times the squared norm of the difference
# operator, 4, is 1; with several coils, `1 / TV - 4 TV` is half of the squared norm of A, 1.
TV_STEP, COIL_TV_STEP = 0.5, 0.44
FALL = 0.01  # ratio of the last threshold to the first
PATCH_STEPS = 48  # of patch_sparse
PHASE_RESOLUTION = 1 / 3  # of the phase that is removed from complex images
IN_NOISE = 0.7  # last threshold of the methods with patches, at least, relative to the noise
MOMENTUM = 0.45  # at most, of the methods with patches
MEAN_WEIGHT, HARMONIC_POWER = 2.0, -0.3  # of the sparse steps of patch_low_rank


def zero_filled(measured: Measured) -> Tensor:
    """Zeros in the lines that were not measured; with the real-image prior the conjugate-symmetric
    partners of measured lines are filled (Hermitian completion)."""
    return measured.inverse(measured.lines)


def time_average(measured: Measured) -> Tensor:
    """Each missing line is the average of that line over the frames that measured it; zero if no
    frame did."""
    lines, known = measured.lines, measured.known
    average = lines.sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True).clamp(min=1)
    return measured.inverse(torch.where(known, lines, average))


def view_sharing(measured: Measured) -> Tensor:
    """Each missing line is taken from the nearest frame that measured it; at a tie, both are
    averaged; zero if no frame measured it."""
    return measured.inverse(_nearest_lines(measured, average=True))


def nearest_frame(measured: Measured) -> Tensor:
    """As view sharing, but at a tie the earlier frame is taken."""
    return measured.inverse(_nearest_lines(measured, average=False))


def _nearest_lines(measured: Measured, average: bool) -> Tensor:
    """Every line (B, T, K, X) from the nearest frame that measured it; at a tie the earlier one,
    or the `average` of both."""
    lines, known = measured.lines, measured.known.flatten(2)  # (B, T, K)
    n_frames = lines.shape[1]
    frame = torch.arange(n_frames, device=lines.device)
    ahead = (frame - frame[:, None]) % n_frames  # from frame T to frame S
    later = (2 * ahead <= n_frames).int()
    distance = torch.minimum(ahead, n_frames - ahead)

    def from_nearest(tie: Tensor) -> Tensor:
        """The lines of the nearest frames; at a tie of the one whose `tie` (T, S) is 0."""
        rank = 2 * distance + tie  # (T, S)
        rank = rank[..., None].masked_fill(~known[:, None], 2 * n_frames)  # (B, T, S, K)
        nearest = rank.argmin(dim=2)  # (B, T, K)
        return lines.gather(1, nearest.view(measured.known.shape).expand_as(lines))

    if not average:
        return from_nearest(later)
    return (from_nearest(later) + from_nearest(1 - later)) / 2


def cg_sense(measured: Measured, weight: float) -> Tensor:
    """The images nearest to the view-shared ones that agree with the lines of all coils, which
    count `weight` times as much: a proximal step by conjugate gradients."""
    assert isinstance(measured, CoilConsistency)
    return measured.proximal(view_sharing(measured), weight)


def kt_sparse(
    measured: Measured,
    threshold: float,
    fall: float = FALL,
    n_steps: int = N_STEPS,
) -> Tensor:
    """Sparse temporal spectrum: each step soft-thresholds the temporal spectrum of every pixel and
    puts the measured lines back. The threshold falls geometrically from `threshold` to
    `fall * threshold`."""
    images = view_sharing(measured)
    for level in _falling(threshold, fall, n_steps):
        images = measured.enforce(_shrink_spectrum(images, level))
    return images


def temporal_tv(measured: Measured, bound: float, n_steps: int = N_STEPS) -> Tensor:
    """The images of minimal temporal total variation among all that agree with the measured lines.

    Chambolle and Pock's algorithm 1. Because data consistency is exact, `bound` (of the dual
    variable) does not change the minimum, only how close the given number of steps comes to it.

    Several coils: the minimum of `|A m - y|^2 / 2 + bound * TV`, by the algorithm of Condat and Vu.
    """
    step = COIL_TV_STEP if isinstance(measured, CoilConsistency) else TV_STEP
    images = extrapolated = view_sharing(measured)
    dual = torch.zeros_like(images)
    for _ in range(n_steps):
        dual = dual + step * (extrapolated.roll(-1, 1) - extrapolated)
        dual = dual * (bound / dual.abs().clamp(min=bound))
        moved = measured.descend(images, dual.roll(1, 1) - dual, step)
        images, extrapolated = moved, 2 * moved - images
    return images


def low_rank_sparse(
    measured: Measured, low_rank: float, sparse: float, n_steps: int = N_STEPS
) -> Tensor:
    """L + S: a background of low rank over time plus changes with a sparse temporal spectrum.

    Args:
        low_rank: threshold on the singular values of L, as a fraction of the largest one.
        sparse: threshold on the temporal spectrum of S. Both thresholds fall to a hundredth.
    """
    images = view_sharing(measured)
    changes = torch.zeros_like(images)
    falling = _falling(1.0, FALL, n_steps)
    for level in falling:
        background = _shrink_singular_values(images - changes, low_rank * level)
        changes = _shrink_spectrum(images - background, sparse * level)
        images = measured.enforce(background + changes)
    return images


def patch_sparse(
    measured: Measured, first: float, last: float, exact: int, n_steps: int = PATCH_STEPS
) -> Tensor:
    """Sparse patches in space and temporal frequency: neighbouring pixels resemble each other, and
    time is nearly periodic.

    Each step shrinks the coefficients of patches of 4 x 4 pixels (`shrink_patches`) and puts the
    measured lines back, `x <- P(S_t(x + a (x - x')))` for the images x' of the step before. The
    threshold falls geometrically from `first` to `last`, or to `IN_NOISE` times the noise, if that
    is more. `exact`: 0 leaves the lines of the last step shrunk, which removes their noise; 1 does
    so in noise alone. On two CPU cores a step on 20 x 192 x 192 takes 10 ms.
    """

    def sparse(images: Tensor, level: Level, turn: int) -> Tensor:
        return shrink_patches(images, level, shift_of(turn, PATCH))

    return _shrunk_by_turns(measured, [sparse], first, last, n_steps, exact)


def patch_low_rank(
    measured: Measured,
    first: float,
    last: float,
    ratio: float,
    n_steps: int,
    exact: int,
) -> Tensor:
    """Sparse patches in space and temporal frequency, and in temporal components of their own, in
    turn.

    As `patch_sparse`, but every second step takes the temporal basis from the images: the principal
    components of each block (`shrink_components`), with `ratio` times the threshold. They follow
    motion that is not periodic, and contrast that moves through a block, with few components. On
    two CPU cores a step on 20 x 192 x 192 takes 15 ms, with 8 coils 90.
    """

    def sparse(images: Tensor, level: Level, turn: int) -> Tensor:
        return shrink_patches(images, level, shift_of(turn, PATCH), MEAN_WEIGHT, HARMONIC_POWER)

    def low_rank(images: Tensor, level: Level, turn: int) -> Tensor:
        return shrink_components(images, ratio * level, shift_of(turn, BLOCK))

    return _shrunk_by_turns(measured, [sparse, low_rank], first, last, n_steps, exact)


def _shrunk_by_turns(
    measured: Measured, rules: list[Rule], first: float, last: float, n_steps: int, exact: int
) -> Tensor:
    """From the view-shared images, each step shrinks by the next of the `rules` and puts the
    measured lines back. It begins ahead of the images, by momentum."""
    images = before = view_sharing(measured)
    end: Level = last
    if not measured.real_image:
        of_noise = IN_NOISE * noise_level(measured)[:, None, None]
        end, noiseless = of_noise.clamp(min=last), (of_noise <= last)[..., None]
    levels = _falling(first, end / first, n_steps)
    phase = smooth_phase(images)
    for step, level in enumerate(levels):
        ahead = images + min(step / (step + 3), MOMENTUM) * (images - before)
        before = images
        shrunk = _shrink(rules[step % len(rules)], ahead, level, step // len(rules), phase)
        images = measured.enforce(shrunk)
    if not exact:
        return shrunk
    return images if measured.real_image else torch.where(noiseless, images, shrunk)


def _shrink(rule: Rule, images: Tensor, level: Level, turn: int, phase: Tensor | None) -> Tensor:
    """Images (B, T, Y, X) shrunk by a rule.

    Of complex images a `phase` (`smooth_phase`) is removed first, and put back at the end. Real and
    imaginary part are shrunk apart: the imaginary part is nearly empty then, and the lines that
    were not measured, as of partial Fourier, follow from their conjugate-symmetric partners.
    """
    if phase is None:
        return rule(images, level, turn)
    parts = torch.cat(split_complex(images * phase.conj()))
    level = level.repeat(2, 1, 1) if isinstance(level, Tensor) else level
    return join_complex(*rule(parts, level, turn).chunk(2)) * phase


def smooth_phase(images: Tensor) -> Tensor | None:
    """The phase factor exp(i phi) of the time average of images (B, T, Y, X), at a third of their
    resolution along Y and X: (B, 1, Y, X) complex64. None: the images are real."""
    if not images.is_complex():
        return None
    kspace = fftc(images.mean(dim=1, keepdim=True))
    for axis in (-2, -1):
        n = kspace.shape[axis]
        half = round(PHASE_RESOLUTION * n / 2)
        window = torch.zeros(n)
        kept = torch.hann_window(2 * half + 3, periodic=False)[1:-1]  # as far to either side
        window[n // 2 - half : n // 2 + half + 1] = kept
        kspace = kspace * window.to(kspace.device).unflatten(0, (-1, *[1] * (-1 - axis)))
    return ifftc(kspace).sgn()


def _falling(first: float, fall: Level, n_steps: int) -> list[Level]:
    """`n_steps` thresholds, geometrically from `first` down to `fall * first`."""
    return [first * fall ** (step / max(1, n_steps - 1)) for step in range(n_steps)]


def _shrink_spectrum(images: Tensor, threshold: Level) -> Tensor:
    """Soft threshold of the temporal Fourier coefficients of (B, T, Y, X)."""
    if images.is_complex():
        spectrum = torch.fft.fft(images, dim=1, norm="ortho")
    else:
        spectrum = torch.fft.rfft(images, dim=1, norm="ortho")
    size = spectrum.abs()
    spectrum = spectrum * ((size - threshold).clamp(min=0) / size.clamp(min=threshold))
    if images.is_complex():
        return torch.fft.ifft(spectrum, dim=1, norm="ortho")
    return torch.fft.irfft(spectrum, n=images.shape[1], dim=1, norm="ortho")


def _shrink_singular_values(images: Tensor, threshold: Level) -> Tensor:
    """Soft threshold of the singular values of each sample's Casorati matrix (T, Y X), as a
    fraction of the largest one, by an eigendecomposition of the small Gram matrix (T, T)."""
    matrix = images.flatten(2)  # (B, T, Y X)
    gram = (matrix @ matrix.mH).cpu()  # small, and not every device has an eigensolver
    values, vectors = (part.to(matrix.device) for part in torch.linalg.eigh(gram))
    singular = values.clamp(min=0).sqrt()  # ascending
    level = threshold * singular[:, -1:]
    gain = (singular - level).clamp(min=0) / singular.clamp(min=1e-12)
    shrink = (vectors * gain[:, None, :]) @ vectors.mH  # (B, T, T)
    return (shrink @ matrix).view_as(images)


@dataclass(frozen=True)
class Baseline:
    """A training-free method and its parameters."""

    reconstruct: Callable[..., Tensor]  # (measured, **parameters) to images
    real_image: bool | None  # True: needs the real-image prior; False: never uses it; None: either
    needs_coils: bool = False
    # values of each parameter that a search begins with (see `evaluation/tuning.py`)
    grid: dict[str, tuple[float, ...]] = field(default_factory=dict)
    usual: dict[str, float] = field(default_factory=dict)  # where it begins; values without one


BASELINES = {
    "zero_filled": Baseline(zero_filled, real_image=False),
    "time_average": Baseline(time_average, real_image=False),
    "view_sharing": Baseline(view_sharing, real_image=False),
    "hermitian": Baseline(zero_filled, real_image=True),
    "hermitian_nearest": Baseline(nearest_frame, real_image=True),
    "hermitian_view_sharing": Baseline(view_sharing, real_image=True),
    "cg_sense": Baseline(
        cg_sense,
        real_image=False,
        needs_coils=True,
        grid={"weight": (1.0, 2.0, 4.0, 8.0, 16.0)},
        usual={"weight": 4.0},
    ),
    "kt_sparse": Baseline(
        kt_sparse,
        real_image=None,
        grid={"threshold": (0.08, 0.32, 1.28), "fall": (0.001, 0.01, 0.1)},
        usual={"threshold": 0.32, "fall": 0.01},
    ),
    "temporal_tv": Baseline(
        temporal_tv,
        real_image=None,
        grid={"bound": (0.002, 0.004, 0.008, 0.016, 0.032)},
        usual={"bound": 0.008},
    ),
    "low_rank_sparse": Baseline(
        low_rank_sparse,
        real_image=None,
        grid={"low_rank": (0.00625, 0.025, 0.1), "sparse": (0.01, 0.02, 0.04)},
        usual={"low_rank": 0.025, "sparse": 0.02},
    ),
    "patch_sparse": Baseline(
        patch_sparse,
        real_image=None,
        grid={"first": (0.05, 0.08, 0.12), "last": (0.0035, 0.005, 0.007), "exact": (0, 1)},
        usual={"first": 0.08, "last": 0.005, "exact": 1},
    ),
    "patch_low_rank": Baseline(
        patch_low_rank,
        real_image=None,
        grid={
            "first": (0.03, 0.05, 0.08),
            "last": (0.0018, 0.003, 0.005),
            "ratio": (1.0, 1.4, 2.0),
            "n_steps": (64, 100, 160),
            "exact": (0, 1),
        },
        usual={"first": 0.05, "last": 0.003, "ratio": 1.4, "n_steps": 64, "exact": 1},
    ),
}


def baseline(name: str, real_image: bool, **parameters: float) -> Method:
    """A training-free method as a function of `(aliased, mask)`, called like a network.

    Args:
        name: one of `BASELINES`.
        real_image: assume real-valued images, as in the settings of `train()`. Methods that never
            use the prior ignore it.
        parameters: of the method; those not given have their usual values.

    Raises:
        ValueError: the name or a parameter is unknown, or the method needs `real_image`. The
            method raises InputError if it is not called with aliased images and their mask.
    """
    if name not in BASELINES:
        raise ValueError(f"unknown baseline {name!r}, expected one of {', '.join(BASELINES)}")
    method = BASELINES[name]
    if unknown := parameters.keys() - method.usual.keys():
        raise ValueError(
            f"{name} has no parameter {min(unknown)!r}, its parameters are"
            f" {', '.join(method.usual) or 'none'}"
        )
    if method.real_image and not real_image:
        raise ValueError(f"{name} assumes real-valued images: real_image must be True")
    prior = real_image if method.real_image is None else method.real_image
    values = method.usual | parameters

    def reconstruct(aliased: Tensor, mask: Tensor, maps: Tensor | None = None) -> Tensor:
        if method.needs_coils and maps is None:
            raise ValueError(f"{name} is for several coils: give their aliased images and maps")
        require_measured(aliased, mask, maps)
        return method.reconstruct(measurement_of(aliased, mask, maps, prior), **values)

    return reconstruct
