import copy
from functools import partial

import pytest
import torch
from helpers import STAGES, UNET, randomised

from model import build_model, run_stages
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
