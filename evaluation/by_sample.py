"""Rows of a test that is made sample by sample, by several processes, and can be stopped."""

from collections.abc import Callable
from typing import Any

from data.batches import Batch, EvaluationBatches
from util.journal import Journal
from util.progress import progress
from util.stop import NEVER, StopRequest
from util.world import ALONE, World

Row = dict[str, Any]


def rows_by_sample(
    test: Callable[[Batch], tuple[list[Row], Any]],
    batches: EvaluationBatches,
    name: str,
    methods: list[str],
    stop: StopRequest = NEVER,
    journal: Journal | None = None,
    world: World = ALONE,
    on_sample: Callable[[int, Any], None] = lambda sample, more: None,
    wanted: Callable[[int], bool] = lambda sample: False,
) -> list[Row]:
    """The rows of all samples.

    Args:
        test: gives the rows of a sample, and what else is known of it then.
        batches: of one sample each.
        name: of the test.
        methods: that are tested.
        journal: of an earlier call that was stopped; rows in it are not computed again.
        world: the processes that share the work; the first alone has the journal and the rows.
        on_sample: called in the first process with each new sample and what else is known of it.
        wanted: whether a sample is new, though its rows are in the journal.
    """
    if batches.size != 1:
        raise ValueError(f"{name} need batches of one sample, got {batches.size}")
    condition = batches.acquisition.sampling.condition._asdict()
    numbers = range(len(batches))
    keys = [{name: batches.samples_of(i), **condition, "methods": methods} for i in numbers]
    stored = [journal.get(key) if journal else None for key in keys]
    again = world.from_first([wanted(batches.samples_of(i)[0]) for i in numbers])
    known: list[list[Row] | None] = world.from_first(stored)

    def of_sample(i: int) -> tuple[list[Row], Any]:
        rows = known[i]
        if rows is not None and not again[i]:
            return rows, None
        stop.check("while testing")
        return test(batches[i])

    rows: list[Row] = []
    shown = progress(numbers, name, len(batches), lambda i: 1)
    for i, result in zip(shown, world.mapped(of_sample, numbers), strict=True):
        is_new = known[i] is None or again[i]
        if is_new:
            stop.progressed()
        if result is None:  # of another process, for the first
            continue
        of_one, more = result
        rows += of_one
        if is_new:
            on_sample(batches.samples_of(i)[0], more)
            if journal:
                journal.add(keys[i], of_one)
    return rows
