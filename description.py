"""What a report says of a run in words: what it is, and what must be known of its scores."""

from types import SimpleNamespace

import numpy as np

import runtime
from CS_mask import evaluation_masks, hermitian_mirror
from dataset import name_list
from model import count_cost
from run import Run
from split import leakage_notice

HERMITIAN_SAMPLES = 8  # masks that the Hermitian acceleration is the mean of


def describe(run: Run) -> dict[str, list[str]]:
    """What the report says of data, split, mask, model and machine."""
    s, cine = run.settings, run.cine
    n_frames, ny, nx = cine.shape
    lines = {
        "Data": [
            f"{cine.source}: {len(cine.images)} samples of {n_frames} frames, {ny} x {nx} pixels,"
            f" {'complex' if cine.images.is_complex() else 'real-valued'}, hash {cine.hash}",
            *cine.notices,
            *simulated(s),
        ],
        "Split": [
            f"{name}: {len(part)} samples ({name_list(part)})" for name, part in run.parts.items()
        ]
        + [leakage_notice(cine, run.parts)],
        "Mask": [
            *(mask_line(acc, cine.shape, s) for acc in run.tested),
            "training masks "
            + (f"of acceleration {s.acc[0]:g} to {s.acc[1]:g} " if isinstance(s.acc, tuple) else "")
            + "are drawn "
            + ("for every sample and epoch" if s.fresh_masks else "once for every sample")
            + f" (seed {s.seed}), validation and test masks once (data_seed {s.data_seed})",
            "real-image prior (each measured line tells its mirror line): "
            + ("on" if s.real_image else "off"),
        ],
    }
    if run.network is not None:
        whole = count_cost(s.model, 1, cine.shape, **run.architecture)
        step = run.step_cost
        start = f", starting from {s.initial_weights}" if s.initial_weights else ""
        lines["Model"] = [
            f"{s.model}, " + ", ".join(f"{k} {v}" for k, v in run.architecture.items()) + start,
            f"{whole.parameters:,} parameters, {whole.macs / 1e9:.1f} G multiply-accumulates a"
            f" sample (forward), {step.activation_bytes / 1e9:.2f} GB of activations kept in a"
            f" training step on {run.pass_size} samples, in float32"
            + (", before gradient checkpointing" if s.gradient_checkpointing else ""),
        ]
        lines["Model"] += overlaps(run)
    if s.num_epochs:
        lines["Optimisation"] = [
            f"{s.loss} loss, Adam, {s.num_epochs} epochs of {run.n_steps} steps, batch"
            f" {s.batch_size}, weight decay {s.weight_decay:g}, learning rate {s.initial_lr:g},"
            f" {s.lr_schedule}, {s.precision}"
            + (f", strips of {s.strip} columns" if s.strip else "")
            + (f", gradient norm up to {s.clip_gradient:g}" if s.clip_gradient else "")
            + (f", augmentation {' and '.join(s.augment)}" if s.augment else "")
            + (f", moving average of the weights {s.ema:g}" if s.ema else ""),
            f"train/loss is the {s.loss} loss of what is trained on, validation/loss the mean"
            " squared error of magnitudes",
        ]
    versions = ", ".join(f"{name} {version}" for name, version in runtime.versions().items())
    lines["Machine"] = [f"{runtime.hardware(run.device)}, {versions}"]
    return lines


def simulated(s: SimpleNamespace) -> list[str]:
    """What is done to the images before they are undersampled."""
    lines = []
    if s.phase:
        lines.append(
            "given a smooth random phase, in training a new one for every sample and epoch"
        )
    if s.noise:
        lines.append(
            f"given complex Gaussian noise in k-space, standard deviation {s.noise:g} in real and"
            " imaginary part (peak of the images 1, orthonormal transform)"
        )
    return lines


def mask_line(acc: float, shape: tuple[int, int, int], s: SimpleNamespace) -> str:
    """A test mask in numbers: nominal, actual and Hermitian acceleration."""
    n_frames, ny, _ = shape
    n_lines = int(ny / acc)
    masks = evaluation_masks(range(HERMITIAN_SAMPLES), (n_frames, ny), (acc, acc), s.sample_n, 0)
    distinct = np.maximum(masks, hermitian_mirror(masks)).mean()
    return (
        f"Cartesian, {n_lines} of {ny} lines a frame ({n_lines / ny:.1%}), {s.sample_n} of them the"
        f" centre: nominal acceleration {acc:g}, actual {ny / n_lines:.3g}, and"
        f" {1 / distinct:.3g} where mirror lines count (real images)"
    )


def caveats(run: Run) -> list[str]:
    """What must be known of the scores, a line each."""
    s = run.settings
    lines = [
        "The images were undersampled retrospectively: no scanner measured these lines.",
        "The global PSNR is dominated by tissue that does not move; see moving_psnr for the heart.",
        "Where patients are not known, slices of one may be in the training and in the test part,"
        " and flatter what was trained.",
        "Scores with different definitions, masks or data must not be compared. The training-free"
        " methods have the same masks here; a network is worth its training only above the best.",
    ]
    if not run.cine.images.is_complex():
        lines.append(
            "The images come from magnitude images"
            + (" with a synthetic phase" if s.phase else " without phase")
            + (" and with synthetic noise" if s.noise else " or added noise")
            + ": every method scores better here than on raw k-space of a scanner (E. Shimron et"
            " al., 'Implicit data crimes', PNAS 2022)."
        )
    if not s.real_image and not (run.cine.images.is_complex() or s.phase):
        lines.append(
            "The real-image prior was switched off, for the training-free methods too: with it they"
            " score higher on these images."
        )
    if s.real_image:
        lines.append(
            "The real-image prior was used: real images have a Hermitian k-space, so that the"
            " nominal acceleration overstates the difficulty. It does not hold for raw k-space."
        )
    return lines


def overlaps(run: Run) -> list[str]:
    """Warnings that name the samples which the initial weights have seen before."""
    trained, selected = run.seen["trained"], run.seen["selected"]
    warnings = []
    for part, role, hashes in (
        ("test", "trained the checkpoint", trained),
        ("test", "selected the checkpoint (validation)", selected - trained),
        ("validation", "trained the checkpoint", trained),
    ):
        known = [i for i in run.parts[part] if run.cine.hashes[i] in hashes]
        if known:
            warnings.append(
                f"WARNING: {len(known)} of the {len(run.parts[part])} {part} samples {role} that"
                f" this run starts from: {', '.join(map(str, known))}; scores on them flatter"
            )
    return warnings
