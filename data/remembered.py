"""What was found in a data file, remembered, so that a second start need not read all of it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data.samples import SampleSource
from data.stored import state_of
from util.cache import recall, remember
from util.machine import versions

SOME_SAMPLES = 8  # of a file, whose bytes tell it from others


def remembered(
    find: Callable[[], dict[str, Any]],
    path: Path,
    stored: SampleSource,
    n_samples: int,
    settings: Any,
    code: str,
) -> dict[str, Any]:
    """The result of `find`, or what it was at an earlier start.

    A file is the same if its path, its state (`state_of`) and some of its bytes are.

    Args:
        find: reads the first `n_samples` of an array in a file; returns numbers, texts, lists and
            dicts.
        settings: what the result depends on besides.
        code: the hash of the source of everything that `find` does.
    """
    some = hashlib.sha256()
    for i in np.linspace(0, n_samples - 1, min(n_samples, SOME_SAMPLES)):
        some.update(stored.mapped(int(i)).tobytes())
    identity = {
        "file": str(path.resolve()),
        "array": str(stored),
        "state": state_of(path),
        "some": some.hexdigest(),
        "samples": n_samples,
        "settings": settings,
        "code": code,
        "versions": versions(),
    }
    known = recall(identity, dict)
    if known is None:
        known = find()
        remember(identity, known)
    return known
