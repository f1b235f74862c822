import math
import re
from types import SimpleNamespace

import pytest
from helpers import FakeProcess, save_result

from ablation import jobs
from ablation.groups import Experiment
from ablation.jobs import Jobs
from util.errors import InputError, Interrupted
from util.stop import NEVER, StopRequest

ANY_SIZE = {"gradient_checkpointing": True}  # of which no memory is counted


@pytest.fixture
def rows(tmp_path) -> list[Experiment]:
    return [Experiment("refiner", name, ANY_SIZE, tmp_path / name) for name in "abcd"]


@pytest.fixture
def begin(monkeypatch):
    """A function that makes runs take no time: with `b=2` the process of row b is alive for two
    looks, with `failing="b"` it fails. It returns the list of what is run, (row, environment)."""
    done: list[tuple[str, dict]] = []

    def prepare(failing="", **looks):
        def start_process(row, seed, folder, defaults, log, environment):
            done.append((row.name, environment))
            if row.name in failing:
                log.write(f"train.py: error: {row.name} fails\n".encode())
                return FakeProcess(2, looks.get(row.name, 0))
            save_result(folder, [30.0], settings=row.settings | {"seed": seed})
            return FakeProcess(0, looks.get(row.name, 0))

        monkeypatch.setattr(jobs, "start_process", start_process)
        monkeypatch.setattr(jobs, "POLL_SECONDS", 0)
        return done

    return prepare


def session(rows, environments=({},), stop=NEVER) -> Jobs:
    return Jobs([(row, 0) for row in rows], {}, environments, stop)


def names(done) -> str:
    return "".join(name for name, _ in done)


def test_an_environment_is_given_to_one_run_at_a_time(rows, begin):
    done = begin(a=3, b=1, c=9)
    left, right = {"GPU": "0"}, {"GPU": "1"}
    session(rows, [left, right]).run()
    assert done == [("a", left), ("b", right), ("c", right), ("d", left)]


def test_a_failure_is_recorded_until_a_later_call_has_a_result(rows, begin):
    done = begin(failing="b")
    session(rows).run()
    record = rows[1].folder / "seed0.failure"
    assert record.read_text() == "b fails"
    begin()
    session(rows).run()
    assert names(done) == "abcdb"
    assert not record.exists()
    assert set(rows[1].results) == {0}


def test_a_first_failure_is_judged_when_the_runs_beside_it_have_ended(rows, begin):
    done = begin(failing="a", b=3)
    session(rows, [{}, {}]).run()
    assert names(done) == "abcd"

    rows = [Experiment("refiner", row.name, ANY_SIZE, row.folder / "again") for row in rows]
    done.clear()
    begin(failing="ab", b=3)
    with pytest.raises(InputError, match=r"^a fails$"):
        session(rows, [{}, {}]).run()
    assert names(done) == "ab"


def test_a_stop_reaches_every_run(rows, begin, monkeypatch):
    begin(a=math.inf, b=math.inf)
    places = [str(row.folder / "seed0") for row in rows[:2]]
    stop = StopRequest(max_steps=0)
    with pytest.raises(Interrupted, match=re.escape(f"max_steps in {', '.join(places)}; ")):
        session(rows, [{}, {}], stop).run()
    by_signal = {"c": FakeProcess(75, 2), "d": FakeProcess(0, math.inf)}
    monkeypatch.setattr(jobs, "start_process", lambda row, *others: by_signal[row.name])
    with pytest.raises(Interrupted, match=r"c/seed0 was stopped by a signal; continue"):
        session(rows[2:], [{}, {}]).run()
    assert by_signal["d"].returncode == 75


def test_the_time_left_counts_runs_at_once(rows, begin, monkeypatch, capsys):
    waits = []
    clock = SimpleNamespace(sleep=waits.append, perf_counter=lambda: 600.0 * len(waits))
    monkeypatch.setattr(jobs, "time", clock)
    begin(a=1, b=1, c=1, d=1)
    session(rows, [{}, {}]).run()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "[1/4] refiner: a, seed 0: 30.00 dB; 10.0 minutes, about 30 left"
    assert [line.partition("dB; ")[2] for line in lines[2:]] == [
        "10.0 minutes, about 10 left",
        "20.0 minutes, about 7 left",
        "20.0 minutes, about 0 left",
    ]
