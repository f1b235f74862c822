"""Train a network that reconstructs dynamic cardiac MRI from undersampled k-space, and score it.

    python train.py output_folder [--setting value ...]

Every setting is a keyword of `train()`, with its default: edit it there, give it as a flag, or call
`train("out", num_epochs=5)`. The way of the data: load, split, draw masks, alias, reconstruct,
loss, step; after every epoch validate and save; at the end score the best checkpoint on the test
part.
B sample, T frame, Y phase-encoding line, X readout.
"""

import inspect
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from tqdm import tqdm

import checkpoint as ckpt
import report
import runtime
from CS_mask import cartesian_mask, training_masks
from dataset import load_cine, name_list
from errors import InputError
from evaluation import alias, evaluation_batches, score_test, validate
from metrics import mse
from model import build_model
from run import (
    Progress,
    Run,
    adopt_architecture,
    check_settings,
    configuration,
    describe,
    report_changes,
    restore,
    snapshot,
    stored_settings,
)
from runtime import say
from settings import check_types, parse_command_line
from split import split_samples, training_order

EXIT_INPUT, EXIT_INTERRUPTED, EXIT_KEYBOARD = 2, 75, 130  # 75: "try again", with --resume
WARM_STEPS = 3  # after so many steps the total time can be told
SLOW_MINUTES = 60


def train(
    output_folder: str
    | os.PathLike[str],  # folder for the results: new, empty, or with --resume the run's own
    *,
    # -- data
    data: str = "cine.npz",  # .npz (key 'dataset') or .npy file, or 'phantom', the built-in data
    n_samples: int | None = None,  # use only the first n samples; None: all (phantom: 200)
    normalise: bool = False,  # divide every sample by its own maximum
    split: tuple[float, ...] = (4, 1, 2),  # training, validation and test part, as ratios
    data_seed: int = 0,  # seed of the split, the validation and test masks, and the phantom
    # -- mask
    acc: float = 6,  # nominal acceleration: int(ny / acc) lines a frame
    sample_n: int = 10,  # fully sampled lines in the centre of k-space, out of these
    fresh_masks: bool = True,  # new training masks in every epoch; no: one mask a sample
    # -- model
    model: str = "unet_resnet",  # 'unet' (network 1), or 'unet_resnet' (with refiner, network 2)
    in_channels: int = 20,  # frames that go in, as channels; must equal the data's frames
    out_channels: int = 20,  # frames that come out; must equal the data's frames
    init_features: int = 64,  # channels of the U-Nets at full resolution; doubled at each level
    dropout: float = 0.0,  # probability of dropping an activation, after every U-Net block
    batch_norm: bool = True,  # batch normalisation in the U-Nets
    initial_weights: str | None = None,  # checkpoint to start from; it brings its architecture
    # -- optimisation
    num_epochs: int = 400,  # passes over the training part; 0: train nothing, only score
    weight_decay: float = 1e-4,  # L2 penalty, as Adam takes it
    batch_size: int = 10,  # samples in an optimiser step
    accumulation: int = 1,  # forward passes a batch is divided into, for less memory; the same
    # step, but that batch norm sees the smaller parts
    initial_lr: float = 1e-4,  # highest learning rate
    lr_schedule: str = "cosine",  # 'cosine' (linear warm-up, cosine to zero), or 'constant'
    warmup_epochs: int = 10,  # length of the warm-up; at most a tenth of num_epochs
    seed: int = 0,  # seed of weights, dropout, sample order and training masks
    device: str | None = None,  # 'cpu', 'cuda', 'cuda:1', 'mps'; None: the best there is
    max_minutes: float | None = None,  # stop after so long, ready for --resume; None: no limit
    # -- output
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
    with report.claimed_folder(os.fspath(output_folder), resume) as folder:
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
            runtime.explained_out_of_memory(
                f"in another folder, lower --batch-size ({settings.batch_size}) or --init-features"
                f" ({settings.init_features}), or raise --accumulation ({settings.accumulation})"
            ),
            runtime.StopRequest(settings.max_minutes) as stop,
        ):
            run = prepare(folder, settings)
            if settings.num_epochs:
                fit(run, stop)
            return score_test(run, stop)


def prepare(folder: Path, s: SimpleNamespace) -> Run:
    """Load, split and check everything, build the network, and write `config.json`."""
    device = runtime.pick_device(s.device)
    runtime.make_deterministic(s.seed)
    initial, initial_path = None, Path(s.initial_weights or "")
    if s.resume and (folder / ckpt.LAST).exists():
        initial_path = folder / ckpt.LAST  # which has all that came with the initial weights
    if s.initial_weights is not None:
        initial = ckpt.load_checkpoint(initial_path)
        adopt_architecture(s, initial, initial_path)
    cine = load_cine(s.data, s.n_samples, s.normalise, s.in_channels, s.data_seed)
    n_frames, ny, _ = cine.shape
    if not n_frames == s.in_channels == s.out_channels and (s.num_epochs or initial):
        raise InputError(
            f"{cine.source} has {n_frames} frames, but --in-channels is {s.in_channels} and"
            f" --out-channels {s.out_channels}: give both as {n_frames}"
        )
    try:
        cartesian_mask((n_frames, ny, 1), s.acc, s.sample_n, seed=0)
    except ValueError as error:
        raise InputError(f"--acc and --sample-n: {error}") from None
    parts = split_samples(len(cine.images), s.split, s.data_seed, cine.groups)

    run = Run(folder, s, device, cine, parts)
    if s.num_epochs or initial:
        check_types(train, run.architecture)
        run.network = build_model(s.model, **run.architecture)
        if initial:
            ckpt.load_weights(run.network, initial, initial_path)
            run.seen = {role: set(hashes) for role, hashes in initial["data"]["seen"].items()}
        run.network.to(device).to(memory_format=torch.channels_last)
    run.facts = describe(run)
    for heading, lines in run.facts.items():
        say(f"{heading}: " + "\n  ".join(lines))
    if s.resume:
        report_changes(run)
    else:
        report.write_config(folder, configuration(run))
    return run


def learning_rate(position: float, s: SimpleNamespace) -> float:
    """The learning rate at `position` epochs from the start, 0 to `num_epochs`.

    "cosine": linear from 0 over min(warmup_epochs, num_epochs // 10) epochs, then half a cosine
    down to 0. "constant": the same throughout.
    """
    if s.lr_schedule == "constant":
        return s.initial_lr
    warmup = min(s.warmup_epochs, s.num_epochs // 10)
    if position < warmup:
        return s.initial_lr * position / warmup
    progress = (position - warmup) / (s.num_epochs - warmup)
    return s.initial_lr * 0.5 * (1 + math.cos(math.pi * progress))


def fit(run: Run, stop: runtime.StopRequest) -> None:
    """Train from the last checkpoint, or from the start, to the last epoch; keep the best."""
    s, network = run.settings, run.network
    assert network is not None
    optimizer = torch.optim.Adam(network.parameters(), lr=s.initial_lr, weight_decay=s.weight_decay)
    state = restore(run, optimizer)
    validation = list(evaluation_batches(run, "validation"))
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
            "train/loss": state.epoch_loss / len(run.parts["train"]),
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
        entry["seconds"] = state.epoch_seconds
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
    ckpt.load_weights(network, best, run.folder / ckpt.BEST)


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
    order = training_order(run.parts["train"], s.seed, epoch)
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
        samples = order[step * s.batch_size : (step + 1) * s.batch_size]
        optimizer.param_groups[0]["lr"] = learning_rate(epoch + (step + 0.5) / n_steps, s)
        loss = train_step(run, optimizer, samples, epoch)
        where = f"in epoch {epoch + 1}, step {step + 1}, on samples {name_list(samples)}"
        check_finite(run, loss, where)
        state.step += 1
        state.epoch_loss += loss * len(samples)
        state.epoch_seconds += time.perf_counter() - started
        bar.set_postfix(loss=f"{loss:.2e}", refresh=False)
        bar.update()
        if epoch == 0 and state.step == min(WARM_STEPS, n_steps):
            announce_time(run, state.epoch_seconds / state.step * n_steps * s.num_epochs / 60)


def train_step(
    run: Run, optimizer: torch.optim.Optimizer, samples: Sequence[int], epoch: int
) -> float:
    """One optimiser step on a batch; returns its mean loss."""
    s, network = run.settings, run.network
    assert network is not None
    mask_epoch = epoch if s.fresh_masks else 0
    total = 0.0
    optimizer.zero_grad(set_to_none=True)
    size = -(-len(samples) // s.accumulation)
    for start in range(0, len(samples), size):
        chunk = samples[start : start + size]
        masks = training_masks(chunk, run.cine.shape[:2], s.acc, s.sample_n, s.seed, mask_epoch)
        batch = alias(run, chunk, masks)
        reconstruction = network(batch.aliased, batch.mask)
        loss = mse(reconstruction, batch.target).sum() / len(samples)
        loss.backward()
        total += loss.item()
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
        advice = (
            "; to shorten it: a CUDA GPU, --init-features 16 (16 times less arithmetic than 64),"
            " fewer --num-epochs, or --n-samples"
        )
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
