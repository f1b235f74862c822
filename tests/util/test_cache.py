import json

import pytest

from util import cache

IDENTITY = {"method": "zero_filled", "acc": 4.0, "shape": (8, 32, 36)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CINE_CACHE", str(tmp_path / "cache"))


def test_results_are_recalled_with_all_digits():
    assert cache.recall(IDENTITY, list) is None
    cache.remember(IDENTITY, [{"psnr": 0.1 + 0.2}])
    assert cache.recall(IDENTITY, list) == [{"psnr": 0.1 + 0.2}]
    assert cache.recall(IDENTITY | {"acc": 6.0}, list) is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"result": [1]}', '{"identity": {}, "result": [1]}']
)
def test_an_unreadable_file_is_ignored(content):
    cache.remember(IDENTITY, [1])
    (file,) = (cache.cache_folder() / "baselines").iterdir()
    assert json.loads(file.read_text())["identity"]["method"] == "zero_filled"
    file.write_text(content)
    assert cache.recall(IDENTITY, list) is None


def test_a_result_of_another_type_is_ignored():
    cache.remember(IDENTITY, 5)
    assert cache.recall(IDENTITY, list) is None


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CINE_CACHE", str(tmp_path / "file" / "cache"))
    cache.remember(IDENTITY, [1])
    assert cache.recall(IDENTITY, list) is None


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of three modules, the first of which imports the second."""
    monkeypatch.setattr(cache, "ROOT", tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "first.py").write_text("from folder.second import f\nimport numpy\n")
    (tmp_path / "folder" / "second.py").write_text("def f():\n    return 1\n")
    (tmp_path / "third.py").write_text("x = 1\n")
    return tmp_path


def test_the_hash_of_the_source_follows_imports(project):
    before = cache.source_hash("first")
    assert cache.source_hash("first") == before
    (project / "third.py").write_text("x = 2\n")
    assert cache.source_hash("first") == before
    (project / "folder" / "second.py").write_text("def f():\n    return 2\n")
    changed = cache.source_hash("first")
    assert changed != before
    (project / "first.py").write_text("from folder import second\nimport numpy\n")
    assert cache.source_hash("first") not in (before, changed)


def test_modules_of_the_project_are_told_from_others(project):
    assert cache.project_imports(project / "first.py") == ["folder.second"]
    assert cache.source_file("folder.second") == project / "folder" / "second.py"
    assert cache.source_file("numpy") is None
