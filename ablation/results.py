"""Results of repeated runs: means, spreads, and paired differences to a control.

A row of an experiment is one setting, run with several seeds on the same samples and masks. The
scores of a sample are first averaged over accelerations and seeds, which are not independent
samples. Means and standard deviations are then over samples, and differences to the control are
paired by sample (see `evaluation/intervals.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.intervals import NOTHING, Interval, mean_interval, spread
from evaluation.lesion_score import kept_contrasts
from evaluation.summary import mean_scores
from methods.baselines import BASELINES
from metrics import SCORES
from training.run_folder import (
    highest_peak,
    read_config,
    read_history,
    read_lesions,
    read_metrics,
)
from util.errors import InputError


@dataclass
class Result:
    """A finished run."""

    config: dict[str, Any]
    samples: list[int]
    scores: dict[str, np.ndarray]  # (n_samples,) of the network
    baselines: dict[str, float]  # mean PSNR by training-free method
    minutes: float  # of training, with validation
    peak_memory: float  # bytes; 0: not measured
    lesion_contrast: float  # kept by the network, mean over all lesions; NaN: not tested

    @property
    def groups(self) -> np.ndarray | None:
        """(n_samples,) group of each sample, if known."""
        groups = self.config["data"]["groups"]
        return None if groups is None else np.array(groups)[self.samples]

    @property
    def data(self) -> str:
        """The data and the test part, which must be the same in runs that are compared."""
        return f"{self.config['data']['hash']} {self.samples}"

    @property
    def best_baseline(self) -> tuple[str, float]:
        """The training-free method with the highest mean PSNR, and its PSNR; ("", NaN): none."""
        return max(self.baselines.items(), key=lambda item: item[1], default=("", float("nan")))


@dataclass
class Comparison:
    """A score of a row, and its difference to the control."""

    mean: float  # over samples
    std: float  # over samples, n - 1; NaN for a single one
    seed_spread: float  # standard deviation of the seeds' means, n - 1; NaN for a single seed
    difference: Interval  # over patients; NOTHING if there is nothing to compare


def read_result(folder: Path) -> Result:
    """Read a finished run; scores are averaged over accelerations.

    Raises:
        InputError: a file is missing or damaged.
    """
    config = read_config(folder)
    rows = read_metrics(folder)
    networks = [row["method"] for row in rows if row["method"] not in BASELINES]
    of_network = [row for row in rows if row["method"] in networks[:1]]  # not its mean over flips
    samples = sorted({int(row["sample"]) for row in of_network})
    try:
        scores = {
            score: np.array(
                [
                    np.mean([row[score] for row in of_network if int(row["sample"]) == i])
                    for i in samples
                ]
            )
            for score in SCORES
        }
        config["data"]["groups"], config["parameters"]  # present in runs of this version
    except KeyError as error:
        raise InputError(f"{folder} was made by another version (no {error}): remove it") from None
    history = read_history(folder)
    means = mean_scores(rows)
    return Result(
        config=config,
        samples=samples,
        scores=scores,
        baselines={name: means[name]["psnr"] for name in means if name in BASELINES},
        minutes=sum(entry["seconds"] for entry in history) / 60,
        peak_memory=highest_peak(history),
        lesion_contrast=lesion_contrast(folder, networks[0] if networks else ""),
    )


def lesion_contrast(folder: Path, method: str) -> float:
    """The contrast that a method keeps of lesions, the mean over their sizes; NaN if not tested."""
    kept = kept_contrasts(read_lesions(folder)).get(method, {})
    return float(np.mean([of_size.mean for of_size in kept.values()])) if kept else float("nan")


def compare(row: Mapping[int, Result], control: Mapping[int, Result], score: str) -> Comparison:
    """Compare a row to its control, both as results by seed.

    The difference is over the seeds that both have; NaN if there are none.
    """
    values = np.stack([result.scores[score] for result in row.values()])  # (seeds, samples)
    of_samples = values.mean(axis=0)
    difference = NOTHING
    shared = [seed for seed in row if seed in control]
    if shared:
        first = row[shared[0]]
        assert all(row[k].samples == control[k].samples == first.samples for k in shared)
        differences = np.mean(
            [row[seed].scores[score] - control[seed].scores[score] for seed in shared], axis=0
        )
        difference = mean_interval(differences, first.groups)
    return Comparison(
        mean=float(of_samples.mean()),
        std=spread(of_samples),
        seed_spread=spread(values.mean(axis=1)),
        difference=difference,
    )
