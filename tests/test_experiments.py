import json
import re

import pytest
from helpers import SMALL, FakeProcess, save_result
from helpers import experiments_table as table

import experiments as script
from ablation import jobs, runs
from experiments import experiments
from training.run_folder import read_config, write_config
from util.errors import InputError


@pytest.fixture
def fake_run(monkeypatch):
    """Runs that take no time; returns what was run, (row, seed) in order."""
    done = []

    def start_process(row, seed, folder, defaults, log, environment):
        done.append((row.name, seed))
        save_result(folder, [30.0 + seed, 31.0], settings=row.settings | {"seed": seed})
        return FakeProcess(0)

    monkeypatch.setattr(jobs, "start_process", start_process)
    return done


def test_equal_rows_share_their_runs_and_earlier_groups_stay_in_the_tables(tmp_path, fake_run):
    experiments(tmp_path / "out", only=("batch_norm",), seeds=1, **SMALL)
    experiments(tmp_path / "out", only=("refiner", "branches"), seeds=1, **SMALL)
    names = [name for name, _ in fake_run]
    assert names == [
        "with batch norm", "without", "unet_resnet", "unet, wider",
        "one, for each part in turn", "one, parts stacked",
    ]  # fmt: skip
    assert {row["group"] for row in table(tmp_path / "out")} == {
        "batch_norm", "refiner", "branches"
    }  # fmt: skip


def test_finished_runs_are_kept_and_more_seeds_are_added(tmp_path, fake_run, capsys):
    experiments(tmp_path / "out", only=("batch_norm",), seeds=1, **SMALL)
    last = next((tmp_path / "out").glob("runs/*/seed0")) / "checkpoint_last.pt"
    last.touch()  # left by a run whose parent was killed
    before = table(tmp_path / "out")
    experiments(tmp_path / "out", only=("batch_norm",), seeds=1, **SMALL)
    assert not last.exists()
    assert table(tmp_path / "out") == before
    assert "2 runs, 2 of them finished before" in capsys.readouterr().out
    experiments(tmp_path / "out", only=("batch_norm",), seeds=3, **SMALL)
    assert fake_run == [(name, n) for n in range(3) for name in ("with batch norm", "without")]
    assert {row["n_seeds"] for row in table(tmp_path / "out")} == {"3"}
    assert (tmp_path / "out" / "experiments.png").exists()


def test_a_setting_that_is_newer_than_a_run_has_its_default_there(tmp_path, fake_run):
    experiments(tmp_path / "out", only=("batch_norm",), seeds=1, **SMALL)
    for path in tmp_path.rglob("config.json"):
        config = json.loads(path.read_text())
        del config["settings"]["coils"]
        path.write_text(json.dumps(config))
    experiments(tmp_path / "out", only=("batch_norm",), seeds=1, **SMALL)
    assert len(fake_run) == 2
    with pytest.raises(InputError, match=r"--coils 4 \(the run has None\)"):
        experiments(tmp_path / "out", only=("batch_norm",), seeds=1, **SMALL, coils=4)


def test_3d_comes_with_the_memory_of_every_model(tmp_path, fake_run):
    experiments(tmp_path / "out", only=("cnn3d",), seeds=2, **SMALL)
    assert len(fake_run) == 2 * 2 + 16
    assert {seed for name, seed in fake_run if "batch" in name} == {0}
    text = (tmp_path / "out" / "experiments.md").read_text()
    assert "| cnn3d, batch 10, checkpointing | 2.00 |" in text


def test_runs_of_other_settings_are_refused(tmp_path, fake_run):
    experiments(tmp_path / "out", only=("batch_norm",), seeds=1, **SMALL)
    for changed, message in (
        ({"num_epochs": 5}, r"--num-epochs 5 \(the run has 4\)"),
        ({"n_samples": 8}, r"--n-samples 8 \(the run has None\)"),
    ):
        with pytest.raises(InputError, match=message):
            experiments(tmp_path / "out", only=("batch_norm",), seeds=3, **SMALL | changed)


def test_runs_on_other_data_are_refused(tmp_path, fake_run):
    experiments(tmp_path / "out", only=("batch_norm",), seeds=1, **SMALL)
    folder = next((tmp_path / "out").glob("runs/batch_norm*/seed0"))
    config = read_config(folder)
    config["data"]["hash"] = "changed"
    write_config(folder, config)
    with pytest.raises(InputError, match=r"seed0 and .*seed0 have different data or splits"):
        experiments(tmp_path / "out", only=("refiner",), seeds=1, **SMALL)
    assert len(fake_run) == 2


def test_a_failing_row_does_not_stop_the_others_but_a_failing_first_run_does(
    tmp_path, fake_run, monkeypatch
):
    works = jobs.start_process

    def fails(failing):
        def start_process(row, seed, folder, defaults, log, environment):
            if row.name not in failing:
                return works(row, seed, folder, defaults, log, environment)
            log.write(b"train.py: error: out of memory\n")
            return FakeProcess(2)

        monkeypatch.setattr(jobs, "start_process", start_process)

    fails({"3-D U-Net"})
    experiments(tmp_path / "out", only=("cnn3d",), seeds=2, **SMALL)
    assert "| 3-D U-Net | out of memory |" in (tmp_path / "out" / "experiments.md").read_text()
    fails(())
    experiments(tmp_path / "out", only=("cnn3d",), seeds=1, **SMALL)
    text = (tmp_path / "out" / "experiments.md").read_text()
    assert "| 1 (out of memory) |" in text  # the other seed
    fails({"with batch norm"})
    with pytest.raises(InputError, match="out of memory"):
        experiments(tmp_path / "other", only=("batch_norm",), seeds=1, **SMALL)
    assert not (tmp_path / "other" / "experiments.md").exists()


def test_a_model_that_cannot_fit_is_counted_and_not_run(tmp_path, fake_run, monkeypatch):
    monkeypatch.setattr(runs, "available_memory", lambda: 1_000_000)
    experiments(tmp_path / "out", only=("cnn3d",), seeds=1, **SMALL)
    text = (tmp_path / "out" / "experiments.md").read_text()
    assert re.search(r"\| cnn3d, batch 10 \| not run: 0\.\d+ GB of activations counted", text)
    assert ("cnn3d, batch 10", 0) not in fake_run
    assert ("unet, batch 1", 0) in fake_run


def test_rows_are_computed_in_the_fastest_precision(tmp_path, fake_run, monkeypatch):
    monkeypatch.setattr(script, "fast_precision", lambda device: "bfloat16")
    experiments(tmp_path / "out", only=("batch_norm",), seeds=1, **SMALL)
    assert "--precision bfloat16" in (tmp_path / "out" / "experiments.md").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"only": ("bases",)}, "--only is 'bases', expected one of base, refiner"),
        ({"seeds": 0}, "--seeds is 0"),
        ({"jobs": 0}, "--jobs is 0, expected a whole number of at least 1"),
        ({"initial_weights": "phantom"}, "--initial-weights cannot be given"),
        ({"num_epochs": 0}, "--num-epochs is 0"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"colour": "red"}, "--colour is not a setting"),
    ],
)
def test_wrong_settings(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        experiments(tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_refused(tmp_path, fake_run):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(InputError, match=r"holds 1 other files \(thesis.txt"):
        experiments(tmp_path, only=("base",))
    assert fake_run == []


def test_settings_that_rows_set_are_said(tmp_path, fake_run, capsys):
    experiments(
        tmp_path / "out", only=("base", "acceleration"), seeds=1, **SMALL | {"dropout": 0.1}
    )
    text = capsys.readouterr().out
    assert "NOTICE: --dropout does not apply to the group base" in text
    assert "NOTICE: --acc does not apply to the group acceleration" in text
    assert "--batch-size" not in text
