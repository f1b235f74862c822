"""The clock: calls timed in turn, the machine's peak rate, and the peak memory of a call."""

import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import ForkServerContext
from typing import Any, TypeVar

import numpy as np
import torch

from util.progress import say

Key = TypeVar("Key", bound=Hashable)
Row = dict[str, Any]
CPU_PRODUCT, GPU_PRODUCT = 2048, 8192  # rows and columns of the matrix product


@dataclass(frozen=True)
class Clock:
    """How calls are timed."""

    device: torch.device
    repeats: int  # rounds that count
    deadline: float  # of `time.monotonic`; only the first round that counts may end later

    def in_turn(self, calls: Mapping[Key, Callable[[], Any]], title: str) -> dict[Key, Row]:
        """Time every call once in each round; the first round does not count.

        Returns:
            for each call, `seconds` (median), `spread` (half the interquartile range; NaN for one
            round), `fastest` (seconds) and `rounds`; or the `failure` in words.
        """
        seconds: dict[Key, list[float]] = {key: [] for key in calls}
        failures: dict[Key, str] = {}
        started = time.monotonic()
        for number in range(self.repeats + 1):
            for key in [key for key in calls if key not in failures]:
                try:
                    seconds[key].append(self.once(calls[key]))
                except Exception as error:  # the others can still be timed
                    failures[key] = reason(error)
            one = (time.monotonic() - started) / (number + 1)
            left = min(one * (self.repeats - number), max(0, self.deadline - time.monotonic()))
            done = f"round {number} of {self.repeats}" if number else "warmed up"
            say(f"{title}: {done}, about {left / 60:.1f} minutes left")
            if number and time.monotonic() + one > self.deadline:
                break
        return {
            key: {"failure": failures[key]} if key in failures else _summary(seconds[key][1:])
            for key in calls
        }

    def once(self, call: Callable[[], Any]) -> float:
        """Seconds of one call, until the device has finished it."""
        self._synchronise()
        started = time.perf_counter()
        call()
        self._synchronise()
        return time.perf_counter() - started

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def product(self, precision: str) -> tuple[Callable[[], Any], float]:
        """A large matrix product, and its multiply-accumulates."""
        n = CPU_PRODUCT if self.device.type == "cpu" else GPU_PRODUCT
        matrix = torch.rand(n, n, device=self.device).to(getattr(torch, precision))

        def multiply() -> None:
            before = torch.get_float32_matmul_precision()
            if self.device.type == "cuda":  # TensorFloat32, as convolutions have by default
                torch.set_float32_matmul_precision("high")
            torch.mm(matrix, matrix)
            torch.set_float32_matmul_precision(before)

        return multiply, float(n) ** 3


def _summary(seconds: list[float]) -> Row:
    low, median, high = np.percentile(seconds, (25, 50, 75))
    spread = (high - low) / 2 if len(seconds) > 1 else float("nan")
    found = {"seconds": median, "spread": spread, "fastest": min(seconds)}
    return {name: float(value) for name, value in found.items()} | {"rounds": len(seconds)}


def reason(error: BaseException) -> str:
    """An error in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def in_own_process(function: Callable[..., Row], *arguments: Any) -> Row:
    """What `function` returns in a new process, whose peak memory is its own, or the `failure`."""
    context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    if isinstance(context, ForkServerContext):  # its server imports once for all processes
        context.set_forkserver_preload(["torch", function.__module__])
    try:
        with ProcessPoolExecutor(1, context) as pool:
            return pool.submit(function, *arguments).result()
    except Exception as error:  # of any kind, and also if the process was killed
        return {"failure": reason(error)}
