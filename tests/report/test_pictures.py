import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from helpers import sampling

from data.acquisition import Acquisition
from data.batches import EvaluationBatches
from evaluation.heart_view import find_heart
from evaluation.scoring import Scored
from metrics import moving_region
from report import pictures
from report.names import GROUND_TRUTH


def test_without_arrays_nothing_is_collected_but_what_is_drawn(target, tmp_path):
    batches = EvaluationBatches(
        target, range(3), Acquisition(sampling(4), phase=False, noise=0.0, data_seed=0), size=1
    )
    calls = []

    def method(aliased, mask):
        calls.append(len(aliased))
        return aliased

    gallery = pictures.Gallery(tmp_path, "mine", {"mine": method}, 2, "none", n_samples=3)
    for batch in batches:
        gallery.add(Scored(batch, {}, []))  # its scores were cached
    assert [batch.samples for batch, _ in gallery.drawn] == [[0], [1]]
    assert calls == [1, 1]
    gallery.arrays.close()
    assert list(tmp_path.iterdir()) == []


FORM = pictures.FigureForm("png", 7.2, 50)


def test_lines_of_the_profiles_cross_the_moving_region(tmp_path, images, monkeypatch):
    lines = []
    monkeypatch.setattr(
        pictures.figures, "profiles_figure", lambda series, *places: lines.append(places)
    )
    monkeypatch.setattr(pictures, "write_figure", lambda *_, **__: None)
    target = images[0]
    pictures.write_pictures(tmp_path, 0, target, {"zero_filled": target}, "zero_filled", FORM)
    moving = moving_region(torch.from_numpy(target)[None])[0]
    ((row, column, width),) = lines
    assert moving[row].sum() == moving.sum(dim=-1).max() > 0
    assert moving[:, column].sum() == moving.sum(dim=-2).max() > 0
    assert width == 7.2


def film(images) -> dict:
    series = {GROUND_TRUTH: images[0], "zero_filled": 0.5 * images[0]}
    return {"series": series, "view": find_heart(torch.from_numpy(images[0]))}


def test_without_ffmpeg_there_is_the_gif_alone(tmp_path, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    pictures.write_film(tmp_path, **film(images))
    assert [path.name for path in tmp_path.iterdir()] == ["cine.gif"]


def test_with_ffmpeg_a_film_beats_several_times_as_mp4(tmp_path, images, monkeypatch):
    sent = []

    def write_frames(path, size, fps, quality):
        assert fps == 20
        assert all(n % 16 == 0 for n in size)  # else it would be scaled
        while True:
            try:
                sent.append((size, (yield)))
            except GeneratorExit:
                Path(path).write_bytes(b"film")
                raise

    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", SimpleNamespace(write_frames=write_frames))
    pictures.write_film(tmp_path, **film(images))
    assert (tmp_path / "cine.mp4").read_bytes() == b"film"
    assert len(sent) == 8 * pictures.MP4_BEATS
    assert all(len(frame) == 3 * width * height for (width, height), frame in sent)
    assert sent[0] == sent[8] != sent[4]


def test_a_film_that_ffmpeg_cannot_make_is_told_of(tmp_path, images, monkeypatch, capsys):
    def write_frames(*arguments, **keywords):
        raise RuntimeError("no ffmpeg exe could be found")

    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", SimpleNamespace(write_frames=write_frames))
    pictures.write_film(tmp_path, **film(images))
    assert [path.name for path in tmp_path.iterdir()] == ["cine.gif"]
    assert "cine.mp4 was not made: no ffmpeg exe" in capsys.readouterr().out
