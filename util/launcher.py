"""What started this process: `torchrun`, a script of this suite, or a user.

An environment variable alone does not tell: shells and other programs leave some of them behind.
"""

import os
from collections.abc import Mapping

from util.errors import InputError

TORCHRUN = (  # environment variables that it sets for its processes
    "TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"
)  # fmt: skip
PARENT = "CINE_PARENT"  # environment variable: the process without which this one stops


def started_by_torchrun() -> bool:
    """Whether the environment is one that `torchrun` makes."""
    return all(os.environ.get(name) for name in TORCHRUN)


def left_over() -> str:
    """Variables of a launcher that did not start this process, in words; "" if there are none."""
    found = [name for name in TORCHRUN if name in os.environ]
    return "" if started_by_torchrun() else ", ".join(found)


def launch_name() -> str | None:
    """The name that `torchrun` gave to the call which started this process; None if it has none."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if name == "none" else name


def require_one_process(script: str) -> None:
    """Raise InputError if `torchrun` started several processes of a script that is for one."""
    if started_by_torchrun() and os.environ["WORLD_SIZE"] != "1":
        raise InputError(f"{script} works in one process: start it with python, not torchrun")


def environment_of_child(more: Mapping[str, str]) -> dict[str, str]:
    """The environment, and `more`, for a process that is not torchrun's, and stops when this one
    has ended."""
    own = {name: value for name, value in os.environ.items() if name not in TORCHRUN}
    return {**own, **more, PARENT: str(os.getpid())}


def has_lost_parent() -> bool:
    """Whether this process was started by one of this suite that has ended."""
    parent = os.environ.get(PARENT)
    return parent is not None and str(os.getppid()) != parent
