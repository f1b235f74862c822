"""The test bench: data and masks on which methods are compared, and a cache of results."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch

import methods.baselines
from CS_mask import Condition
from data.acquisition import Acquisition
from data.batches import EvaluationBatches
from dataset import Cine
from evaluation.held_out import with_held_out
from evaluation.scoring import HoldOut, Scored, ScoreRow, score_batches
from evaluation.summary import best_baseline, main_score, mean_scores
from evaluation.tuning import N_TUNING, Parameters, beyond_grid, tune
from methods.baselines import BASELINES, Method, baseline
from metrics import SCORES
from util.cache import forget, recall, remember, source_hash
from util.journal import Journal
from util.machine import hardware, versions
from util.progress import duration, log, progress
from util.stop import NEVER, StopRequest
from util.world import ALONE, World

CODE = source_hash("evaluation.bench")  # and of everything that it imports


@dataclass
class Effort:
    """The time that results took, and how many of them were computed and how many cached."""

    seconds: float = 0.0
    computed: int = 0
    cached: int = 0


class Reference(NamedTuple):
    """The best training-free method on the validation part, with which training is compared."""

    method: str
    value: float  # in dB
    score: str = "psnr"

    @property
    def column(self) -> str:
        """That of the history which is compared."""
        return f"validation/{self.score}"


@dataclass(frozen=True)
class Bench:
    """Data, masks and device with which methods are compared, and the training-free methods with
    the parameters that were searched for them."""

    cine: Cine
    parts: Mapping[str, list[int]]  # indices of the samples in each part of the split
    acquisition: Acquisition
    real_image: bool  # whether the training-free methods may assume real-valued images
    size: int  # samples in a batch that is scored
    device: torch.device
    world: World = ALONE  # the processes that share the scoring; the first one searches
    stop: StopRequest = NEVER  # is asked between two pieces of work
    # parameters by condition and training-free method, of `tune`
    tuned: dict[Condition, dict[str, Parameters]] = field(default_factory=dict)
    # on the "search" of parameters, and on the scores of each part
    spent: dict[str, Effort] = field(default_factory=lambda: defaultdict(Effort))

    @property
    def hold_out(self) -> HoldOut | None:
        """What holds lines out for a score, if the truth is not known."""
        if not self.cine.is_undersampled:
            return None
        data_seed = self.acquisition.data_seed
        return partial(with_held_out, real_image=self.real_image, data_seed=data_seed)

    def batches(
        self,
        part: str,
        condition: Condition,
        size: int | None = None,
        n_samples: int | None = None,
    ) -> EvaluationBatches:
        """The first samples of a part of the split, with masks of this pattern and acceleration."""
        samples = self.parts[part][:n_samples]
        return EvaluationBatches(
            self.cine.images,
            samples,
            self.acquisition.at(condition),
            size or self.size,
            self.device,
        )

    def tune(self, conditions: Iterable[Condition], names: Iterable[str]) -> None:
        """Search the parameters of these training-free methods at these conditions."""
        for condition in conditions:
            self.tuned[condition] = {name: self.parameters(name, condition) for name in names}

    def parameters(self, name: str, condition: Condition) -> Parameters:
        """The parameters of a training-free method, cached or searched on training samples."""
        batches = self.batches("train", condition, size=1, n_samples=N_TUNING)
        if not BASELINES[name].grid or not len(batches) or self.hold_out is not None:
            return dict(BASELINES[name].usual)
        if not self.world.is_first:
            return self.world.from_first({})
        started, spent = time.perf_counter(), self.spent["search"]
        identity = self.identity(name, batches)
        parameters = recall(identity, dict) if identity else None
        if parameters is None:
            # a search that was stopped goes on where it was
            unfinished = identity and {**identity, "unfinished": True}
            known = (unfinished and recall(unfinished, dict)) or {}

            def found(candidate: str, score: float) -> None:
                known[candidate] = score
                if unfinished and remember(unfinished, known):
                    self.stop.progressed()

            parameters = tune(name, batches, self.real_image, self.stop, known, found)
            if identity and remember(identity, parameters):
                forget(unfinished)
            seconds = time.perf_counter() - started
            spent.seconds, spent.computed = spent.seconds + seconds, spent.computed + 1
            origin = duration(seconds)
        else:
            spent.cached += 1
            origin = "cached"
        values = ", ".join(f"{key} {value:.3g}" for key, value in parameters.items())
        if outside := beyond_grid(BASELINES[name].grid, parameters):
            values += f" (beyond its grid in {' and '.join(outside)})"
        log(f"tuning {name}, {self.title(condition)}: {values}, {origin}")
        return self.world.from_first(parameters)

    def reference(self) -> Reference | None:
        """The best training-free method on the validation part; None if there is none, or if every
        validation mask has its own pattern or acceleration."""
        condition = self.acquisition.sampling.condition
        if not self.tuned.get(condition):
            return None
        rows = self.score({}, condition, "validation")
        best, score = best_baseline(rows), main_score(rows)
        return None if best is None else Reference(best, mean_scores(rows)[best][score], score)

    def title(self, condition: Condition) -> str:
        """A condition in words, with its pattern if there are several."""
        return condition.title(with_pattern=len(self.acquisition.sampling.patterns) > 1)

    def methods(self, learned: Mapping[str, Method], condition: Condition) -> dict[str, Method]:
        """All methods by name: networks and the like, then the tuned training-free ones."""
        tuned = self.tuned[condition]
        if twice := learned.keys() & tuned.keys():
            raise ValueError(f"{min(twice)} is the name of a training-free method: choose another")
        free = {k: baseline(k, self.real_image, **chosen) for k, chosen in tuned.items()}
        return {**learned, **free}

    def score(
        self,
        learned: Mapping[str, Method],
        condition: Condition,
        part: str = "test",
        on_batch: Callable[[Scored], None] | None = None,
        journal: Journal | None = None,
    ) -> list[ScoreRow]:
        """Scores of all methods on a part at one condition, as rows of `metrics.csv`.

        Training-free methods whose scores are cached are not computed again.

        Args:
            learned: networks and other methods whose scores are not cached.
            on_batch: called with every batch and its new reconstructions.
            journal: of an earlier call that was stopped; scores in it are not computed again.

        Of several processes, each scores a share; the first alone calls `on_batch` and has a
        `journal`; all return the same rows.
        """
        started, spent = time.perf_counter(), self.spent[part]
        batches = self.batches(part, condition)
        identities = self._identities(batches, condition)
        cached = {name: recall(identity, list) for name, identity in identities.items()}
        cached = self.world.from_first({k: rows for k, rows in cached.items() if rows is not None})
        to_score = {k: v for k, v in self.methods(learned, condition).items() if k not in cached}
        rows: list[ScoreRow] = []
        if to_score or on_batch:
            rows = self._score_shared(to_score, batches, part, on_batch, journal)
        for name, identity in identities.items():
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
        journal: Journal | None,
    ) -> list[ScoreRow]:
        """The rows of `score` that are not cached, of batches that the processes share."""
        condition, names = batches.acquisition.sampling.condition, list(methods)
        samples = [batches.samples_of(i) for i in range(len(batches))]
        keys = [{**condition._asdict(), "samples": chunk, "methods": names} for chunk in samples]
        stored = [journal.get(key) if journal else None for key in keys]
        known: list[list[ScoreRow] | None] = self.world.from_first(stored)

        def scored_batch(i: int) -> tuple[list[ScoreRow], Scored | None]:
            """The rows of a batch, and its images if they are wanted."""
            of_batch = known[i]
            if of_batch is not None and on_batch is None:
                return of_batch, None
            if of_batch is not None:
                scored = Scored(batches[i], {}, of_batch)
            else:
                self.stop.check("while testing" if part == "test" else f"in {part}")
                (scored,) = score_batches(methods, [batches[i]], self.hold_out)
            if on_batch is None:
                return scored.rows, None
            return scored.rows, scored if self.world.is_first else scored.to("cpu")

        rows: list[ScoreRow] = []
        title = f"{part}, {self.title(condition)}"
        numbers = range(len(batches))
        shown = progress(numbers, title, len(batches.samples), lambda i: len(samples[i]))
        for i, result in zip(shown, self.world.mapped(scored_batch, numbers), strict=True):
            if known[i] is None:
                self.stop.progressed(step=part == "test")
            if result is None:  # of another process, for the first
                continue
            of_batch, scored = result
            rows += of_batch
            if journal and known[i] is None:
                journal.add(keys[i], of_batch)
            if on_batch and scored:
                on_batch(scored.to(self.device))
        return self.world.from_first(rows)

    def _identities(
        self, batches: EvaluationBatches, condition: Condition
    ) -> dict[str, dict[str, Any]]:
        """Everything that the scores of training-free methods depend on, of those that can be
        cached."""
        return {
            name: identity | {"parameters": chosen, "size": batches.size, "scores": list(SCORES)}
            for name, chosen in self.tuned[condition].items()
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
            "acquisition": asdict(batches.acquisition),
            "real_image": self.real_image,
            "code": CODE,
            "versions": versions(),
            "hardware": hardware(self.device),
        }
