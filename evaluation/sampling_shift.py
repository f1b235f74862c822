"""What masks lack, and how they differ from those that a network was trained with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from CS_mask import Sampling, evaluation_masks

N_BANDS = 12  # of k-space, whose shares of the measured lines are compared
N_DRAWN = 32  # masks of the training that stand for all
# A network is told to be outside of its training beyond these, which masks of the same law never
# reach: share of measured lines in bands that the training measured less, ratio of the number of
# different lines, share of the centre, difference of the shares of k-space.
DENSITY, REPEATED, CENTRE, CUT = 0.15, 0.5, 0.5, 0.1
ACCELERATION = 0.1  # relative
MOSTLY_CENTRE = 0.75  # share of the lines of a frame


@dataclass(frozen=True)
class MaskFigures:
    """What distinguishes patterns, counted in masks."""

    acceleration: float
    centre: int  # lines around zero frequency that every frame measures
    different: float  # share of all lines that some frame of a mask measures
    unused: float  # share of all lines that are below the first or above the last measured one
    density: np.ndarray  # shares of the measured lines in bands of k-space


def mask_figures(masks: np.ndarray) -> MaskFigures:
    """The figures of masks (B, T, Y, 1), centred."""
    lines = masks[..., 0]
    ny = lines.shape[-1]
    often = lines.mean(axis=(0, 1))
    always, used = lines.min(axis=(0, 1)) > 0, np.flatnonzero(often)
    bands = np.array([band.sum() for band in np.array_split(often, N_BANDS)])
    return MaskFigures(
        acceleration=float(1 / lines.mean()),
        centre=_run_length(always[ny // 2 :]) + _run_length(always[: ny // 2][::-1]),
        different=float(lines.max(axis=1).mean()),
        unused=float(1 - (used[-1] - used[0] + 1) / ny),
        density=bands / bands.sum(),
    )


def mask_warnings(masks: np.ndarray) -> list[str]:
    """What masks (B, T, Y, 1), centred, have that costs quality in every method, one per line."""
    lines = masks[..., 0] > 0
    ny, counts = lines.shape[-1], lines.sum(axis=-1)  # (B, T)
    if counts.min() == ny:
        return []
    warnings = []
    if empty := np.count_nonzero(counts == 0):
        warnings.append(
            f"{empty} of {counts.size} frames have no line: their images come from the other frames"
        )
    if lines.shape[1] > 1 and (lines == lines[:, :1]).all():
        warnings.append("all frames have the same lines: none can be taken from another frame")
    elif (centre := mask_figures(masks).centre) > MOSTLY_CENTRE * counts.max():
        warnings.append(
            f"{centre} of at most {counts.max()} lines a frame are the centre, the same in all:"
            " fewer centre lines leave some that differ between frames"
        )
    return warnings


def outside_lines(masks: np.ndarray, trained: Sampling) -> list[str]:
    """How masks (B, T, Y, 1) differ from those of a training, one per line; none if they do not.

    A training on several patterns, numbers of centre lines or shares is compared as a whole and
    each of them alone; the nearest counts. Its masks may not exist for so few lines: then nothing
    is compared.
    """
    _, n_frames, ny, _ = masks.shape
    found = mask_figures(masks)
    compared = []
    for part in dict.fromkeys((trained, *trained.parts())):
        try:
            drawn = evaluation_masks(range(N_DRAWN), (n_frames, ny), part, data_seed=0)
            ends = [
                evaluation_masks([0], (n_frames, ny), replace(part, acc=(acc, acc)), data_seed=0)
                for acc in part.acc
            ]
        except ValueError:
            continue
        accelerations = [mask_figures(end).acceleration for end in ends]
        compared.append(_differences(found, mask_figures(drawn), accelerations))
    return [f"outside of the training: {line}" for line in min(compared, key=len, default=[])]


def _differences(
    found: MaskFigures, known: MaskFigures, accelerations: Sequence[float]
) -> list[str]:
    """How masks differ from `known` ones, whose lowest and highest acceleration are given."""
    low, high = accelerations
    lines = []
    if not (1 - ACCELERATION) * low <= found.acceleration <= (1 + ACCELERATION) * high:
        between = f"{low:.3g}" if high - low < 0.1 else f"{low:.3g} to {high:.3g}"
        lines.append(
            f"acceleration {found.acceleration:.3g}, the weights were trained at {between}"
        )
    if found.centre < CENTRE * known.centre:
        lines.append(
            f"{found.centre} lines in the centre that every frame measures, the weights were"
            f" trained with {known.centre}"
        )
    if found.different < REPEATED * known.different:
        lines.append(
            f"lines repeat: the frames together measure {found.different:.0%} of all lines, in the"
            f" training {known.different:.0%}"
        )
    elsewhere = np.clip(found.density - known.density, 0, None).sum()
    if elsewhere > DENSITY:
        lines.append(
            f"another density: {elsewhere:.0%} of the measured lines are in parts of k-space that"
            " the training measured less"
        )
    if found.unused > known.unused + CUT:
        lines.append(
            f"{found.unused:.0%} of k-space at its ends is never measured (partial Fourier), in the"
            f" training {known.unused:.0%}"
        )
    return lines


def _run_length(flags: np.ndarray) -> int:
    """Number of true values before the first false one."""
    return int(np.argmin([*flags, False]))
