"""The reconstructions of one series: training-free, and by a network; and their scores."""

import time
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from CS_mask import Condition
from evaluation.error_map import (
    COMPARED,
    ErrorMap,
    error_line,
    error_map,
)
from evaluation.sampling_shift import mask_warnings
from evaluation.scoring import ScoreRow, score_images
from evaluation.tuning import available_baselines
from formats.series import Series
from methods.averaging import average_name, averaged
from methods.baselines import Method, baseline
from methods.calibration import calibrated, calibrated_name
from model import run_network
from scan.adaptation import Adapted
from scan.choice import ChosenMethod, best_training_free
from scan.measurement import Measurement
from scan.noise import measured_noise, noise_in_scores, outside_noise
from scan.weights import (
    Weights,
    default_weights,
    load_scan_weights,
    require_fit,
    sampling_notes,
)
from training.run import trained_noise
from util.errors import InputError

UNDERSAMPLED = "zero_filled"  # is always shown
SIMPLE = ("view_sharing",)  # beside the network and the best training-free method


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
    outside: list[str]  # how its lines differ from those that the weights were trained on
    # by method, of the network and of the training-free method; none: not asked for, or forgotten
    errors: dict[str, ErrorMap] = field(default_factory=dict)
    error_lines: dict[str, str] = field(default_factory=dict)  # what they say, by method
    seconds: float = 0.0
    is_turned: bool = False  # viewers show Y from left to right
    aspect: float = 1.0  # the height of a pixel over its width, as viewers show it
    pixel_width: float | None = None  # mm, as viewers show it; None: not known
    frame_time: float | None = None  # ms from frame to frame; None: not known

    def keep_network(self) -> None:
        """Forget the images of the other methods, what was measured, and the truth, once they are
        written."""
        self.images = {self.network: self.images[self.network]}
        self.measurement = self.measurement.without_images()
        self.truth, self.errors = None, {}

    @property
    def network(self) -> str:
        """The name of the network's images: those of the adapted network, if there is one."""
        return list(self.images)[-1]


@dataclass
class Reconstructor:
    """Reconstructs the series of a scan by a network and by training-free methods: with their usual
    parameters, and the one that predicts held-out lines best."""

    weights: str | None  # checkpoint, or the name of shipped weights; None: those that fit the data
    adapting: bool  # whether the network is to be fine-tuned on the scan
    calibrate: bool  # take the share of the correction that predicts held-out lines best
    average: int  # mean over this many flips and reversals
    precision: str
    seed: int  # of the held-out lines
    baselines: tuple[str, ...] | None  # training-free methods; None: the usual ones and the best
    error_map: bool  # whether images come with their expected error
    device: torch.device
    # by kind of series
    adapted: dict[bool, Adapted] = field(default_factory=dict)  # to real-valued, to complex ones
    chosen: dict[tuple[bool, bool], ChosenMethod] = field(default_factory=dict)
    loaded: dict[str, Weights] = field(default_factory=dict)  # by name

    def weights_for(self, measurement: Measurement) -> Weights:
        """The weights for a series; InputError if they do not fit it."""
        name = self.weights or default_weights(measurement)
        if name not in self.loaded:
            self.loaded[name] = load_scan_weights(name, self.device)
        require_fit(self.loaded[name], measurement, self.adapting)
        return self.loaded[name]

    def choose(self, measurement: Measurement) -> ChosenMethod | None:
        """Choose the training-free method for series of this kind; None if it is chosen already."""
        kind = measurement.is_real, measurement.maps is not None
        if kind in self.chosen:
            return None
        self.chosen[kind] = best_training_free(measurement, self.seed, self.baselines)
        return self.chosen[kind]

    def by_network(self, name: str, network: nn.Module, weights: Weights) -> dict[str, Method]:
        """A network as a method, calibrated if that is asked for and possible."""
        method = partial(run_network, network, precision=self.precision)
        if not self.calibrate or weights.start is None:
            return {name: method}
        return {calibrated_name(name): calibrated(method, weights.start, weights.needs_real)}

    def reconstruct(self, series: Series, patient: str, measurement: Measurement) -> Reconstruction:
        """The reconstructions of a series, and their scores if its truth is known."""
        started = time.perf_counter()
        weights, adapted = self.weights_for(measurement), self.adapted.get(measurement.is_real)
        is_real, coils = measurement.is_real, measurement.maps is not None
        best = self.chosen[is_real, coils].name
        named = (UNDERSAMPLED, *(self.baselines or SIMPLE), best)
        free = available_baselines(named, is_real, coils)
        methods = {name: baseline(name, is_real) for name in free}
        methods |= self.by_network(weights.model, weights.network, weights)
        if adapted is not None:
            methods |= self.by_network(f"{weights.model}_adapted", adapted.network, weights)
        if self.average > 1:
            name, method = list(methods.items())[-1]
            methods[average_name(name, self.average)] = averaged(method, self.average)
        images, truth = reconstruct_all(methods, measurement), measurement.true_images
        errors, without_map = {}, []
        if self.error_map:
            try:
                errors = self.error_maps(methods, images, best, measurement)
            except InputError as error:
                without_map = [str(error)]
            if errors and best not in errors:
                without_map = [f"{best} has no error map: bounds are calibrated for {COMPARED}"]
        warnings = mask_warnings(measurement.mask.cpu().numpy())
        notes = [*series.notes, *measurement.notes, *note_on_lines(series, measurement), *warnings]
        notes += without_map
        outside = sampling_notes(weights, measurement)
        if noise := measured_noise(measurement):
            outside += outside_noise(noise, trained_noise(weights.settings))
            if truth is not None and truth.is_complex():
                notes += noise_in_scores(noise, measurement, images, truth)
        (number,) = measurement.samples
        return Reconstruction(
            name=series.name,
            patient=patient,
            notes=notes,
            measurement=measurement,
            weights=weights,
            adapted=adapted,
            images=images,
            truth=truth,
            rows=[]
            if truth is None
            else score_series(images, truth, number, measurement.condition),
            best=best,
            outside=outside,
            errors=errors,
            error_lines={k: error_line(one, images[k], truth) for k, one in errors.items()},
            seconds=time.perf_counter() - started,
            is_turned=series.is_turned,
            aspect=series.aspect,
            pixel_width=series.pixel_width,
            frame_time=series.frame_time,
        )

    def error_maps(
        self,
        methods: dict[str, Method],
        images: dict[str, Tensor],
        best: str,
        measurement: Measurement,
    ) -> dict[str, ErrorMap]:
        """The error maps of the network, and of the best training-free method if it is `COMPARED`.

        Raises:
            InputError: there are too few lines to hold some out.
        """
        *_, network = methods
        is_real = measurement.is_real
        compared = images.get(COMPARED)
        if compared is None:
            compared = reconstruct_all({"": baseline(COMPARED, is_real)}, measurement)[""]
        others = {network: compared}
        if best == COMPARED:  # for others no bound was calibrated
            others[best] = images[network]
        scale, seed = measurement.scale, self.seed
        return {
            name: error_map(methods[name], images[name], other, scale, measurement, is_real, seed)
            for name, other in others.items()
        }


def note_on_lines(series: Series, measurement: Measurement) -> list[str]:
    """A note on images of more lines than the scanner measured, which are easier to reconstruct."""
    if series.n_acquired is None:
        return []
    found = measurement.acceleration_among(series.n_acquired)
    return [
        f"the acceleration is {found:.2f} among the middle {series.n_acquired} lines, which the"
        f" scanner measured, and {measurement.acceleration:.2f} among all"
    ]


@torch.no_grad()
def reconstruct_all(methods: dict[str, Method], measurement: Measurement) -> dict[str, Tensor]:
    """The images (T, Y, X) of all methods, in the units of the input, on the CPU."""
    return {
        name: measurement.scale * method(*measurement.measured)[0].cpu()
        for name, method in methods.items()
    }


def score_series(
    images: dict[str, Tensor], truth: Tensor, number: int, condition: Condition
) -> list[ScoreRow]:
    """Scores of the magnitudes (T, Y, X), all divided by the maximum of the truth.

    `number` and `condition`: of the series and its masks, for the rows.
    """
    peak = truth.abs().max()
    scaled = {method: image.abs()[None] / peak for method, image in images.items()}
    return score_images(scaled, truth.abs()[None] / peak, [number], condition)
