"""Train a network that reconstructs dynamic cardiac MRI from undersampled k-space, and score it.

    python train.py output_folder [--setting value ...] [@recipes/name.txt]

Every setting is a keyword of `train()` with its default: edit it there, give it as a flag, or call
`train("out", num_epochs=5)`. The order of `train()` is that of the data:

    load     dataset.py                  the images, checked
    split    data/split.py               training, validation and test part
    mask     CS_mask.py                  the lines that are measured, drawn for every sample
    alias    data/acquisition.py         b = F^-1 U F m, with phase, noise and coils
    tune     evaluation/bench.py         the training-free methods, on training samples
    fit      training/loop.py            epochs of steps; the loss is in training/losses.py
    test     evaluation/bench.py         all methods on the same masks, once
    report   report/report.py            output.txt, pictures, report.html

B sample, T frame, Y phase-encoding line, X readout.
"""

from util.source import early_arguments

if __name__ == "__main__":  # help and wrong flags end here, before the slow imports
    GIVEN = early_arguments(__file__)

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from CS_mask import as_given, evaluation_masks
from data.quality import check_range
from data.split import split_samples
from dataset import load_cine, require_data
from evaluation.bench import Bench
from evaluation.error_map import COMPARED, require_lines
from evaluation.error_score import MappedMethods, calibrated_factors, error_rows
from evaluation.held_out import require_held_out
from evaluation.lesion_score import lesion_rows
from evaluation.scoring import ScoreRow, psnr_by_stage, seconds_of
from evaluation.summary import mean_scores
from evaluation.tuning import available_baselines
from formats.masks import read_masks
from methods.averaging import average_name, averaged
from methods.baselines import Method, baseline
from methods.calibration import calibrated, calibrated_name
from model import (
    about_models,
    build_model,
    channels_last,
    compile_parts,
    set_checkpointing,
)
from report.description import baseline_lines, changes, configuration, describe
from report.pictures import Gallery
from report.report import Report, Results
from report.text import error_map_lines, stage_lines, time_line
from training import checkpoint as ckpt
from training import checks, run_folder
from training.loading import MEMORY_MARGIN
from training.loop import as_method, fit
from training.run import Run, trained_noise, trained_sampling
from training.settings import (
    architecture_changes,
    real_image_prior,
    unused_settings,
    unused_with_data,
    with_architecture,
    with_channels,
    with_given_masks,
    with_own_values,
)
from util import machine
from util.cache import source_hash
from util.command_line import given_command, main, parse_command_line
from util.errors import InputError
from util.journal import Journal
from util.launcher import started_by_torchrun
from util.memory import explained_out_of_memory, reuse_memory
from util.progress import say
from util.settings import defaults_of, explicit, notes_explicit, typed
from util.stop import StopRequest, recorded_signals
from util.world import World, torchrun_world

CODE = source_hash("train")  # of the whole suite, as it was imported


@notes_explicit
def train(
    output_folder: str | os.PathLike[str],  # new or empty folder for the results
    *,
    # -- data
    data: str = "cine.npz",  # .npz file (key 'dataset'), .npy file, or 'phantom' (built in)
    n_samples: int | None = None,  # use only the first n samples; None: all (phantom: 200)
    complex_pairs: bool = False,  # the last axis, of 2, is real and imaginary part
    normalise: bool = False,  # divide every sample by its own maximum
    split: tuple[float, ...] = (4, 1, 2),  # training, validation and test part, as ratios
    data_seed: int = 0,  # seed of the split, the validation and test masks, the phantom
    phase: bool = False,  # give every image a smooth random phase
    noise: float | tuple[float, ...] = 0.0,  # deviation of k-space noise, or lowest and highest
    coils: int | None = None,  # number of simulated receive coils; None: single coil
    virtual_coils: int | None = None,  # number of virtual coils after compression; None: all
    # -- mask
    pattern: str | tuple[str, ...] = "gaussian",  # law of the lines, or several; or a file of masks
    acc: float | tuple[float, ...] = 6,  # nominal acceleration, or lowest and highest
    test_acc: tuple[float, ...] | None = None,  # accelerations to test; None: as in training
    sample_n: int | tuple[int, ...] = 10,  # fully sampled lines in the centre, or several numbers
    partial_fourier: float | tuple[float, ...] = 1.0,  # share of k-space with lines, or several
    mask_pool: int | None = None,  # masks of a sample; 0: new ones; None: 4 for the patch start
    # -- model
    model: str = "unet_resnet",  # a network, such as 'cascade' (the best): docs/settings.md
    in_channels: int = 20,  # frames of the input; not given: those of the data
    out_channels: int = 20,  # frames of the output, the same number
    init_features: int = 64,  # channels at full resolution, doubled per level
    dropout: float = 0.0,  # probability of dropping an activation
    batch_norm: bool = True,  # batch normalisation
    data_consistency: bool = False,  # put the measured lines back at the end
    start: str | None = None,  # corrected image, such as 'patch'; None: zero_filled, cascade: patch
    branches: str = "separate",  # U-Nets of the two parts: 'separate', 'shared' or 'stacked'
    attention: bool = False,  # channel and spatial attention at the bottom
    stages: int | None = None,  # number of stages; None: the network's own
    features: int | None = None,  # channels of a stage; None: the network's own
    dc_weight: float | None = None,  # weight of noisy measured lines; None: kept exactly
    learn_dc_weight: bool = False,  # train dc_weight, one for each stage
    real_image: bool | None = None,  # assume real-valued images; None: if the data allow it
    initial_weights: str | None = None,  # checkpoint to start from, or 'cascade_phantom'
    # -- optimisation
    num_epochs: int = 400,  # passes over the training part; 0: no training, only scores
    supervision: str = "full",  # by the ground truth; 'self': by hidden lines; or 'self_sure'
    loss: str | tuple[str | float, ...] = "mse",  # training loss, or several, each with its weight
    stage_loss: float
    | None = None,  # weight of earlier stages' loss; 0: none; None: the network's own
    weight_decay: float = 1e-4,  # L2 penalty of Adam (not decoupled)
    batch_size: int = 10,  # samples in an optimiser step
    accumulation: int = 1,  # forward passes that share a batch, for less memory
    initial_lr: float = 1e-4,  # highest learning rate
    lr_schedule: str = "cosine",  # 'cosine' (warm-up, then cosine to zero) or 'constant'
    warmup_epochs: int = 10,  # length of the warm-up; at most a tenth of num_epochs
    clip_gradient: float
    | None = None,  # maximum gradient norm; 0: no clipping; None: the network's own
    ema: float | None = None,  # decay of the weights' moving average; 0: none; None: network's own
    augment: tuple[str, ...] = (),  # 'flips', 'time', 'shift', and others: docs/settings.md
    strip: int | None = None,  # columns of a training strip; 0: whole images; None: network's own
    precision: str | None = None,  # of the networks: 'float32' or 'bfloat16'; None: the faster here
    compile: bool = False,  # compile U-Nets and refiners before the first step
    cuda_graph: bool | None = None,  # on a GPU: launch each step at once; None: the network's own
    gradient_checkpointing: bool = False,  # recompute activations in the backward pass
    seed: int = 0,  # seed of weights, dropout, order, training masks and augmentation
    device: str | None = None,  # 'cpu', 'cuda', 'cuda:1', 'mps'; None: the best available
    max_minutes: float | None = None,  # stop after this time, ready for --resume
    max_steps: int | None = None,  # stop after this many steps or test batches, for --resume
    # -- output
    calibrate: bool = False,  # also test the share of the correction that held-out lines favour
    average: int = 1,  # also test the mean over this many flips and reversals: 1, 2, 4 or 8
    baselines: tuple[str, ...] | None = None,  # training-free methods to score; None: all
    lesions: bool = False,  # also test how small lesions in the heart are reconstructed
    error_map: bool = False,  # also test maps of the expected error, and a 90 % bound
    num_pictures: int = 5,  # test samples to draw pictures of
    picture_format: str = "png",  # of the figures: 'png', or 'pdf' or 'svg' for a paper
    picture_width: float = 7.2,  # inches of the figures; a column of a journal is 3.5
    picture_dpi: int = 100,  # resolution of the pictures; a frame is at most two inches wide
    arrays: str = "small",  # reconstructions.npz: 'all', 'small' (float16, no aliased) or 'none'
    validate_every: int = 1,  # epochs between validations; the last is always validated
    resume: bool = False,  # continue the run in output_folder, with its settings
    log: Callable[[dict[str, float]], object] | None = None,  # called with every epoch; no flag
) -> dict[str, dict[str, float]]:
    """Train a reconstruction network on undersampled cine MRI and report its scores.

    Args:
        log: a function that gets the row of `history.csv` after each epoch, and at the end a row
            with the network's mean test scores, `test/psnr` and others; of several processes in the
            first. What it raises ends the run, whose state is saved before.

    Returns:
        {method: {score: mean over the test part}}, for the network (under its `model` name) and
        every baseline. `metrics.csv` has a row for each sample.

    Raises:
        InputError: the settings, the data, a checkpoint or the folder cannot be used as they are.
        Interrupted: stopped by a signal or a limit; a checkpoint was saved.
    """
    given = {**locals()}
    del given["output_folder"], given["log"]
    given = typed(train, given)
    name = os.fspath(output_folder)
    command = f"python train.py {shlex.quote(name)} --resume"
    with (
        torchrun_world(command, run_folder.device_asked_for(Path(name), device)) as world,
        run_folder.claimed(name, resume, world) as (folder, given["resume"]),
    ):
        if given["resume"]:
            asked_for = {name: given[name] for name in explicit.get() if name in given}
            stored = run_folder.stored_settings(folder, asked_for, defaults_of(train))
            given = typed(train, given | stored)
            if world.from_first(run_folder.is_finished(folder)):
                say(f"{folder} holds a finished run: nothing to do")
                return mean_scores(run_folder.read_metrics(folder))
        checks.check_settings(given)
        continues = world.from_first((folder / ckpt.LAST).exists())
        settings, initial, path = with_initial_weights(given, folder, continues)
        settings = with_own_values(settings)
        with explained_out_of_memory(checks.memory_advice(settings)):
            stop = StopRequest(max_minutes, command, max_steps)
            run = prepare(folder, settings, initial, world)  # load and split
            network = make_network(run, initial, path)
            report = announce(run)
            try:
                bench = tune_baselines(run, report, stop)
                if network is not None and run.settings.num_epochs:
                    report.compare_with(bench.reference())
                    network = fit(run, network, report, stop, log)
                means = score_test(run, network, bench, report)
                if log is not None and network is not None and world.is_first:
                    of_network = {f"test/{k}": v for k, v in means[run.settings.model].items()}
                    log({"epoch": run.settings.num_epochs, **of_network})
                return means
            finally:
                report.close()


def with_initial_weights(
    settings: Mapping[str, Any], folder: Path, continues: bool
) -> tuple[dict[str, Any], dict[str, Any] | None, Path]:
    """The settings with the architecture of the initial weights, and their checkpoint (None: there
    is none) with its path. `continues`: the folder has a last checkpoint."""
    if settings["initial_weights"] is None:
        return dict(settings), None, folder
    path = ckpt.weights_file(settings["initial_weights"])
    if settings["resume"] and continues:
        path = folder / ckpt.LAST  # it holds everything that came with the initial weights
    initial = ckpt.load_checkpoint(path)
    for line in architecture_changes(settings, initial, path):
        say(line)
    settings = typed(train, with_architecture(settings, initial, path))
    checks.check_settings(settings)
    return settings, initial, path


def prepare(
    folder: Path, settings: dict[str, Any], initial: Mapping[str, Any] | None, world: World
) -> Run:
    """Load and check the data, and split them."""
    s = SimpleNamespace(**settings)
    checks.check_world(settings, world)
    if s.compile:
        machine.require_compiler()
    device = world.device(machine.pick_device(s.device))
    s.precision = s.precision or machine.fast_precision(device)
    machine.make_deterministic(s.seed)
    with world.first_before_others():
        cine = load_cine(
            s.data, s.n_samples, s.complex_pairs, s.normalise, s.in_channels, s.data_seed
        )
    check_range(cine.quality, cine.source)
    if initial is None:
        s = SimpleNamespace(**with_channels(vars(s), explicit.get(), cine))
    masks: tuple[tuple[str, ...], ...] = ()
    if cine.is_undersampled:
        checks.check_undersampled(vars(s), explicit.get(), cine)
        s = SimpleNamespace(**with_given_masks(vars(s), explicit.get(), cine.measured))
    elif (file := checks.mask_file(s.pattern)) is not None:
        given = read_masks(file, cine.shape)
        s = SimpleNamespace(**with_given_masks(vars(s), explicit.get(), given))
        masks = as_given(given)
    s.real_image = real_image_prior(s.real_image, s.phase or s.coils is not None, cine)
    parts = split_samples(len(cine.images), s.split, s.data_seed, cine.groups)
    run = Run(folder, s, device, cine, parts, world, masks=masks)
    checks.check_against_data(vars(s), cine, run.acquisition.sampling, run.has_network)
    checks.check_calibration(s.calibrate, run.architecture)
    checks.check_noise_supervision(vars(s), run.n_coils)
    if initial:
        run.seen = {role: set(hashes) for role, hashes in initial["data"]["seen"].items()}
        run.trained = trained_sampling(initial)
        run.trained_noise = trained_noise(initial["settings"]).highest
    if not (run.has_network or baselines_of(run)):
        raise InputError(
            "there is nothing to score: --num-epochs is 0, no --initial-weights are given, and"
            f" --baselines is {s.baselines}; name some, or leave it out for all that apply"
        )
    check_held_out(run)
    if s.error_map and not run.has_network:
        say("NOTICE: --error-map does nothing without a network")
    if "cuda_graph" in explicit.get() and s.cuda_graph and not run.records_steps:
        reason = "; it is for one GPU and one coil, with --start patch for a --mask-pool"
        where = f"{device}{reason if device.type == 'cuda' else ''}"
        say(f"NOTICE: --cuda-graph does nothing on {where}")
    if device.type == "cpu":
        needed = run.step_cost.activation_bytes if run.has_network else 0
        reuse_memory(MEMORY_MARGIN * needed)
    return run


def check_held_out(run: Run) -> None:
    """Raise InputError if a mask has too few lines to hold out, where scores or maps of the error
    are made by them."""
    s, parts, shape = run.settings, run.parts, run.cine.shape[:2]
    judged = parts["test"] if run.cine.is_undersampled else []
    judged = judged + (parts["validation"] if run.by_hidden_lines else [])
    masks = evaluation_masks(judged, shape, run.acquisition.sampling, s.data_seed) if judged else ()
    for sample, mask in zip(judged, masks, strict=True):
        require_held_out(torch.from_numpy(mask[None]), sample, s.real_image)
    if s.error_map and run.has_network:
        mapped = parts["test"] + (parts["validation"] if run.calibrates_bounds else [])
        sampling = run.acquisition.at(run.test_conditions[0]).sampling
        for mask in evaluation_masks(mapped, shape, sampling, s.data_seed):
            require_lines(torch.from_numpy(mask[None]), s.real_image, s.data_seed)


def make_network(run: Run, initial: dict[str, Any] | None, path: Path) -> nn.Module | None:
    """The network on the device, with the initial weights; None: only baselines are scored."""
    if not run.has_network:
        return None
    network = build_model(run.settings.model, **run.architecture)
    if initial:
        ckpt.load_weights(network, initial, path)
    if run.world.size > 1 and run.device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if not run.world.is_first:
        ckpt.seed_dropout(run.settings.seed, run.world.rank)
    channels_last(network.to(run.device))
    set_checkpointing(network, run.settings.gradient_checkpointing)
    if run.settings.compile:
        compile_parts(network)
    return network


def announce(run: Run) -> Report:
    """The report, begun with the description of the run; new runs write `config.json`."""
    report, settings = Report(run), vars(run.settings)
    for line in unused_settings(settings, defaults_of(train)):
        say(line)
    for line in unused_with_data(settings, run.cine):
        say(line)
    for heading, lines in describe(run).items():
        report.say(heading, lines)
    if run.settings.resume:
        run_folder.require_same_data(run.folder, run.cine.hash, run.masks)
        for line in changes(run, run_folder.read_config(run.folder)):
            say(line)
    elif run.world.is_first:
        run_folder.write_config(run.folder, configuration(run))
        run_folder.write_settings(run.folder, settings, given_command("train.py"))
    return report


def baselines_of(run: Run) -> list[str]:
    """The training-free methods that are scored."""
    s = run.settings
    return available_baselines(s.baselines, s.real_image, run.n_coils is not None)


def tune_baselines(run: Run, report: Report, stop: StopRequest) -> Bench:
    """The bench of the run, with its training-free methods tuned on training samples."""
    s = run.settings
    bench = Bench(
        run.cine, run.parts, run.acquisition, s.real_image, run.pass_size, run.device, run.world,
        stop,
    )  # fmt: skip
    bench.tune(run.test_conditions, baselines_of(run))
    knows_truth = not run.cine.is_undersampled
    report.add("Baselines", baseline_lines(bench.tuned, run.parts["train"], knows_truth))
    return bench


def score_test(
    run: Run, network: nn.Module | None, bench: Bench, report: Report
) -> dict[str, dict[str, float]]:
    """Score the network and the baselines on the test part, once, and write all results.

    Args:
        network: None: only the baselines are scored.

    Returns:
        {method: {score: mean over samples, and over patterns and accelerations, if several}}.
    """
    s, started, conditions = run.settings, time.perf_counter(), run.test_conditions
    first = conditions[0]
    learned = {} if network is None else learned_methods(s, network)
    methods = bench.methods(learned, first)
    shown = list(learned)[-1] if learned else list(methods)[-1]
    n_test = len(run.parts["test"])
    gallery = Gallery(run.folder, shown, methods, s.num_pictures, s.arrays, n_test)
    journal = None
    if run.world.is_first:
        journal = Journal(run.folder / run_folder.JOURNAL, identity_of_test(run, network, bench))
    rows: list[ScoreRow] = []
    for condition in conditions:
        on_batch = gallery.add if condition == first else None
        rows += bench.score(learned, condition, on_batch=on_batch, journal=journal)
    patterns, order = [pattern for pattern, _ in conditions], list(methods)
    rows.sort(
        key=lambda row: (
            patterns.index(row["pattern"]),
            row["acc"],
            row["sample"],
            order.index(row["method"]),
        )
    )
    lesions: list[dict[str, Any]] = []
    one_by_one = bench.batches("test", first, size=1)
    if s.lesions:
        lesions = lesion_rows(methods, one_by_one, bench.stop, journal, run.world)
    error_maps: list[dict[str, Any]] = []
    if s.error_map and learned:
        error_maps = test_error_maps(run, shown, methods, bench, report, journal, gallery)
    if journal is not None:  # the first process does the rest
        knows_truth = not run.cine.is_undersampled
        if knows_truth and network is not None and hasattr(network, "by_stage"):
            stages = psnr_by_stage(network, bench.batches("test", first), s.precision)
            report.say("Stages", stage_lines(stages, bench.title(first)))
        spent = time.perf_counter() - started
        each = (f"{k} {seconds_of(method, one_by_one[0]):.2f}" for k, method in methods.items())
        times = [
            time_line(bench.spent, report.history, spent, s.resume),
            f"seconds a sample without scores: {', '.join(each)}",
        ]
        report.finish(Results(rows, lesions, times, error_maps=error_maps), gallery)
        journal.remove()
        (run.folder / ckpt.LAST).unlink(missing_ok=True)  # nothing is left to continue
        rows = run_folder.read_metrics(run.folder)  # with the digits that are stored
    return run.world.from_first(mean_scores(rows))


def test_error_maps(
    run: Run,
    shown: str,
    methods: Mapping[str, Method],
    bench: Bench,
    report: Report,
    journal: Journal | None,
    gallery: Gallery,
) -> list[dict[str, Any]]:
    """Make and test the error maps of the network that is shown and of `patch_low_rank`, with
    bounds calibrated on validation samples; returns the rows of `error_map.csv`."""
    s, condition = run.settings, run.test_conditions[0]
    compared = methods.get(COMPARED) or baseline(COMPARED, s.real_image)
    pair = {shown: methods[shown], COMPARED: compared}
    mapped = MappedMethods(pair, s.real_image, s.data_seed)
    test = bench.batches("test", condition, size=1)
    validation = bench.batches("validation", condition, size=1)
    how: dict[str, Any] = {"stop": bench.stop, "journal": journal, "world": run.world}
    if run.calibrates_bounds:
        factors = calibrated_factors(mapped, validation, run.cine.groups, **how)
        mapped = replace(mapped, factors=factors)
    report.say("Error map", error_map_lines(mapped.factors))
    kept = {"on_sample": gallery.add_error_map, "wanted": gallery.lacks_error_map}
    return error_rows(mapped, test, **how, **kept)


def learned_methods(settings: SimpleNamespace, network: nn.Module) -> dict[str, Method]:
    """The network under the name of its model; calibrated, and its mean over flips, if that is
    asked for."""
    name, method = settings.model, as_method(network, settings.precision)
    methods = {name: method}
    if settings.calibrate:
        name = calibrated_name(name)
        methods[name] = method = calibrated(method, settings.start, settings.real_image)
    if settings.average > 1:
        methods[average_name(name, settings.average)] = averaged(method, settings.average)
    return methods


def identity_of_test(run: Run, network: nn.Module | None, bench: Bench) -> dict[str, Any]:
    """Everything that the results of the test depend on, in addition to samples and methods."""
    return {
        "network": None if network is None else ckpt.weights_hash(network),
        "parameters": {k.title(with_pattern=True): p for k, p in bench.tuned.items()},
        "data": run.cine.hash,
        "acquisition": asdict(run.acquisition),
        "settings": run_folder.of_the_run(vars(run.settings)),
        "code": CODE,
        "versions": machine.versions(),
        "hardware": machine.hardware(run.device),
    }


def arguments() -> dict[str, Any]:
    """The arguments for `train()` on the command line.

    Raises:
        InputError: a new run of one process has no data.
    """
    given = parse_command_line(train, choices=checks.CHOICES, prefix_of=about_models)
    continues = given.get("resume") or os.path.exists(given["output_folder"])
    if not (continues or started_by_torchrun()):
        require_data(given.get("data", defaults_of(train)["data"]))
    return given


def from_command_line(given: dict[str, Any] | None = None) -> None:
    """`train()` with the arguments of the command line; `given`: these, if parsed before."""
    train(**(arguments() if given is None else given))


if __name__ == "__main__":
    after = "if the output folder holds a run, continue it with --resume"
    with recorded_signals():  # until the last message
        sys.exit(main("train.py", partial(from_command_line, GIVEN), after, several=True))
