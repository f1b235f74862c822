"""Scans of several coils, from simulated raw data to images."""

import numpy as np
import pytest
import torch
from helpers import blurred, load, sampling
from scans import save_ismrmrd, save_mat73

from data.coils import require_coils, whitened
from formats.convert import convert
from formats.reading import read_scan
from metrics import psnr
from phantom.coils import coil_scan
from phantom.scanner import phantom
from physics.coils import noise_covariance
from reconstruct import reconstruct, reconstruct_scan
from scan.measurement import drawn_lines, from_coils
from util.errors import InputError

IMAGES = blurred(phantom(1, (8, 64, 72), seed=6)[0])
KSPACE, NOISE = (array.numpy() for array in coil_scan(IMAGES, 4, 1e-4))
QUICK = {"acc": 4, "sample_n": 4, "picture_dpi": 30, "device": "cpu", "precision": "float32"}
LINES = drawn_lines((8, 64, 72), sampling(4, 8), 0, 0, None)
UNDERSAMPLED = KSPACE * LINES[0, :, None].numpy()


def test_fully_sampled_coils_are_a_trial_with_known_truth(tmp_path):
    np.savez(tmp_path / "scan.npz", kspace=1e-4 * KSPACE)
    rows = reconstruct_scan(tmp_path / "scan.npz", tmp_path / "out", axes="t c y x", **QUICK)
    scores = {row["method"]: row["psnr"] for row in rows}
    assert scores["cascade_calibrated"] > scores["view_sharing"] > scores["zero_filled"]
    text = (tmp_path / "out" / "output.txt").read_text()
    assert "not whitened: the corners of k-space hold signal, too" in text
    assert "sensitivity maps are estimated" in text
    with np.load(tmp_path / "out" / "sample_1" / "reconstruction.npz") as arrays:
        truth = np.abs(arrays["target"])
        assert arrays["reconstruction"].shape == (8, 64, 72)
    scale = (truth * IMAGES.numpy()).sum() / np.square(IMAGES.numpy()).sum()
    assert np.abs(truth / scale - IMAGES.numpy()).mean() < 0.02


def test_undersampled_coils_are_reconstructed(tmp_path):
    images = reconstruct(UNDERSAMPLED, LINES[0, ..., 0].numpy(), noise=NOISE, device="cpu")
    assert images.shape == (8, 64, 72)
    assert images.dtype == np.complex64
    found = torch.from_numpy(np.abs(images))
    assert psnr(found[None], IMAGES[None]).item() > 28
    np.savez(tmp_path / "scan.npz", kspace=UNDERSAMPLED)
    given = QUICK | {"precision": None}
    assert reconstruct_scan(tmp_path / "scan.npz", tmp_path / "out", axes="t c y x", **given) == []
    with np.load(tmp_path / "out" / "sample_1" / "reconstruction.npz") as arrays:
        # whitened by the corners instead of the noise scan
        assert np.abs(np.abs(arrays["reconstruction"]) - np.abs(images)).mean() < 0.02


def test_maps_of_the_file_are_used():
    estimated = from_coils(UNDERSAMPLED, None)
    again = from_coils(UNDERSAMPLED, None, noise=NOISE)
    assert "a scan of noise" in again.notes[0]
    maps = torch.linalg.solve(
        torch.from_numpy(whitened(UNDERSAMPLED, None, "")[0]), estimated.maps[0].flatten(1)
    )
    given = from_coils(UNDERSAMPLED, None, 3 * maps.view(4, 64, 72).numpy())
    torch.testing.assert_close(given.maps, estimated.maps, atol=1e-4, rtol=0)
    assert given.notes[1] == "sensitivity maps are those of the file, scaled to a norm of 1"


def test_a_scan_can_be_adapted_to():
    plain = reconstruct(UNDERSAMPLED, device="cpu", precision="float32")
    adapted = reconstruct(UNDERSAMPLED, device="cpu", precision="float32", adapt=0.02)
    assert np.isfinite(adapted).all()
    assert adapted.shape == plain.shape


def test_a_noise_scan_whitens_and_so_do_corners_without_signal():
    kspace, scan = (array.numpy() for array in coil_scan(IMAGES, 4, 0.1))
    covariance = noise_covariance(torch.from_numpy(scan))
    for noise, limit in ((scan, 0.05), (None, 0.25)):
        matrix, note = whitened(kspace, noise, "k-space")
        white = torch.from_numpy(matrix)
        left = white @ covariance @ white.mH
        left = left / left.diagonal().real.mean()
        assert (left - torch.eye(4)).abs().max() < limit, note
        origin = "the corners of k-space" if noise is None else "a scan of noise"
        assert note == f"the noise of 4 coils is whitened by {origin}"
    few, note = whitened(KSPACE, NOISE[:, :8], "k-space")
    assert (few == np.eye(4)).all()
    assert "too few" in note
    assert "hold signal" in whitened(KSPACE, None, "k-space")[1]


def changed(place, value):
    array = KSPACE.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("kspace", "message"),
    [
        (changed((2, 1, 3, 4), np.nan), r"1 values are NaN or infinite, the first at frame, coil"),
        (changed((slice(None), 2), 0), "coil 2 of 4 is zero everywhere"),
        (changed((1, 3, 5), 0), "coil 3 has no line 5 in frame 1"),
        (KSPACE.swapaxes(0, 1), "second axis looks like frames"),
        (np.fft.ifftshift(KSPACE, axes=2), "highest energy is in line 0 of 64; expected centred"),
    ],
)
def test_kspace_that_cannot_be_is_refused(kspace, message):
    with pytest.raises(InputError, match=message):
        require_coils(kspace, "k-space")


def test_maps_noise_and_lines_that_do_not_fit_are_refused():
    for maps in (np.ones((3, 64, 72)), np.zeros((4, 64, 72)), np.full((4, 64, 72), "a")):
        with pytest.raises(InputError, match=r"maps are .*expected finite numbers \(4, 64, 72\)"):
            from_coils(UNDERSAMPLED, None, maps)
    with pytest.raises(InputError, match=r"noise is \(5, 9\) complex64 for 4 coils"):
        from_coils(UNDERSAMPLED, None, None, np.ones((5, 9), np.complex64))
    same = KSPACE * (np.arange(64) % 4 == 0)[:, None]  # no line that other frames add to
    with pytest.raises(InputError, match="of the 5 lines around the centre of k-space were"):
        from_coils(same, None)
    mask = LINES[0, ..., 0].numpy().copy()
    mask[0, np.flatnonzero(mask[0] == 0)[0]] = 1
    with pytest.raises(InputError, match="the mask has 1 lines that are zero"):
        reconstruct(UNDERSAMPLED, mask, device="cpu")


def test_a_scan_with_a_bad_coil_or_maps_of_another_frame_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", kspace=changed((2, 1, 3, 4), np.nan))
    with pytest.raises(InputError, match="1 values are NaN or infinite, the first at frame, coil"):
        list(read_scan(tmp_path / "a.npz", "t c y x", None))
    rolled = np.fft.ifftshift(KSPACE, axes=(2, 3))
    np.savez(tmp_path / "b.npz", kspace=rolled, maps=np.ones((4, 64, 72), np.complex64))
    with pytest.raises(InputError, match="sensitivity maps may not be where the image is"):
        list(read_scan(tmp_path / "b.npz", "t c y x", None))
    with pytest.raises(InputError, match="maps and noise are for k-space of coils"):
        reconstruct(KSPACE[:, 0], noise=NOISE, device="cpu")


def test_cmrxrecon_and_ismrmrd_files_of_coils(tmp_path):
    save_mat73(tmp_path / "cine.mat", kspace=UNDERSAMPLED[:, None].T)  # x y c s t
    (series,) = read_scan(tmp_path / "cine.mat", None, None)
    np.testing.assert_allclose(series.values, UNDERSAMPLED, atol=1e-7)

    save_ismrmrd(tmp_path / "cine.h5", UNDERSAMPLED[None], noise=NOISE)
    (series,) = read_scan(tmp_path / "cine.h5", None, None)
    np.testing.assert_allclose(series.values, UNDERSAMPLED, atol=1e-7)
    np.testing.assert_allclose(series.noise, NOISE)
    rows = reconstruct_scan(tmp_path / "cine.h5", tmp_path / "out", **QUICK)
    assert rows == []
    assert "whitened by a scan of noise" in (tmp_path / "out" / "output.txt").read_text()


def test_scans_of_coils_become_a_training_file_of_kspace(tmp_path):
    for name, kspace in (("a", KSPACE), ("b", KSPACE[:7]), ("c", UNDERSAMPLED)):
        save_ismrmrd(tmp_path / f"{name}.h5", kspace[None], noise=NOISE)
    rows, _ = convert((str(tmp_path),), str(tmp_path / "coils.npz"), keep_coils=True)
    results = [row.result for row in rows]
    assert results[0] == "read, 8 x 4 x 64 x 72, as measured"
    assert results[1] == "skipped: its shape is not 8 x 4 x 64 x 72, as of the first"
    assert results[2] == "skipped: undersampled, and the first is fully sampled"
    cine = load(tmp_path / "coils.npz")
    assert cine.images.shape == (1, 8, 4, 64, 72)
    assert cine.notices == ["the noise of 4 coils is whitened by a scan of noise"]
    (series,) = read_scan(tmp_path / "coils.npz", None, None)
    np.testing.assert_allclose(series.values, KSPACE, atol=1e-6)
    np.testing.assert_allclose(series.noise, NOISE)
    with pytest.raises(InputError, match="--size, --n-frames and --keep-phase are for images"):
        convert((str(tmp_path),), str(tmp_path / "e.npz"), keep_coils=True, n_frames=9)
    assert len(cine.groups) == 1
    rows, _ = convert(
        (str(tmp_path / "a.h5"),), str(tmp_path / "cine.npz"), n_frames=8, size=(64, 72)
    )
    assert rows[0].was_read  # combined
    with pytest.raises(InputError, match="images, which are no k-space"):
        convert((str(tmp_path / "cine.npz"),), str(tmp_path / "d.npz"), keep_coils=True)


def test_a_scan_of_one_coil_becomes_a_training_file_too(tmp_path):
    save_ismrmrd(tmp_path / "a.h5", UNDERSAMPLED[None, :, :1])
    (row,), _ = convert((str(tmp_path / "a.h5"),), str(tmp_path / "one.npz"), keep_coils=True)
    assert row.result == "read, 8 x 64 x 72, as measured"
    cine = load(tmp_path / "one.npz")
    assert cine.images.shape == (1, 8, 1, 64, 72)
    assert cine.is_undersampled
