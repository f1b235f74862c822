import json
import re

import pytest
from helpers import SMALL, FakeProcess, save_result
from helpers import experiments_table as table

import experiments as script
from ablation import jobs, runs
from experiments import experiments
from model import MODELS
from train import train
from training.run_folder import read_config, write_config
from util.command_line import parse_command_line
from util.errors import InputError
from util.files import write_csv


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
    before = table(tmp_path / "out")
    experiments(tmp_path / "out", only=("batch_norm",), seeds=1, **SMALL)
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
    assert len(fake_run) == 2 * 2 + 4 * len(MODELS)
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


@pytest.fixture
def fails(fake_run, monkeypatch):
    """A function that names the rows which fail from now on."""
    works, failing = jobs.start_process, set()

    def start_process(row, seed, folder, defaults, log, environment):
        if row.name not in failing:
            return works(row, seed, folder, defaults, log, environment)
        log.write(b"train.py: error: out of memory\n")
        return FakeProcess(2)

    def name_them(*rows):
        failing.clear()
        failing.update(rows)

    monkeypatch.setattr(jobs, "start_process", start_process)
    return name_them


def test_a_failing_row_does_not_stop_the_others_but_a_failing_first_run_does(tmp_path, fails):
    fails("3-D U-Net")
    experiments(tmp_path / "out", only=("cnn3d",), seeds=2, **SMALL)
    assert "| 3-D U-Net | out of memory |" in (tmp_path / "out" / "experiments.md").read_text()
    fails()
    experiments(tmp_path / "out", only=("cnn3d",), seeds=1, **SMALL)
    text = (tmp_path / "out" / "experiments.md").read_text()
    assert "| 1 (out of memory) |" in text  # the other seed
    fails("with batch norm")
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


def test_a_sweep_has_the_same_report_and_later_calls_add_to_it(tmp_path, fake_run, capsys):
    folder, varied = tmp_path / "out", (("dropout", "0", "0.3"), ("loss", "mse", "mse 1 ssim 0.1"))
    experiments(folder, vary=varied, seeds=2, **SMALL)
    labels = [
        f"dropout {dropout}, loss {loss}"
        for dropout in ("0", "0.3")
        for loss in ("mse", "mse 1 ssim 0.1")
    ]
    assert fake_run == [(label, seed) for seed in (0, 1) for label in labels]
    text = (folder / "experiments.md").read_text()
    assert f"## Sweep, against {labels[0]} (`sweep`)" in text
    lines = {line.split(" | ")[0][2:]: line.split(" | ") for line in text.splitlines()}
    assert lines[labels[0]][2] == ""  # the control
    assert lines[labels[3]][2] == "+0.00"
    values = [row for row in table(folder) if row["score"] == "psnr"]
    assert [row["row"] for row in values] == labels
    assert {row["n_seeds"] for row in values} == {"2"}
    assert (folder / "experiments.png").exists()

    experiments(folder, vary=varied, seeds=2, **SMALL)  # continues
    assert "8 runs, 8 of them finished before" in capsys.readouterr().out
    more = (("dropout", "0", "0.5"), ("loss", "mse"))
    experiments(folder, vary=more, seeds=2, **SMALL)
    assert fake_run[8:] == [("dropout 0.5, loss mse", 0), ("dropout 0.5, loss mse", 1)]
    experiments(folder, only=("batch_norm",), seeds=1, **SMALL)
    assert {row["row"] for row in table(folder) if row["group"] == "sweep"} == {
        *labels, "dropout 0.5, loss mse"
    }  # fmt: skip
    with pytest.raises(InputError, match="put the same row first, or name another folder"):
        experiments(folder, vary={"loss": ("l1", "mse")}, seeds=2, **SMALL)
    with pytest.raises(InputError, match=r"--num-epochs 5 \(the run has 4\)"):
        experiments(folder, vary=more, seeds=2, **SMALL | {"num_epochs": 5})


def test_rows_of_a_file_are_a_sweep(tmp_path, fake_run, capsys):
    (tmp_path / "mine.txt").write_text("plain:\nwider: --init-features 4 --stages 3\n")
    experiments(tmp_path / "out", rows=str(tmp_path / "mine.txt"), seeds=1, **SMALL)
    assert [name for name, _ in fake_run] == ["plain", "wider"]
    (row,) = [r for r in table(tmp_path / "out") if (r["row"], r["score"]) == ("wider", "ssim")]
    assert row["group"] == "sweep"
    notice = "NOTICE: --stages does not apply to the model unet_resnet (row wider)"
    assert notice in capsys.readouterr().out
    again = tmp_path / "out" / "rows.txt"
    experiments(tmp_path / "copy", rows=again, seeds=1, **SMALL)
    assert [name for name, _ in fake_run[2:]] == ["plain", "wider"]


def test_a_row_of_a_sweep_that_fails_leaves_the_others_though_it_be_the_first(
    tmp_path, fake_run, fails
):
    fails("init_features 99")
    varied = {"init_features": (99, 2, 4)}
    experiments(tmp_path / "out", vary=varied, seeds=1, **SMALL)
    assert [name for name, _ in fake_run] == ["init_features 2", "init_features 4"]
    text = (tmp_path / "out" / "experiments.md").read_text()
    assert "| init_features 99 | out of memory |" in text
    latex = (tmp_path / "out" / "experiments.tex").read_text()
    assert latex.count(r"\begin{table}") == 1
    assert r"init\_features 99 & out of memory & &" in " ".join(latex.split())
    fails(*(f"init_features {n}" for n in (99, 2, 4)))
    with pytest.raises(InputError, match="out of memory"):
        experiments(tmp_path / "other", vary=varied, seeds=1, **SMALL)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"vary": {"stage": (1, 2)}},
            "--vary stage: there is no such setting; did you mean stages",
        ),
        ({"vary": {"loss": ("mse", "sim")}}, "row 'loss sim': --loss is 'sim', expected one of"),
        ({"vary": {"loss": ("mse", "hfem")}}, "; did you mean hfen?"),
        ({"vary": {"dropout": (0, 2)}}, "row 'dropout 2': --dropout is 2, expected less than 1"),
        ({"vary": {"num_epochs": (1, 0)}}, "row 'num_epochs 0': --num-epochs is 0, but rows"),
        ({"vary": {"stages": (1, 2)}, "only": ("base",)}, "--only and --vary cannot be combined"),
        ({"rows": "a.txt", "vary": {"stages": (1, 2)}}, "--vary and --rows cannot be combined"),
        ({"rows": "none.txt"}, "--rows none.txt cannot be read"),
        ({"one_at_a_time": True}, "--one-at-a-time is for --vary"),
    ],
)
def test_wrong_sweeps_are_refused_before_anything_runs(tmp_path, fake_run, given, message):
    with pytest.raises(InputError) as error:
        experiments(tmp_path / "out", **given, **SMALL)
    assert message in str(error.value)
    assert fake_run == []
    assert not (tmp_path / "out").exists()


def test_settings_that_a_sweep_sets_are_said(tmp_path, fake_run, capsys):
    experiments(tmp_path / "out", vary={"dropout": (0, 0.1)}, seeds=1, **SMALL, dropout=0.5)
    assert "NOTICE: --dropout does not apply to the group sweep" in capsys.readouterr().out


def test_vary_on_the_command_line():
    words = ["out", "--vary", "stages", "3", "5", "--vary", "loss", "mse", "mse 1 ssim 0.1"]
    given = parse_command_line(experiments, [*words, "--one-at-a-time", "--lesions"], more=train)
    assert given == {
        "output_folder": "out",
        "vary": (("stages", "3", "5"), ("loss", "mse", "mse 1 ssim 0.1")),
        "one_at_a_time": True,
        "lesions": True,
    }


def test_lesions_have_a_column_where_they_were_tested(tmp_path, fake_run, monkeypatch):
    plain = jobs.start_process

    def start_process(row, seed, folder, *others):
        process = plain(row, seed, folder, *others)
        lesion = {"sample": 2, "pattern": "gaussian", "acc": 6, "ghost": 0.0, "frame": 0}
        kept = [("unet", 3, 0.5), ("unet", 5, 0.75), ("zero_filled", 3, 0.1)]
        rows = [
            dict(zip(("method", "diameter", "kept"), one, strict=True)) | lesion for one in kept
        ]
        write_csv(folder / "lesions.csv", rows)
        return process

    experiments(tmp_path / "out", only=("batch_norm",), seeds=1, **SMALL)
    assert "| lesions |" not in (tmp_path / "out" / "experiments.md").read_text()
    monkeypatch.setattr(jobs, "start_process", start_process)
    experiments(tmp_path / "out", only=("loss",), seeds=1, **SMALL)
    assert len(fake_run) == 2 + 8
    text = (tmp_path / "out" / "experiments.md").read_text()
    lines = [line.split(" | ") for line in text.splitlines()]
    heads = next(line for line in lines if "lesions" in line)
    (row,) = [line for line in lines if "mse and hfen" in line[0] and len(line) == len(heads)]
    assert row[heads.index("lesions")] == "0.625"


def test_settings_of_a_sweep_need_not_go_with_the_groups(tmp_path, fake_run):
    """Groups of U-Nets would give magnitudes, and others set what a CUDA graph cannot record."""
    given = SMALL | {"loss": "perpendicular", "real_image": False, "cuda_graph": True}
    varied = {"model": ("cascade",), "stages": (2, 3)}
    experiments(tmp_path / "out", vary=varied, seeds=1, **given)
    assert [name for name, _ in fake_run] == ["model cascade, stages 2", "model cascade, stages 3"]
    with pytest.raises(InputError, match="unet_resnet gives magnitudes"):
        experiments(tmp_path / "other", only=("beyond",), seeds=1, **given)
