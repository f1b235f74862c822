import math
import re
from types import SimpleNamespace

import pytest
from helpers import FakeProcess, save_result

from ablation import jobs
from ablation.groups import Row
from ablation.jobs import Jobs, failure_time, hold, is_held
from training.run_folder import require_empty
from util.errors import InputError, Interrupted
from util.files import claimed_folder
from util.stop import NEVER, StopRequest

ANY_SIZE = {"gradient_checkpointing": True}  # of which no memory is counted


@pytest.fixture
def rows(tmp_path) -> list[Row]:
    return [Row("refiner", name, ANY_SIZE, tmp_path / name) for name in "abcd"]


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
    assert session(rows, [left, right]).run() == 0
    assert done == [("a", left), ("b", right), ("c", right), ("d", left)]


def test_a_held_run_is_skipped_and_counted(rows, begin):
    done = begin()
    with hold(rows[1].folder / "seed0"):
        assert is_held(rows[1].folder / "seed0")
        assert session(rows).run() == 1
        assert names(done) == "acd"
    assert session(rows).run() == 0
    assert names(done) == "acdb"


def test_a_run_that_train_py_was_started_on_by_hand_is_held(rows, begin):
    done = begin()
    with claimed_folder(str(rows[0].folder / "seed0"), require_empty):
        assert session(rows).run() == 1
    assert names(done) == "bcd"


def test_a_run_that_was_started_by_hand_at_the_same_moment_is_no_failure(rows, begin, monkeypatch):
    begin(failing="b")
    by_hand = claimed_folder(str(rows[1].folder / "seed0"), require_empty)
    fails = jobs.start_process

    def start_process(row, *others):
        if row.name == "b":
            by_hand.__enter__()
        return fails(row, *others)

    monkeypatch.setattr(jobs, "start_process", start_process)
    assert session(rows).run() == 1
    by_hand.__exit__(None, None, None)
    assert failure_time(rows[1].folder / "seed0") == 0


def test_a_run_that_another_process_gives_up_is_taken_while_one_runs(rows, begin, monkeypatch):
    done = begin()
    waits = []
    held = hold(rows[0].folder / "seed0")

    def sleep(seconds):
        waits.append(seconds)
        held.close()  # as if its process were killed

    clock = SimpleNamespace(sleep=sleep, monotonic=lambda: 99.0 * len(waits), perf_counter=float)
    monkeypatch.setattr(jobs, "time", clock)
    begin(b=4)
    assert session(rows[:2], [{}, {}]).run() == 0
    assert names(done) == "ba"
    assert len(waits) < 4


def test_what_another_process_has_run_meanwhile_is_not_run_again(rows, begin):
    done = begin()
    mine = session(rows)
    begin(failing="b")
    assert session(rows[:2]).run() == 0
    assert names(done) == "ab"
    begin()
    assert mine.run() == 0
    assert names(done) == "abcd"
    assert set(rows[0].results) == {0}
    assert session(rows).run() == 0  # what failed before is tried again
    assert names(done) == "abcdb"
    assert failure_time(rows[1].folder / "seed0") == 0


def test_a_first_failure_is_judged_when_the_runs_beside_it_have_ended(rows, begin):
    done = begin(failing="a", b=3)
    session(rows, [{}, {}]).run()
    assert names(done) == "abcd"

    rows = [Row("refiner", row.name, ANY_SIZE, row.folder / "again") for row in rows]
    done.clear()
    begin(failing="ab", b=3)
    with pytest.raises(InputError, match=r"^a fails$"):
        session(rows, [{}, {}]).run()
    assert names(done) == "ab"


def test_a_first_failure_does_not_count_while_another_process_runs(rows, begin):
    done = begin(failing="b")
    with hold(rows[0].folder / "seed0"):
        assert session(rows).run() == 1
    assert names(done) == "bcd"


def test_a_stop_request_reaches_every_run(rows, begin):
    begin(a=math.inf, b=math.inf)
    places = [str(row.folder / "seed0") for row in rows[:2]]
    with (
        StopRequest(1e-9) as stop,
        pytest.raises(Interrupted, match=re.escape(f"max_minutes in {', '.join(places)}; ")),
    ):
        session(rows, [{}, {}], stop).run()
    assert not any(is_held(row.folder / "seed0") for row in rows)


def test_a_run_that_was_stopped_by_a_signal_stops_the_others(rows, begin, monkeypatch):
    processes = {"a": FakeProcess(75, 2), "b": FakeProcess(0, math.inf)}
    monkeypatch.setattr(jobs, "start_process", lambda row, *others: processes[row.name])
    with pytest.raises(Interrupted, match=r"a/seed0 was stopped by a signal; continue"):
        session(rows, [{}, {}]).run()
    assert processes["b"].returncode == 75
    assert not any(is_held(row.folder / "seed0") for row in rows)


def test_the_time_left_counts_runs_at_once(rows, begin, monkeypatch, capsys):
    waits = []
    clock = SimpleNamespace(
        sleep=waits.append, monotonic=float, perf_counter=lambda: 600.0 * len(waits)
    )
    monkeypatch.setattr(jobs, "time", clock)
    begin(a=1, b=1, c=1, d=1)
    session(rows, [{}, {}]).run()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "[1/4] refiner: a, seed 0: 30.00 dB; 10.0 minutes, about 20 left"
    assert [line.partition("dB; ")[2] for line in lines[2:]] == [
        "10.0 minutes, about 10 left",
        "20.0 minutes, about 10 left",
        "20.0 minutes, about 0 left",
    ]
