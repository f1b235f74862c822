import re
import signal
import time

import nibabel
import numpy as np
import pytest
import scipy.io
import torch
from forked import Command
from helpers import make_images, sampling
from PIL import Image
from scans import write_dicom_folder

from formats.reading import read_scan
from formats.series import Series
from phantom.scanner import phantom
from physics.fourier import fftc
from reconstruct import measured, reconstruct, reconstruct_scan
from report.figures import BARS
from scan.measurement import from_images
from util.errors import EXIT_INTERRUPTED, InputError
from util.files import read_csv

IMAGES = phantom(2, (8, 64, 72), seed=5)  # two series
QUICK = {"acc": 4, "sample_n": 4, "picture_dpi": 30, "device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """Two fully sampled series in units of their own, reconstructed."""
    folder = tmp_path_factory.mktemp("scan")
    np.savez(folder / "mine.npz", dataset=1000 * IMAGES)
    rows = reconstruct_scan(folder / "mine.npz", folder / "out", **QUICK)
    return folder / "out", rows


def arrays_of(folder) -> dict[str, np.ndarray]:
    """The arrays of the first series."""
    with np.load(min(folder.glob("*/reconstruction.npz"))) as arrays:
        return dict(arrays)


def test_a_trial_is_scored_beside_training_free_methods(trial):
    folder, rows = trial
    methods = ["zero_filled", "view_sharing", "patch_low_rank", "cascade_calibrated"]
    assert [row["method"] for row in rows] == 2 * methods
    by_method = {name: [r["psnr"] for r in rows if r["method"] == name] for name in methods}
    assert min(by_method["cascade_calibrated"]) > max(by_method["view_sharing"])
    written = read_csv(folder / "metrics.csv")
    assert [float(row["psnr"]) for row in written] == pytest.approx([r["psnr"] for r in rows])
    assert len({row["series"] for row in written}) == 2
    text = (folder / "output.txt").read_text()
    assert text.startswith("Verdict\n  acceleration 4, mean PSNR of 2 series in dB: ")
    assert "Minus the best training-free method of each score" in text
    assert "undersampled retrospectively" in text
    assert "trained on the phantom alone" in text
    assert "8 frames, the weights were trained with 20" in text
    assert max(map(len, text.splitlines())) <= 100
    page = (folder / "report.html").read_text()
    assert "Reconstruction of mine.npz" in page
    assert "2 fully sampled series, undersampled retrospectively, at acceleration 4.0." in page
    assert "calibrated cascade minus patch low rank: " in page
    assert '"name": "ground truth"' in page


def test_a_figure_for_a_paper_has_the_scale_of_the_file(tmp_path):
    values = IMAGES[:1].transpose(3, 2, 0, 1)  # (x, y, slice, t)
    image = nibabel.Nifti1Image(values, np.diag([1.5, 1.5, 8.0, 1.0]))
    nibabel.save(image, tmp_path / "cine.nii")
    settings = QUICK | {"picture_format": "svg", "picture_width": 3.5}
    reconstruct_scan(tmp_path / "cine.nii", tmp_path / "out", **settings)
    (figure,) = (tmp_path / "out").glob("*/heart.*")
    words = set(re.findall(r">([^<>]*)</text>", figure.read_text()))
    assert figure.suffix == ".svg"
    assert words & {f"{mm} mm" for mm in BARS}
    assert {"ground truth", "zero-filled", "calibrated"} <= words


def test_images_have_the_units_of_the_input(trial):
    folder, _ = trial
    for name, truth in zip(sorted(p for p in folder.iterdir() if p.is_dir()), IMAGES, strict=True):
        with np.load(name / "reconstruction.npz") as arrays:
            methods = {"reconstruction", "zero_filled", "patch_low_rank"}
            assert set(arrays) == methods | {"mask", "target"}
            assert arrays["target"] == pytest.approx(1000 * truth, rel=1e-4, abs=1e-2)
            assert arrays["mask"].sum() == 8 * 16
            error = arrays["reconstruction"] - 1000 * truth
            assert np.sqrt(np.mean(error**2)) < 40
        with Image.open(name / "heart.png") as picture, Image.open(name / "cine.gif") as film:
            assert min(picture.size[0], film.size[0]) > 50
            assert film.n_frames == 8


def test_page_and_scores_are_there_if_the_format_of_the_scan_cannot_be_written(
    tmp_path, monkeypatch
):
    def refuse(*arguments):
        raise InputError("this file cannot be written")

    monkeypatch.setattr("reconstruct.write_like", refuse)
    np.savez(tmp_path / "mine.npz", dataset=IMAGES[:1])
    with pytest.raises(InputError, match="cannot be written"):
        reconstruct_scan(tmp_path / "mine.npz", tmp_path / "out", **QUICK)
    for name in ("report.html", "output.txt", "metrics.csv", "sample_1"):
        assert (tmp_path / "out" / name).exists()


def test_measured_kspace_is_reconstructed_without_scores(trial, tmp_path):
    folder, _ = trial
    mask, expected = (arrays_of(folder)[name] for name in ("mask", "reconstruction"))
    kspace = (fftc(torch.from_numpy(1000 * IMAGES[0])) * torch.from_numpy(mask)[..., None]).numpy()
    np.savez(tmp_path / "scan.npz", kspace=kspace, mask=mask)
    assert reconstruct_scan(tmp_path / "scan.npz", tmp_path / "out", **QUICK) == []
    assert not (tmp_path / "out" / "metrics.csv").exists()
    arrays = arrays_of(tmp_path / "out")
    assert "target" not in arrays
    assert arrays["reconstruction"] == pytest.approx(expected, abs=5)
    text = (tmp_path / "out" / "output.txt").read_text()
    assert "have no known ground truth" in text
    assert "Verdict" not in text
    assert "no ground truth, no scores" in (tmp_path / "out" / "report.html").read_text()
    for given in (mask, None):
        found = reconstruct(kspace, given, precision="float32", device="cpu")
        assert found == pytest.approx(expected, abs=5)


def test_the_mean_over_flips_is_the_result_beside_the_plain_one(trial, tmp_path):
    np.savez(tmp_path / "mine.npz", dataset=1000 * IMAGES[:1])
    rows = reconstruct_scan(tmp_path / "mine.npz", tmp_path / "out", average=2, **QUICK)
    plain = next(row for row in trial[1] if row["method"] == "cascade_calibrated")
    by_method = {row["method"]: row["psnr"] for row in rows}
    assert list(by_method)[-2:] == ["cascade_calibrated", "cascade_calibrated_average2"]
    assert by_method["cascade_calibrated"] == pytest.approx(plain["psnr"], abs=1e-3)
    assert "mean over 2 flips" in (tmp_path / "out" / "output.txt").read_text()
    arrays = arrays_of(tmp_path / "out")
    kspace = fftc(torch.from_numpy(1000 * IMAGES[0])).numpy() * arrays["mask"][..., None]
    found = reconstruct(kspace, arrays["mask"], average=2, precision="float32", device="cpu")
    assert found == pytest.approx(arrays["reconstruction"], abs=5)
    with pytest.raises(InputError, match="--average is 3, expected one of 1, 2, 4, 8"):
        reconstruct_scan(tmp_path / "mine.npz", tmp_path / "other", average=3, **QUICK)


def test_the_mask_may_have_a_file_of_its_own(tmp_path):
    mask = np.zeros((8, 64), np.uint8)
    mask[:, 28:36] = mask[::2, ::3] = mask[1::2, 1::3] = 1
    np.savez(tmp_path / "full.npz", kspace=fftc(torch.from_numpy(IMAGES[0])).numpy())
    np.save(tmp_path / "lines.npy", mask)
    lines = str(tmp_path / "lines.npy")
    rows = reconstruct_scan(tmp_path / "full.npz", tmp_path / "out", mask=lines, **QUICK)
    assert len(rows) == 4  # of fully sampled k-space the truth is known
    assert rows[0]["acc"] == pytest.approx(mask.size / mask.sum())
    with pytest.raises(InputError, match="--mask is for scans in files"):
        reconstruct_scan("phantom", tmp_path / "none", mask=lines)


def test_named_training_free_methods_are_scored_and_the_best_of_them_shown(tmp_path):
    np.savez(tmp_path / "mine.npz", dataset=IMAGES[:1])
    names = ("view_sharing", "temporal_tv", "kt_sparse")
    rows = reconstruct_scan(tmp_path / "mine.npz", tmp_path / "out", baselines=names, **QUICK)
    expected = ["zero_filled", "view_sharing", "kt_sparse", "temporal_tv", "cascade_calibrated"]
    assert [row["method"] for row in rows] == expected
    assert len({*names} & arrays_of(tmp_path / "out").keys()) == 1


def test_what_was_measured_by_the_mask_is_no_truth():
    """K-space of a contiguous centre looks fully sampled, unless a mask says what was measured."""
    kspace = fftc(torch.from_numpy(IMAGES[0])).numpy()
    centre = np.zeros((8, 64), bool)
    centre[:, 20:44] = True
    low = kspace * centre[..., None]
    assert measured(Series("a", low, True, centre), sampling(4), 0, 0).image is None
    assert measured(Series("a", low, True), sampling(4), 0, 0).image is not None
    every = measured(Series("a", kspace, True, np.ones((8, 64), bool)), sampling(4), 0, 0)
    assert every.condition.acc == 4  # a mask of all lines is none
    measured_too = centre.copy()
    measured_too[0, 50] = True  # a line that was measured, but is zero
    thinned = low * (np.arange(64) % 3 > 0)[:, None]
    assert measured(Series("a", thinned, True, measured_too), sampling(4), 0, 0).image is None


def test_the_reconstruction_has_the_format_of_its_scan(tmp_path):
    images = make_images(2)
    affine = np.array([[0, -1.4, 0, 80], [1.3, 0, 0.1, -90], [0, 0, 8, 20], [0, 0, 0, 1.0]])
    image = nibabel.Nifti1Image(1000 * images.transpose(3, 2, 0, 1), affine)
    nibabel.save(image, tmp_path / "a.nii.gz")
    write_dicom_folder(tmp_path / "dicom", np.round(2000 * images).astype(np.uint16))
    scipy.io.savemat(tmp_path / "b.mat", {"cine": images.transpose(2, 3, 0, 1)})
    found = {}
    for name in ("a.nii.gz", "dicom", "b.mat"):
        out = tmp_path / f"of_{name}"
        rows = reconstruct_scan(tmp_path / name, out, **QUICK)
        assert len(rows) == 8
        found[name] = [np.load(path)["reconstruction"] for path in sorted(out.glob("*/*.npz"))]
    nifti = nibabel.load(tmp_path / "of_a.nii.gz" / "a_reconstruction.nii.gz")
    np.testing.assert_allclose(nifti.affine, affine, rtol=1e-6)
    of_nifti = np.stack(found["a.nii.gz"]).transpose(3, 2, 0, 1)
    np.testing.assert_allclose(nifti.get_fdata(), of_nifti, rtol=1e-6)
    matlab = scipy.io.loadmat(tmp_path / "of_b.mat" / "b_reconstruction.mat")["reconstruction"]
    np.testing.assert_array_equal(matlab, np.stack(found["b.mat"]).transpose(2, 3, 0, 1))
    written = read_scan(tmp_path / "of_dicom" / "dicom")
    assert len(written) == 2
    for series, expected in zip(written, found["dicom"], strict=True):
        magnitude = np.abs(expected)
        np.testing.assert_allclose(series.values, magnitude, atol=magnitude.max() / 4000)


def test_adaptation_is_reported_by_the_held_out_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("scan.adaptation.PATIENCE", 1)
    monkeypatch.setattr("scan.adaptation.CHECK_EVERY", 2)
    np.save(tmp_path / "one.npy", IMAGES[:1])
    rows = reconstruct_scan(tmp_path / "one.npy", tmp_path / "out", **QUICK, adapt=5)
    assert [row["method"] for row in rows][-2:] == [
        "cascade_calibrated",
        "cascade_adapted_calibrated",
    ]
    text = (tmp_path / "out" / "output.txt").read_text()
    assert "adapted to 1 series together" in text or "adaptation: no gain" in text


def test_a_call_on_arrays_can_adapt(monkeypatch):
    monkeypatch.setattr("scan.adaptation.PATIENCE", 1)
    monkeypatch.setattr("scan.adaptation.CHECK_EVERY", 2)
    measurement = from_images(IMAGES[0], sampling(4, 4), 0, 0, None)
    kspace = (fftc(measurement.aliased) * measurement.mask)[0].numpy()
    plain = reconstruct(kspace, precision="float32", device="cpu")
    adapted = reconstruct(kspace, adapt=5, precision="float32", device="cpu")
    assert plain.shape == adapted.shape == IMAGES[0].shape
    assert plain.dtype == np.float32
    assert np.isfinite(adapted).all()


def test_the_command_with_the_phantom(tmp_path):
    done = Command("reconstruct.py", ["phantom", "out", "--picture-dpi", 30], tmp_path).finished()
    assert done.returncode == 0, done.stderr
    assert "cascade_calibrated minus patch_low_rank: " in done.stdout
    assert (tmp_path / "out" / "phantom" / "cine.gif").exists()
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_a_stop_leaves_the_series_that_were_finished(tmp_path):
    np.savez(tmp_path / "many.npz", dataset=make_images(40))
    words = ["many.npz", "out", "--acc", 4, "--sample-n", 4, "--picture-dpi", 30]
    command = Command("reconstruct.py", words, tmp_path)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (tmp_path / "out" / "output.txt").exists():
        time.sleep(0.05)
    command.signal(signal.SIGTERM)
    done = command.finished()
    assert done.returncode == EXIT_INTERRUPTED, done.stderr
    assert "of 40 series, which are in out" in done.stderr
    finished = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert 0 < len(finished) < 40
    assert all((path / "cine.gif").exists() for path in finished)
    text = (tmp_path / "out" / "output.txt").read_text()
    assert f"mean PSNR of {len(finished)} series" in text


def complex_scan(folder):
    y = np.linspace(-1, 1, 64)[:, None]
    np.save(folder / "phase.npy", (IMAGES * np.exp(3j * y**2)).astype(np.complex64))
    return folder / "phase.npy"


def test_complex_images_have_weights_of_their_own(tmp_path):
    rows = reconstruct_scan(complex_scan(tmp_path), tmp_path / "out", **QUICK)
    by_method = {row["method"]: row["psnr"] for row in rows}
    assert by_method["cascade_calibrated"] > by_method["view_sharing"] + 2
    assert arrays_of(tmp_path / "out")["reconstruction"].dtype == np.complex64
    text = (tmp_path / "out" / "output.txt").read_text()
    assert "cascade_phantom_complex: cascade for complex images" in text


def test_weights_that_cannot_take_the_data_say_what_they_take(tmp_path, finished):
    scan = complex_scan(tmp_path)
    with pytest.raises(InputError, match="cascade_phantom are for real-valued images, and these"):
        reconstruct_scan(scan, tmp_path / "out", weights="cascade_phantom", **QUICK)
    best = str(finished[0] / "checkpoint_best.pt")
    np.save(tmp_path / "six.npy", IMAGES[:, :6])
    with pytest.raises(InputError, match=r"\(unet_resnet\) take 8 frames, and this series has 6"):
        reconstruct_scan(tmp_path / "six.npy", tmp_path / "out", weights=best, **QUICK)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"acc": 0.5}, "--acc is 0.5, expected at least 1"),
        ({"pattern": "mine.npy"}, "--pattern is mine.npy: give a file of lines as --mask"),
        ({"baselines": ()}, "--baselines names no method, expected one or more"),
        ({"baselines": ("bm3d",)}, "--baselines is .bm3d., expected one of zero_filled"),
        ({"adapt": -1.0}, "--adapt is -1.0, expected at least 0"),
        ({"precision": "float16"}, "--precision is 'float16', expected one of float32, bfloat16"),
        ({"device": "tpu"}, "--device tpu cannot be used here"),
        ({"weights": "missing.pt"}, "missing.pt does not exist"),
        ({"acc": 20}, "3 lines a frame, got 4: choose fewer centre lines"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path, settings, message):
    np.save(tmp_path / "one.npy", IMAGES[:1])
    with pytest.raises(InputError, match=message):
        reconstruct_scan(tmp_path / "one.npy", tmp_path / "out", **QUICK | settings)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_magnitudes_are_no_kspace(trial, tmp_path):
    folder, _ = trial
    with pytest.raises(InputError, match="nothing is overwritten"):
        reconstruct_scan("phantom", folder)
    with pytest.raises(InputError, match=r"kspace is \(2, 8, 64, 72\) float32, expected complex"):
        reconstruct(IMAGES)
