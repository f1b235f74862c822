import copy
from functools import partial

import pytest
import torch
from helpers import STAGES, UNET, randomised

from model import MODELS, architecture_settings, build_model, run_stages
from training.cuda_graph import captured


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
