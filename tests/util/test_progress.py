import io
import sys

import pytest

from util import progress as module
from util.progress import duration, log, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def often(monkeypatch):
    """Lines as often as the number of lines allows."""
    monkeypatch.setattr(module, "SECONDS", 0)


@pytest.mark.parametrize(("size", "n_lines"), [(1, 10), (6, 10), (20, 3)])
def test_without_a_terminal_a_log_has_some_lines(capsys, often, monkeypatch, size, n_lines):
    monkeypatch.setattr(module.time, "perf_counter", lambda: 0.0)
    batches = [range(i, min(i + size, 57)) for i in range(0, 57, size)]
    assert list(progress(batches, "test", 57, len)) == batches
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "test: 57 samples"
    assert 1 + len(lines) == n_lines
    done = [int(line.split()[1]) for line in lines]
    assert done == sorted(set(done))
    assert all(line.endswith(" of 57 samples, 0.0 s left") for line in lines)


def test_lines_are_not_closer_than_some_seconds(capsys):
    list(progress(range(57), "test", 57, lambda item: 1))
    assert capsys.readouterr().out == "test: 57 samples\n"


def test_the_time_left_is_that_of_the_last_items(capsys, often, monkeypatch):
    """Of a test that goes on, the first items take no time."""
    times = iter([0.0, 0.0, 0.0, 20.0, 40.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(times))
    list(progress(range(4), "test", 4, lambda item: 1))
    assert capsys.readouterr().out.splitlines()[-1] == "test: 3 of 4 samples, 20 s left"


def test_on_a_terminal_there_are_bars_and_no_lines(capsys, often, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    list(progress(range(57), "test", 57, lambda item: 1))
    log("a line")
    assert capsys.readouterr().out == ""
    assert "57/57" in sys.stderr.getvalue()


def test_a_program_without_a_console_has_no_lines_to_write(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    log("a line")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (12, "12 s"), (204, "3.4 min"), (3 * 3600, "3.0 h")]
)
def test_durations_have_a_unit(seconds, text):
    assert duration(seconds) == text
