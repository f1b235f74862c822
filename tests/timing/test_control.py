import torch

from timing.control import Control


def test_it_has_the_size_of_the_reference():
    """Two U-Nets of about 31 million parameters, from 64 to 1024 channels."""
    with torch.device("meta"):
        network = Control(frames=20, init_features=64)
    counts = [
        sum(p.numel() for p in unet.parameters()) for unet in (network.real, network.imaginary)
    ]
    assert counts[0] == counts[1]
    assert 30.9e6 < counts[0] < 31.1e6
    assert network.real.encoder[-1][0].weight.shape == (1024, 512, 3, 3)


def test_it_maps_series_to_real_series_and_all_parameters_learn():
    network = Control(frames=3, init_features=2)
    aliased = torch.randn(2, 3, 32, 48, dtype=torch.complex64)
    images = network(aliased, torch.ones(2, 3, 32, 1))
    assert images.shape == aliased.shape
    assert images.dtype == torch.float32
    images.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(parameter.is_contiguous() for parameter in network.parameters())
