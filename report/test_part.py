"""The sheet of an exported test part: `test_part.json` for programs, `README.txt` for people."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from CS_mask import Condition, evaluation_masks
from report.acquisition import coil_lines, simulation_lines
from report.tables import wrapped
from training import run_folder
from training.run import Run
from util.errors import InputError
from util.files import as_bytes, write_bytes
from util.progress import counted

SHEET, README = "test_part.json", "README.txt"
SHEET_NAME = {"data": "data", "samples": "test samples", "masks": "masks"}  # what has to agree


def sheet_of(
    run: Run, condition: Condition, settings: Mapping[str, Any], files: Sequence[str]
) -> dict[str, Any]:
    """The content of `test_part.json`: what identifies the test part, and its description.

    Args:
        condition: of the masks.
        settings: those of `train()` that make it.
        files: the kinds of files that were written.
    """
    samples, (n_frames, ny, nx) = run.parts["test"], run.cine.shape
    a = run.acquisition
    masks = evaluation_masks(samples, (n_frames, ny), a.sampling.at(condition), a.data_seed)
    return {
        "data": run.cine.hash,
        "samples": samples,
        "masks": hashlib.sha256(np.ascontiguousarray(masks).tobytes()).hexdigest()[:16],
        "settings": dict(settings),
        "source": run.cine.source,
        "condition": condition._asdict(),
        "frames": n_frames, "lines": ny, "columns": nx, "coils": run.n_coils,
        "files": list(files),
        "about": lines_of(run, condition, files),
    }  # fmt: skip


def lines_of(run: Run, condition: Condition, files: Sequence[str]) -> list[str]:
    """The description in words, a sentence or two a line."""
    samples, (n_frames, ny, nx), n_coils = run.parts["test"], run.cine.shape, run.n_coils
    n = len(samples)
    coils = "" if n_coils is None else f"{n_coils}, "
    a = run.acquisition
    of_files = {
        "npz": f"test.npz: kspace ({n}, {n_frames}, {coils}{ny}, {nx}) complex, in the order"
        f" sample, frame, {'' if n_coils is None else 'coil, '}line (phase encoding, y), column"
        f" (readout, x); aliased ({n}, {n_frames}, {ny}, {nx}) complex, the zero-filled images"
        + ("" if n_coils is None else " of all coils")
        + f"; mask ({n}, {n_frames}, {ny}), 1 for measured lines; index ({n}), the sample numbers"
        + ("." if n_coils is None else f"; maps ({n}, {coils}{ny}, {nx}) complex, sensitivities."),
        "mat": "mat/: the same arrays without the axis of samples, a MATLAB file for each.",
        "cfl": "cfl/: BART's files of each sample, _kspace, _maps"
        + (" (ones: a single coil)" if n_coils is None else "")
        + " and _mask, with the dimensions 0 column (readout), 1 line (phase encoding), 3 coil, 10"
        " frame.",
    }
    return [
        f"What is measured of {counted(n, 'test sample')} of {run.cine.source}, without the fully"
        f" sampled images: {condition.title(with_pattern=True)}. One sample is one slice over one"
        " heartbeat; after the last frame comes the first.",
        *(of_files[kind] for kind in files),
        f"The samples, in this order: {', '.join(map(str, samples))}.",
        "k-space is the two-dimensional Fourier transform of the images, orthonormal (divided by"
        f" the root of the number of pixels), with zero frequency at line {ny // 2} and column"
        f" {nx // 2}, counted from 0, and the middle of the image there too: in numpy"
        " fftshift(fft2(ifftshift(image), norm='ortho')) over the last two axes, in BART fft -u 3."
        " Lines that were not measured are zero.",
        "Scale: the fully sampled images have magnitudes from 0 to 1. Scores are of magnitudes with"
        " a peak of 1, and nothing is rescaled: keep the scale.",
        *simulation_lines(a.phase, a.noises, a.coils),
        *coil_lines(run),
        "Return the images of all samples in this order, magnitude or complex, as (sample, frame,"
        " line, column) in .npy, .npz, .mat or HDF5, in BART's dimensions 0, 1, 10 and 13 (sample),"
        " as NIfTI (column, line, sample, frame), or as a folder of one file for each sample that"
        " has sample_0003 and so on in its name. Then: python score.py FILE --like THIS_FOLDER"
        " --data THE_DATA --out scored --label NAME",
    ]


def write_sheet(folder: Path, sheet: Mapping[str, Any]) -> None:
    """`test_part.json` and `README.txt` of a folder."""
    write_bytes(folder / SHEET, (json.dumps(sheet, indent=2) + "\n").encode())
    settings = [f"{name}: {value}" for name, value in sheet["settings"].items()]
    lines = [line for about in sheet["about"] for line in [*wrapped([about], ""), ""]]
    text = "\n".join([*lines, "Settings of score.py and train.py:", *wrapped(settings)])
    write_bytes(folder / README, as_bytes(text + "\n"))


def read_sheet(folder: Path) -> dict[str, Any]:
    """The content of `test_part.json`; InputError if it is damaged."""
    try:
        sheet = json.loads((folder / SHEET).read_bytes())
        sheet["settings"] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in sheet["settings"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / SHEET} is damaged ({error}): export it again") from None
    return sheet


def settings_like(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """The settings of these names, which make a test part, of a folder of `export` or of a run."""
    path = folder / SHEET
    if not path.exists():
        if not run_folder.is_run(folder):
            raise InputError(
                f"--like is {folder}, which has neither {SHEET} nor {run_folder.CONFIG}: name a"
                " folder that score.py export or train.py wrote"
            )
        stored = run_folder.read_config(folder)["settings"]
        return {name: stored[name] for name in names if name in stored}
    stored = read_sheet(folder)["settings"]
    if isinstance(stored["pattern"], str) and Path(stored["pattern"]).suffix:
        stored["pattern"] = str(folder / stored["pattern"])
    return stored


def require_same_test(run: Run, condition: Condition, folder: Path) -> None:
    """Raise InputError unless data, samples and masks are those of a folder."""
    now = sheet_of(run, condition, {}, ())
    if (folder / SHEET).exists():
        before = read_sheet(folder)
    else:
        config = run_folder.read_config(folder)
        before = {"data": config["data"].get("hash"), "samples": config["split"]["test"]}
    for name, words in SHEET_NAME.items():
        if name in before and before[name] != now[name]:
            raise InputError(
                f"{folder} was made with other {words} than --data {run.settings.data} has with"
                " these settings: give its own data, and leave out settings that change them"
            )
