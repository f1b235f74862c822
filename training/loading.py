"""The batches of a run, and what of them stays on its device."""

import math
from collections.abc import Callable, Sequence
from functools import partial

from formats.samples import Images
from training.batches import Batch, Draws, EvaluationBatches, KeptSamples, training_batch
from training.run import Run
from util.machine import free_memory

PIXEL_BYTES = 8  # of a complex image, and of the aliased one of each coil
KEPT_SHARE = 0.25  # of the free memory, for the batches for validation, and for training images


def batch_maker(run: Run) -> Callable[[Draws], Batch]:
    """The function that makes a training batch of draws."""
    return partial(
        training_batch,
        kept_images(run),
        acquisition=run.acquisition,
        training=run.training_draws,
        device=run.device,
    )


def kept_images(run: Run) -> Images | KeptSamples:
    """The images to train on. On a GPU they stay there from their first use on, if they fit."""
    images = run.cine.images
    needed = len(run.parts["train"]) * math.prod(images.shape[1:]) * PIXEL_BYTES
    if run.device.type != "cuda" or needed > KEPT_SHARE * free_memory(run.device):
        return images
    return KeptSamples(images, run.device)


def validation_batches(run: Run) -> Sequence[Batch]:
    """The batches that this process validates on, which are the same in every epoch: made once, if
    they fit."""
    share = run.world.share(run.parts["validation"])
    batches = EvaluationBatches(run.cine.images, share, run.acquisition, run.pass_size, run.device)
    needed = len(share) * math.prod(run.cine.shape) * PIXEL_BYTES * (1 + (run.n_coils or 1))
    return list(batches) if needed < KEPT_SHARE * free_memory(run.device) else batches
