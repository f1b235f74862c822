"""Measure how fast the networks are on this machine, how much memory they take, and how both grow.

    python benchmark.py output_folder [--setting value ...]

Networks are compared to a plain network of the reference's shape (see `timing/`). The threads are
those of torch: set OMP_NUM_THREADS to change them.
"""

from util.source import early_arguments

if __name__ == "__main__":  # help and wrong flags end here, before the slow imports
    GIVEN = early_arguments(__file__)

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from multiprocessing import set_forkserver_preload
from pathlib import Path
from typing import Any

from model import MODELS
from timing.benchmark_report import FILES, write_report
from timing.speed import CONTROL, GROWING, START_METHOD, Setup, Timing, measure, varied
from train import train
from util.command_line import as_flags, main, parse_command_line
from util.errors import InputError
from util.files import claimed_folder, require_only
from util.machine import fast_precision, git_commit, hardware, pick_device, processor, versions
from util.progress import say
from util.settings import defaults_of, require_bounds, require_choices, typed

CHOICES = {"models": tuple(MODELS), "precision": ("float32", "bfloat16")}
MULTIPLE, SMALLEST = 16, 32  # of image sizes: the control's four poolings


def benchmark(
    output_folder: str | os.PathLike[str],  # new or empty folder for the results
    *,
    # -- what is measured
    models: tuple[str, ...] | None = None,  # networks; None: all
    init_features: int = 16,  # of the U-Nets and of the control
    precision: tuple[str, ...] | None = None,  # None: the fastest here, and float32
    batch_size: int = 2,  # samples in a step; growth begins at 1
    frames: int = 20,  # of a sample
    size: int = 192,  # lines and columns of a sample, a multiple of 16
    # -- how
    seconds: float = 2.0,  # for which a call is repeated, after a warm-up
    max_minutes: float = 15.0,  # what is not measured by then is left out
    device: str | None = None,  # 'cpu', 'cuda', 'cuda:1', 'mps'; None: the best available
) -> list[Timing]:
    """Measure time and memory of the networks in training and inference, and how both grow.

    Returns:
        a dict for each measurement, as in `benchmark.csv`.

    Raises:
        InputError: a setting or the folder cannot be used as they are.
    """
    given = {name: value for name, value in locals().items() if name != "output_folder"}
    given = typed(benchmark, given)
    check_given(given)
    settings, on, deadline = defaults_of(train), pick_device(device), time.monotonic()
    deadline += 60 * max_minutes
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    machine = f"Machine: {processor()}, {hardware(on)}; {libraries}; commit {git_commit()}."
    facts = [machine, "", f"Settings: `{' '.join(as_flags(given))}`."]

    precisions = given["precision"] or tuple(dict.fromkeys((fast_precision(on), "float32")))
    control = Setup(CONTROL, "float32", init_features, batch_size, frames, size)
    cases = [("", control)]
    for name in given["models"] or MODELS:
        cases += [("", replace(control, model=name, precision=p)) for p in precisions]
    for name in (name for name in GROWING if name in (given["models"] or MODELS)):
        cases += varied(replace(control, model=name, precision=precisions[0]))

    if START_METHOD == "forkserver":  # imports once for all; determinism needs the second module
        set_forkserver_preload([Path(__file__).stem, "torch._inductor.config"])
    rows: list[Timing] = []
    measured = cache(lambda setup: measure(setup, settings, on, seconds, deadline))
    with claimed_folder(os.fspath(output_folder), partial(require_only, ())) as folder:
        for number, (varies, setup) in enumerate(cases, start=1):
            words = ", ".join(f"{name} {value}" for name, value in vars(setup).items())
            say(f"[{number}/{len(cases)}] {words}")
            rows += [{"varies": varies, **row} for row in measured(setup)]
            write_report(folder, rows, facts)
        say(f"written: {', '.join(FILES)} in {folder}")
    return rows


def check_given(given: Mapping[str, Any]) -> None:
    """Raise InputError at the first setting whose value makes no sense."""
    require_choices(given, CHOICES)
    least = {"init_features": 1, "batch_size": 1, "frames": 1, "size": SMALLEST}
    require_bounds(given, least, more_than={"seconds": 0, "max_minutes": 0})
    if given["size"] % MULTIPLE:
        raise InputError(
            f"--size is {given['size']}, expected a multiple of {MULTIPLE}, which the control"
            " needs: try 192"
        )


def arguments() -> dict[str, Any]:
    """The arguments for `benchmark()` on the command line."""
    return parse_command_line(benchmark, choices=CHOICES)


def from_command_line(given: dict[str, Any] | None = None) -> None:
    """`benchmark()` with the arguments of the command line; `given`: these, if parsed before."""
    benchmark(**(arguments() if given is None else given))


if __name__ == "__main__":
    after = "what was measured before is in the output folder"
    sys.exit(main("benchmark.py", partial(from_command_line, GIVEN), after))
