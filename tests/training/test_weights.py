import pytest
import torch
from helpers import sampling

from data.acquisition import Acquisition
from data.batches import EvaluationBatches
from methods.baselines import baseline
from metrics import psnr
from phantom.scanner import phantom
from training import checkpoint as ckpt
from util.errors import InputError

PATH = ckpt.weights_file("cascade_phantom")
NOISY = {"phase": True, "noise": 0.005}


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


@pytest.mark.parametrize(
    ("weights", "acc", "settings", "others"),
    [
        *(("cascade_phantom", acc, {}, ("kt_sparse", "low_rank_sparse")) for acc in (4, 6, 8)),
        ("cascade_phantom_complex", 6, NOISY, ("kt_sparse", "low_rank_sparse")),
        ("cascade_phantom_coils", 8, NOISY | {"coils": 4}, ("cg_sense", "kt_sparse")),
        ("cascade_phantom_coils", 8, NOISY | {"coils": 8}, ("cg_sense", "kt_sparse")),
    ],
)
def test_weights_beat_what_needs_no_training(weights, acc, settings, others):
    """On a patient that they were not trained on, at another size."""
    images = torch.from_numpy(phantom(2, (16, 96, 112), seed=7))
    given = {"phase": False, "noise": 0.0, "data_seed": 7} | settings
    (batch,) = EvaluationBatches(images, [1], Acquisition(sampling(acc, 5), **given), 1, "cpu")
    with torch.no_grad():
        found = psnr(ckpt.load_network(weights)(*batch.measured).abs(), batch.target)
    for name in others:
        made = baseline(name, real_image=not settings)(*batch.measured)
        assert found > psnr(made.abs(), batch.target) + 0.5, name
