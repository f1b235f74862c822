"""Kill a run at random instants, resume it, and compare it with one that was never stopped.

    PYTHONPATH=. python tests/kills.py [number of kills, 100] [seed, 0]

A run is killed, without warning, again and again until it is finished; then the next one begins.
Where it was killed is read from its folder. Every finished run must have the scores, the history
and the weights of the run that was never stopped, to the bit. Exit status 1 if one has not.
"""

import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from helpers import TINY, command, make_images

from training import checkpoint as ckpt
from training.run_folder import HISTORY, JOURNAL, METRICS, is_finished, is_run, read_history

SETTINGS = TINY | {"num_epochs": 12, "dropout": 0.1, "ema": 0.9, "lesions": True, "num_pictures": 3}
# what the longest time until a kill is multiplied by, after a kill and after none, so that most of
# the processes are killed, however fast the machine is at the moment
LONGER, SHORTER = 1.1, 0.8
# the command, with a state that is saved ten times a second and not once a minute
OFTEN = (
    "import runpy, sys; from training import loop; loop.SAVE_SECONDS = 0.1;"
    " sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
MEASURED = ("seconds", "peak_memory")  # in the history, of this run alone


def state_of(folder: Path) -> str:
    """How far a run has come."""
    if not is_run(folder):
        return "before the run"
    if is_finished(folder):
        return "finished"
    if (folder / METRICS).exists():
        return "pictures"
    if (folder / JOURNAL).exists():
        return "test"
    if (folder / HISTORY).exists() or (folder / ckpt.LAST).exists():
        return f"epoch {len(read_history(folder)) + 1}"
    return "search"


def result_of(folder: Path) -> tuple:
    """Everything of a finished run that must be equal to the bit."""
    with (folder / METRICS).open(newline="") as file:
        rows = list(csv.reader(file))
    lesions = (folder / "lesions.csv").read_bytes()
    history = [
        {name: value for name, value in entry.items() if name not in MEASURED}
        for entry in read_history(folder)
    ]
    best = ckpt.load_checkpoint(folder / ckpt.BEST)
    weights = {name: value.numpy().tobytes() for name, value in best["weights"].items()}
    with np.load(folder / "reconstructions.npz") as arrays:
        images = {name: arrays[name].tobytes() for name in arrays.files}
    pictures = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))
    return rows, lesions, history, weights, images, pictures


def started(folder: Path, data: Path) -> subprocess.Popen:
    """The command that begins a run, or resumes the one in the folder."""
    words = command(folder, data=data, **SETTINGS)
    if is_run(folder):
        words = [*words[:5], "--resume"]
    words = [*words[:3], "-c", OFTEN, *words[3:]]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def main(n_kills: int = 100, seed: int = 0) -> int:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    rng, where, n_runs, wrong = random.Random(seed), Counter(), 0, 0
    with tempfile.TemporaryDirectory() as work:
        os.environ["CINE_CACHE"] = f"{work}/cache"
        data, whole = Path(work) / "tiny.npz", Path(work) / "whole"
        np.savez(data, dataset=make_images())
        begun = time.perf_counter()
        process = started(whole, data)
        while not is_run(whole):
            time.sleep(0.01)
        imported = time.perf_counter() - begun
        print(process.communicate()[1], end="")
        latest = time.perf_counter() - begun
        expected = result_of(whole)
        print(f"never stopped: {imported:.1f} s until it begins, {latest:.1f} s until it ends")
        folder = Path(work) / "run0"
        while sum(where.values()) < n_kills or state_of(folder) != "before the run":
            process = started(folder, data)
            enough = sum(where.values()) >= n_kills
            try:
                wait = None if enough else rng.uniform(0.8 * imported, latest)
                _, errors = process.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                where[state_of(folder)] += 1
                latest *= LONGER
                continue
            if process.returncode or not is_finished(folder):
                print(f"{folder}: status {process.returncode}: {errors}")
                return 1
            equal = [a == b for a, b in zip(result_of(folder), expected, strict=True)]
            wrong += not all(equal)
            n_runs += 1
            latest = max(imported, latest * SHORTER)
            print(f"run {n_runs}: {sum(where.values())} kills so far, equal {equal}", flush=True)
            folder = Path(work) / f"run{n_runs}"
    for state, n in sorted(where.items()):
        print(f"  killed in {state}: {n}")
    print(f"{sum(where.values())} kills in {n_runs} runs, {wrong} of them with other bits")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
