"""What a user adds in one place goes through a whole run: a score, a network."""

import re
import shutil

import torch
from helpers import CASCADE, TINY, report_of, rows_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from metrics import SCORES, Score
from model import MODELS
from tables import more_tables, run_tables
from train import train
from training.run_folder import METRICS, read_config, read_history
from util.files import read_csv, write_csv


def edge_error(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the differences along X."""
    return (reconstruction - target).diff(dim=-1).abs().mean(dim=(-3, -2, -1))


def test_a_new_score_is_in_every_file_and_absent_from_older_runs(
    tmp_path, tiny_npz, finished, monkeypatch
):
    score = Score(edge_error, "edge error", 4, False, compared=True, logged=True)
    monkeypatch.setitem(SCORES, "edges", score)
    folder = tmp_path / "run"
    returned = train(folder, data=tiny_npz, **TINY)
    assert returned["unet_resnet"].keys() == SCORES.keys()
    assert all(float(row["edges"]) > 0 for row in rows_of(folder))
    page = (folder / "report.html").read_text()
    text = re.sub(r"\n  (?=\S)", " ", report_of(folder))
    assert re.search(r"^method .* edge error$", text, re.MULTILINE)
    assert "edge error (edges): Mean absolute error of the differences along X." in text
    best = min(TINY["baselines"], key=lambda name: returned[name]["edges"])
    assert re.search(rf"edge error [+-]0\.\d+ \[.*\] \({best}\)", text)
    assert page.count("edge error") >= 4  # two tables, the definition, a chart
    assert "edge error on the validation part" in page
    assert all(entry["validation/edges"] > 0 for entry in read_history(folder))
    events = EventAccumulator(str(folder / "tensorboard" / "run")).Reload()
    assert [event.step for event in events.Scalars("Validation/edges")] == [1, 2, 3, 4]
    (table,) = run_tables([folder, finished[0]])
    assert "edge error" in table.heads
    cells = {row[0]: row[list(table.heads).index("edge error")] for row in table.rows}
    assert cells[f"`unet_resnet`, {finished[0]}"] == "absent"
    assert "±" in cells[f"`unet_resnet`, {folder}"]
    assert more_tables([folder, finished[0]])


def test_a_score_that_was_removed_does_not_matter(tmp_path, finished):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    rows = [row | {"former": "1"} for row in read_csv(folder / METRICS)]
    write_csv(folder / METRICS, rows)
    assert train(folder, resume=True) == finished[1]


class Smoothed(nn.Module):
    """The zero-filled image, smoothed along X by trained weights."""

    OWN = {"ema": 0.5}  # noqa: RUF012

    def __init__(self, init_features: int):
        super().__init__()
        self.smooth = nn.Conv2d(1, 1, (1, 2 * init_features + 1), padding="same", bias=False)

    def forward(self, aliased: Tensor, mask: Tensor, maps: Tensor | None = None) -> Tensor:
        frames = aliased.abs().flatten(0, 1)[:, None]
        return self.smooth(frames)[:, 0].unflatten(0, aliased.shape[:2])


def test_a_new_network_trains_with_its_own_values(tmp_path, tiny_npz, monkeypatch):
    monkeypatch.setitem(MODELS, "smoothed", Smoothed)
    returned = train(tmp_path / "run", data=tiny_npz, **TINY | {"model": "smoothed"})
    assert "smoothed" in returned
    settings = read_config(tmp_path / "run")["settings"]
    assert (settings["ema"], settings["strip"], settings["clip_gradient"]) == (0.5, 0, 0.0)


def test_settings_that_are_not_given_are_the_networks_own(tmp_path, tiny_npz, capsys):
    own = {k: v for k, v in CASCADE.items() if k not in ("strip", "ema", "clip_gradient")}
    train(tmp_path / "cascade", data=tiny_npz, **own | {"num_epochs": 1, "stages": 1})
    settings = read_config(tmp_path / "cascade")["settings"]
    assert settings["strip"] == 32
    assert (settings["clip_gradient"], settings["ema"], settings["stage_loss"]) == (
        0.001,
        0.999,
        0.1,
    )
    text = report_of(tmp_path / "cascade")
    assert "strips of 32 columns, gradient norm at most 0.001" in text

    unet = {k: v for k, v in TINY.items() if k not in ("in_channels", "out_channels")}
    train(tmp_path / "unet", data=tiny_npz, **unet | {"num_epochs": 1})
    assert "has 8 frames: --in-channels and --out-channels are 8" in capsys.readouterr().out
    settings = read_config(tmp_path / "unet")["settings"]
    assert (settings["in_channels"], settings["out_channels"]) == (8, 8)
    state = torch.load(tmp_path / "unet" / "checkpoint_best.pt", weights_only=True)
    assert state["architecture"]["in_channels"] == 8
