"""The path on a GPU, compared with itself and with the CPU: `python -m pytest --gpu`.

`--gpu cpu` runs them where there is no GPU, which tests the tests.
"""

import copy
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import CASCADE, STAGES, TINY, UNET, random_complex, randomised, rows_of, sampling

from CS_mask import evaluation_masks
from data.acquisition import Acquisition
from data.augmentation import AUGMENTATIONS
from data.batches import EvaluationBatches, TrainingDraws, training_batch
from evaluation.tuning import available_baselines
from methods.baselines import baseline
from metrics import SCORES
from model import MODELS, architecture_settings, build_model, run_stages
from phantom.scanner import phantom
from physics.coils import expand
from train import train
from training import checkpoint as ckpt
from training.cuda_graph import captured
from training.losses import LOSSES, training_loss
from training.optimisation import make_optimizer
from util.errors import InputError, Interrupted
from util.machine import make_deterministic
from util.memory import explained_out_of_memory

SHAPE = (2, 8, 32, 32)  # B, T, Y, X
RUNS = {
    "unet": TINY | {"model": "unet", "dropout": 0.1},
    "unet_resnet": TINY | {"accumulation": 2},
    "cnn3d": TINY | {"model": "cnn3d"},
    "cascade": CASCADE | {"augment": ("flips", "time", "shift")},
    "coils": CASCADE | {"coils": 3, "noise": 0.005},
    "graph": CASCADE | {"cuda_graph": True},
    "dc_cnn": CASCADE | {"model": "dc_cnn"},
    "crnn": CASCADE | {"model": "crnn"},
    "varnet": CASCADE | {"model": "varnet", "strip": 32},
    "modl": CASCADE | {"model": "modl"},
    "graph_of_two_passes": CASCADE | {"cuda_graph": True, "accumulation": 2},
}


@pytest.fixture
def gpu(request) -> torch.device:
    device = torch.device(request.config.getoption("--gpu"))
    make_deterministic(0)
    return device


@contextmanager
def no_waiting(device: torch.device):
    """Waiting for the GPU is an error in this block."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def network_of(model: str, real_image: bool = True, **changes) -> torch.nn.Module:
    given = UNET | STAGES | {"start": "kt_sparse", "real_image": real_image, "features": 8}
    given |= {"init_features": 4} | changes
    names = architecture_settings(model)
    return randomised(build_model(model, **{name: given[name] for name in names}))


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("n_passes", [1, 2])
@pytest.mark.parametrize("model", MODELS)
def test_captured_steps_have_the_gradients_of_plain_ones_to_the_bit(gpu, model, n_passes, given):
    if gpu.type != "cuda":
        pytest.skip("records CUDA graphs")
    network = network_of(model).to(gpu)
    plain = copy.deepcopy(network).train()
    zeros = torch.zeros(SHAPE) if given else None
    forward = captured(
        network, SHAPE, "float32", gpu, zeros, every_stage=True, keeps_gradients=n_passes > 1
    )
    for (name, before), after in zip(plain.named_buffers(), network.buffers(), strict=True):
        assert torch.equal(before, after), name
    mask = (torch.rand(*SHAPE[:3], 1, device=gpu) < 0.4).float()
    plainly = partial(run_stages, plain, precision="float32")
    for n in (2, 2, 1):  # the last one is of another shape
        batches = [random_complex(n, *SHAPE[1:], seed=seed).to(gpu) for seed in range(n_passes)]
        start = torch.randn(n, *SHAPE[1:], device=gpu) if given else None
        for one, run in ((network, forward), (plain, plainly)):
            one.zero_grad()
            for aliased in batches:
                stages = run(aliased, mask[:n], start=start)
                sum(x.abs().square().mean() for x in stages).backward()
        for (name, ours), theirs in zip(
            network.named_parameters(), plain.parameters(), strict=True
        ):
            assert torch.equal(ours.grad, theirs.grad), name


@pytest.mark.parametrize("name", RUNS)
def test_two_runs_and_a_resumed_one_have_the_same_bits(gpu, name, tmp_path, tiny_npz):
    settings = RUNS[name] | {"device": str(gpu), "data": str(tiny_npz), "num_epochs": 3}
    for folder in ("first", "second"):
        train(tmp_path / folder, **settings)
    with pytest.raises(Interrupted):
        train(tmp_path / "resumed", **settings, max_steps=5)
    train(tmp_path / "resumed", resume=True)
    first, *others = (
        ckpt.load_checkpoint(tmp_path / folder / ckpt.BEST)["weights"]
        for folder in ("first", "second", "resumed")
    )
    for other in others:
        for key, value in first.items():
            assert torch.equal(value, other[key]), key
    rows = [rows_of(tmp_path / folder) for folder in ("first", "second", "resumed")]
    assert rows[0] == rows[1] == rows[2]


@pytest.mark.parametrize("n_coils", [None, 3])
@pytest.mark.parametrize("model", MODELS)
def test_a_step_does_not_wait_for_the_gpu(gpu, model, n_coils):
    network = network_of(model, real_image=n_coils is None).to(gpu).train()
    optimizer = make_optimizer(network, 1e-3, weight_decay=0.0)
    losses = [name for name in LOSSES if name != "perpendicular"]  # which needs complex images
    loss = tuple(word for name in losses for word in (name, 1.0))
    truth = random_complex(*SHAPE).to(gpu)
    mask = torch.from_numpy(evaluation_masks(range(2), SHAPE[1:3], sampling(4), 0)).to(gpu)
    aliased = random_complex(*SHAPE).to(gpu)
    measured = [aliased, mask]
    if n_coils:
        maps = random_complex(2, n_coils, *SHAPE[2:]).to(gpu)
        measured = [expand(aliased, maps), mask, maps]
    for n_step in range(3):
        with no_waiting(gpu if n_step else torch.device("cpu")):  # the first one prepares much
            optimizer.zero_grad(set_to_none=True)
            images = run_stages(network, *measured, precision="float32")[-1]
            training_loss(images, truth, loss).mean().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()


@pytest.mark.parametrize("kind", [(True, None), (False, None), (False, 3)])
def test_methods_and_scores_are_those_of_the_cpu(gpu, kind):
    real_image, n_coils = kind
    images = torch.from_numpy(phantom(2, (8, 64, 64), seed=0))
    changed = {"phase": not real_image, "noise": 0.0, "data_seed": 0, "coils": n_coils}
    acquisition = Acquisition(sampling(4, 8), **changed)
    here, there = (
        EvaluationBatches(images, [0, 1], acquisition, 2, device)[0] for device in ("cpu", gpu)
    )
    torch.testing.assert_close(there.mask.cpu(), here.mask, rtol=0, atol=0)
    torch.testing.assert_close(there.aliased.cpu(), here.aliased, rtol=1e-5, atol=1e-5)
    for name in available_baselines(None, real_image, n_coils is not None):
        method = baseline(name, real_image)
        on_cpu, on_gpu = method(*here.measured).abs(), method(*there.measured).abs()
        error = (on_gpu.cpu() - on_cpu).square().mean().sqrt()
        assert error < 1e-4, (name, error)  # rounding, which thresholds amplify
        for score, definition in SCORES.items():
            found, wanted = (
                definition.function(*of).cpu()
                for of in ((on_gpu, there.target), (on_cpu, here.target))
            )
            torch.testing.assert_close(found, wanted, rtol=2e-3, atol=1e-4, msg=f"{name} {score}")


@pytest.mark.parametrize("weights", [ckpt.FOR_REAL, ckpt.FOR_COMPLEX, ckpt.FOR_COILS])
def test_shipped_weights_give_the_images_of_the_cpu(gpu, weights):
    images = torch.from_numpy(phantom(1, (12, 64, 64), seed=1))
    n_coils = 3 if weights == ckpt.FOR_COILS else None
    acquisition = Acquisition(sampling(4, 8), weights != ckpt.FOR_REAL, 0.0, 0, n_coils)
    here, there = (
        EvaluationBatches(images, [0], acquisition, 1, device)[0] for device in ("cpu", gpu)
    )
    network = ckpt.load_network(weights)
    with torch.no_grad():
        here = network(*here.measured).abs()
        there = network.to(gpu)(*there.measured).abs().cpu()
    assert (here - there).square().mean().sqrt() < 2e-4


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_augmentations_are_those_of_the_cpu(gpu, kind):
    images = torch.from_numpy(phantom(1, (8, 64, 64), seed=0))
    draws, acquisition = TrainingDraws(0, 0, (kind,), None), Acquisition(sampling(4), False, 0.0, 0)
    here, there = (
        training_batch(images, [(0, 0), (1, 0)], acquisition, draws, device=device)
        for device in ("cpu", gpu)
    )
    torch.testing.assert_close(there.image.cpu(), here.image, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(there.aliased.cpu(), here.aliased, rtol=1e-4, atol=1e-4)


def test_running_out_of_memory_is_explained(gpu):
    if gpu.type != "cuda":
        pytest.skip("fills the memory of a GPU")
    with pytest.raises(InputError, match="out of memory"), explained_out_of_memory("less"):
        torch.empty(2**50, dtype=torch.uint8, device=gpu)
    with pytest.raises(InputError, match="out of memory"), explained_out_of_memory("less"):
        torch.linalg.eigh(torch.eye(2**9, device=gpu).expand(2**20, -1, -1))


def test_two_gpus_score_as_one(gpu, tmp_path, tiny_npz):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    from test_train_processes import SETTINGS, assert_same_scores, several

    settings = SETTINGS | {"device": "cuda"}
    launcher = several(2, tmp_path / "two", Path(tiny_npz), device="cuda")
    text, _ = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, text
    train(tmp_path / "one", data=str(tiny_npz), **settings)
    assert_same_scores(tmp_path / "two", tmp_path / "one")
