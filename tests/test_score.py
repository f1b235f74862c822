"""`python score.py`: exporting the test part, and scoring what other programs make of it."""

import json
import re

import numpy as np
import pytest
import torch
from forked import Command
from helpers import report_of, rows_of

from formats.bart import bart_pair, in_dimensions
from methods.baselines import baseline
from physics.fourier import ifftc
from score import export, score, score_files
from tables import run_tables
from train import train
from training.run_folder import read_config
from util.command_line import as_flags
from util.errors import InputError

TEST = {"acc": 4, "sample_n": 4, "device": "cpu"}
SHOWN = {"num_pictures": 0, "baselines": ("zero_filled", "view_sharing"), "batch_size": 1}


def by(name: str, part) -> torch.Tensor:
    """The images of a training-free method from the exported files alone, one sample at a time, as
    they are scored."""
    with np.load(part / "test.npz") as file:
        aliased, lines = torch.from_numpy(file["aliased"]), torch.from_numpy(file["mask"])
    method, masks = baseline(name, real_image=True), lines[..., None].float()
    return torch.cat([method(aliased[i : i + 1], masks[i : i + 1]) for i in range(len(masks))])


@pytest.fixture(scope="module")
def part(tmp_path_factory, tiny_npz):
    """The folder of an exported test part."""
    folder = tmp_path_factory.mktemp("exported") / "part"
    export(folder, data=tiny_npz, **TEST)
    return folder


@pytest.fixture(scope="module")
def scored(tmp_path_factory, tiny_npz, part):
    """The folder and the means of view sharing by other hands, complex and as magnitudes."""
    folder = tmp_path_factory.mktemp("scored") / "out"
    images = by("view_sharing", part)
    path = folder.with_name("magnitudes.npy")
    np.save(path, images.abs().numpy())
    given = {"Theirs, complex": images.to(torch.complex64).numpy(), "BART ESPIRiT": path}
    means = score(given, folder, like=part, data=tiny_npz, **SHOWN | {"num_pictures": 1})
    return folder, means


def test_a_method_from_the_exported_files_has_exactly_its_score_in_the_table(scored):
    folder, means = scored
    assert list(means) == ["Theirs, complex", "BART ESPIRiT", "zero_filled", "view_sharing"]
    assert means["Theirs, complex"] == means["BART ESPIRiT"] == means["view_sharing"]
    own, theirs = (
        [{**row, "method": ""} for row in rows_of(folder) if row["method"] == method]
        for method in ("view_sharing", "BART ESPIRiT")
    )
    assert own == theirs
    assert len(own) == 3


def test_the_table_is_that_of_a_run_without_a_network(scored, tmp_path, tiny_npz):
    """The training-free methods have the scores that `train.py` gives them."""
    settings = TEST | SHOWN | {"arrays": "none"}
    of_run = train(tmp_path / "run", data=tiny_npz, num_epochs=0, **settings)
    _, means = scored
    assert {name: means[name] for name in of_run} == of_run


def test_a_report_has_labels_intervals_pictures_and_page(scored):
    folder, _ = scored
    text = report_of(folder)
    assert re.search(r"BART ESPIRiT minus view_sharing: \+0\.00 \[-?0\.00, 0\.00\] dB", text)
    assert "in its own scale; the truth's is" in text
    page = (folder / "report.html").read_text()
    assert "Images of other programs (Theirs, complex, BART ESPIRiT) were scored beside" in page
    assert "PSNR minus view sharing (dB)" in page
    assert list((folder / "reconstruction").glob("*.png"))
    assert (folder / "cine.gif").exists()
    with np.load(folder / "reconstructions.npz") as arrays:
        assert arrays["reconstruction"].shape == arrays["target"].shape
    assert read_config(folder)["settings"]["acc"] == 4


def test_an_exported_folder_describes_itself(part):
    text = " ".join((part / "README.txt").read_text().split())
    for fact in (
        "3 test samples of tiny.npz", "kspace (3, 8, 32, 36) complex", "acceleration 4",
        "zero frequency at line 16 and column 18", "orthonormal", "The samples, in this order:",
        "magnitudes from 0 to 1", "sample_n: 4",
    ):  # fmt: skip
        assert fact in text, fact
    sheet = json.loads((part / "test_part.json").read_text())
    assert sheet["settings"]["data"] == "tiny.npz"  # no place on this machine
    assert len(sheet["samples"]) == sheet["about"][0].count("3") * 3
    assert {path.name for path in part.iterdir()} == {
        "README.txt", "test_part.json", "test.npz", "mat", "cfl",
    }  # fmt: skip


def test_like_is_the_same_as_the_settings(part, tiny_npz, tmp_path):
    images = by("view_sharing", part).numpy()
    means = score({"theirs": images}, tmp_path / "out", data=tiny_npz, **TEST, **SHOWN)
    assert means["theirs"] == means["view_sharing"]
    run = tmp_path / "run"
    train(run, data=tiny_npz, num_epochs=0, **TEST | SHOWN)
    again = score({"theirs": images}, tmp_path / "again", like=run, **SHOWN)
    assert again == means


def test_another_test_than_that_of_the_folder_is_refused(part, tiny_npz, tmp_path):
    images = by("view_sharing", part).numpy()
    with pytest.raises(InputError, match=r"part was made with other masks than --data .*tiny.npz"):
        score({"theirs": images}, tmp_path / "out", like=part, data=tiny_npz, acc=5, **SHOWN)
    with pytest.raises(InputError, match="part was made with other data than --data"):
        score({"theirs": images}, tmp_path / "out", like=part, data=tiny_npz, n_samples=8, **SHOWN)
    with pytest.raises(InputError, match=r"has neither test_part.json nor config.json: name a"):
        score({"theirs": images}, tmp_path / "out", like=tmp_path, data=tiny_npz)
    assert not (tmp_path / "out").exists()


def test_masks_of_a_file_travel_with_the_folder(tiny_npz, tmp_path):
    lines = np.zeros((8, 32), bool)
    lines[:, 12:20] = lines[:, ::5] = True
    np.save(tmp_path / "lines.npy", lines)
    part = tmp_path / "part"
    export(part, data=tiny_npz, pattern=str(tmp_path / "lines.npy"), device="cpu", files=("npz",))
    (tmp_path / "lines.npy").unlink()
    assert (part / "pattern" / "lines.npy").exists()
    images = by("view_sharing", part).numpy()
    means = score({"theirs": images}, tmp_path / "out", like=part, data=tiny_npz, **SHOWN)
    assert means["theirs"] == means["view_sharing"]


def test_coils_come_back_from_exported_kspace_and_maps(tiny_npz, tmp_path):
    part, test = tmp_path / "part", {"data": tiny_npz, "coils": 3, "phase": True, "noise": 0.005}
    export(part, **TEST | test | {"sample_n": 6}, files=("npz",))
    with np.load(part / "test.npz") as file:
        kspace, lines, maps = (torch.from_numpy(file[name]) for name in ("kspace", "mask", "maps"))
    images = baseline("view_sharing", real_image=False)(
        ifftc(kspace), lines[..., None].float(), maps
    )
    given = {"like": part, "data": tiny_npz, **SHOWN}
    means = score({"theirs": images.numpy()}, tmp_path / "out", **given)
    assert means["theirs"] == pytest.approx(means["view_sharing"], rel=1e-4)
    with pytest.raises(InputError, match="like the real or the imaginary part of the truth, not"):
        score({"theirs": images.real.numpy()}, tmp_path / "real", **given)


def test_runs_and_scored_reconstructions_have_one_table(scored, tmp_path, tiny_npz):
    train(tmp_path / "run", data=tiny_npz, num_epochs=0, **TEST | SHOWN | {"arrays": "none"})
    (table,) = run_tables([tmp_path / "run", scored[0]], ["psnr"])
    assert {row[0] for row in table.rows} == {
        "`Theirs, complex`, out", "`BART ESPIRiT`, out", "`zero_filled`", "`view_sharing`",
    }  # fmt: skip


def test_the_scale_is_matched_if_asked_and_the_report_says_so(part, tiny_npz, tmp_path):
    images = 200 * by("view_sharing", part).numpy()
    given = {"like": part, "data": tiny_npz, **SHOWN}
    with pytest.raises(InputError, match=r"times 0\.005.*give --match-scale \(--accept"):
        score({"theirs": images}, tmp_path / "out", **given)
    means = score({"theirs": images}, tmp_path / "out", match_scale=True, **given)
    assert means["theirs"]["psnr"] >= means["view_sharing"]["psnr"]
    verdict = report_of(tmp_path / "out").partition("\n\n")[0]
    said = "theirs: the scale was matched to the truth, each sample times its own factor, 0.0050"
    assert said in verdict


def test_what_the_checks_find_is_refused_or_told(part, tiny_npz, tmp_path):
    images = by("view_sharing", part).numpy()
    given = {"like": part, "data": tiny_npz, **SHOWN}
    with pytest.raises(InputError, match=r"theirs: the frames are shifted .*\(--accept scores it"):
        score({"theirs": np.roll(images, 2, axis=1)}, tmp_path / "out", **given)
    means = score({"theirs": np.roll(images, 2, axis=1)}, tmp_path / "out", accept=True, **given)
    assert means["theirs"]["psnr"] < means["view_sharing"]["psnr"]
    assert "WARNING: theirs: the frames are shifted" in report_of(tmp_path / "out")
    aliased = np.load(part / "test.npz")["aliased"]
    score({"theirs": aliased}, tmp_path / "aliased", **given)
    assert "WARNING: theirs: the images of the samples" in report_of(tmp_path / "aliased")


@pytest.mark.parametrize(
    ("reconstructions", "settings", "message"),
    [
        ({}, {}, "there is no reconstruction to score"),
        ({"zero_filled": 0}, {}, "the label 'zero_filled' is the name of a training-free method"),
        ({" ": 0}, {}, "is empty: give another with --label"),
        ({"a": 0}, {"model": "unet"}, "--model is no setting of score.py"),
        ({"a": 0}, {"baselines": ()}, "--baselines names no method"),
        ({"a": 0}, {"pattern": "gausian"}, "--pattern is 'gausian', expected one of"),
        (
            {"a": 0},
            {"acc": (4, 6)},
            r"test 3 kinds of masks \(.*\), and a reconstruction is of one",
        ),
        (
            {"a": np.zeros((2, 8, 32, 36))},
            {},
            r"a is \(2, 8, 32, 36\) with 2 test samples, expected",
        ),
        ({"a": np.full((3, 8, 32, 36), np.nan)}, {}, "a has 27648 values that are NaN or infinite"),
    ],
)
def test_refusals(tiny_npz, tmp_path, reconstructions, settings, message):
    with pytest.raises(InputError, match=message):
        score(reconstructions, tmp_path / "out", data=tiny_npz, **TEST | settings)
    assert not (tmp_path / "out").exists()


def test_files_of_other_kinds_are_refused(tiny_npz, tmp_path):
    with pytest.raises(InputError, match="--files is 'png', expected one of npz, mat, cfl"):
        export(tmp_path / "part", data=tiny_npz, files=["png"], **TEST)
    with pytest.raises(InputError, match="--files names none"):
        export(tmp_path / "part", data=tiny_npz, files=(), **TEST)
    assert not (tmp_path / "part").exists()


def test_nothing_is_overwritten(part, scored, tiny_npz):
    folder, _ = scored
    with pytest.raises(InputError, match=r"part holds .* other files"):
        export(part, data=tiny_npz, **TEST)
    with pytest.raises(InputError, match="holds a finished run: name another folder"):
        score({"a": 0}, folder, data=tiny_npz, **TEST)


def test_the_command_line(tmp_path, tiny_npz):
    """Both forms, with a folder of BART's files; labels are the names of files if not given."""
    settings = as_flags({"data": str(tiny_npz), "device": "cpu"})
    mask = as_flags({"acc": 4, "sample_n": 4})
    part, out = tmp_path / "part", tmp_path / "out"
    done = Command("score.py", ["export", part, *settings, *mask], tmp_path).finished()
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "pics"
    folder.mkdir()
    samples = json.loads((part / "test_part.json").read_text())["samples"]
    for sample, images in zip(samples, by("view_sharing", part).numpy(), strict=True):
        for name, content in bart_pair(
            f"sample_{sample:04d}", in_dimensions(images, "tyx")
        ).items():
            (folder / name).write_bytes(content)
    words = [folder, "--like", part, "--out", out, *settings, *as_flags(SHOWN)]
    done = Command("score.py", words, tmp_path).finished()
    assert done.returncode == 0, done.stderr
    assert {row["method"] for row in rows_of(out)} == {"pics", "zero_filled", "view_sharing"}


def test_the_command_line_names_what_it_lacks():
    with pytest.raises(InputError, match="--out is missing: name a new folder for the results"):
        score_files(("a.npy",))
    with pytest.raises(InputError, match=r"the same label \(rec, rec\): give each its own"):
        score_files(("a/rec.npy", "b/rec.npy"), out="x")
    with pytest.raises(InputError, match="--label has 1 names for 2 reconstructions"):
        score_files(("a/rec.npy", "b/rec.npy"), out="x", label=("one",))
