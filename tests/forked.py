"""Commands in processes that are forked from one which has imported the suite, because importing
torch takes longer than most commands. That one computes nothing, so that forking it is safe."""

import importlib
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from util.command_line import main
from util.stop import recorded_signals

ROOT = Path(__file__).resolve().parent.parent
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["train", "reconstruct", "score", "tables", "forked"])


class Command:
    """`python script words` in a process of its own, with warnings as errors."""

    def __init__(self, script: str, words: Sequence[object], folder: Path):
        """`folder`: the working folder."""
        self.files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        descriptors = [os.dup(file.fileno()) for file in self.files]
        arguments = script, [*map(str, words)], folder, *map(_Sent, descriptors)
        self.process: BaseProcess = CONTEXT.Process(target=_run, args=arguments)
        self.process.start()
        for descriptor in descriptors:
            os.close(descriptor)

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def finished(self, timeout: float = 120) -> subprocess.CompletedProcess:
        """What it printed, and its exit status, when it has ended."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutError(f"{self.process} took more than {timeout} s")
        texts = []
        for file in self.files:
            file.seek(0)
            texts.append(file.read().decode())
            file.close()
        return subprocess.CompletedProcess([], self.process.exitcode, *texts)


class _Sent:
    """A file descriptor that is sent to the process."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    def __reduce__(self):
        from multiprocessing.reduction import DupFd

        return _detached, (DupFd(self.descriptor),)


def _detached(sent) -> int:
    return sent.detach()


def _run(script: str, words: list[str], folder: Path, out: int, error: int) -> None:
    os.dup2(out, 1)
    os.dup2(error, 2)
    os.chdir(folder)
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "agg"}
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    warnings.simplefilter("error")
    sys.argv = [str(ROOT / script), *words]
    module = importlib.import_module(Path(script).stem)
    with recorded_signals():
        sys.exit(main(script, module.from_command_line, "interrupted"))
