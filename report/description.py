"""The description of a run, in words and as `config.json`, and the limits of its scores."""

from types import SimpleNamespace
from typing import Any

import torch

from CS_mask import Condition
from data.quality import data_notices
from data.split import leakage_notice
from evaluation.sampling_shift import mask_warnings
from evaluation.summary import titles_of
from evaluation.tuning import N_TUNING, Parameters, beyond_grid
from methods.averaging import average_name
from methods.baselines import BASELINES
from methods.calibration import calibrated_name
from methods.held_out import HELD_OUT
from methods.start import ignores_prior
from model import Cost, count_cost
from report.acquisition import coil_lines, mask_line, origin_of_masks, simulation_lines, test_masks
from report.limits import decay_warning, seen_samples
from training.hidden_lines import SHARE
from training.losses import loss_text
from training.run import FULL, SELF_SURE, Run
from util.command_line import given_command
from util.launcher import launch_name
from util.machine import about_precision, git_commit, hardware, rounding, versions
from util.progress import counted, name_list

PHASE_REMOVED = (
    "the methods with patches remove the phase of the low-resolution image first, as homodyne and"
    " POCS do for partial Fourier"
)


def configuration(run: Run) -> dict[str, Any]:
    """The content of `config.json`."""
    return {
        "settings": vars(run.settings),
        "versions": versions(),
        "git_commit": git_commit(),
        "data": {
            "source": run.cine.source,
            "shape": list(run.cine.images.shape),
            "hash": run.cine.hash,
            "groups": None if run.cine.groups is None else run.cine.groups.tolist(),
        },
        "masks": run.masks,  # of a file
        "split": run.parts,
        "parameters": run.step_cost.parameters if run.has_network else 0,
        "device": hardware(run.device),
        "threads": torch.get_num_threads(),
        "processes": run.world.size,
        "launch": launch_name(),
    }


def changes(run: Run, before: dict[str, Any]) -> list[str]:
    """Notices of what differs from the `config.json` that the run began with."""
    now = configuration(run)
    return [
        f"NOTICE: {name} was {before.get(name)} and is now {now[name]}: the run continues, but not"
        " with the bits of an uninterrupted one"
        for name in ("device", "processes", "versions", "git_commit")
        if before.get(name, 1 if name == "processes" else None) != now[name]
    ]


def describe(run: Run) -> dict[str, list[str]]:
    """The report's lines on data, split, mask, model, optimisation and machine, by heading."""
    s, cine = run.settings, run.cine
    n_frames, ny, nx = cine.shape
    lines = {
        "Data": [
            f"{cine.source}: {counted(len(cine.images), 'sample')} of"
            f" {counted(n_frames, 'frame')}, {ny} x {nx} pixels,"
            f" {'complex' if cine.images.is_complex() else 'real-valued'}, hash {cine.hash}",
            *cine.notices,
            *data_notices(cine.quality),
            *simulation_lines(s.phase, run.acquisition.noises, run.n_coils),
            *coil_lines(run),
        ],
        "Split": [
            *(
                f"{name}: {counted(len(part), 'sample')}"
                + (f" ({name_list(part)})" if part else "")
                for name, part in run.parts.items()
            ),
            leakage_notice(cine.groups, cine.quality.thumbnails, run.parts),
        ],
        "Mask": [
            *(
                line
                for condition, masks in test_masks(run).items()
                for line in (
                    mask_line(
                        masks, run.acquisition.sampling.at(condition), cine.quality.narrowest
                    ),
                    *(f"WARNING: {warning}" for warning in mask_warnings(masks)),
                )
            ),
            origin_of_masks(run),
            "real-image prior (a sampled line gives its conjugate-symmetric partner): "
            + ("on" if s.real_image else f"off; {PHASE_REMOVED}"),
        ],
    }
    if run.has_network:
        whole = count_cost(s.model, 1, cine.shape, run.n_coils, **run.architecture)
        lines["Model"] = [*model_lines(run, whole, run.step_cost), *seen_samples(run)]
    if s.num_epochs:
        lines["Optimisation"] = optimisation_lines(
            s, run.n_steps, run.device, not cine.is_undersampled
        )
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines["Machine"] = [f"{machine_of(run)}, {libraries}"]
    if command := given_command("train.py"):
        lines["Command"] = [command]
    return lines


def machine_of(run: Run) -> str:
    """The device in words, and how many processes have one each."""
    several = f"{run.world.size} processes, the first on " if run.world.size > 1 else ""
    return several + hardware(run.device) + rounding(run.device)


def run_summary(run: Run, n_epochs: int) -> str:
    """What was done, in two sentences; `n_epochs` that were trained."""
    s, parts = run.settings, run.parts
    done = "Training-free methods were compared; there was no network."
    if run.reconstructions:
        done = (
            f"Images of other programs ({', '.join(run.reconstructions)}) were scored beside"
            " training-free methods."
        )
    if run.has_network:
        network = f"{s.model}, a network of {run.step_cost.parameters:,} parameters,"
        origin = (
            f"starting from {s.initial_weights}" if s.initial_weights else "from random weights"
        )
        done = f"{network} was used with the weights {s.initial_weights}, without training."
        if n_epochs:
            done = (
                f"{network} was trained for {counted(n_epochs, 'epoch')} on"
                f" {counted(len(parts['train']), 'sample')} of {run.cine.source}, {origin}."
            )
    n_frames, ny, nx = run.cine.shape
    sampling = run.acquisition.sampling
    accelerations = [acc for _, acc in run.test_conditions if acc is not None]
    synthetic = "".join(f" ({line})" for line in run.cine.origin)
    tested = counted(len(parts["test"]), "test sample")
    if run.cine.is_undersampled:
        return (
            f"{done} The test is of {tested} of {counted(n_frames, 'frame')}, {ny} x {nx} pixels,"
            " without a ground truth: of the lines that were measured a tenth are held out, the"
            " same for all methods, which predict them."
        )
    return (
        f"{done} The test is of {tested}{synthetic} of {counted(n_frames, 'frame')}, {ny} x {nx}"
        f" pixels, undersampled to {sampling.text(accelerations)}, with the same masks for all"
        " methods."
    )


def model_lines(run: Run, whole: Cost, step: Cost) -> list[str]:
    """The network: its settings and what it costs, on a whole image and in a training step."""
    s = run.settings
    origin = f", starting from {s.initial_weights}" if s.initial_weights else ""
    lines = [
        f"{s.model}, " + ", ".join(f"{k} {v}" for k, v in run.architecture.items()) + origin,
        f"{whole.parameters:,} parameters, {whole.macs / 1e9:.1f} G multiply-accumulates a"
        f" sample (forward), {step.activation_bytes / 1e9:.2f} GB of activations kept in a"
        f" training step on {counted(run.pass_size, 'sample')}, in float32"
        + (", before gradient checkpointing" if s.gradient_checkpointing else ""),
    ]
    name = s.model
    if s.calibrate:
        name = calibrated_name(name)
        lines.append(
            f"{name}: the start, and the share of its correction, from 0 to 1, that predicts a"
            " tenth of the measured lines best, which are held out for it; validation is without"
        )
    if s.average > 1:
        lines.append(
            f"{average_name(name, s.average)}: the mean of its images of {s.average} mirrored"
            " series, mirrored back; validation is without"
        )
    if ignores_prior(run.architecture) and not s.initial_weights:
        lines.append(
            "it corrects the zero-filled image, as the reference's network does, and so ends far"
            " below the training-free methods as a rule; --start patch --data-consistency"
            " helps"
        )
    return lines


def optimisation_lines(
    s: SimpleNamespace, n_steps: int, device: torch.device, knows_truth: bool
) -> list[str]:
    """How the network is trained."""
    loss = loss_text(s.loss) if s.supervision == FULL else "hidden-line"
    return [
        f"{loss} loss, Adam, {counted(s.num_epochs, 'epoch')} of {counted(n_steps, 'step')},"
        f" batch {s.batch_size},"
        f" weight decay {s.weight_decay:g}, learning rate {s.initial_lr:g}, {s.lr_schedule},"
        f" {s.precision}{about_precision(device)}"
        + (f", strips of {counted(s.strip, 'column')}" if s.strip else "")
        + (f", gradient norm at most {s.clip_gradient:g}" if s.clip_gradient else "")
        + (f", augmentation {' and '.join(s.augment)}" if s.augment else "")
        + (f", moving average of the weights {s.ema:g}" if s.ema else ""),
        f"train/loss is the {loss} loss of the training images"
        + ("; validation/loss is the mean squared error of magnitudes" if knows_truth else ""),
        *supervision_lines(s.supervision, s.mask_pool, knows_truth),
        *decay_warning(s.model, s.weight_decay),
    ]


OF_NOISE = (
    "the error of the lines that the network gets is added by Stein's estimate (SURE), for the"
    " noise in the corners of k-space; each step reconstructs its samples twice"
)


def supervision_lines(supervision: str, mask_pool: int, knows_truth: bool) -> list[str]:
    """How a network is trained without the truth, which scores may know."""
    if supervision == FULL:
        return []
    choices = counted(mask_pool, "choice") if mask_pool else "new choices in every round"
    return [
        "supervision by hidden lines: every training and validation sample is measured once; of its"
        f" lines outside the centre {SHARE:.0%} are hidden from the network and are its target, by"
        f" {choices}, weighted by how rarely they are measured (C. Millard and M. Chiew, 2023)",
        *([OF_NOISE] if supervision == SELF_SURE else []),
        f"validation/held_out: -10 log10 of the weighted squared error of {HELD_OUT:.0%} of the"
        " lines of the validation part, which are held out, in dB; the best epoch is chosen by it"
        + (
            ". The ground truth serves for scores alone, and for the parameters of the"
            " training-free methods"
            if knows_truth
            else ""
        ),
    ]


def baseline_lines(
    parameters: dict[Condition, dict[str, Parameters]],
    training_part: list[int],
    knows_truth: bool = True,
) -> list[str]:
    """The parameters of the training-free methods, by condition and method, one per line; without a
    truth they were not searched."""
    samples = ", ".join(map(str, training_part[:N_TUNING]))
    lines, titles = [], titles_of(parameters)
    of_all = [(name, condition) for condition, known in parameters.items() for name in known]
    for name, condition in of_all:
        grid, chosen = BASELINES[name].grid, parameters[condition][name]
        if not grid:
            continue
        lacking = "are no training samples to search on" if knows_truth else "is no ground truth"
        origin = f"usual values: there {lacking}"
        if samples and knows_truth:
            origin = f"the best that a search on training samples {samples} found"
            if outside := beyond_grid(grid, chosen):
                origin += f"; beyond its grid in {' and '.join(outside)}"
        values = ", ".join(f"{key} {value:.3g}" for key, value in chosen.items())
        lines.append(f"{name}, {titles[condition]}: {values} ({origin})")
    return lines
