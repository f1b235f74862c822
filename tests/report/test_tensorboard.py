import io
import math
import os
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from helpers import ROWS, full_disk
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import metadata
from torch.utils.tensorboard import SummaryWriter

from evaluation.bench import Reference
from evaluation.scoring import Example
from metrics import SCORES
from report.tensorboard import TensorBoard
from util.errors import InputError

SETTINGS = {
    "model": "unet",
    "init_features": 4,
    "stages": 4,
    "acc": 6.0,
    "split": (4, 1, 2),
    "augment": (),
    "batch_norm": True,
    "strip": None,
    "loss": "mse",
    "num_pictures": 5,
    "baselines": None,
    "data": "\udcff.npz",
}
REFERENCE = Reference("kt_sparse", 36.0)


def entry(epoch: int, **scores) -> dict[str, float]:
    """An epoch of the history."""
    scores = {f"validation/{name}": value for name, value in scores.items()}
    costs = {"learning_rate": 1e-3, "seconds": 2.0, "peak_memory": 3e9}
    return {"epoch": epoch, "train/loss": 0.5, **costs, **scores}


def log_epochs(folder, epochs, first: int = 0, reference=REFERENCE, **settings) -> None:
    board = TensorBoard(folder, SETTINGS | settings, first)
    for epoch in epochs:
        board.curves(entry(epoch, loss=0.4, psnr=30.0 + epoch, ssim=0.9), reference)
    board.close()


def runs(folder) -> dict[str, EventAccumulator]:
    """What `tensorboard --logdir folder` reads, by the name of the run."""
    paths = {path.parent for path in folder.rglob("events.*")}
    return {
        str(path.relative_to(folder)): EventAccumulator(str(path)).Reload()
        for path in sorted(paths)
    }


def points(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 5)) for event in events.Scalars(tag)]


def summaries(folder, tag: str) -> list[tuple[str, bytes]]:
    """The run and the content of every summary with this tag, for a plugin of TensorBoard."""
    return [
        (str(path.parent.relative_to(folder)), value.metadata.plugin_data.content)
        for path in sorted(folder.rglob("events.*"))
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == tag
    ]


def examples(images) -> list[Example]:
    target = torch.from_numpy(images[0])
    return [Example(7, 0.5 * target, 0.9 * target, target)]


def test_a_run_is_called_as_its_folder(tmp_path, monkeypatch):
    log_epochs(tmp_path / "first", [1])
    (tmp_path / "second").mkdir()
    monkeypatch.chdir(tmp_path / "second")
    log_epochs(Path("."), [1])
    names = [f"{n}/tensorboard/{n}" for n in ("first", "second")]
    assert list(runs(tmp_path)) == [
        name + beside for name in names for beside in ("", "-kt_sparse", "-train")
    ]


def test_a_renamed_folder_continues_its_run(tmp_path):
    log_epochs(tmp_path / "old", [1])
    os.rename(tmp_path / "old", tmp_path / "new")
    log_epochs(tmp_path / "new", [2], first=1)
    found = runs(tmp_path / "new")
    assert list(found) == [f"tensorboard/old{beside}" for beside in ("", "-kt_sparse", "-train")]
    for events in found.values():
        (tag,) = {"Validation/psnr", "Validation/loss"} & set(events.Tags()["scalars"][:1])
        assert [step for step, _ in points(events, tag)] == [1, 2]


def test_logs_without_a_name_are_continued(tmp_path):
    with SummaryWriter(str(tmp_path / "run" / "tensorboard")) as writer:
        writer.add_scalar("train/loss", 1.0, 1)
    for first in (1, 2):
        log_epochs(tmp_path / "run", [first + 1], first)
    found = runs(tmp_path / "run")
    assert points(found["tensorboard"], "train/loss") == [(1, 1.0)]
    assert points(found["tensorboard"], "Validation/psnr") == [(2, 32.0), (3, 33.0)]
    assert len(found) == 3


def test_a_resumed_log_is_read_after_the_first_even_within_a_second(tmp_path):
    log_epochs(tmp_path / "run", [1, 2, 3])
    for path in (tmp_path / "run").rglob("events.*"):  # as if by a later process
        path.rename(path.with_name(path.name.rsplit(".", 2)[0] + ".99999999.0"))
    log_epochs(tmp_path / "run", [2], first=1)  # the checkpoint was of the first epoch
    found = runs(tmp_path / "run" / "tensorboard")
    assert points(found["run"], "Validation/psnr") == [(1, 31.0), (2, 32.0)]
    assert points(found["run-train"], "Validation/loss") == [(1, 0.5), (2, 0.5)]
    assert points(found["run-kt_sparse"], "Validation/psnr") == [(1, 36.0), (2, 36.0)]


def test_lines_to_compare_are_in_one_chart_and_validation_comes_first(tmp_path):
    log_epochs(tmp_path / "run", [1])
    found = runs(tmp_path / "run" / "tensorboard")
    tags = {name: events.Tags()["scalars"] for name, events in found.items()}
    assert tags["run-train"] == ["Validation/loss"]
    assert tags["run-kt_sparse"] == ["Validation/psnr"]
    assert sorted(tags["run"]) == [
        *(f"Validation/{name}" for name in ("loss", "psnr", "ssim")),
        *(f"training/{name}" for name in ("learning_rate", "peak_memory_GB", "seconds")),
    ]
    assert points(found["run"], "training/peak_memory_GB") == [(1, 3.0)]


def test_a_loss_of_another_kind_has_its_own_chart(tmp_path):
    log_epochs(tmp_path / "run", [1], reference=None, loss="l1")
    ((_, events),) = runs(tmp_path / "run").items()
    assert points(events, "training/loss_l1") == [(1, 0.5)]
    assert points(events, "Validation/loss") == [(1, 0.4)]


def test_values_that_are_not_finite_are_left_out(tmp_path):
    board = TensorBoard(tmp_path / "run", SETTINGS, 0)
    board.curves(entry(1, psnr=math.nan, ssim=math.inf, loss=0.1), None)
    board.curves(entry(2), None)  # not validated
    board.close()
    events = runs(tmp_path / "run" / "tensorboard")["run"]
    tags = events.Tags()["scalars"]
    assert [tag for tag in tags if tag.startswith("Validation")] == ["Validation/loss"]
    assert points(events, "Validation/loss") == [(1, 0.1)]


def test_hyperparameters_are_there_once(tmp_path):
    log_epochs(tmp_path / "run", [1])
    log_epochs(tmp_path / "run", [2], first=1)
    ((name, content),) = summaries(tmp_path, metadata.SESSION_START_INFO_TAG)
    assert name == "run/tensorboard/run"
    assert not summaries(tmp_path, metadata.EXPERIMENT_TAG)
    found = metadata.parse_session_start_info_plugin_data(content).hparams
    texts = {k: value.string_value for k, value in found.items() if value.HasField("string_value")}
    lists = {"split": "4 1 2", "augment": "none"}
    assert texts == {"model": "unet", "loss": "mse", "strip": "none", "batch_norm": "True", **lists}
    numbers = {k: value.number_value for k, value in found.items() if k not in texts}
    assert numbers == {"init_features": 4, "acc": 6}  # none of other models, the call, the report
    events = runs(tmp_path)[name]
    (text,) = events.Tensors("settings/text_summary")
    assert r"| data | \udcff.npz |" in text.tensor_proto.string_val[0].decode()


def test_results_are_one_table_and_few_numbers(tmp_path):
    board = TensorBoard(tmp_path / "run", SETTINGS, 4)
    board.results(ROWS, "a", ["a 2.00, b 2.00"], 4)
    board.close()
    events = runs(tmp_path / "run" / "tensorboard")["run"]
    assert events.Tags()["scalars"] == ["test/psnr", "test/ssim"]
    assert points(events, "test/psnr") == [(4, 2.0)]
    (text,) = events.Tensors("results/text_summary")
    lines = text.tensor_proto.string_val[0].decode().splitlines()
    assert lines[:2] == ["- a 2.00, b 2.00", ""]
    assert lines[2] == "Acceleration 6:"
    assert lines[4].startswith("| method | MSE | PSNR (dB) | SSIM (3-D) |")
    assert lines[6].startswith("| a | 2.00000 | 2.00 ± 1.41 | 2.000 ± 1.414 |")
    assert lines[6].count("|") == 2 + len(SCORES)
    assert lines[7].startswith("| b |")
    assert lines[-1] == "Mean ± standard deviation over 2 test samples. The best PSNR comes first."


def test_a_table_for_each_acceleration(tmp_path):
    rows = [row | {"acc": acc} for acc in ("4.0", "6.0") for row in ROWS]  # as read from a file
    board = TensorBoard(tmp_path / "run", SETTINGS, 0)
    board.results(rows, "b", [], 0)
    board.close()
    (text,) = runs(tmp_path)["run/tensorboard/run"].Tensors("results/text_summary")
    written = text.tensor_proto.string_val[0].decode()
    assert "\n\nAcceleration 6:\n\n| method |" in written
    assert written.count("| a |") == 2


def drawn(folder, images) -> list[np.ndarray]:
    """The pictures of a sample after two epochs."""
    board = TensorBoard(folder, SETTINGS, 0)
    for epoch in (5, 10):
        board.examples(epoch, examples(images))
    board.close()
    events = runs(folder)[f"tensorboard/{folder.name}"]
    (tag,) = events.Tags()["images"]
    assert tag == "Validation_pictures/sample_0007"
    found = events.Images(tag)
    assert [event.step for event in found] == [5, 10]
    return [np.asarray(Image.open(io.BytesIO(event.encoded_image_string))) for event in found]


def test_pictures_do_not_depend_on_the_users_settings(tmp_path, images):
    plain = drawn(tmp_path / "plain", images)
    with matplotlib.rc_context({"figure.dpi": 30, "image.cmap": "hot", "font.size": 30}):
        changed = drawn(tmp_path / "changed", images)
    for one, other in zip(plain, changed, strict=True):
        assert one.shape == (480, 650, 3)
        np.testing.assert_array_equal(one, other)
    assert np.any(plain[0] != plain[1])  # the epoch in the title


def test_a_reconstruction_that_is_not_finite_is_drawn(tmp_path, images):
    (example,) = examples(images)
    example.reconstruction.fill_(math.nan)
    board = TensorBoard(tmp_path / "run", SETTINGS, 0)
    board.examples(1, [example])
    board.close()


def test_a_full_disk_ends_with_one_line(tmp_path, images, monkeypatch):
    board = TensorBoard(tmp_path / "run", SETTINGS, 0)

    for name in ("add_scalar", "add_image", "add_text", "close"):
        monkeypatch.setattr(SummaryWriter, name, full_disk)
    for log in (
        lambda: board.curves(entry(1), None),
        lambda: board.examples(1, examples(images)),
        lambda: board.results(ROWS, "a", [], 1),
        board.close,
        lambda: TensorBoard(tmp_path / "other", SETTINGS, 0),
    ):
        with pytest.raises(InputError, match=r"could not be written \(No space left on device\)"):
            log()
    monkeypatch.undo()
    board.close()
