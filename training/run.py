"""A prepared run, the state of its training, and saving and restoring that state."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from CS_mask import UNNAMED, Condition, Sampling
from data.acquisition import Acquisition, Noise
from data.batches import TrainingDraws
from dataset import Cine
from evaluation.held_out import WITHOUT_TRUTH
from methods.start import PATCH, ZERO_FILLED
from metrics import SCORES, Score
from model import Cost, architecture_settings, count_cost
from training import checkpoint as ckpt
from training.run_folder import of_the_run
from util.errors import InputError
from util.machine import versions
from util.world import ALONE, World

MEASURED = "measured"  # the pattern of lines that come with the data
# by the truth, by hidden lines, and by these and the noise of the others (Stein's estimate, SURE)
FULL, SELF, SELF_SURE = SUPERVISIONS = ("full", "self", "self_sure")


@dataclass
class Run:
    """A prepared run: everything that does not change while it trains.

    `train.py` and the description of a run take it whole; other functions take what they read.
    """

    folder: Path
    settings: SimpleNamespace  # the keywords of train()
    device: torch.device
    cine: Cine
    parts: dict[str, list[int]]  # indices of the samples in each part of the split
    world: World = ALONE  # the processes that work on it
    # hashes of the samples that "trained", and that "selected", the weights it starts from
    seen: dict[str, set[str]] = field(default_factory=lambda: {"trained": set(), "selected": set()})
    # of the training of the weights that it starts from
    trained: Sampling | None = None
    trained_noise: float = 0.0
    masks: tuple[tuple[str, ...], ...] = ()  # given in a file, as `Sampling.given`
    reconstructions: tuple[str, ...] = ()  # labels of those of other programs, if they are scored

    @property
    def has_network(self) -> bool:
        """False if only the training-free methods are scored."""
        return bool(self.settings.num_epochs or self.settings.initial_weights)

    @property
    def records_steps(self) -> bool:
        """Whether training steps are CUDA graphs, which some parts cannot be in."""
        s = self.settings
        alone = self.device.type == "cuda" and self.world.size == 1
        simple = not (self.n_coils or s.gradient_checkpointing or s.compile)
        return s.cuda_graph and alone and simple and (s.start != PATCH or self.keeps_starts)

    @property
    def by_hidden_lines(self) -> bool:
        """Whether training takes hidden lines for its target, not the truth."""
        return self.settings.supervision != FULL

    @property
    def calibrates_bounds(self) -> bool:
        """Whether the truth of the validation part may calibrate bounds of the error."""
        return not (self.cine.is_undersampled or self.by_hidden_lines)

    @property
    def n_copies(self) -> int:
        """How often a training step reconstructs each of its samples."""
        return 2 if self.settings.supervision == SELF_SURE else 1

    @property
    def test_scores(self) -> Mapping[str, Score]:
        """The scores of the test part."""
        return WITHOUT_TRUTH if self.cine.is_undersampled else SCORES

    @property
    def validation_scores(self) -> Mapping[str, Score]:
        """The scores of which those that are logged are computed after an epoch."""
        return {**(WITHOUT_TRUTH if self.by_hidden_lines else {}), **self.test_scores}

    @property
    def keeps_starts(self) -> bool:
        """Whether training makes the starts of its samples once, and keeps them."""
        takes_one = self.architecture.get("start", ZERO_FILLED) != ZERO_FILLED
        return takes_one and self.settings.mask_pool > 0

    @property
    def architecture(self) -> dict[str, Any]:
        """The settings that build the network."""
        s = self.settings
        return {name: getattr(s, name) for name in architecture_settings(s.model)}

    @property
    def acquisition(self) -> Acquisition:
        """How its images are undersampled."""
        s = self.settings
        masks = self.cine.lines or self.masks
        sampling = sampling_of(vars(s), masks, measured=self.cine.is_undersampled)
        return Acquisition(sampling, s.phase, s.noise, s.data_seed, s.coils, s.virtual_coils)

    @property
    def n_coils(self) -> int | None:
        """Number of coils that the methods see; None: single-channel images."""
        n_coils, virtual = self.cine.n_coils or self.settings.coils, self.settings.virtual_coils
        return n_coils if n_coils is None or virtual is None else min(n_coils, virtual)

    @property
    def training_draws(self) -> TrainingDraws:
        """Settings of the random draws of training."""
        s = self.settings
        return TrainingDraws(s.seed, s.mask_pool, s.augment, s.strip or None)

    @property
    def test_conditions(self) -> list[Condition]:
        """The patterns and accelerations that the test part is scored at: each with each."""
        sampling = self.acquisition.sampling
        low, high = sampling.acc
        chosen = tuple(dict.fromkeys(map(float, self.settings.test_acc or ())))
        accelerations = chosen or ((low,) if low == high else (low, (low + high) / 2, high))
        patterns = dict.fromkeys(sampling.patterns)
        return [Condition(pattern, acc) for pattern in patterns for acc in accelerations]

    @property
    def n_rounds(self) -> int:
        """Rounds over the training samples in an epoch: one, or one for every strip of an image."""
        strip = self.settings.strip
        return math.ceil(self.cine.shape[-1] / strip) if strip else 1

    @property
    def pass_size(self) -> int:
        """Samples in one forward pass of a process, at most."""
        whole = pass_size(self.settings.batch_size, self.settings.accumulation, self.parts)
        return math.ceil(whole / self.world.size)

    @property
    def n_steps(self) -> int:
        """Optimiser steps in an epoch."""
        return math.ceil(self.n_rounds * len(self.parts["train"]) / self.settings.batch_size)

    @cached_property
    def step_cost(self) -> Cost:
        """The cost of a forward pass of a training step."""
        n_frames, ny, nx = self.cine.shape
        shape = (n_frames, ny, min(nx, self.settings.strip or nx))
        return count_cost(
            self.settings.model,
            self.n_copies * self.pass_size,
            shape,
            self.n_coils,
            **self.architecture,
        )


@dataclass
class Training:
    """The state of training: everything that changes from step to step."""

    network: nn.Module
    average: nn.Module | None  # moving average of the network's weights; None: none is kept
    optimizer: torch.optim.Optimizer
    history: list[dict[str, float]] = field(default_factory=list)  # an entry for every epoch
    step: int = 0  # steps done of the current epoch
    epoch_loss: float = 0.0  # sum of the sample losses of these steps
    epoch_seconds: float = 0.0  # time spent on them
    best_psnr: float = -math.inf  # highest mean validation PSNR so far, or that of held-out lines
    scores: dict[str, float] = field(default_factory=dict)  # of the last validation
    # of steps whose loss was not read yet: number in the epoch, samples, and loss on the device
    unread: list[tuple[int, list[int], torch.Tensor]] = field(default_factory=list)
    saved: float = -math.inf  # when the last checkpoint was written, on a clock of this process

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated, tested and kept: the average, if there is one."""
        return self.network if self.average is None else self.average


PROGRESS = ("step", "epoch_loss", "epoch_seconds", "best_psnr", "scores")  # kept in checkpoints


def pass_size(batch_size: int, accumulation: int, parts: Mapping[str, Sequence[int]]) -> int:
    """Samples in one forward pass, at most, of a run with this split."""
    return math.ceil(min(batch_size, max(map(len, parts.values()))) / accumulation)


def sampling_of(
    settings: Mapping[str, Any], given: tuple[tuple[str, ...], ...] = (), measured: bool = False
) -> Sampling:
    """The sampling of a run with these settings and the `given` masks of a file, or those that its
    samples were `measured` with; the settings of older weights have no pattern."""
    s = {"pattern": UNNAMED, "partial_fourier": 1.0, **settings}
    patterns = tuple(Path(name).name for name in several(MEASURED if measured else s["pattern"]))
    acc = tuple(map(float, several(s["acc"])))
    centre_lines, shares = several(s["sample_n"]), several(s["partial_fourier"])
    return Sampling(patterns, (acc[0], acc[-1]), centre_lines, shares, given, measured)


def trained_sampling(checkpoint: Mapping[str, Any]) -> Sampling:
    """The sampling that the weights of a checkpoint were trained on."""
    data = checkpoint["data"]
    return sampling_of(checkpoint["settings"], data.get("masks", ()), data.get("measured", False))


def trained_noise(settings: Mapping[str, Any]) -> Noise:
    """The noise that weights of these settings, perhaps older ones, were trained with."""
    return Noise.of(settings.get("noise", 0.0))


def several(value: Any) -> tuple:
    """The values of a setting that is one value or several."""
    return value if isinstance(value, tuple) else (value,)


def save(run: Run, training: Training, name: str) -> None:
    """Write a checkpoint of the run as it stands; the best one, which is for inference only,
    without what only training needs.

    All processes call it, because each has its own random numbers; the first one writes.
    """
    checkpoint = snapshot(run, training, inference_only=name == ckpt.BEST)
    if run.world.is_first:
        ckpt.save_checkpoint(run.folder / name, checkpoint)
    if name == ckpt.LAST:
        training.saved = time.monotonic()


def snapshot(run: Run, training: Training, inference_only: bool) -> dict[str, Any]:
    """The content of a checkpoint."""
    hashes = run.cine.hashes
    states, *of_others = run.world.gathered(ckpt.random_states(run.device))
    return {
        "format": ckpt.FORMAT,
        "model": run.settings.model,
        "architecture": run.architecture,
        "weights": training.evaluated.state_dict(),
        "training_weights": (
            {} if inference_only or training.average is None else training.network.state_dict()
        ),
        "settings": vars(run.settings),
        "epoch": len(training.history),
        **{name: getattr(training, name) for name in PROGRESS},
        "history": training.history,
        "data": {
            "hash": run.cine.hash,
            "shape": list(run.cine.shape),
            "masks": run.cine.lines or run.masks,  # of the data, or of a file
            "measured": run.cine.is_undersampled,  # whether they came with the data
            "seen": {
                role: sorted(run.seen[role] | {hashes[i] for i in run.parts[part]})
                for role, part in {"trained": "train", "selected": "validation"}.items()
            },
        },
        "versions": versions(),
        "random_states": states | ({"others": of_others} if of_others else {}),
        "optimizer": {} if inference_only else training.optimizer.state_dict(),
    }


def restore(run: Run, training: Training) -> None:
    """Continue from the last checkpoint of the folder, or save the first one.

    Raises:
        InputError: the checkpoint was made with other settings or other data.
    """
    # a new run, or one whose checkpoint is lost
    path = run.folder / ckpt.LAST
    if not run.world.from_first(path.exists()):
        if (run.folder / ckpt.BEST).exists():
            raise InputError(
                f"{run.folder} has no {ckpt.LAST} to continue from: score its {ckpt.BEST} in"
                " another folder, with --num-epochs 0 --initial-weights, or start a new run"
            )
        save(run, training, ckpt.LAST)
        return
    try:
        last = ckpt.load_checkpoint(path)
    except InputError as error:
        if not (run.folder / ckpt.BEST).exists():
            raise
        raise InputError(
            f"{error}; {ckpt.BEST} beside it can be scored in another folder, with --num-epochs 0"
            f" --initial-weights {run.folder / ckpt.BEST}, or trained from"
        ) from None
    # of the same run?
    fixed = of_the_run(vars(run.settings))
    known = last["settings"]  # without settings that are newer than the run
    differing = [k for k, v in fixed.items() if k in known and known[k] != v]
    if last["data"].get("hash") != run.cine.hash:
        differing.append("data (its values)")
    if differing:
        raise InputError(
            f"{path} was made with other {', '.join(differing)}: give the run its own data and"
            " settings back, or start a new one in another folder"
        )
    # the state
    ckpt.load_weights(training.evaluated, last, path)
    if training.average is not None:
        ckpt.load_weights(training.network, last, path, "training_weights")
    try:
        training.optimizer.load_state_dict(last["optimizer"])
        ckpt.restore_random_states(last, run.settings.seed, run.world.rank, run.device)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path} is damaged ({error!r}): start a new run") from None
    if last["best_psnr"] > -math.inf:
        ckpt.load_checkpoint(run.folder / ckpt.BEST)  # needed at the end: better to know now
    training.history[:] = last["history"]
    for name in PROGRESS:
        setattr(training, name, last[name])
