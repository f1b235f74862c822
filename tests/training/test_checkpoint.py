import pickle
import resource

import pytest
import torch
from helpers import Canary

from training import checkpoint as ckpt
from util import files
from util.errors import InputError

VALUES = {int: 1, str: "unet", float: 0.5, dict: {}, list: []}


def example(**changes) -> dict:
    return {name: VALUES[kind] for name, kind in ckpt.KEYS.items()} | {
        "format": ckpt.FORMAT,
        "weights": {"w": torch.arange(3.0)},
        "data": {"hash": "abc", "seen": {"trained": ["a"], "selected": []}},
        **changes,
    }


def test_round_trip(tmp_path):
    path = tmp_path / ckpt.LAST
    ckpt.save_checkpoint(path, example())
    loaded = ckpt.load_checkpoint(path)
    assert torch.equal(loaded.pop("weights")["w"], torch.arange(3.0))
    expected = example()
    del expected["weights"]
    assert loaded == expected
    assert [p.name for p in tmp_path.iterdir()] == [ckpt.LAST]


def test_full_disk_keeps_the_previous_checkpoint(tmp_path):
    path = tmp_path / ckpt.LAST
    ckpt.save_checkpoint(path, example(epoch=7))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))  # bytes of a file
    try:
        with pytest.raises(InputError, match=r"could not be written .*content is untouched"):
            ckpt.save_checkpoint(path, example(weights={"w": torch.zeros(250_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ckpt.load_checkpoint(path)["epoch"] == 7
    assert [p.name for p in tmp_path.iterdir()] == [ckpt.LAST]


def test_killed_while_saving_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / ckpt.LAST
    ckpt.save_checkpoint(path, example(epoch=7))

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", killed)  # all is written, nothing renamed
    with pytest.raises(KeyboardInterrupt):
        ckpt.save_checkpoint(path, example(epoch=8))
    assert ckpt.load_checkpoint(path)["epoch"] == 7


@pytest.mark.parametrize("as_pickle", [False, True])
def test_a_canary_is_not_executed(tmp_path, as_pickle):
    path = tmp_path / "evil.pt"
    content = example(settings={"x": Canary(tmp_path / "sung")})
    if as_pickle:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"evil\.pt .*"):
        ckpt.load_checkpoint(path)
    assert not (tmp_path / "sung").exists()


def write_truncated(path):
    ckpt.save_checkpoint(path, example())
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.touch(), "cannot be read as a checkpoint"),
        (lambda path: path.write_text("none"), "cannot be read as a checkpoint|is damaged"),
        (write_truncated, "cannot be read as a checkpoint"),
        (lambda path: torch.save({"weights": {}}, path), "missing or of the wrong type: format"),
        (lambda path: torch.save([1, 2], path), "not a checkpoint of this project"),
        (lambda path: torch.save(example(epoch="3"), path), "of the wrong type: epoch"),
        (lambda path: torch.save(example(data={}), path), "of the wrong type: data"),
        (lambda path: torch.save(example(format=99), path), "has checkpoint format 99"),
    ],
)
def test_foreign_and_damaged_files(tmp_path, write, message):
    path = tmp_path / "checkpoint.pt"
    write(path)
    with pytest.raises(InputError, match=message) as error:
        ckpt.load_checkpoint(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_that_do_not_fit(tmp_path):
    layer = torch.nn.Linear(2, 2)
    for weights, message in [
        ({"w": torch.zeros(3)}, "does not fit the architecture in it"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, "does not fit"),
        ({"weight": torch.full((2, 2), torch.nan), "bias": torch.zeros(2)}, "not finite"),
    ]:
        with pytest.raises(InputError, match=message):
            ckpt.load_weights(layer, example(weights=weights), tmp_path / "x.pt")


def test_random_states_are_restored():
    device = torch.device("cpu")
    stored = {"random_states": ckpt.random_states(device), "epoch": 1, "step": 2}
    drawn = torch.rand(3)
    ckpt.restore_random_states(stored, 0, 0, device)
    assert torch.equal(torch.rand(3), drawn)
    ckpt.restore_random_states(stored, 0, 1, device)  # a process that there was not
    other = torch.rand(3)
    assert not torch.equal(other, drawn)
    ckpt.seed_dropout(0, 1, epoch=1, step=2)
    assert torch.equal(torch.rand(3), other)
