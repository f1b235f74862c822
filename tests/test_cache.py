import json

import pytest

import cache

IDENTITY = {"method": "zero_filled", "acc": 4.0, "shape": (8, 32, 36)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")


def test_what_was_remembered_is_recalled_with_all_digits():
    assert cache.recall(IDENTITY, list) is None
    cache.remember(IDENTITY, [{"psnr": 0.1 + 0.2}])
    assert cache.recall(IDENTITY, list) == [{"psnr": 0.1 + 0.2}]
    assert cache.recall(IDENTITY | {"acc": 6.0}, list) is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"found": [1]}', '{"identity": {}, "found": [1]}']
)
def test_what_is_not_legible_was_not_remembered(content):
    cache.remember(IDENTITY, [1])
    (file,) = cache.CACHE.iterdir()
    assert json.loads(file.read_text())["identity"]["method"] == "zero_filled"
    file.write_text(content)
    assert cache.recall(IDENTITY, list) is None


def test_another_kind_was_not_remembered():
    cache.remember(IDENTITY, 5)
    assert cache.recall(IDENTITY, list) is None


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cache, "CACHE", tmp_path / "file" / "cache")
    cache.remember(IDENTITY, [1])
    assert cache.recall(IDENTITY, list) is None
