from output_folder import claimed_folder, is_empty


def test_folder_is_made_and_removed_if_nothing_came_of_it(tmp_path):
    folder = tmp_path / "a" / "b"
    with claimed_folder(str(folder), is_empty):
        assert folder.is_dir()
    assert not folder.exists()
    with claimed_folder(str(folder), is_empty):
        (folder / "x").touch()
    assert folder.exists()


def test_an_empty_folder_that_was_there_stays(tmp_path):
    with claimed_folder(str(tmp_path), is_empty):
        pass
    assert tmp_path.exists()
