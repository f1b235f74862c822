import os
import sys
import tracemalloc

import nibabel
import numpy as np
import pytest
import scipy.io
import torch
from forked import Command
from helpers import error_of, load, make_images
from scans import fft2c, with_phase, write_dicom_folder

from dataset import from_command_line
from formats.bart import bart_files
from formats.convert import convert, pseudonym, summary
from formats.fitting import resized, sample_of, with_frames
from formats.reading import read_file
from metrics import moving_region
from util.errors import InputError

SLICES = make_images(3)  # (3, 8, 32, 36)
SMALL = {"size": (32, 32), "n_frames": 8}


@pytest.fixture
def mixed(tmp_path):
    """A folder of patients in formats of all kinds, with files that are none."""
    root = tmp_path / "scans"
    for name in ("anna", "bert", "carl", "dora"):
        (root / name).mkdir(parents=True)
    image = nibabel.Nifti1Image(1000 * SLICES.transpose(3, 2, 0, 1), np.eye(4))
    nibabel.save(image, root / "anna" / "sax.nii.gz")
    nibabel.save(nibabel.Nifti1Image(SLICES[:, 0].T, np.eye(4)), root / "anna" / "frame01.nii.gz")
    write_dicom_folder(root / "bert" / "dicom", np.round(SLICES[:2] * 2000).astype(np.uint16))
    kspace = fft2c(with_phase(SLICES[:1]))
    scipy.io.savemat(root / "carl" / "a.mat", {"kspace_single_full": kspace.transpose(3, 2, 0, 1)})
    kspace[:, :, 1::2] = 0
    scipy.io.savemat(root / "carl" / "b.mat", {"kspace_single_sub": kspace.transpose(3, 2, 0, 1)})
    np.savez(root / "dora" / "c.npz", dataset=SLICES * [[[[1]]], [[[np.nan]]], [[[2]]]])
    (root / "dora" / "notes.txt").write_text("text")
    (root / ".DS_Store").write_text("text")
    return root


def test_a_mixed_folder_becomes_one_file(mixed, tmp_path):
    output = tmp_path / "cine.npz"
    rows, notes = convert((str(mixed),), str(output), **SMALL)
    cine = load(output)
    assert cine.shape == (8, 32, 32)
    assert len(cine.images) == 3 + 2 + 1 + 2
    assert cine.notices == []
    read = [row for row in rows if row.was_read]
    assert [row.patient for row in read] == cine.groups.tolist()
    assert len(set(cine.groups[:3])) == len(set(cine.groups[3:5])) == 1
    assert len(set(cine.groups)) == 5  # of the .npz file each sample counts as a patient
    assert cine.groups[3] == pseudonym("4711"), "as the DICOM header has it"
    skipped = " | ".join(row.result for row in rows if not row.was_read)
    assert "without time" in skipped
    assert "undersampled k-space, where training needs full k-space" in skipped
    assert "values are NaN" in skipped
    assert any("no known format is left out (suffix: .txt)" in note for note in notes)
    text = "\n".join(summary(rows, notes))
    assert "8 samples of 5 patients; 3 skipped" in text
    assert "read, 8 x 32 x 36, divided by" in text
    for sample, images in zip(cine.images.numpy(), [*SLICES, *SLICES[:2]], strict=False):
        expected, _ = sample_of(images, (8, 32, 32), may_pad=True)
        np.testing.assert_allclose(sample, expected, atol=2e-3)


def test_names_are_kept_only_if_asked(mixed, tmp_path):
    convert((str(mixed),), str(tmp_path / "cine.npz"), **SMALL)
    content = (tmp_path / "cine.npz").read_bytes()
    with np.load(tmp_path / "cine.npz") as arrays:
        content += str(arrays["groups"]).encode()
        assert set(arrays) == {"dataset", "groups"}
    for name in (b"anna", b"4711", b"Jane", b"carl"):
        assert name not in content
    convert((str(mixed),), str(tmp_path / "named.npz"), keep_names=True, **SMALL)
    groups = load(tmp_path / "named.npz").groups.tolist()
    assert groups == ["anna"] * 3 + ["4711"] * 2 + ["carl", "dora/0", "dora/2"]


def test_pseudonyms_are_stable_and_differ():
    pseudonym.cache_clear()
    first = pseudonym("4711")
    pseudonym.cache_clear()
    assert pseudonym("4711") == first != pseudonym("4712")


def test_files_by_name_are_a_patient_each(tmp_path):
    for name, images in zip(("p1", "p2"), SLICES, strict=False):
        scipy.io.savemat(tmp_path / f"{name}.mat", {"cine": images.transpose(1, 2, 0)})
    paths = (str(tmp_path / "p1.mat"), str(tmp_path / "p2.mat"))
    convert(paths, str(tmp_path / "cine.npz"), keep_names=True, **SMALL)
    assert load(tmp_path / "cine.npz").groups.tolist() == ["p1", "p2"]


def test_complex_images_keep_their_phase(tmp_path):
    np.savez(tmp_path / "a.npz", kspace=fft2c(with_phase(SLICES)), groups=[5, 6, 6])
    np.savez(tmp_path / "b.npz", dataset=SLICES)
    inputs = (str(tmp_path / "a.npz"), str(tmp_path / "b.npz"))
    rows, _ = convert(inputs, str(tmp_path / "c.npz"), keep_phase=True, size=(32, 36), n_frames=8)
    images = load(tmp_path / "c.npz").images.numpy()
    assert images.dtype == np.complex64
    assert [row.was_read for row in rows] == [True] * 3 + [False] * 3
    assert "magnitudes, which have no phase" in rows[-1].result
    np.testing.assert_allclose(np.angle(images * with_phase(SLICES).conj()), 0 * SLICES, atol=1e-3)


def test_what_is_no_scan_or_was_read_before_is_skipped_with_the_reason(tmp_path):
    np.save(tmp_path / "a.npy", SLICES[0])
    np.save(tmp_path / "labels.npy", np.round(3 * SLICES[1]))
    np.save(tmp_path / "z_copy.npy", SLICES[0])
    (tmp_path / "z_link.npy").symlink_to(tmp_path / "a.npy")
    np.savez(tmp_path / "out.npz", reconstruction=SLICES[2], target=SLICES[2])
    for name, content in bart_files("x", ("a",), "xyt", {}, {"a": SLICES[2]}).items():
        (tmp_path / name).write_bytes(content)
    rows, notes = convert((str(tmp_path),), str(tmp_path / "cine.npz"), axes="t y x", **SMALL)
    results = {os.path.basename(row.source): row.result for row in rows}
    assert results.pop("a.npy").startswith("read")
    assert results.pop("labels.npy") == (
        "skipped: 4 whole numbers are all its values, as of a map of labels"
    )
    for name in ("out.npz", "x_reconstruction.cfl"):
        assert "a reconstruction by this suite" in results.pop(name)
    assert len(results) == 2
    assert all("the same images as of" in result for result in results.values())
    assert not any("no known format" in note for note in notes)


def test_an_unexpected_error_costs_one_scan(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", SLICES[0])
    np.save(tmp_path / "b.npy", SLICES[1])

    def read(path, axes):
        if path.name == "a.npy":
            raise ZeroDivisionError("what nobody thought of")
        return read_file(path, axes)

    monkeypatch.setattr("formats.convert.read_file", read)
    rows, _ = convert((str(tmp_path),), str(tmp_path / "cine.npz"), axes="t y x", **SMALL)
    assert [row.was_read for row in rows] == [False, True]
    assert "a.npy cannot be read (ZeroDivisionError: what nobody thought of)" in rows[0].result
    assert "CINE_DEBUG=1 shows where" in rows[0].result
    monkeypatch.setenv("CINE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        convert((str(tmp_path),), str(tmp_path / "c.npz"), axes="t y x", **SMALL)


def test_smaller_images_are_padded_only_if_asked_and_changes_are_said(tmp_path):
    np.save(tmp_path / "a.npy", SLICES[0])
    given = {"inputs": (str(tmp_path / "a.npy"),), "axes": "t y x", "n_frames": 10}
    with pytest.raises(InputError, match="32 x 36 pixels, smaller than 192 x 192: --size 32 36"):
        convert(output=str(tmp_path / "c.npz"), **given)
    rows, _ = convert(output=str(tmp_path / "c.npz"), size=(40, 30), **given)
    assert "frames interpolated from 8 to 10" in rows[0].result
    assert "padded with zeros from 32 x 36 to 40 x 36" in rows[0].result
    assert "cropped from 32 x 36 to 32 x 30" in rows[0].result


@pytest.mark.parametrize("size", [(40, 40), (24, 28), (20, 50), (33, 35)])
def test_images_are_cropped_around_motion_or_padded(size):
    images = resized(SLICES[0], size)
    assert images.shape == (8, *size)
    assert images.max() == SLICES[0].max()
    if max(size) < 30:
        region = moving_region(torch.from_numpy(SLICES[:1]))[0].numpy()
        y, x = (int(np.median(places)) for places in np.nonzero(region))
        inside = SLICES[0][:, y - 6 : y + 6, x - 6 : x + 6]
        assert any(
            np.array_equal(images[:, i : i + 12, j : j + 12], inside)
            for i in range(size[0] - 11)
            for j in range(size[1] - 11)
        )


def test_padding_keeps_the_middle_in_the_middle():
    image = np.zeros((2, 5, 6), np.float32)
    image[:, 5 // 2, 6 // 2] = 1
    padded = resized(image, (8, 9))
    assert padded[0, 8 // 2, 9 // 2] == 1


def test_interpolation_is_cyclic_and_exact_for_frames_that_are_there():
    wave = (2 + np.cos(2 * np.pi * np.arange(24) / 24 + 1))[:, None, None].astype(np.float32)
    for n in (12, 20, 24, 30, 48):
        expected = 2 + np.cos(2 * np.pi * np.arange(n) / n + 1)
        np.testing.assert_allclose(with_frames(wave, n)[:, 0, 0], expected, atol=1e-3)
    np.testing.assert_array_equal(with_frames(SLICES[0], 16)[::2], SLICES[0])
    turned = with_frames(np.roll(SLICES[0], 2, 0), 16)
    np.testing.assert_allclose(turned, np.roll(with_frames(SLICES[0], 16), 4, 0), atol=1e-6)


def test_scale_ignores_a_hot_pixel():
    images = SLICES[0] * 700
    hot = images.copy()
    hot[3, 4, 5] = 1e6
    sample, done = sample_of(hot, (8, 32, 36), may_pad=False)
    assert sample.max() == 1
    assert " of 9216 values set to 1" in done
    assert np.quantile(sample, 0.999) == pytest.approx(0.8, abs=0.01)
    sample, done = sample_of(images, (8, 32, 36), may_pad=False)
    np.testing.assert_allclose(sample, images / images.max(), rtol=1e-6)
    assert "set to 1" not in done


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"inputs": ("none",)}, "none does not exist: name files, or folders"),
        ({"output": "cine.npy"}, "expected a name that ends in .npz"),
        ({"output": "no/cine.npz"}, "the folder no does not exist"),
        ({"output": "a.npz"}, "a.npz exists and is not overwritten"),
        ({"size": (1, 2, 3)}, "--size is (1, 2, 3), expected lines and columns"),
        ({"n_frames": 1}, "--n-frames is 1"),
        ({"n_frames": 20}, "nothing could be read from a.npz: skipped: 8 frames, fewer than half"),
        ({"axes": "x y"}, "nothing could be read from a.npz: skipped: --axes is 'x y'; expected"),
    ],
)
def test_refusals_leave_nothing(tmp_path, monkeypatch, arguments, problem):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", dataset=SLICES)
    with pytest.raises(InputError) as error:
        convert(**{"inputs": ("a.npz",), "output": "cine.npz"} | SMALL | arguments)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)
    assert os.listdir() == ["a.npz"]


def test_memory_is_that_of_one_scan(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(8):
        np.save(tmp_path / f"{i}.npy", rng.random((8, 96, 96), dtype=np.float32))
    inputs = tuple(str(tmp_path / f"{i}.npy") for i in range(8))
    peaks = []
    for n in (1, 8):
        tracemalloc.start()
        convert(inputs[:n], str(tmp_path / f"cine{n}.npz"), size=(96, 96), n_frames=8)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize("name", ["sample_of", "write_npz", "shutil.copyfileobj"])
def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, name):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    np.savez(tmp_path / "a.npz", dataset=SLICES)
    monkeypatch.setattr(f"formats.convert.{name}", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert((str(tmp_path / "a.npz"),), str(tmp_path / "cine.npz"), **SMALL)
    assert os.listdir(tmp_path) == ["a.npz"]


def run_convert(folder, *words):
    return Command("dataset.py", words, folder).finished()


def test_the_real_command(mixed, tmp_path):
    words = ("convert", "scans", "cine.npz", "--size", "32", "36", "--n-frames", "8")
    done = run_convert(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "8 samples of 5 patients; 3 skipped"
    assert load(tmp_path / "cine.npz").shape == (8, 32, 36)
    assert "exists and is not overwritten" in error_of(run_convert(tmp_path, *words))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["make"], "invalid choice: 'make'"),
        ([], "the following arguments are required: command"),
        (["convert", "--help"], "usage: dataset.py convert [-h]"),
        (["convert", "cine.npz"], "the following arguments are required: output"),
        (["convert", "a", "b", "--nframes", "3"], "did you mean --n-frames for --nframes?"),
    ],
)
def test_the_command_line(monkeypatch, capsys, words, text):
    monkeypatch.setattr(sys, "argv", ["dataset.py", *words])
    with pytest.raises(SystemExit):
        from_command_line()
    captured = capsys.readouterr()
    assert text in captured.out + captured.err
