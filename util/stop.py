"""Requests to stop: SIGINT, SIGTERM, the end of a limit of time or of steps, and the end of the
process that started this one for its own work."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from util.errors import Interrupted
from util.launcher import has_lost_parent

_signals: list[str] = []  # names of those that were recorded


@contextlib.contextmanager
def recorded_signals() -> Iterator[None]:
    """SIGINT and SIGTERM only ask to stop within this block, which is for commands: a call from
    Python leaves signals to its caller.

    A second Ctrl-C interrupts at once; a second SIGTERM changes nothing, because launchers send
    several. Outside the main thread Python allows no signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[int, Any] = {}

    def restore(number: int) -> None:
        handler = previous[number]  # None: set by something else than Python
        signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def record(number: int, frame) -> None:
        _signals.append(signal.Signals(number).name)
        if number == signal.SIGINT:
            restore(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, record)
    try:
        yield
    finally:
        _signals.clear()
        for each in previous:
            restore(each)


class StopRequest:
    """Signals that were recorded and the ends of limits; the running code asks for them."""

    def __init__(
        self,
        max_minutes: float | None = None,
        continue_with: str = "--resume",
        max_steps: int | None = None,
    ):
        """
        Args:
            max_minutes: from now on; it waits for the first piece of work, so that every call does
                some.
            continue_with: the command that continues the work, for the message.
            max_steps: optimiser steps, or batches of the test, after which to stop.
        """
        self.reason, self.waits = "", True
        self.n_steps, self.max_steps = 0, max_steps
        self.continue_with = continue_with
        self.deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes

    def progressed(self, step: bool = False) -> None:
        """Note that a piece of work is done and would survive a stop; `step`: one that counts."""
        self.waits = False
        self.n_steps += step

    def requested(self) -> bool:
        """Whether to stop."""
        if _signals:
            self.reason = _signals[0]
        elif has_lost_parent():
            self.reason = "the end of the process that started it"
        elif self.deadline is not None and not self.waits and time.monotonic() > self.deadline:
            self.reason = self.reason or "max_minutes"
        elif self.max_steps is not None and self.n_steps >= self.max_steps:
            self.reason = self.reason or "max_steps"
        return bool(self.reason)

    def check(self, where: str) -> None:
        """Raise `Interrupted` if a stop was requested; `where`: such as "while testing"."""
        if self.requested():
            self.end(where)

    def end(self, where: str) -> NoReturn:
        """Raise `Interrupted`, with the reason that was found."""
        raise Interrupted(f"stopped by {self.reason} {where}; continue with: {self.continue_with}")


NEVER = StopRequest()  # for calls that nobody stops
