from types import SimpleNamespace

import pytest
import torch

from optimisation import learning_rate, training_loss, update_average


@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_training_loss_is_what_it_is_called(loss):
    truth, found = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    power = 2 if loss == "mse" else 1

    def batch(image):
        return SimpleNamespace(image=image, target=image.abs())

    expected = (found - truth).abs().pow(power).mean(dim=(1, 2, 3))
    torch.testing.assert_close(training_loss(found, batch(truth), loss), expected)
    turned = truth * torch.exp(torch.tensor(1j))
    expected = (found - turned).abs().pow(power).mean(dim=(1, 2, 3))
    complex_found = torch.complex(found, torch.zeros_like(found))
    torch.testing.assert_close(training_loss(complex_found, batch(turned), loss), expected)
    expected = (found - truth).abs().pow(power).mean(dim=(1, 2, 3))  # a magnitude
    torch.testing.assert_close(training_loss(found, batch(turned), loss), expected)


def test_average_follows_the_network():
    average, network = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(network.weight, 3.0)
    network.running_mean.fill_(7)
    update_average(average, network, 0.75, step=1000)
    assert average.weight.tolist() == [1.5, 1.5]
    assert average.running_mean.tolist() == [7, 7]
    update_average(average, network, 0.75, step=0)  # in the beginning faster
    assert average.weight.tolist() == pytest.approx([2.85, 2.85])


def test_learning_rate_warms_up_and_falls_to_zero():
    s = SimpleNamespace(initial_lr=1.0, lr_schedule="cosine", warmup_epochs=10, num_epochs=400)
    assert learning_rate(0, s) == 0
    assert learning_rate(5, s) == pytest.approx(0.5)
    assert learning_rate(10, s) == pytest.approx(1)
    assert learning_rate(205, s) == pytest.approx(0.5)
    assert learning_rate(400, s) == pytest.approx(0)
    s.num_epochs = 30  # warm-up over a tenth
    assert learning_rate(1.5, s) == pytest.approx(0.5)
    assert learning_rate(3, s) == pytest.approx(1)
    s.lr_schedule = "constant"
    assert learning_rate(0, s) == learning_rate(30, s) == 1
    s.lr_schedule, s.num_epochs = "cosine", 5  # too short for a warm-up
    assert learning_rate(0, s) == 1
