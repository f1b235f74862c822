"""Training on undersampled k-space alone."""

import math
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import CASCADE, ROOT, TINY, load, make_images, quality_of, random_complex, sampling

from CS_mask import evaluation_masks, hermitian_mirror
from data.augmentation import MOVES, Moves
from dataset import Cine
from evaluation.held_out import batch_error, held_out_psnr
from methods.held_out import PROBE, given_error, hidden_error, hide, hold_out
from metrics import psnr
from model import MODELS, architecture_settings
from phantom.scanner import phantom
from physics.fourier import fftc, undersample
from train import train
from training import checkpoint as ckpt
from training.hidden_lines import HiddenLines
from training.loading import held_out_validation
from training.run import Run
from training.run_folder import read_history
from util.errors import InputError, Interrupted
from util.settings import defaults_of

PLACES = ((-1, -1), (1, -1), (0, 1))
SELF = {"supervision": "self", "loss": "mse"}
SETTINGS = defaults_of(train) | SELF | {
    "acc": 4, "sample_n": 4, "batch_size": 2, "num_epochs": 1, "mask_pool": 2, "real_image": False,
    "start": "zero_filled", "strip": 0,
}  # fmt: skip


def run(images: torch.Tensor, **settings) -> Run:
    """A run of 6 training and 3 validation samples."""
    quality = quality_of(images.abs())
    cine = Cine(images, None, [""] * len(images), "tiny", [], quality)
    parts = {"train": list(range(6)), "validation": [6, 7, 8], "test": []}
    s = SimpleNamespace(**SETTINGS | settings)
    return Run(None, s, torch.device("cpu"), cine, parts)  # type: ignore[arg-type]


@pytest.mark.parametrize("ny", [24, 25])
@pytest.mark.parametrize("kind", MOVES)
def test_moves_commute_with_undersampling(kind, ny):
    images = random_complex(1, 6, ny, 20)[0]
    mask = torch.from_numpy(evaluation_masks([0], (6, ny), sampling(3, 4), 0))[0]
    for seed in range(8):
        moves = Moves.draw((kind,), 6, np.random.default_rng(seed))
        first = undersample(moves.of_images(images)[None], moves.of_lines(mask)[None])
        last = moves.of_images(undersample(images[None], mask[None])[0])
        torch.testing.assert_close(first[0], last)


LAWS = {
    "gaussian": {},
    "odd centre": {"centre_lines": (5,)},
    "several centres": {"centre_lines": (4, 12)},
    "a range of accelerations": {"acc": (4.0, 10.0)},
    "several patterns": {"patterns": ("gaussian", "uniform", "golden_step")},
    "the same lines in all frames": {"patterns": ("equispaced_static",)},
}


@pytest.mark.parametrize("real_image", [False, True])
@pytest.mark.parametrize("law", LAWS)
def test_the_weight_of_hidden_lines_is_on_average_that_of_all_missing_ones(law, real_image):
    """Line by line, in images whose energy falls with the frequency."""
    one = replace(sampling(6, 6), **LAWS[law])
    masks = torch.from_numpy(evaluation_masks(range(1000), (20, 96), one, 0))
    rng, weights, missing = np.random.default_rng(0), [], []
    for mask in masks:
        seen, weight = hide(mask[None], 0.25, real_image, rng)
        assert not (seen * weight).any()
        known = torch.maximum(seen, hermitian_mirror(seen)) if real_image else seen
        weights.append(weight.mean(dim=(0, 1, 3)))
        missing.append((1 - known).mean(dim=(0, 1, 3)))
    found, wanted = torch.stack(weights), torch.stack(missing)
    by_line = found.mean(dim=0) / wanted.mean(dim=0).clamp(min=0.1)
    static = law == "the same lines in all frames"  # whose frequencies one series does not tell
    if not static:
        often = wanted.mean(dim=0) > 0.1
        assert by_line[often].min() > 0.6
        assert by_line[often].max() < 1.5
    energy = 1 / (1 + (torch.arange(96) - 48).abs()) ** 2
    groups = [torch.ones(1000, dtype=torch.bool)]
    if law == "a range of accelerations":
        dense = masks.mean(dim=(1, 2, 3)) > masks.mean()
        groups = [dense, ~dense]
    for some in groups:
        ratio = (found[some] @ energy).mean() / (wanted[some] @ energy).mean()
        assert ratio == pytest.approx(1, abs=0.3 if static else 0.1)


def test_hidden_error_is_the_mean_squared_error_if_all_lines_are_hidden():
    error = random_complex(2, 4, 24, 3)
    of_pixels = error.abs().square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(hidden_error(error, 0 * error, torch.ones(2, 4, 24, 1)), of_pixels)


@pytest.mark.parametrize("kept", [1.0, 0.8, 0.3])
def test_the_error_of_noisy_lines_is_estimated_without_the_truth(kept):
    """Of a method that keeps a share of what it gets and adds its square, on average over noise:
    also of one that copies the noise, whose difference to the measured lines is 0."""
    truth, lines, deviation = random_complex(1, 6, 32, 24), torch.ones(1, 6, 32, 1), 0.3
    lines[:, :, ::3] = 0
    estimates, errors = [], []
    for seed in range(30):
        noise, probe = (random_complex(1, 6, 32, 24, seed=2 * seed + i + 1) for i in (0, 1))
        measured = undersample(truth + deviation * noise, lines)
        change = undersample(PROBE * deviation * probe, lines)

        def method(values):
            return kept * values + 0.1 * values.real.square()

        images, again = method(measured), method(measured + change)
        estimates.append(given_error(images, again, measured, change, lines))
        errors.append(undersample(images - truth, lines).abs().square().mean())
    assert torch.stack(estimates).mean().item() == pytest.approx(np.mean(errors), rel=0.05)


@pytest.mark.parametrize("coils", [None, 3])
def test_for_the_noise_samples_come_again_with_more_of_it(coils):
    images, made = torch.from_numpy(phantom(9, (8, 48, 48), 3)).to(torch.complex64), []

    def starts(key, make):
        made.append((key, make()))
        return torch.zeros(1, *images.shape[1:])

    given = {"supervision": "self_sure", "noise": 0.03, "coils": coils, "strip": 16}
    make = HiddenLines(run(images, **given), starts)
    batch = make([(0, 1), (3, 4)])
    assert batch.is_twice
    assert batch.samples == [1, 4, 1, 4]
    for tensor in (batch.mask, batch.hidden):
        assert torch.equal(*tensor.chunk(2))
    one, again = batch.aliased.chunk(2)
    change = again - one
    lines = batch.mask[:2] if coils is None else batch.mask[:2, :, None]
    torch.testing.assert_close(undersample(change, lines), change, atol=1e-6, rtol=0)
    share = lines.mean().item()
    deviation = (change.abs().square().mean() / 2 / share).sqrt().item() / PROBE
    assert deviation == pytest.approx(0.03, rel=0.2)
    assert [key for key, _ in made] == [(0, 1), (2, 1), (1, 4), (3, 4)]
    for i, (_, whole) in enumerate(made):  # starts are made of what the network gets
        place = PLACE_OF_DRAW[i]
        assert torch.equal(whole.mask[0], batch.mask[place])


PLACE_OF_DRAW = (0, 2, 1, 3)  # in a batch of two samples and these again


def test_supervision_for_the_noise_trains_and_says_if_there_is_none(
    tmp_path, tiny_npz, capsys, monkeypatch
):
    given = CASCADE | {"loss": "mse", "supervision": "self_sure", "num_epochs": 1}
    given |= {"data": tiny_npz, "dc_weight": 10.0, "learn_dc_weight": True}
    notice = "--supervision self does as well, in half of the time"
    means = train(tmp_path / "noisy", **given, noise=0.05)
    assert means["cascade"]["psnr"] > means["zero_filled"]["psnr"]
    found = capsys.readouterr().out
    assert notice not in found
    assert "by Stein's estimate (SURE)" in " ".join(found.split())
    monkeypatch.setattr("training.hidden_lines.OF_SIGNAL", 1.0)
    train(tmp_path / "clean", **given)
    assert notice in capsys.readouterr().out


@pytest.mark.parametrize("coils", [None, 3])
def test_a_training_batch_has_nothing_of_the_lines_that_were_not_measured(coils):
    images = torch.from_numpy(make_images()).to(torch.complex64)
    given = {"coils": coils, "augment": ("flips", "time", "shift"), "strip": 16}
    first = HiddenLines(run(images, **given), None)
    draws = [(0, 1), (3, 4)]
    batch = first(draws)
    seen, hidden = batch.mask > 0, batch.hidden > 0
    assert hidden.any()
    assert not (seen & hidden).any()
    lines = (seen | hidden).float()
    lines = lines if coils is None else lines[:, :, None]
    torch.testing.assert_close(undersample(batch.truth, lines), batch.truth)
    if coils is None:  # what was not measured may be anything
        once = HiddenLines(run(images, mask_pool=2), None)
        changed = images.clone()
        for sample in range(6):
            measured = once.once_measured(sample)
            noise = random_complex(*images.shape[1:], seed=sample)[None]
            changed[sample] += undersample(noise, 1 - measured.mask)[0]
        other = HiddenLines(run(changed, **given), None)(draws)
        torch.testing.assert_close(other.truth, batch.truth)
        torch.testing.assert_close(other.aliased, batch.aliased)


def test_lines_are_hidden_anew_but_for_those_of_a_pool():
    images = torch.from_numpy(make_images()).to(torch.complex64)
    pooled, fresh = (HiddenLines(run(images, mask_pool=n), None) for n in (2, 0))
    for make, same in ((pooled, True), (fresh, False)):
        first, second, third = (make([(number, 0)]).hidden for number in (0, 1, 2))
        assert not torch.equal(first, second)
        assert torch.equal(first, third) is same


def test_held_out_lines_tell_the_error_of_what_is_missing():
    images = torch.from_numpy(make_images()).to(torch.complex64)
    given = run(images)
    batches = held_out_validation(given)
    assert [batch.samples for batch in batches] == [[6], [7], [8]]
    by_lines = held_out_psnr(lambda aliased, mask: aliased, batches)
    for batch, told in zip(batches, by_lines, strict=True):
        true = psnr(batch.aliased.abs(), images[batch.samples].abs())  # peak of 1
        assert abs(told - true.item()) < 4, (told, true)
        assert batch_error(batch.truth, batch) < 1e-9


def test_training_without_truth_learns_and_is_chosen_by_held_out_lines(tmp_path, tiny_npz):
    # the first epoch of this seed leaves 2 dB to learn, far more than rounding changes
    given = CASCADE | SELF | {"data": tiny_npz, "num_epochs": 3, "seed": 2}
    means = train(tmp_path / "run", **given)
    history = read_history(tmp_path / "run")
    held_out = [entry["validation/held_out"] for entry in history]
    assert held_out[-1] > held_out[0] + 0.5
    assert means["cascade"]["psnr"] > means["view_sharing"]["psnr"]
    best = ckpt.load_checkpoint(tmp_path / "run" / ckpt.BEST)
    assert best["scores"]["held_out"] == best["best_psnr"] == pytest.approx(max(held_out))
    text = (tmp_path / "run" / "output.txt").read_text()
    assert "chosen by held-out lines in validation" in " ".join(text.split())
    assert "validation/held_out" in text
    with pytest.raises(Interrupted):
        train(tmp_path / "broken", **given, max_steps=4)
    assert train(tmp_path / "broken", resume=True) == means


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"supervision": "self_sure", "noise": 0.02},
            "unet_resnet keeps them as they were measured",
        ),
        ({"loss": "l1"}, "--supervision self has its own loss, of hidden lines: leave --loss out"),
        ({"augment": ("flips", "blur")}, "--augment blur changes what would have been measured"),
        ({"data_consistency": False}, "unet_resnet may change the others too: add --data-cons"),
        ({"sample_n": 8}, "has no measured lines outside the centre"),
        ({"supervision": "half"}, "--supervision is 'half', expected one of full, self, self_sure"),
    ],
)
def test_what_needs_the_truth_is_refused(tmp_path, tiny_npz, settings, message):
    given = TINY | {"supervision": "self", "data_consistency": True} | settings
    with pytest.raises(InputError, match=message):
        train(tmp_path / "run", data=tiny_npz, **given)


@pytest.mark.parametrize("model", MODELS)
def test_every_network_trains_without_truth(tmp_path, tiny_npz, model):
    small = {"stages": 2, "features": 4} if "stages" in architecture_settings(model) else {}
    coils = 3 if model in ("unet_resnet", "varnet") else None
    given = TINY | SELF | small | {"model": model, "num_epochs": 1, "noise": 0.01, "coils": coils}
    if "data_consistency" in architecture_settings(model):
        given |= {"data_consistency": True}
    if model == "cascade":
        given |= {"start": "kt_sparse"}
    train(tmp_path / "run", data=tiny_npz, **given)
    (entry,) = read_history(tmp_path / "run")
    assert entry["train/loss"] > 0
    assert entry["validation/held_out"] > 10


def kspace_of(n_coils: int, undersampled: bool = True) -> np.ndarray:
    """K-space (9, 8, C, 32, 36), with noise; undersampled, each sample with its own lines."""
    images = torch.from_numpy(make_images()).to(torch.complex64)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 36), indexing="ij")
    coils = torch.stack(
        [torch.exp(-((y - a) ** 2 + (x - b) ** 2) + 1j * (a * x + b * y)) for a, b in PLACES]
    )[:n_coils]
    kspace = fftc(images[:, :, None] * coils)
    kspace += 0.003 * random_complex(*kspace.shape)
    if undersampled:
        masks = evaluation_masks(range(9), (8, 32), sampling(3, 6), 0)  # (9, 8, 32, 1)
        kspace *= torch.from_numpy(masks)[:, :, None]
    return kspace.numpy().astype(np.complex64)


@pytest.mark.parametrize("n_coils", [1, 3])
def test_undersampled_kspace_is_trained_on_and_scored_by_held_out_lines(tmp_path, n_coils):
    kspace = kspace_of(n_coils)
    np.savez(tmp_path / "scans.npz", kspace=kspace)
    given = CASCADE | {
        "data": str(tmp_path / "scans.npz"), "loss": "mse", "num_epochs": 2, "num_pictures": 1,
        "baselines": ("zero_filled", "view_sharing", "patch_low_rank"),
    }  # fmt: skip
    del given["acc"], given["sample_n"]
    with pytest.raises(InputError, match="without a ground truth: give --supervision self"):
        train(tmp_path / "refused", **given)
    given["supervision"] = "self"
    with pytest.raises(InputError, match="--noise is for fully sampled data, leave it out"):
        train(tmp_path / "refused", **given, noise=0.01)
    means = train(tmp_path / "run", **given)
    assert means.keys() == {"cascade", "zero_filled", "view_sharing", "patch_low_rank"}
    assert all(scores.keys() == {"held_out"} for scores in means.values())
    assert means["view_sharing"]["held_out"] > means["zero_filled"]["held_out"] + 3
    with (tmp_path / "run" / "metrics.csv").open() as file:
        assert file.readline().strip() == "sample,pattern,acc,method,held_out"
    text = " ".join((tmp_path / "run" / "output.txt").read_text().split())
    assert "PSNR (dB)" not in text
    for part in (
        "undersampled, without a ground truth; sensitivity maps",
        "all samples have the lines that were measured of them",
        "mean held-out score of 3 test samples in dB",
        "There is no ground truth: the score tells",
        "held-out score (dB) (held_out): -10 log10 of the mean squared error, in dB",
    ):
        assert part in text, part
    with np.load(tmp_path / "run" / "reconstructions.npz") as arrays:
        assert arrays.keys() == {"index", "mask", "maps", "aliased", "reconstruction"}
        for i, sample in enumerate(arrays["index"]):
            assert np.array_equal(arrays["mask"][i], kspace[sample].any(axis=(1, 3)))
    page = (tmp_path / "run" / "report.html").read_text()
    assert "held-out score" in page
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"heart", "cine.gif", "reconstruction", "curves.png"} <= names
    assert not {"error", "full_sampling", "profiles"} & names
    if n_coils == 1:
        return
    with pytest.raises(Interrupted):
        train(tmp_path / "broken", **given, max_steps=3)
    assert train(tmp_path / "broken", resume=True) == means
    tables = subprocess.run(
        [sys.executable, ROOT / "tables.py", tmp_path / "run"], capture_output=True, text=True
    )
    assert tables.returncode == 0, tables.stderr
    assert "held-out score (dB)" in tables.stdout


def test_every_sample_needs_the_lines_of_its_maps(tmp_path):
    kspace = kspace_of(2)
    kspace[5, :, :, 16] = 0
    np.savez(tmp_path / "scans.npz", kspace=kspace)
    given = CASCADE | SELF | {"data": str(tmp_path / "scans.npz")}
    del given["acc"], given["sample_n"]
    with pytest.raises(InputError, match="sample 5: 1 of the 5 lines around the centre"):
        train(tmp_path / "run", **given)


def test_of_few_lines_one_is_held_out():
    mask = torch.zeros(1, 8, 32, 1)
    mask[:, :, 13:20] = 1
    images = random_complex(1, 8, 32, 36)
    for places in ([25], [25, 7]):  # the second is the partner of the first
        mask[0, 5, places] = 1
        held = hold_out(images, mask, None, True, np.random.default_rng(1), share=1e-9)
        assert held.lines.nonzero()[:, 2].sort()[0].tolist() == sorted(places)


def test_without_lines_to_hold_out_there_is_no_score():
    images = torch.from_numpy(make_images()).to(torch.complex64)
    batches = held_out_validation(run(images, sample_n=8))
    assert all(math.isnan(value) for value in held_out_psnr(lambda b, mask: b, batches))


def test_full_and_undersampled_samples_do_not_mix(tmp_path):
    kspace = kspace_of(2)
    kspace[4] = kspace_of(2, undersampled=False)[4]
    np.savez(tmp_path / "scans.npz", kspace=kspace)
    with pytest.raises(InputError, match="sample 4 is fully sampled, and those before are under"):
        load(tmp_path / "scans.npz")
