"""Measure how fast the networks and the pipeline are on this machine, and how their cost grows.

    python benchmark.py output_folder [--setting value ...]

Networks are compared to a plain network of the reference's shape, timed in turn with them (see
`timing/`). The threads are those of torch: set OMP_NUM_THREADS to change them.
"""

import os
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from model import MODELS, architecture_settings
from timing.benchmark_report import FILES, write_report
from timing.clock import Clock, Row
from timing.pipeline import epoch_seconds, pipeline_rows
from timing.speed import CONTROL, GROWING, Setup, growth_rows, prepare, speed_rows
from train import train
from util.command_line import as_flags, main, parse_command_line
from util.errors import InputError
from util.files import claimed_folder, require_only
from util.machine import fast_precision, git_commit, hardware, pick_device, processor, versions
from util.progress import say
from util.settings import defaults_of, flag, typed

CHOICES = {"models": tuple(MODELS), "precision": ("float32", "bfloat16")}
MULTIPLE, SMALLEST = 16, 32  # of image sizes: the control's four poolings
SPEED_SHARE, GROWTH_SHARE = 0.65, 0.9  # of max_minutes, at the end of these measurements
LONGEST_SHARE = 0.05  # of max_minutes, for a training step


def benchmark(
    output_folder: str | os.PathLike[str],  # new or empty folder for the results
    *,
    # -- what is measured
    models: tuple[str, ...] | None = None,  # networks; None: all
    init_features: tuple[int, ...] = (16, 64),  # of the U-Nets and of the control
    precision: tuple[str, ...] | None = None,  # None: the fastest here, and float32
    batch_size: int = 2,  # samples in a step; growth begins at 1
    frames: int = 20,  # of a sample
    size: int = 192,  # lines and columns of a sample, a multiple of 16
    n_samples: int = 32,  # in the file that is loaded and searched
    # -- how
    repeats: int = 5,  # rounds that count, after one that does not
    max_minutes: float = 10.0,  # about; fewer rounds if these would take longer
    device: str | None = None,  # 'cpu', 'cuda', 'cuda:1', 'mps'; None: the best available
) -> list[Row]:
    """Measure the speed and memory of networks and pipeline, and how their cost grows.

    Returns:
        a dict for each measurement, as in `benchmark.csv`.

    Raises:
        InputError: a setting or the folder cannot be used as they are.
    """
    given = {name: value for name, value in locals().items() if name != "output_folder"}
    given = typed(benchmark, given)
    check_given(given)
    started, settings, on = time.monotonic(), defaults_of(train), pick_device(device)
    widths = given["init_features"]
    precisions = given["precision"] or tuple(dict.fromkeys((fast_precision(on), "float32")))

    def clock(share: float) -> Clock:
        return Clock(on, repeats, started + 60 * share * max_minutes)

    def setup(model: str, width: int, batch_size: int = batch_size) -> Setup:
        if "features" in (() if model == CONTROL else architecture_settings(model)):
            width = settings["features"]
        return Setup(model, width, batch_size, frames, size)

    rows: list[Row] = []
    with claimed_folder(os.fspath(output_folder), partial(require_only, ())) as folder:

        def add(new: list[Row]) -> None:
            rows.extend(new)
            write_report(folder, rows, facts_about(on, given))

        prepare(on)
        names = given["models"] or tuple(MODELS)
        for number, width in enumerate(widths, start=1):
            setups = [setup(name, width) for name in (CONTROL, *names)]
            share = SPEED_SHARE * number / len(widths)
            longest = 60 * LONGEST_SHARE * max_minutes
            add(speed_rows(setups, precisions, settings, clock(share), longest))
        bases = [setup(name, min(widths), 1) for name in GROWING if name in names]
        add(growth_rows(bases, precisions[0], settings, clock(GROWTH_SHARE)))
        network, epoch = setup(settings["model"], max(widths)), epoch_seconds(rows, settings)
        add(pipeline_rows(folder, n_samples, network, settings, epoch, clock(1)))
        minutes = (time.monotonic() - started) / 60
        say(f"{minutes:.1f} minutes; written: {', '.join(FILES)} in {folder}")
    return rows


def check_given(given: Mapping[str, Any]) -> None:
    """Raise InputError at the first setting whose value makes no sense."""
    for name, choices in CHOICES.items():
        for item in given[name] or ():
            if item not in choices:
                raise InputError(f"{flag(name)} is {item!r}, expected some of {', '.join(choices)}")
    if not given["init_features"]:
        raise InputError("--init-features is empty: give at least one width, such as 16")
    for name in ("init_features", "batch_size", "frames", "n_samples", "repeats"):
        least = min(given[name]) if isinstance(given[name], tuple) else given[name]
        if least < 1:
            raise InputError(f"{flag(name)} is {given[name]}, expected at least 1")
    if given["size"] < SMALLEST or given["size"] % MULTIPLE:
        raise InputError(
            f"--size is {given['size']}, expected a multiple of {MULTIPLE} of at least {SMALLEST},"
            " which the control needs: try 192"
        )
    if given["max_minutes"] <= 0:
        raise InputError(f"--max-minutes is {given['max_minutes']}, expected more than 0")


def facts_about(device: torch.device, given: Mapping[str, Any]) -> list[str]:
    """Machine, versions and settings, a line each."""
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    return [
        f"Machine: {processor()}, {hardware(device)}; {libraries}; commit {git_commit()}.",
        "",
        f"Settings: `{' '.join(as_flags(given))}`.",
    ]


def from_command_line() -> None:
    """`benchmark()` with the arguments of the command line."""
    benchmark(**parse_command_line(benchmark, choices=CHOICES))


if __name__ == "__main__":
    after = "what was measured before is in the output folder"
    sys.exit(main("benchmark.py", from_command_line, after))
