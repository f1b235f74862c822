"""The reconstructions of one series: training-free, and by a network; and their scores."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from evaluation.scoring import ScoreRow, score_images
from methods.averaging import average_name, averaged
from methods.baselines import Method, baseline
from model import run_network
from scan.adaptation import Adapted
from scan.measurement import Measurement
from scan.weights import Weights

TRAINING_FREE = ("zero_filled", "view_sharing")  # beside the network and the best such method


@dataclass
class Reconstruction:
    """What became of one series. Images are (T, Y, X) in the units of the input."""

    name: str
    patient: str  # series of one have the same
    notes: list[str]  # on how the series was read
    measurement: Measurement
    weights: Weights
    adapted: Adapted | None
    images: dict[str, Tensor]  # by method, the best last; float32, or complex64 where it is complex
    truth: Tensor | None  # float32 or complex64; None: not known, or forgotten
    rows: list[ScoreRow]  # scores by method; none without the truth
    best: str  # the training-free method that was chosen for the scan
    seconds: float = 0.0

    def keep_network(self) -> None:
        """Forget the images of the other methods, what was measured, and the truth, once they are
        written."""
        self.images = {self.network: self.images[self.network]}
        self.measurement = self.measurement.without_images()
        self.truth = None

    @property
    def network(self) -> str:
        """The name of the network's images: those of the adapted network, if there is one."""
        return list(self.images)[-1]


def methods_for(
    measurement: Measurement,
    weights: Weights,
    adapted: Adapted | None,
    best: str,
    precision: str,
    average: int,
) -> dict[str, Method]:
    """Training-free methods with their usual parameters, the `best` last; the network, the network
    adapted, and the mean of the last over flips, each if asked for."""
    methods = {name: baseline(name, measurement.is_real) for name in (*TRAINING_FREE, best)}
    methods[weights.model] = partial(run_network, weights.network, precision=precision)
    if adapted is not None:
        name = f"{weights.model}_adapted"
        methods[name] = partial(run_network, adapted.network, precision=precision)
    if average > 1:
        name, method = list(methods.items())[-1]
        methods[average_name(name, average)] = averaged(method, average)
    return methods


@torch.no_grad()
def reconstruct_all(methods: dict[str, Method], measurement: Measurement) -> dict[str, Tensor]:
    """The images (T, Y, X) of all methods, in the units of the input, on the CPU."""
    return {
        name: measurement.scale * method(*measurement.measured)[0].cpu()
        for name, method in methods.items()
    }


def score_series(
    images: dict[str, Tensor], truth: Tensor, number: int, acc: float | None
) -> list[ScoreRow]:
    """Scores of the magnitudes (T, Y, X), all divided by the maximum of the truth.

    `number` and `acc`: of the series, and its nominal acceleration, for the rows.
    """
    peak = truth.abs().max()
    scaled = {method: image.abs()[None] / peak for method, image in images.items()}
    return score_images(scaled, truth.abs()[None] / peak, [number], acc)
