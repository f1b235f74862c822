"""The processes that work on one run, as `torchrun` starts them.

A process has a rank among all, 0 for the first. Every process runs the same code on its share of
the work; the first alone writes files and talks to the user. Objects and decisions are exchanged
between CPUs (gloo), gradients between GPUs (NCCL).
"""

import atexit
import contextlib
import datetime
import gc
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from util.errors import EXIT_INTERRUPTED, InputError, Interrupted
from util.launcher import TORCHRUN, left_over, started_by_torchrun
from util.progress import say

Value = TypeVar("Value")
Item = TypeVar("Item")

MEETING = datetime.timedelta(minutes=2)  # for the other processes to start
MEETING_IS_LONG = 5  # seconds, after which the user is told who is waited for
TIMEOUT = datetime.timedelta(days=2)  # the others wait while the first searches, tests and draws
ATTEMPT = "attempt"  # the key in torchrun's store of what `of_this_attempt` writes
ASK_EVERY = 0.05  # seconds
LOST = ("gloo", "nccl", "connection", "broken pipe")  # in the error when another process has ended


@dataclass(frozen=True)
class World:
    """This process among those that work on a run; alone, unless `torchrun` started more."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those on this machine
    restarted: bool = False  # of the first: torchrun has started them again after one was lost

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of this process: every `size`-th, from its rank on."""
        return items[self.rank :: self.size]

    def merged(self, share: Sequence[Item]) -> list[Item]:
        """The items of all processes in their order: the inverse of `share`."""
        shares = self.gathered(share)
        items: list[Any] = [None] * sum(map(len, shares))
        for rank, part in enumerate(shares):
            items[rank :: self.size] = part
        return items

    def gathered(self, value: Value) -> list[Value]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Value) -> Value:
        """The first process's value."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return bool(self.total(torch.tensor(float(flag))))

    def total(self, values: Tensor) -> Tensor:
        """The sum of the values over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        """Copy the first process's values into these tensors."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Wait until every process is here."""
        self.any(False)

    @contextlib.contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The block runs in the first process, then in the others, which find what it stored."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def mapped(
        self, work: Callable[[Item], Value], items: Sequence[Item]
    ) -> Iterator[Value | None]:
        """The results of all items in their order, on the first process; None on the others.

        Each item is worked on by one process, and results are sent in rounds of one for each.
        """
        for start in range(0, len(items), self.size):
            own = start + self.rank
            result = work(items[own]) if own < len(items) else None
            n = min(self.size, len(items) - start)
            if self.size == 1:
                yield result
                continue
            results: list[Any] = [None] * self.size
            dist.gather_object(result, results if self.is_first else None, dst=0)
            yield from results[:n]

    def device(self, device: torch.device) -> torch.device:
        """The device of this process, if all were to take `device`: of several GPUs its own.

        Raises:
            InputError: this machine has more processes than GPUs.
        """
        if self.size > 1 and device.type == "mps":
            raise InputError("several processes cannot share an MPS device: give --device cpu")
        if self.size == 1 or device.type != "cuda":
            return device
        if device.index is not None:
            raise InputError(f"--device {device} is one GPU for {self.size} processes: give cuda")
        n_devices = torch.cuda.device_count()
        if self.local_rank >= n_devices:
            raise InputError(
                f"this machine has {n_devices} GPUs for more processes than that: give torchrun"
                f" --nproc-per-node {n_devices}, or train.py --device cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)


ALONE = World()


@contextlib.contextmanager
def said_if_long(text: str) -> Iterator[None]:
    """Tell the user what a block waits for, if it takes more than a few seconds."""
    timer = threading.Timer(MEETING_IS_LONG, say, [text])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def meet(size: int) -> tuple[dist.Store, bool]:
    """The part of torchrun's store for the processes that were started together, and whether
    others have used the store before them.

    Raises:
        InputError: not all processes came.
    """
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    waiting = f"process {os.environ['RANK']} waits for {size - 1} more of torchrun at {where}"
    try:
        with said_if_long(waiting):
            store, rank, _ = next(dist.rendezvous("env://", timeout=MEETING))
            used = store.check([ATTEMPT])
            store = of_this_attempt(store, rank, size)
            store.set_timeout(TIMEOUT)
            return store, used
    except (ValueError, dist.DistError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(
            f"{waiting}, and they did not come within {MEETING.seconds} seconds ({reason}): start"
            " all nodes at the same time; if torchrun was not meant, remove its variables with"
            f" `env {' '.join(f'-u {name}' for name in TORCHRUN)} python ...`"
        ) from None


def of_this_attempt(store: dist.Store, rank: int, size: int) -> dist.Store:
    """The part of torchrun's store for the processes that were started together.

    After one was lost, the store still has the addresses of those before. So the first process
    names its attempt, and goes on when all others have answered to that name.
    """
    own = uuid.uuid4().hex
    if rank == 0:
        store.set(ATTEMPT, own)
        answers = [store.get(f"{own}/{other}").decode() for other in range(1, size)]
        store.set(f"{own}/all", " ".join(answers))
        return dist.PrefixStore(own, store)
    while True:
        attempt = store.get(ATTEMPT).decode()  # perhaps the last one's still
        store.set(f"{attempt}/{rank}", own)
        if store.check([f"{attempt}/all"]) and own in store.get(f"{attempt}/all").decode().split():
            return dist.PrefixStore(attempt, store)
        time.sleep(ASK_EVERY)


@contextlib.contextmanager
def torchrun_world(continue_with: str, device: str | None = None) -> Iterator[World]:
    """The processes that `torchrun` started, if it started this one; else this one `ALONE`.

    All but the first are silent. When one ends with an error, the others end too, without a word
    if it could say why itself.

    Args:
        continue_with: the command that continues the run, for the message.
        device: as asked for; None: GPUs, if there are some.

    Raises:
        Interrupted: another process was lost.
    """
    if not started_by_torchrun() or dist.is_initialized():
        if names := left_over():
            say(f"NOTICE: the environment has {names}, but torchrun did not start this process")
        yield ALONE
        return
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
    if int(os.environ["WORLD_SIZE"]) == 1:
        yield World(restarted=restarted)
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store, used = meet(size)
    restarted = restarted or used
    on_gpus = device is None or device.startswith("cuda")
    has_nccl = on_gpus and torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if has_nccl else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    world = World(rank, size, int(os.environ["LOCAL_RANK"]), restarted)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.ExitStack() as silence:
            if not world.is_first:
                silence.enter_context(contextlib.redirect_stdout(nowhere))
                silence.enter_context(contextlib.redirect_stderr(nowhere))
            yield world
        world.wait()  # so that none closes a connection that another still reads
        dist.destroy_process_group()
    except Exception as error:
        is_second = True
        with contextlib.suppress(RuntimeError):  # torchrun, which keeps the store, may have ended
            is_second = store.add("ended", 1) > 1
        lost = isinstance(error, dist.DistError) or (
            isinstance(error, RuntimeError) and any(mark in str(error).lower() for mark in LOST)
        )
        if not (lost or isinstance(error, (InputError, Interrupted))):
            raise  # a fault, which is shown by every process that meets it
        if is_second:
            raise SystemExit(EXIT_INTERRUPTED) from None
        if lost:
            raise Interrupted(
                f"another of the {size} processes of this run was lost; continue with:"
                f" {continue_with}"
            ) from None
        raise
    finally:
        if dist.is_initialized() and not has_nccl:  # which would wait for the others
            dist.destroy_process_group()
        # DistributedDataParallel, which is garbage now, has the group as well: its threads would
        # call an interpreter that is ending, and abort the process
        atexit.register(gc.collect)
