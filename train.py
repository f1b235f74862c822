"""Train a network that reconstructs dynamic cardiac MRI from undersampled k-space, and score it.

    python train.py output_folder [--setting value ...]

Every setting is a keyword of `train()`, with its default: edit it there, give it as a flag, or call
`train("out", num_epochs=5)`. The way of the data: load, split, draw masks, alias, reconstruct,
loss, step; after every epoch validate and save; at the end score the best checkpoint on the test
part.
B sample, T frame, Y phase-encoding line, X readout.
"""

import copy
import inspect
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from tqdm import tqdm

import checkpoint as ckpt
import report
import runtime
from batches import epoch_draws, evaluation_batches, training_batch
from checks import adopt_architecture, adopt_prior, check_settings, unused_settings
from CS_mask import cartesian_mask
from dataset import load_cine, name_list
from description import describe
from errors import InputError
from evaluation import score_test, validate
from model import ARCHITECTURE, build_model, channels_last, set_checkpointing
from optimisation import learning_rate, training_loss, update_average
from output_folder import claimed_folder, holds_a_run, is_empty
from run import (
    Progress,
    Run,
    acceleration_range,
    configuration,
    report_changes,
    restore,
    snapshot,
    stored_settings,
)
from runtime import say
from settings import check_types, parse_command_line
from split import split_samples
from tuning import chosen_baselines

EXIT_INPUT, EXIT_INTERRUPTED, EXIT_KEYBOARD = 2, 75, 130  # 75: "try again", with --resume
WARM_STEPS = 3  # after so many steps the total time can be told
SLOW_MINUTES = 60
ROOM = 2.5  # memory that a step may take, of its activations counted


def train(
    output_folder: str
    | os.PathLike[str],  # folder for the results: new, empty, or with --resume the run's own
    *,
    # -- data
    data: str = "cine.npz",  # .npz (key 'dataset') or .npy file, or 'phantom', the built-in data
    n_samples: int | None = None,  # use only the first n samples; None: all (phantom: 200)
    complex_pairs: bool = False,  # the data's last axis, of 2, is real and imaginary part
    normalise: bool = False,  # divide every sample by its own maximum
    split: tuple[float, ...] = (4, 1, 2),  # training, validation and test part, as ratios
    data_seed: int = 0,  # seed of the split, the validation and test masks, and the phantom
    phase: bool = False,  # give every image a smooth random phase
    noise: float = 0.0,  # standard deviation of the k-space noise, in real and imaginary part each
    # (peak of the images 1, orthonormal transform)
    # -- mask
    acc: float | tuple[float, ...] = 6,  # nominal acceleration: int(ny / acc) lines a frame; two
    # numbers: a range that every mask draws its own from
    test_acc: tuple[float, ...] | None = None,  # accelerations to test; None: acc, or of a range
    # both ends and the middle
    sample_n: int = 10,  # fully sampled lines in the centre of k-space, out of these
    fresh_masks: bool = True,  # new training masks in every epoch; no: one mask a sample
    # -- model
    model: str = "unet_resnet",  # 'unet' (network 1), 'unet_resnet' (with refiner, network 2),
    # 'cnn3d' (a 3-D U-Net), or 'cascade' (unrolled, the best)
    in_channels: int = 20,  # unet*: frames that go in, as channels; must equal the data's frames
    # (and frames of the phantom)
    out_channels: int = 20,  # unet*: frames that come out; must equal the data's frames. The
    # cascade and cnn3d take any number of frames: both do not apply to them
    init_features: int = 64,  # unet*, cnn3d: channels at full resolution; doubled at each level
    dropout: float = 0.0,  # unet*, cnn3d: probability of dropping an activation, after every block
    batch_norm: bool = True,  # unet*, cnn3d: batch normalisation
    data_consistency: bool = False,  # unet*, cnn3d: put the measured lines back at the end
    branches: str = "separate",  # unet*: a U-Net for each of real and imaginary part ('separate'),
    # one for both in turn ('shared'), or one that takes both as channels ('stacked')
    attention: bool = False,  # unet*: channel and spatial attention at the U-Nets' bottom
    stages: int = 4,  # cascade: stages, each a small network and data consistency
    features: int = 16,  # cascade: channels of a stage at its highest resolution
    dc_weight: float | None = None,  # cascade: trust v in measured lines, (k + v k0) / (1 + v);
    # None: they are kept exactly, noisy ones too
    learn_dc_weight: bool = False,  # cascade: train v, of each stage, from dc_weight on
    real_image: bool | None = None,  # take images to be real (cascade and baselines), so that
    # each line tells its mirror; None: where the data are real and get no phase
    initial_weights: str | None = None,  # checkpoint to start from, which brings its architecture,
    # or 'phantom': the cascade that comes with the project
    # -- optimisation
    num_epochs: int = 400,  # passes over the training part; 0: train nothing, only score
    loss: str = "mse",  # what training lowers: 'mse' (squared) or 'l1' (absolute) error
    weight_decay: float = 1e-4,  # L2 penalty, as Adam takes it
    batch_size: int = 10,  # samples in an optimiser step
    accumulation: int = 1,  # forward passes a batch is divided into, for less memory; the same
    # step, but that batch norm sees the smaller parts
    initial_lr: float = 1e-4,  # highest learning rate
    lr_schedule: str = "cosine",  # 'cosine' (linear warm-up, cosine to zero), or 'constant'
    warmup_epochs: int = 10,  # length of the warm-up; at most a tenth of num_epochs
    clip_gradient: float | None = None,  # longest gradient of a step, as its norm; None: any
    ema: float = 0.0,  # decay of a moving average of the weights, which is then what is validated,
    # tested and kept; 0: none
    augment: tuple[str, ...] = (),  # what is done to training images, all frames alike, before
    # they are undersampled: 'flips' (along Y and X), 'time' (shift and reversal),
    # 'horizontal_flip' (along X), 'jitter' (brightness, contrast), 'blur', 'affine'
    strip: int | None = None,  # train on strips of so many columns, as many a sample as make up
    # its width; None: on whole images
    precision: str = "float32",  # 'float32', or 'bfloat16' for the networks (not for the physics)
    gradient_checkpointing: bool = False,  # keep less for the gradient, and compute it again
    seed: int = 0,  # seed of weights, dropout, sample order, training masks and augmentation
    device: str | None = None,  # 'cpu', 'cuda', 'cuda:1', 'mps'; None: the best there is
    max_minutes: float | None = None,  # stop after so long, ready for --resume; None: no limit
    # -- output
    baselines: tuple[str, ...] | None = None,  # training-free methods to score; None: all
    lesions: bool = False,  # also test what becomes of small lesions put into the moving heart
    num_pictures: int = 5,  # test samples to draw pictures of
    picture_dpi: int = 100,  # resolution of the pictures; a frame is two inches wide
    validate_every: int = 1,  # epochs between validations; the last epoch is always validated
    resume: bool = False,  # go on with the run in output_folder, with its settings
) -> dict[str, dict[str, float]]:
    """Train a reconstruction network on undersampled cine MRI and report its scores.

    Returns:
        {method: {score: mean over the test part}}, for the network (under its `model` name) and
        every baseline. The same, a row for each sample, is in `metrics.csv`.

    Raises:
        InputError: the settings, the data, a checkpoint or the folder cannot be used as they are.
        runtime.Interrupted: stopped by a signal or `max_minutes`; a checkpoint was saved.
    """
    given = {name: value for name, value in locals().items() if name != "output_folder"}
    check_types(train, given)
    check_content = holds_a_run if resume else is_empty
    with claimed_folder(os.fspath(output_folder), check_content) as folder:
        if resume:
            defaults = {k: p.default for k, p in inspect.signature(train).parameters.items()}
            changed = {k: value for k, value in given.items() if value != defaults[k]}
            given = given | stored_settings(folder, changed)
            check_types(train, given)
            if (folder / report.METRICS).exists():
                say(f"{folder} holds a finished run: nothing to do")
                return report.mean_scores(report.read_metrics(folder))
        settings = SimpleNamespace(**given)
        check_settings(settings)
        with (
            runtime.explained_out_of_memory(memory_advice(settings)),
            runtime.StopRequest(settings.max_minutes) as stop,
        ):
            run = prepare(folder, settings)
            if settings.num_epochs:
                fit(run, stop)
            return score_test(run, stop)


def memory_advice(s: SimpleNamespace) -> str:
    """What to change where memory is short."""
    smaller = "--strip" if s.model == "cascade" else f"--init-features ({s.init_features})"
    return (
        f"in another folder, lower --batch-size ({s.batch_size}) or {smaller}, raise --accumulation"
        f" ({s.accumulation}), or give --gradient-checkpointing"
    )


def prepare(folder: Path, s: SimpleNamespace) -> Run:
    """Load, split and check everything, build the network, and write `config.json`."""
    device = runtime.pick_device(s.device)
    runtime.make_deterministic(s.seed)
    initial, initial_path = None, ckpt.named_weights(s.initial_weights or "")
    if s.resume and (folder / ckpt.LAST).exists():
        initial_path = folder / ckpt.LAST  # which has all that came with the initial weights
    if s.initial_weights is not None:
        initial = ckpt.load_checkpoint(initial_path)
        adopt_architecture(s, initial, initial_path)
        check_types(train, vars(s))
        check_settings(s)
    cine = load_cine(s.data, s.n_samples, s.complex_pairs, s.normalise, s.in_channels, s.data_seed)
    adopt_prior(s, cine)
    n_frames, ny, _ = cine.shape
    frames_are_channels = "in_channels" in ARCHITECTURE[s.model] and (s.num_epochs or initial)
    if frames_are_channels and not n_frames == s.in_channels == s.out_channels:
        raise InputError(
            f"{cine.source} has {n_frames} frames, but --in-channels is {s.in_channels} and"
            f" --out-channels {s.out_channels}: give both as {n_frames}"
        )
    for acc in (*acceleration_range(s.acc), *(s.test_acc or ())):
        try:
            cartesian_mask((n_frames, ny, 1), acc, s.sample_n, seed=0)
        except ValueError as error:
            raise InputError(f"--acc, --test-acc and --sample-n: {error}") from None
    parts = split_samples(len(cine.images), s.split, s.data_seed, cine.groups)

    run = Run(folder, s, device, cine, parts)
    if s.num_epochs or initial:
        run.network = build_model(s.model, **run.architecture)
        if initial:
            ckpt.load_weights(run.network, initial, initial_path)
            run.seen = {role: set(hashes) for role, hashes in initial["data"]["seen"].items()}
        channels_last(run.network.to(device))
        set_checkpointing(run.network, s.gradient_checkpointing)
        if s.ema and s.num_epochs:
            run.average = copy.deepcopy(run.network)
    elif not chosen_baselines(run):
        raise InputError(
            "there is nothing to score: --num-epochs is 0, no --initial-weights are given, and"
            f" --baselines is {s.baselines}; name some, or leave it out for all that apply"
        )
    for line in unused_settings(s, inspect.signature(train)):
        say(line)
    if device.type == "cpu":
        runtime.reuse_memory(ROOM * run.step_cost.activation_bytes if run.network else 0)
    run.facts = describe(run)
    for heading, lines in run.facts.items():
        say(f"{heading}: " + "\n  ".join(lines))
    if s.resume:
        report_changes(run)
    else:
        report.write_config(folder, configuration(run))
    return run


def fit(run: Run, stop: runtime.StopRequest) -> None:
    """Train from the last checkpoint, or from the start, to the last epoch; keep the best."""
    s, network = run.settings, run.network
    assert network is not None
    optimizer = torch.optim.Adam(network.parameters(), lr=s.initial_lr, weight_decay=s.weight_decay)
    state = restore(run, optimizer)
    validation = list(evaluation_batches(run, run.parts["validation"], run.accelerations))
    board = report.TensorBoard(run.folder, vars(s), len(run.history))
    bar = tqdm(
        total=s.num_epochs * run.n_steps,
        initial=len(run.history) * run.n_steps + state.step,
        unit="step",
        disable=None,
        dynamic_ncols=True,
    )
    first = len(run.history)
    for epoch in range(first, s.num_epochs):
        train_epoch(run, optimizer, state, epoch, bar, stop)
        entry = {
            "epoch": epoch + 1,
            "train/loss": state.epoch_loss / (run.rounds * len(run.parts["train"])),
            "learning_rate": optimizer.param_groups[0]["lr"],
        }
        validated = (epoch + 1) % s.validate_every == 0 or epoch + 1 == s.num_epochs
        if validated:
            started = time.perf_counter()
            state.scores = validate(run, validation, epoch + 1, board)
            state.epoch_seconds += time.perf_counter() - started
            entry |= {f"validation/{name}": value for name, value in state.scores.items()}
        check_finite(run, state.scores.get("loss", 0.0), f"after epoch {epoch + 1}, in validation")
        if not all(parameter.isfinite().all() for parameter in network.parameters()):
            check_finite(run, math.nan, f"soon: weights are not finite after epoch {epoch + 1}")
        entry |= {
            "seconds": state.epoch_seconds,
            "peak_memory": runtime.peak_memory(run.device),
        }
        run.history.append(entry)
        state.step, state.epoch_loss, state.epoch_seconds = 0, 0.0, 0.0
        if validated and state.scores["psnr"] > state.best_psnr:
            state.best_psnr = state.scores["psnr"]
            ckpt.save_checkpoint(run.folder / ckpt.BEST, snapshot(run, state, None))
        ckpt.save_checkpoint(run.folder / ckpt.LAST, snapshot(run, state, optimizer))
        board.scalars({k: v for k, v in entry.items() if k != "epoch"}, epoch + 1)
        report.write_output(run.folder, run.facts, run.history)
        if epoch == first:
            say(report.epoch_header())
        say(report.epoch_line(entry))
    bar.close()
    board.close()
    best = ckpt.load_checkpoint(run.folder / ckpt.BEST)
    ckpt.load_weights(run.evaluated, best, run.folder / ckpt.BEST)


def train_epoch(
    run: Run,
    optimizer: torch.optim.Optimizer,
    state: Progress,
    epoch: int,
    bar: tqdm,
    stop: runtime.StopRequest,
) -> None:
    """Train on the rest of an epoch; save and raise `Interrupted` when asked to stop."""
    s, network = run.settings, run.network
    assert network is not None
    network.train()
    order = epoch_draws(run, epoch)
    n_steps = run.n_steps
    for step in range(state.step, n_steps):
        if stop:
            ckpt.save_checkpoint(run.folder / ckpt.LAST, snapshot(run, state, optimizer))
            report.write_output(run.folder, run.facts, run.history)
            bar.close()
            raise runtime.Interrupted(
                f"stopped by {stop.reason} in epoch {epoch + 1}, after {step} of {n_steps} steps",
                run.folder,
            )
        started = time.perf_counter()
        draws = order[step * s.batch_size : (step + 1) * s.batch_size]
        optimizer.param_groups[0]["lr"] = learning_rate(epoch + (step + 0.5) / n_steps, s)
        loss = train_step(run, optimizer, draws)
        samples = name_list([sample for _, sample in draws])
        check_finite(run, loss, f"in epoch {epoch + 1}, step {step + 1}, on samples {samples}")
        if run.average is not None:
            update_average(run.average, network, s.ema, epoch * n_steps + step)
        state.step += 1
        state.epoch_loss += loss * len(draws)
        state.epoch_seconds += time.perf_counter() - started
        bar.set_postfix(loss=f"{loss:.2e}", refresh=False)
        bar.update()
        if epoch == 0 and state.step == min(WARM_STEPS, n_steps):
            announce_time(run, state.epoch_seconds / state.step * n_steps * s.num_epochs / 60)


def train_step(
    run: Run, optimizer: torch.optim.Optimizer, draws: Sequence[tuple[int, int]]
) -> float:
    """One optimiser step on a batch; returns its mean loss."""
    s, network = run.settings, run.network
    assert network is not None
    total = 0.0
    optimizer.zero_grad(set_to_none=True)
    size = -(-len(draws) // s.accumulation)
    for start in range(0, len(draws), size):
        batch = training_batch(run, draws[start : start + size])
        reconstruction = run.forward(network, batch.aliased, batch.mask)
        loss = training_loss(reconstruction, batch, s.loss).sum() / len(draws)
        loss.backward()
        total += loss.item()
    if s.clip_gradient is not None:
        nn.utils.clip_grad_norm_(network.parameters(), s.clip_gradient)
    if math.isfinite(total):
        optimizer.step()
    return total


def check_finite(run: Run, loss: float, where: str) -> None:
    """Stop with an InputError where the loss is NaN or infinite."""
    if not math.isfinite(loss):
        raise InputError(
            f"the loss is {loss} {where}; the checkpoints in {run.folder} are from before it: start"
            f" again in another folder with a lower --initial-lr ({run.settings.initial_lr:g}), or"
            " look at these samples"
        )


def announce_time(run: Run, minutes: float) -> None:
    """Say once how long training will take, and on a slow device what shortens it."""
    advice = ""
    if minutes > SLOW_MINUTES and run.device.type != "cuda":
        s = run.settings
        smaller = "fewer --stages" if s.model == "cascade" else "fewer --init-features, such as 16"
        advice = f"; to shorten it: a CUDA GPU, {smaller}, fewer --num-epochs, or --n-samples"
    say(f"about {minutes:.0f} minutes of training in all, on {run.device}{advice}")


def main() -> int:
    """The command line; returns the exit status."""
    try:
        given = parse_command_line(train)
        folder = Path(given["output_folder"])
        if given.get("resume") and (folder / report.CONFIG).exists():
            # here, unlike in train(), a flag can be told from a default that it equals
            stored_settings(folder, given)
        train(**given)
    except InputError as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except runtime.Interrupted as stopped:
        print(f"train.py: {stopped}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print("train.py: interrupted; if it holds a run, go on with --resume", file=sys.stderr)
        return EXIT_KEYBOARD
    return 0


if __name__ == "__main__":
    sys.exit(main())
