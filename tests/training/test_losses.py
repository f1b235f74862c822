import math

import pytest
import torch
from helpers import TINY, random_complex
from torch.autograd import gradcheck

from metrics import moving_region, ssim, ssim_2d
from train import train
from training.losses import LOSSES, loss_terms, training_loss
from util.errors import InputError
from util.settings import defaults_of, typed

SHAPE = (2, 8, 16, 12)
OF_ERRORS = ("mse", "l1", "charbonnier", "hfen", "kspace")  # that see nothing but the error


def pair(kind: str = "real", shape=SHAPE) -> tuple[torch.Tensor, torch.Tensor]:
    """A reconstruction and a truth."""
    if kind == "complex":
        return random_complex(*shape), random_complex(*shape, seed=1)
    torch.manual_seed(0)
    truth = random_complex(*shape) if kind == "magnitude" else torch.rand(shape)
    return torch.rand(shape), truth


@pytest.mark.parametrize("kind", ["real", "magnitude", "complex"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_zero_at_equality_alone_and_is_of_each_sample(loss, kind):
    found, truth = pair(kind)
    both = training_loss(found, truth, loss)
    assert both.shape == (2,)
    assert both.dtype == torch.float32
    assert (both > 0).all()
    alone = [training_loss(found[i : i + 1], truth[i : i + 1], loss) for i in range(2)]
    torch.testing.assert_close(both, torch.cat(alone))
    same = truth.abs() if kind == "magnitude" else truth
    torch.testing.assert_close(training_loss(same, truth, loss), torch.zeros(2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_those_of_the_loss(loss, kind):
    found, truth = pair(kind, (1, 7, 11, 11))
    found = found[..., :3, :2].to(torch.complex128 if found.is_complex() else torch.float64)
    truth, free = truth.to(found.dtype), found.clone().requires_grad_()

    def of_a_corner(corner: torch.Tensor) -> torch.Tensor:
        images = 0.7 * truth + 0.1
        images = torch.cat((torch.cat((corner, images[..., :3, 2:]), -1), images[..., 3:, :]), -2)
        return training_loss(images, truth, loss)

    assert gradcheck(of_a_corner, free, nondet_tol=1e-12)


@pytest.mark.parametrize("complex_images", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_finite_where_there_is_nothing(loss, complex_images):
    dtype = torch.complex64 if complex_images else torch.float32
    for found, truth in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        images = torch.full(SHAPE, found, dtype=dtype).requires_grad_()
        training_loss(images, torch.full(SHAPE, truth, dtype=dtype), loss).sum().backward()
        assert torch.isfinite(
            torch.view_as_real(images.grad) if complex_images else images.grad
        ).all()


@pytest.mark.parametrize("kind", ["real", "magnitude", "complex"])
def test_squared_and_absolute_errors(kind):
    found, truth = pair(kind)
    error = (found - (truth.abs() if kind == "magnitude" else truth)).abs()
    for loss, expected in [("mse", error.square()), ("l1", error)]:
        torch.testing.assert_close(training_loss(found, truth, loss), expected.mean(dim=(1, 2, 3)))


def test_charbonnier_is_absolute_for_large_and_quadratic_for_small_errors():
    zero = torch.zeros(1, 1, 1, 1)
    assert training_loss(zero + 0.5, zero, "charbonnier").item() == pytest.approx(0.499, abs=1e-5)
    small = training_loss(zero + 1e-5, zero, "charbonnier").item()
    assert small == pytest.approx(1e-5**2 / 2e-3, rel=1e-3)


def test_similarity_is_that_of_the_reports():
    found, truth = pair()
    torch.testing.assert_close(1 - training_loss(found, truth, "ssim"), ssim(found, truth))
    torch.testing.assert_close(1 - training_loss(found, truth, "ssim_2d"), ssim_2d(found, truth))
    found, truth = pair("complex")  # of magnitudes
    expected = ssim(found.abs(), truth.abs())
    torch.testing.assert_close(1 - training_loss(found, truth, "ssim"), expected)
    dim = training_loss(0.01 * found, 0.01 * truth, "ssim")
    torch.testing.assert_close(dim, 1 - expected, rtol=1e-3, atol=1e-3)  # a scale of its own


def test_hfen_sees_edges_and_neither_offsets_nor_slopes():
    _, truth = pair(shape=(1, 1, 40, 40))
    assert training_loss(truth + 0.3, truth, "hfen").item() < 1e-12
    slope = torch.linspace(0, 0.3, 40)
    assert training_loss(truth + slope, truth, "hfen").item() < 1e-3 * slope.square().mean()
    y = torch.arange(40.0)[:, None]
    gains = {}
    for period in (2, 7, 40):
        stripes = torch.cos(2 * math.pi * (y + 0.5) / period).expand(40, 40)
        error = training_loss(truth + stripes, truth, "mse")
        gains[period] = (training_loss(truth + stripes, truth, "hfen") / error).item()
    assert gains[7] == pytest.approx(1, abs=0.1)
    assert gains[2] < 0.1
    assert gains[40] < 0.05
    turned = training_loss(truth.mT + stripes.mT, truth.mT, "hfen")
    torch.testing.assert_close(turned, training_loss(truth + stripes, truth, "hfen"))


@pytest.mark.parametrize("angle", [0.0, 0.3, -0.3, 1.5, 2.5, math.pi])
def test_perpendicular_of_a_pure_phase_error(angle):
    truth = random_complex(*SHAPE).sgn() * 0.8
    turned = truth * torch.exp(torch.tensor(1j * angle))
    sine = abs(math.sin(angle))
    expected = 0.8 * (sine if abs(angle) < math.pi / 2 else 2 - sine)
    found = training_loss(turned, truth, "perpendicular")
    torch.testing.assert_close(found, torch.full((2,), expected), rtol=1e-3, atol=1e-5)


def test_perpendicular_weighs_too_dark_and_too_bright_alike():
    """As the squared error of a complex image does not: with an error of the phase it is least
    where the magnitude is too low, the paper's point."""
    truth = random_complex(*SHAPE).sgn()
    for loss, alike in [("perpendicular", True), ("mse", False)]:
        dark, bright = (
            training_loss(scale * truth * torch.exp(torch.tensor(0.8j)), truth, loss)
            for scale in (0.7, 1.3)
        )
        assert torch.allclose(dark, bright, atol=1e-4) is alike


def test_kspace_is_the_squared_error_along_the_lines(monkeypatch):
    found, truth = pair("complex")
    torch.manual_seed(0)
    spikes = torch.zeros(1, 8, 16, 12)
    spikes[0, 3, 5, 7] = 1.0  # all frequencies alike
    zero = torch.zeros_like(spikes)
    torch.testing.assert_close(
        training_loss(spikes, zero, "kspace"), training_loss(spikes, zero, "mse")
    )
    y = torch.arange(16.0)[:, None]
    weights = 1 + torch.fft.fftfreq(16, 1 / 16).abs()
    for ky in (0, 3, 8):
        wave = torch.exp(2j * math.pi * ky * y / 16).expand(1, 8, 16, 12)
        expected = weights[ky] / weights.mean()
        torch.testing.assert_close(training_loss(wave, zero * 1j, "kspace"), expected[None])
    monkeypatch.setattr(torch.fft, "fftfreq", lambda n, d, device: torch.zeros(n))  # flat: Parseval
    torch.testing.assert_close(
        training_loss(found, truth, "kspace"), training_loss(found, truth, "mse")
    )


@pytest.mark.parametrize("loss", OF_ERRORS)
def test_signs_mirrors_and_order_do_not_matter(loss):
    found, truth = pair("complex")
    expected = training_loss(found, truth, loss)
    for one, other in [(truth, found), (-found, -truth), (found.flip(-1), truth.flip(-1))]:
        torch.testing.assert_close(training_loss(one, other, loss), expected)
    torch.testing.assert_close(training_loss(found + 1, truth + 1, loss), expected)


@pytest.mark.parametrize("loss", [*OF_ERRORS, "perpendicular"])
def test_columns_of_strips_add_up_but_for_borders(loss):
    found, truth = pair("complex", (1, 8, 16, 64))
    whole = training_loss(found, truth, loss)
    parts = [
        training_loss(found[..., i : i + 16], truth[..., i : i + 16], loss) for i in (0, 16, 32, 48)
    ]
    near = 0.15 if loss == "hfen" else 1e-5
    torch.testing.assert_close(torch.stack(parts).mean(dim=0), whole, rtol=near, atol=0)


def test_moving_weighs_what_moves():
    truth = torch.full((1, 8, 20, 20), 0.5)
    truth[..., 4, 6:] += 0.2 * torch.cos(torch.arange(8.0))[:, None]
    region = moving_region(truth)[:, None]
    error = 0.1 * torch.ones_like(truth)
    inside, outside = (
        training_loss(truth + error * where, truth, "moving") for where in (region, ~region)
    )
    torch.testing.assert_close(inside, torch.tensor([0.01]))  # the weights have a mean of 1
    assert outside.item() < 1e-9
    dim = training_loss(0.02 * truth + error, 0.02 * truth, "moving")
    torch.testing.assert_close(dim, torch.tensor([0.01]))
    still = truth[:, :1].expand_as(truth)
    torch.testing.assert_close(
        training_loss(still + error, still, "moving"), training_loss(still + error, still, "mse")
    )


def test_a_sum_has_weights():
    found, truth = pair()
    mse, l1, hfen = (training_loss(found, truth, name) for name in ("mse", "l1", "hfen"))
    total = training_loss(found, truth, ("mse", 2.0, "l1", "hfen", 0.5))
    torch.testing.assert_close(total, 2 * mse + l1 + 0.5 * hfen)
    assert torch.equal(training_loss(found, truth, ("mse",)), mse)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ((), "--loss is '', expected names"),
        ((1.0, "mse"), "--loss is '1 mse', expected names, such as mse 1 ssim 0.01"),
        (("mse", 1.0, 2.0), "--loss has 1.0 and 2.0 without a name between them"),
        (("mse", "ssim", "mse"), "--loss has mse twice"),
        (("mse", 0.0), "--loss gives mse a weight of 0.0, expected more than 0"),
        (("mse", -1), "--loss gives mse a weight of -1"),
    ],
)
def test_what_has_no_sum_is_refused(loss, message):
    with pytest.raises(InputError) as error:
        loss_terms(loss)
    assert message in str(error.value)


@pytest.mark.parametrize("loss", ["ssim", ("mse", 1.0, "ssim", 0.1)])
def test_a_loss_is_a_name_or_a_tuple(loss):
    assert typed(train, {"loss": loss}) == {"loss": loss}
    assert "loss" in defaults_of(train)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "sim"}, "expected one of mse, l1, charbonnier"),
        ({"loss": ("mse", 1.0, "hfem", 1.0)}, "--loss is 'hfem', expected one of"),
        ({"loss": "hfem"}, "; did you mean hfen?"),
        ({"loss": "perpendicular"}, "unet_resnet gives magnitudes: add --data-consistency"),
        ({"loss": "perpendicular", "real_image": True}, "or give --no-real-image"),
        ({"loss": "perpendicular", "data_consistency": True}, "or give --no-real-image"),
        ({"loss": "ssim", "strip": 6}, "and 6: choose another loss, or a wider --strip"),
    ],
)
def test_losses_that_cannot_be_are_refused(tmp_path, tiny_npz, settings, message):
    with pytest.raises(InputError) as error:
        train(tmp_path / "run", data=tiny_npz, **TINY | settings)
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_settings_tell_before_data_are_read(tmp_path):
    with pytest.raises(InputError, match="--loss perpendicular is for complex images"):
        train(tmp_path / "run", data="missing.npz", loss=("mse", 1.0, "perpendicular", 1.0))


def test_a_sum_of_losses_goes_through_a_run(tmp_path, tiny_npz, run_command):
    """Of complex images, on strips, with a loss of each stage; and its settings are kept."""
    folder = tmp_path / "run"
    settings = TINY | {"model": "cascade", "start": "kt_sparse", "stages": 2, "features": 4}
    settings |= {"num_epochs": 1, "strip": 16, "phase": True, "stage_loss": 0.1}
    settings |= {"data": str(tiny_npz), "baselines": ("zero_filled",)}
    words = ["--loss", *" ".join(f"{name} 0.5" for name in LOSSES).split()]
    done = run_command(folder, words, **settings)
    assert done.returncode == 0, done.stderr
    text = (folder / "output.txt").read_text()
    assert "mse 0.5 l1 0.5 charbonnier 0.5" in text
    assert "ssim 0.5" in (folder / "settings.txt").read_text().replace("0.50", "0.5")
    assert train(folder, resume=True)["cascade"]["psnr"] > 0
