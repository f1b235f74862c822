import math

import pytest

from util.errors import InputError
from util.journal import Journal


def test_results_are_there_after_a_stop_with_all_digits(tmp_path):
    path = tmp_path / "j.jsonl"
    journal = Journal(path, {"code": 1})
    journal.add({"sample": [1, 2]}, [{"psnr": 0.1 + 0.2, "acc": 4, "ssim": math.nan}])
    again = Journal(path, {"code": 1})
    (row,) = again.get({"sample": [1, 2]})
    assert row["psnr"] == 0.1 + 0.2
    assert math.isnan(row["ssim"])
    assert again.get({"sample": [3]}) is None
    again.remove()
    assert not path.exists()


def test_results_of_another_identity_are_dropped(tmp_path):
    Journal(tmp_path / "j", {"code": 1}).add({"a": 1}, 5)
    assert Journal(tmp_path / "j", {"code": 2}).get({"a": 1}) is None
    assert Journal(tmp_path / "j", {"code": 1}).get({"a": 1}) is None


def test_an_incomplete_line_is_dropped_and_does_not_spoil_what_follows(tmp_path):
    path = tmp_path / "j"
    Journal(path, {}).add({"a": 1}, 5)
    path.write_text(path.read_text() + '["x", [1, 2')
    journal = Journal(path, {})
    assert journal.get({"a": 1}) == 5
    journal.add({"b": 1}, 6)
    assert Journal(path, {}).get({"b": 1}) == 6


def test_a_full_disk_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="could not be written"):
        Journal(tmp_path / "missing" / "j", {})
