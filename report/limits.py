"""What limits the scores of a run, and what may help, in words."""

from types import SimpleNamespace

from evaluation.sampling_shift import outside_lines
from methods.calibration import can_be_calibrated
from methods.start import PATCH
from model import architecture_settings
from report.acquisition import test_masks
from training.checkpoint import FOR_COILS, FOR_COMPLEX, FOR_REAL
from training.run import Run
from util.progress import counted

NOISIER = 1.5  # times the noise of the training, beyond which weights are outside of it


def outside_the_training(run: Run) -> list[str]:
    """How test masks and noise differ from those that the initial weights were trained with, if
    these are used as they are."""
    if run.trained is None or run.settings.num_epochs:
        return []
    lines = [
        line for masks in test_masks(run).values() for line in outside_lines(masks, run.trained)
    ]
    noise, known = run.acquisition.noises.highest, run.trained_noise
    if noise > NOISIER * known:
        lines.append(
            f"outside of the training: noise {noise:g}, the weights were trained with {known:g}"
        )
    return list(dict.fromkeys(lines))


def decay_warning(model: str, weight_decay: float) -> list[str]:
    """A warning of an L2 penalty that keeps a network from learning; its gradients are added to
    those of the loss, and Adam divides both by their size."""
    if "stages" not in architecture_settings(model) or not weight_decay:
        return []
    return [
        f"WARNING: the {model} begins near the ground truth, so the gradients of its loss are"
        f" small, and --weight-decay {weight_decay:g} can hold it at its start: give"
        " --weight-decay 0, as the recipes do"
    ]


def seen_samples(run: Run) -> list[str]:
    """Warnings that name the samples that the initial weights have seen before."""
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
                f"WARNING: {len(known)} of {counted(len(run.parts[part]), f'{part} sample')} {role}"
                f" that this run starts from: {', '.join(map(str, known))}; scores on them are too"
                " good"
            )
    return warnings


def caveats(run: Run) -> list[str]:
    """The limits of the scores, one per line."""
    s = run.settings
    if run.cine.is_undersampled:
        return [
            "There is no ground truth: the score tells how well lines that were measured are"
            " predicted, not those that were not, and nothing of the images is compared with"
            " fully sampled ones.",
            "Training-free methods have their usual parameters, which the truth of other images"
            " chose. Held-out lines favour no method that was trained on hidden ones of the same"
            " sample: the test part was not trained on.",
        ]
    lines = [
        "The images were undersampled retrospectively: no scanner measured these lines.",
        "The global PSNR is dominated by tissue that does not move; see moving_psnr for the heart.",
        "Scores with different definitions, masks or data must not be compared. The training-free"
        " methods use the same masks here; a network is worth its training only above the best.",
    ]
    if run.cine.groups is None:
        lines.append(
            "Patients are unknown, so slices of one may be in the training and in the test part;"
            " then the scores of trained networks are too good."
        )
    if not run.cine.images.is_complex():
        lines.append(
            "The images come from magnitude images"
            + (" with a synthetic phase" if s.phase else " without phase")
            + (" and with synthetic noise" if run.acquisition.is_noisy else " or added noise")
            + ": every method scores better here than on raw k-space of a scanner (E. Shimron et"
            " al., 'Implicit data crimes', PNAS 2022)."
        )
    if not s.real_image and not (run.cine.images.is_complex() or s.phase or run.n_coils):
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


def remedies(s: SimpleNamespace, n_coils: int | None) -> list[str]:
    """Settings that may help a network that ends below the training-free methods."""
    own = {name: getattr(s, name, None) for name in architecture_settings(s.model)}
    helping = ["--calibrate"] if can_be_calibrated(own) and not s.calibrate else []
    if "data_consistency" in architecture_settings(s.model):
        lacking = ["--start patch"] * (s.start != PATCH)
        lacking += ["--data-consistency"] * (not s.data_consistency)
        helping += [" ".join(lacking)] if lacking else []
    if s.initial_weights is None:
        weights = FOR_COILS if n_coils else FOR_REAL if s.real_image else FOR_COMPLEX
        helping.append(
            "the cascade, from weights that come with the project (@recipes/cascade.txt"
            f" --initial-weights {weights})"
        )
    return [*helping, "longer training"]
