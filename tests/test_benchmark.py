import os
import subprocess
import sys

import pytest
from helpers import ROOT

from benchmark import benchmark
from model import MODELS
from timing.benchmark_report import FILES
from timing.speed import CONTROL
from util.command_line import as_flags
from util.errors import InputError
from util.files import read_csv
from util.settings import settings_of

QUICK = {
    "models": ("unet_resnet",),
    "init_features": (2,),
    "precision": ("float32",),
    "batch_size": 1,
    "frames": 8,
    "size": 32,
    "n_samples": 4,
    "repeats": 1,
    "device": "cpu",
}


def test_command(tmp_path):
    folder = tmp_path / "out"
    command = [sys.executable, "-W", "error", str(ROOT / "benchmark.py"), str(folder)]
    done = subprocess.run(
        [*command, *as_flags(QUICK)], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "agg"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    rows = read_csv(folder / "benchmark.csv")
    speed = [row for row in rows if row["group"] == "speed"]
    assert {row["model"] for row in speed} == {CONTROL, *QUICK["models"]}
    assert not any(row.get("failure") for row in rows)
    assert all(float(row["peak_memory"]) > 1e7 for row in speed)
    growth = [row for row in rows if row["group"] == "growth"]
    assert {row["axis"] for row in growth} == {"batch_size", "frames", "size", "width", "samples"}
    text = (folder / "benchmark.md").read_text()
    assert "cpu (" in text.splitlines()[2]
    assert "--init-features 2" in text
    assert "minutes left" in done.stdout
    with pytest.raises(InputError, match="nothing is overwritten"):
        benchmark(folder, **QUICK)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ("unet", "vnet")}, "--models is 'vnet', expected some of unet, unet_resnet"),
        ({"precision": ("float16",)}, "--precision is 'float16', expected some of float32"),
        ({"init_features": ()}, "--init-features is empty"),
        ({"init_features": (16, 0)}, r"--init-features is \(16, 0\), expected at least 1"),
        ({"repeats": 0}, "--repeats is 0, expected at least 1"),
        ({"repeats": 1.5}, "--repeats is 1.5, expected int"),
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


def test_every_comment_of_a_setting_is_one_short_line():
    for setting in settings_of(benchmark):
        assert 0 < len(setting.help) <= 70, setting.name


def test_all_networks_are_measured_unless_some_are_named(monkeypatch, tmp_path):
    seen = []
    for name, parts in (("speed_rows", 1), ("growth_rows", 0), ("pipeline_rows", 0)):
        monkeypatch.setattr(
            f"benchmark.{name}", lambda first, *_, n=parts: seen.extend([first] * n) or []
        )
    benchmark(tmp_path / "out", init_features=(4, 8), device="cpu")
    assert [[setup.model for setup in setups] for setups in seen] == [[CONTROL, *MODELS]] * 2
    widths = [{setup.model: setup.width for setup in setups} for setups in seen]
    assert [w["unet"] for w in widths] == [w[CONTROL] for w in widths] == [4, 8]
    assert [w["cascade"] for w in widths] == [16, 16]
