"""The documentation: its code runs; its settings, recipes and links are those of the project."""

import re
import sys
from unittest.mock import MagicMock

import pytest
from helpers import ROOT

from CS_mask import PATTERNS
from experiments import GROUP_NAMES, experiments
from methods.baselines import BASELINES
from model import about_models
from reconstruct import reconstruct_scan
from score import export, score_files
from train import train
from util.command_line import parse_command_line
from util.settings import flag, settings_of

FOLDERS = (".", "docs", "dev", "weights")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
RECIPES = sorted(ROOT.glob("recipes/*.txt"))


def parsed(recipe):
    """The settings of an argument file, of the command that it is for."""
    words = ["out", f"@{recipe}"]
    if recipe.stem.startswith("experiments"):
        return parse_command_line(experiments, words, more=train)
    return parse_command_line(train, words)


def test_the_code_of_the_python_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text()
    trackers = {name: MagicMock() for name in ("wandb", "mlflow")}  # which need not be installed
    for name, stub in trackers.items():
        monkeypatch.setitem(sys.modules, name, stub)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 8
    scope = {"__name__": "__main__"}
    try:
        exec(compile("\n".join(blocks), "docs/python.md", "exec"), scope)
    finally:
        BASELINES.pop("smoothed", None)
    assert [row["method"] for row in scope["rows"][:2]] == ["cascade", "cascade"]
    assert "smoothed" in scope["scores"]
    assert (tmp_path / "frames.png").exists()
    logs = trackers["wandb"].init().log, trackers["mlflow"].log_metrics
    for rows in ([call.args[0] for call in log.call_args_list] for log in logs):
        assert len(rows) == 2
        assert rows[0]["train/loss"] > 0
        assert rows[1]["test/psnr"] > 0


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_a_command_line(recipe):
    settings = parsed(recipe)
    assert len(settings) > 2
    assert recipe.read_text().startswith("# "), "the first line says what it is for"


def test_the_reference_recipe_spells_out_the_defaults():
    given = parsed(ROOT / "recipes" / "reference.txt")
    defaults = {s.name: s.default for s in settings_of(train)}
    for name, value in given.items():
        assert name == "output_folder" or value == defaults[name], name


def test_settings_page_has_every_setting_as_the_signature_has_it():
    """Its lines `**--flag** (default) meaning` are made from the signature of `train()`."""
    text = (ROOT / "docs" / "settings.md").read_text()
    expected = [
        f"**`{flag(s.name)}`** (default: {s.default_text}): {about_models(s.name)}{s.help}"
        for s in settings_of(train)
        if s.has_default
    ]
    assert re.findall(r"^\*\*`--.*$", text, re.MULTILINE) == expected
    groups = dict.fromkeys(s.group for s in settings_of(train) if s.group)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[: len(groups)] == [
        group.capitalize() for group in groups
    ]


def test_every_group_and_every_pattern_is_described():
    text = (ROOT / "docs" / "settings.md").read_text()
    rows = " ".join(re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE))
    described = {name.strip("` ") for name in rows.replace(",", " ").split()}
    assert {*GROUP_NAMES, *PATTERNS} <= described


@pytest.mark.parametrize("function", [train, reconstruct_scan, export, score_files])
def test_every_comment_of_a_setting_is_one_short_line(function):
    for setting in settings_of(function):
        assert 0 < len(setting.help) <= 70, setting.name


def test_the_workflow_runs_the_commands_of_the_readme_and_the_checks_of_a_change():
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    (tests,) = re.findall(r"^    (.* && python -m pytest)$", (ROOT / "README.md").read_text(), re.M)
    assert re.findall(r"^        run: (.*pytest)$", workflow, re.M) == [tests]
    local = (ROOT / ".ci" / "run").read_text()
    checks = re.findall(r"^(?:ruff .*|mypy)$", local, re.M)
    assert f"run: {' && '.join(checks)}\n" in workflow
    lowest = re.search(r'^python_version = ("3.\d+")$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert lowest
    assert f"python: [{lowest[1]}, " in workflow


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_and_recipes_on_a_page_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for recipe in re.findall(r"@(recipes/\w+\.txt)", text):
        assert (ROOT / recipe).exists(), recipe
