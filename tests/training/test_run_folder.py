import json

import pytest
from helpers import ROWS

from evaluation.summary import mean_scores
from metrics import SCORES
from train import train
from training import run_folder
from training.run_folder import (
    CONFIG,
    HISTORY,
    device_asked_for,
    highest_peak,
    read_config,
    read_history,
    read_metrics,
    stored_settings,
    write_metrics,
)
from util.errors import InputError
from util.files import write_csv
from util.settings import defaults_of
from util.world import World

DEFAULTS = defaults_of(train)


def test_metrics_round_trip_and_means(tmp_path):
    write_metrics(tmp_path, ROWS)
    assert (tmp_path / "metrics.csv").read_text().splitlines()[:2] == [
        "sample,acc,method,loss,psnr,ssim,ssim_2d,nmse,moving_psnr",
        "0,6,a,1,1,1,1,1,1",
    ]
    means = mean_scores(read_metrics(tmp_path))
    assert means == mean_scores(ROWS)
    assert means["a"] == means["b"] == dict.fromkeys(SCORES, 2.0)


def test_history_round_trip(tmp_path):
    assert read_history(tmp_path) == []
    history = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "validation/psnr": 30.0}]
    write_csv(tmp_path / HISTORY, history)
    assert read_history(tmp_path) == history
    assert highest_peak(history) == 0
    (tmp_path / HISTORY).write_text("epoch,loss\n1,x\n")
    with pytest.raises(InputError, match=r"history\.csv is damaged"):
        read_history(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"settings": 3}', '{"settings": {}}'])
def test_a_damaged_config_is_an_input_error(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        read_config(tmp_path)


def test_resume_takes_the_stored_settings_and_refuses_others(tmp_path):
    stored = {"split": [4, 1, 2], "seed": 3, "max_minutes": 5.0, "resume": False}
    (tmp_path / CONFIG).write_text(json.dumps({"settings": stored}))
    settings = stored_settings(tmp_path, {"resume": True, "seed": 3, "max_minutes": 1.0}, DEFAULTS)
    assert settings == {"split": (4, 1, 2), "seed": 3, "max_minutes": 1.0, "resume": True}
    with pytest.raises(InputError, match=r"--seed 4 \(the run has 3\)"):
        stored_settings(tmp_path, {"seed": 4}, DEFAULTS)


def test_a_run_is_continued_on_its_device(tmp_path):
    assert device_asked_for(tmp_path, None) is None
    (tmp_path / CONFIG).write_text(json.dumps({"settings": {"device": "cpu", "split": [1, 1, 1]}}))
    assert device_asked_for(tmp_path, None) == "cpu"
    assert device_asked_for(tmp_path, "cuda") == "cuda"


def test_only_the_launch_that_began_a_run_continues_it_by_itself(tmp_path, monkeypatch):
    world = World(restarted=True)
    run_folder.write_config(tmp_path / "run", {"settings": {"split": (4, 1, 2)}, "launch": "a"})
    for name in ("b", "none"):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", name)
        with (
            pytest.raises(InputError, match="holds an unfinished run"),
            run_folder.claimed(str(tmp_path / "run"), False, world),
        ):
            pass
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    with run_folder.claimed(str(tmp_path / "run"), False, world) as (folder, resume):
        assert (folder, resume) == (tmp_path / "run", True)
    with run_folder.claimed(str(tmp_path / "new"), False, world) as (_, resume):
        assert not resume
