"""Steps of training, for `torchrun`: what each process takes of them, and what comes out.

python worker.py DATA OUTPUT: steps on the images in DATA; gradients and weights go to OUTPUT.
"""

import itertools
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from helpers import CASCADE, TINY, sampling

from data.acquisition import Acquisition
from data.batches import TrainingDraws, training_batch
from model import architecture_settings, build_model, channels_last
from train import train
from training.optimisation import make_optimizer
from training.run import Training
from training.settings import with_own_values
from training.step import Stepper
from util.settings import defaults_of
from util.world import World, torchrun_world

# draws of (round, sample): the last forward pass has fewer than three samples
STEPS = [[(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)], [(0, 5), (0, 6), (0, 7), (1, 0)], [(1, 4)]]
ACCUMULATION = 2
SETTINGS = {
    "unet": TINY | {"model": "unet_resnet", "batch_norm": False, "start": "view_sharing"},
    "cascade": CASCADE | {"stage_loss": 0.1, "loss": "mse"},
    "stacked": TINY
    | {"model": "unet_resnet", "batch_norm": False, "data_consistency": True, "branches": "stacked"}
    | {"attention": True, "loss": ("mse", 1.0, "ssim", 0.1, "moving", 1.0)},
}


def gradients_and_weights(name: str, images: torch.Tensor, world: World) -> list[torch.Tensor]:
    """The gradients of the first step, then the weights after the last, of one network."""
    given = defaults_of(train) | SETTINGS[name]
    own = with_own_values(given) | {"real_image": True, "accumulation": ACCUMULATION}
    s = SimpleNamespace(**own)
    torch.manual_seed(0)
    architecture = {key: getattr(s, key) for key in architecture_settings(s.model)}
    network = build_model(s.model, **architecture).train()
    channels_last(network)
    device = torch.device("cpu")
    run = SimpleNamespace(settings=s, world=world, device=device, records_steps=False)
    training = Training(network, None, make_optimizer(network, 1e-3, 0.0))
    make_batch = partial(
        training_batch,
        images,
        acquisition=Acquisition(sampling(4), False, 0.0, 0),
        training=TrainingDraws(0, 0, (), s.strip or None),
        device="cpu",
    )
    stepper = Stepper(run, training, make_batch)
    found = []
    with stepper.batches(STEPS) as batches:
        for draws in STEPS:
            total = stepper.step(draws, batches)
            if not found:
                found = [world.total(total)]
                found += [parameter.grad.clone() for parameter in network.parameters()]
    return found + [parameter.detach() for parameter in network.parameters()]


def main(data: str, output: str) -> None:
    images = torch.from_numpy(np.load(data)["dataset"])
    with torchrun_world("nothing") as world:
        found = {name: gradients_and_weights(name, images, world) for name in SETTINGS}
        of_all = world.gathered(found)
        for name, other in itertools.product(SETTINGS, of_all):
            pairs = zip(found[name], other[name], strict=True)
            assert all(torch.equal(a, b) for a, b in pairs), name
        if world.is_first:
            torch.save(found, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
