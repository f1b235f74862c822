import pytest
import torch
from helpers import sampling

from CS_mask import evaluation_masks
from methods.averaging import AVERAGES, averaged
from methods.baselines import baseline
from methods.cascade import Cascade
from phantom.scanner import phantom
from physics.fourier import undersample

SIZES = [(6, 32, 24), (5, 33, 20)]


def measured(shape):
    images = torch.from_numpy(phantom(2, (shape[0], 64, 64), seed=3))[..., : shape[1], : shape[2]]
    mask = torch.from_numpy(evaluation_masks([0, 1], shape[:2], sampling(3), data_seed=0))
    return images, undersample(images, mask), mask


def network(real_image):
    torch.manual_seed(0)
    cascade = Cascade(
        1, 8, real_image, dc_weight=None, learn_dc_weight=False, start="kt_sparse"
    ).eval()
    torch.nn.init.normal_(cascade.stages[0].project.weight, std=0.1)
    return torch.no_grad()(cascade)


@pytest.mark.parametrize("n", AVERAGES)
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("real_image", [True, False])
def test_the_mean_keeps_the_measured_lines(n, shape, real_image):
    _, aliased, mask = measured(shape)
    images = averaged(network(real_image), n)(aliased, mask)
    assert images.is_complex() == (not real_image)
    torch.testing.assert_close(undersample(images, mask), aliased, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", AVERAGES)
@pytest.mark.parametrize("name", ["zero_filled", "hermitian", "time_average", "view_sharing"])
@pytest.mark.parametrize("shape", SIZES)
def test_methods_that_treat_flips_alike_are_unchanged(n, name, shape):
    """Which shows that a mirrored mask belongs to a mirrored series."""
    _, aliased, mask = measured(shape)
    method = baseline(name, real_image=True)
    torch.testing.assert_close(
        averaged(method, n)(aliased, mask).abs(), method(aliased, mask).abs(), atol=1e-5, rtol=0
    )


def test_each_variant_counts_once():
    _, aliased, mask = measured(SIZES[0])
    seen = []

    def method(images, lines):
        seen.append((images, lines))
        return images.real

    for n in AVERAGES:
        seen.clear()
        averaged(method, n)(aliased, mask)
        assert len(seen) == n
        different = {images.numpy().tobytes() for images, _ in seen}
        assert len(different) == n
        for images, lines in seen:
            torch.testing.assert_close(undersample(images, lines), images, atol=1e-5, rtol=0)


def test_one_variant_is_the_method_itself():
    _, aliased, mask = measured(SIZES[0])
    assert torch.equal(averaged(network(True), 1)(aliased, mask), network(True)(aliased, mask))
    changed = averaged(network(True), 8)(aliased, mask)
    assert not torch.allclose(changed, network(True)(aliased, mask), atol=1e-4)
