import os
import subprocess
import sys

import pytest
from helpers import ROOT

from benchmark import benchmark
from model import MODELS
from timing.benchmark_report import FILES
from timing.speed import CONTROL, FACTORS
from util.command_line import as_flags
from util.errors import InputError
from util.files import read_csv

QUICK = {"models": ("unet_resnet",), "init_features": 2, "precision": ("float32",)}
QUICK |= {"batch_size": 1, "frames": 4, "size": 32, "seconds": 0.01, "device": "cpu"}


def test_command(tmp_path):
    folder = tmp_path / "out"
    command = [sys.executable, "-W", "error", str(ROOT / "benchmark.py"), str(folder)]
    done = subprocess.run(
        [*command, *as_flags(QUICK)], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    rows = read_csv(folder / "benchmark.csv")
    assert {row["model"] for row in rows} == {CONTROL, *QUICK["models"]}
    assert {row["varies"] for row in rows} == {"", *FACTORS}
    assert all(float(row["peak_memory"]) > 1e7 for row in rows)
    text = (folder / "benchmark.md").read_text()
    assert "cpu (" in text.splitlines()[2]
    assert "--init-features 2" in text
    with pytest.raises(InputError, match="nothing is overwritten"):
        benchmark(folder, **QUICK)


def test_all_networks_are_measured_and_equal_ones_once(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("benchmark.measure", lambda setup, *_: seen.append(setup) or [])
    monkeypatch.setattr("benchmark.write_report", lambda *_: None)
    benchmark(tmp_path / "out", precision=("float32", "bfloat16"), device="cpu")
    assert [setup.model for setup in seen[:3]] == [CONTROL, "unet", "unet"]
    assert {setup.model for setup in seen} == {CONTROL, *MODELS}
    n = 1 + 2 * len(MODELS)
    assert len(seen) == len(set(seen)) == n + 2 * 6  # growth: batch size 2 is known
    values = {name: [getattr(s, name) for s in seen[n : n + 6]] for name in FACTORS}
    assert values == {
        "batch_size": [1, 4, 1, 1, 1, 1],
        "frames": [20, 20, 5, 10, 20, 20],
        "size": [192, 192, 192, 192, 48, 96],
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ("unet", "vnet")}, "--models is 'vnet', expected one of unet, unet_resnet"),
        ({"precision": ("float16",)}, "--precision is 'float16', expected one of float32"),
        ({"init_features": 0}, "--init-features is 0, expected at least 1"),
        ({"frames": 1.5}, "--frames is 1.5, expected int"),
        ({"size": 100}, "--size is 100, expected a multiple of 16"),
        ({"size": 16}, "--size is 16"),
        ({"max_minutes": 0}, "--max-minutes is 0, expected more than 0"),
        ({"device": "tpu"}, "--device tpu cannot be used here"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        benchmark(tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()
