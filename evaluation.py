"""Evaluation: the network and the baselines on the same samples with the same masks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import report
from baselines import BASELINES
from CS_mask import evaluation_masks
from figures import curves_figure, mask_figure
from fourier import undersample
from metrics import score
from run import Run
from runtime import Interrupted, StopRequest, say

VALIDATION_SCORES = ("loss", "psnr", "ssim")
LOGGED_SAMPLES = 2  # validation samples whose pictures go to TensorBoard
LOGGED_EPOCHS = 20  # how often in a run these are logged

Method = Callable[[Tensor, Tensor], Tensor]  # (aliased, mask) to reconstruction


@dataclass
class Batch:
    """Samples on the device, as they are evaluated."""

    samples: list[int]
    target: Tensor  # (B, T, Y, X) float32
    mask: Tensor  # (B, T, Y, 1) float32, centred
    aliased: Tensor  # (B, T, Y, X) complex64


def alias(run: Run, samples: Sequence[int], masks: np.ndarray) -> Batch:
    """Move samples to the device and undersample them there."""
    target = run.cine.images[list(samples)].to(run.device)
    mask = torch.from_numpy(masks).to(run.device)
    return Batch(list(samples), target, mask, undersample(target, mask))


def evaluation_batches(run: Run, part: str) -> Iterator[Batch]:
    """The samples of a part with their fixed masks."""
    s = run.settings
    samples = run.parts[part]
    for start in range(0, len(samples), run.pass_size):
        chunk = samples[start : start + run.pass_size]
        masks = evaluation_masks(chunk, run.cine.shape[:2], s.acc, s.sample_n, s.data_seed)
        yield alias(run, chunk, masks)


@torch.no_grad()
def validate(
    run: Run, batches: Sequence[Batch], epoch: int, board: report.TensorBoard
) -> dict[str, float]:
    """Mean scores over the whole validation part; now and then its pictures to TensorBoard."""
    assert run.network is not None
    run.network.eval()
    logged = epoch % max(1, run.settings.num_epochs // LOGGED_EPOCHS) == 0
    to_log = LOGGED_SAMPLES if logged else 0
    scores: dict[str, list[Tensor]] = {name: [] for name in VALIDATION_SCORES}
    for batch in batches:
        reconstruction = run.network(batch.aliased, batch.mask)
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
        {method: {score: mean over samples}}.
    """
    s = run.settings
    methods: dict[str, Method] = dict(BASELINES)
    shown = list(BASELINES)[-1]  # the method in the pictures: the network, if there is one
    if run.network is not None:
        shown = s.model
        methods = {shown: run.network.eval(), **methods}
    rows: list[dict[str, Any]] = []
    kept: dict[str, list[np.ndarray]] = {"target": [], "aliased": [], "reconstruction": []}
    n_batches = -(-len(run.parts["test"]) // run.pass_size)
    n_drawn = 0
    for batch in tqdm(evaluation_batches(run, "test"), "test", n_batches, disable=None):
        if stop:
            raise Interrupted(f"stopped by {stop.reason} while testing", run.folder)
        reconstructions = {
            name: method(batch.aliased, batch.mask) for name, method in methods.items()
        }
        rows += score_rows(s.acc, batch, reconstructions)
        kept["target"].append(batch.target.cpu().numpy())
        kept["aliased"].append(batch.aliased.cpu().numpy())
        kept["reconstruction"].append(reconstructions[shown].cpu().numpy())
        if len(kept["target"]) == 1:
            draw_once(run, batch, reconstructions[shown], shown)
        for i, sample in enumerate(batch.samples[: s.num_pictures - n_drawn]):
            images = {name: series[i].cpu().numpy() for name, series in reconstructions.items()}
            target = kept["target"][-1][i]
            report.write_pictures(run.folder, sample, target, images, shown, s.picture_dpi)
        n_drawn = min(s.num_pictures, n_drawn + len(batch.samples))

    order = {name: position for position, name in enumerate(methods)}
    rows.sort(key=lambda row: (row["sample"], order[row["method"]]))
    arrays = {name: np.concatenate(pieces) for name, pieces in kept.items()}
    report.write_arrays(run.folder, {"index": np.array(run.parts["test"]), **arrays})
    return conclude(run, rows, shown)


def score_rows(acc: float, batch: Batch, reconstructions: Mapping[str, Tensor]) -> list[dict]:
    """The rows of `metrics.csv` for a batch: one for each sample and method."""
    rows = []
    for method, images in reconstructions.items():
        scores = {name: values.tolist() for name, values in score(images, batch.target).items()}
        for i, sample in enumerate(batch.samples):
            values = {name: column[i] for name, column in scores.items()}
            rows.append({"sample": sample, "acc": acc, "method": method, **values})
    return rows


def draw_once(run: Run, batch: Batch, reconstruction: Tensor, shown: str) -> None:
    """Film and mask of the first test sample."""
    target, aliased = batch.target[0].cpu().numpy(), batch.aliased[0].abs().cpu().numpy()
    report.write_film(run.folder, target, aliased, reconstruction[0].cpu().numpy(), shown)
    lines = batch.mask[0, :, :, 0].cpu().numpy()
    figure = mask_figure(lines, nx=run.cine.shape[-1])
    report.write_figure(run.folder / "mask.png", figure, run.settings.picture_dpi)


def conclude(run: Run, rows: list[dict[str, Any]], shown: str) -> dict[str, dict[str, float]]:
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
    results = [title, *report.score_table(rows)]
    report.write_output(run.folder, run.facts, run.history, results)
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


def by_psnr(entry: Mapping[str, float]) -> float:
    """The score that chooses the network."""
    return entry["validation/psnr"]
