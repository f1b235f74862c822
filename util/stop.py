"""Requests to stop: SIGINT, SIGTERM and the end of a time limit."""

import signal
import threading
import time
from typing import NoReturn

from util.errors import Interrupted


class StopRequest:
    """Records SIGINT, SIGTERM and the end of `max_minutes`; the running code asks for it.

    Use it as a context manager. A second Ctrl-C interrupts at once; a second SIGTERM changes
    nothing, because launchers send several. Outside the main thread, where Python allows no signal
    handlers, only the time limit counts.
    """

    def __init__(
        self,
        max_minutes: float | None = None,
        continue_with: str = "--resume",
        after_progress: bool = False,
    ):
        """`continue_with`: the command that continues the work, for the message.
        `after_progress`: the time limit waits for `progressed`, so that every call makes some."""
        self.reason = ""
        self.waits = after_progress
        self.continue_with = continue_with
        self.deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self.previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *exception) -> None:
        for number in self.previous:
            self._restore(number)

    def _record(self, number: int, frame) -> None:
        self.reason = signal.Signals(number).name
        if number == signal.SIGINT:
            self._restore(number)

    def _restore(self, number: int) -> None:
        handler = self.previous[number]  # None: set by something else than Python
        signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]

    def progressed(self) -> None:
        """Note that a piece of work is done and would survive a stop."""
        self.waits = False

    def requested(self) -> bool:
        """Whether to stop."""
        late = self.deadline is not None and time.monotonic() > self.deadline
        if late and not self.waits:
            self.reason = self.reason or "max_minutes"
        return bool(self.reason)

    def check(self, where: str) -> None:
        """Raise `Interrupted` if a stop was requested; `where`: such as "while testing"."""
        if self.requested():
            self.end(where)

    def end(self, where: str) -> NoReturn:
        """Raise `Interrupted`, whether the request was made here or to another process."""
        reason = self.reason or "another process"
        raise Interrupted(f"stopped by {reason} {where}; continue with: {self.continue_with}")


NEVER = StopRequest()  # for calls that nobody stops
