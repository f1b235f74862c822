"""What the user sees of a computation: lines, and bars on a terminal."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

LINES = 10  # about one loop, at most
SECONDS = 10  # between two of them, at least
MOST_NAMED = 20  # samples in one line; all are in config.json


def say(line: str) -> None:
    """Print a line for the user, at once, above any progress bar."""
    with contextlib.suppress(OSError, ValueError):  # a closed stream must not end a run
        tqdm.write(line)
        sys.stdout.flush()


def log(line: str) -> None:
    """Print a line where there are no bars, so that a log shows progress."""
    if sys.stderr is None or not sys.stderr.isatty():  # as tqdm decides
        say(line)


def progress(
    items: Iterable[Item],
    title: str,
    n_samples: int,
    size: Callable[[Item], int],
    unit: str = "sample",
) -> Iterator[Item]:
    """The items, with a bar; where there are none, with a line now and then, and the time left.

    `size`: of an item in samples, or what `unit` names; `n_samples`: of all items.
    """
    log(f"{title}: {counted(n_samples, unit)}")
    done, said, since = 0, 0, time.perf_counter()
    with tqdm(total=n_samples, desc=title, unit=unit, disable=None) as bar:
        for item in items:
            yield item
            bar.update(size(item))
            done, now = done + size(item), time.perf_counter()
            tenths = LINES * done // n_samples - LINES * said // n_samples
            if done < n_samples and tenths and now - since >= SECONDS:
                left = (now - since) / (done - said) * (n_samples - done)
                log(f"{title}: {done} of {n_samples} {unit}s, {duration(left)} left")
                said, since = done, now


def duration(seconds: float) -> str:
    """A time with its unit: "1.2 s", "12 s", "3.4 min" or "5.6 h"."""
    minutes = seconds / 60
    if minutes < 1.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def counted(n: int, noun: str) -> str:
    """ "1 sample", "3 samples"; a noun that ends in s, such as "series", stays."""
    return f"{n} {noun}" + ("s" if n != 1 and not noun.endswith("s") else "")


def name_list(samples: Sequence[int]) -> str:
    """Samples in words: "0, 3, 5"; only the first few of many."""
    more = len(samples) - MOST_NAMED
    return ", ".join(map(str, samples[:MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
