"""Score the reconstructions of any program as those of this suite are scored.

    python score.py export test_part --data cine.npz        # what is measured, for other programs
    python score.py bart.cfl --like test_part --data cine.npz --out scored --label "BART ESPIRiT"

`export` writes the test part of the data, undersampled, without its truth. What other programs make
of it is scored beside the training-free methods, on the same samples and masks, with the tables,
intervals, pictures and page of a run. Data and masks are those of `train.py` with these settings:

    load, split, mask, alias    train.py              the run, without a network
    read      formats/exchange.py                     the reconstructions, of any format
    check     evaluation/given.py                     what order, axes, frames and scale they have
    tune      evaluation/bench.py                     the training-free methods
    score     evaluation/scoring.py                   all on the same masks
    report    report/report.py                        output.txt, pictures, report.html
"""

from util.source import early_arguments

if __name__ == "__main__":  # help and wrong flags end here, before the slow imports
    GIVEN = early_arguments(__file__)

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from CS_mask import Condition
from data.batches import EvaluationBatches
from evaluation.bench import Bench
from evaluation.given import check_finite, checked_magnitudes
from evaluation.scoring import Scored, ScoreRow, score_images
from evaluation.summary import mean_scores
from formats.exchange import KINDS, PATTERN, as_stack, read_reconstruction, write_test_part
from formats.variables import as_numbers
from methods.baselines import BASELINES
from model import about_models
from report.description import configuration, describe
from report.pictures import ALSO_SHOWN, Gallery
from report.report import Report, Results
from report.test_part import README, require_same_test, settings_like, sheet_of, write_sheet
from report.text import time_line
from train import prepare, train, tune_baselines
from training import checks, run_folder
from training.run import Run
from training.settings import with_own_values
from util.command_line import given_command, main, parse_command_line
from util.errors import InputError
from util.files import claimed_folder, require_only
from util.progress import counted, progress, say
from util.settings import defaults_of, flag, notes_explicit, require_choices, typed
from util.stop import StopRequest, recorded_signals
from util.world import ALONE

# settings of `train()` that say what is measured of which samples
OF_THE_TEST = (
    "data", "n_samples", "complex_pairs", "normalise", "split", "data_seed", "phase", "noise",
    "coils", "virtual_coils", "pattern", "acc", "test_acc", "sample_n", "partial_fourier",
    "in_channels", "real_image",
)  # fmt: skip
# and what is shown beside, and how
OF_THE_SCORES = (
    "batch_size", "baselines", "device", "num_pictures", "picture_format", "picture_width",
    "picture_dpi", "arrays",
)  # fmt: skip
# the network of a run without one; this one takes any number of frames
WITHOUT_NETWORK = {"num_epochs": 0, "initial_weights": None, "model": "cascade"}
AGAIN = "the same command with another folder"


@notes_explicit
def export(
    output_folder: str | os.PathLike[str],  # new or empty folder for the files
    *,
    files: tuple[str, ...] = KINDS,  # which to write: npz mat cfl
    like: str | os.PathLike[str] | None = None,  # folder of a run, whose data and masks are taken
    **settings,
) -> dict[str, Any]:
    """Write the measured lines of the test part for other programs, without its truth.

    Args:
        settings: those of `train()` in `OF_THE_TEST`, and `device`.

    Returns:
        the content of `test_part.json`: the settings, the samples, the axes and the scale.

    Raises:
        InputError: a setting, the data or the folder cannot be used.
    """
    files = typed(export, {"files": files})["files"]
    require_choices({"files": files}, {"files": KINDS})
    if not files:
        raise InputError(f"--files names none, expected some of {', '.join(KINDS)}")
    with claimed_folder(os.fspath(output_folder), lambda path: require_only((), path)) as folder:
        run, condition = test_of(folder, like, settings)
        batches = batches_of(run, condition)
        masks_file = checks.mask_file(run.settings.pattern)
        shown = progress(batches, f"exporting to {folder}", len(batches), lambda batch: 1)
        write_test_part(folder, shown, len(batches), files, masks_file)
        of_test = {name: getattr(run.settings, name) for name in OF_THE_TEST}
        # without places on this machine
        of_test |= {"data": Path(run.settings.data).name, "in_channels": run.cine.shape[0]}
        if masks_file is not None:
            of_test["pattern"] = f"{PATTERN}/{masks_file.name}"
        sheet = sheet_of(run, condition, of_test, files)
        write_sheet(folder, sheet)
        say(f"{folder} has {counted(len(batches), 'test sample')}; {README} describes the files")
        return sheet


@notes_explicit
def score(
    reconstructions: Mapping[str, Any],
    output_folder: str | os.PathLike[str],
    *,
    like: str | os.PathLike[str] | None = None,
    axes: str | None = None,
    match_scale: bool = False,
    accept: bool = False,
    **settings,
) -> dict[str, dict[str, float]]:
    """Score reconstructions of the test part beside the training-free methods, and report.

    Args:
        reconstructions: by label, images (N, T, Y, X) of the test samples in their order, real or
            complex, or the path of a file or a folder of them.
        like: folder of `export` or of a run, whose data and masks are taken.
        axes: order of the axes in files, such as "x y t s"; None: as `docs/scoring.md` has them.
        match_scale: multiply each sample by the factor that brings it nearest to the truth.
        accept: score in spite of what the checks found, which the report then says.
        settings: those of `train()` in `OF_THE_TEST` and `OF_THE_SCORES`.

    Returns:
        {method: {score: mean over the test part}}, as `train()` does.

    Raises:
        InputError: a setting, the data, the folder or a reconstruction cannot be used.
        Interrupted: stopped by a signal.
    """
    require_labels(list(reconstructions))
    if settings.get("baselines") == ():
        raise InputError("--baselines names no method, expected one or more to compare with")
    with run_folder.claimed(os.fspath(output_folder), False, ALONE) as (folder, _):
        stop = StopRequest(None, AGAIN)
        run, condition = test_of(folder, like, settings)
        images = {
            label: images_of(given, label, run, axes) for label, given in reconstructions.items()
        }
        images, lines, notes = checked_magnitudes(
            images, batches_of(run, condition), match_scale, accept
        )
        run = dataclasses.replace(run, reconstructions=tuple(images))
        report = Report(run)
        for heading, about in describe(run).items():
            report.say(heading, about)
        origin = [f"{k}: {v}" for k, v in reconstructions.items() if isinstance(v, (str, Path))]
        report.say("Reconstructions", [*origin, *lines, *notes])
        report.add("Command", [command] if (command := given_command("score.py")) else [])
        try:
            bench = tune_baselines(run, report, stop)
            return score_test(run, condition, images, bench, report, notes)
        finally:
            report.close()


def score_test(
    run: Run,
    condition: Condition,
    images: Mapping[str, torch.Tensor],
    bench: Bench,
    report: Report,
    notes: list[str],
) -> dict[str, dict[str, float]]:
    """Score magnitudes (N, T, Y, X) by label, and the training-free methods, and write all results.

    Args:
        images: pictures are drawn of the last one, and show the others beside it.
        notes: what the report says first.

    Returns:
        {method: {score: mean over the test part}}.
    """
    started, s, samples = time.perf_counter(), run.settings, run.parts["test"]
    methods = bench.methods({}, condition)
    *others, shown = images
    gallery = Gallery(
        run.folder, shown, methods, s.num_pictures, s.arrays, len(samples), "other program",
        [*others, *ALSO_SHOWN],
    )  # fmt: skip
    place = {sample: i for i, sample in enumerate(samples)}
    rows: list[ScoreRow] = []

    def score_batch(scored: Scored) -> None:
        """Score the reconstructions of the samples of a batch of the bench."""
        batch, places = scored.batch, [place[sample] for sample in scored.batch.samples]
        own = {label: of_all[places].to(run.device) for label, of_all in images.items()}
        rows.extend(score_images(own, batch.target, batch.samples, batch.condition))
        gallery.add(Scored(batch, {**scored.images, **own}, scored.rows))

    rows += bench.score({}, condition, on_batch=score_batch)
    order = [*images, *methods]
    rows.sort(key=lambda row: (row["sample"], order.index(row["method"])))
    times = [time_line(bench.spent, [], time.perf_counter() - started, False)]
    run_folder.write_config(run.folder, configuration(run))
    report.finish(Results(rows, [], times, notes), gallery)
    return mean_scores(run_folder.read_metrics(run.folder))  # with the digits that are stored


def test_of(
    folder: Path, like: str | os.PathLike[str] | None, given: Mapping[str, Any]
) -> tuple[Run, Condition]:
    """The run without a network that has the test part, and the condition that it is tested at.

    Raises:
        InputError: a setting is unknown or wrong, there are several conditions, or it is not the
            test of the folder `like`.
    """
    if unknown := [name for name in given if name not in OF_THE_TEST + OF_THE_SCORES]:
        raise InputError(f"{flag(unknown[0])} is no setting of score.py: leave it out")
    known = {} if like is None else settings_like(Path(like), OF_THE_TEST)
    settings = defaults_of(train) | known | typed(train, given) | WITHOUT_NETWORK
    settings = typed(train, settings)
    checks.check_settings(settings)
    run = prepare(folder, with_own_values(settings), None, ALONE)
    if run.cine.is_undersampled:
        raise InputError(
            f"{run.cine.source} is undersampled k-space, and scores compare with a ground truth:"
            " name fully sampled data"
        )
    conditions = run.test_conditions
    if len(conditions) > 1:
        listed = ", ".join(condition.title(with_pattern=True) for condition in conditions)
        raise InputError(
            f"the settings test {len(conditions)} kinds of masks ({listed}), and a reconstruction"
            " is of one: give one --test-acc, and one --pattern"
        )
    if like is not None:
        require_same_test(run, conditions[0], Path(like))
    return run, conditions[0]


def batches_of(run: Run, condition: Condition) -> EvaluationBatches:
    """The test samples one at a time, with what is measured of them."""
    acquisition = run.acquisition.at(condition)
    return EvaluationBatches(run.cine.images, run.parts["test"], acquisition, 1, run.device)


def require_labels(labels: list[str]) -> None:
    """Raise InputError unless there are labels, none of which is a training-free method's."""
    if not labels:
        raise InputError("there is no reconstruction to score: name a file")
    for label in labels:
        if not label.strip() or label in BASELINES:
            problem = "the name of a training-free method" if label.strip() else "empty"
            raise InputError(f"the label {label!r} is {problem}: give another with --label")


def images_of(given: Any, label: str, run: Run, axes: str | None) -> torch.Tensor:
    """The images (N, T, Y, X) of a reconstruction, an array or the path of a file."""
    samples, shape = run.parts["test"], run.cine.shape
    if isinstance(given, (str, Path)):
        images = read_reconstruction(Path(given), samples, shape, axes)
    else:
        images = as_stack(as_numbers(np.asarray(given)), None, (len(samples), *shape), label)
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    check_finite(tensor, samples, label)
    return tensor


def score_files(
    reconstructions: tuple[str, ...],  # files or folders: npz, npy, mat, HDF5, cfl, NIfTI
    *,
    out: str | None = None,  # new or empty folder for the results
    label: tuple[str, ...] | None = None,  # name of each reconstruction; None: that of its file
    like: str | None = None,  # folder of 'export' or of a run, whose data and masks are taken
    axes: str | None = None,  # order of the axes in the files; None: BART's, NIfTI's, 's t y x'
    match_scale: bool = False,  # scale each sample to the truth, which the report says
    accept: bool = False,  # score in spite of what the checks found, which the report says
    **settings,
) -> dict[str, dict[str, float]]:
    """Score the reconstructions of other programs beside training-free methods, and report. What
    they reconstruct from is written by `score.py export folder` (score.py export --help).
    """
    if out is None:
        raise InputError("--out is missing: name a new folder for the results")
    names = [Path(name).stem for name in reconstructions] if label is None else label
    if len(names) != len(reconstructions):
        raise InputError(
            f"--label has {len(names)} names for {len(reconstructions)} reconstructions: give one"
            " for each"
        )
    if len(set(names)) < len(names):
        raise InputError(
            f"two reconstructions have the same label ({', '.join(names)}): give each its own with"
            " --label"
        )
    return score(
        dict(zip(names, reconstructions, strict=True)),
        out, like=like, axes=axes, match_scale=match_scale, accept=accept, **settings,
    )  # fmt: skip


def wanted_function() -> Callable:
    """The function that the command line asks for."""
    return export if sys.argv[1:2] == ["export"] else score_files


def arguments() -> dict[str, Any]:
    """The arguments for `wanted_function()` on the command line."""
    of_test, function = (*OF_THE_TEST, "device"), wanted_function()
    is_export = function is export
    wanted = of_test if is_export else of_test + OF_THE_SCORES
    others = [name for name in ("output_folder", *defaults_of(train)) if name not in wanted]
    return parse_command_line(
        function, sys.argv[1 + is_export :], train, others, checks.CHOICES,
        "score.py export" if is_export else None, about_models,
    )  # fmt: skip


def from_command_line(given: dict[str, Any] | None = None) -> None:
    """`export()` or `score_files()` with the arguments of the command line; `given`: these, if
    parsed before."""
    wanted_function()(**(arguments() if given is None else given))


if __name__ == "__main__":
    with recorded_signals():  # until the last message
        after = f"nothing is kept: give {AGAIN}"
        sys.exit(main("score.py", partial(from_command_line, GIVEN), after))
