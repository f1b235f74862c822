"""The files of `reconstruct.py`: a folder for each series, scores and a report for the scan."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from report.scan_pictures import write_scan_pictures
from report.scan_text import write_scan_output
from scan.reconstruction import TRAINING_FREE, Reconstruction
from training.run_folder import METRICS
from util.errors import InputError
from util.files import not_written, whole_file, write_csv

IMAGES = "reconstruction.npz"


def write_series(folder: Path, result: Reconstruction, dpi: int) -> None:
    """Images and pictures of a series in a folder of its own, which is there only when complete.

    Raises:
        InputError: they could not be written.
    """
    temporary, final = folder / f"{result.name}.tmp", folder / result.name
    try:
        temporary.mkdir()
        write_images(temporary / IMAGES, result)
        write_scan_pictures(temporary, result, dpi)
        temporary.rename(final)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise InputError(not_written(final, error)) from None
        raise


def write_images(path: Path, result: Reconstruction) -> None:
    """The images (T, Y, X) as an .npz: `reconstruction`, training-free ones by their names, `mask`
    (T, Y), and `target` if the truth is known; in the units of the input."""
    arrays = {"reconstruction": result.images[result.network].numpy()}
    arrays |= {name: result.images[name].numpy() for name in (TRAINING_FREE[0], result.best)}
    arrays["mask"] = result.measurement.mask[0, ..., 0].cpu().numpy().astype(np.uint8)
    if result.truth is not None:
        arrays["target"] = result.truth.numpy()
    with whole_file(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def write_results(
    folder: Path, facts: Mapping[str, Sequence[str]], results: Sequence[Reconstruction]
) -> None:
    """`output.txt`, and `metrics.csv` of the series whose truth is known; see `scan_text.py`."""
    rows = [
        {"series": result.name} | {k: v for k, v in row.items() if k != "sample"}
        for result in results
        for row in result.rows
    ]
    if rows:
        write_csv(folder / METRICS, rows)
    write_scan_output(folder, facts, results)
