"""Whether reconstructions of other programs are what they should be, by measurement.

A wrong order of samples, axes, frames or lines, another scale, or a copy of the truth would give a
score, and a wrong one. So each reconstruction is compared with the ground truth as it is, and as it
would be after each of these mistakes: correlations, which no scale changes, tell which fits. The
truth is used for this, for the scores, and for a scale that is asked for, and for nothing else.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from data.batches import Batch
from metrics import psnr
from util.errors import InputError
from util.progress import name_list, progress

CLEARLY = 0.05  # gain in correlation at which turned or exchanged images are another mistake
SHIFTED = 0.005  # the same of images that are shifted, if nearly all samples agree on the shift
FRAMES = 0.01  # the same of what moves
AGREEING = 0.8  # share of the samples that have to show a mistake of all
MOVES = 1e-3  # energy of what moves over that of the images, below which frames tell nothing
SCALE_WARNED, SCALE_REFUSED = 1.05, 1.25  # factor to the truth, or its inverse
SAME = 1e-6  # normalised squared difference of images that are the same, up to half precision
NEGATIVE = 0.01  # share of the energy in negative values that rounding and ringing do not reach
THUMBNAIL = 48  # pixels of an axis, at most, of images that are compared with all others

Turn = Callable[[Tensor], Tensor]
TURNS: dict[str, Turn] = {
    "": lambda image: image,
    "lines reversed: [..., ::-1, :]": lambda image: image.flip(-2),
    "columns reversed: [..., ::-1]": lambda image: image.flip(-1),
    "lines and columns reversed: [..., ::-1, ::-1]": lambda image: image.flip(-2, -1),
}  # how images would fit, and the remedy
EXCHANGED: dict[str, Turn] = {
    "lines and columns exchanged: np.swapaxes(images, -2, -1)": lambda image: image.mT,
    "a quarter turn: np.rot90(images, 1, (-2, -1))": lambda image: image.rot90(1, (-2, -1)),
    "a quarter turn: np.rot90(images, -1, (-2, -1))": lambda image: image.rot90(-1, (-2, -1)),
}  # of as many lines as columns


@dataclass(frozen=True)
class Finding:
    """A mistake that was measured, in a sentence: what was found, what was expected, what to do."""

    text: str
    refused: bool  # scores would mean nothing; False: it is only told


@dataclass
class Measured:
    """What a reconstruction of one sample was measured to be, beside its truth."""

    sample: int
    as_it_is: float  # correlation of the means over time
    turned: dict[str, tuple[float, tuple[int, int]]]  # the best one with a shift, and this, by turn
    frames: Tensor | None  # (2, T), of `over_frames`
    factor: float  # that brings it nearest to the truth
    to_truth: float  # normalised squared difference at the best factor
    to_aliased: float
    aliased_to_truth: float
    negative: float  # share of the energy of real values in negative ones
    of_part: float | None  # gain of the correlation with the real part of the truth
    thumbnails: tuple[Tensor, Tensor] = field(default=(torch.empty(0),) * 2)  # its own, the truth's


def check_finite(images: Tensor, samples: Sequence[int], label: str) -> None:
    """Raise InputError if some images (N, T, Y, X) have NaN or infinite values, or are all zero."""
    finite = torch.isfinite(images.abs()).flatten(1)
    if not finite.all():
        bad = [sample for sample, good in zip(samples, finite.all(dim=1), strict=True) if not good]
        raise InputError(
            f"{label} has {int((~finite).sum())} values that are NaN or infinite, in the samples"
            f" {name_list(bad)}; expected numbers: reconstruct these samples again"
        )
    empty = [k for k, image in zip(samples, images, strict=True) if not image.any()]
    if empty:
        raise InputError(
            f"{label} is all zero in the samples {name_list(empty)}; expected images: reconstruct"
            " these samples, too"
        )


def checked_magnitudes(
    images: Mapping[str, Tensor], batches: Sequence[Batch], match_scale: bool, accept: bool
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The magnitudes of reconstructions, the best PSNR last, lines about their scale, and what the
    checks found, which a report says first.

    Args:
        images: (N, T, Y, X) by label, of the samples of `batches`, one each.
        match_scale: multiply each sample by the factor that brings it nearest to the truth.
        accept: tell of mistakes that make scores meaningless, in place of an error.

    Raises:
        InputError: something was found that makes scores meaningless, and it is not accepted.
    """
    measured: dict[str, list[Measured]] = {label: [] for label in images}
    scores: dict[str, list[float]] = {label: [] for label in images}
    scaled: dict[str, Tensor] = {}
    shown = progress(batches, "checking", len(batches), lambda batch: 1)
    for i, batch in enumerate(shown):
        for label, of_all in images.items():
            found = measure(of_all[i].to(batch.target.device), batch)
            measured[label].append(found)
            factor = found.factor if match_scale else 1.0
            scores[label].append(
                psnr(factor * of_all[i : i + 1].abs().to(batch.target.device), batch.target).item()
            )
    lines, notes = [], []
    for label in sorted(images, key=lambda label: sum(scores[label])):
        factors = [one.factor for one in measured[label]]
        low, high = min(factors), max(factors)
        scaled[label] = images[label].abs().float()
        if match_scale:
            scaled[label] *= torch.tensor(factors)[:, None, None, None]
            notes.append(
                f"{label}: the scale was matched to the truth, each sample times its own factor,"
                f" {low:.4g} to {high:.4g}: scores are those of the best scale"
            )
        else:
            lines.append(f"{label}: in its own scale; the truth's is {low:.4g} to {high:.4g} of it")
        for finding in findings(measured[label], label, match_scale):
            if finding.refused and not accept:
                raise InputError(f"{finding.text} (--accept scores it as it is)")
            notes.append(f"WARNING: {finding.text}")
    return scaled, lines, notes


@torch.no_grad()
def measure(images: Tensor, batch: Batch) -> Measured:
    """Compare the reconstruction (T, Y, X) of the sample of a batch with its truth."""
    found, target, truth = images.abs().float(), batch.target[0], batch.truth[0]
    aliased = batch.combined[0].abs()
    mean, wanted = found.mean(dim=0), target.mean(dim=0)
    turns = TURNS | (EXCHANGED if mean.shape[0] == mean.shape[1] else {})
    part = None
    if truth.is_complex() and not images.is_complex():
        real = max(correlation(found, one.abs()) for one in (truth.real, truth.imag))
        part = real - correlation(found, target)
    real_energy = 0.0
    if not images.is_complex():
        real_energy = (images.clamp(max=0).square().sum() / images.square().sum()).item()
    return Measured(
        batch.samples[0],
        correlation(mean, wanted),
        {name: best_shift(turn(mean), wanted) for name, turn in turns.items()},
        over_frames(found - mean, target - wanted, target),
        ((found * target).sum() / found.square().sum()).item(),
        difference(found, target),
        difference(found, aliased),
        difference(aliased, target),
        real_energy,
        part,
        thumbnails=(thumbnail(mean), thumbnail(wanted)),
    )


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of two tensors; 0 if one is constant."""
    a, b = a - a.mean(), b - b.mean()
    norms = a.norm() * b.norm()
    return ((a * b).sum() / norms).item() if norms > 0 else 0.0


def difference(a: Tensor, b: Tensor) -> float:
    """|f a - b|^2 / |b|^2 at the factor f for which it is least."""
    factor = (a * b).sum() / a.square().sum()
    return ((factor * a - b).square().sum() / b.square().sum()).item()


def best_shift(image: Tensor, wanted: Tensor) -> tuple[float, tuple[int, int]]:
    """The highest correlation of an image (Y, X) with another over all cyclic shifts, and the
    shift by which it has to be rolled."""
    a, b = image - image.mean(), wanted - wanted.mean()
    product = torch.fft.ifft2(torch.fft.fft2(b) * torch.fft.fft2(a).conj()).real
    at = int(product.argmax())
    norms = (a.norm() * b.norm()).clamp(min=1e-12)
    return (product.flatten()[at] / norms).item(), (at // len(image[0]), at % len(image[0]))


def over_frames(found: Tensor, wanted: Tensor, target: Tensor) -> Tensor | None:
    """The correlation of what moves (T, Y, X), found and wanted, (2, T): rolled by each number of
    frames, as they are and in reverse. None if nothing moves."""
    norms = (found.norm() * wanted.norm()).item()
    if norms <= MOVES * target.square().sum().item():
        return None
    spectrum = torch.fft.fft(wanted.flatten(1), dim=0)
    others = (torch.fft.fft(frames.flatten(1), dim=0) for frames in (found, found.flip(0)))
    products = torch.stack([(spectrum * other.conj()).sum(dim=1) for other in others])
    return (torch.fft.ifft(products, dim=1).real / norms).cpu()


def thumbnail(image: Tensor) -> Tensor:
    """A small image (Y, X) without its mean, of norm 1, flat."""
    size = min(image.shape[0], THUMBNAIL), min(image.shape[1], THUMBNAIL)
    small = F.adaptive_avg_pool2d(image[None], size)[0].flatten()
    return F.normalize(small - small.mean(), dim=0).cpu()


def findings(
    measured: Sequence[Measured], label: str, scale_matched: bool = False
) -> list[Finding]:
    """The mistakes of a reconstruction of all test samples, those that are refused first; values
    are looked at where they are in their place."""
    found = [*of_place(measured, label)]
    if found:
        return found
    found = [*of_values(measured, label)]
    if not scale_matched:
        found += of_scale([one.factor for one in measured], label)
    return sorted(found, key=lambda one: not one.refused)


def of_place(measured: Sequence[Measured], label: str) -> Iterable[Finding]:
    """Samples, axes, lines, columns or frames that are elsewhere: the first of these."""
    own, theirs = (torch.stack([m.thumbnails[i] for m in measured]) for i in range(2))
    alike = own @ theirs.T  # (N, N), own of a row with the truth of a column
    best = alike.argmax(dim=1).tolist()
    moved = [i for i, j in enumerate(best) if alike[i, j] - alike[i, i] > CLEARLY]
    turn, gain = best_turn(measured)
    if moved and alike.amax(dim=1).mean() > mean_of(measured, turn):
        samples = [m.sample for m in measured]
        pairs = ", ".join(f"that of {samples[i]} is like {samples[best[i]]}" for i in moved[:4])
        yield Finding(
            f"{label}: {len(moved)} of {len(samples)} images are more like the truth of other"
            f" samples ({pairs}); expected the order of the test part, {name_list(samples)}: save"
            " them in this order",
            True,
        )
    elif gain > CLEARLY:
        yield Finding(
            f"{label}: the images fit the truth with {turn} (correlation"
            f" {mean_of(measured, turn):.2f}, as they are {mean_of(measured):.2f}); expected"
            " (sample, frame, line, column) as exported: turn them so",
            True,
        )
    elif (shift := shared([m.turned[""][1] for m in measured])) and any(shift):
        if mean_of(measured, "") - mean_of(measured) > SHIFTED:
            ny, nx = shift
            yield Finding(
                f"{label}: the images are shifted (correlation with the truth"
                f" {mean_of(measured):.3f}, and {mean_of(measured, ''):.3f} after np.roll by {ny}"
                f" lines and {nx} columns; half of an axis is an fftshift); expected the field of"
                " view as exported: roll them so",
                True,
            )
    else:
        yield from of_frames(measured, label)


def mean_of(measured: Sequence[Measured], turn: str | None = None) -> float:
    """The mean correlation with a turn and its shift; None: as the images are."""
    values = [m.as_it_is if turn is None else m.turned[turn][0] for m in measured]
    return sum(values) / len(values)


def best_turn(measured: Sequence[Measured]) -> tuple[str, float]:
    """The turn with the highest mean correlation, and by how much it exceeds that of none; 0 if
    fewer than `AGREEING` of the samples are better with it."""
    best = max(measured[0].turned, key=lambda turn: mean_of(measured, turn))
    better = sum(m.turned[best][0] > m.turned[""][0] for m in measured)
    if better < AGREEING * len(measured):
        return "", 0.0
    return best, mean_of(measured, best) - mean_of(measured, "")


def shared(values: Sequence) -> tuple | None:
    """The value that `AGREEING` of the samples have; None: there is none."""
    (value, count), *_ = Counter(values).most_common(1)
    return value if count >= AGREEING * len(values) else None


def of_frames(measured: Sequence[Measured], label: str) -> Iterable[Finding]:
    """Frames that are shifted or in reverse."""
    curves = [m.frames for m in measured if m.frames is not None]
    if not curves:
        return
    known = torch.stack(curves)  # (N, 2, T)
    mean = known.mean(dim=0)
    is_reversed, shift = divmod(int(mean.argmax()), mean.shape[1])
    better = (known[:, is_reversed, shift] > known[:, 0, 0]).float().mean()
    if better < AGREEING or mean.max() - mean[0, 0] <= FRAMES:
        return
    steps = ["[:, ::-1]"] * is_reversed + [f"np.roll by {shift} along time"] * (shift > 0)
    yield Finding(
        f"{label}: the frames are {'in reverse' if is_reversed else 'shifted'} (what moves"
        f" correlates with the truth by {mean.max():.2f} after {' and '.join(steps)}, and by"
        f" {mean[0, 0]:.2f} as it is); expected the first frame first: put them so",
        True,
    )


def of_values(measured: Sequence[Measured], label: str) -> Iterable[Finding]:
    """Values that are a copy, a part, or of another scale."""
    copies = [m.sample for m in measured if m.to_truth < SAME < m.aliased_to_truth]
    if copies:
        yield Finding(
            f"{label}: the images of the samples {name_list(copies)} are the ground truth itself"
            f" (normalised squared difference below {SAME:g}); expected a reconstruction from the"
            " measured lines: look where the truth came in",
            True,
        )
    unchanged = [m.sample for m in measured if m.to_aliased < SAME < m.aliased_to_truth]
    if unchanged:
        yield Finding(
            f"{label}: the images of the samples {name_list(unchanged)} are the aliased images;"
            " expected a reconstruction of them: look whether the right file was given",
            False,
        )
    parts = [m.of_part for m in measured if m.of_part is not None]
    negative = max(m.negative for m in measured)
    if parts and min(parts) > FRAMES:
        yield Finding(
            f"{label}: the images are like the real or the imaginary part of the truth, not like"
            " its magnitude; expected magnitudes or complex images: save one of these",
            True,
        )
    elif negative > NEGATIVE:
        yield Finding(
            f"{label}: up to {negative:.0%} of the energy is in negative values, as of a real part;"
            " expected magnitudes or complex images: save one of these, as the magnitude of what is"
            " given is scored",
            False,
        )


def of_scale(factors: Sequence[float], label: str) -> Iterable[Finding]:
    """A scale that is not that of the truth."""
    low, high = min(factors), max(factors)
    middle = sorted(factors)[len(factors) // 2]
    off = max(middle, 1 / middle)
    if off > SCALE_WARNED or high / low > SCALE_REFUSED:
        between = f"{low:.3g} to {high:.3g}" if high / low > 1.01 else f"{middle:.3g}"
        yield Finding(
            f"{label}: the images come nearest to the truth times {between}; expected 1, the scale"
            " of the exported files: undo the scaling, or give --match-scale",
            off > SCALE_REFUSED or high / low > SCALE_REFUSED**2,
        )
