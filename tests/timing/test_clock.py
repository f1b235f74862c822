import math
import os
import time

import pytest
import torch

from timing.clock import CPU_PRODUCT, Clock, in_own_process

CPU = torch.device("cpu")
LATER = math.inf


def test_calls_are_made_in_turn_and_the_first_round_does_not_count():
    made = []

    def call(name: str, seconds: float) -> None:
        first = name not in made
        made.append(name)
        time.sleep(1 if first else seconds)

    calls = {"a": lambda: call("a", 0.01), "b": lambda: call("b", 0.03)}
    results = Clock(CPU, 3, LATER).in_turn(calls, "test")
    assert made == ["a", "b"] * 4
    assert 0.01 <= results["a"]["fastest"] <= results["a"]["seconds"] < 0.5
    assert results["b"]["seconds"] >= 0.03
    assert results["a"]["rounds"] == 3


def test_the_median_and_half_the_interquartile_range(monkeypatch):
    durations = iter([9.0, 1.0, 2.0, 4.0, 3.0, 5.0])
    monkeypatch.setattr(Clock, "once", lambda self, call: next(durations))
    result = Clock(CPU, 5, LATER).in_turn({"a": int}, "test")["a"]
    assert result == {"seconds": 3.0, "spread": 1.0, "fastest": 1.0, "rounds": 5}


def test_a_call_that_fails_is_named_and_the_others_go_on(capsys):
    def fail() -> None:
        raise RuntimeError("no memory\nand more")

    results = Clock(CPU, 2, LATER).in_turn({"a": fail, "b": int}, "speed")
    assert results["a"] == {"failure": "no memory"}
    assert results["b"]["rounds"] == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "speed: warmed up, about 0.0 minutes left"
    assert lines[2] == "speed: round 2 of 2, about 0.0 minutes left"


def test_after_the_deadline_one_round_counts():
    result = Clock(CPU, 5, time.monotonic() - 1).in_turn({"a": int}, "test")["a"]
    assert result["rounds"] == 1
    assert math.isnan(result["spread"])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_matrix_product_has_its_multiply_accumulates(precision, monkeypatch):
    products = []
    monkeypatch.setattr(torch, "mm", lambda a, b: products.append((a, b)))
    multiply, macs = Clock(CPU, 1, LATER).product(precision)
    multiply()
    ((a, b),) = products
    assert a.shape == b.shape == (CPU_PRODUCT, CPU_PRODUCT)
    assert a.dtype == getattr(torch, precision)
    assert macs == CPU_PRODUCT**3


def test_a_process_of_its_own_returns_or_fails():
    assert in_own_process(dict, [("a", 1)]) == {"a": 1}
    assert "terminated" in in_own_process(os._exit, 1)["failure"]  # as if it was killed
    assert "dictionary update" in in_own_process(dict, ["abc"])["failure"]
