"""The parameters of the training-free methods, searched on training samples.

All combinations of a method's grid (`BASELINES`), eight for each method, are tried on the first
training samples with fixed masks. For each acceleration, the combination with the highest mean PSNR
is taken.
"""

import itertools
from collections.abc import Sequence

import torch
from tqdm import tqdm

from methods.baselines import BASELINES, baseline
from metrics import psnr
from training.batches import Batch
from util.stop import NEVER, StopRequest

N_TUNING = 4  # training samples that parameters are searched on

Parameters = dict[str, float]


def available_baselines(
    chosen: Sequence[str] | None, real_image: bool, coils: bool = False
) -> list[str]:
    """Names of the `chosen` methods (None: all) that can be used with or without the real-image
    prior, and of one coil or several, in the order of `BASELINES`."""
    return [
        name
        for name, method in BASELINES.items()
        if (chosen is None or name in chosen)
        and (real_image or not method.real_image)
        and (coils or not method.needs_coils)
    ]


@torch.no_grad()
def tune(
    name: str, batches: Sequence[Batch], real_image: bool, stop: StopRequest = NEVER
) -> Parameters:
    """The parameters of the training-free method `name` with the highest mean PSNR on `batches`.

    The usual ones if there are no batches, or if the method has no grid.
    """
    baseline(name, real_image)  # a ValueError if there is no such method, or not with this prior
    method = BASELINES[name]
    if not method.grid or not len(batches):
        return dict(method.usual)
    candidates = [
        dict(zip(method.grid, values, strict=True))
        for values in itertools.product(*method.grid.values())
    ]
    scores: list[list[float]] = [[] for _ in candidates]
    with tqdm(total=len(batches) * len(candidates), desc=f"tuning {name}", disable=None) as bar:
        for batch in batches:
            for parameters, column in zip(candidates, scores, strict=True):
                stop.check("before testing")
                images = baseline(name, real_image, **parameters)(*batch.measured)
                column += psnr(images.abs(), batch.target).tolist()
                bar.update()
    return max(zip(candidates, scores, strict=True), key=lambda pair: sum(pair[1]))[0]
