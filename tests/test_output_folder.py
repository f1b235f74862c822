from output_folder import claimed_folder, in_use, is_empty


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


def test_fault_21_a_run_killed_as_it_began_leaves_a_usable_folder(tmp_path):
    (tmp_path / "config.json.tmp").touch()
    with claimed_folder(str(tmp_path), is_empty):
        pass


def test_a_claimed_folder_is_in_use(tmp_path):
    assert not in_use(tmp_path / "missing")
    assert not in_use(tmp_path)
    with claimed_folder(str(tmp_path), is_empty):
        assert in_use(tmp_path)
    assert not in_use(tmp_path)
