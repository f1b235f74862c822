"""The whole tool: from `python train.py` to every file it leaves."""

import csv
import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from conftest import TINY, command, make_images
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import batches
import cache
import checkpoint as ckpt
import evaluation
import output_folder
import report
import runtime
import train as train_script
import tuning
from baselines import BASELINES
from CS_mask import evaluation_masks
from errors import InputError
from fourier import undersample
from lesion import CONTRASTS, DIAMETERS
from metrics import SCORES, psnr
from settings import comments
from train import EXIT_INTERRUPTED, train

METHODS = ["unet_resnet", *TINY["baselines"]]


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_npz):
    """A finished tiny run: its folder, and what `train()` returned."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, train(str(folder), data=str(tiny_npz), **TINY)


def rows_of(folder) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def error_of(done: subprocess.CompletedProcess, status: int = 2) -> str:
    """The one line that a failed command prints."""
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


# What a run leaves


def test_every_file_is_there(finished):
    folder, _ = finished
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    events = {name for name in files if name.startswith("tensorboard/")}
    assert events
    sample = f"sample_{int(rows_of(folder)[0]['sample']):04d}.png"
    pictures = ["under_sampling", "full_sampling", "reconstruction", "error", "profiles"]
    assert files - events == {
        *(f"{kind}/{sample}" for kind in pictures),
        *("mask.png", "curves.png", "cine.gif", "reconstructions.npz", "output.txt", "metrics.csv"),
        *("config.json", "history.csv", ckpt.BEST, ckpt.LAST),
    }


def test_metrics_have_a_row_for_each_sample_and_method(finished):
    folder, returned = finished
    rows = rows_of(folder)
    test_part = json.loads((folder / "config.json").read_text())["split"]["test"]
    assert list(rows[0]) == ["sample", "acc", "method", *SCORES]
    assert [(int(row["sample"]), row["method"]) for row in rows] == [
        (sample, method) for sample in test_part for method in METHODS
    ]
    for method in METHODS:
        mean = np.mean([float(row["psnr"]) for row in rows if row["method"] == method])
        assert returned[method]["psnr"] == pytest.approx(mean, abs=1e-4)


def test_arrays_reproduce_the_scores_and_the_physics(finished, images):
    folder, _ = finished
    rows = {(int(row["sample"]), row["method"]): row for row in rows_of(folder)}
    with np.load(folder / "reconstructions.npz") as arrays:
        stored = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    index = stored["index"].tolist()
    assert np.array_equal(stored["target"].numpy(), images[index])
    mask = torch.from_numpy(evaluation_masks(index, (8, 32), acc=(4, 4), sample_n=4, data_seed=0))
    torch.testing.assert_close(stored["aliased"], undersample(stored["target"], mask))
    for i, value in enumerate(psnr(stored["reconstruction"], stored["target"]).tolist()):
        assert float(rows[index[i], "unet_resnet"]["psnr"]) == pytest.approx(value, abs=1e-4)


def test_report_reads_on_its_own(finished):
    folder, _ = finished
    text = (folder / "output.txt").read_text()
    for heading in (
        "Data",
        "Split",
        "Mask",
        "Model",
        "Optimisation",
        "Training",
        "Test",
        "Caveats",
    ):
        assert re.search(rf"^{heading}", text, re.MULTILINE), heading
    assert "8 of 32 lines a frame (25.0%), 4 of them the centre: nominal acceleration 4" in text
    assert "patients: unknown" in text
    assert re.search(r"unet_resnet, in_channels 8.*\n  [\d,]+ parameters, .* activations", text)
    epochs = re.findall(r"^ +(\d)  +\S+e-\d+  +\S+e-\d+ +[\d.]+  +-?[\d.]+ ", text, re.MULTILINE)
    assert epochs == ["1", "2", "3", "4"]
    for method in METHODS:
        assert re.search(rf"^{method} +\d\.\d+ ± \d\.\d+ +[\d.]+ ± ", text, re.MULTILINE)
    line = r"^acceleration 4: psnr [+-]\d+\.\d+ \[.*\] \(\w+\), ssim .*, moving_psnr .*\)$"
    assert re.search(line, text, re.MULTILINE)
    assert "unet_resnet less the training-free method of the highest mean, paired by sample" in text
    for word in ("retrospectively", "real-valued", "without phase or added noise", *SCORES):
        assert word in text


def test_config_says_what_was_run(finished, tiny_npz):
    folder, _ = finished
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["data"] == str(tiny_npz)
    assert config["settings"]["init_features"] == 2
    assert config["data"]["shape"] == [9, 8, 32, 36]
    assert [len(part) for part in config["split"].values()] == [5, 1, 3]
    assert config["versions"]["torch"] == torch.__version__
    assert {"git_commit", "device", "threads"} <= config.keys()


def test_tensorboard_has_the_same_names(finished):
    folder, returned = finished
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    scalars = events.Tags()["scalars"]
    expected = ["train/loss", "learning_rate", "validation/loss", "validation/psnr"]
    assert {*expected, "validation/ssim", "test/psnr", "test/view_sharing/ssim"} <= set(scalars)
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert events.Scalars("test/psnr")[0].value == pytest.approx(
        returned["unet_resnet"]["psnr"], abs=1e-3
    )
    assert any(tag.startswith("validation/sample_") for tag in events.Tags()["images"])
    assert "settings/text_summary" in events.Tags()["tensors"]


def test_film_beats(finished):
    folder, _ = finished
    with Image.open(folder / "cine.gif") as film:
        assert film.n_frames == 8
        assert film.size[0] == 4 * 36
        assert film.info["loop"] == 0


def test_checkpoint_best_is_the_best_epoch(finished):
    folder, _ = finished
    best, last = (ckpt.load_checkpoint(folder / name) for name in (ckpt.BEST, ckpt.LAST))
    scores = [entry["validation/psnr"] for entry in last["history"]]
    assert len(scores) == last["epoch"] == 4
    assert best["epoch"] == 1 + scores.index(max(scores))
    assert best["scores"]["psnr"] == best["best_psnr"] == max(scores)
    assert last["optimizer"]
    assert not best["optimizer"]


def test_history_is_a_table_of_the_epochs(finished):
    folder, _ = finished
    history = report.read_history(folder)
    stored = ckpt.load_checkpoint(folder / ckpt.LAST)["history"]
    assert [sorted(entry) for entry in history] == [sorted(entry) for entry in stored]
    for entry, kept in zip(history, stored, strict=True):
        assert entry == pytest.approx(kept, rel=1e-6)
        assert entry["peak_memory"] > 1e8  # bytes: more than the interpreter with torch
    assert report.peak_memory(history) == max(entry["peak_memory"] for entry in history)


def test_training_learns(tmp_path, tiny_npz):
    settings = TINY | {"num_epochs": 60, "init_features": 4, "initial_lr": 5e-3}
    returned = train(str(tmp_path / "run"), data=str(tiny_npz), **settings)
    history = ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)["history"]
    assert history[-1]["train/loss"] < history[0]["train/loss"] / 1.5
    assert returned["unet_resnet"]["psnr"] > returned["zero_filled"]["psnr"] + 1


# The same bits again


def test_command_line_gives_the_same_bits_as_python(finished, tmp_path, tiny_npz, run_command):
    done = run_command(tmp_path / "again", data=tiny_npz, **TINY)
    assert done.returncode == 0, done.stderr
    assert "minutes of training in all" in done.stdout
    for name in ("metrics.csv", "cine.gif", "mask.png"):
        assert (tmp_path / "again" / name).read_bytes() == (finished[0] / name).read_bytes(), name


def wait_for_epoch(folder, epoch: int, process) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        text = (folder / "output.txt").read_text() if (folder / "output.txt").exists() else ""
        if re.search(rf"^ +{epoch}  ", text, re.MULTILINE):
            return
        time.sleep(0.01)
    pytest.fail(f"epoch {epoch} never came: {process.communicate()}")


LONG = TINY | {"num_epochs": 30, "dropout": 0.1}  # long enough to be interrupted


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_npz):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(str(folder), data=str(tiny_npz), **LONG)
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_fault_21_interrupted_and_resumed_is_bit_equal(tmp_path, tiny_npz, whole, number):
    broken = tmp_path / "broken"
    with subprocess.Popen(
        command(broken, data=tiny_npz, **LONG),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"MPLBACKEND": "agg"},
    ) as process:
        wait_for_epoch(broken, 2, process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == EXIT_INTERRUPTED
        assert f"stopped by {signal.Signals(number).name} in epoch" in errors
        assert "--resume" in errors
        assert errors.count("\n") == 1
    assert ckpt.load_checkpoint(broken / ckpt.LAST)["epoch"] >= 1
    assert not (broken / "metrics.csv").exists()

    train(str(broken), resume=True)
    assert (broken / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    for name in (ckpt.BEST, ckpt.LAST):
        first, second = (ckpt.load_checkpoint(folder / name) for folder in (whole, broken))
        for key, value in first["weights"].items():
            assert torch.equal(value, second["weights"][key]), key
    events = EventAccumulator(str(broken / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 31))


class StopAfter(runtime.StopRequest):
    """Asks to stop when it has been asked `calls` times."""

    calls = 0

    def __bool__(self) -> bool:
        self.calls -= 1
        if self.calls == 0:
            self.reason = "test"
        return bool(self.reason)


@pytest.mark.parametrize("calls", [1, 2, 4, 12, 13])
def test_fault_21_resume_in_mid_epoch_is_bit_equal(
    finished, tmp_path, tiny_npz, monkeypatch, calls
):
    monkeypatch.setattr(runtime, "StopRequest", StopAfter)
    monkeypatch.setattr(StopAfter, "calls", calls)
    with pytest.raises(runtime.Interrupted, match="go on with: python train"):
        train(str(tmp_path / "run"), data=str(tiny_npz), **TINY)
    monkeypatch.undo()
    state = ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)
    assert (state["epoch"], state["step"]) == divmod(min(calls - 1, 12), 3)  # 3 steps an epoch
    returned = train(str(tmp_path / "run"), resume=True)
    assert returned == finished[1]
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (
        finished[0] / "metrics.csv"
    ).read_bytes()


def test_max_minutes_stops_as_a_signal_does(tmp_path, tiny_npz, run_command):
    done = run_command(tmp_path / "run", data=tiny_npz, **TINY, max_minutes=1e-6)
    assert "stopped by max_minutes in epoch 1, after 0 of 3 steps" in error_of(
        done, EXIT_INTERRUPTED
    )
    assert (tmp_path / "run" / ckpt.LAST).exists()


def test_accumulation_takes_the_same_steps(tmp_path, tiny_npz):
    settings = TINY | {"batch_norm": False, "num_epochs": 2}
    first = train(str(tmp_path / "a"), data=str(tiny_npz), **settings)
    second = train(str(tmp_path / "b"), data=str(tiny_npz), **settings, accumulation=2)
    assert first["unet_resnet"]["psnr"] == pytest.approx(second["unet_resnet"]["psnr"], abs=1e-3)


def test_fresh_masks_are_a_setting(tmp_path, tiny_npz, monkeypatch):
    epochs = set()
    draw = batches.training_masks

    def noted(draws, *arguments):
        epochs.update(number for number, _ in draws)
        return draw(draws, *arguments)

    monkeypatch.setattr(batches, "training_masks", noted)
    train(str(tmp_path / "a"), data=str(tiny_npz), **TINY)
    assert epochs == {0, 1, 2, 3}
    epochs.clear()
    train(str(tmp_path / "b"), data=str(tiny_npz), **TINY, fresh_masks=False)
    assert epochs == {0}


CASCADE = TINY | {
    "model": "cascade",
    "stages": 2,
    "features": 4,
    "strip": 16,
    "augment": ("flips", "time"),
    "loss": "l1",
    "ema": 0.9,
    "initial_lr": 5e-3,
    "clip_gradient": 1.0,
}


@pytest.mark.parametrize("calls", [2, 15])
def test_cascade_resumes_with_the_same_bits(tmp_path, tiny_npz, monkeypatch, calls):
    returned = train(str(tmp_path / "whole"), data=str(tiny_npz), **CASCADE)
    monkeypatch.setattr(runtime, "StopRequest", StopAfter)
    monkeypatch.setattr(StopAfter, "calls", calls)
    with pytest.raises(runtime.Interrupted):
        train(str(tmp_path / "broken"), data=str(tiny_npz), **CASCADE)
    monkeypatch.undo()
    assert train(str(tmp_path / "broken"), resume=True) == returned
    first, second = (
        ckpt.load_checkpoint(tmp_path / name / ckpt.LAST) for name in ("whole", "broken")
    )
    for key in ("weights", "training_weights"):
        assert first[key]
        assert all(torch.equal(value, second[key][name]) for name, value in first[key].items())


def test_cascade_beats_its_start_and_the_average_is_what_is_kept(tmp_path, tiny_npz):
    settings = CASCADE | {"num_epochs": 25, "baselines": ("hermitian_view_sharing",)}
    returned = train(str(tmp_path / "run"), data=str(tiny_npz), **settings)
    assert returned["cascade"]["psnr"] > returned["hermitian_view_sharing"]["psnr"] + 0.1
    last = ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)
    name = "stages.0.lift.weight"
    assert not torch.equal(last["weights"][name], last["training_weights"][name])
    again = train(
        str(tmp_path / "again"),
        data=str(tiny_npz),
        initial_weights=str(tmp_path / "run" / ckpt.BEST),
        **settings | {"num_epochs": 0},
    )
    assert again["cascade"] == returned["cascade"]


def test_bfloat16_is_close_to_float32_and_not_the_same(tmp_path, tiny_npz):
    scores = [
        train(str(tmp_path / name), data=str(tiny_npz), **CASCADE, precision=name)["cascade"]
        for name in ("float32", "bfloat16")
    ]
    assert scores[0]["psnr"] == pytest.approx(scores[1]["psnr"], abs=0.3)
    assert scores[0]["psnr"] != scores[1]["psnr"]


def test_gradient_is_clipped(tmp_path, tiny_npz, monkeypatch):
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def noted(parameters, longest):
        parameters = list(parameters)
        clip(parameters, longest)
        norms.append(torch.stack([p.grad.norm() for p in parameters]).norm().item())

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", noted)
    settings = CASCADE | {"num_epochs": 1, "clip_gradient": 1e-3}
    train(str(tmp_path / "run"), data=str(tiny_npz), **settings)
    assert max(norms) == pytest.approx(1e-3, rel=1e-2)


def test_a_range_of_accelerations_is_trained_and_each_scored(tmp_path, tiny_npz):
    settings = CASCADE | {"acc": (3, 6), "num_epochs": 1}
    train(str(tmp_path / "run"), data=str(tiny_npz), **settings)
    rows = rows_of(tmp_path / "run")
    assert list(dict.fromkeys(row["acc"] for row in rows)) == ["3", "4.5", "6"]
    assert len(rows) == 3 * 3 * 4
    text = (tmp_path / "run" / "output.txt").read_text()
    for acc in ("3", "4.5", "6"):
        assert re.search(rf"^acceleration {acc} +test/loss", text, re.MULTILINE)
        of_view_sharing = [
            float(row["psnr"])
            for row in rows
            if row["acc"] == acc and row["method"] == "view_sharing"
        ]
        assert f"{np.mean(of_view_sharing):.3f} ± " in text
    assert "training masks of acceleration 3 to 6 are drawn" in text


def test_all_baselines_are_scored_and_the_second_run_recalls_them(tmp_path, tiny_npz, monkeypatch):
    settings = TINY | {"num_epochs": 0, "baselines": None, "num_pictures": 0}
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")
    first = train(str(tmp_path / "a"), data=str(tiny_npz), **settings)
    assert list(first) == list(BASELINES)
    assert first["hermitian"]["psnr"] > first["zero_filled"]["psnr"]
    text = (tmp_path / "a" / "output.txt").read_text()
    assert re.search(r"temporal_tv, acceleration 4: bound \S+ \(the best on training", text)
    assert re.search(r"actual 4, and 2\.\d+ where mirror lines count \(real images\)", text)

    def must_not_run(*arguments):
        raise AssertionError

    monkeypatch.setattr(
        evaluation, "score_rows", lambda acc, batch, images: must_not_run() if images else []
    )
    monkeypatch.setattr(tuning, "_search", must_not_run)
    computed, reconstruct = [], tuning._reconstruct

    def noted(run, name, parameters, aliased, mask):
        computed.append((name, len(aliased)))
        return reconstruct(run, name, parameters, aliased, mask)

    monkeypatch.setattr(tuning, "_reconstruct", noted)
    train(str(tmp_path / "no_pictures"), data=str(tiny_npz), **settings)
    assert {name for name, _ in computed} == {"low_rank_sparse"}  # what the arrays hold
    computed.clear()
    settings["num_pictures"] = 1
    assert train(str(tmp_path / "b"), data=str(tiny_npz), **settings) == first
    assert (tmp_path / "b" / "metrics.csv").read_bytes() == (
        tmp_path / "a" / "metrics.csv"
    ).read_bytes()
    assert list((tmp_path / "b" / "reconstruction").iterdir())
    assert {pair for pair in computed if pair[0] != "low_rank_sparse"} == {
        ("view_sharing", 1), ("kt_sparse", 1)  # beside it, of the one sample that is drawn
    }  # fmt: skip


@pytest.mark.parametrize("model", ["unet", "unet_resnet", "cnn3d", "cascade"])
@pytest.mark.parametrize("kind", ["complex data", "phase and noise"])
def test_complex_images_end_to_end(tmp_path, images, model, kind):
    settings = CASCADE | {"model": model, "num_epochs": 1, "data_consistency": True}
    if kind == "complex data":
        images = images * np.exp(1j * np.linspace(0, 2, 36)).astype(np.complex64)
    else:
        settings |= {"phase": True, "noise": 0.01}
    np.savez(tmp_path / "data.npz", dataset=images)
    returned = train(str(tmp_path / "run"), data=str(tmp_path / "data.npz"), **settings)
    least = {"cascade": "view_sharing"}.get(model, "zero_filled")
    assert returned[model]["psnr"] > returned[least]["psnr"] - 0.2
    text = (tmp_path / "run" / "output.txt").read_text()
    assert "real-image prior (each measured line tells its mirror line): off" in text
    assert ("implicit data crimes" in text.lower()) is (kind != "complex data")
    with np.load(tmp_path / "run" / "reconstructions.npz") as arrays:
        index = arrays["index"]
        np.testing.assert_allclose(arrays["target"], np.abs(images[index]), atol=1e-6)
    with pytest.raises(InputError, match=r"--real-image .* have a phase"):
        train(
            str(tmp_path / "x"), data=str(tmp_path / "data.npz"), **settings | {"real_image": True}
        )


def test_pictures_are_as_many_as_asked_for(tmp_path, tiny_npz):
    settings = TINY | {"num_epochs": 0, "split": (0, 0, 1), "num_pictures": 3}
    train(str(tmp_path / "run"), data=str(tiny_npz), **settings)
    for kind in ("reconstruction", "profiles"):
        assert len(list((tmp_path / "run" / kind).iterdir())) == 3


def test_settings_of_another_model_are_named(tmp_path, tiny_npz, capsys):
    settings = TINY | {"num_epochs": 0, "stages": 3, "dc_weight": 2.0}
    train(str(tmp_path / "run"), data=str(tiny_npz), **settings)
    text = capsys.readouterr().out
    assert "NOTICE: --stages does not apply to the model unet_resnet" in text
    assert "NOTICE: --dc-weight does not apply to the model unet_resnet" in text


def test_lesions_are_scored_for_every_method_and_frame(tmp_path, tiny_npz):
    settings = CASCADE | {"num_epochs": 1, "lesions": True}
    train(str(tmp_path / "run"), data=str(tiny_npz), **settings)
    with (tmp_path / "run" / "lesions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    methods = ["cascade", *TINY["baselines"]]
    assert len(rows) == 3 * len(methods) * len(DIAMETERS) * len(CONTRASTS) * 8
    assert list(dict.fromkeys(row["method"] for row in rows)) == methods
    kept = {
        name: np.mean([float(r["kept"]) for r in rows if r["method"] == name]) for name in methods
    }
    assert kept["time_average"] < kept["view_sharing"] < 1.2
    text = (tmp_path / "run" / "output.txt").read_text()
    assert "Lesion test, acceleration 4, by diameter in pixels" in text
    assert re.search(r"^cascade +-?\d\.\d\d±\d\.\d\d, ", text, re.MULTILINE)


def test_cascade_takes_other_frames_than_in_channels(tmp_path, tiny_npz):
    settings = CASCADE | {"num_epochs": 1, "in_channels": 20, "out_channels": 20}
    assert "cascade" in train(str(tmp_path / "run"), data=str(tiny_npz), **settings)


# Scoring without training


def test_no_epochs_and_no_weights_scores_the_baselines(tmp_path, tiny_npz, finished):
    folder = tmp_path / "run"
    returned = train(str(folder), data=str(tiny_npz), **TINY | {"num_epochs": 0})
    assert list(returned) == METHODS[1:]
    assert returned == {name: finished[1][name] for name in METHODS[1:]}
    assert not (folder / ckpt.LAST).exists()
    assert not (folder / "curves.png").exists()


def test_no_epochs_scores_a_checkpoint_and_names_what_it_was_trained_on(
    tmp_path, tiny_npz, finished, run_command
):
    config = json.loads((finished[0] / "config.json").read_text())
    done = run_command(
        tmp_path / "run",
        data=tiny_npz,
        num_epochs=0,
        split=(0, 0, 1),
        initial_weights=finished[0] / ckpt.BEST,
        **{
            name: TINY[name]
            for name in ("acc", "sample_n", "num_pictures", "picture_dpi", "baselines")
        },
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "run" / "output.txt").read_text()
    trained = ", ".join(map(str, config["split"]["train"]))
    assert "WARNING: 5 of the 9 test samples trained the checkpoint" in text
    assert f"starts from: {trained};" in text
    chose = ", ".join(map(str, config["split"]["validation"]))
    assert f"selected the checkpoint (validation) that this run starts from: {chose};" in text
    rows = {(row["sample"], row["method"]): row for row in rows_of(tmp_path / "run")}
    assert len(rows) == 9 * len(METHODS)
    for row in rows_of(finished[0]):
        assert rows[row["sample"], row["method"]]["psnr"] == row["psnr"]


def test_training_goes_on_from_initial_weights(tmp_path, tiny_npz, finished):
    start = str(finished[0] / ckpt.LAST)
    settings = TINY | {"num_epochs": 1, "init_features": 7, "model": "unet"}
    train(str(tmp_path / "run"), data=str(tiny_npz), initial_weights=start, **settings)
    state = ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)
    assert state["model"] == "unet_resnet"  # the architecture is the checkpoint's
    assert state["architecture"]["init_features"] == 2
    assert state["epoch"] == 1


def test_resume_needs_no_initial_weights_and_says_what_changed(
    tmp_path, tiny_npz, finished, monkeypatch, capsys
):
    start, folder = tmp_path / "start.pt", tmp_path / "run"
    start.write_bytes((finished[0] / ckpt.BEST).read_bytes())
    settings = TINY | {"data": str(tiny_npz), "init_features": 7, "initial_weights": str(start)}
    monkeypatch.setattr(runtime, "StopRequest", StopAfter)
    monkeypatch.setattr(StopAfter, "calls", 5)
    with pytest.raises(runtime.Interrupted):
        train(str(folder), **settings)
    monkeypatch.undo()
    start.unlink()
    config = json.loads((folder / "config.json").read_text())
    config["device"] = "abacus"
    (folder / "config.json").write_text(json.dumps(config))
    train(str(folder), **settings, resume=True)
    assert "NOTICE: device was abacus and is now cpu" in capsys.readouterr().out
    assert (folder / "metrics.csv").exists()


def test_validation_samples_that_trained_the_weights_are_named(tmp_path, tiny_npz, finished):
    start = str(finished[0] / ckpt.BEST)
    settings = TINY | {"num_epochs": 1, "data_seed": 3, "initial_weights": start}
    train(tmp_path / "run", data=str(tiny_npz), **settings)
    before, now = (
        json.loads((folder / "config.json").read_text())["split"]
        for folder in (finished[0], tmp_path / "run")
    )
    assert set(now["validation"]) <= set(before["train"])  # by this choice of data_seed
    assert re.search(
        rf"WARNING: 1 of the 1 validation samples trained .*: {now['validation'][0]};",
        (tmp_path / "run" / "output.txt").read_text(),
    )


# Faults, as a user meets them


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "missing.npz"}, "missing.npz does not exist"),
        ({"in_channels": 20}, "has 8 frames, but --in-channels is 20 and --out-channels 8"),
        ({"acc": 0.5}, "acc must be a finite number of at least 1, got 0.5"),
        ({"acc": 10}, "sample_n must be between 0 and int(32 / 10) = 3 lines a frame, got 4"),
        ({"sample_n": -1}, "got -1"),
        ({"split": (1, 0, 1)}, "the parts train, validation, test must not be empty"),
        ({"split": (1, 1)}, "three ratios"),
        ({"split": (1e308, 1e308, 1e308)}, "--split is"),
        ({"seed": 2**64}, "--seed is 18446744073709551616, expected at most"),
        ({"initial_lr": 1e300}, "--initial-lr is 1e+300, expected at most"),
        ({"data": ""}, "--data is empty text"),
        ({"device": "meta"}, "--device meta cannot be used here"),
        ({"n_samples": 2}, "2 samples cannot fill 3 parts"),
        ({"num_epochs": 0, "split": (1, 0, 0)}, "the parts test must not be empty"),
        ({"model": "transformer"}, "--model is 'transformer', expected one of unet, unet_resnet"),
        ({"lr_schedule": "step"}, "expected one of cosine, constant"),
        ({"batch_size": 0}, "--batch-size is 0, expected at least 1"),
        ({"initial_lr": 0.0}, "--initial-lr is 0.0, expected more than 0"),
        ({"dropout": 1.0}, "--dropout is 1.0, expected less than 1"),
        ({"device": "abacus"}, "--device abacus cannot be used here"),
        ({"initial_weights": "none.pt"}, "none.pt does not exist"),
        ({"acc": (8, 4)}, "--acc is (8, 4), expected one acceleration, or a lowest and a highest"),
        ({"acc": (4, 5, 6)}, "--acc is (4, 5, 6)"),
        ({"acc": (4, 9)}, "got 4: choose fewer centre lines"),
        ({"test_acc": (4, 33)}, "acc=33"),
        ({"loss": "huber"}, "--loss is 'huber', expected one of mse, l1"),
        ({"precision": "float16"}, "expected one of float32, bfloat16"),
        ({"baselines": ("magic",)}, "--baselines is 'magic', expected one of zero_filled"),
        ({"ema": 1.0}, "--ema is 1.0"),
        ({"augment": ("rotation",)}, "--augment is 'rotation', expected one of flips, time"),
        ({"noise": -0.1}, "--noise is -0.1, expected at least 0"),
        ({"strip": 0}, "--strip is 0, expected at least 1"),
        ({"learn_dc_weight": True}, "--learn-dc-weight needs a --dc-weight"),
        ({"dc_weight": 0.0}, "--dc-weight is 0.0, expected at least 1e-06"),
        ({"real_image": True, "phase": True}, "--real-image"),
        ({"complex_pairs": True}, "--complex-pairs expects"),
        ({"num_epochs": 0, "baselines": ()}, "there is nothing to score"),
        ({"num_epochs": 0, "baselines": ("hermitian",), "real_image": False}, "nothing to score"),
        ({"num_epochs": "4"}, "--num-epochs is '4', expected int"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    tmp_path, tiny_npz, settings, message
):
    folder = tmp_path / "run"
    with pytest.raises(InputError) as error:
        train(str(folder), **{"data": str(tiny_npz)} | TINY | settings)
    assert message in str(error.value)
    assert not folder.exists()


def test_errors_of_the_command_are_one_line(tmp_path, run_command):
    message = error_of(run_command(tmp_path / "run"))
    assert message.startswith("train.py: error: cine.npz does not exist")
    assert "--data phantom" in message
    assert "unrecognized arguments: --epochs" in error_of(run_command("out", epochs=3))
    assert "invalid int value: 'many'" in error_of(run_command("out", num_epochs="many"))
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "out").exists()


def test_fault_25_cuda_without_cuda(tmp_path, tiny_npz, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"--device cuda:99 cannot be used here \(CUDA is not"):
        train(str(tmp_path / "run"), data=str(tiny_npz), **TINY | {"device": "cuda:99"})


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
    ],
)
def test_fault_25_out_of_memory(tmp_path, tiny_npz, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(train_script, "train_step", fail)
    with pytest.raises(
        InputError, match=r"out of memory .*lower --batch-size \(2\).*--accumulation"
    ):
        train(str(tmp_path / "run"), data=str(tiny_npz), **TINY)
    assert ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)["epoch"] == 0


def test_fault_18_few_frames_and_odd_sizes(tmp_path):
    np.savez(tmp_path / "odd.npz", dataset=make_images(5, n_frames=3, ny=21, nx=17))
    settings = TINY | {"in_channels": 3, "out_channels": 3, "num_epochs": 1}
    returned = train(str(tmp_path / "run"), data=str(tmp_path / "odd.npz"), **settings)
    assert np.isnan(returned["unet_resnet"]["ssim"])
    assert np.isfinite(returned["unet_resnet"]["ssim_2d"])
    assert re.search(r"^unet_resnet .* absent ", (tmp_path / "run/output.txt").read_text(), re.M)


def test_fault_16_constant_samples_train_and_score(tmp_path, images):
    images = images.copy()
    images[::2] = 0
    np.savez(tmp_path / "flat.npz", dataset=images)
    settings = TINY | {"num_epochs": 1}
    returned = train(str(tmp_path / "run"), data=str(tmp_path / "flat.npz"), **settings)
    assert all(np.isfinite(v) for scores in returned.values() for v in scores.values())
    assert "constant samples" in (tmp_path / "run" / "output.txt").read_text()


def test_fault_20_full_disk_in_training(tmp_path, tiny_npz, monkeypatch):
    save = torch.save
    saved = []

    def fill(content, file):
        saved.append(content["epoch"])
        if content["epoch"] == 3:
            raise OSError(28, "No space left on device")
        save(content, file)

    monkeypatch.setattr(ckpt.torch, "save", fill)
    with pytest.raises(
        InputError, match=r"No space left on device.*what was there before is untouched"
    ):
        train(str(tmp_path / "run"), data=str(tiny_npz), **TINY)
    monkeypatch.undo()
    assert ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)["epoch"] == 2
    train(str(tmp_path / "run"), resume=True)


def test_fault_22_non_finite_loss_keeps_the_last_good_checkpoint(tmp_path, tiny_npz, monkeypatch):
    step = train_script.train_step

    def explode(run, optimizer, draws):
        return float("nan") if draws[0][0] == 2 else step(run, optimizer, draws)

    monkeypatch.setattr(train_script, "train_step", explode)
    with pytest.raises(InputError, match=r"loss is nan in epoch 3, step 1, on samples \d, \d;"):
        train(str(tmp_path / "run"), data=str(tiny_npz), **TINY)
    state = ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)
    assert (state["epoch"], state["step"]) == (2, 0)


def test_fault_22_non_finite_weights_are_not_saved(tmp_path, tiny_npz, monkeypatch):
    step = train_script.train_step

    def explode(run, optimizer, draws):
        if draws[0][0] == 2:
            with torch.no_grad():
                run.network.refiner.lift.bias.fill_(torch.nan)
        return step(run, optimizer, draws) if draws[0][0] < 2 else 0.1

    monkeypatch.setattr(train_script, "train_step", explode)
    monkeypatch.setattr(train_script, "validate", lambda *a: {"loss": 0.1, "psnr": 10.0})
    with pytest.raises(InputError, match="weights are not finite after epoch 3"):
        train(str(tmp_path / "run"), data=str(tiny_npz), **TINY)
    assert ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)["epoch"] == 2


def copy_run(finished, folder):
    """An unfinished run: a copy of the finished one without its mark."""
    folder.mkdir()
    for name in ("config.json", ckpt.BEST, ckpt.LAST):
        (folder / name).write_bytes((finished[0] / name).read_bytes())
    return folder


def test_fault_23_resume_with_other_data(tmp_path, finished, images):
    folder = copy_run(finished, tmp_path / "run")
    changed = images.copy()
    changed[0, 0, 0, 0] += 0.01
    np.savez(tmp_path / "other.npz", dataset=changed)
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["data"] = str(tmp_path / "other.npz")
    config["settings"]["initial_lr"] = 0.5
    (folder / "config.json").write_text(json.dumps(config))
    before = (folder / ckpt.LAST).read_bytes()
    with pytest.raises(InputError, match=r"made with other data, initial_lr, data \(its values\)"):
        train(str(folder), resume=True)
    assert (folder / ckpt.LAST).read_bytes() == before


@pytest.mark.parametrize("key", ["optimizer", "random_states"])
def test_fault_23_resume_from_a_malformed_checkpoint(tmp_path, finished, key):
    folder = copy_run(finished, tmp_path / "run")
    state = ckpt.load_checkpoint(folder / ckpt.LAST)
    torch.save(state | {key: {"x": 1}}, folder / ckpt.LAST)
    with pytest.raises(InputError, match=r"checkpoint_last\.pt .*damaged"):
        train(str(folder), resume=True)


def test_a_run_without_its_last_checkpoint_is_not_begun_again(tmp_path, finished):
    folder = copy_run(finished, tmp_path / "run")
    (folder / ckpt.LAST).unlink()
    before = (folder / ckpt.BEST).read_bytes()
    with pytest.raises(InputError, match=r"has no checkpoint_last\.pt to go on from: score its"):
        train(str(folder), resume=True)
    assert (folder / ckpt.BEST).read_bytes() == before


def test_fault_23_initial_weights_of_a_stranger(tmp_path, tiny_npz, finished):
    state = ckpt.load_checkpoint(finished[0] / ckpt.BEST)
    for name, change, message in (
        ("a", {"model": "gan"}, r"odd\.pt holds the unknown model 'gan'"),
        ("b", {"architecture": {"layers": 3}}, r"odd\.pt describes its unet_resnet by layers, exp"),
        ("c", {"architecture": state["architecture"] | {"init_features": "x"}}, "is 'x', expected"),
        ("d", {"architecture": state["architecture"] | {"dropout": 2.0}}, "is 2.0, expected less"),
    ):
        torch.save(state | change, tmp_path / "odd.pt")
        with pytest.raises(InputError, match=message):
            train(
                str(tmp_path / name),
                data=str(tiny_npz),
                initial_weights=str(tmp_path / "odd.pt"),
                **TINY,
            )


def test_fault_24_finished_runs_and_other_folders_are_left_alone(tmp_path, tiny_npz, finished):
    def refused(folder, message, **settings):
        with pytest.raises(InputError, match=message):
            train(str(folder), data=str(tiny_npz), **TINY | settings)

    before = {p: p.read_bytes() for p in finished[0].rglob("*") if p.is_file()}
    refused(finished[0], "holds a finished run: name another folder, or go on with --resume")
    assert train(str(finished[0]), resume=True) == finished[1]  # says so, and does nothing
    assert {p: p.read_bytes() for p in finished[0].rglob("*") if p.is_file()} == before

    refused(copy_run(finished, tmp_path / "unfinished"), "holds an unfinished run")
    (tmp_path / "file").write_text("mine")
    refused(tmp_path / "file", "is a file")
    refused("  ", "is empty text")
    refused(tmp_path / "file" / "below", "cannot be made")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    refused(tmp_path / "mine", r"holds 1 other files \(notes\.txt, \.\.\.\)")
    refused(tmp_path / "mine", "holds no run to resume", resume=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    refused(tmp_path / "new", "holds no run to resume", resume=True)
    assert not (tmp_path / "new").exists()


def test_fault_24_finished_run_resumed_on_the_command_line(finished, run_command):
    done = run_command(finished[0], ["--resume"])
    assert done.returncode == 0
    assert "holds a finished run: nothing to do" in done.stdout


@pytest.mark.parametrize("content", ["", "sample,method\n0,a\n"])
def test_fault_24_damaged_metrics_of_a_finished_run(tmp_path, finished, content):
    folder = copy_run(finished, tmp_path / "run")
    (folder / "metrics.csv").write_text(content)
    with pytest.raises(InputError, match=r"metrics\.csv is damaged: remove it, and --resume"):
        train(str(folder), resume=True)
    (folder / "metrics.csv").unlink()
    assert train(str(folder), resume=True) == finished[1]
    assert (folder / "metrics.csv").read_bytes() == (finished[0] / "metrics.csv").read_bytes()


def test_fault_24_flags_that_contradict_the_run(tmp_path, finished, run_command):
    folder = copy_run(finished, tmp_path / "run")
    message = error_of(run_command(folder, ["--resume", "--num-epochs", "400"]))
    assert "--num-epochs 400 (the run has 4)" in message
    with pytest.raises(InputError, match=r"--acc 5 \(the run has 4\)"):
        train(str(folder), resume=True, acc=5)


def test_fault_24_read_only_folder(tmp_path, tiny_npz, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(output_folder.os, "access", lambda *a: False)
    with pytest.raises(InputError, match="is read-only"):
        train(str(tmp_path / "run"), data=str(tiny_npz), **TINY)


def test_fault_24_second_process_in_one_folder(tmp_path, tiny_npz):
    with (
        train_script.claimed_folder(str(tmp_path / "run"), output_folder.is_empty),
        pytest.raises(InputError, match="is in use by another run"),
    ):
        train(str(tmp_path / "run"), data=str(tiny_npz), **TINY)


def test_import_starts_nothing_and_every_flag_has_help(tmp_path, run_command):
    done = run_command("x", ["--help"])
    assert done.returncode == 0
    assert not any(tmp_path.iterdir())
    assert all(comments(train).values())
