"""Reconstruct your own scan with a trained network, beside training-free methods.

    python reconstruct.py scan output_folder [--setting value ...]

`scan` is a file or folder of fully sampled images, which are undersampled here (a trial with known
ground truth), or of measured undersampled k-space, or `phantom`. `docs/formats.md` has the formats;
`reconstruct()` takes arrays.
"""

from util.source import early_arguments

if __name__ == "__main__":  # help and wrong flags end here, before the slow imports
    GIVEN = early_arguments(__file__)

import dataclasses
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from CS_mask import PATTERNS, Sampling
from dataset import PHANTOM, PHANTOM_SIZE, SYNTHETIC
from evaluation.error_map import COMPARED
from evaluation.error_map import error_map as error_map_of
from evaluation.scoring import ScoreRow
from evaluation.series_view import SeriesView
from formats.reading import KINDS, read_scan
from formats.series import Scan, Series
from formats.writing import write_like
from methods.averaging import AVERAGES, averaged
from methods.baselines import BASELINES, Method, baseline
from methods.calibration import calibrated
from model import run_network
from phantom.cached import load_phantom
from physics.fourier import ifftc
from report.page import write_page
from report.pictures import FigureForm
from report.scan_report import scan_page, scan_view, write_results, write_series
from report.scan_text import verdict_of
from scan.adaptation import adapt as adapt_to
from scan.measurement import (
    Measurement,
    drawn_lines,
    from_coils,
    from_images,
    from_kspace,
    is_fully_sampled,
    require_mask,
)
from scan.reconstruction import Reconstruction, Reconstructor
from scan.weights import default_weights, load_scan_weights, require_fit
from training.run_folder import REPORT
from util import machine
from util.command_line import given_command, main, parse_command_line
from util.errors import InputError
from util.files import claimed_folder, require_only, require_there
from util.memory import explained_out_of_memory, reuse_memory
from util.progress import progress, say
from util.settings import require_bounds, require_choices, typed
from util.stop import NEVER, StopRequest, recorded_signals

PHANTOM_FRAMES, PHANTOM_SEED = 20, 1  # the weights were trained on the patients of seed 0
AT_LEAST = {
    "acc": 1, "sample_n": 0, "seed": 0, "adapt": 0, "num_pictures": 0, "picture_width": 3,
    "picture_dpi": 10,
}  # fmt: skip
CHOICES = {
    "precision": ("float32", "bfloat16"), "pattern": PATTERNS, "baselines": BASELINES,
    "picture_format": ("png", "pdf", "svg"),
}  # fmt: skip
ADAPTED_SERIES = 16  # at most, about evenly spaced; their measured lines are kept in memory
MEMORY_REMEDY = "leave --adapt out, use --device cpu, or split the scan"
STEP_BYTES = 2e9  # of memory for a step of the adaptation, about


def reconstruct_scan(
    scan: str | os.PathLike[str],  # file or folder of images or k-space, or 'phantom'
    output_folder: str | os.PathLike[str],  # new or empty folder for the results
    *,
    # -- scan
    axes: str | None = None,  # order of the axes, such as 's t y x'; None: as found or guessed
    mask: str | None = None,  # file of the measured lines; None: in the scan, or lines not zero
    # -- undersampling of fully sampled data
    pattern: str = "gaussian",  # law of the lines, such as 'gaussian' or 'equispaced'
    acc: float = 6.0,  # nominal acceleration
    sample_n: int = 10,  # fully sampled lines in the centre of k-space
    partial_fourier: float = 1.0,  # share of k-space, from one side on, that lines are taken from
    seed: int = 0,  # seed of the masks, and of the adaptation
    # -- network
    weights: str | None = None,  # checkpoint; None: those for real or complex images, or for coils
    adapt: float = 0.0,  # minutes at most to fine-tune the network on the scan's measured lines
    calibrate: bool = True,  # take the share of the correction that predicts held-out lines best
    average: int = 1,  # mean over this many flips and reversals: 1, 2, 4 or 8
    error_map: bool = False,  # the expected error of the images, and a 90 % bound
    precision: str | None = None,  # 'float32' or 'bfloat16'; None: the faster on this device
    device: str | None = None,  # 'cpu', 'cuda', 'cuda:1', 'mps'; None: the best available
    # -- output
    baselines: tuple[str, ...] | None = None,  # training-free methods; None: simple ones, the best
    num_pictures: int = 5,  # series in report.html
    picture_format: str = "png",  # of the figures: 'png', or 'pdf' or 'svg' for a paper
    picture_width: float = 7.2,  # inches of the figures; a column of a journal is 3.5
    picture_dpi: int = 100,  # resolution of the pictures
) -> list[ScoreRow]:
    """Reconstruct the series of a scan, and write images, pictures and a report.

    Returns:
        the scores of each method on each series whose ground truth is known.

    Raises:
        InputError: the scan, a setting, the weights or the folder cannot be used as they are.
        Interrupted: stopped by a signal; the series that were finished are written.
    """
    given = {k: v for k, v in locals().items() if k not in ("scan", "output_folder")}
    given = typed(reconstruct_scan, given)
    check_given(given)
    on = machine.pick_device(device)
    precision = precision or machine.fast_precision(on)
    machine.make_deterministic(seed)
    if on.type == "cpu":
        reuse_memory(STEP_BYTES if adapt else 0)
    source = open_scan(os.fspath(scan), axes, mask)
    sampling = Sampling((pattern,), (acc, acc), (sample_n,), (partial_fourier,))
    reconstructor = Reconstructor(
        weights,
        bool(adapt),
        calibrate,
        average,
        precision,
        seed,
        given["baselines"],
        error_map,
        on,
    )

    def measurement_of(number: int, series: Series) -> Measurement:
        return measured(series, sampling, seed, number).to(on)

    facts = {
        "Scan": scan_lines(source),
        "Reconstruction": how_lines(given, sampling, precision, on),
    }
    form = FigureForm(picture_format, picture_width, picture_dpi)
    results: list[Reconstruction] = []
    views: list[SeriesView] = []
    with (
        explained_out_of_memory(MEMORY_REMEDY),
        claimed_folder(os.fspath(output_folder), lambda folder: require_only((), folder)) as folder,
    ):
        stop = StopRequest(None, "the same command with another folder")
        for line in (*facts["Scan"], *facts["Reconstruction"]):
            say(line)
        # fine-tuning comes first, on some series of the whole scan
        for is_real, some in some_of_each_kind(source, measurement_of).items() if adapt else ():
            *_, used = map(reconstructor.weights_for, some)  # which must fit all
            reconstructor.adapted[is_real] = adapt_to(
                used.network, some, used.needs_real, adapt, precision, seed, stop
            )
        # every series is written as soon as it is reconstructed, and its images are forgotten
        for number, series in enumerate(progress(source, "series", len(source), lambda _: 1)):
            if series.not_a_scan and len(source) > 1:
                facts["Scan"].append(f"{series.name} is left out: {series.not_a_scan}")
                say(facts["Scan"][-1])
                continue
            measurement = measurement_of(number, series)
            if (choice := reconstructor.choose(measurement)) is not None:
                facts["Reconstruction"].append(choice.line)
                say(choice.line)
            patient = series.patient or ("" if source.one_patient else series.name)
            result = reconstructor.reconstruct(series, patient, measurement)
            results.append(result)
            for name, line in result.error_lines.items():
                say(f"{result.name}, {name}: {line}")
            write_series(folder, result, form)
            write_results(folder, facts, results)
            if len(views) < num_pictures:
                views.append(scan_view(result))
            result.keep_network()
            if stop.requested():
                break
        if not results:
            raise InputError(f"{source.path}: no series is a scan: {facts['Scan'][-1]}")
        # the files of the whole scan; page and scores first, as the scan's format may refuse
        write_page(folder / REPORT, scan_page(source.path.name, facts, results, views))
        for line in verdict_of(results):
            say(line)
        write_like(source, {r.name: r.images[r.network].numpy() for r in results}, folder)
        if len(results) < len(source):
            stop.check(f"after {len(results)} of {len(source)} series, which are in {folder}")
    return [row for result in results for row in result.rows]


def check_given(given: Mapping[str, Any]) -> None:
    """Raise InputError at the first setting whose value makes no sense."""
    require_bounds(given, AT_LEAST)
    if Path(given.get("pattern", "")).suffix:
        raise InputError(f"--pattern is {given['pattern']}: give a file of lines as --mask")
    require_choices(given, CHOICES | {"average": AVERAGES})
    if given.get("baselines") == ():
        raise InputError("--baselines names no method, expected one or more to compare with")


def open_scan(path: str, axes: str | None, mask: str | None) -> Scan:
    """The scan that the arguments name.

    Raises:
        InputError: it cannot be read, or there is no use for a mask.
    """
    if path != PHANTOM:
        return read_scan(Path(path), axes, None if mask is None else Path(mask))
    if mask is not None:
        raise InputError("--mask is for scans in files: leave it out with the phantom")
    return phantom_scan()


def phantom_scan() -> Scan:
    """A patient of the phantom, as if it were a file."""
    images = load_phantom(1, (PHANTOM_FRAMES, *PHANTOM_SIZE), PHANTOM_SEED)
    series = Series(PHANTOM, images[0], is_kspace=False)
    return Scan(Path(PHANTOM), f"built-in {SYNTHETIC}", [PHANTOM], lambda: iter([series]))


def measured(series: Series, sampling: Sampling, seed: int, number: int) -> Measurement:
    """The measured lines of a series; fully sampled data are undersampled, by their own mask if the
    file has one."""
    values, mask = series.values, series.mask
    if mask is not None and mask.all():
        mask = None  # it says nothing
    if series.is_kspace:
        coils = values.ndim == 4
        lines = (values != 0).any(axis=(1, 3) if coils else -1)
        # a mask was compared with it when it was read
        as_it_is = not is_fully_sampled(values) or (mask is not None and (mask == lines).all())
        if coils:
            shape = len(values), *values.shape[2:]
            drawn = None if as_it_is else drawn_lines(shape, sampling, seed, number, mask)
            nominal = None if as_it_is or mask is not None else sampling.condition
            return from_coils(
                values, drawn, series.maps, series.noise, nominal, series.name, number
            )
        if as_it_is:
            return from_kspace(values, None, number)
        values = ifftc(torch.from_numpy(values)).numpy()
    return from_images(values, sampling, seed, number, mask)


def some_of_each_kind(
    scan: Scan, measurement_of: Callable[[int, Series], Measurement]
) -> dict[bool, list[Measurement]]:
    """Real-valued series (True) and complex ones to adapt to, at most `ADAPTED_SERIES` of each,
    without their truth."""
    kept: dict[bool, list[Measurement]] = {}
    found, every = Counter[bool](), {True: 1, False: 1}  # keep every n-th series
    for number, series in enumerate(scan):
        measurement = dataclasses.replace(measurement_of(number, series), image=None)
        kind = measurement.is_real
        some = kept.setdefault(kind, [])
        if found[kind] % every[kind] == 0:
            some.append(measurement)
        found[kind] += 1
        if len(some) > ADAPTED_SERIES:
            del some[1::2]
            every[kind] *= 2
    return kept


def scan_lines(scan: Scan) -> list[str]:
    """What the scan is, in words."""
    return [f"{scan.path.name}: {scan.kind}, {len(scan)} series", *scan.notes]


def how_lines(
    given: Mapping[str, Any], sampling: Sampling, precision: str, device: torch.device
) -> list[str]:
    """How it is reconstructed, in words."""
    adapting = f"at most {given['adapt']:g} minutes of" if given["adapt"] else "no"
    command = given_command("reconstruct.py")
    averaging = f"the images are the mean over {given['average']} flips and reversals"
    if given["mask"] is None:
        lines = f"to {sampling}, seed {given['seed']}, unless they come with a mask"
    else:
        lines = f"by the mask {Path(given['mask']).name}"
    return [
        *([f"command: {command}"] if command else []),
        f"fully sampled data are undersampled {lines}",
        f"{adapting} fine-tuning on the measured lines",
        *([averaging] if given["average"] > 1 else []),
        f"{machine.hardware(device)}, {precision}, torch {machine.versions()['torch']}",
    ]


@torch.no_grad()
def reconstruct(
    kspace: np.ndarray | torch.Tensor,
    mask: np.ndarray | torch.Tensor | None = None,
    maps: np.ndarray | torch.Tensor | None = None,
    *,
    noise: np.ndarray | torch.Tensor | None = None,
    weights: str | None = None,
    adapt: float = 0.0,
    calibrate: bool = True,
    average: int = 1,
    error_map: bool = False,
    seed: int = 0,
    precision: str | None = None,
    device: str | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reconstruct undersampled k-space with a trained network.

    Args:
        kspace: (T, Y, X) complex, one series, centred: zero frequency at n // 2; or of several
            coils (T, C, Y, X).
        mask: (Y,) or (T, Y), 1 for measured lines; None: the lines that are not zero.
        maps: (C, Y, X), sensitivities of the coils; None: they are estimated.
        noise: (C, N), a scan of the coils' noise; None: the corners of k-space are taken.
        weights: a checkpoint, or the name of weights that come with the project; None: those for
            real or for complex images, or for several coils, as the data are.
        adapt: minutes at most to fine-tune on the measured lines of the series.
        calibrate: take the share of the network's correction of its start that predicts held-out
            lines best (`methods/calibration.py`).
        average: mean over this many flips and reversals of the series: 1, 2, 4 or 8.
        error_map: give the expected error of the magnitudes and a bound, too
            (`evaluation/error_map.py`).
        seed: of the adaptation, and of the lines that are held out for the error map.
        precision: "float32" or "bfloat16"; None: the faster on this device.
        device: None: the best available.

    Returns:
        images (T, Y, X) in the scale of `kspace`: float32 if they are real-valued, else complex64.
        With `error_map`: images, expected absolute error and 90 % bound, (T, Y, X) float32 each.

    Raises:
        InputError: the data or the weights cannot be used.
    """
    check_given({"adapt": adapt, "average": average, "seed": seed, "precision": precision})
    on = machine.pick_device(device)
    precision = precision or machine.fast_precision(on)
    machine.make_deterministic(seed)
    values = np.asarray(kspace)
    if values.ndim not in (3, 4) or values.dtype.kind != "c":
        raise InputError(
            f"kspace is {values.shape} {values.dtype}, expected complex (frames, lines, columns),"
            " or (frames, coils, lines, columns)"
        )
    values = values.astype(np.complex64)
    lines, sensitivities, scan = (
        None if given is None else np.asarray(given) for given in (mask, maps, noise)
    )
    if values.ndim == 4:
        if lines is not None:
            found = (values != 0).any(axis=(1, 3))
            require_mask(lines, found, (len(values), *values.shape[2:]))
        measurement = from_coils(values, None, sensitivities, scan).to(on)
    elif maps is not None or noise is not None:
        raise InputError("maps and noise are for k-space of coils (T, C, Y, X): leave them out")
    else:
        measurement = from_kspace(values, lines).to(on)
    used = load_scan_weights(weights or default_weights(measurement), on)
    require_fit(used, measurement, bool(adapt))
    network = used.network
    if adapt:
        with torch.enable_grad():
            some, is_real = [measurement], used.needs_real
            network = adapt_to(network, some, is_real, adapt, precision, seed, NEVER).network
    method: Method = partial(run_network, network, precision=precision)
    if calibrate and used.start is not None:
        method = calibrated(method, used.start, used.needs_real)
    method = averaged(method, average)
    images = measurement.scale * method(*measurement.measured)[0].cpu()
    if not error_map:
        return images.numpy()
    is_real = measurement.is_real
    other = measurement.scale * baseline(COMPARED, is_real)(*measurement.measured)[0].cpu()
    found = error_map_of(method, images, other, measurement.scale, measurement, is_real, seed)
    return images.numpy(), found.expected.numpy(), found.bound.numpy()


def arguments() -> dict[str, Any]:
    """The arguments for `reconstruct_scan()` on the command line.

    Raises:
        InputError: there is no such scan.
    """
    given = parse_command_line(reconstruct_scan, choices=CHOICES)
    if given["scan"] != PHANTOM and not os.path.exists(f"{given['scan']}.cfl"):  # BART's name
        require_there(given["scan"], KINDS)
    return given


def from_command_line(given: dict[str, Any] | None = None) -> None:
    """`reconstruct_scan()` with the arguments of the command line; `given`: these, if parsed
    before."""
    reconstruct_scan(**(arguments() if given is None else given))


if __name__ == "__main__":
    after = "the series that were finished are in the output folder"
    with recorded_signals():  # until the last message
        sys.exit(main("reconstruct.py", partial(from_command_line, GIVEN), after))
