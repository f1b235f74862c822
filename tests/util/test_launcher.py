"""What starts a process, and what it leaves behind in the environment."""

import os
import subprocess
import sys
import time

import pytest
from helpers import ROOT, TINY

from util.command_line import as_flags
from util.launcher import PARENT, TORCHRUN

LEFT_OVER = [
    {"RANK": "0"},
    {"RANK": "3", "WORLD_SIZE": "4"},
    {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "1"},
    {"TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": "0"},
]
COMPLETE = dict(zip(TORCHRUN, ("id", "1", "2", "1", "127.0.0.1", "1"), strict=True))


def run(script: str, *words: str, **environment: str) -> subprocess.CompletedProcess:
    own = {name: value for name, value in os.environ.items() if name not in TORCHRUN}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *words],
        capture_output=True,
        text=True,
        env=own | environment,
        timeout=60,
    )


@pytest.mark.parametrize("left", LEFT_OVER)
def test_variables_of_another_launcher_do_not_make_several_processes(left, monkeypatch, capsys):
    from util.world import ALONE, torchrun_world

    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    with torchrun_world("nothing") as world:
        assert world is ALONE
    said = capsys.readouterr().out
    assert all(name in said for name in left)
    assert "torchrun did not start this process" in said


@pytest.mark.parametrize(
    ("device", "backend"),
    [(None, "cpu:gloo,cuda:nccl"), ("cuda:1", "cpu:gloo,cuda:nccl"), ("cpu", "gloo")],
)
def test_gpus_are_connected_by_nccl_unless_another_device_was_named(device, backend, monkeypatch):
    from util import world

    class Stop(BaseException):
        pass

    def begin(backend, **others):
        taken.append(backend)
        raise Stop

    taken = []
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(world, "meet", lambda size: (None, False))
    monkeypatch.setattr(world.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(world.dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(world.dist, "init_process_group", begin)
    with pytest.raises(Stop), world.torchrun_world("nothing", device):
        pass
    assert taken == [backend]


def test_processes_that_do_not_come_are_waited_for_with_a_word(monkeypatch, capsys):
    import datetime

    from util import world
    from util.errors import InputError

    monkeypatch.setattr(world, "MEETING", datetime.timedelta(seconds=2))
    monkeypatch.setattr(world, "MEETING_IS_LONG", 0.2)
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"did not come within 2 seconds .*`env -u TORCHELASTIC"):
        world.meet(2)
    assert "process 1 waits for 1 more of torchrun at 127.0.0.1:1" in capsys.readouterr().out


def test_a_script_for_one_process_refuses_torchrun():
    ended = run("tables.py", "run", **COMPLETE)
    assert ended.returncode == 2
    assert ended.stderr == (
        "tables.py: error: tables.py works in one process: start it with python, not torchrun\n"
    )


def test_a_run_stops_and_saves_its_state_when_the_process_that_started_it_has_ended(
    tmp_path, tiny_npz
):
    words = as_flags({"data": str(tiny_npz), **TINY, "num_epochs": 2000})
    command = [sys.executable, str(ROOT / "train.py"), str(tmp_path / "run"), *words]
    starter = (
        f"import os, subprocess, time; os.environ[{PARENT!r}] = str(os.getpid());"
        f" subprocess.Popen({command!r}, stdout=open({str(tmp_path / 'log')!r}, 'w'), stderr=-2);"
        " time.sleep(1000)"
    )
    process = subprocess.Popen([sys.executable, "-c", starter])
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "checkpoint_last.pt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()
    process.wait()
    while "stopped by the end of the process" not in (tmp_path / "log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
