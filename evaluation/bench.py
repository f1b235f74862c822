"""The test bench: data and masks on which methods are compared, and a cache of results."""

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

import methods.baselines
from dataset import Cine
from evaluation.scoring import Row, Scored, score_batches
from evaluation.tuning import N_TUNING, Parameters, beyond_grid, tune
from methods.baselines import BASELINES, Method, baseline
from training.acquisition import Acquisition
from training.batches import EvaluationBatches
from util.cache import recall, remember, source_hash
from util.journal import Journal
from util.machine import hardware, versions
from util.progress import duration, log, progress
from util.stop import NEVER, StopRequest
from util.world import ALONE, World

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
    world: World = ALONE  # the processes that share the scoring; the first one searches
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
        if not self.world.is_first:
            return self.world.from_first({})
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
        values = ", ".join(f"{key} {value:.3g}" for key, value in parameters.items())
        if outside := beyond_grid(BASELINES[name].grid, parameters):
            values += f" (beyond its grid in {' and '.join(outside)})"
        log(f"tuning {name}, acceleration {acc:g}: {values}, {origin}")
        return self.world.from_first(parameters)

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

        Of several processes, each scores a share; the first alone calls `on_batch` and has a
        `journal`; all return the same rows.
        """
        started, spent = time.perf_counter(), self.spent[part]
        batches = self.batches(part, acc, size)
        cached = self.world.from_first(self.cached_scores(parameters, acc, size, part))
        methods = self.methods(learned, parameters)
        to_score = {k: method for k, method in methods.items() if k not in cached}
        rows: list[Row] = []
        if to_score or on_batch:
            rows = self._score_shared(to_score, batches, part, on_batch, stop, journal)
        for name, identity in self._identities(parameters, batches).items():
            if name not in cached and self.world.is_first:
                remember(identity, [row for row in rows if row["method"] == name])
        spent.seconds += time.perf_counter() - started
        spent.computed, spent.cached = spent.computed + len(to_score), spent.cached + len(cached)
        return rows + [row for known in cached.values() for row in known]

    def _score_shared(
        self,
        methods: Mapping[str, Method],
        batches: EvaluationBatches,
        part: str,
        on_batch: Callable[[Scored], None] | None,
        stop: StopRequest,
        journal: Journal | None,
    ) -> list[Row]:
        """The rows of `score` that are not cached, of batches that the processes share."""
        acc, names = batches.acquisition.acc[0], list(methods)
        samples = [batches.samples_of(i) for i in range(len(batches))]
        keys = [{"acc": acc, "samples": few, "methods": names} for few in samples]
        stored = [journal.get(key) if journal else None for key in keys]
        known: list[list[Row] | None] = self.world.from_first(stored)

        def scored_batch(i: int) -> tuple[list[Row], Scored | None]:
            """The rows of a batch, and its images if they are wanted."""
            of_batch = known[i]
            if of_batch is not None and on_batch is None:
                return of_batch, None
            if of_batch is not None:
                scored = Scored(batches[i], {}, of_batch)
            else:
                stop.check("while testing" if part == "test" else f"in {part}")
                (scored,) = score_batches(methods, [batches[i]])
            if on_batch is None:
                return scored.rows, None
            return scored.rows, scored if self.world.is_first else scored.to("cpu")

        rows: list[Row] = []
        title = f"{part}, acceleration {acc:g}"
        numbers = range(len(batches))
        shown = progress(numbers, title, len(batches.samples), lambda i: len(samples[i]))
        for i, result in zip(shown, self.world.mapped(scored_batch, numbers), strict=True):
            if known[i] is None:
                stop.progressed()
            if result is None:  # of another process, for the first
                continue
            of_batch, scored = result
            rows += of_batch
            if journal and known[i] is None:
                journal.add(keys[i], of_batch)
            if on_batch and scored:
                on_batch(scored.to(self.device))
        return self.world.from_first(rows)

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
            "acquisition": {
                **dataclasses.asdict(batches.acquisition),
                "acc": [float(acc) for acc in batches.acquisition.acc],  # 4 is 4.0
            },
            "real_image": self.real_image,
            "code": CODE,
            "versions": versions(),
            "hardware": hardware(self.device),
        }
