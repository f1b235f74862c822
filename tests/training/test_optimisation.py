import pytest
import torch
from helpers import STAGES

from model import build_model
from training.optimisation import learning_rate, make_optimizer, update_average


def test_average_follows_the_network():
    average, network = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(network.weight, 3.0)
    network.running_mean.fill_(7)
    network.num_batches_tracked.fill_(9)
    update_average(average, network, 0.75, step=1000)
    assert average.weight.tolist() == [1.5, 1.5]
    assert average.running_mean.tolist() == [1.75, 1.75]  # batch norm's, as the weights
    assert average.num_batches_tracked == 9
    update_average(average, network, 0.75, step=0)  # in the beginning faster
    assert average.weight.tolist() == pytest.approx([2.85, 2.85])


def test_learning_rate_warms_up_and_falls_to_zero():
    def rate(position, schedule="cosine", num_epochs=400):
        return learning_rate(position, 1.0, schedule, 10, num_epochs)

    assert rate(0) == 0
    assert rate(5) == pytest.approx(0.5)
    assert rate(10) == pytest.approx(1)
    assert rate(205) == pytest.approx(0.5)
    assert rate(400) == pytest.approx(0)
    assert rate(1.5, num_epochs=30) == pytest.approx(0.5)  # warm-up over a tenth
    assert rate(3, num_epochs=30) == pytest.approx(1)
    assert rate(0, "constant", 30) == rate(30, "constant", 30) == 1
    assert rate(0, num_epochs=5) == 1  # too short for a warm-up


def test_the_weight_of_the_data_consistency_has_no_penalty():
    settings = {"dc_weight": 10.0, "learn_dc_weight": True}
    network = build_model("cascade", **STAGES | settings)
    optimizer = make_optimizer(network, peak=1e-3, weight_decay=0.1)
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert decay.pop(id(network.log_weight)) == 0
    assert set(decay.values()) == {0.1}
    assert len(decay) + 1 == len(list(network.parameters()))
