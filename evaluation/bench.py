"""The test bench: data and masks on which methods are compared, and a cache of results."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

import methods.baselines
from dataset import Cine
from evaluation.scoring import Row, Scored, score_batches
from evaluation.tuning import N_TUNING, Parameters, tune
from methods.baselines import BASELINES, Method, baseline
from training.batches import Acquisition, EvaluationBatches
from util.cache import recall, remember, source_hash
from util.journal import Journal
from util.machine import hardware, versions
from util.progress import duration, log, progress
from util.stop import NEVER, StopRequest

CODE = source_hash("evaluation.bench")  # and of everything that it imports


@dataclass
class Spent:
    """The time that results took, and how many of them were computed and how many cached."""

    seconds: float = 0.0
    computed: int = 0
    cached: int = 0


@dataclass(frozen=True)
class Bench:
    """Data, masks and device with which methods are compared."""

    cine: Cine
    parts: Mapping[str, list[int]]  # indices of the samples in each part of the split
    acquisition: Acquisition
    real_image: bool  # whether the training-free methods may assume real-valued images
    device: torch.device
    # by this bench: on the "search" of parameters, and on the scores of each part
    spent: dict[str, Spent] = field(default_factory=lambda: defaultdict(Spent))

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
            return dict(BASELINES[name].usual)
        started, spent = time.perf_counter(), self.spent["search"]
        identity = self.identity(name, batches)
        parameters = recall(identity, dict) if identity else None
        if parameters is None:
            parameters = tune(name, batches, self.real_image, stop)
            if identity and remember(identity, parameters):
                stop.progressed()
            seconds = time.perf_counter() - started
            spent.seconds, spent.computed = spent.seconds + seconds, spent.computed + 1
            origin = duration(seconds)
        else:
            spent.cached += 1
            origin = "cached"
        values = ", ".join(f"{key} {value:g}" for key, value in parameters.items())
        log(f"tuning {name}, acceleration {acc:g}: {values}, {origin}")
        return parameters

    def methods(
        self, learned: Mapping[str, Method], parameters: Mapping[str, Parameters]
    ) -> dict[str, Method]:
        """All methods by name: networks and the like, then training-free ones with `parameters`."""
        if twice := learned.keys() & parameters.keys():
            raise ValueError(f"{min(twice)} is the name of a training-free method: choose another")
        free = {k: baseline(k, self.real_image, **chosen) for k, chosen in parameters.items()}
        return {**learned, **free}

    def score(
        self,
        learned: Mapping[str, Method],
        parameters: Mapping[str, Parameters],
        acc: float,
        size: int,
        on_batch: Callable[[Scored], None] | None = None,
        stop: StopRequest = NEVER,
        journal: Journal | None = None,
        part: str = "test",
    ) -> list[Row]:
        """Scores of all methods on a part at one acceleration, as rows of `metrics.csv`.

        Training-free methods whose scores are cached are not computed again.

        Args:
            learned: networks and other methods whose scores are not cached.
            parameters: of each training-free method to score.
            size: samples in a batch.
            on_batch: called with every batch and its new reconstructions.
            journal: of an earlier call that was stopped; scores in it are not computed again.
        """
        started, spent = time.perf_counter(), self.spent[part]
        batches = self.batches(part, acc, size)
        cached = self.cached_scores(parameters, acc, size, part)
        methods = self.methods(learned, parameters)
        to_score = {k: method for k, method in methods.items() if k not in cached}
        rows: list[Row] = []
        if to_score or on_batch:
            title, n_samples = f"{part}, acceleration {acc:g}", len(batches.samples)
            for batch in progress(batches, title, n_samples, lambda batch: len(batch.samples)):
                key = {"acc": acc, "samples": batch.samples, "methods": list(to_score)}
                known = journal.get(key) if journal else None
                if known is None:
                    stop.check("while testing" if part == "test" else f"in {part}")
                    (scored,) = score_batches(to_score, [batch])
                    if journal:
                        journal.add(key, scored.rows)
                    stop.progressed()
                else:
                    scored = Scored(batch, {}, known)
                rows += scored.rows
                if on_batch:
                    on_batch(scored)
        for name, identity in self._identities(parameters, batches).items():
            if name not in cached:
                remember(identity, [row for row in rows if row["method"] == name])
        spent.seconds += time.perf_counter() - started
        spent.computed, spent.cached = spent.computed + len(to_score), spent.cached + len(cached)
        return rows + [row for known in cached.values() for row in known]

    def cached_scores(
        self, parameters: Mapping[str, Parameters], acc: float, size: int, part: str = "test"
    ) -> dict[str, list[Row]]:
        """The rows of those training-free methods whose scores are cached; see `score`."""
        identities = self._identities(parameters, self.batches(part, acc, size))
        rows = {name: recall(identity, list) for name, identity in identities.items()}
        return {name: known for name, known in rows.items() if known is not None}

    def _identities(
        self, parameters: Mapping[str, Parameters], batches: EvaluationBatches
    ) -> dict[str, dict[str, Any]]:
        """What the scores of training-free methods depend on, of those that can be cached."""
        return {
            name: identity | {"parameters": chosen, "size": batches.size}
            for name, chosen in parameters.items()
            if (identity := self.identity(name, batches))
        }

    def identity(self, name: str, batches: EvaluationBatches) -> dict[str, Any]:
        """Everything that the results of a training-free method on `batches` depend on.

        Empty, so that nothing is cached, unless the method is a function of `methods/baselines.py`,
        whose source the key covers.
        """
        method = BASELINES[name]
        function = getattr(method.reconstruct, "__qualname__", "")
        if getattr(methods.baselines, function, None) is not method.reconstruct:
            return {}
        return {
            "method": name,
            "function": function,
            "prior": method.real_image,
            "grid": method.grid,
            "usual": method.usual,
            "samples": {str(i): self.cine.hashes[i] for i in batches.samples},
            "shape": self.cine.shape,
            "acc": [float(acc) for acc in batches.acquisition.acc],
            "sample_n": self.acquisition.sample_n,
            "phase": self.acquisition.phase,
            "noise": float(self.acquisition.noise),
            "data_seed": self.acquisition.data_seed,
            "real_image": self.real_image,
            "code": CODE,
            "versions": versions(),
            "hardware": hardware(self.device),
        }
