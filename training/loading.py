"""Training and validation batches, and what is cached on the device."""

import math
from collections.abc import Callable, Sequence
from functools import partial

from data.batches import Batch, DeviceCache, Draws, EvaluationBatches, training_batch
from data.samples import Images
from training.run import Run
from util.machine import free_memory, total_memory

PIXEL_BYTES = 8  # of a complex image, and of the aliased one of each coil
CACHE_SHARE = 0.25  # of the memory, for the batches for validation, and for training images
MEMORY_MARGIN = 2.5  # a step may take this multiple of the counted activations


def batch_maker(run: Run) -> Callable[[Draws], Batch]:
    """The function that makes a training batch of draws."""
    return partial(
        training_batch,
        images_for(run),
        acquisition=run.acquisition,
        training=run.training_draws,
        device=run.device,
    )


def images_for(run: Run) -> Images | DeviceCache:
    """The images to train on. On a GPU those of a single coil stay there from their first use on,
    if they fit beside a training step."""
    images = run.cine.images
    if run.device.type != "cuda" or run.n_coils is not None:
        return images
    # of the whole memory, so that a run which goes on decides as it did before
    left = total_memory(run.device) - MEMORY_MARGIN * run.step_cost.activation_bytes
    needed = len(run.parts["train"]) * math.prod(run.cine.shape) * PIXEL_BYTES
    return DeviceCache(images, run.device) if needed < CACHE_SHARE * left else images


def validation_batches(run: Run) -> Sequence[Batch]:
    """The batches that this process validates on, which are the same in every epoch: made once, if
    they fit."""
    share = run.world.share(run.parts["validation"])
    batches = EvaluationBatches(run.cine.images, share, run.acquisition, run.pass_size, run.device)
    needed = len(share) * math.prod(run.cine.shape) * PIXEL_BYTES * (1 + (run.n_coils or 1))
    return list(batches) if needed < CACHE_SHARE * free_memory(run.device) else batches
