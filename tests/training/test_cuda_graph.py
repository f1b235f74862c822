import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers import CASCADE, STAGES, UNET, randomised, sampling

from model import MODELS, architecture_settings, build_model, run_stages
from phantom.scanner import phantom
from scan.adaptation import adapt
from scan.measurement import from_images
from train import train
from training.cuda_graph import captured, gradients_agree
from training.run import Run
from training.settings import with_own_values
from util.settings import defaults_of
from util.stop import NEVER


def graphed_as_cuda_does(module, inputs):
    """What `torch.cuda.make_graphed_callables` gives: outputs and gradients are written to the same
    memory in every call."""
    parameters, run = list(module.parameters()), module.forward
    outputs, gradients = [], [torch.zeros_like(p) for p in parameters]

    class Replayed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *given):
            with torch.enable_grad():
                ctx.made = run(*given[: len(inputs)])
            outputs[:] = outputs or [torch.empty_like(image) for image in ctx.made]
            for kept, image in zip(outputs, ctx.made, strict=True):
                kept.copy_(image.detach())
            return tuple(image.detach() for image in outputs)

        @staticmethod
        def backward(ctx, *of_outputs):
            computed = torch.autograd.grad(ctx.made, parameters, of_outputs, allow_unused=True)
            for kept, gradient in zip(gradients, computed, strict=True):
                kept.copy_(torch.zeros_like(kept) if gradient is None else gradient)
            return (*[None] * len(inputs), *(gradient.detach() for gradient in gradients))

    return lambda *given: Replayed.apply(*given, *parameters)


@pytest.mark.parametrize("model", MODELS)
def test_gradients_of_several_replayed_passes_add_up(monkeypatch, model):
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", graphed_as_cuda_does)
    given = UNET | STAGES | {"init_features": 2, "features": 4, "real_image": True}
    given |= {"start": "kt_sparse"}
    architecture = {name: given[name] for name in architecture_settings(model)}
    network = randomised(build_model(model, **architecture)).train()
    plain = copy.deepcopy(network)
    shape = (1, 8, 32, 32)
    forward = captured(network, shape, "float32", torch.device("cpu"), keeps_gradients=True)
    mask = (torch.rand(1, 8, 32, 1) < 0.4).float()
    parts = [torch.randn(shape, dtype=torch.complex64) for _ in range(3)]
    for run in (forward, partial(run_stages, plain, precision="float32")):
        for aliased in parts:
            run(aliased, mask)[-1].abs().square().mean().backward()
    for (name, ours), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


def without_gradients(module, inputs):
    """A recording that is wrong: it leaves the gradients as they are, zero."""
    return lambda *given: tuple(image.detach() * zero(module) for image in module(*given))


def zero(module):
    """1, with a gradient of 0 for every parameter."""
    return 1 + sum((0 * parameter).sum() for parameter in module.parameters())


def failing(module, inputs):
    raise RuntimeError("CUDA error: operation not permitted\nCompile with ...")


@pytest.mark.parametrize("model", ["cascade", "unet_resnet"])
def test_a_recording_is_compared_with_a_plain_step(monkeypatch, model):
    given = UNET | STAGES | {"init_features": 2, "features": 4, "start": "kt_sparse"}
    architecture = {name: given[name] for name in architecture_settings(model)}
    network, shape = randomised(build_model(model, **architecture)), (1, 8, 32, 32)
    before = copy.deepcopy(network.state_dict())
    for recording, right in ((graphed_as_cuda_does, True), (without_gradients, False)):
        monkeypatch.setattr(torch.cuda, "make_graphed_callables", recording)
        for start in (None, torch.zeros(shape)):
            forward = captured(network, shape, "float32", torch.device("cpu"), start)
            where = torch.device("cpu")
            assert gradients_agree(forward, network, shape, "float32", where, start) is right
    assert all(parameter.grad is None for parameter in network.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("recording", "reason"),
    [
        (graphed_as_cuda_does, None),
        (without_gradients, "its gradients are not those of plain steps"),
        (failing, "CUDA error: operation not permitted"),
    ],
)
def test_a_recording_that_is_wrong_or_fails_is_not_used(
    tmp_path, tiny_npz, monkeypatch, capsys, recording, reason
):
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recording)
    monkeypatch.setattr(Run, "records_steps", True)
    settings = CASCADE | {"data": tiny_npz, "num_epochs": 1, "batch_size": 1}
    recorded = train(tmp_path / "recorded", **settings)
    notice = "NOTICE: training steps are not recorded as a CUDA graph: "
    assert (notice + str(reason) in capsys.readouterr().out) is (reason is not None)
    monkeypatch.setattr(Run, "records_steps", False)
    assert recorded == train(tmp_path / "plain", **settings)


@pytest.mark.parametrize("real_image", [True, False])
def test_recorded_steps_of_an_adaptation_give_the_weights_of_plain_ones(monkeypatch, real_image):
    """A series of another size is computed as usual."""
    monkeypatch.setattr("scan.adaptation.PATIENCE", 0)
    monkeypatch.setattr("scan.adaptation.CHECK_EVERY", 4)
    recordings = []

    def recording(module, inputs):
        recordings.append(module)
        return graphed_as_cuda_does(module, inputs)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recording)
    images = phantom(2, (6, 32, 40), seed=8)
    series = [images[0], images[1][:, :24, :30]]
    scan = [from_images(one, sampling(4, 4), 0, i, None) for i, one in enumerate(series)]
    given = STAGES | {"features": 4, "real_image": real_image, "start": "kt_sparse"}
    architecture = {name: given[name] for name in architecture_settings("cascade")}
    network = randomised(build_model("cascade", **architecture))
    found = []
    for device in ("cuda", "cpu"):
        monkeypatch.setattr("scan.adaptation.RECORDING", (device,))
        found.append(adapt(network, scan, real_image, 10, "float32", 0, NEVER))
    assert len(recordings) == 1
    plain, recorded = found
    assert recorded.steps == plain.steps > 0
    assert recorded.after == pytest.approx(plain.after, rel=1e-4)
    pairs = zip(recorded.network.parameters(), plain.network.parameters(), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "recorded"),
    [
        ({}, True),
        ({"cuda_graph": False}, False),
        ({"gradient_checkpointing": True}, False),
        ({"compile": True}, False),
        ({"coils": 3}, False),
        ({"start": "patch", "mask_pool": 0}, False),
        ({"start": "patch", "mask_pool": 2}, True),
        ({"model": "unet_resnet"}, False),
        ({"model": "unet_resnet", "cuda_graph": True}, True),
    ],
)
def test_small_networks_are_recorded_on_one_gpu(changes, recorded):
    cine = SimpleNamespace(n_coils=None)
    for device, expected in (("cuda", recorded), ("cpu", False), ("mps", False)):
        given = {"model": "cascade", "mask_pool": 0, "start": "kt_sparse"} | changes
        settings = SimpleNamespace(**with_own_values(defaults_of(train) | given))
        run = Run(None, settings, torch.device(device), cine, {})  # type: ignore[arg-type]
        assert run.records_steps is expected
