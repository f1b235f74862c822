import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import browsing, chromium
from helpers import make_images
from PIL import Image

from evaluation.series_view import view_series
from report.chart import Chart, Line
from report.page import TEMPLATES, Link, Page, player_data, render, write_page
from report.tables import Table

VOID = {"meta", "input", "br", "link", "img"}


class Structure(HTMLParser):
    """Tags that are open, and the addresses and identifiers of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.names: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.addresses += [known[key] for key in ("src", "href", "action", "data") if key in known]
        self.names += [known["id"]] if "id" in known else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):  # of SVG
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


def series(n_frames=8, n_series=3, truth="truth", scale=1.0, title="test sample 3"):
    """A view of a tiny series: the truth, and others that differ from it more and more."""
    images = scale * make_images(1, n_frames)[0]
    names = ["truth", "zero_filled", "kt_sparse", "net <1>"][:n_series]
    rng = np.random.default_rng(0)
    shown = {
        name: np.abs(images + 0.02 * i * rng.standard_normal(images.shape)).astype(np.float32)
        for i, name in enumerate(names)
    }
    roles = {"truth": "fully sampled", "zero_filled": "undersampled"}
    return view_series(title, shown, roles, truth)


def page(*views, **more) -> Page:
    return Page("A <title> & more", "cascade: 30.00 dB", "Something was done.", views=views, **more)


@pytest.fixture(scope="module")
def full() -> Page:
    """A page with everything."""
    line = Line("train/loss", [1, 2], [0.1, float("nan")], 3)
    return page(
        series(n_series=4),
        series(title='<script>alert("x")</script>'),
        verdict=["first </script>", "second"],
        pictures_note="2 of 9.",
        tables=[
            Table(["method", "PSNR"], [["`a`", "absent"], ["`<b>`", "1 ± 2"]], "Scores", "note")
        ],
        curves=[Chart("Loss", "epoch", "loss", [line], log=True)],
        caveats=["a limit"],
        details={"Settings": ["acc: 6"]},
        links=[Link("../other%20run/report.html", "other"), Link("", "none")],
    )


def test_a_page_needs_no_other_file_and_no_network(full):
    text = render(full)
    found = Structure(text)
    assert found.addresses == ["../other%20run/report.html"]  # the link that was asked for
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttp|<link|<img", text)
    assert "default-src 'none'" in text
    assert len(found.names) == len(set(found.names))


def test_what_comes_from_outside_is_escaped(full):
    found = Structure(render(full))
    words = "".join(found.words)
    for text in ("A <title> & more", '<script>alert("x")</script>', "net <1>", "first </script>"):
        assert text in words, text
    assert "`" not in words


def test_frames_are_stored_as_they_are(full):
    view = full.views[0]
    data = json.loads(json.dumps(player_data([view])))["views"][0]
    names = ["truth", "zero-filled", "k-t sparse", "net <1>"]
    assert [panel["name"] for panel in data["panels"]] == names
    assert data["panels"][0]["psnr"] is None
    assert len(data["panels"][1]["psnr"]) == data["frames"] == 8
    for part, crop in (("heart", view.heart.crop), ("whole", lambda images: images)):
        stored = data[part]
        (ny, nx), across = stored["size"], stored["across"]
        for source, images in zip(stored["sources"], view.images.values(), strict=True):
            sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))
            for t, frame in enumerate(crop(images)):
                top, left = t // across * ny, t % across * nx
                levels = sheet[top : top + ny, left : left + nx] * (stored["peak"] / 255)
                expected = np.clip(frame, 0, stored["peak"])
                assert np.abs(levels - expected).max() <= 0.51 * stored["peak"] / 255


def test_many_frames_are_shown_smaller_so_that_the_file_is_not_large(monkeypatch):
    monkeypatch.setattr("report.page.WHOLE_VALUES", 3000)
    data = player_data([series(n_frames=30)])["views"][0]
    assert data["heart"]["zoom"] == 1
    ny, nx = data["whole"]["size"]
    assert 3 * 30 * ny * nx < 4000
    assert data["whole"]["zoom"] == ny / 32


@pytest.mark.parametrize(
    "view",
    [
        series(n_frames=1),
        series(truth=None),
        series(scale=0.0),
        series(n_series=1, truth=None),
        series(n_frames=2),
    ],
    ids=["one frame", "no truth", "black", "one series", "two frames"],
)
def test_unusual_series_have_a_page(view):
    text = render(page(view))
    Structure(text)
    assert "NaN" not in text
    assert json.loads(json.dumps(player_data([view]), allow_nan=False))


def test_values_that_are_not_finite_are_black():
    images = make_images(1)[0]
    broken = images.copy()
    broken[2] = np.nan
    view = view_series("a", {"truth": images, "mine": broken}, {}, "truth")
    data = player_data([view])["views"][0]
    assert data["panels"][1]["psnr"][2] is None
    json.dumps(data, allow_nan=False)
    Structure(render(page(view)))


def test_a_page_without_pictures_has_no_script(tmp_path):
    write_page(tmp_path / "report.html", page(tables=[Table(["a"], [["b"]])]))
    text = (tmp_path / "report.html").read_text()
    Structure(text)
    assert "<script" not in text
    assert "The heartbeat" not in text


def test_the_style_has_both_colour_schemes_and_print():
    style = (TEMPLATES / "page.css").read_text()
    for words in ("prefers-color-scheme: dark", "@media print", "max-width: 46rem"):
        assert words in style


needs_browser = pytest.mark.skipif(
    chromium() is None, reason="no Chromium is installed (or named by the variable CHROMIUM)"
)

READY = "document.getElementById('player').dataset.ready === 'yes'"
FRAME = "document.getElementById('frame-text').textContent"
SUM = """(() => { const c = document.querySelectorAll('#panels .picture canvas')[%d];
    const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    let s = 0; for (let i = 0; i < d.length; i += 4) s += d[i];
    return [s, c.width, c.height]; })()"""
CURSORS = """[...document.querySelectorAll('.view[data-view="0"] .cursor')]
    .map(c => c.x1.baseVal.value)"""
PLACE = """(() => { const c = document.querySelector('#panels .picture canvas');
    c.scrollIntoView({block: 'center'}); const b = c.getBoundingClientRect();
    return [b.left, b.top, b.width, b.height]; })()"""


@needs_browser
def test_the_player_in_a_browser(full, tmp_path):
    path = tmp_path / "report.html"
    write_page(path, full)
    view = full.views[0]
    with browsing(tmp_path / "profile") as browser:
        browser.open(path)
        browser.wait(READY)
        assert browser.run(FRAME) == "1 of 8"

        # the gray values are those of the frame, within the window
        low, high = view.heart.window
        for step in range(3):
            total, width, height = browser.run(SUM % 0)
            frame = view.heart.crop(view.images["truth"])[step]
            assert (height, width) == frame.shape
            expected = 255 * np.clip((frame - low) / (high - low), 0, 1).sum()
            assert total == pytest.approx(expected, rel=0.02)
            browser.press("ArrowRight")
        assert browser.run(FRAME).startswith("4 of 8")
        browser.press("ArrowLeft")
        browser.run("document.getElementById('farthest').click()")
        assert browser.run(FRAME) == f"{view.heart.farthest + 1} of 8, farthest from 1"
        cursors = browser.run(CURSORS)
        assert len(cursors) == 1  # of the PSNR
        assert cursors[0] > 60

        # a drag to the side steps through the frames, a tap moves the lines
        left, top, width, height = browser.run(PLACE)
        middle = left + width / 2, top + height / 2
        browser.drag(middle, (middle[0] + 20, middle[1]))
        assert browser.run(FRAME).startswith(f"{(view.heart.farthest + 2) % 8 + 1} of 8")
        corner = left + 0.25 * width, top + 0.75 * height
        browser.drag(corner, corner)
        place = "document.querySelector('#panels .%s').style.%s"
        assert float(browser.run(place % ("row", "top"))[:-1]) == pytest.approx(75, abs=4)
        assert float(browser.run(place % ("column", "left"))[:-1]) == pytest.approx(25, abs=4)

        # gray window, error scale, whole image, reset
        before = browser.run(SUM % 0)[0]
        browser.run(
            "(e => { e.value = 999; e.oninput({target: e}) })(document.getElementById('high'))"
        )
        assert browser.run(SUM % 0)[0] < before
        error = browser.run(SUM % 2)[0]
        browser.run(
            "(e => { e.value = 1; e.oninput({target: e}) })(document.getElementById('error'))"
        )
        assert browser.run(SUM % 2)[0] > error
        browser.run("document.getElementById('reset').click()")
        browser.run("document.getElementById('whole').click()")
        browser.wait(f"({SUM % 0})[1] === 36")
        browser.run("document.getElementById('heart').click()")

        # another series, and playing
        choose = (
            "(e => { e.value = '1'; e.onchange({target: e}) })(document.getElementById('series'))"
        )
        browser.run(choose)
        browser.wait("document.querySelectorAll('#panels figure').length === 3")
        browser.run("document.getElementById('play').click()")
        frame = browser.run(FRAME)
        browser.wait(f"{FRAME} !== {json.dumps(frame)}")

        browser.open(path, width=390)
        browser.wait(READY)
        assert browser.run("document.documentElement.scrollWidth") <= 390
        browser.pdf(tmp_path / "report.pdf")
        assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
        # Chromium has a hint for whoever reads many pixels, as this test does
        assert [text for text in browser.problems if "willReadFrequently" not in text] == []
        others = [url for url in browser.requests if not url.startswith("data:")]
        assert set(others) == {path.as_uri()}


@needs_browser
def test_series_without_truth_and_single_frames_in_a_browser(tmp_path):
    path = tmp_path / "report.html"
    write_page(path, page(series(truth=None), series(n_frames=1), series(scale=0.0)))
    with browsing(tmp_path / "profile") as browser:
        browser.open(path)
        for number in range(3):
            browser.run(
                f"(e => {{ e.value = '{number}'; e.onchange({{target: e}}) }})"
                "(document.getElementById('series'))"
            )
            browser.wait("document.querySelectorAll('#panels figure').length === 3")
            browser.wait(READY)
            browser.run("document.getElementById('whole').click()")
            browser.run("document.getElementById('heart').click()")
            hidden = browser.run("document.getElementById('error-control').hidden")
            assert hidden == (number == 0)
        assert browser.problems == []
