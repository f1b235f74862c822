"""Training with `train()` and `python train.py`: the settings and what they do."""

import json
import re
from functools import partial

import numpy as np
import pytest
import torch
from helpers import CASCADE, METHODS, TINY, make_images, report_of, rows_of
from torch._dynamo.utils import counters

import train as train_script
from evaluation import bench
from methods.baselines import BASELINES, baseline
from model import compile_parts
from report.names import in_words
from train import train
from training import checkpoint as ckpt
from training.run_folder import read_config, read_history
from util import machine
from util.errors import InputError
from util.settings import settings_of


def test_training_learns(tmp_path, tiny_npz):
    settings = TINY | {"num_epochs": 30, "validate_every": 10}
    settings |= {"init_features": 4, "initial_lr": 2e-2}
    returned = train(tmp_path / "run", data=tiny_npz, **settings)
    history = ckpt.load_checkpoint(tmp_path / "run" / ckpt.BEST)["history"]
    assert history[-1]["train/loss"] < history[0]["train/loss"] / 1.5
    assert returned["unet_resnet"]["psnr"] > returned["zero_filled"]["psnr"] + 1


def test_accumulation_takes_the_same_steps(tmp_path, tiny_npz):
    settings = TINY | {"batch_norm": False, "num_epochs": 2}
    first = train(tmp_path / "a", data=tiny_npz, **settings)
    second = train(tmp_path / "b", data=tiny_npz, **settings, accumulation=2)
    assert first["unet_resnet"]["psnr"] == pytest.approx(second["unet_resnet"]["psnr"], abs=1e-3)


def test_a_pool_of_masks_is_a_setting(tmp_path, tiny_npz, finished):
    kept = train(tmp_path / "kept", data=tiny_npz, **TINY, mask_pool=1)
    assert kept["unet_resnet"] != finished[1]["unet_resnet"]


def test_cascade_beats_its_start_and_the_average_is_what_is_kept(tmp_path, tiny_npz):
    settings = CASCADE | {"num_epochs": 12, "validate_every": 12}
    settings |= {"baselines": ("hermitian_view_sharing",)}
    returned = train(tmp_path / "run", data=tiny_npz, **settings)
    assert returned["cascade"]["psnr"] > returned["hermitian_view_sharing"]["psnr"] + 0.1
    plain = train(tmp_path / "plain", data=tiny_npz, **settings | {"ema": 0.0})
    assert plain["cascade"] != returned["cascade"]
    again = train(
        tmp_path / "again",
        data=tiny_npz,
        initial_weights=str(tmp_path / "run" / ckpt.BEST),
        **settings | {"num_epochs": 0},
    )
    assert again["cascade"] == returned["cascade"]


def test_a_loss_on_every_stage_trains_the_first_one_too(tmp_path, tiny_npz, capsys):
    settings = CASCADE | {"num_epochs": 1, "stages": 3}
    first = []
    for weight in (0.0, 1.0):
        folder = tmp_path / str(weight)
        train(folder, data=tiny_npz, stage_loss=weight, **settings)
        (line,) = re.findall(r"mean PSNR in dB after each stage (.*)", report_of(folder))
        assert len(line.split(", ")) == 3
        assert line in capsys.readouterr().out
        first.append(ckpt.load_checkpoint(folder / ckpt.BEST)["weights"]["stages.0.project.weight"])
    assert not torch.equal(*first)


@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
def test_a_compiled_network_scores_as_the_plain_one(tmp_path, tiny_npz, finished, monkeypatch):
    # without the compiler of C++, which takes minutes
    compiled_parts = partial(compile_parts, backend="aot_eager")
    monkeypatch.setattr(train_script, "compile_parts", compiled_parts)
    monkeypatch.setattr(machine.shutil, "which", lambda name: name)
    scores = train(tmp_path / "compiled", data=tiny_npz, compile=True, **TINY)["unet_resnet"]
    assert scores["psnr"] == pytest.approx(finished[1]["unet_resnet"]["psnr"], abs=0.01)
    assert counters["stats"]["unique_graphs"] > 0
    plain, compiled = (
        ckpt.load_checkpoint(folder / ckpt.BEST)["weights"]
        for folder in (finished[0], tmp_path / "compiled")
    )
    assert plain.keys() == compiled.keys()


def test_compiling_needs_a_compiler_and_a_cuda_graph_cuda(tmp_path, tiny_npz, monkeypatch, capsys):
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    settings = TINY | {"data": tiny_npz, "num_epochs": 1}
    for others, message in (
        ({"compile": True}, r"--compile needs a C\+\+ compiler"),
        ({"compile": True, "cuda_graph": True}, "--cuda-graph and --compile cannot be combined"),
        (
            {"cuda_graph": True, "gradient_checkpointing": True},
            "--cuda-graph cannot record --gradient-checkpointing",
        ),
    ):
        with pytest.raises(InputError, match=message):
            train(tmp_path / "none", **settings | others)
    train(tmp_path / "run", **settings, cuda_graph=True)
    assert "NOTICE: --cuda-graph does nothing on cpu" in capsys.readouterr().out


def test_the_mean_over_flips_is_a_second_network_in_the_report(tmp_path, tiny_npz):
    settings = CASCADE | {"num_epochs": 1, "average": 4, "arrays": "small"}
    scores = train(tmp_path / "out", data=tiny_npz, **settings)
    assert list(scores)[:2] == ["cascade", "cascade_average4"]
    assert scores["cascade"] != scores["cascade_average4"]
    text = report_of(tmp_path / "out")
    assert "cascade_average4: the mean of its images of 4 mirrored series" in text
    text = " ".join(text.split())
    assert re.search(r"scores: cascade \d+\.\d\d, cascade_average4 \d+\.\d\d", text)
    for network in ("cascade", "cascade_average4"):
        assert f"{network} minus view_sharing: " in text
        page = (tmp_path / "out" / "report.html").read_text()
        assert f"{in_words(network)}, acceleration 4" in page
    with pytest.raises(InputError, match="--average is 3, expected one of 1, 2, 4, 8"):
        train(tmp_path / "none", data=tiny_npz, **settings | {"average": 3})


def test_bfloat16_is_close_to_float32_and_not_the_same(tmp_path, tiny_npz):
    scores = [
        train(tmp_path / name, data=tiny_npz, **CASCADE | {"precision": name})["cascade"]
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
    train(tmp_path / "run", data=tiny_npz, **settings)
    assert max(norms) == pytest.approx(1e-3, rel=1e-2)


def test_a_range_of_accelerations_is_trained_and_each_scored(tmp_path, tiny_npz):
    settings = CASCADE | {"acc": (3, 6), "num_epochs": 1}
    train(tmp_path / "run", data=tiny_npz, **settings)
    rows = rows_of(tmp_path / "run")
    assert list(dict.fromkeys(row["acc"] for row in rows)) == ["3", "4.5", "6"]
    assert len(rows) == 3 * 3 * 4
    text = report_of(tmp_path / "run")
    for acc in ("3", "4.5", "6"):
        assert re.search(rf"^Acceleration {acc}\nmethod +MSE", text, re.MULTILINE)
        of_view_sharing = [
            float(row["psnr"])
            for row in rows
            if row["acc"] == acc and row["method"] == "view_sharing"
        ]
        assert f"{np.mean(of_view_sharing):.2f} ± " in text
    assert "training masks (gaussian lines at acceleration 3 to 6, with 4 centre lines) are" in text


def test_several_patterns_are_trained_together_and_each_scored(tmp_path, tiny_npz):
    settings = CASCADE | {"pattern": ("gaussian", "equispaced"), "sample_n": (0, 4)}
    settings |= {"partial_fourier": (1.0, 0.75), "num_epochs": 1, "num_pictures": 1}
    train(tmp_path / "run", data=tiny_npz, **settings)
    rows = rows_of(tmp_path / "run")
    assert [row["pattern"] for row in rows] == ["gaussian"] * 12 + ["equispaced"] * 12
    text = " ".join(report_of(tmp_path / "run").split())
    assert (
        "training masks (gaussian or equispaced lines at acceleration 4, with 0 or 4 centre lines"
        " and 1 or 0.75 partial Fourier) are drawn" in text
    )
    assert "Cartesian, equispaced, 1 or 0.75 partial Fourier: " in text
    for title in ("Acceleration 4, gaussian lines", "Acceleration 4, equispaced lines"):
        assert f"{title} method MSE" in text
    assert "validation/psnr of the best training-free method" not in text  # each mask has its own
    assert "acceleration 4, equispaced lines, mean PSNR of 3 test samples in dB: " in text
    page = (tmp_path / "run" / "report.html").read_text()
    assert "(acceleration 4, gaussian lines, the first of the 2 tested)" in page


def test_all_baselines_are_scored_and_the_second_run_recalls_them(tmp_path, tiny_npz, monkeypatch):
    settings = TINY | {"num_epochs": 0, "baselines": None, "num_pictures": 0}
    settings |= {"n_samples": 5, "split": (2, 1, 2)}
    monkeypatch.setenv("CINE_CACHE", str(tmp_path / "cache"))
    first = train(tmp_path / "a", data=tiny_npz, **settings)
    assert list(first) == [name for name in BASELINES if name != "cg_sense"]
    assert first["hermitian"]["psnr"] > first["zero_filled"]["psnr"]
    text = report_of(tmp_path / "a")
    assert re.search(
        r"temporal_tv, acceleration 4: bound \S+ \(the best that a search on training", text
    )
    assert re.search(r"actual 4, and 2\.\d+ if conjugate-symmetric partners count", text)

    computed = []

    def counted(name, *arguments, **parameters):
        method = baseline(name, *arguments, **parameters)

        def reconstruct(aliased, mask):
            computed.append((name, len(aliased)))
            return method(aliased, mask)

        return reconstruct

    monkeypatch.setattr(bench, "baseline", counted)
    train(tmp_path / "no_pictures", data=tiny_npz, **settings)
    assert {name for name, _ in computed} == set(first)  # for their time
    in_full = {"patch_low_rank", "kt_sparse"}  # in arrays and film
    assert {name for name, size in computed if size > 1} <= in_full
    computed.clear()
    settings["num_pictures"] = 1
    assert train(tmp_path / "b", data=tiny_npz, **settings) == first
    assert rows_of(tmp_path / "b") == rows_of(tmp_path / "a")
    assert list((tmp_path / "b" / "reconstruction").iterdir())
    assert {name for name, size in computed if size > 1} <= in_full


@pytest.mark.parametrize("model", ["unet", "unet_resnet", "cnn3d", "cascade"])
@pytest.mark.parametrize("kind", ["complex data", "phase and noise"])
def test_complex_images_end_to_end(tmp_path, images, model, kind):
    settings = CASCADE | {"model": model, "num_epochs": 1, "data_consistency": True}
    if kind == "complex data":
        images = images * np.exp(1j * np.linspace(0, 2, 36)).astype(np.complex64)
    else:
        settings |= {"phase": True, "noise": 0.01}
    np.savez(tmp_path / "data.npz", dataset=images)
    returned = train(tmp_path / "run", data=tmp_path / "data.npz", **settings)
    least = {"cascade": "view_sharing"}.get(model, "zero_filled")
    assert returned[model]["psnr"] > returned[least]["psnr"] - 0.2
    text = report_of(tmp_path / "run")
    assert "real-image prior (a sampled line gives its conjugate-symmetric partner): off" in text
    assert ("implicit data crimes" in text.lower()) is (kind != "complex data")
    with np.load(tmp_path / "run" / "reconstructions.npz") as arrays:
        index = arrays["index"]
        np.testing.assert_allclose(arrays["target"], np.abs(images[index]), atol=1e-6)
    with pytest.raises(InputError, match=r"--real-image .* have a phase"):
        train(tmp_path / "x", data=tmp_path / "data.npz", **settings | {"real_image": True})


def test_settings_of_another_model_are_named_and_change_nothing(tmp_path, tiny_npz, capsys):
    settings = TINY | {"num_epochs": 0, "stages": 3, "dc_weight": 2.0}
    train(tmp_path / "run", data=tiny_npz, **settings)
    text = capsys.readouterr().out
    assert "NOTICE: --stages does not apply to the model unet_resnet" in text
    assert "NOTICE: --dc-weight does not apply to the model unet_resnet" in text
    settings = CASCADE | {"num_epochs": 1, "in_channels": 20, "out_channels": 20}  # of 8 frames
    assert "cascade" in train(tmp_path / "cascade", data=tiny_npz, **settings)


def test_no_epochs_and_no_weights_scores_the_baselines(tmp_path, tiny_npz, finished):
    folder = tmp_path / "run"
    returned = train(folder, data=tiny_npz, **TINY | {"num_epochs": 0})
    assert list(returned) == METHODS[1:]
    assert returned == {name: finished[1][name] for name in METHODS[1:]}
    assert not (folder / ckpt.LAST).exists()
    assert not (folder / "curves.png").exists()


def test_a_checkpoint_is_scored_and_its_data_named(tmp_path, tiny_npz, finished, run_command):
    config = json.loads((finished[0] / "config.json").read_text())
    settings = TINY | {"num_epochs": 0, "split": (0, 0, 1)}
    settings |= {"data": tiny_npz, "initial_weights": finished[0] / ckpt.BEST}
    done = run_command(tmp_path / "run", **settings)
    assert done.returncode == 0, done.stderr
    text = report_of(tmp_path / "run")
    trained = ", ".join(map(str, config["split"]["train"]))
    assert "WARNING: 5 of 9 test samples trained the checkpoint" in text
    assert f"starts from: {trained};" in text
    chose = ", ".join(map(str, config["split"]["validation"]))
    assert f"selected the checkpoint (validation) that this run starts from: {chose};" in text
    rows = {(row["sample"], row["method"]): row for row in rows_of(tmp_path / "run")}
    assert len(rows) == 9 * len(METHODS)
    for row in rows_of(finished[0]):
        assert rows[row["sample"], row["method"]]["psnr"] == row["psnr"]


def test_weights_on_other_lines_and_noise_are_said_to_be_outside_of_their_training(
    tmp_path, tiny_npz, finished, capsys
):
    settings = TINY | {"num_epochs": 0, "initial_weights": str(finished[0] / ckpt.BEST)}
    train(tmp_path / "same", data=tiny_npz, **settings)
    assert "outside of the training" not in capsys.readouterr().out
    changed = {"pattern": ("gaussian", "equispaced"), "sample_n": 0, "noise": 0.02}
    train(tmp_path / "other", data=tiny_npz, **settings | changed)
    page = (tmp_path / "other" / "report.html").read_text()
    for text in (capsys.readouterr().out, report_of(tmp_path / "other"), page):
        assert "outside of the training: 0 lines in the centre that every frame" in text
        assert "outside of the training: noise 0.02, the weights were trained with 0" in text


def test_training_goes_on_from_initial_weights(tmp_path, tiny_npz, finished):
    start = str(finished[0] / ckpt.BEST)
    settings = TINY | {"num_epochs": 1, "init_features": 7, "model": "unet"}
    train(tmp_path / "run", data=tiny_npz, initial_weights=start, **settings)
    state = ckpt.load_checkpoint(tmp_path / "run" / ckpt.BEST)
    assert state["model"] == "unet_resnet"  # the architecture is the checkpoint's
    assert state["architecture"]["init_features"] == 2
    assert state["epoch"] == 1


def test_validation_samples_that_trained_the_weights_are_named(tmp_path, tiny_npz, finished):
    start = str(finished[0] / ckpt.BEST)
    settings = TINY | {"num_epochs": 1, "data_seed": 3, "initial_weights": start}
    train(tmp_path / "run", data=tiny_npz, **settings)
    before, now = (
        json.loads((folder / "config.json").read_text())["split"]
        for folder in (finished[0], tmp_path / "run")
    )
    assert set(now["validation"]) <= set(before["train"])  # by this choice of data_seed
    assert re.search(
        rf"WARNING: 1 of 1 validation sample trained .*: {now['validation'][0]};",
        report_of(tmp_path / "run"),
    )


def test_few_frames_and_odd_sizes(tmp_path):
    np.savez(tmp_path / "odd.npz", dataset=make_images(5, n_frames=3, ny=21, nx=17))
    settings = TINY | {"in_channels": 3, "out_channels": 3, "num_epochs": 1}
    returned = train(tmp_path / "run", data=tmp_path / "odd.npz", **settings)
    assert np.isnan(returned["unet_resnet"]["ssim"])
    assert np.isfinite(returned["unet_resnet"]["ssim_2d"])
    assert re.search(r"^unet_resnet .* absent ", report_of(tmp_path / "run"), re.M)


def test_constant_samples_train_and_score(tmp_path, images):
    images = images.copy()
    images[::2] = 0
    np.savez(tmp_path / "flat.npz", dataset=images)
    settings = TINY | {"num_epochs": 1}
    returned = train(tmp_path / "run", data=tmp_path / "flat.npz", **settings)
    assert all(np.isfinite(v) for scores in returned.values() for v in scores.values())
    text = report_of(tmp_path / "run")
    assert "samples of a single value: 0, 2, 4" in text
    assert re.search(r"the means include samples that have a single value", text)


def test_import_starts_nothing_and_every_flag_has_help(tmp_path, run_command):
    done = run_command("x", ["--help"])
    assert done.returncode == 0
    assert not any(tmp_path.iterdir())
    assert all(setting.help for setting in settings_of(train))


def test_a_function_gets_every_epoch_and_the_test(tmp_path, tiny_npz, finished):
    rows = []
    folder = tmp_path / "run"
    returned = train(folder, data=tiny_npz, **TINY, log=rows.append)
    assert returned == finished[1]
    *epochs, test = rows
    assert [row["epoch"] for row in epochs] == [1, 2, 3, 4]
    for row, stored in zip(epochs, read_history(folder), strict=True):
        assert row == pytest.approx(stored)
    assert test == {"epoch": 4} | {f"test/{k}": v for k, v in returned["unet_resnet"].items()}
    assert "log" not in read_config(folder)["settings"]
    assert "log" not in {setting.name for setting in settings_of(train)}
    rows.clear()
    train(folder, resume=True, log=rows.append)
    assert rows == []  # it was finished


def test_a_function_that_fails_ends_a_run_that_can_be_resumed(tmp_path, tiny_npz, finished):
    rows, folder = [], tmp_path / "run"

    def fails(row):
        row["train/loss"] = None  # a copy
        if row["epoch"] == 2:
            raise ConnectionError("no network")

    with pytest.raises(ConnectionError, match="no network"):
        train(folder, data=tiny_npz, **TINY, log=fails)
    assert [row["epoch"] for row in read_history(folder)] == [1, 2]
    assert train(folder, resume=True, data=tiny_npz, log=rows.append) == finished[1]
    assert [row["epoch"] for row in rows] == [3, 4, 4]

    def fails_at_the_end(row):
        if "test/psnr" in row:
            raise ConnectionError("no network")

    with pytest.raises(ConnectionError):
        train(tmp_path / "other", data=tiny_npz, **TINY, log=fails_at_the_end)
    assert train(tmp_path / "other", resume=True) == finished[1]
