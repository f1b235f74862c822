"""Stopping a run at any moment, and continuing it with the same bits."""

import json
import re
import signal
import time

import numpy as np
import pytest
import torch
from forked import Command
from helpers import (
    CASCADE,
    TINY,
    copy_run,
    error_of,
    report_of,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from evaluation import bench, lesion_score
from report import pictures
from train import train
from training import checkpoint as ckpt
from training import loop, step
from training.run_folder import is_finished, read_config
from util import machine
from util.command_line import as_flags
from util.errors import EXIT_INTERRUPTED, InputError, Interrupted

LONG = TINY | {"num_epochs": 30, "dropout": 0.1}  # long enough to be interrupted


def wait_for_epoch(folder, epoch: int, command: Command) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and command.process.is_alive():
        text = (folder / "output.txt").read_text() if (folder / "output.txt").exists() else ""
        if re.search(rf"^ +{epoch}  ", text, re.MULTILINE):
            return
        time.sleep(0.01)
    pytest.fail(f"epoch {epoch} never came: {command.finished()}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_npz):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(str(folder), data=str(tiny_npz), **LONG)
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_and_resumed_is_bit_equal(tmp_path, tiny_npz, whole, number):
    broken = tmp_path / "broken"
    words = [broken, *as_flags({"data": tiny_npz, **LONG})]
    command = Command("train.py", words, tmp_path)
    wait_for_epoch(broken, 2, command)
    command.signal(number)
    done = command.finished()
    if number == signal.SIGKILL:
        assert done.returncode == -number
    else:
        assert done.returncode == EXIT_INTERRUPTED
        assert f"stopped by {signal.Signals(number).name} in epoch" in done.stderr
        assert "--resume" in done.stderr
        assert done.stderr.count("\n") == 1
    assert ckpt.load_checkpoint(broken / ckpt.LAST)["epoch"] >= 1
    assert not (broken / "metrics.csv").exists()

    train(str(broken), resume=True)
    assert (broken / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    for name in (ckpt.BEST, ckpt.LAST):
        first, second = (ckpt.load_checkpoint(folder / name) for folder in (whole, broken))
        for key, value in first["weights"].items():
            assert torch.equal(value, second["weights"][key]), key
    for name, tag in (("broken", "Validation/psnr"), ("broken-train", "Validation/loss")):
        events = EventAccumulator(str(broken / "tensorboard" / name)).Reload()
        assert [event.step for event in events.Scalars(tag)] == list(range(1, 31))


@pytest.mark.parametrize("max_steps", [1, 3, 11, 12])
def test_resume_in_mid_epoch_is_bit_equal(finished, tmp_path, tiny_npz, max_steps):
    with pytest.raises(Interrupted, match=r"stopped by max_steps .*; continue with: python train"):
        train(str(tmp_path / "run"), data=str(tiny_npz), **TINY, max_steps=max_steps)
    state = ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)
    assert (state["epoch"], state["step"]) == divmod(max_steps, 3)  # 3 steps an epoch
    returned = train(str(tmp_path / "run"), resume=True)
    assert returned == finished[1]
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (
        finished[0] / "metrics.csv"
    ).read_bytes()


def test_cascade_resumes_with_the_same_bits(tmp_path, tiny_npz):
    returned = train(str(tmp_path / "whole"), data=str(tiny_npz), **CASCADE)
    with pytest.raises(Interrupted):
        train(str(tmp_path / "broken"), data=str(tiny_npz), **CASCADE, max_steps=14)
    assert train(str(tmp_path / "broken"), resume=True) == returned
    first, second = (
        ckpt.load_checkpoint(tmp_path / name / ckpt.LAST) for name in ("whole", "broken")
    )
    for key in ("weights", "training_weights"):
        assert first[key]
        assert all(torch.equal(value, second[key][name]) for name, value in first[key].items())


def test_max_minutes_stops_as_a_signal_does(tmp_path, tiny_npz, run_command):
    done = run_command(tmp_path / "run", data=tiny_npz, **TINY, max_minutes=1e-6)
    assert "stopped by max_minutes in epoch 1, after 1 of 3 steps" in error_of(
        done, EXIT_INTERRUPTED
    )
    assert (tmp_path / "run" / ckpt.LAST).exists()


def test_resume_needs_no_initial_weights_and_says_what_changed(
    tmp_path, tiny_npz, finished, capsys
):
    start, folder = tmp_path / "start.pt", tmp_path / "run"
    start.write_bytes((finished[0] / ckpt.BEST).read_bytes())
    settings = TINY | {"data": str(tiny_npz), "init_features": 7, "initial_weights": str(start)}
    with pytest.raises(Interrupted):
        train(str(folder), **settings, max_steps=4)
    start.unlink()
    config = json.loads((folder / "config.json").read_text())
    config["device"] = "abacus"
    (folder / "config.json").write_text(json.dumps(config))
    train(str(folder), **settings, resume=True)
    assert "NOTICE: device was abacus and is now cpu" in capsys.readouterr().out
    assert (folder / "metrics.csv").exists()


def test_full_disk_in_training(tmp_path, tiny_npz, monkeypatch):
    save = torch.save
    saved = []

    def fill(content, file):
        saved.append(content["epoch"])
        if content["epoch"] == 3:
            raise OSError(28, "No space left on device")
        save(content, file)

    monkeypatch.setattr(ckpt.torch, "save", fill)
    with pytest.raises(
        InputError, match=r"No space left on device.*its earlier content is untouched"
    ):
        train(str(tmp_path / "run"), data=str(tiny_npz), **TINY)
    monkeypatch.undo()
    assert ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)["epoch"] == 2
    train(str(tmp_path / "run"), resume=True)


@pytest.mark.parametrize("read_every", [2, 100])
def test_losses_that_are_read_later_and_batches_made_ahead_change_no_bit(
    finished, tmp_path, tiny_npz, monkeypatch, read_every
):
    monkeypatch.setitem(step.READ_EVERY, "cpu", read_every)  # as on a GPU
    monkeypatch.setitem(step.N_AHEAD, "cpu", 2)
    with pytest.raises(Interrupted):
        train(str(tmp_path / "run"), data=str(tiny_npz), **TINY, max_steps=5)
    assert train(str(tmp_path / "run"), resume=True) == finished[1]
    first, second = (ckpt.load_checkpoint(f / ckpt.LAST) for f in (finished[0], tmp_path / "run"))
    losses = ([entry["train/loss"] for entry in state["history"]] for state in (first, second))
    assert next(losses) == next(losses)
    assert all(torch.equal(value, second["weights"][k]) for k, value in first["weights"].items())


def test_non_finite_loss_keeps_the_last_good_checkpoint(tmp_path, tiny_npz, monkeypatch):
    take_step = step.Stepper.step

    def explode(self, draws, batches):
        loss = take_step(self, draws, batches)
        return loss * torch.nan if len(self.training.history) == 2 else loss

    monkeypatch.setattr(step.Stepper, "step", explode)
    with pytest.raises(InputError, match=r"loss is nan in epoch 3, step 1, on samples \d, \d;"):
        train(str(tmp_path / "run"), data=str(tiny_npz), **TINY)
    state = ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)
    assert (state["epoch"], state["step"]) == (2, 0)


def test_non_finite_weights_are_not_saved(tmp_path, tiny_npz, monkeypatch):
    take_step = step.Stepper.step

    def explode(self, draws, batches):
        if len(self.training.history) < 2:
            return take_step(self, draws, batches)
        with torch.no_grad():
            self.training.network.refiners[0].project.bias.fill_(torch.nan)
        return torch.tensor(0.1)

    monkeypatch.setattr(step.Stepper, "step", explode)
    scores = {"loss": 0.1, "psnr": 10.0, "ssim": 0.5}
    monkeypatch.setattr(loop, "validate", lambda *a: (scores, []))
    with pytest.raises(InputError, match="weights are not finite after epoch 3"):
        train(str(tmp_path / "run"), data=str(tiny_npz), **TINY)
    assert ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)["epoch"] == 2


def test_resume_with_other_data(tmp_path, finished, images):
    folder = copy_run(finished, tmp_path / "run")
    changed = images.copy()
    changed[0, 0, 0, 0] += 0.01
    np.savez(tmp_path / "other.npz", dataset=changed)
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["data"] = str(tmp_path / "other.npz")
    config["settings"]["initial_lr"] = 0.5
    (folder / "config.json").write_text(json.dumps(config))
    before = (folder / ckpt.LAST).read_bytes()
    with pytest.raises(InputError, match="was begun with other data"):
        train(str(folder), resume=True)
    assert (folder / ckpt.LAST).read_bytes() == before


def test_resume_with_settings_that_were_edited(tmp_path, finished):
    folder = copy_run(finished, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["initial_lr"] = 0.5
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"checkpoint_last\.pt was made with other initial_lr:"):
        train(str(folder), resume=True)


@pytest.mark.parametrize("key", ["optimizer", "random_states"])
def test_resume_from_a_malformed_checkpoint(tmp_path, finished, key):
    folder = copy_run(finished, tmp_path / "run")
    state = ckpt.load_checkpoint(folder / ckpt.LAST)
    torch.save(state | {key: {"x": 1}}, folder / ckpt.LAST)
    with pytest.raises(InputError, match=r"checkpoint_last\.pt .*damaged"):
        train(str(folder), resume=True)


def test_a_run_without_its_last_checkpoint_is_not_begun_again(tmp_path, finished):
    folder = copy_run(finished, tmp_path / "run")
    (folder / ckpt.LAST).unlink()
    before = (folder / ckpt.BEST).read_bytes()
    with pytest.raises(InputError, match=r"has no checkpoint_last\.pt to continue from: score its"):
        train(str(folder), resume=True)
    assert (folder / ckpt.BEST).read_bytes() == before


def test_finished_run_resumed_on_the_command_line(finished, run_command):
    done = run_command(finished[0], ["--resume"])
    assert done.returncode == 0
    assert "holds a finished run: nothing to do" in done.stdout


@pytest.mark.parametrize("content", ["", "sample,method\n0,a\n"])
def test_damaged_metrics_of_a_finished_run(tmp_path, finished, content):
    folder = copy_run(finished, tmp_path / "run")
    (folder / "metrics.csv").write_text(content)
    with pytest.raises(InputError, match=r"metrics\.csv is damaged: remove it, and --resume"):
        train(str(folder), resume=True)
    (folder / "metrics.csv").unlink()
    assert train(str(folder), resume=True) == finished[1]
    assert (folder / "metrics.csv").read_bytes() == (finished[0] / "metrics.csv").read_bytes()


def test_flags_that_contradict_the_run(tmp_path, finished, run_command):
    folder = copy_run(finished, tmp_path / "run")
    message = error_of(run_command(folder, ["--resume", "--num-epochs", "400"]))
    assert "--num-epochs 400 (the run has 4)" in message
    with pytest.raises(InputError, match=r"--acc 5 \(the run has 4\)"):
        train(str(folder), resume=True, acc=5)


def test_every_call_makes_progress_however_short_its_time(tmp_path, tiny_npz, monkeypatch):
    """Through training, searches, test and lesions; and ends with the same scores."""
    monkeypatch.setattr(lesion_score, "DIAMETERS", (4.0,))
    settings = TINY | {"data": str(tiny_npz), "num_epochs": 1, "lesions": True, "batch_size": 1}
    expected = train(str(tmp_path / "whole"), **settings)
    folder = tmp_path / "run"
    calls = 0
    for _ in range(40):
        calls += 1
        how = {"resume": True} if folder.exists() else settings
        try:
            assert train(str(folder), max_minutes=1e-9, **how) == expected
            break
        except Interrupted:
            assert not is_finished(folder)
    assert 8 < calls < 40  # 5 steps and 3 samples at least
    for name in ("metrics.csv", "lesions.csv"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (folder / "test_rows.jsonl").exists()


def test_scored_batches_are_not_scored_again(tmp_path, tiny_npz, monkeypatch):
    settings = TINY | {"data": str(tiny_npz), "num_epochs": 0, "batch_size": 1}
    with pytest.raises(Interrupted, match="while testing"):  # before the third of three batches
        train(str(tmp_path / "run"), **settings, max_steps=2)
    scored = []
    score = bench.score_batches

    def noted(methods, batches):
        scored.append(batches[0].samples)
        return score(methods, batches)

    monkeypatch.setattr(bench, "score_batches", noted)
    train(str(tmp_path / "run"), resume=True)
    assert len(scored) == 1


def test_a_stop_while_pictures_are_drawn_loses_no_scores(tmp_path, tiny_npz, finished, monkeypatch):
    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "write_film", stopped)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(str(folder), data=str(tiny_npz), **TINY)
    assert (folder / "metrics.csv").read_bytes() == (finished[0] / "metrics.csv").read_bytes()
    assert "Caveats" in (folder / "output.txt").read_text()
    monkeypatch.undo()
    assert train(str(folder), resume=True) == finished[1]
    assert (folder / "cine.gif").exists()


def test_a_run_goes_on_wherever_it_and_its_data_are(tmp_path, finished, tiny_npz, monkeypatch):
    folder = copy_run(finished, tmp_path / "run")
    moved = tmp_path / "moved.npz"
    moved.write_bytes(tiny_npz.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["data"] = "gone.npz"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"gone\.npz does not exist"):
        train(str(folder), resume=True)
    monkeypatch.chdir(tmp_path)
    assert train("run", resume=True, data="moved.npz", device="cpu") == finished[1]


def test_a_run_without_training_does_not_go_on_with_other_data(tmp_path, tiny_npz, images):
    settings = TINY | {"num_epochs": 0}
    train(str(tmp_path / "run"), data=str(tiny_npz), **settings)
    (tmp_path / "run" / "metrics.csv").unlink()
    np.savez(tmp_path / "other.npz", dataset=images[::-1])
    with pytest.raises(InputError, match="was begun with other data") as error:
        train(str(tmp_path / "run"), resume=True, data=str(tmp_path / "other.npz"))
    assert "--data" in str(error.value)
    train(str(tmp_path / "run"), resume=True, data=str(tiny_npz))  # the remedy


def test_a_keyword_that_equals_its_default_contradicts_a_run_too(tmp_path, finished):
    folder = copy_run(finished, tmp_path / "run")
    with pytest.raises(InputError, match=r"--acc 6 \(the run has 4\)"):
        train(str(folder), resume=True, acc=6)


@pytest.mark.parametrize("given", [{}, {"arrays": "none"}])
def test_a_run_begun_before_arrays_were_a_setting_goes_on(tmp_path, finished, given):
    folder = copy_run(finished, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    del config["settings"]["arrays"]
    (folder / "config.json").write_text(json.dumps(config))
    last = ckpt.load_checkpoint(folder / ckpt.LAST)
    del last["settings"]["arrays"]
    torch.save(last, folder / ckpt.LAST)
    assert train(str(folder), resume=True, **given) == finished[1]
    assert (folder / "reconstructions.npz").exists() == (not given)


def test_a_damaged_last_checkpoint_beside_a_good_one(tmp_path, finished, tiny_npz):
    folder = copy_run(finished, tmp_path / "run")
    (folder / ckpt.LAST).write_bytes((folder / ckpt.LAST).read_bytes()[:-500])
    with pytest.raises(InputError, match=r"_last\.pt .*checkpoint_best\.pt beside it can be"):
        train(str(folder), resume=True)
    again = train(  # the remedy
        str(tmp_path / "scores"),
        data=str(tiny_npz),
        **TINY | {"num_epochs": 0, "initial_weights": str(folder / ckpt.BEST)},
    )
    assert again == finished[1]


def test_a_finished_run_is_trained_longer_from_its_weights(tmp_path, finished, tiny_npz):
    with pytest.raises(InputError, match=r"from its weights with --initial-weights .*last\.pt"):
        train(str(finished[0]), resume=True, num_epochs=5)
    start = str(finished[0] / ckpt.LAST)
    settings = TINY | {"num_epochs": 1, "initial_weights": start}
    assert train(str(tmp_path / "longer"), data=str(tiny_npz), **settings)


def test_the_precision_chosen_on_the_first_machine_is_recorded_and_kept(
    tmp_path, tiny_npz, monkeypatch
):
    settings = {k: v for k, v in TINY.items() if k != "precision"}
    monkeypatch.setattr(machine, "fast_precision", lambda device: "bfloat16")
    train(str(tmp_path / "whole"), data=str(tiny_npz), **settings)
    with pytest.raises(Interrupted):
        train(str(tmp_path / "broken"), data=str(tiny_npz), **settings, max_steps=3)
    assert read_config(tmp_path / "broken")["settings"]["precision"] == "bfloat16"
    assert "--precision bfloat16" in (tmp_path / "broken" / "settings.txt").read_text()

    monkeypatch.setattr(machine, "fast_precision", lambda device: "float32")
    train(str(tmp_path / "broken"), resume=True)
    assert ", cosine, bfloat16" in report_of(tmp_path / "broken")
    metrics = [(tmp_path / name / "metrics.csv").read_bytes() for name in ("whole", "broken")]
    assert metrics[0] == metrics[1]
