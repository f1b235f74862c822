import re

import nibabel
import numpy as np
import pytest
import scipy.io
from helpers import ROOT, make_images
from scans import save_mat73, with_phase, write_dicom_folder

import formats.writing
from formats.reading import read_scan
from formats.writing import write_like
from util.errors import InputError

SLICES = make_images(3)  # (3, 8, 32, 36)


def reconstructed(scan):
    return {series.name: series.values * 0.5 for series in scan}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("axes", ["xyst", "yxst"])
def test_nifti_keeps_its_geometry(tmp_path, suffix, axes):
    affine = np.array([[0, -1.4, 0, 80], [1.3, 0, 0.1, -90], [0, 0, 8, 20], [0, 0, 0, 1.0]])
    order = {"xyst": (3, 2, 0, 1), "yxst": (2, 3, 0, 1)}[axes]
    image = nibabel.Nifti1Image(SLICES.transpose(order), affine)
    image.header.set_zooms((1.3, 1.4, 8, 40))
    image.header.set_xyzt_units("mm", "msec")
    image.header["descrip"] = b"Jane Doe"
    if axes == "yxst":
        image.header.set_dim_info(freq=1, phase=0)
    nibabel.save(image, tmp_path / f"a{suffix}")
    image = nibabel.load(tmp_path / f"a{suffix}")
    scan = read_scan(tmp_path / f"a{suffix}")
    assert write_like(scan, reconstructed(scan), tmp_path) == [f"a_reconstruction{suffix}"]
    written = nibabel.load(tmp_path / f"a_reconstruction{suffix}")
    np.testing.assert_array_equal(written.get_fdata(dtype=np.float32), 0.5 * image.get_fdata())
    np.testing.assert_array_equal(written.affine, image.affine)
    assert written.header.get_zooms() == image.header.get_zooms()
    assert written.header.get_xyzt_units() == ("mm", "msec")
    assert b"Jane" not in written.header.binaryblock


@pytest.mark.parametrize("kind", ["second", "big-endian", "pair", "invalid"])
def test_nifti_of_other_kinds_is_written(tmp_path, kind):
    stored = SLICES.transpose(3, 2, 0, 1)
    header = nibabel.Nifti1Header(endianness=">" if kind == "big-endian" else "<")
    image = {"second": nibabel.Nifti2Image, "pair": nibabel.Nifti1Pair}.get(
        kind, nibabel.Nifti1Image
    )(stored, np.eye(4), None if kind == "second" else header)
    path = tmp_path / ("a.hdr" if kind == "pair" else "a.nii")
    nibabel.save(image, path)
    if kind == "invalid":
        content = bytearray(path.read_bytes())
        content[80:88] = np.float32([-2, np.nan]).tobytes()  # sizes of a pixel
        content[252:256] = np.int16([99, 99]).tobytes()  # codes of its affines
        path.write_bytes(content)
    scan = read_scan(path)
    assert write_like(scan, reconstructed(scan), tmp_path) == ["a_reconstruction.nii"]
    written = nibabel.load(tmp_path / "a_reconstruction.nii")
    np.testing.assert_array_equal(written.get_fdata(dtype=np.float32), 0.5 * stored)
    assert isinstance(written, nibabel.Nifti2Image) == (kind == "second")


@pytest.mark.parametrize("is_complex", [False, True])
def test_mat_keeps_the_order_of_its_axes(tmp_path, is_complex):
    images = with_phase(SLICES) if is_complex else SLICES
    filed = images.transpose(2, 3, 0, 1)
    scipy.io.savemat(tmp_path / "a.mat", {"cine": filed})
    save_mat73(tmp_path / "b.mat", cine=filed)
    for name in ("a", "b"):
        scan = read_scan(tmp_path / f"{name}.mat")
        assert write_like(scan, reconstructed(scan), tmp_path) == [f"{name}_reconstruction.mat"]
        written = scipy.io.loadmat(tmp_path / f"{name}_reconstruction.mat")["reconstruction"]
        np.testing.assert_array_equal(written, 0.5 * filed)


def test_series_that_are_missing_are_zero(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"cine": SLICES.transpose(2, 3, 0, 1)})
    scan = read_scan(tmp_path / "a.mat")
    write_like(scan, {"slice_2": SLICES[1]}, tmp_path)
    written = scipy.io.loadmat(tmp_path / "a_reconstruction.mat")["reconstruction"]
    np.testing.assert_array_equal(written[:, :, 1], SLICES[1].transpose(1, 2, 0))
    assert not written[:, :, [0, 2]].any()


def test_other_formats_have_no_files(tmp_path):
    np.savez(tmp_path / "a.npz", dataset=SLICES)
    scan = read_scan(tmp_path / "a.npz")
    assert write_like(scan, reconstructed(scan), tmp_path / "out") == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_half_a_dicom_series_is_never_left(tmp_path, monkeypatch, error):
    write_dicom_folder(tmp_path / "scan", np.round(SLICES * 2000).astype(np.uint16))
    scan = read_scan(tmp_path / "scan")
    (tmp_path / "out").mkdir()
    written = []

    def fail(path, content):
        written.append(path.write_bytes(content))
        if len(written) == 5:
            raise error

    monkeypatch.setattr(formats.writing, "write_bytes", fail)
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
        write_like(scan, reconstructed(scan), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_code_of_the_formats_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nibabel.save(nibabel.Nifti1Image(SLICES.transpose(3, 2, 0, 1), np.eye(4)), "scan.nii.gz")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/formats.md").read_text(), re.DOTALL)
    exec(compile(code, "docs/formats.md", "exec"), {})
    written = nibabel.load("results/scan_reconstruction.nii.gz")
    np.testing.assert_array_equal(written.get_fdata(), nibabel.load("scan.nii.gz").get_fdata())
