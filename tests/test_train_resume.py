"""Stopping a run at any moment, and continuing it with the same bits."""

import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Command
from helpers import CASCADE, TINY, copy_run, error_of, report_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from evaluation import bench, lesion_score
from methods.start import OF_PATCH
from report import pictures
from train import train
from training import checkpoint as ckpt
from training import loop, step
from training.run_folder import is_finished, read_config, read_history, write_config
from util import machine
from util.command_line import as_flags
from util.errors import EXIT_INTERRUPTED, InputError, Interrupted

MEASURED = ("seconds", "peak_memory")  # in the history, of this run alone
LONG = TINY | {"num_epochs": 15, "dropout": 0.1}  # long enough to be interrupted


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
    train(folder, data=tiny_npz, **LONG)
    return folder


def edit_settings(folder, **settings) -> None:
    """Change settings in a run's `config.json`."""
    config = read_config(folder)
    config["settings"] |= settings
    write_config(folder, config)


@pytest.fixture
def unfinished(tmp_path, trained):
    """A copy of the trained run, which is to be tested."""
    return copy_run(trained, tmp_path / "run")


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

    train(broken, resume=True)
    assert (broken / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert not (broken / ckpt.LAST).exists()  # nothing is left to continue
    assert_same_training(whole, broken)
    for name, tag in (("broken", "Validation/psnr"), ("broken-train", "Validation/loss")):
        events = EventAccumulator(str(broken / "tensorboard" / name)).Reload()
        assert [event.step for event in events.Scalars(tag)] == list(range(1, 16))


def assert_same_training(first: Path, second: Path) -> None:
    """Two runs have the same weights and the same losses and scores after every epoch."""
    for (name, value), other in zip(weights_of(first), weights_of(second), strict=True):
        assert torch.equal(value, other[1]), name
    ours, theirs = (
        [{k: v for k, v in entry.items() if k not in MEASURED} for entry in read_history(folder)]
        for folder in (first, second)
    )
    assert ours == theirs


def weights_of(folder: Path) -> list[tuple[str, torch.Tensor]]:
    return list(ckpt.load_checkpoint(folder / ckpt.BEST)["weights"].items())


@pytest.mark.parametrize("max_steps", [1, 3, 11, 12])
def test_resume_in_mid_epoch_is_bit_equal(finished, tmp_path, tiny_npz, max_steps):
    with pytest.raises(Interrupted, match=r"stopped by max_steps .*; continue with: python train"):
        train(tmp_path / "run", data=tiny_npz, **TINY, max_steps=max_steps)
    state = ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)
    assert (state["epoch"], state["step"]) == divmod(max_steps, 3)  # 3 steps an epoch
    returned = train(tmp_path / "run", resume=True)
    assert returned == finished[1]
    metrics = [(folder / "metrics.csv").read_bytes() for folder in (tmp_path / "run", finished[0])]
    assert metrics[0] == metrics[1]


def test_cascade_resumes_with_the_same_bits(tmp_path, tiny_npz, monkeypatch):
    monkeypatch.setitem(OF_PATCH, "n_steps", 8)  # for time
    settings = CASCADE | {"start": "patch", "mask_pool": 2}
    returned = train(tmp_path / "whole", data=tiny_npz, **settings)
    with pytest.raises(Interrupted):
        train(tmp_path / "broken", data=tiny_npz, **settings, max_steps=14)
    assert train(tmp_path / "broken", resume=True) == returned
    assert_same_training(tmp_path / "whole", tmp_path / "broken")


def test_max_minutes_stops_as_a_signal_does(tmp_path, tiny_npz, run_command):
    done = run_command(tmp_path / "run", data=tiny_npz, **TINY, max_minutes=1e-6)
    assert "stopped by max_minutes in epoch 1, after 1 of 3 steps" in error_of(
        done, EXIT_INTERRUPTED
    )
    assert (tmp_path / "run" / ckpt.LAST).exists()


def test_resume_needs_no_initial_weights_and_names_changes(tmp_path, tiny_npz, finished, capsys):
    start, folder = tmp_path / "start.pt", tmp_path / "run"
    start.write_bytes((finished[0] / ckpt.BEST).read_bytes())
    settings = TINY | {"data": tiny_npz, "init_features": 7, "initial_weights": str(start)}
    with pytest.raises(Interrupted):
        train(folder, **settings, max_steps=4)
    start.unlink()
    write_config(folder, read_config(folder) | {"device": "abacus"})
    train(folder, **settings, resume=True)
    assert "NOTICE: device was abacus and is now cpu" in capsys.readouterr().out
    assert (folder / "metrics.csv").exists()


@pytest.mark.usefixtures("every_step")
def test_full_disk_in_training(tmp_path, tiny_npz, monkeypatch):
    save = torch.save
    saved = []

    def fill(content, file):
        saved.append(content["epoch"])
        if content["epoch"] == 3:
            raise OSError(28, "No space left on device")
        save(content, file)

    monkeypatch.setattr(ckpt.torch, "save", fill)
    with pytest.raises(InputError, match=r"No space left on device.*content is untouched"):
        train(tmp_path / "run", data=tiny_npz, **TINY)
    monkeypatch.undo()
    assert ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)["epoch"] == 2
    train(tmp_path / "run", resume=True)


@pytest.mark.parametrize("read_every", [2, 100])
def test_losses_read_later_and_batches_made_ahead_change_no_bit(
    finished, tmp_path, tiny_npz, monkeypatch, read_every
):
    monkeypatch.setitem(step.READ_EVERY, "cpu", read_every)  # as on a GPU
    monkeypatch.setitem(step.N_AHEAD, "cpu", 2)
    with pytest.raises(Interrupted):
        train(tmp_path / "run", data=tiny_npz, **TINY, max_steps=5)
    assert train(tmp_path / "run", resume=True) == finished[1]
    assert_same_training(finished[0], tmp_path / "run")


def test_what_was_trained_since_the_last_minute_is_repeated_with_the_same_bits(
    finished, tmp_path, tiny_npz, monkeypatch
):
    take_step, folder = step.Stepper.step, tmp_path / "run"

    def end(self, draws, batches):
        if len(self.training.history) == 3:
            raise SystemError("the machine is gone")
        return take_step(self, draws, batches)

    monkeypatch.setattr(step.Stepper, "step", end)
    with pytest.raises(SystemError):
        train(folder, data=tiny_npz, **TINY)
    assert len(read_history(folder)) == 3
    assert ckpt.load_checkpoint(folder / ckpt.LAST)["epoch"] == 0
    monkeypatch.undo()
    assert train(folder, resume=True) == finished[1]
    assert len(read_history(folder)) == TINY["num_epochs"]
    assert_same_training(finished[0], folder)


@pytest.fixture
def every_step(monkeypatch):
    """Training saves its state after every step."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0)


@pytest.mark.usefixtures("every_step")
def test_a_lost_run_continues_within_an_epoch(tmp_path, tiny_npz, finished, monkeypatch):
    take_step = step.Stepper.step

    def end(self, draws, batches):
        if len(self.training.history) == 1 and self.training.step == 2:
            raise SystemError("as if killed")
        return take_step(self, draws, batches)

    monkeypatch.setattr(step.Stepper, "step", end)
    with pytest.raises(SystemError):
        train(tmp_path / "run", data=tiny_npz, **TINY)
    state = ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)
    assert (state["epoch"], state["step"]) == (1, 2)
    monkeypatch.undo()
    assert train(tmp_path / "run", resume=True) == finished[1]
    assert_same_training(finished[0], tmp_path / "run")


@pytest.mark.usefixtures("every_step")
def test_non_finite_loss_keeps_the_last_good_checkpoint(tmp_path, tiny_npz, monkeypatch):
    take_step = step.Stepper.step

    def explode(self, draws, batches):
        loss = take_step(self, draws, batches)
        return loss * torch.nan if len(self.training.history) == 2 else loss

    monkeypatch.setattr(step.Stepper, "step", explode)
    with pytest.raises(InputError, match=r"loss is nan in epoch 3, step 1, on samples \d, \d;"):
        train(tmp_path / "run", data=tiny_npz, **TINY)
    state = ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)
    assert (state["epoch"], state["step"]) == (2, 0)


@pytest.mark.usefixtures("every_step")
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
        train(tmp_path / "run", data=tiny_npz, **TINY)
    assert ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)["epoch"] == 2


def test_resume_with_other_data(unfinished, tmp_path, images):
    changed = images.copy()
    changed[0, 0, 0, 0] += 0.01
    np.savez(tmp_path / "other.npz", dataset=changed)
    edit_settings(unfinished, data=str(tmp_path / "other.npz"), initial_lr=0.5)
    before = (unfinished / ckpt.LAST).read_bytes()
    with pytest.raises(InputError, match="was begun with other data"):
        train(unfinished, resume=True)
    assert (unfinished / ckpt.LAST).read_bytes() == before


def test_resume_with_settings_that_were_edited(unfinished):
    edit_settings(unfinished, initial_lr=0.5)
    with pytest.raises(InputError, match=r"checkpoint_last\.pt was made with other initial_lr:"):
        train(unfinished, resume=True)


@pytest.mark.parametrize("key", ["optimizer", "random_states"])
def test_resume_from_a_malformed_checkpoint(unfinished, key):
    state = ckpt.load_checkpoint(unfinished / ckpt.LAST)
    torch.save(state | {key: {"x": 1}}, unfinished / ckpt.LAST)
    with pytest.raises(InputError, match=r"checkpoint_last\.pt .*damaged"):
        train(unfinished, resume=True)


def test_a_run_without_its_last_checkpoint_is_not_begun_again(unfinished):
    (unfinished / ckpt.LAST).unlink()
    before = (unfinished / ckpt.BEST).read_bytes()
    with pytest.raises(InputError, match=r"has no checkpoint_last\.pt to continue from: score its"):
        train(unfinished, resume=True)
    assert (unfinished / ckpt.BEST).read_bytes() == before


@pytest.mark.parametrize("content", ["", "sample,method\n0,a\n"])
def test_damaged_metrics_of_a_finished_run(unfinished, finished, content):
    (unfinished / "metrics.csv").write_text(content)
    with pytest.raises(InputError, match=r"metrics\.csv is damaged: remove it, and --resume"):
        train(unfinished, resume=True)
    (unfinished / "metrics.csv").unlink()
    assert train(unfinished, resume=True) == finished[1]
    assert (unfinished / "metrics.csv").read_bytes() == (finished[0] / "metrics.csv").read_bytes()


def test_flags_that_contradict_the_run_and_a_finished_run(finished, unfinished, run_command):
    message = error_of(run_command(unfinished, ["--resume", "--num-epochs", "400"]))
    assert "--num-epochs 400 (the run has 4)" in message
    done = run_command(finished[0], ["--resume"])
    assert done.returncode == 0
    assert "holds a finished run: nothing to do" in done.stdout
    with pytest.raises(InputError, match=r"from its weights with --initial-weights .*best\.pt"):
        train(finished[0], resume=True, num_epochs=5)
    for acc in (5, 6):  # which is the default
        with pytest.raises(InputError, match=rf"--acc {acc} \(the run has 4\)"):
            train(unfinished, resume=True, acc=acc)


def test_every_call_makes_progress_however_short_its_time(tmp_path, tiny_npz, monkeypatch):
    """Through training, searches, test and lesions; and ends with the same scores."""
    monkeypatch.setattr(lesion_score, "DIAMETERS", (4.0,))
    settings = TINY | {"data": tiny_npz, "num_epochs": 1, "lesions": True, "batch_size": 1}
    settings |= {"n_samples": 5, "split": (2, 1, 2)}
    expected = train(tmp_path / "whole", **settings)
    folder = tmp_path / "run"
    calls = 0
    for _ in range(40):
        calls += 1
        how = {"resume": True} if folder.exists() else settings
        try:
            assert train(folder, max_minutes=1e-9, **how) == expected
            break
        except Interrupted:
            assert not is_finished(folder)
    assert 4 < calls < 40  # 2 steps and 2 samples at least
    for name in ("metrics.csv", "lesions.csv"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (folder / "test_rows.jsonl").exists()


def test_scored_batches_are_not_scored_again(tmp_path, tiny_npz, monkeypatch):
    settings = TINY | {"data": tiny_npz, "num_epochs": 0, "batch_size": 1}
    with pytest.raises(Interrupted, match="while testing"):  # before the third of three batches
        train(tmp_path / "run", **settings, max_steps=2)
    scored = []
    score = bench.score_batches

    def noted(methods, batches, hold_out):
        scored.append(batches[0].samples)
        return score(methods, batches, hold_out)

    monkeypatch.setattr(bench, "score_batches", noted)
    train(tmp_path / "run", resume=True)
    assert len(scored) == 1


def test_a_stop_while_pictures_are_drawn_loses_no_scores(tmp_path, tiny_npz, finished, monkeypatch):
    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "write_film", stopped)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(folder, data=tiny_npz, **TINY)
    assert (folder / "metrics.csv").read_bytes() == (finished[0] / "metrics.csv").read_bytes()
    assert "Caveats" in (folder / "output.txt").read_text()
    monkeypatch.undo()
    assert train(folder, resume=True) == finished[1]
    assert (folder / "cine.gif").exists()


def test_a_run_goes_on_wherever_it_is(unfinished, tmp_path, finished, tiny_npz, monkeypatch):
    moved = tmp_path / "moved.npz"
    moved.write_bytes(tiny_npz.read_bytes())
    edit_settings(unfinished, data="gone.npz")
    with pytest.raises(InputError, match=r"gone\.npz does not exist"):
        train(unfinished, resume=True)
    monkeypatch.chdir(tmp_path)
    assert train("run", resume=True, data="moved.npz", device="cpu") == finished[1]


def test_a_run_without_training_does_not_go_on_with_other_data(tmp_path, tiny_npz, images):
    settings = TINY | {"num_epochs": 0}
    train(tmp_path / "run", data=tiny_npz, **settings)
    (tmp_path / "run" / "metrics.csv").unlink()
    np.savez(tmp_path / "other.npz", dataset=images[::-1])
    with pytest.raises(InputError, match="was begun with other data") as error:
        train(tmp_path / "run", resume=True, data=tmp_path / "other.npz")
    assert "--data" in str(error.value)
    train(tmp_path / "run", resume=True, data=tiny_npz)  # the remedy


@pytest.mark.parametrize("given", [{}, {"arrays": "none"}])
def test_a_run_begun_before_arrays_were_a_setting_goes_on(unfinished, finished, given):
    config = read_config(unfinished)
    del config["settings"]["arrays"]
    write_config(unfinished, config)
    last = ckpt.load_checkpoint(unfinished / ckpt.LAST)
    del last["settings"]["arrays"]
    torch.save(last, unfinished / ckpt.LAST)
    assert train(unfinished, resume=True, **given) == finished[1]
    assert (unfinished / "reconstructions.npz").exists() == (not given)


def test_a_damaged_last_checkpoint_beside_a_good_one(unfinished, tmp_path, finished, tiny_npz):
    (unfinished / ckpt.LAST).write_bytes((unfinished / ckpt.LAST).read_bytes()[:-500])
    with pytest.raises(InputError, match=r"_last\.pt .*checkpoint_best\.pt beside it can be"):
        train(unfinished, resume=True)
    again = train(  # the remedy
        tmp_path / "scores",
        data=tiny_npz,
        **TINY | {"num_epochs": 0, "initial_weights": str(unfinished / ckpt.BEST)},
    )
    assert again == finished[1]


def test_the_precision_of_the_first_machine_is_kept(tmp_path, tiny_npz, monkeypatch):
    settings = {k: v for k, v in TINY.items() if k != "precision"} | {"num_epochs": 2}
    monkeypatch.setattr(machine, "fast_precision", lambda device: "bfloat16")
    train(tmp_path / "whole", data=tiny_npz, **settings)
    with pytest.raises(Interrupted):
        train(tmp_path / "broken", data=tiny_npz, **settings, max_steps=3)
    assert read_config(tmp_path / "broken")["settings"]["precision"] == "bfloat16"
    assert "--precision bfloat16" in (tmp_path / "broken" / "settings.txt").read_text()

    monkeypatch.setattr(machine, "fast_precision", lambda device: "float32")
    train(tmp_path / "broken", resume=True)
    assert ", cosine, bfloat16" in report_of(tmp_path / "broken")
    metrics = [(tmp_path / name / "metrics.csv").read_bytes() for name in ("whole", "broken")]
    assert metrics[0] == metrics[1]
