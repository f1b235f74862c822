"""Training and validation batches of a run, and the starts of networks that are kept."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from data.batches import Batch, Draws, EvaluationBatches, training_batch
from data.stored import require_memory
from evaluation.held_out import with_held_out
from methods.start import initial_images
from physics.sense import measurement_of
from training.hidden_lines import HiddenLines
from training.run import Run
from util.memory import free_memory

REAL_BYTES, PIXEL_BYTES = 4, 8  # of a real image, and of a complex one
CACHE_SHARE = 0.25  # of the free memory, for the batches for validation
MEMORY_MARGIN = 2.5  # a step may take this multiple of the counted activations


def batch_maker(run: Run) -> Callable[[Draws], Batch]:
    """The function that makes a training batch of draws."""
    starts = KeptStarts(run) if run.keeps_starts else None
    if run.by_hidden_lines:
        return HiddenLines(run, starts)
    return partial(
        training_batch,
        run.cine.images,
        acquisition=run.acquisition,
        training=run.training_draws,
        device=run.device,
        starts=starts,
    )


def start_of(run: Run, batch: Batch) -> Tensor:
    """What the networks of a run correct, (B, T, Y, X), made on its device."""
    there, s = batch.to(run.device), run.settings
    measured = measurement_of(there.aliased, there.mask, there.maps, s.real_image)
    return initial_images(s.start, measured)


class KeptStarts:
    """The starts of training samples, made once for each mask of the pool and kept in memory."""

    def __init__(self, run: Run):
        """InputError: they need more memory than there is."""
        self.run = run
        self.kept: dict[tuple[int, int], Tensor] = {}
        s = run.settings
        n = run.n_copies * s.mask_pool * len(run.parts["train"])
        needed = n * math.prod(run.cine.shape) * (REAL_BYTES if s.real_image else PIXEL_BYTES)
        require_memory(needed, f"training keeps the starts of {n} masks", "lower --mask-pool")

    def __call__(self, key: tuple[int, int], make_batch: Callable[[], Batch]) -> Tensor:
        """The start (1, T, Y, X) of a sample, of whole images; see `Starts`."""
        if key not in self.kept:
            self.kept[key] = start_of(self.run, make_batch()).cpu()
        return self.kept[key]


def validation_batches(run: Run) -> Sequence[Batch]:
    """The batches that this process validates on, which are the same in every epoch: made once, if
    they fit."""
    batches = own_batches(run, run.pass_size)
    return with_starts(run, list(batches)) if can_be_kept(run) else batches


def held_out_validation(run: Run) -> Iterable[Batch]:
    """The samples that this process validates on by held-out lines, made once if they fit; none if
    these decide nothing."""
    s = run.settings

    def made() -> Iterator[Batch]:
        for batch in own_batches(run, 1):
            yield from with_held_out(batch, s.real_image, s.data_seed)

    if not run.by_hidden_lines:
        return ()
    return with_starts(run, list(made())) if can_be_kept(run) else Remade(made)


@dataclass(frozen=True)
class Remade(Iterable[Batch]):
    """Batches that are made again whenever they are gone through."""

    make: Callable[[], Iterator[Batch]]

    def __iter__(self) -> Iterator[Batch]:
        return self.make()


def own_batches(run: Run, size: int) -> EvaluationBatches:
    """The validation samples of this process."""
    share = run.world.share(run.parts["validation"])
    return EvaluationBatches(run.cine.images, share, run.acquisition, size, run.device)


def can_be_kept(run: Run) -> bool:
    """Whether the validation samples of this process may stay on the device."""
    n = len(run.world.share(run.parts["validation"]))
    needed = n * math.prod(run.cine.shape) * PIXEL_BYTES * (2 + (run.n_coils or 1))
    return (1 + run.by_hidden_lines) * needed < CACHE_SHARE * free_memory(run.device)


def with_starts(run: Run, batches: list[Batch]) -> list[Batch]:
    """Batches with what the networks of a run correct, if that is made once."""
    if run.keeps_starts:
        for batch in batches:
            batch.start = start_of(run, batch)
    return batches
