"""Inputs that cannot be used, and folders that must not be touched."""

import numpy as np
import pytest
import torch
from helpers import TINY, copy_run, error_of

from train import train
from training import checkpoint as ckpt
from training.checks import memory_advice
from training.run_folder import require_empty
from training.step import Stepper
from util import files
from util.errors import InputError
from util.files import claimed_folder


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "missing.npz"}, "missing.npz does not exist"),
        ({"in_channels": 20}, "has 8 frames, but --in-channels is 20 and --out-channels 8"),
        ({"acc": 0.5}, "acc must be a finite number of at least 1, got 0.5"),
        ({"acc": 10}, "sample_n must be between 0 and int(32 / 10) = 3 lines a frame, got 4"),
        ({"sample_n": -1}, "got -1"),
        ({"acc": 4, "sample_n": 8, "error_map": True}, "needs 5 lines outside the centre"),
        ({"split": (1, 0, 1)}, "the parts train, validation, test must not be empty"),
        ({"split": (1, 1)}, "three ratios"),
        ({"split": (1e308, 1e308, 1e308)}, "--split is"),
        ({"picture_format": "gif"}, "--picture-format"),
        ({"picture_width": 1}, "--picture-width is 1, expected at least 3"),
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
        ({"acc": (8, 4)}, "--acc is (8, 4), expected one, or a lowest and a highest"),
        ({"acc": (4, 5, 6)}, "--acc is (4, 5, 6)"),
        ({"acc": (4, 9)}, "got 4: choose fewer centre lines"),
        ({"test_acc": (4, 33)}, "acc=33"),
        ({"loss": "huber"}, "--loss is 'huber', expected one of mse, l1"),
        ({"loss": "perpendicular", "data": "phantom"}, "these are assumed to be real-valued"),
        ({"precision": "float16"}, "expected one of float32, bfloat16"),
        ({"arrays": "tiny"}, "--arrays is 'tiny', expected one of all, small, none"),
        ({"baselines": ("magic",)}, "--baselines is 'magic', expected one of zero_filled"),
        ({"baselines": ("kt_sparse,hermitian",)}, "patch_low_rank: separate several by spaces"),
        ({"ema": 1.0}, "--ema is 1.0"),
        ({"augment": ("rotation",)}, "--augment is 'rotation', expected one of flips, time"),
        ({"noise": -0.1}, "--noise is -0.1, expected at least 0"),
        ({"noise": (0.02, 0.01)}, "--noise is (0.02, 0.01), expected one, or a lowest"),
        ({"strip": -1}, "--strip is -1, expected at least 0"),
        ({"learn_dc_weight": True}, "--learn-dc-weight needs a --dc-weight"),
        ({"dc_weight": 0.0}, "--dc-weight is 0.0, expected at least 1e-06"),
        ({"real_image": True, "phase": True}, "--real-image"),
        ({"complex_pairs": True}, "--complex-pairs expects"),
        ({"num_epochs": 0, "baselines": ()}, "there is nothing to score"),
        ({"num_epochs": 0, "baselines": ("hermitian",), "real_image": False}, "nothing to score"),
        ({"num_epochs": "4"}, "--num-epochs is '4', expected int"),
    ],
)
def test_wrong_settings_are_refused_at_once(tmp_path, tiny_npz, settings, message):
    folder = tmp_path / "run"
    with pytest.raises(InputError) as error:
        train(folder, **{"data": tiny_npz} | TINY | settings)
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


def test_cuda_without_cuda(tmp_path, tiny_npz, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"--device cuda:99 cannot be used here \(CUDA is not"):
        train(tmp_path / "run", data=tiny_npz, **TINY | {"device": "cuda:99"})


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
    ],
)
def test_out_of_memory(tmp_path, tiny_npz, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(Stepper, "step", fail)
    with pytest.raises(InputError, match=r"out of memory .*lower --batch-size \(2\).*--accumul"):
        train(tmp_path / "run", data=tiny_npz, **TINY)
    assert ckpt.load_checkpoint(tmp_path / "run" / ckpt.LAST)["epoch"] == 0


@pytest.mark.parametrize(
    ("change", "architecture", "message"),
    [
        ({"model": "gan"}, {}, r"odd\.pt holds the unknown model 'gan'"),
        ({"model": "unet", "architecture": {"layers": 3}}, {}, "its unet by .*layers, exp"),
        ({}, {"init_features": "x"}, "is 'x', expected"),
        ({}, {"dropout": 2.0}, "is 2.0, expected less"),
    ],
)
def test_initial_weights_of_a_stranger(tmp_path, tiny_npz, finished, change, architecture, message):
    state, path = ckpt.load_checkpoint(finished[0] / ckpt.BEST), tmp_path / "odd.pt"
    state["architecture"] |= architecture
    torch.save(state | change, path)
    with pytest.raises(InputError, match=message):
        train(tmp_path / "run", data=tiny_npz, initial_weights=str(path), **TINY)


def test_other_folders_are_left_alone(tmp_path, tiny_npz, finished, trained, monkeypatch):
    def refused(folder, message, **settings):
        with pytest.raises(InputError, match=message):
            train(folder, data=tiny_npz, **TINY | settings)

    before = {p: p.read_bytes() for p in finished[0].rglob("*") if p.is_file()}
    refused(finished[0], "holds a finished run: name another folder, or continue with --resume")
    assert train(finished[0], resume=True) == finished[1]  # says so, and does nothing
    assert {p: p.read_bytes() for p in finished[0].rglob("*") if p.is_file()} == before

    refused(copy_run(trained, tmp_path / "unfinished"), "holds an unfinished run")
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
    with claimed_folder(str(tmp_path / "new"), require_empty):
        refused(tmp_path / "new", "is in use by another run")
    monkeypatch.setattr(files.os, "access", lambda *a: False)
    refused(tmp_path / "mine", "is read-only")


def test_frames_that_the_initial_weights_do_not_take(tmp_path, images, finished):
    np.savez(tmp_path / "short.npz", dataset=images[:, :5])
    settings = TINY | {"initial_weights": str(finished[0] / ckpt.BEST)}
    with pytest.raises(InputError, match=r"5 frames, but .*best\.pt takes 8: use data of 8 frames"):
        train(tmp_path / "run", data=tmp_path / "short.npz", **settings)


def test_advice_on_memory_names_what_can_be_changed():
    settings = {"batch_size": 2, "init_features": 8, "accumulation": 1, "strip": 0}
    unet = settings | {"model": "unet", "initial_weights": None}
    assert "--init-features (8)" in memory_advice(unet)
    assert "--init-features" not in memory_advice(unet | {"initial_weights": "x.pt"})
    assert "--strip (32)" in memory_advice(unet | {"model": "cascade", "strip": 32})
