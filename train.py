"""Train a network that reconstructs dynamic cardiac MRI from undersampled k-space, and score it.

    python train.py output_folder [--setting value ...] [@recipes/name.txt]

Every setting is a keyword of `train()` with its default: edit it there, give it as a flag, or call
`train("out", num_epochs=5)`. The flow of the data: load, split, draw masks, alias, reconstruct,
loss, step; after every epoch validate and save; at the end score the best checkpoint on the test
part and report.
B sample, T frame, Y phase-encoding line, X readout.
"""

import contextlib
import copy
import itertools
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import nn
from tqdm import tqdm

from dataset import load_cine
from evaluation.bench import Bench
from evaluation.forecast import Forecast, forecast
from evaluation.lesion_score import lesion_rows
from evaluation.scoring import (
    Row,
    best_baseline,
    mean_scores,
    psnr_by_stage,
    seconds_of,
    validate,
)
from evaluation.series_view import ventricle_rows
from evaluation.tuning import Parameters, available_baselines
from methods.averaging import average_name, averaged
from methods.baselines import Method
from model import (
    build_model,
    channels_last,
    compile_parts,
    run_network,
    set_checkpointing,
)
from report.description import (
    baseline_lines,
    caveats,
    changes,
    configuration,
    describe,
    remedies,
)
from report.figures import curves_figure
from report.page import write_page
from report.pictures import BESIDE, Gallery, seconds_of_pictures, write_figure
from report.run_page import run_page
from report.tensorboard import TensorBoard
from report.text import (
    epoch_header,
    epoch_line,
    reference_lines,
    result_lines,
    stage_lines,
    time_line,
    verdict_lines,
    wrapped,
    write_output,
)
from training import checkpoint as ckpt
from training import checks, run_folder
from training.batches import Batch, Draws, divided, epoch_draws, prepared, shared
from training.cuda_graph import Forward
from training.loading import MEMORY_MARGIN, batch_maker, validation_batches
from training.optimisation import (
    learning_rate,
    make_optimizer,
    update_average,
)
from training.quality import check_range, examine, quality_of, score_notices
from training.run import Run, Training, restore, seed_dropout, snapshot
from training.split import split_samples
from training.steps import N_AHEAD, READ_EVERY, read_losses, train_step, training_forward
from util import machine
from util.cache import source_hash
from util.command_line import given_command, main, parse_command_line
from util.errors import InputError
from util.files import write_csv
from util.journal import Journal
from util.progress import duration, say
from util.settings import defaults_of, explicit, notes_explicit, typed
from util.stop import StopRequest
from util.world import World, torchrun_world

CODE = source_hash("train")  # of the whole suite, as it was imported
WARM_STEPS = 3  # steps after which the time left is estimated
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"  # of training
LOGGED_SAMPLES = 2  # validation samples whose pictures go to TensorBoard
LOGGED_EPOCHS = 20  # how often in a run these are logged


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
    noise: float = 0.0,  # standard deviation of k-space noise, real and imaginary part each
    coils: int | None = None,  # simulate so many receive coils; None: one that sees all alike
    virtual_coils: int | None = None,  # compress the coils to so many; None: keep them all
    # -- mask
    acc: float | tuple[float, ...] = 6,  # nominal acceleration, or lowest and highest
    test_acc: tuple[float, ...] | None = None,  # accelerations to test; None: as in training
    sample_n: int = 10,  # fully sampled lines in the centre of k-space
    fresh_masks: bool = True,  # new training masks in every epoch; no: one mask a sample
    # -- model
    model: str = "unet_resnet",  # 'unet', 'unet_resnet', 'cnn3d' or 'cascade' (the best)
    in_channels: int = 20,  # unet*: input frames (as channels); frames of the phantom
    out_channels: int = 20,  # unet*: output frames; both must equal the data's frames
    init_features: int = 64,  # unet*, cnn3d: channels at full resolution, doubled per level
    dropout: float = 0.0,  # unet*, cnn3d: probability of dropping an activation
    batch_norm: bool = True,  # unet*, cnn3d: batch normalisation
    data_consistency: bool = False,  # unet*, cnn3d: put the measured lines back at the end
    start: str = "zero_filled",  # unet*, cnn3d: what they correct: also 'view_sharing', 'kt_sparse'
    branches: str = "separate",  # unet*: U-Nets 'separate', 'shared' or 'stacked'
    attention: bool = False,  # unet*: channel and spatial attention at the bottom
    stages: int = 4,  # cascade: number of stages
    features: int = 16,  # cascade: channels of a stage at its highest resolution
    memory: bool = True,  # cascade: stages hand features on, Y is cyclic; no: as in version 0.1.0
    dc_weight: float | None = None,  # cascade: weight of noisy measured lines; None: kept exactly
    learn_dc_weight: bool = False,  # cascade: train dc_weight, one for each stage
    real_image: bool | None = None,  # assume real-valued images; None: if the data allow it
    initial_weights: str | None = None,  # checkpoint to start from, or 'cascade_phantom'
    # -- optimisation
    num_epochs: int = 400,  # passes over the training part; 0: no training, only scores
    loss: str = "mse",  # training loss: 'mse' (squared error) or 'l1' (absolute error)
    stage_loss: float = 0.0,  # cascade: weight of the loss after each stage but the last
    weight_decay: float = 1e-4,  # L2 penalty of Adam (not decoupled)
    batch_size: int = 10,  # samples in an optimiser step
    accumulation: int = 1,  # forward passes that a batch is divided into, for less memory
    initial_lr: float = 1e-4,  # highest learning rate
    lr_schedule: str = "cosine",  # 'cosine' (warm-up, then cosine to zero) or 'constant'
    warmup_epochs: int = 10,  # length of the warm-up; at most a tenth of num_epochs
    clip_gradient: float | None = None,  # maximum gradient norm; None: no clipping
    ema: float = 0.0,  # decay of the moving average of the weights; 0: none is kept
    augment: tuple[str, ...] = (),  # 'flips', 'time', 'shift', and others: docs/settings.md
    strip: int | None = None,  # train on strips of this many columns; None: whole images
    precision: str | None = None,  # of the networks: 'float32', 'bfloat16'; None: the faster here
    compile: bool = False,  # unet*, cnn3d: compile U-Nets and refiners before the first step
    cuda_graph: bool = False,  # on a GPU: launch each training step at once, for small networks
    gradient_checkpointing: bool = False,  # recompute activations in the backward pass
    seed: int = 0,  # seed of weights, dropout, order, training masks and augmentation
    device: str | None = None,  # 'cpu', 'cuda', 'cuda:1', 'mps'; None: the best available
    max_minutes: float | None = None,  # stop after this time, ready for --resume
    # -- output
    average: int = 1,  # also test the mean over this many flips and reversals: 1, 2, 4 or 8
    baselines: tuple[str, ...] | None = None,  # training-free methods to score; None: all
    lesions: bool = False,  # also test how small lesions in the heart are reconstructed
    num_pictures: int = 5,  # test samples to draw pictures of
    picture_dpi: int = 100,  # resolution of the pictures; a frame is two inches wide
    arrays: str = "all",  # reconstructions.npz: 'all', 'small' (float16, no aliased) or 'none'
    validate_every: int = 1,  # epochs between validations; the last is always validated
    resume: bool = False,  # continue the run in output_folder, with its settings
) -> dict[str, dict[str, float]]:
    """Train a reconstruction network on undersampled cine MRI and report its scores.

    Returns:
        {method: {score: mean over the test part}}, for the network (under its `model` name) and
        every baseline. `metrics.csv` has a row for each sample.

    Raises:
        InputError: the settings, the data, a checkpoint or the folder cannot be used as they are.
        Interrupted: stopped by a signal or `max_minutes`; a checkpoint was saved.
    """
    given = {name: value for name, value in locals().items() if name != "output_folder"}
    given = typed(train, given)
    name = os.fspath(output_folder)
    command = f"python train.py {shlex.quote(name)} --resume"
    with (
        torchrun_world(command) as world,
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
        with (
            machine.explained_out_of_memory(checks.memory_advice(settings)),
            StopRequest(max_minutes, command, after_progress=True) as stop,
        ):
            run = prepare(folder, settings, initial, world)
            network = make_network(run, initial, path)
            facts = announce(run)
            bench, tuned = tune_baselines(run, facts, stop)
            history: list[dict[str, float]] = []
            reference = None
            if network is not None and run.settings.num_epochs:
                reference = score_reference(run, bench, tuned, facts, stop)
                network, history = fit(run, network, bench, tuned, reference, facts, stop)
            return score_test(run, network, bench, tuned, history, reference, facts, stop)


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
    for line in checks.architecture_changes(settings, initial, path):
        say(line)
    settings = typed(train, checks.with_architecture(settings, initial, path))
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
            s.data, s.n_samples, s.complex_pairs, s.normalise, s.in_channels, s.data_seed, examine
        )
    quality = quality_of(cine.findings)
    check_range(quality, cine.source)
    s.real_image = checks.prior_for(s.real_image, s.phase or s.coils is not None, cine)
    parts = split_samples(len(cine.images), s.split, s.data_seed, cine.groups)
    run = Run(folder, s, device, cine, parts, quality, world)
    checks.check_against_data(vars(s), cine, run.has_network)
    if initial:
        run.seen = {role: set(hashes) for role, hashes in initial["data"]["seen"].items()}
    coils = run.n_coils is not None
    if not (run.has_network or available_baselines(s.baselines, s.real_image, coils)):
        raise InputError(
            "there is nothing to score: --num-epochs is 0, no --initial-weights are given, and"
            f" --baselines is {s.baselines}; name some, or leave it out for all that apply"
        )
    if s.cuda_graph and (device.type != "cuda" or world.size > 1 or run.n_coils):
        where = device if device.type != "cuda" else "coils" if run.n_coils else "several GPUs"
        say(f"NOTICE: --cuda-graph does nothing on {where}")
    if device.type == "cpu":
        needed = run.step_cost.activation_bytes if run.has_network else 0
        machine.reuse_memory(MEMORY_MARGIN * needed)
    return run


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
        seed_dropout(run, epoch=0, step=0)
    channels_last(network.to(run.device))
    set_checkpointing(network, run.settings.gradient_checkpointing)
    if run.settings.compile:
        compile_parts(network)
    return network


def announce(run: Run) -> dict[str, list[str]]:
    """Describe the run on the screen and in `config.json`; returns the report's first lines."""
    unused = checks.unused_settings(vars(run.settings), defaults_of(train))
    for line in (*unused, *checks.unused_with_data(vars(run.settings), run.cine)):
        say(line)
    facts = describe(run)
    for heading, lines in facts.items():
        say(f"{heading}: " + "\n  ".join(lines))
    if run.settings.resume:
        run_folder.require_same_data(run.folder, run.cine.hash)
        for line in changes(run, run_folder.read_config(run.folder)):
            say(line)
    elif run.world.is_first:
        run_folder.write_config(run.folder, configuration(run))
        run_folder.write_settings(run.folder, vars(run.settings), given_command("train.py"))
    return facts


def tune_baselines(
    run: Run, facts: dict[str, list[str]], stop: StopRequest
) -> tuple[Bench, dict[float, dict[str, Parameters]]]:
    """The bench of the run, and the parameters of its training-free methods by acceleration."""
    s = run.settings
    bench = Bench(run.cine, run.parts, run.acquisition, s.real_image, run.device, run.world)
    tuned: dict[float, dict[str, Parameters]] = {}
    for acc in run.test_accelerations:
        tuned[acc] = {}
        for name in available_baselines(s.baselines, s.real_image, run.n_coils is not None):
            tuned[acc][name] = bench.parameters(name, acc, stop)
    if lines := baseline_lines(tuned, run.parts["train"]):
        facts["Baselines"] = lines
    return bench, tuned


def score_reference(
    run: Run,
    bench: Bench,
    tuned: Mapping[float, Mapping[str, Parameters]],
    facts: dict[str, list[str]],
    stop: StopRequest,
) -> tuple[str, float] | None:
    """The training-free method of the highest PSNR on the validation part, and that PSNR in dB.

    None if there is none, or if every validation mask has its own acceleration.
    """
    low, high = run.acquisition.acc
    if low != high or not tuned.get(low):
        return None
    rows = bench.score({}, tuned[low], low, run.pass_size, stop=stop, part="validation")
    best = best_baseline(rows)
    assert best is not None
    psnr = mean_scores(rows)[best]["psnr"]
    facts["Reference"] = reference_lines((best, psnr))
    for line in facts["Reference"]:
        say(line)
    return best, psnr


def fit(
    run: Run,
    network: nn.Module,
    bench: Bench,
    tuned: Mapping[float, Mapping[str, Parameters]],
    reference: tuple[str, float] | None,
    facts: Mapping[str, Sequence[str]],
    stop: StopRequest,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train from the last checkpoint, or from the start, to the last epoch.

    Args:
        bench, tuned: of `tune_baselines`, for the time that the test will take.
        reference: of `score_reference`, for the report and the logs.

    Returns:
        the network of the best epoch on the validation part, and the history of all epochs.
    """
    s = run.settings
    optimizer = make_optimizer(network, s.initial_lr, s.weight_decay)
    average = copy.deepcopy(network) if s.ema else None
    if average is not None and s.compile:
        compile_parts(average)
    forward = training_forward(run, network)
    training = Training(network, average, optimizer)
    restore(run, training)
    validation = validation_batches(run)
    make_batch = batch_maker(run)
    first = len(training.history)
    expected = Forecast(0.0, 0.0)
    if first < s.num_epochs and run.world.is_first:
        expected = measured_forecast(run, training.evaluated, bench, tuned)
    board = TensorBoard(run.folder, vars(s), first) if run.world.is_first else None
    with tqdm(
        total=s.num_epochs * run.n_steps,
        initial=first * run.n_steps + training.step,
        unit="step",
        disable=None,
        dynamic_ncols=True,
        bar_format=BAR,
    ) as bar:
        for epoch in range(first, s.num_epochs):
            train_epoch(
                run, training, forward, make_batch, epoch, bar, expected, reference, facts, stop
            )
            started = time.perf_counter()
            validated = (epoch + 1) % s.validate_every == 0 or epoch + 1 == s.num_epochs
            if validated:
                validate_epoch(run, training, validation, board)
            entry = close_epoch(run, training, validated)
            if board is not None:
                board.curves(entry, reference)
                write_output(run.folder, facts, training.history, reference=reference)
            if epoch == first:
                say(epoch_header(reference))
            say(epoch_line(entry, reference))
            if validated:
                expected.validation = time.perf_counter() - started
    if board is not None:
        board.close()
    run.world.wait()  # until the checkpoint is written
    best = ckpt.load_checkpoint(run.folder / ckpt.BEST)
    ckpt.load_weights(training.evaluated, best, run.folder / ckpt.BEST)
    return training.evaluated, training.history


def measured_forecast(
    run: Run,
    network: nn.Module,
    bench: Bench,
    tuned: Mapping[float, Mapping[str, Parameters]],
) -> Forecast:
    """The time that validation, test and pictures will take, measured on a sample."""
    s = run.settings
    learned = learned_methods(s, network)
    n_drawn = min(s.num_pictures, len(run.parts["test"]))
    pictured = dict.fromkeys(BESIDE, n_drawn)
    expected = forecast(bench, learned, tuned, run.pass_size, s.lesions, pictured)
    images = bench.batches("test", run.test_accelerations[0], size=1)[0].target[0].cpu().numpy()
    expected.test /= run.world.size
    expected.test += seconds_of_pictures(images, n_drawn, s.picture_dpi)
    return expected


def train_epoch(
    run: Run,
    training: Training,
    forward: Forward,
    make_batch: Callable[[Draws], Batch],
    epoch: int,
    bar: tqdm,
    expected: Forecast,
    reference: tuple[str, float] | None,
    facts: Mapping[str, Sequence[str]],
    stop: StopRequest,
) -> None:
    """Train for the rest of an epoch; save and raise `Interrupted` if asked to stop."""
    s, n_steps = run.settings, run.n_steps
    n_validations = math.ceil(s.num_epochs / s.validate_every) - epoch // s.validate_every
    order = epoch_draws(run.parts["train"], s.seed, epoch, run.n_rounds)
    steps = [order[i : i + s.batch_size] for i in range(0, len(order), s.batch_size)]
    steps = steps[training.step :]
    made = prepared(
        make_batch,
        [shared(part, run.world)[0] for draws in steps for part in divided(draws, s.accumulation)],
        N_AHEAD.get(run.device.type, 0),
    )
    training.network.train()
    started = time.perf_counter()
    with contextlib.closing(made):
        for draws in steps:
            if asked_to_stop(run, training, stop):
                read_losses(run, training)
                last = snapshot(run, training, inference_only=False)
                if run.world.is_first:
                    ckpt.save_checkpoint(run.folder / ckpt.LAST, last)
                    write_output(run.folder, facts, training.history, reference=reference)
                run.world.wait()  # torchrun stops all when the first of them ends
                stop.end(f"in epoch {epoch + 1}, after {training.step} of {n_steps} steps")
            position = epoch + (training.step + 0.5) / n_steps
            for group in training.optimizer.param_groups:
                group["lr"] = learning_rate(
                    position, s.initial_lr, s.lr_schedule, s.warmup_epochs, s.num_epochs
                )
            weights = [shared(part, run.world)[1] for part in divided(draws, s.accumulation)]
            parts = zip(itertools.islice(made, len(weights)), weights, strict=True)
            loss = train_step(s, training, forward, parts, len(weights), len(draws), run.world)
            if training.average is not None:
                done = epoch * n_steps + training.step
                update_average(training.average, training.network, s.ema, done)
            training.step += 1
            training.unread.append((training.step, [sample for _, sample in draws], loss))
            stop.progressed()
            n_read = len(training.unread)
            if n_read < READ_EVERY.get(run.device.type, 1) and training.step < n_steps:
                continue
            mean = read_losses(run, training)
            seconds = time.perf_counter() - started
            training.epoch_seconds += seconds
            expected.steps.extend([seconds / n_read] * n_read)
            n_left = (s.num_epochs - epoch) * n_steps - training.step
            left = expected.left(n_left, n_validations)
            bar.set_postfix(loss=f"{mean:.2e}", left=duration(sum(left.values())), refresh=False)
            bar.update(n_read)
            warm = min(WARM_STEPS, n_steps)
            if len(expected.steps) >= warm > len(expected.steps) - n_read:
                for line in wrapped([checks.time_notice(left, s.model, run.device)], ""):
                    say(line)
            started = time.perf_counter()


def asked_to_stop(run: Run, training: Training, stop: StopRequest) -> bool:
    """Whether a process was asked to stop; several processes agree on it whenever they read the
    losses, which makes them wait for one another anyway."""
    if run.world.size > 1 and training.unread:
        return False
    return run.world.any(stop.requested())


def validate_epoch(
    run: Run, training: Training, batches: Sequence[Batch], board: TensorBoard | None
) -> None:
    """Score the validation part; now and then its first samples go to TensorBoard."""
    started, s = time.perf_counter(), run.settings
    epoch = len(training.history) + 1
    interval = s.validate_every * max(1, s.num_epochs // s.validate_every // LOGGED_EPOCHS)
    logged = epoch % interval == 0 or epoch == s.num_epochs
    run.world.copy_first(list(training.evaluated.buffers()))
    method = as_method(training.evaluated, s.precision)
    n_logged = LOGGED_SAMPLES if logged and board is not None else 0
    training.scores, examples = validate(method, batches, n_logged, run.world)
    if board is not None:
        board.examples(epoch, examples)
    training.epoch_seconds += time.perf_counter() - started
    where = f"after epoch {epoch}, in validation"
    checks.check_finite(training.scores["loss"], where, run.folder, s.initial_lr)


def close_epoch(run: Run, training: Training, validated: bool) -> dict[str, float]:
    """Save an epoch that has ended; returns its entry in the history."""
    epoch = len(training.history) + 1
    if not all(parameter.isfinite().all() for parameter in training.network.parameters()):
        where = f"soon: weights are not finite after epoch {epoch}"
        checks.check_finite(math.nan, where, run.folder, run.settings.initial_lr)
    entry = {
        "epoch": epoch,
        "train/loss": training.epoch_loss / (run.n_rounds * len(run.parts["train"])),
        "learning_rate": training.optimizer.param_groups[0]["lr"],
    }
    if validated:
        entry |= {f"validation/{name}": value for name, value in training.scores.items()}
    entry |= {"seconds": training.epoch_seconds, "peak_memory": machine.peak_memory(run.device)}
    training.history.append(entry)
    training.step, training.epoch_loss, training.epoch_seconds = 0, 0.0, 0.0
    if validated and training.scores["psnr"] > training.best_psnr:
        training.best_psnr = training.scores["psnr"]
        best = snapshot(run, training, inference_only=True)
        if run.world.is_first:
            ckpt.save_checkpoint(run.folder / ckpt.BEST, best)
    last = snapshot(run, training, inference_only=False)
    if run.world.is_first:
        ckpt.save_checkpoint(run.folder / ckpt.LAST, last)
    return entry


def as_method(network: nn.Module, precision: str) -> Method:
    """A network as a function of `(aliased, mask)`, in evaluation mode."""
    return partial(run_network, network.eval(), precision=precision)


def learned_methods(settings: SimpleNamespace, network: nn.Module) -> dict[str, Method]:
    """The network under the name of its model, and its mean over flips, if that is asked for."""
    plain = as_method(network, settings.precision)
    name, n = settings.model, settings.average
    return {name: plain} if n == 1 else {name: plain, average_name(name, n): averaged(plain, n)}


def score_test(
    run: Run,
    network: nn.Module | None,
    bench: Bench,
    tuned: Mapping[float, Mapping[str, Parameters]],
    history: Sequence[Mapping[str, float]],
    reference: tuple[str, float] | None,
    facts: dict[str, list[str]],
    stop: StopRequest,
) -> dict[str, dict[str, float]]:
    """Score the network and the baselines on the test part, once, and write all results.

    Args:
        network: None: only the baselines are scored.
        tuned: the parameters of the baselines by acceleration.
        reference: of `score_reference`, for the report and the curves.

    Returns:
        {method: {score: mean over samples, and over accelerations if several are tested}}.
    """
    s, started = run.settings, time.perf_counter()
    learned = {} if network is None else learned_methods(s, network)
    first = run.test_accelerations[0]
    order = [*learned, *tuned[first]]
    methods = bench.methods(learned, tuned[first])
    shown = list(learned)[-1] if learned else order[-1]
    n_test = len(run.parts["test"])
    gallery = Gallery(run.folder, shown, methods, s.num_pictures, s.arrays, n_test)
    journal = None
    if run.world.is_first:
        journal = Journal(run.folder / run_folder.JOURNAL, identity_of_test(run, network, tuned))
    rows: list[Row] = []
    for acc in run.test_accelerations:
        on_batch = gallery.add if acc == first else None
        rows += bench.score(learned, tuned[acc], acc, run.pass_size, on_batch, stop, journal)
    rows.sort(key=lambda row: (row["acc"], row["sample"], order.index(row["method"])))
    lesions: list[dict[str, Any]] = []
    if s.lesions:
        one_by_one = bench.batches("test", first, size=1)
        lesions = lesion_rows(methods, one_by_one, stop, journal, run.world)
    if journal is None:  # the first process does the rest
        return run.world.from_first({})
    if network is not None and s.model == "cascade":
        whole = bench.batches("test", first, run.pass_size)
        facts["Stages"] = stage_lines(psnr_by_stage(network, whole, s.precision), first)
        say(f"Stages: {facts['Stages'][0]}")
    times = time_line(bench.spent, history, time.perf_counter() - started, s.resume)
    one = bench.batches("test", first, size=1)[0]
    each = (f"{name} {seconds_of(method, one):.2f}" for name, method in methods.items())
    times += f"; seconds a sample without scores: {', '.join(each)}"
    conclude(run, rows, lesions, history, reference, facts, gallery.shown, times)
    if history:
        curves = curves_figure(history, reference)
        write_figure(run.folder / "curves.png", curves, s.picture_dpi)
    at_first = [row for row in rows if row["acc"] == first]
    views = gallery.write(s.picture_dpi, best_baseline(at_first))
    page = run_page(run, rows, lesions, history, reference, {**facts, "Time": [times]}, views)
    write_page(run.folder / run_folder.REPORT, page)
    if areas := ventricle_rows(views):
        write_csv(run.folder / run_folder.VENTRICLE, areas)
    journal.remove()
    stored = run_folder.read_metrics(run.folder)  # with the digits that are stored
    return run.world.from_first(mean_scores(stored))


def identity_of_test(
    run: Run, network: nn.Module | None, tuned: Mapping[float, Mapping[str, Parameters]]
) -> dict[str, Any]:
    """Everything that the results of the test depend on, in addition to samples and methods."""
    return {
        "network": None if network is None else ckpt.weights_hash(network),
        "parameters": {str(acc): parameters for acc, parameters in tuned.items()},
        "data": run.cine.hash,
        "settings": run_folder.of_the_run(vars(run.settings)),
        "code": CODE,
        "versions": machine.versions(),
        "hardware": machine.hardware(run.device),
    }


def conclude(
    run: Run,
    rows: list[Row],
    lesions: list[dict[str, Any]],
    history: Sequence[Mapping[str, float]],
    reference: tuple[str, float] | None,
    facts: Mapping[str, Sequence[str]],
    shown: str,
    times: str,
) -> None:
    """Write report, logs and scores, and print the results; `times`: of the parts of the run."""
    s, folder = run.settings, run.folder
    notices = score_notices(run.quality, run.parts["test"])
    results = result_lines(rows, lesions, history, run.cine.groups, notices, times)
    verdict = verdict_lines(rows, run.cine.groups, remedies(s, run.n_coils), run.cine.origin)
    write_output(folder, facts, history, results, caveats(run), verdict, reference)
    if lesions:
        write_csv(folder / run_folder.LESIONS, lesions)
    run_folder.write_metrics(folder, rows)
    board = TensorBoard(folder, vars(s), len(history))
    board.results(rows, shown, verdict, len(history))
    board.close()
    for line in (*results, "", *wrapped(verdict, "")):
        say(line)


def from_command_line() -> None:
    """`train()` with the arguments of the command line."""
    train(**parse_command_line(train, choices=checks.CHOICES))


if __name__ == "__main__":
    after = "if the output folder holds a run, continue it with --resume"
    sys.exit(main("train.py", from_command_line, after))
