import numpy as np
import pytest
from helpers import full_disk

from data import stored
from data.stored import GrowingArrays, Stored, stored_in
from util.errors import InputError

ARRAY = np.arange(60, dtype=np.float32).reshape(5, 3, 4)


def test_arrays_grow_into_one_file(tmp_path):
    arrays = GrowingArrays(tmp_path / "some.npz", 5)
    for start in (0, 2, 4):
        items = ARRAY[start : start + 2]
        arrays.add({"a": items, "b": items[:, 0].astype(np.float16)})
    assert not (tmp_path / "some.npz").exists()
    arrays.close()
    assert [path.name for path in tmp_path.iterdir()] == ["some.npz"]
    with np.load(tmp_path / "some.npz") as found:
        assert found.files == ["a", "b"]
        np.testing.assert_array_equal(found["a"], ARRAY)
        np.testing.assert_array_equal(found["b"], ARRAY[:, 0])
        assert found["b"].dtype == np.float16


def test_without_arrays_there_is_no_file(tmp_path):
    GrowingArrays(tmp_path / "some.npz", 5).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("where", "name"), [(stored.Path, "replace"), (stored.npy_format, "write_array_header_1_0")]
)
def test_half_a_file_of_arrays_is_never_left(tmp_path, monkeypatch, where, name):
    def write():
        arrays = GrowingArrays(tmp_path / "some.npz", 5)
        arrays.add({"a": ARRAY})
        arrays.close()

    monkeypatch.setattr(where, name, full_disk)
    with pytest.raises(InputError, match=r"some\.npz could not be written \(No space"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path):
    GrowingArrays(tmp_path / "some.npz", 5).add({"a": ARRAY})
    assert len(list(tmp_path.iterdir())) == 1
    GrowingArrays(tmp_path / "some.npz", 5).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("comment", [b"", b"a comment of the archive"])
def test_a_plain_member_is_mapped_where_it_lies(tmp_path, comment):
    path = tmp_path / "some.npz"
    np.savez(path, first=np.arange(7), dataset=ARRAY, turned=np.asfortranarray(ARRAY))
    if comment:
        with stored.zipfile.ZipFile(path, "a") as archive:
            archive.comment = comment
    with path.open("rb") as file:
        members = stored_in(file, path, "expected an array")
        found = members["dataset"]()
        assert found.can_be_mapped
        for i, item in enumerate(ARRAY):
            np.testing.assert_array_equal(found.mapped(i), item)
        assert not members["turned"]().can_be_mapped
    np.savez_compressed(path, dataset=ARRAY)
    with path.open("rb") as file:
        assert not stored_in(file, path, "expected an array")["dataset"]().can_be_mapped


def test_an_array_of_unknown_place_is_not_mapped(tmp_path):
    path = tmp_path / "some.npy"
    np.save(path, ARRAY)
    array = Stored(lambda: path.open("rb"), path.stat().st_size, str(path), "expected an array")
    assert not array.can_be_mapped
