"""Training and validation batches of a run."""

import math
from collections.abc import Callable, Sequence
from functools import partial

from data.batches import Batch, Draws, EvaluationBatches, training_batch
from training.run import Run
from util.machine import free_memory

PIXEL_BYTES = 8  # of a complex image, and of the aliased one of each coil
CACHE_SHARE = 0.25  # of the free memory, for the batches for validation
MEMORY_MARGIN = 2.5  # a step may take this multiple of the counted activations


def batch_maker(run: Run) -> Callable[[Draws], Batch]:
    """The function that makes a training batch of draws."""
    return partial(
        training_batch,
        run.cine.images,
        acquisition=run.acquisition,
        training=run.training_draws,
        device=run.device,
    )


def validation_batches(run: Run) -> Sequence[Batch]:
    """The batches that this process validates on, which are the same in every epoch: made once, if
    they fit."""
    share = run.world.share(run.parts["validation"])
    batches = EvaluationBatches(run.cine.images, share, run.acquisition, run.pass_size, run.device)
    needed = len(share) * math.prod(run.cine.shape) * PIXEL_BYTES * (1 + (run.n_coils or 1))
    return list(batches) if needed < CACHE_SHARE * free_memory(run.device) else batches
