import pytest
from helpers import full_disk

from training.run_folder import require_empty
from util import files
from util.errors import InputError
from util.files import claimed_folder, read_csv, write_bytes, write_csv


def test_folder_is_made_and_removed_if_nothing_came_of_it(tmp_path):
    folder = tmp_path / "a" / "b"
    with claimed_folder(str(folder), require_empty):
        assert folder.is_dir()
    assert not folder.exists()
    with claimed_folder(str(folder), require_empty):
        (folder / "x").touch()
    assert folder.exists()


@pytest.mark.parametrize("left", [(), ("config.json.tmp",)])  # by a run killed as it began
def test_an_empty_folder_that_was_there_stays(tmp_path, left):
    for name in left:
        (tmp_path / name).touch()
    with claimed_folder(str(tmp_path), require_empty):
        pass
    assert tmp_path.exists()


def test_half_a_file_is_never_left(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_bytes(path, b"before")

    monkeypatch.setattr(files.Path, "replace", full_disk)
    with pytest.raises(InputError, match=r"a\.txt could not be written \(No space left"):
        write_bytes(path, b"after")
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_rows_may_lack_columns(tmp_path):
    write_csv(tmp_path / "a.csv", [{"a": 1, "b": 0.1 + 0.2}, {"b": 2.0, "c": "x"}])
    assert (tmp_path / "a.csv").read_text() == "a,b,c\n1,0.3,\n,2,x\n"
    assert read_csv(tmp_path / "a.csv")[1] == {"a": "", "b": "2", "c": "x"}


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfa,b\n1,2\n")
    assert read_csv(tmp_path / "a.csv") == [{"a": "1", "b": "2"}]


def test_names_that_are_no_text_are_escaped(tmp_path):
    write_csv(tmp_path / "a.csv", [{"name": "caf\udce9"}])
    assert (tmp_path / "a.csv").read_text() == "name\ncaf\\udce9\n"


def test_two_processes_write_two_temporary_files(tmp_path):
    with files.whole_file(tmp_path / "a") as first:
        write_bytes(tmp_path / "a", b"second")
        first.write(b"first")
    assert (tmp_path / "a").read_bytes() == b"first"


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"), files.whole_file(tmp_path / "a"):
        raise RuntimeError("shapes do not fit")
    assert list(tmp_path.iterdir()) == []
