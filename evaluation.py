"""Evaluation: the network and the baselines on the same samples with the same masks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import report
from batches import Batch, evaluation_batches
from cache import recall, remember
from comparison import advantages, difference_text
from description import caveats
from figures import curves_figure, mask_figure
from lesion_score import lesion_rows, lesion_table
from metrics import score
from run import Run
from runtime import Interrupted, StopRequest, say
from tuning import (
    Method,
    baseline_method,
    chosen_baselines,
    describe_parameters,
    identity_of,
    tuned_parameters,
)

VALIDATION_SCORES = ("loss", "psnr", "ssim")
LOGGED_SAMPLES = 2  # validation samples whose pictures go to TensorBoard
LOGGED_EPOCHS = 20  # how often in a run these are logged
PICTURED = ("view_sharing", "kt_sparse", "low_rank_sparse")  # baselines in the pictures


@torch.no_grad()
def validate(
    run: Run, batches: Sequence[Batch], epoch: int, board: report.TensorBoard
) -> dict[str, float]:
    """Mean scores over the whole validation part; now and then its pictures to TensorBoard."""
    logged = epoch % max(1, run.settings.num_epochs // LOGGED_EPOCHS) == 0
    to_log = LOGGED_SAMPLES if logged else 0
    scores: dict[str, list[Tensor]] = {name: [] for name in VALIDATION_SCORES}
    for batch in batches:
        reconstruction = run.reconstruct(batch.aliased, batch.mask)
        for name, values in score(reconstruction, batch.target, VALIDATION_SCORES).items():
            scores[name].append(values)
        for i, sample in enumerate(batch.samples[:to_log]):
            panels = [batch.aliased[i, 0].abs(), reconstruction[i, 0], batch.target[i, 0]]
            board.images(epoch, f"validation/sample_{sample:04d}", panels)
        to_log = max(0, to_log - len(batch.samples))
    return {name: torch.cat(values).mean().item() for name, values in scores.items()}


@torch.no_grad()
def score_test(run: Run, stop: StopRequest) -> dict[str, dict[str, float]]:
    """Score the network and the baselines on the test part, once, and write all results.

    Returns:
        {method: {score: mean over samples, and over accelerations where several are tested}}.
    """
    names = chosen_baselines(run)
    found = {
        (name, acc): tuned_parameters(run, name, acc, stop) for name in names for acc in run.tested
    }
    searched = describe_parameters(run, found)
    if searched:
        run.facts["Baselines"] = searched
    order = ([] if run.network is None else [run.settings.model]) + names
    shown = order[-1] if run.network is None else order[0]
    rows: list[dict[str, Any]] = []
    lesions: list[str] = []
    for acc in run.tested:
        methods: dict[str, Method] = {} if run.network is None else {shown: run.reconstruct}
        methods |= {name: baseline_method(run, name, found[name, acc]) for name in names}
        identities = {
            name: identity_of(run, name, acc, run.parts["test"]) | {"parameters": found[name, acc]}
            for name in names
        }
        gallery = Gallery(run, shown, methods) if acc == run.tested[0] else None
        rows += score_acceleration(run, acc, methods, identities, gallery, stop)
        if run.settings.lesions and acc == run.tested[0]:
            of_lesions = lesion_rows(run, methods, acc, stop)
            report.write_table(run.folder / report.LESIONS, of_lesions)
            lesions = lesion_table(of_lesions)
    rows.sort(key=lambda row: (row["acc"], row["sample"], order.index(row["method"])))
    return conclude(run, rows, shown, lesions)


def score_acceleration(
    run: Run,
    acc: float,
    methods: Mapping[str, Method],
    identities: Mapping[str, Mapping[str, Any]],
    gallery: "Gallery | None",
    stop: StopRequest,
) -> list[dict[str, Any]]:
    """The rows of `metrics.csv` of one acceleration.

    Baselines that were scored before under the same identity are not computed again, but for the
    gallery's pictures.
    """
    remembered = {name: recall(identity, list) for name, identity in identities.items()}
    scored = [name for name in methods if remembered.get(name) is None]
    rows: list[dict[str, Any]] = []
    samples = run.parts["test"]
    batches = evaluation_batches(run, samples, (acc, acc))
    n_batches = -(-len(samples) // run.pass_size) if scored or gallery else 0
    for _ in tqdm(range(n_batches), f"test, acceleration {acc:g}", disable=None):
        if stop:
            raise Interrupted(f"stopped by {stop.reason} while testing", run.folder)
        batch = next(batches)
        images = {name: methods[name](batch.aliased, batch.mask).abs() for name in scored}
        rows += score_rows(acc, batch, images)
        if gallery:
            gallery.add(batch, images)
    if gallery:
        gallery.close()
    for name, known in remembered.items():
        if known is None:
            own = [row for row in rows if row["method"] == name]
            remember(identities[name], own)
        else:
            rows += known
    return rows


class Gallery:
    """Pictures and arrays of the test part, of one method; the profiles show others beside it."""

    def __init__(self, run: Run, shown: str, methods: Mapping[str, Method]):
        self.run, self.shown, self.methods = run, shown, methods
        self.n_drawn = 0
        self.arrays: dict[str, list[np.ndarray]] = {
            "target": [], "aliased": [], "reconstruction": []
        }  # fmt: skip

    def add(self, batch: Batch, images: Mapping[str, Tensor]) -> None:
        """Keep a batch's arrays, and draw its samples while there are pictures to draw.

        `images`: what some of the methods made of the batch.
        """
        run, dpi = self.run, self.run.settings.picture_dpi

        def made_by(name: str, n: int) -> np.ndarray:
            if name in images:
                return images[name][:n].cpu().numpy()
            return self.methods[name](batch.aliased[:n], batch.mask[:n]).abs().cpu().numpy()

        target = batch.target.cpu().numpy()
        shown = made_by(self.shown, len(batch.samples))
        if not self.arrays["target"]:  # the first sample beats
            aliased = batch.aliased[0].abs().cpu().numpy()
            report.write_film(run.folder, target[0], aliased, shown[0], self.shown)
            lines = batch.mask[0, :, :, 0].cpu().numpy()
            figure = mask_figure(lines, nx=run.cine.shape[-1])
            report.write_figure(run.folder / "mask.png", figure, dpi)
        missing = batch.samples[: max(0, run.settings.num_pictures - self.n_drawn)]
        beside = [name for name in PICTURED if name in self.methods and name != self.shown]
        pictured = {name: made_by(name, len(missing)) for name in beside if missing}
        pictured["zero_filled"] = batch.aliased.abs().cpu().numpy()
        for i, sample in enumerate(missing):
            series = {self.shown: shown[i], **{name: array[i] for name, array in pictured.items()}}
            report.write_pictures(run.folder, sample, target[i], series, self.shown, dpi)
        self.n_drawn += len(missing)
        self.arrays["target"].append(target)
        self.arrays["aliased"].append(batch.aliased.cpu().numpy())
        self.arrays["reconstruction"].append(shown)

    def close(self) -> None:
        """Write the arrays."""
        arrays = {name: np.concatenate(pieces) for name, pieces in self.arrays.items()}
        report.write_arrays(self.run.folder, {"index": np.array(self.run.parts["test"]), **arrays})


def score_rows(acc: float, batch: Batch, reconstructions: Mapping[str, Tensor]) -> list[dict]:
    """The rows of `metrics.csv` for a batch: one for each sample and method."""
    rows = []
    for method, images in reconstructions.items():
        scores = {name: values.tolist() for name, values in score(images, batch.target).items()}
        for i, sample in enumerate(batch.samples):
            values = {name: column[i] for name, column in scores.items()}
            rows.append({"sample": sample, "acc": acc, "method": method, **values})
    return rows


def conclude(
    run: Run, rows: list[dict[str, Any]], shown: str, lesions: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Write curves, scores and the report; `metrics.csv`, which marks the end, last."""
    if run.history:
        figure = curves_figure(run.history)
        report.write_figure(run.folder / "curves.png", figure, run.settings.picture_dpi)
    n_samples = len(run.parts["test"])
    title = f"Test: {n_samples} samples, mean ± standard deviation over samples"
    if run.history:
        best = max((e for e in run.history if "validation/psnr" in e), key=by_psnr)
        title += f"; the network of epoch {best['epoch']:.0f}, chosen by validation PSNR"
        title += f"; {sum(e['seconds'] for e in run.history) / 60:.1f} minutes of training"
        peak = report.peak_memory(run.history)
        title += f", {peak / 1e9:.2f} GB at most" if peak else ""
    results = [title, *report.score_table(rows), *advantage_lines(run, rows)]
    results += ["", *lesions] if lesions else []
    report.write_output(run.folder, run.facts, run.history, results, caveats(run))
    board = report.TensorBoard(run.folder, vars(run.settings), len(run.history))
    for method, means in report.mean_scores(rows).items():
        prefix = "test/" if method == shown else f"test/{method}/"
        values = {prefix + name: value for name, value in means.items()}
        board.scalars(values, len(run.history))
    board.close()
    report.write_metrics(run.folder, rows)
    for line in results:
        say(line)
    return report.mean_scores(report.read_metrics(run.folder))  # as a finished run returns them


def advantage_lines(run: Run, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How far the network is above the best training-free method in each score, a line for each
    acceleration."""
    groups = run.cine.groups
    by_acc: dict[float, list[str]] = {}
    for found in advantages(rows, groups):
        told = f"{found.score} {difference_text(found, 3)} ({found.best})"
        by_acc.setdefault(found.acc, []).append(told)
    if not by_acc:
        return []
    units = "samples" if groups is None else "patients"
    return [
        f"{run.settings.model} less the training-free method of the highest mean, paired by sample"
        f" [95 % interval, bootstrap over {units}]",
        *(f"acceleration {acc:g}: {', '.join(told)}" for acc, told in by_acc.items()),
    ]


def by_psnr(entry: Mapping[str, float]) -> float:
    """The score that chooses the network."""
    return entry["validation/psnr"]
