"""How the data of a run were or are acquired, in words: phase, noise, coils, masks."""

import numpy as np

from CS_mask import Condition, Sampling, either, evaluation_masks, hermitian_mirror
from data.acquisition import Noise, energy_kept
from evaluation.sampling_shift import mask_figures
from training.run import FULL, Run
from util.progress import counted

COMPRESSED_SAMPLES = 4  # whose mean energy in virtual coils is named
MEASURED_MASKS = 8  # of the test part, whose lines are counted


def simulation_lines(phase: bool, noise: Noise, coils: int | None) -> list[str]:
    """Phase and noise, which are added to the images before they are undersampled."""
    lines = []
    if phase:
        lines.append("with a smooth random phase, in training drawn with each mask")
    if noise.highest:
        lines.append(
            f"with complex Gaussian noise in k-space, standard deviation {noise} in real and"
            " imaginary part (peak of the images 1, orthonormal transform)"
            + (" of each coil, after whitening" if coils else "")
        )
    return lines


def coil_lines(run: Run) -> list[str]:
    """The coils, and where their maps and the truth come from."""
    measured, simulated = run.cine.n_coils, run.settings.coils
    n_coils = measured or simulated
    if n_coils is None:
        return []
    if measured:
        coils = f"k-space of {counted(measured, 'coil')}"
    else:
        coils = f"seen by {counted(n_coils, 'simulated coil')}"
    compressed = ""
    if run.n_coils is not None and run.n_coils != n_coils:
        some = run.parts["test"][:COMPRESSED_SAMPLES]
        kept = energy_kept(run.cine.images, some, run.acquisition)
        compressed = (
            f", compressed to {counted(run.n_coils, 'virtual coil')}, with {kept:.1%} of the energy"
            f" (mean of {counted(len(some), 'test sample')})"
        )
    of_maps = "sensitivity maps are estimated from the measured lines of each sample"
    if run.cine.is_undersampled:
        return [f"{coils}{compressed}, undersampled, without a ground truth; {of_maps}"]
    truth = "fully sampled image, with the noise of the scan," if measured else "noiseless image"
    return [
        f"{coils}{compressed}; {of_maps}, and the ground truth is the {truth} that these maps"
        " combine"
    ]


def test_masks(run: Run) -> dict[Condition, np.ndarray]:
    """Masks of the test part by condition, (B, T, Y, 1), of the first samples."""
    samples, (n_frames, ny, _) = run.parts["test"][:MEASURED_MASKS], run.cine.shape
    a = run.acquisition
    return {
        condition: evaluation_masks(samples, (n_frames, ny), a.sampling.at(condition), a.data_seed)
        for condition in run.test_conditions
    }


def origin_of_masks(run: Run) -> str:
    """Where the lines of training, validation and test come from."""
    s = run.settings
    if run.cine.is_undersampled:
        return "all samples have the lines that were measured of them"
    return (
        f"training masks ({run.acquisition.sampling}) are drawn"
        f" {pool_line(s.supervision, s.mask_pool)} (seed {s.seed}), validation and test masks once"
        f" (data_seed {s.data_seed})"
    )


def pool_line(supervision: str, mask_pool: int) -> str:
    """How many masks a training sample has."""
    if supervision != FULL:
        return "once for every sample"
    if not mask_pool:
        return "for every sample and epoch"
    return "once for every sample" if mask_pool == 1 else f"{mask_pool} for every sample"


def mask_line(masks: np.ndarray, sampling: Sampling, band: tuple[int, int]) -> str:
    """Some test masks (B, T, Y, 1) in numbers, all counted in them but the nominal acceleration.

    `band`: first and one past the last line that holds energy; the acceleration within it is named
    if it is not the whole k-space.
    """
    ny = masks.shape[2]
    lines = masks[..., 0].sum(axis=-1)  # (B, T)
    few, many = int(lines.min()), int(lines.max())
    count = f"{few}" if few == many else f"{few} to {many}"
    found = mask_figures(masks)
    if (masks == masks[:, :1]).all():
        repeated = "the same in all frames"
    else:
        repeated = f"{1 - found.different:.0%} of the lines in no frame"
    distinct = np.maximum(masks, hermitian_mirror(masks)).mean()
    inside, shares = 1 / masks[:, :, slice(*band)].mean(), either(sampling.partial_fourier)
    return (
        f"Cartesian, {either(sampling.patterns)}"
        + (f", {shares} partial Fourier" if shares != "1" else "")
        + f": {count} of {ny} lines a frame ({masks.mean():.1%}), {found.centre} of them the"
        f" centre, {repeated}; nominal acceleration {sampling.acc[0]:g}, actual"
        f" {found.acceleration:.3g}, and {1 / distinct:.3g} if conjugate-symmetric partners count"
        " (real images)"
        + (f"; WARNING: {inside:.3g} among the lines with energy" if band != (0, ny) else "")
    )
