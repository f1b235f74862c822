"""The test bench: data and masks on which methods are compared, and a cache of results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from dataset import Cine
from evaluation.scoring import Row, Scored, score_batches
from evaluation.tuning import N_TUNING, Parameters, tune
from methods.baselines import BASELINES, Method
from training.batches import Acquisition, EvaluationBatches
from util.cache import recall, remember, source_file, source_hash
from util.machine import hardware, versions
from util.stop import NEVER, StopRequest


@dataclass(frozen=True)
class Bench:
    """Data, masks and device with which methods are compared."""

    cine: Cine
    parts: Mapping[str, list[int]]  # indices of the samples in each part of the split
    acquisition: Acquisition
    real_image: bool  # whether the training-free methods may assume real-valued images
    device: torch.device

    def batches(
        self, part: str, acc: float, size: int, n_samples: int | None = None
    ) -> EvaluationBatches:
        """The first samples of a part of the split at one acceleration, `size` at a time."""
        samples = self.parts[part][:n_samples]
        return EvaluationBatches(
            self.cine.images, samples, self.acquisition.at(acc), size, self.device
        )

    def parameters(self, name: str, acc: float, stop: StopRequest = NEVER) -> Parameters:
        """The parameters of a training-free method, cached or searched on training samples."""
        batches = self.batches("train", acc, size=1, n_samples=N_TUNING)
        if not BASELINES[name].grid or not len(batches):
            return BASELINES[name].usual
        identity = self.identity(name, batches)
        parameters = recall(identity, dict) if identity else None
        if parameters is None:
            parameters = tune(name, batches, self.real_image, stop)
            if identity:
                remember(identity, parameters)
        return parameters

    def score(
        self,
        methods: Mapping[str, Method],
        parameters: Mapping[str, Parameters],
        acc: float,
        size: int,
        on_batch: Callable[[Scored], None] | None = None,
        stop: StopRequest = NEVER,
    ) -> list[Row]:
        """Scores of all methods on the test part at one acceleration, as rows of `metrics.csv`.

        Training-free methods whose scores are cached are not computed again.

        Args:
            parameters: of each training-free method among the methods.
            size: samples in a batch.
            on_batch: called with every batch and its new reconstructions.
        """
        batches = self.batches("test", acc, size)
        identities = {
            name: identity | {"parameters": chosen}
            for name, chosen in parameters.items()
            if (identity := self.identity(name, batches))
        }
        cached = {name: recall(identity, list) for name, identity in identities.items()}
        to_score = {name: run for name, run in methods.items() if cached.get(name) is None}
        rows: list[Row] = []
        if to_score or on_batch:
            for batch in tqdm(batches, f"test, acceleration {acc:g}", disable=None):
                stop.check("while testing")
                for scored in score_batches(to_score, [batch]):
                    rows += scored.rows
                    if on_batch:
                        on_batch(scored)
        for name, known in cached.items():
            if known is None:
                remember(identities[name], [row for row in rows if row["method"] == name])
            else:
                rows += known
        return rows

    def identity(self, name: str, batches: EvaluationBatches) -> dict[str, Any]:
        """Everything that the results of a training-free method on `batches` depend on.

        Empty, so that nothing is cached, if the method's code is not in a file of the project.
        """
        module = BASELINES[name].reconstruct.__module__ or "__main__"
        if source_file(module) is None:
            return {}
        return {
            "method": name,
            "grid": BASELINES[name].grid,
            "samples": {str(i): self.cine.hashes[i] for i in batches.samples},
            "shape": self.cine.shape,
            "acquisition": {k: float(v) for k, v in vars(self.acquisition).items() if k != "acc"},
            "acc": [float(acc) for acc in batches.acquisition.acc],
            "real_image": self.real_image,
            "code": source_hash("evaluation.bench", module),
            "versions": versions(),
            "hardware": hardware(self.device),
        }
