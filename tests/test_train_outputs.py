"""The files that a run leaves."""

import json
import re

import numpy as np
import pytest
import torch
from helpers import CASCADE, METHODS, ROOT, TINY, full_disk, report_of, rows_of, sampling
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from CS_mask import evaluation_masks
from evaluation.lesion import CONTRASTS, DIAMETERS
from metrics import SCORES, psnr
from physics.fourier import undersample
from report.film import PANEL
from report.names import in_words
from train import train
from training import checkpoint as ckpt
from training.run_folder import highest_peak, read_history
from util.files import read_csv


@pytest.fixture
def run(finished):
    """The folder of a finished run."""
    return finished[0]


def test_every_file_is_there(run):
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    events = {name for name in files if name.startswith("tensorboard/")}
    assert events
    sample = f"sample_{int(rows_of(run)[0]['sample']):04d}.png"
    pictures = ["heart", "under_sampling", "full_sampling", "reconstruction", "error", "profiles"]
    assert files - events == {
        *(f"{kind}/{sample}" for kind in pictures),
        *("mask.png", "curves.png", "cine.gif", "reconstructions.npz", "output.txt", "metrics.csv"),
        *("config.json", "settings.txt", "history.csv", "report.html", ckpt.BEST),
    }
    with Image.open(run / "cine.gif") as film:
        assert (film.n_frames, film.size[0], film.info["loop"]) == (8, 4 * PANEL, 0)


def test_figures_for_a_paper_are_vector_files_of_its_width(tmp_path, tiny_npz):
    settings = TINY | {"num_epochs": 1, "num_pictures": 1, "coils": 2, "real_image": None}
    train(tmp_path / "run", data=tiny_npz, **settings, picture_format="svg", picture_width=3.5)
    found = {path.relative_to(tmp_path / "run") for path in (tmp_path / "run").rglob("*.svg")}
    folders = {path.parent.name or path.stem for path in found}
    assert folders == {"heart", "profiles", "mask", "maps", "curves"}
    kinds = {path.parent.name for path in (tmp_path / "run").rglob("*.png")}
    assert kinds == {"under_sampling", "full_sampling", "reconstruction", "error"}
    for path in found:
        text = (tmp_path / "run" / path).read_text()
        assert float(re.search(r'<svg[^>]* width="([\d.]+)pt"', text)[1]) <= 72 * 3.5
        assert "</text>" in text
    page = (tmp_path / "run" / "report.html").read_text()
    assert '"sources": ["iVBOR' in page  # PNG


def test_metrics_have_a_row_for_each_sample_and_method(finished):
    folder, returned = finished
    rows = rows_of(folder)
    test_part = json.loads((folder / "config.json").read_text())["split"]["test"]
    assert list(rows[0]) == ["sample", "pattern", "acc", "method", *SCORES]
    assert [(int(row["sample"]), row["method"]) for row in rows] == [
        (sample, method) for sample in test_part for method in METHODS
    ]
    for method in METHODS:
        mean = np.mean([float(row["psnr"]) for row in rows if row["method"] == method])
        assert returned[method]["psnr"] == pytest.approx(mean, abs=1e-4)


def test_arrays_reproduce_the_scores_and_the_physics(run, images):
    rows = {(int(row["sample"]), row["method"]): row for row in rows_of(run)}
    with np.load(run / "reconstructions.npz") as arrays:
        stored = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    index = stored["index"].tolist()
    assert np.array_equal(stored["target"].numpy(), images[index])
    mask = torch.from_numpy(evaluation_masks(index, (8, 32), sampling(4), data_seed=0))
    assert torch.equal(stored["mask"], mask[..., 0].to(torch.uint8))
    torch.testing.assert_close(stored["aliased"], undersample(stored["target"], mask))
    for i, value in enumerate(psnr(stored["reconstruction"], stored["target"]).tolist()):
        assert float(rows[index[i], "unet_resnet"]["psnr"]) == pytest.approx(value, abs=1e-4)


def remade(arrays) -> torch.Tensor:
    """The aliased images, by the line on the Python page."""
    lines = (ROOT / "docs" / "python.md").read_text().splitlines()
    (line,) = (x for x in lines if x.startswith("aliased = undersample(target,"))
    target, mask = torch.from_numpy(arrays["target"]), torch.from_numpy(arrays["mask"])
    return eval(line.removeprefix("aliased = "), globals(), {"target": target, "mask": mask})


def test_small_arrays_are_the_same_in_half_precision(finished, tmp_path, tiny_npz):
    settings = TINY | {"data": tiny_npz, "arrays": "small"}
    assert train(tmp_path / "run", **settings) == finished[1]
    with (
        np.load(finished[0] / "reconstructions.npz") as whole,
        np.load(tmp_path / "run" / "reconstructions.npz") as small,
    ):
        assert set(whole.files) - set(small.files) == {"aliased"}
        for name in ("index", "mask"):
            assert np.array_equal(small[name], whole[name])
        for name in ("target", "reconstruction"):
            assert small[name].dtype == np.float16
            np.testing.assert_allclose(small[name], whole[name], rtol=2**-11, atol=2**-24)
        aliased = torch.from_numpy(whole["aliased"])
        torch.testing.assert_close(remade(whole), aliased)
        torch.testing.assert_close(remade(small), aliased, rtol=0, atol=5e-4)
    assert "--arrays small" in (tmp_path / "run" / "settings.txt").read_text()


def test_arrays_are_left_out_and_everything_else_is_there(finished, tmp_path, tiny_npz):
    folder = tmp_path / "run"
    assert train(folder, data=tiny_npz, **TINY | {"arrays": "none"}) == finished[1]
    assert not (folder / "reconstructions.npz").exists()
    for name in ("metrics.csv", "cine.gif", "mask.png"):
        assert (folder / name).read_bytes() == (finished[0] / name).read_bytes(), name


def test_report_reads_on_its_own(run):
    text = report_of(run)
    for heading in (
        "Verdict",
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
    assert "8 of 32 lines a frame (25.0%), 4 of them the centre, " in text
    assert "patients: unknown" in text
    assert re.search(r"unet_resnet, in_channels 8.*\n  [\d,]+ parameters, .* activations", text)
    raw = (run / "output.txt").read_text()
    epochs = re.findall(r"^ +(\d)  +\S+e-\d+  +\S+e-\d+ +[\d.]+ +[+-][\d.]+ ", raw, re.MULTILINE)
    assert epochs == ["1", "2", "3", "4"]
    best = float(re.search(r"of the best training-free method, view_sharing: ([\d.]+)", text)[1])
    rows = re.findall(r"^ +\d  +\S+ +\S+ +([\d.]+) +([+-][\d.]+) ", raw, re.MULTILINE)
    assert len(rows) == 4
    for validated, advantage in rows:
        assert float(advantage) == pytest.approx(float(validated) - best, abs=0.006)
    for method in METHODS:
        assert re.search(rf"^{method} +\d\.\d+ +\d+\.\d+ ± \d\.\d+ +[\d.]+ ± ", text, re.MULTILINE)
    line = (
        r"^unet_resnet, acceleration 4: PSNR \(dB\) [+-]\d.*\(\w+\); SSIM .*; moving PSNR .* Pair"
    )
    assert re.search(line, re.sub(r"\n  (?=\S)", " ", text), re.MULTILINE)
    assert all(len(row) <= 100 for row in raw.splitlines())
    assert re.search(r"^  search .*, training \S+ \w+, test ", text, re.MULTILINE)
    assert "Minus the best training-free method of each score" in text
    for word in ("retrospectively", "real-valued", "without phase or added noise", *SCORES):
        assert word in text


def test_report_page_has_the_results(finished):
    folder, returned = finished
    text = (folder / "report.html").read_text()
    means = {method: f"{scores['psnr']:.2f}" for method, scores in returned.items()}
    score = re.search(r'<p class="score">(.*)</p>', text)[1]
    assert re.fullmatch(
        rf"U-Net \+ refiner: {means['unet_resnet']} dB, [+-][\d.]+ \[.*\] dB against the best"
        rf" training-free method \(view sharing, {means['view_sharing']} dB\)",
        score,
    )
    assert "was trained for 4 epochs on 5 samples of" in text
    assert "1 of 3 test samples (acceleration 4)." in text
    for method, mean in means.items():
        name = re.escape(in_words(method))
        assert re.search(rf'<th scope="row">{name}</th><td>{mean} ± ', text), method
    assert '<th scope="col">PSNR minus view sharing (dB)</th>' in text
    for heading in ("The heartbeat", "Scores", "Training", "Limits of these results", "Details"):
        assert f">{heading}</h2>" in text, heading
    assert text.count('<figure class="chart">') == 1 + 4  # PSNR by frame; training
    assert "undersampled retrospectively: no scanner measured" in text
    assert "acc: 4" in text


def test_report_page_of_training_free_methods_at_several_accelerations(tmp_path, tiny_npz):
    settings = TINY | {"num_epochs": 0, "num_pictures": 2, "test_acc": (2.0, 4.0)}
    train(tmp_path / "a <b>", data=tiny_npz, **settings)
    text = (tmp_path / "a <b>" / "report.html").read_text()
    assert "2 of 3 test samples (acceleration 2, the first of the 2 tested)." in text
    assert "Training-free methods were compared; there was no network." in text
    assert "the best of 3 training-free methods" in text
    assert "a &lt;b&gt;" in text
    assert "a <b>" not in text
    assert [f"<caption>Acceleration {acc}</caption>" in text for acc in (2, 4)] == [True, True]
    assert "Training</h2>" not in text
    for kind in ("reconstruction", "profiles"):  # as many as asked for
        assert len(list((tmp_path / "a <b>" / kind).iterdir())) == 2


@pytest.mark.parametrize("kind", ["one frame", "complex", "black", "no pictures"])
def test_report_page_of_unusual_data(kind, tmp_path, images):
    data = {"one frame": images[:, :1], "complex": images * np.exp(1j), "black": 0 * images}
    settings = TINY | {"num_epochs": 0, "num_pictures": 0 if kind == "no pictures" else 1}
    np.savez(tmp_path / "data.npz", dataset=data.get(kind, images))
    train(tmp_path / "run", data=tmp_path / "data.npz", **settings)
    text = (tmp_path / "run" / "report.html").read_text()
    assert ("The heartbeat" in text) == (kind != "no pictures")
    assert "nan" not in re.sub(r'"[A-Za-z0-9+/=]{200,}"', "", text).lower().replace("nano", "")


def test_scores_are_kept_if_the_report_page_cannot_be_made(tmp_path, tiny_npz, monkeypatch):
    settings = TINY | {"num_epochs": 0, "split": (0, 0, 1)}
    monkeypatch.setattr("report.report.write_page", full_disk)
    with pytest.raises(OSError, match="No space"):
        train(tmp_path / "run", data=tiny_npz, **settings)
    assert len(rows_of(tmp_path / "run")) == 9 * 3
    monkeypatch.undo()
    train(tmp_path / "run", data=tiny_npz, **settings, resume=True)
    assert (tmp_path / "run" / "report.html").exists()


def test_config_says_what_was_run(run, tiny_npz):
    config = json.loads((run / "config.json").read_text())
    assert config["settings"]["data"] == str(tiny_npz)
    assert config["settings"]["init_features"] == 2
    assert config["data"]["shape"] == [9, 8, 32, 36]
    assert [len(part) for part in config["split"].values()] == [5, 1, 3]
    assert config["versions"]["torch"] == torch.__version__
    assert {"git_commit", "device", "threads"} <= config.keys()


def test_tensorboard_has_curves_pictures_settings_and_results(finished):
    folder, returned = finished
    logs = {path.name: path for path in (folder / "tensorboard").iterdir()}
    assert sorted(logs) == ["run", "run-train", "run-view_sharing"]  # named as the folder
    network, training, free = (EventAccumulator(str(logs[name])).Reload() for name in sorted(logs))
    history = read_history(folder)
    for events, tag, name in (
        (network, "Validation/psnr", "validation/psnr"),
        (network, "Validation/loss", "validation/loss"),
        (network, "training/learning_rate", "learning_rate"),
        (training, "Validation/loss", "train/loss"),
    ):
        points = events.Scalars(tag)
        assert [event.step for event in points] == [1, 2, 3, 4]
        assert [event.value for event in points] == pytest.approx([e[name] for e in history])
    line = r"validation/psnr of the best training-free method, view_sharing: ([\d.]+)"
    reference = float(re.search(line, report_of(folder))[1])
    values = [event.value for event in free.Scalars("Validation/psnr")]
    assert values == pytest.approx([reference] * 4, abs=1e-3)
    (score,) = network.Scalars("test/psnr")
    assert score.value == pytest.approx(returned["unet_resnet"]["psnr"], abs=1e-3)
    tests = [tag for tag in network.Tags()["scalars"] if tag.startswith("test/")]
    assert tests == ["test/psnr", "test/ssim"]
    (tag,) = network.Tags()["images"]  # the validation part has one sample
    assert [event.step for event in network.Images(tag)] == [1, 2, 3, 4]
    (results,) = network.Tensors("results/text_summary")
    text = results.tensor_proto.string_val[0].decode()
    assert text.startswith("- acceleration 4, mean PSNR of 3 test samples in dB: ")
    assert sorted(re.findall(r"^\| (\w+) \| \d", text, re.MULTILINE)) == sorted(METHODS)
    assert "settings/text_summary" in network.Tags()["tensors"]


def test_pictures_are_logged_whenever_a_short_run_is_validated(tmp_path, tiny_npz):
    train(tmp_path / "run", data=tiny_npz, **TINY | {"num_epochs": 5, "validate_every": 2})
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "run")).Reload()
    (tag,) = events.Tags()["images"]
    assert [event.step for event in events.Images(tag)] == [2, 4, 5]
    assert [event.step for event in events.Scalars("Validation/psnr")] == [2, 4, 5]
    assert [event.step for event in events.Scalars("training/learning_rate")] == [1, 2, 3, 4, 5]


def test_a_page_shows_training_until_the_test_takes_its_place(trained, run):
    page = (trained / "report.html").read_text()
    assert "In training: run" in page
    assert '<meta http-equiv="refresh" content="30">' in page
    assert re.search(
        r"epoch 4 of 4: \d+\.\d\d dB on the validation part, \d+\.\d\d dB without", page
    )
    assert "validation sample 0" in page
    assert 'aria-label="PSNR on the validation part' in page
    finished = (run / "report.html").read_text()
    assert "refresh" not in finished
    assert "In training" not in finished


def test_checkpoint_best_is_the_best_epoch_of_the_history(trained):
    best, last = (ckpt.load_checkpoint(trained / name) for name in (ckpt.BEST, ckpt.LAST))
    scores = [entry["validation/psnr"] for entry in last["history"]]
    assert len(scores) == last["epoch"] == 4
    assert best["epoch"] == 1 + scores.index(max(scores))
    assert best["scores"]["psnr"] == best["best_psnr"] == max(scores)
    assert last["optimizer"]
    assert not best["optimizer"]
    history = read_history(trained)
    for entry, kept in zip(history, last["history"], strict=True):
        assert entry == pytest.approx(kept, rel=1e-6)
        assert entry["peak_memory"] > 1e8  # bytes: more than the interpreter with torch
    assert highest_peak(history) == max(entry["peak_memory"] for entry in history)


def test_lesions_are_scored_for_every_method_and_frame(tmp_path, tiny_npz):
    settings = CASCADE | {"num_epochs": 1, "lesions": True}
    train(tmp_path / "run", data=tiny_npz, **settings)
    rows = read_csv(tmp_path / "run" / "lesions.csv")
    methods = ["cascade", *TINY["baselines"]]
    assert len(rows) == 3 * len(methods) * len(DIAMETERS) * len(CONTRASTS) * 8
    assert list(dict.fromkeys(row["method"] for row in rows)) == methods
    kept = {
        name: np.mean([float(r["kept"]) for r in rows if r["method"] == name]) for name in methods
    }
    assert kept["time_average"] < kept["view_sharing"] < 1.2
    text = report_of(tmp_path / "run")
    assert "Lesion test, acceleration 4, gaussian lines: kept, worst, ghost" in text
    assert re.search(r"^cascade +-?\d?\.\d\d±\d?\.\d\d ", text, re.MULTILINE)


def test_settings_make_the_same_run_again_on_the_command_line(finished, tmp_path, run_command):
    settings, again = finished[0] / "settings.txt", tmp_path / "again"
    done = run_command(again, [f"@{settings}", "--device", "cpu"])
    assert done.returncode == 0, done.stderr
    left = r"about \S+ s of training left \(.* to .*, by 3 steps\)"
    assert re.search(left, done.stdout)
    assert "\ntest, acceleration 4: 3 samples\n" in done.stdout
    time = r"^Time\n  search .*, training .*, test .* \(3 of 4 results cached\)$"
    assert re.search(time, done.stdout, re.MULTILINE)
    for name in ("metrics.csv", "cine.gif", "mask.png"):
        assert (again / name).read_bytes() == (finished[0] / name).read_bytes(), name
    histories = [
        [{k: v for k, v in row.items() if k not in ("seconds", "peak_memory")} for row in table]
        for table in (read_csv(folder / "history.csv") for folder in (finished[0], again))
    ]
    assert histories[0] == histories[1]
    assert (again / "settings.txt").read_text().startswith("# A run begun with: python ")
    assert "# A run begun from Python" in settings.read_text()
