"""The time that a run still takes, from times that were measured in it."""

import statistics
import time
from collections import Counter, deque
from collections.abc import Mapping

from evaluation.bench import Bench
from evaluation.lesion_score import N_LESIONS
from evaluation.scoring import score
from evaluation.tuning import Parameters
from methods.baselines import Method
from training.batches import Batch

RECENT = 50  # steps whose median is the time of a step


class Forecast:
    """Seconds until the end of a run: of training, of validation, and of the test with pictures."""

    def __init__(self, validation: float, test: float):
        """Seconds of a validation, which may be measured anew later, and of the test."""
        self.validation, self.test = validation, test
        self.steps: deque[float] = deque(maxlen=RECENT)  # seconds of the last ones

    def left(self, n_steps: int, n_validations: int) -> dict[str, float]:
        """Seconds of each part of the run, with so many steps and validations to come."""
        return {
            "training": n_steps * statistics.median(self.steps),
            "validation": n_validations * self.validation,
            "test and pictures": self.test,
        }


def scored_seconds(method: Method, batch: Batch) -> float:
    """Time of a method and its scores, for one sample."""
    started = time.perf_counter()
    score({"": method}, [batch])
    return (time.perf_counter() - started) / len(batch.samples)


def forecast(
    bench: Bench,
    learned: Mapping[str, Method],
    tuned: Mapping[float, Mapping[str, Parameters]],
    size: int,
    lesions: bool,
    pictured: Mapping[str, int],
) -> Forecast:
    """A forecast for networks and training-free methods, each timed on a sample of the test part.

    The first of the networks is the one that is validated.
    Scores of training-free methods that are cached take no time.

    Args:
        tuned: the parameters of the training-free methods by acceleration.
        size: samples in a batch of the test.
        lesions: whether there is a lesion test, at the first acceleration.
        pictured: samples that a method is applied to for pictures, if its scores are cached.
    """
    n_samples = {part: len(samples) for part, samples in bench.parts.items()}
    first = next(iter(tuned))
    methods = bench.methods(learned, tuned[first])
    passes: Counter[str] = Counter()  # of a method over one sample
    for acc, parameters in tuned.items():
        cached = bench.cached_scores(parameters, acc, size)
        for name in methods:
            if name not in cached:
                passes[name] += n_samples["test"]
            elif acc == first:
                passes[name] += pictured.get(name, 0)
            if lesions and acc == first:
                passes[name] += n_samples["test"] * (1 + N_LESIONS)
    batch = bench.batches("test", first, size=1)[0]
    score(learned, [batch])  # the first pass of a network takes longer
    seconds = {name: scored_seconds(methods[name], batch) for name, n in passes.items() if n}
    return Forecast(
        validation=n_samples["validation"] * (seconds[next(iter(learned))] if learned else 0),
        test=sum(passes[name] * seconds[name] for name in seconds),
    )
