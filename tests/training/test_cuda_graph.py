import copy
from functools import partial

import pytest
import torch
from helpers import STAGES, UNET, randomised

from model import MODELS, architecture_settings, build_model, run_stages
from training.cuda_graph import captured

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("model", ["cascade", "unet"])
def test_a_captured_step_has_the_gradients_of_a_plain_one(model, given):
    unet = UNET | {"init_features": 4, "start": "kt_sparse", "real_image": True}
    architecture = {"cascade": STAGES | {"features": 8}, "unet": unet}[model]
    device = torch.device("cuda")
    network = randomised(build_model(model, **architecture)).to(device)
    plain = copy.deepcopy(network).train()
    shape = (2, 8, 32, 32)
    zeros = torch.zeros(shape) if given else None
    forward = captured(network, shape, "float32", every_stage=True, device=device, start=zeros)
    for (name, before), after in zip(plain.named_buffers(), network.buffers(), strict=True):
        assert torch.equal(before, after), name
    mask = (torch.rand(2, 8, 32, 1, device=device) < 0.4).float()
    for n in (2, 2, 1):  # the last one is of another shape
        aliased = torch.randn(n, *shape[1:], dtype=torch.complex64, device=device)
        start = torch.randn(n, *shape[1:], device=device) if given else None
        gradients = []
        for one, run in (
            (network, forward),
            (plain, partial(run_stages, plain, precision="float32")),
        ):
            one.zero_grad()
            stages = run(aliased, mask[:n], start=start)
            sum(x.abs().square().mean() for x in stages).backward()
            gradients.append([p.grad.clone() for p in one.parameters()])
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs)


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
    forward = captured(network, shape, "float32", False, torch.device("cpu"), keeps_gradients=True)
    mask = (torch.rand(1, 8, 32, 1) < 0.4).float()
    parts = [torch.randn(shape, dtype=torch.complex64) for _ in range(3)]
    for run in (forward, partial(run_stages, plain, precision="float32")):
        for aliased in parts:
            run(aliased, mask)[-1].abs().square().mean().backward()
    for (name, ours), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
