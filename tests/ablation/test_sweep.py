import pytest

from ablation.sweep import (
    ROWS,
    group_of,
    read_rows,
    value_text,
    varied_rows,
    with_earlier,
    write_rows,
)
from train import train
from util.errors import InputError


def rows_of(*varied, one_at_a_time=False):
    return varied_rows(train, varied, one_at_a_time)


def test_rows_are_the_combinations_and_the_first_is_the_control():
    rows = rows_of(("stages", "3", "5"), ("loss", "mse", "mse 1 ssim 0.1"))
    mixed = ("mse", 1.0, "ssim", 0.1)
    assert rows == {
        "stages 3, loss mse": {"stages": 3, "loss": "mse"},
        "stages 3, loss mse 1 ssim 0.1": {"stages": 3, "loss": mixed},
        "stages 5, loss mse": {"stages": 5, "loss": "mse"},
        "stages 5, loss mse 1 ssim 0.1": {"stages": 5, "loss": mixed},
    }
    assert group_of(rows).control == "stages 3, loss mse"


def test_one_setting_at_a_time():
    rows = rows_of(("stages", 3, 5, 8), ("ema", "none", "0.9"), one_at_a_time=True)
    assert rows == {
        "stages 3, ema none": {"stages": 3, "ema": None},
        "ema 0.9": {"stages": 3, "ema": 0.9},
        "stages 5": {"stages": 5, "ema": None},
        "stages 8": {"stages": 8, "ema": None},
    }


def test_values_have_the_types_of_their_settings():
    assert rows_of(("batch-norm", "yes", "no")) == {
        "batch_norm yes": {"batch_norm": True},
        "batch_norm no": {"batch_norm": False},
    }
    assert rows_of(("--ema", "0", "0.99")) == {"ema 0": {"ema": 0.0}, "ema 0.99": {"ema": 0.99}}
    from_python = varied_rows(train, {"acc": [4, (4, 10)], "augment": [("flips", "time")]}, False)
    assert from_python == {
        "acc 4, augment flips time": {"acc": 4, "augment": ("flips", "time")},
        "acc 4 10, augment flips time": {"acc": (4, 10), "augment": ("flips", "time")},
    }
    assert value_text(True) == "yes"


@pytest.mark.parametrize(
    ("varied", "message"),
    [
        (("stage", 3, 5), r"--vary stage: there is no such setting; did you mean stages\?"),
        (("log", 3, 5), "--vary log: there is no such setting"),
        (("seed", 0, 1), "--vary seed: --seed must be the same in all rows"),
        (("data", "a.npz"), "--data must be the same"),
        (("stages", "three"), "--vary stages three: argument --stages: invalid int value: 'three'"),
        (("stages", "3 5"), "--vary stages 3 5: unrecognized arguments: 5"),
        (("stages", 2.5), "--stages is 2.5, expected int"),
        (("stages",), "--vary stages has no values"),
        (("stages", "3", 3), "--vary stages has 3 twice"),
        (("batch_norm", "true"), "--vary batch_norm is 'true', expected yes or no"),
        (("batch_norm", "none"), "--vary batch_norm is 'none', expected yes or no"),
    ],
)
def test_unknown_settings_and_values(varied, message):
    with pytest.raises(InputError, match=message):
        rows_of(varied)


def test_a_setting_varies_once():
    with pytest.raises(InputError, match="--vary has stages twice"):
        rows_of(("stages", 3), ("stages", 5))


def test_rows_of_a_file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(
        "# my rows\n\nas it is:\nmixed loss : --loss mse 1 ssim 0.1  # both\n"
        "a:b: --no-batch-norm --ema none\n"
    )
    assert read_rows(train, path) == {
        "as it is": {},
        "mixed loss": {"loss": ("mse", 1.0, "ssim", 0.1)},
        "a:b": {"batch_norm": False, "ema": None},
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--loss mse", "line 2: expected a label, a colon and flags, found '--loss mse'"),
        ("a:", "line 2: the label 'a' is there twice"),
        ("b: --stage 3", "line 2: unrecognized arguments: --stage 3; did you mean --stages"),
        ("b: --stages three", "line 2: argument --stages: invalid int value"),
        ("b: --data other.npz", "line 2: --data must be the same in all rows"),
        ("b: --loss 'mse", "line 2: a quotation mark is not closed"),
        ("b: @none.txt", "line 2: the argument file none.txt does not exist"),
    ],
)
def test_wrong_lines_of_a_file(tmp_path, line, message):
    path = tmp_path / "mine.txt"
    path.write_text(f"a: --loss mse\n{line}\n")
    with pytest.raises(InputError) as error:
        read_rows(train, path)
    assert str(error.value).startswith(f"{path}, ")
    assert message in str(error.value)


def test_files_without_rows(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_rows(train, tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="has no rows"):
        read_rows(train, tmp_path / "empty.txt")


def test_rows_survive_their_file_and_later_calls_add_to_them(tmp_path):
    first = rows_of(("loss", "mse", "mse 1 ssim 0.1"))
    assert with_earlier(train, tmp_path, {}) == {}
    assert with_earlier(train, tmp_path, first) == first
    write_rows(tmp_path, first)
    assert read_rows(train, tmp_path / ROWS) == first
    assert with_earlier(train, tmp_path, {}) == first
    more = rows_of(("loss", "mse", "l1"))
    assert list(with_earlier(train, tmp_path, more)) == [*first, "loss l1"]
    with pytest.raises(InputError, match=r"has the control 'loss mse', and this call 'loss l1'"):
        with_earlier(train, tmp_path, rows_of(("loss", "l1", "mse")))
    others = first | {"loss mse 1 ssim 0.1": {"loss": "hfen"}}
    with pytest.raises(InputError, match=r"has a row 'loss mse 1 ssim 0\.1' of other settings"):
        with_earlier(train, tmp_path, others)


def test_all_kinds_of_values_survive_the_file(tmp_path):
    rows = rows_of(
        ("batch_norm", "yes", "no"), ("ema", "none", "0.5"), ("acc", "4", "4 10"),
        ("augment", "", "flips time"), ("real_image", "yes", "no"),
    )  # fmt: skip
    assert len(rows) == 32
    write_rows(tmp_path, rows)
    assert read_rows(train, tmp_path / ROWS) == rows
