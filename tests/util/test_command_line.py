import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT

from train import train
from util.command_line import as_argument_file, as_flags, given_command, main, parse_command_line
from util.errors import InputError, Interrupted
from util.progress import say
from util.settings import require_choices, settings_of, typed


def example(
    folder: str,  # where to
    *,
    # -- a group
    size: int = 3,  # how large, in pixels
    rate: float = 0.5,  # how fast (100 %)
    parts: tuple[float, ...] = (1, 2),  # how divided
    name: str | None = None,  # what it is called
    turned: bool = True,  # whether it is
):
    """Do something.

    With more words.
    """


def test_only_what_is_given_is_returned():
    assert parse_command_line(example, ["out"]) == {"folder": "out"}
    words = [
        "out",
        *as_flags({"size": 5, "rate": 1, "parts": (3, 4, 5), "name": "x", "turned": False}),
    ]
    assert parse_command_line(example, words) == {
        "folder": "out",
        "size": 5,
        "rate": 1.0,
        "parts": (3.0, 4.0, 5.0),
        "name": "x",
        "turned": False,
    }


def other(
    output: str,  # not wanted
    *,
    size: int = 4,  # the other's
    colour: str = "red",  # what colour
    hidden: bool = False,  # not wanted either
):
    """Do something else."""


def test_keywords_of_another_function_follow(capsys):
    words = ["out", "--colour", "blue", "--size", "5"]
    given = parse_command_line(example, words, more=other, without={"output", "hidden"})
    assert given == {"folder": "out", "colour": "blue", "size": 5}
    with pytest.raises(SystemExit):
        parse_command_line(example, ["--help"], more=other, without={"output", "hidden"})
    text = capsys.readouterr().out
    assert "what colour (default: red)" in text
    assert "how large, in pixels (default: 3)" in " ".join(text.split())
    assert "not wanted" not in text
    assert "the other's" not in text


def test_help_is_the_comments_of_the_signature(capsys):
    settings = {setting.name: setting for setting in settings_of(example)}
    assert settings["size"].help == "how large, in pixels"
    assert settings["size"].default_text == "3"
    assert settings["parts"].default_text == "1 2"
    assert (settings["folder"].group, settings["size"].group) == ("", "a group")
    assert not settings["folder"].has_default
    with pytest.raises(SystemExit) as end:
        parse_command_line(example, ["--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Do something." in text
    assert "a group: --size INT" in text
    for piece in ("where to", "how fast (100 %) (default: 0.5)", "how divided (default: 1 2)"):
        assert piece in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("out --speed 3", "unrecognized arguments: --speed"),
        ("out --siz 3", "unrecognized arguments: --siz"),
        ("out --sise 3", "arguments: --sise 3; did you mean --size for --sise?"),
        ("out --size big", "argument --size: invalid int value: 'big'"),
        ("out --size 2.5", "invalid int value"),
        ("out --parts a", "invalid float value"),
        ("--size 3", "required: folder"),
    ],
)
def test_wrong_command_lines_end_in_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        parse_command_line(example, words.split())
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "given",
    [
        {"size": "3"},
        {"size": True},
        {"size": None},
        {"rate": float("nan")},
        {"rate": float("inf")},
        {"parts": [1, "2"]},
        {"parts": (1, "2")},
        {"turned": 1},
        {"name": 3},
    ],
)
def test_wrong_types_from_python(given):
    (name,) = given
    with pytest.raises(InputError, match=f"--{name} is "):
        typed(example, given)


def test_numpy_numbers_paths_and_lists_are_taken_for_what_they_stand_for():
    given = {"size": np.int64(3), "rate": np.float32(0.5), "parts": [np.float64(1.5), 2]}
    values = typed(example, given | {"name": Path("a/b"), "turned": np.bool_(True)})
    assert values == {"size": 3, "rate": 0.5, "parts": (1.5, 2), "name": "a/b", "turned": True}
    assert [type(value) for value in values.values()] == [int, float, tuple, str, bool]
    assert type(values["parts"][0]) is float
    given = {"size": 3, "rate": 1, "parts": (1, 2.5), "name": None, "turned": False}
    assert typed(example, given) == given


def test_output_goes_on_whatever_the_stream_is(monkeypatch, tmp_path):
    ascii_file = (tmp_path / "out").open("w", encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_file)
    monkeypatch.setattr(sys, "stderr", None)
    assert main("x.py", lambda: say("µ ± \udcff"), "") == 0
    sys.stderr.close()
    ascii_file.close()
    assert (tmp_path / "out").read_text() == "\\xb5 \\xb1 \\udcff\n"
    say("the stream is closed")


def test_a_reader_that_stops_early_is_no_error():
    """As in `tables.py run | head -1`."""
    code = (
        "import sys; from util.command_line import main;"
        "sys.exit(main('x.py', lambda: print('line\\n' * 100_000), ''))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0
    assert errors == b""


def test_arguments_come_from_a_file_and_a_later_flag_wins(tmp_path):
    recipe = tmp_path / "recipe.txt"
    recipe.write_text(
        "# a recipe\n--size 5 --rate 0.25  # two of them\n\n--parts 3 4\n--name 'two words'\n"
    )
    given = {"folder": "out", "size": 5, "rate": 0.25, "parts": (3.0, 4.0), "name": "two words"}
    assert parse_command_line(example, ["out", f"@{recipe}"]) == given
    words = ["out", f"@{recipe}", "--size", "6", "--parts", "7", "8", "--name", "none"]
    changed = {"size": 6, "parts": (7.0, 8.0), "name": None}
    assert parse_command_line(example, words) == given | changed


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("--name study#3/cine.npz  # the patient's", "study#3/cine.npz"),
        (r"--name C:\data\cine.npz", r"C:\data\cine.npz"),
        ("--name='a # b' #c", "a # b"),
        ('--name "it\'s"', "it's"),
        ("\ufeff--name x\r\n", "x"),
        ("--name=@x.npz", "@x.npz"),
        ("--name größe", "größe"),
    ],
)
def test_values_in_a_file_are_taken_as_they_are(tmp_path, line, name):
    (tmp_path / "recipe.txt").write_text(line, encoding="utf-8", newline="")
    given = parse_command_line(example, ["out", f"@{tmp_path / 'recipe.txt'}"])
    assert given["name"] == name


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "recipe.txt"), (b"--name 'open", "a quotation mark is not closed"),
     (b"--speed 3", "unrecognized arguments: --speed 3"), (b"--name \xff", "is not UTF-8 text"),
     (b"@recipe.txt", "an argument file names itself")],
)  # fmt: skip
def test_a_bad_argument_file_ends_in_one_line(tmp_path, monkeypatch, content, message, capsys):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "recipe.txt").write_bytes(content)
    with pytest.raises(SystemExit) as end:
        parse_command_line(example, ["out", "@recipe.txt"])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (None, 0, ""),
        (InputError("no file"), 2, "x.py: error: no file\n"),
        (Interrupted("stopped by SIGTERM"), 75, "x.py: stopped by SIGTERM\n"),
        (KeyboardInterrupt(), 130, "x.py: interrupted; start again\n"),
    ],
)
def test_every_end_has_its_status_and_one_line(error, status, message, capsys):
    def command():
        if error:
            raise error

    assert main("x.py", command, "start again") == status
    assert capsys.readouterr().err == message


def test_choices_are_in_the_help(capsys):
    with pytest.raises(SystemExit):
        parse_command_line(example, ["--help"], choices={"name": ("x", "y")})
    assert "what it is called (default: None); also: x, y" in " ".join(
        capsys.readouterr().out.split()
    )


def test_settings_survive_the_way_through_a_command_line_and_an_argument_file(tmp_path):
    settings = {"size": 5, "rate": 0.1, "parts": (3.0, 4.0), "turned": False}
    for name in ("@x", "@x y", "it's #1", None):
        given = settings | {"name": name}
        (tmp_path / "settings.txt").write_text("# made by a test\n" + as_argument_file(given))
        for words in (as_flags(given), [f"@{tmp_path / 'settings.txt'}"]):
            assert parse_command_line(example, ["out", *words]) == {"folder": "out"} | given
    assert as_argument_file({"name": None}) == "--name none\n"


def test_the_command_is_that_of_the_script_alone(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["some/train.py", "my out", "--acc", "4"])
    assert given_command("train.py") == "python some/train.py 'my out' --acc 4"
    assert given_command("other.py") is None


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("@recipes/cascad.txt", "did you mean @recipes/cascade.txt"),
        ("@no/such", "such as @recipes/"),
    ],
)
def test_a_recipe_that_does_not_exist_gets_a_hint(word, hint, capsys):
    with pytest.raises(SystemExit):
        parse_command_line(train, ["out", word])
    assert hint in capsys.readouterr().err


def test_recipes_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from_anywhere = parse_command_line(train, ["out", "@recipes/cascade.txt"])
    monkeypatch.chdir(ROOT)
    assert from_anywhere == parse_command_line(train, ["out", "@recipes/cascade.txt"])
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "cascade.txt").write_text("--seed 5\n")
    monkeypatch.chdir(tmp_path)  # where the user's own file comes first
    assert parse_command_line(train, ["out", "@recipes/cascade.txt"])["seed"] == 5


def with_function(
    *,
    size: int = 1,  # a number
    call: Callable[[int], object] | None = None,  # for Python alone
) -> None:
    """A command with a function."""


def test_a_function_is_no_setting(capsys):
    assert [(setting.name, setting.help) for setting in settings_of(with_function)] == [
        ("size", "a number")
    ]
    with pytest.raises(SystemExit):
        parse_command_line(with_function, ["--call", "print"])
    assert "unrecognized arguments: --call print" in capsys.readouterr().err


def several_kinds(
    *,
    loss: str | tuple[str | float, ...] = "mse",  # names and numbers
    vary: tuple[tuple[str, ...], ...] = (),  # given several times
) -> None:
    """A command with tuples of two types, and of tuples."""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--loss mse", {"loss": "mse"}),
        ("--loss mse 1 ssim 1e-2", {"loss": ("mse", 1.0, "ssim", 0.01)}),
        ("--loss 3", {"loss": (3.0,)}),
        ("--vary a 1 --vary b", {"vary": (("a", "1"), ("b",))}),
        ("", {}),
    ],
)
def test_tuples_of_two_types_and_of_tuples(words, expected):
    given = parse_command_line(several_kinds, words.split())
    assert given == expected
    assert typed(several_kinds, given) == given
    if "vary" not in given:
        assert parse_command_line(several_kinds, as_flags(given)) == given


def test_a_misspelt_choice_gets_a_hint():
    with pytest.raises(InputError, match=r"--loss is 'hfem', .*; did you mean hfen\?"):
        require_choices({"loss": "hfem"}, {"loss": ("mse", "hfen")})
