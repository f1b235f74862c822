import pytest
import torch
from helpers import sampling

from CS_mask import evaluation_masks
from data.acquisition import Acquisition
from data.batches import EvaluationBatches
from methods.baselines import BASELINES, baseline
from metrics import psnr
from phantom.scanner import phantom
from physics.consistency import DataConsistency
from physics.fourier import undersample
from training import checkpoint as ckpt
from util.errors import InputError

PATH = ckpt.weights_file("cascade_phantom")


@pytest.fixture(scope="module")
def network():
    return ckpt.load_network("cascade_phantom")


def test_weights_are_small_and_loaded_by_name(tmp_path, monkeypatch):
    assert all(ckpt.weights_file(name).stat().st_size < 4e6 for name in ckpt.SHIPPED)
    monkeypatch.chdir(tmp_path)
    assert ckpt.weights_file("cascade_phantom") == PATH
    (tmp_path / "cascade_phantom").write_text("a file of the user's")
    assert str(ckpt.weights_file("cascade_phantom")) == "cascade_phantom"


def test_weights_that_come_with_the_project_are_what_was_shipped(tmp_path, monkeypatch):
    for name in ckpt.SHIPPED:
        ckpt.load_checkpoint(ckpt.weights_file(name))
    monkeypatch.setattr(ckpt, "WEIGHTS", tmp_path)
    changed = torch.load(PATH, weights_only=True)
    changed["weights"] = {name: value + 1e-3 for name, value in changed["weights"].items()}
    torch.save(changed, tmp_path / PATH.name)
    with pytest.raises(InputError, match="is not the file that comes with the project"):
        ckpt.load_network("cascade_phantom")
    torch.save(changed, tmp_path / "mine.pt")
    ckpt.load_network("mine")


def test_weights_for_complex_images_beat_what_needs_no_training():
    """On a patient that they were not trained on, with a phase and noise."""
    images = torch.from_numpy(phantom(2, (16, 96, 112), seed=7))[1:]
    acquisition = Acquisition(sampling(6, 5), phase=True, noise=0.005, data_seed=7)
    (batch,) = EvaluationBatches(images.to(torch.complex64), [0], acquisition, 1, "cpu")
    network = ckpt.load_network("cascade_phantom_complex")
    with torch.no_grad():
        found = psnr(network(batch.aliased, batch.mask).abs(), batch.target)
    for name in ("kt_sparse", "low_rank_sparse"):
        baseline = BASELINES[name]
        measured = DataConsistency(batch.aliased, batch.mask, False)
        images = baseline.reconstruct(measured, **baseline.usual)
        assert found > psnr(images.abs(), batch.target) + 0.5, name


@pytest.mark.parametrize("n_coils", [4, 8])
def test_weights_for_coils_beat_what_needs_no_training(n_coils):
    """On a patient that they were not trained on, with a phase and noise."""
    images = torch.from_numpy(phantom(2, (16, 96, 112), seed=7))[1:]
    acquisition = Acquisition(sampling(8, 5), phase=True, noise=0.005, data_seed=7, coils=n_coils)
    (batch,) = EvaluationBatches(images, [0], acquisition, 1, "cpu")
    network = ckpt.load_network("cascade_phantom_coils")
    with torch.no_grad():
        found = psnr(network(*batch.measured).abs(), batch.target)
    for name in ("cg_sense", "kt_sparse"):
        images = baseline(name, real_image=False)(*batch.measured)
        assert found > psnr(images.abs(), batch.target) + 0.5, name


@pytest.mark.parametrize("acc", [4, 6, 8])
def test_weights_beat_what_needs_no_training(network, acc):
    """On a patient that they were not trained on, at another size."""
    target = torch.from_numpy(phantom(2, (16, 96, 112), seed=7))[1:]
    masks = evaluation_masks([1], (16, 96), sampling(acc, 5), data_seed=7)
    mask = torch.from_numpy(masks)
    aliased = undersample(target, mask)
    with torch.no_grad():
        found = psnr(network(aliased, mask).abs(), target)
    for name in ("kt_sparse", "low_rank_sparse"):
        baseline = BASELINES[name]
        images = baseline.reconstruct(DataConsistency(aliased, mask, True), **baseline.usual)
        assert found > psnr(images, target) + 0.5, name
