"""Each format, from a file that its own library writes."""

import gzip
import sys
from types import SimpleNamespace

import h5py
import ismrmrd
import nibabel
import numpy as np
import pytest
import scipy.io
from helpers import make_images
from scans import RAW_HEADER, fft2c, save_ismrmrd, save_mat73, with_phase

from CS_mask import cartesian_mask
from data.kspace import combine_coils
from formats.hdf5 import hdf5_arrays
from formats.ismrmrd import parse_header
from formats.reading import read_scan
from formats.writing import write_like
from util.errors import InputError

SLICES = make_images(3)  # (3, 8, 32, 36)
KSPACE = fft2c(with_phase(SLICES)).astype(np.complex64)
LINES = cartesian_mask((8, 32, 1), acc=2, sample_n=6, centred=True, seed=0)[..., 0] > 0  # (T, Y)
MEASURED = KSPACE[0] * LINES[..., None]


def read(path, axes=None):
    scan = read_scan(path, axes)
    series = list(scan)
    assert len(scan) == len(series)
    assert [s.name for s in series] == scan.names
    assert len(set(scan.names)) == len(scan)
    return scan, series


def notes_of(scan, series):
    return " | ".join(scan.notes + [note for s in series for note in s.notes])


# -- NumPy


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_groups(tmp_path, save):
    save(tmp_path / "a.npz", dataset=SLICES, groups=np.array(["p1", "p2", "p2"]))
    _, series = read(tmp_path / "a.npz")
    assert [s.patient for s in series] == ["p1", "p2", "p2"]
    assert series[0].values.dtype == np.float32
    assert not series[0].is_kspace
    np.testing.assert_array_equal(np.stack([s.values for s in series]), SLICES)


def test_npy_of_one_series_in_another_order(tmp_path):
    np.save(tmp_path / "a.npy", np.moveaxis(SLICES[0], 0, -1))
    scan, series = read(tmp_path / "a.npy")
    np.testing.assert_array_equal(series[0].values, SLICES[0])
    assert "'y x t', which is a guess (--axes sets them)" in notes_of(scan, series)
    assert "'array' alone can be a cine" in notes_of(scan, series)
    _, series = read(tmp_path / "a.npy", axes="x y t")
    np.testing.assert_array_equal(series[0].values, SLICES[0].swapaxes(1, 2))


@pytest.mark.parametrize("dtype", ["u1", "i2", "f2", "f8", ">f4", ">i2"])
def test_other_types_hold_the_same_values(tmp_path, dtype):
    values = (SLICES[0] * 50).round()
    np.savez(tmp_path / "a.npz", dataset=np.asfortranarray(values.astype(dtype)))
    _, series = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(series[0].values, values)
    assert series[0].values.dtype == np.float32


@pytest.mark.parametrize(
    "mask",
    [LINES, LINES.astype(float), np.repeat(LINES[..., None], 36, -1), LINES[None, :, :, None]],
)
def test_kspace_with_its_mask(tmp_path, mask):
    np.savez(tmp_path / "a.npz", kspace=MEASURED, mask=mask)
    _, series = read(tmp_path / "a.npz")
    assert series[0].is_kspace
    assert series[0].values.dtype == np.complex64
    np.testing.assert_array_equal(series[0].mask, LINES)


def test_the_phase_encoding_is_where_lines_are_missing(tmp_path):
    filed = MEASURED.transpose(2, 1, 0)  # x y t, usually y x t
    scipy.io.savemat(tmp_path / "a.mat", {"ksp": filed})
    scan, series = read(tmp_path / "a.mat")
    np.testing.assert_array_equal(series[0].values, MEASURED)
    assert "'x y t', which is a guess" in notes_of(scan, series)


def test_one_mask_for_all_frames_and_one_for_each_slice(tmp_path):
    np.savez(tmp_path / "a.npz", kspace=KSPACE * LINES[0][:, None], us_mask=LINES[0])
    _, series = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(series[2].mask, np.tile(LINES[0], (8, 1)))
    masks = np.stack([np.roll(LINES, i, 0) for i in range(3)])
    np.savez(tmp_path / "b.npz", kspace=KSPACE * masks[..., None], mask=masks)
    _, series = read(tmp_path / "b.npz")
    np.testing.assert_array_equal(np.stack([s.mask for s in series]), masks)


@pytest.mark.parametrize(
    ("kspace", "lines", "note"),
    [
        (np.fft.ifftshift(MEASURED, axes=(-2, -1)), LINES, "at line 0 of 32: rolled by 16"),
        (
            np.fft.ifftshift(MEASURED, axes=(-2, -1)),
            np.fft.ifftshift(LINES, axes=-1),
            "at line 0 of 32: rolled by 16",
        ),
        (np.roll(KSPACE[0], 7, axis=1), None, "at line 23 of 32: rolled by -7 lines to 16"),
    ],
)
def test_kspace_off_its_centre_is_centred(tmp_path, kspace, lines, note):
    np.savez(tmp_path / "a.npz", kspace=kspace, **({} if lines is None else {"mask": lines}))
    scan, series = read(tmp_path / "a.npz")
    expected = KSPACE[0] if lines is None else MEASURED
    np.testing.assert_array_equal(series[0].values, expected)
    np.testing.assert_array_equal(series[0].mask, None if lines is None else LINES)
    assert f"the centre of k-space was {note}" in notes_of(scan, series)


def test_complex_values_of_an_unknown_name_are_told_apart(tmp_path):
    np.savez(tmp_path / "a.npz", series=KSPACE[0])
    np.savez(tmp_path / "b.npz", series=with_phase(SLICES[0]))
    for name, is_kspace in (("a.npz", True), ("b.npz", False)):
        scan, series = read(tmp_path / name)
        assert series[0].is_kspace == is_kspace
        assert "of a name that says neither are taken as" in notes_of(scan, series)


def test_pairs_and_records_are_complex(tmp_path):
    pairs = np.stack((KSPACE[0].real, KSPACE[0].imag), axis=-1)
    records = np.empty(KSPACE[0].shape, [("real", "f4"), ("imag", "f4")])
    records["real"], records["imag"] = KSPACE[0].real, KSPACE[0].imag
    for name, array in (("a.npz", pairs), ("b.npz", records)):
        np.savez(tmp_path / name, kspace=array)
        np.testing.assert_array_equal(read(tmp_path / name)[1][0].values, KSPACE[0])


# -- MATLAB


def test_mat_5_in_the_order_of_matlab(tmp_path):
    filed = SLICES.transpose(2, 3, 0, 1)  # y x s t
    scipy.io.savemat(tmp_path / "a.mat", {"cine": filed, "fs": 44.0, "who": "someone"})
    scan, series = read(tmp_path / "a.mat")
    np.testing.assert_array_equal(np.stack([s.values for s in series]), SLICES)
    assert "'y x s t'" in notes_of(scan, series)


def test_mat_73_with_the_layout_of_cmrxrecon(tmp_path):
    """Axes (x, y, s, t) in MATLAB, reversed in the file."""
    filed = KSPACE.transpose(3, 2, 0, 1)
    save_mat73(tmp_path / "a.mat", kspace_single_full=filed)
    with h5py.File(tmp_path / "a.mat") as file:
        assert file["kspace_single_full"].shape == (8, 3, 32, 36)
    scan, series = read(tmp_path / "a.mat")
    np.testing.assert_array_equal(np.stack([s.values for s in series]), KSPACE)
    assert notes_of(scan, series) == (
        "the axes (36, 32, 3, 8) are taken as 'x y s t', as the format has them (--axes sets them)"
    )


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_mat_undersampled_with_mask(tmp_path, version):
    filed = (KSPACE * LINES[..., None]).transpose(3, 2, 0, 1)  # x y s t
    if version == "5":
        scipy.io.savemat(tmp_path / "a.mat", {"kspace": filed[:, :, 1], "mask": LINES.T})
    else:
        mask = np.repeat(LINES.T[None], 36, 0).astype(np.float32)  # x y t
        save_mat73(tmp_path / "a.mat", kspace=filed, mask=mask)
    _, series = read(tmp_path / "a.mat", axes="x y t" if version == "5" else None)
    one = series[0 if version == "5" else 1]
    np.testing.assert_array_equal(one.values, KSPACE[1] * LINES[..., None])
    np.testing.assert_array_equal(one.mask, LINES)


# -- coils


def coil_data():
    """Three coils of the first slices: maps (C, Y, X) and k-space (S, T, C, Y, X)."""
    y, x = np.mgrid[:32, :36]
    places = [(0, 0), (31, 10), (10, 35)]
    maps = np.stack([np.exp(-np.hypot(y - a, x - b) / 30 + 1j * a) for a, b in places])
    maps /= np.sqrt((np.abs(maps) ** 2).sum(0))
    return maps.astype(np.complex64), fft2c(with_phase(SLICES)[:, :, None] * maps)


@pytest.mark.parametrize("with_maps", [True, False])
def test_coils_of_cmrxrecon_are_kept(tmp_path, with_maps):
    maps, kspace = coil_data()
    arrays = {"kspace_full": kspace.transpose(4, 3, 2, 0, 1).astype(np.complex64)}  # x y c s t
    if with_maps:
        arrays["sens_maps"] = maps.transpose(2, 1, 0)
    save_mat73(tmp_path / "a.mat", **arrays)
    _, series = read(tmp_path / "a.mat")
    np.testing.assert_allclose(series[1].values, kspace[1], atol=1e-5)
    assert series[1].is_kspace
    if with_maps:
        np.testing.assert_allclose(series[1].maps, maps, atol=1e-6)
    else:
        assert series[1].maps is None
    images, note = combine_coils(series[1].values, series[1].maps)
    expected = with_phase(SLICES[1]) if with_maps else SLICES[1]
    np.testing.assert_allclose(images, expected, atol=1e-5)
    assert ("phase is lost" in note) != with_maps


# -- HDF5

HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodingLimits><slice><minimum>0</minimum><maximum>{}</maximum><center>0</center></slice>
</encodingLimits></encoding></ismrmrdHeader>"""


def test_fastmri_layout(tmp_path):
    """Readout first, phase encoding last, and a mask of the last axis."""
    _, kspace = coil_data()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = kspace[0].swapaxes(2, 3).astype(np.complex64)  # t c x y
        file["ismrmrd_header"] = HEADER.format(0)
    np.testing.assert_allclose(read(tmp_path / "a.h5")[1][0].values, kspace[0], atol=1e-5)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["kspace"] = (KSPACE[0] * LINES[0][:, None]).swapaxes(1, 2)
        file["mask"] = LINES[0].astype(np.float32)
        file["reconstruction_esc"] = SLICES[0].swapaxes(1, 2)
    _, series = read(tmp_path / "b.h5")
    np.testing.assert_array_equal(series[0].values, KSPACE[0] * LINES[0][:, None])
    np.testing.assert_array_equal(series[0].mask, np.tile(LINES[0], (8, 1)))


def save_slices(path):
    with h5py.File(path, "w") as file:
        file["kspace"] = KSPACE[0].swapaxes(1, 2)
        file["ismrmrd_header"] = HEADER.format(7)
    return KSPACE[0], "'s x y'", "t x y"


def save_volume(path):
    nibabel.save(nibabel.Nifti1Image(SLICES[0].T, np.eye(4)), path)
    return SLICES[0], "'x y s'", "x y t"


@pytest.mark.parametrize(("name", "save"), [("a.h5", save_slices), ("a.nii", save_volume)])
def test_slices_are_no_cine(tmp_path, name, save):
    values, found, axes = save(tmp_path / name)
    with pytest.raises(InputError, match=rf"{found} without time.*--axes '{axes}'"):
        read_scan(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name, axes)[1][0].values, values)


def test_other_hdf5_with_groups(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["patient/images"] = SLICES
        file["patient/name"] = "someone"
    np.testing.assert_array_equal(read(tmp_path / "a.h5")[1][2].values, SLICES[2])


# -- NIfTI


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_nifti_with_slices_and_scaling(tmp_path, suffix):
    stored = np.round(SLICES * 1000)
    image = nibabel.Nifti1Image(stored.transpose(3, 2, 0, 1), np.eye(4))
    image.header.set_data_dtype(np.int16)
    image.header.set_slope_inter(0.5, 0)
    nibabel.save(image, tmp_path / f"a.{suffix}")
    _, series = read(tmp_path / f"a.{suffix}")
    assert [s.name for s in series] == ["slice_1", "slice_2", "slice_3"]
    np.testing.assert_array_equal(np.stack([s.values for s in series]), stored / 2)


def test_nifti_knows_the_phase_encoding(tmp_path):
    image = nibabel.Nifti1Image(SLICES.transpose(2, 3, 0, 1), np.eye(4))  # y x s t
    image.header.set_dim_info(freq=1, phase=0, slice=2)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(read(tmp_path / "a.nii")[1][1].values, SLICES[1])


@pytest.mark.parametrize("name", ["a3f0", "a.nii", "a.nii.gz", "A.NII.GZ", "a.img"])
@pytest.mark.parametrize("compressed", [True, False])
def test_nifti_of_any_name(tmp_path, name, compressed):
    nibabel.save(nibabel.Nifti1Image(SLICES.transpose(3, 2, 0, 1), np.eye(4)), tmp_path / "b.nii")
    content = (tmp_path / "b.nii").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if compressed else content)
    scan, series = read(tmp_path / name)
    np.testing.assert_array_equal(np.stack([s.values for s in series]), SLICES)
    stem = name.partition(".")[0]
    written = f"{stem}_reconstruction.nii" + ".gz" * compressed
    assert write_like(scan, {s.name: s.values for s in series}, tmp_path) == [written]
    _, series = read(tmp_path / written)
    assert series[0].not_a_scan == "a reconstruction by this suite"


def test_a_pair_of_nifti_files(tmp_path):
    pair = nibabel.Nifti1Pair(SLICES.transpose(3, 2, 0, 1), np.eye(4))
    nibabel.save(pair, tmp_path / "a.hdr")
    np.testing.assert_array_equal(read(tmp_path / "a.hdr")[1][1].values, SLICES[1])
    (tmp_path / "a.hdr").rename(tmp_path / "b")
    assert "is the header of a pair of NIfTI files" in refusal(tmp_path / "b")


@pytest.mark.parametrize(
    ("unit", "step", "expected"), [("sec", 0.04, 40), ("msec", 38.5, 38.5), ("unknown", 1, None)]
)
def test_time_from_frame_to_frame_of_a_nifti_file(tmp_path, unit, step, expected):
    image = nibabel.Nifti1Image(SLICES.transpose(3, 2, 0, 1), np.eye(4))
    image.header.set_zooms((1, 1, 8, step))
    image.header.set_xyzt_units("mm", unit)
    nibabel.save(image, tmp_path / "a.nii")
    found = [series.frame_time for series in read(tmp_path / "a.nii")[1]]
    assert found == [None if expected is None else pytest.approx(expected)] * len(SLICES)


@pytest.mark.parametrize(
    ("shape", "note"),
    [
        ((36, 32, 1, 1, 8), "taken as 'x y s t'"),
        ((36, 32, 1, 1, 8, 1), "taken as 'x y s t'"),
        ((36, 32, 1, 8, 1), ""),
        ((36, 1, 32, 8), ""),
        ((1, 36, 32, 8), ""),
    ],
)
def test_nifti_of_one_slice(tmp_path, shape, note):
    image = nibabel.Nifti1Image(SLICES[0].T.reshape(shape), np.eye(4))
    image.header.set_zooms([3 if n == 36 else 2 if n == 32 else 1 for n in shape])
    nibabel.save(image, tmp_path / "a.nii")
    scan, (series,) = read(tmp_path / "a.nii")
    np.testing.assert_array_equal(series.values, SLICES[0])
    assert series.spacing == (2, 3)
    assert note in notes_of(scan, [series])
    write_like(scan, {series.name: series.values}, tmp_path)
    assert nibabel.load(tmp_path / "a_reconstruction.nii").shape == image.shape


def test_nifti_of_slices_with_time_fifth(tmp_path):
    stored = SLICES.transpose(3, 2, 0, 1)[:, :, :, None]
    nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), tmp_path / "a.nii")
    scan, series = read(tmp_path / "a.nii")
    np.testing.assert_array_equal(np.stack([s.values for s in series]), SLICES)
    assert "as the fourth has length 1" in scan.notes[0]
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_intent("vector")
    nibabel.save(image, tmp_path / "b.nii")
    pairs = np.stack(2 * [stored[:, :, :, 0]], axis=-1)
    nibabel.save(nibabel.Nifti1Image(pairs, np.eye(4)), tmp_path / "c.nii")
    for name in ("b.nii", "c.nii"):
        assert "five axes or more, of which not all are places or times" in refusal(tmp_path / name)


# -- ISMRMRD


SMALL, FEW = SLICES[:2, :3, 8:24, 8:28], LINES[:3, 8:24]  # the library writes slowly


def test_ismrmrd_with_oversampling(tmp_path):
    wide = np.pad(with_phase(SMALL), ((0, 0), (0, 0), (0, 0), (10, 10)))
    save_ismrmrd(tmp_path / "a.h5", (fft2c(wide) * FEW[..., None])[:, :, None], oversampling=2)
    scan, series = read(tmp_path / "a.h5")
    assert scan.names == ["slice_1", "slice_2"]
    assert series[1].is_kspace
    np.testing.assert_array_equal(series[1].mask, FEW)
    expected = fft2c(with_phase(SMALL[1])) * FEW[..., None]
    np.testing.assert_allclose(series[1].values, expected, atol=1e-5)
    assert "1 lines of noise" in notes_of(scan, series)
    assert "40 to 20 columns" in notes_of(scan, series)
    assert "Jane" not in repr((scan, series))


def acquisition(samples, flag=None, **idx):
    """A line of raw data, of samples (C, X)."""
    line = ismrmrd.Acquisition.from_array(np.ascontiguousarray(samples, np.complex64))
    line.center_sample = samples.shape[1] // 2
    for name, value in idx.items():
        setattr(line.idx, name, value)
    if flag is not None:
        line.set_flag(flag)
    return line


def append(path, lines, group="dataset"):
    with ismrmrd.Dataset(str(path), group) as file:
        for line in lines:
            file.append_acquisition(line)


def test_all_groups_of_ismrmrd_are_read_and_noise_is_of_all(tmp_path):
    kspace = fft2c(with_phase(SMALL))[:, :, None] * np.array([1, 2j])[:, None, None]
    save_ismrmrd(tmp_path / "a.h5", kspace[:1])
    for s, group in ((0, "more"), (1, "most")):
        with ismrmrd.Dataset(str(tmp_path / "a.h5"), group) as file:
            file.write_xml_header(RAW_HEADER.format(
                nx=20, ny=16, shown=20, wide=300, last=15, centre=8, trajectory="cartesian"
            ).encode())  # fmt: skip
        lines = [
            acquisition(kspace[1, t, :, y], phase=t, kspace_encode_step_1=y)
            for t in range(3)
            for y in range(16)
        ]
        append(tmp_path / "a.h5", lines if s else [acquisition(np.ones((2, 9)), 19)], group)
    scan, series = read(tmp_path / "a.h5")
    assert scan.names == ["dataset_slice_1", "most_slice_1"]
    np.testing.assert_allclose(series[1].values, kspace[1], atol=1e-5)
    assert series[1].noise is not None


def test_integrated_calibration_lines_make_maps(tmp_path):
    maps, kspace = coil_data()
    few = kspace[0, :2].copy()
    few[:, :, np.arange(32) % 4 != 0] = 0
    save_ismrmrd(tmp_path / "a.h5", few[None])
    lines = [
        acquisition(kspace[0, t, :, y], 20, phase=t, kspace_encode_step_1=y)
        for t in range(2)
        for y in range(9, 24)
        if y % 4
    ]
    append(tmp_path / "a.h5", lines)
    scan, (series,) = read(tmp_path / "a.h5")
    assert "24 calibration lines are used for sensitivity maps" in notes_of(scan, [series])
    np.testing.assert_allclose(series.values, few, atol=1e-5)  # they are no image
    body = np.linalg.norm(series.maps, axis=0) > 0
    true = maps / np.linalg.norm(maps, axis=0)
    alike = np.abs((series.maps.conj() * true).sum(0))[body & (SLICES[0, 0] > 0.3)]
    assert alike.mean() > 0.95


@pytest.mark.parametrize("flag", [19, 23, 24, 26, 27, 28, 29, 30, 31])
def test_other_lines_are_no_image(tmp_path, flag):
    kspace = fft2c(with_phase(SMALL))[:1, :, None]
    save_ismrmrd(tmp_path / "a.h5", kspace)
    append(tmp_path / "a.h5", [acquisition(np.full((1, 20), 99), flag, kspace_encode_step_1=8)])
    _, (series,) = read(tmp_path / "a.h5")
    np.testing.assert_allclose(series.values, kspace[0, :, 0], atol=1e-5)


def with_header(path, *changes):
    """Texts of the header of an ISMRMRD file replaced."""
    with h5py.File(path, "r+") as file:
        text = file["dataset/xml"][0].decode()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        file["dataset/xml"][0] = text.encode()


@pytest.mark.parametrize(("matrix", "oversampling"), [(40, 2), (20, 2), (10, 2), (20, 1), (10, 1)])
def test_oversampling_is_what_lies_outside_of_the_field_of_view(tmp_path, matrix, oversampling):
    """Whatever the matrix of the image, which may be interpolated."""
    wide = np.pad(with_phase(SMALL[:1]), ((0, 0), (0, 0), (0, 0), (10, 10)))
    save_ismrmrd(tmp_path / "a.h5", fft2c(wide)[:, :, None], oversampling)
    size = "<reconSpace><matrixSize><x>{}</x>"
    with_header(tmp_path / "a.h5", (size.format(40 // oversampling), size.format(matrix)))
    _, (series,) = read(tmp_path / "a.h5")
    assert series.values.shape == (3, 16, 40 // oversampling)


def test_phase_oversampling_is_said(tmp_path):
    save_ismrmrd(tmp_path / "a.h5", fft2c(with_phase(SMALL))[:1, :, None])
    end = "<y>{}</y><z>8</z></fieldOfView_mm></encodedSpace>"
    with_header(tmp_path / "a.h5", (end.format(300), end.format(400)))
    assert "the image is the middle 12 of 16 lines" in notes_of(*read(tmp_path / "a.h5"))


def test_a_slice_has_the_phases_that_were_measured(tmp_path):
    kspace = fft2c(with_phase(SMALL))[:, :, None]
    kspace[1, 1] = 0
    save_ismrmrd(tmp_path / "a.h5", kspace)
    scan, series = read(tmp_path / "a.h5")
    np.testing.assert_allclose(series[1].values, kspace[1, [0, 2], 0], atol=1e-5)
    assert "2 phases were measured, of other series 3" in notes_of(scan, series)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_document_type_is_refused_in_any_encoding(encoding):
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb">]><a>&b;</a>'
    with pytest.raises(InputError, match="declares a document type"):
        parse_header(bomb.encode(encoding).rstrip(b"\0"), "a.h5")
    plain = "<?xml version='1.0' encoding='UTF-16'?><a><b>7</b></a>" if "16" in encoding else "<a/>"
    assert parse_header(plain.encode(encoding).rstrip(b"\0"), "a.h5").tag == "a"


def test_radial_ismrmrd_is_refused(tmp_path):
    save_ismrmrd(tmp_path / "a.h5", fft2c(SMALL)[:1, :, None], trajectory="radial")
    with pytest.raises(InputError, match="has a radial trajectory; expected a Cartesian one"):
        read_scan(tmp_path / "a.h5")


# -- BART, twix, Bruker


def save_bart(path, array, dimensions):
    lengths = np.ones(16, int)
    lengths[list(dimensions)] = array.shape
    data = array.astype(np.complex64).tobytes(order="F")
    path.with_name(path.name + ".cfl").write_bytes(data)
    path.with_name(path.name + ".hdr").write_text(f"# Dimensions\n{' '.join(map(str, lengths))} \n")


@pytest.mark.parametrize("suffix", ["", ".cfl", ".hdr"])
@pytest.mark.parametrize("time", [10, 11])
def test_bart_by_any_of_its_names(tmp_path, suffix, time):
    _, kspace = coil_data()
    save_bart(tmp_path / "a.b", kspace.transpose(4, 3, 2, 1, 0), (0, 1, 3, time, 13))
    scan, series = read(tmp_path / f"a.b{suffix}")
    assert scan.names == ["slice_1", "slice_2", "slice_3"]
    np.testing.assert_allclose(series[1].values, kspace[1], atol=1e-5)
    assert "taken as k-space, as its energy is in one place" in notes_of(scan, series)


def test_images_of_bart_are_written_as_they_were(tmp_path):
    save_bart(tmp_path / "a", with_phase(SLICES).transpose(3, 2, 1, 0), (0, 1, 10, 13))
    scan, series = read(tmp_path / "a")
    assert not series[0].is_kspace
    names = write_like(scan, {one.name: one.values for one in series}, tmp_path / "out")
    assert names == ["a_reconstruction.cfl", "a_reconstruction.hdr"]
    for suffix in ("cfl", "hdr"):
        written = (tmp_path / "out" / f"a_reconstruction.{suffix}").read_bytes()
        expected = (tmp_path / f"a.{suffix}").read_bytes()
        if suffix == "hdr":
            written, expected = written.split()[:18], expected.split()
        assert written == expected


@pytest.mark.parametrize(
    ("dimensions", "header", "problem"),
    [
        ((0, 1, 10, 4), None, "its dimension 4 (MAPS) has length 3; expected readout"),
        ((0, 1, 10, 13), "# Dimensions\n36 32 9\n", "are 82944: it is truncated"),
        ((0, 1, 10, 13), "# Dimensions\nmany\n", "has no lengths of dimensions"),
        ((0, 1, 10, 13), "", "without its header a.hdr"),
    ],
)
def test_bart_that_cannot_be_used(tmp_path, dimensions, header, problem):
    save_bart(tmp_path / "a", SLICES.transpose(3, 2, 1, 0), dimensions)
    if header:
        (tmp_path / "a.hdr").write_text(header)
    elif header is not None:
        (tmp_path / "a.hdr").unlink()
    assert problem in refusal(tmp_path / "a.cfl")


def twix_block(samples, flags=(), **counters):
    """Stands for a measurement data block of twixtools."""
    names = ("Lin", "Par", "Sli", "Eco", "Phs", "Rep", "Set")
    mdh = SimpleNamespace(
        SamplesInScan=samples.shape[1],
        UsedChannels=len(samples),
        CenterCol=samples.shape[1] // 2,
        CenterLin=8,
        CutOff=SimpleNamespace(Pre=0, Post=0),
        Counter=SimpleNamespace(**dict.fromkeys(names, 0) | counters),
    )
    return SimpleNamespace(mdh=mdh, data=samples, is_flag_set=lambda flag: flag in flags)


def test_twix(tmp_path, monkeypatch):
    path = tmp_path / "meas.dat"
    path.write_bytes(np.array([0, 2], "<u4").tobytes() + bytes(100))
    assert "pip install twixtools" in refusal(path)
    wide = np.pad(with_phase(SMALL), ((0, 0), (0, 0), (0, 0), (10, 10)))
    kspace = fft2c(wide)[:, :, None] * np.array([1, 2j])[:, None, None]
    blocks = []
    for y, s, t in np.ndindex(16, 2, 3):
        turned = kspace[s, t, :, y, ::-1] if y % 2 else kspace[s, t, :, y]
        blocks.append(twix_block(turned, ("REFLECT",) if y % 2 else (), Lin=y, Sli=s, Phs=t))
        blocks[-1].mdh.CenterCol -= y % 2
    others = [twix_block(np.full((2, 40), 9), (f,), Lin=8) for f in ("PHASCOR", "SYNCDATA")]
    noise = [twix_block(np.eye(2, 40), ("NOISEADJSCAN",))]
    header = {"MeasYaps": {"sKSpace": {"lBaseResolution": 20, "lPhaseEncodingLines": 16}}}
    scans = [{"mdb": noise, "hdr": {}}, {"mdb": blocks + others, "hdr": header}]
    fake = SimpleNamespace(read_twix=lambda name, **settings: scans)
    monkeypatch.setitem(sys.modules, "twixtools", fake)
    scan, series = read(path)
    assert scan.names == ["slice_1", "slice_2"]
    expected = fft2c(with_phase(SMALL))[:, :, None] * np.array([1, 2j])[:, None, None]
    np.testing.assert_allclose(series[1].values, expected[1], atol=1e-5)
    np.testing.assert_array_equal(series[0].noise, np.eye(2, 40))


@pytest.mark.parametrize("name", ["", "5", "5/fid"])
def test_bruker_is_refused_with_a_converter(tmp_path, name):
    (tmp_path / "5").mkdir()
    (tmp_path / "5/acqp").write_text("##TITLE=Parameter List")
    (tmp_path / "5/fid").write_bytes(b"some data")
    assert "pip install brkraw" in refusal(tmp_path / name)


# -- refusals


def refusal(path, axes=None):
    with pytest.raises(InputError) as error:
        read(path, axes)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_empty_and_foreign_files(tmp_path):
    assert "does not exist; expected an .npz" in refusal(tmp_path / "none.nii")
    assert "folder without DICOM files" in refusal(tmp_path)
    for content, problem in ((b"", "is empty"), (b"some text", r"begins with b'some t'")):
        for name in ("a.npz", "a.mat", "a.h5", "a.nii", "a.nii.gz", "a.dcm"):
            (tmp_path / name).write_bytes(content)
            assert problem in refusal(tmp_path / name)


def test_truncated_files(tmp_path):
    whole = {
        name: tmp_path / f"whole.{name}" for name in ("npz", "npy", "mat", "h5", "nii", "nii.gz")
    }
    np.savez(whole["npz"], dataset=SLICES)
    np.save(whole["npy"], SLICES)
    scipy.io.savemat(whole["mat"], {"cine": SLICES})
    with h5py.File(whole["h5"], "w") as file:
        file["images"] = SLICES
    for name in ("nii", "nii.gz"):
        nibabel.save(nibabel.Nifti1Image(SLICES.T, np.eye(4)), whole[name])
    for name, path in whole.items():
        content = path.read_bytes()
        for share in (0.02, 0.5, 0.99):
            part = tmp_path / f"part.{name}"
            part.write_bytes(content[: int(share * len(content))])
            assert str(part) in refusal(part), (name, share)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"text"))
    assert "no known format" in refusal(tmp_path / "a.nii.gz")


NAN = {"dataset": np.where(SLICES > 0.5, np.nan, SLICES)}
INFINITE = {"kspace": np.where(KSPACE[0, 1, 2, 3] == KSPACE, np.inf, KSPACE)}
OBJECTS = {"dataset": np.array([SLICES, "name"], dtype=object)}
COLOUR = {"dataset": np.zeros((9, 32, 36, 3), np.uint8)}
NOT_ITS_MASK = {"kspace": MEASURED, "mask": np.roll(LINES, 1, 1)}
HOLES = {"kspace": KSPACE[0] * (np.random.default_rng(0).random((8, 32, 36)) < 0.5)}


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        (NAN, "values are NaN or infinite, the first"),
        (INFINITE, "1 values are NaN"),
        (OBJECTS, "Python objects, which are never unpickled"),
        ({"dataset": SLICES - 0.2}, "values begin at -0.1989"),
        ({"dataset": SLICES[0, 0]}, "(32, 36), which is no series of images"),
        ({"dataset": np.zeros((8, 32, 36))}, "all values are zero"),
        ({"dataset": SLICES[:0]}, "which is empty"),
        (COLOUR, "as colour images are"),
        ({"dataset": np.array(["a", "b"])}, "no array can be a cine, its arrays are 'dataset'"),
        ({"a": SLICES, "b": SLICES}, "several arrays could be the cine, its arrays are 'a' (3, 8"),
        ({"kspace": SLICES}, "expected complex k-space"),
        ({"kspace": KSPACE[0], "mask": np.ones(31)}, "the mask is (31,) for an array of (8, 32,"),
        ({"kspace": KSPACE[0], "mask": np.eye(32, 36)}, "the same for all of a line"),
        (NOT_ITS_MASK, "lines of k-space hold values where the mask has none"),
        (HOLES, "zeros of k-space are within lines that hold other values"),
    ],
)
def test_unusable_arrays(tmp_path, arrays, problem):
    np.savez(tmp_path / "a.npz", **arrays)
    assert problem in refusal(tmp_path / "a.npz")


def test_memory_is_compared_before_anything_is_read(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", (1000, 1000, 10**4, 10**4), "f4", chunks=(1, 1, 100, 100))
    assert "of memory, but" in refusal(tmp_path / "a.h5")


def test_the_size_of_noise_and_maps_is_compared_too(tmp_path):
    for name in ("noise", "csm"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["kspace"] = KSPACE[0][:, None].repeat(2, 1)
            file.create_dataset(name, (2, 10**6, 10**7), "f4", chunks=(1, 100, 100))
        assert "of memory, but" in refusal(tmp_path / f"{name}.h5", "t c y x")
        with pytest.raises(InputError, match="of memory, but"):
            hdf5_arrays(tmp_path / f"{name}.h5")[name].whole()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BlockingIOError(11, "Unable to open file"), "another program has it open to write"),
        (OSError("Unable to open file (unable to lock file, errno = 11, ...)"), "has it open"),
        (PermissionError(13, "Permission denied"), "you have no permission"),
        (OSError(116, "Stale file handle"), "the network drive was mounted anew"),
        (OSError(5, "Input/output error"), "check the drive"),
        (OSError("truncated file: eof = 96"), "is truncated or damaged"),
    ],
)
def test_what_the_system_refuses_is_no_damage(tmp_path, monkeypatch, error, words):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = SLICES

    def refuse(*given):
        raise error

    monkeypatch.setattr(h5py, "File", refuse)
    found = refusal(tmp_path / "a.h5")
    assert words in found
    assert ("copy it again" in found) == ("damaged" in words)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    nibabel.save(nibabel.Nifti1Image(SLICES.T, np.eye(4)), tmp_path / "a.nii")
    assert "pip install nibabel" in refusal(tmp_path / "a.nii")


# -- a mask in a file of its own


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.mat", "b.mat", "a.h5"])
def test_a_mask_in_another_file(tmp_path, name):
    np.savez(tmp_path / "scan.npz", kspace=KSPACE * LINES[..., None], mask=np.ones((8, 32)))
    path, lines = tmp_path / name, LINES.astype(np.uint8)
    if name == "a.npy":
        np.save(path, lines)
    elif name == "a.npz":
        np.savez(path, mask=lines, acc=2)
    elif name == "a.mat":
        scipy.io.savemat(path, {"mask04": lines.T, "acc": 2})
    else:
        with h5py.File(path, "w") as file:
            file["lines"] = lines
            file["lines"].attrs["MATLAB_class" if name == "b.mat" else "made_by"] = "single"
    series = list(read_scan(tmp_path / "scan.npz", None, path))
    assert len(series) == 3
    for one in series:
        np.testing.assert_array_equal(one.mask, LINES)


@pytest.mark.parametrize(
    ("scan", "mask", "message"),
    [
        ("scan.npz", "short.npy", r"the mask is \(8, 31\) for an array of \(3, 8, 32, 36\)"),
        ("scan.npz", "two.npz", "its arrays are 'a' .*; expected one mask: call it 'mask'"),
        ("scan.npz", "words.npy", "its arrays are none; expected one mask"),
        ("scan.npz", "shares.npy", "'array': the mask has other values than 0 and 1"),
        ("scan.npz", "large.npy", "the mask is .* larger than the scan"),
        ("scan.npz", "object.npz", "'mask' in .*object.npz holds Python objects"),
        ("scan.npz", "none.npy", "none.npy does not exist"),
        ("scan.npz", ".", "cannot be read"),
        ("scan.npz", "a.nii", "a.nii is no file of arrays; expected a mask"),
        ("a.nii", "short.npy", "a.nii: a mask is taken only with .npy, .npz, .mat and HDF5 scans"),
        (".", "short.npy", "leave --mask out"),
    ],
)
def test_a_mask_that_cannot_be_used(tmp_path, scan, mask, message):
    np.savez(tmp_path / "scan.npz", kspace=KSPACE)
    np.save(tmp_path / "short.npy", np.ones((8, 31)))
    np.save(tmp_path / "shares.npy", np.full((8, 32), 0.5))
    np.save(tmp_path / "large.npy", np.ones((4, 8, 32, 36)))
    np.savez(tmp_path / "object.npz", mask=np.array([{}], dtype=object), acc=2)
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    np.savez(tmp_path / "two.npz", a=np.ones((8, 32)), b=np.ones((8, 32)))
    nibabel.save(nibabel.Nifti1Image(SLICES.transpose(3, 2, 0, 1), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(InputError, match=message):
        list(read_scan(tmp_path / scan, None, tmp_path / mask))


@pytest.mark.parametrize("kind", ["images", "full", "padded", "undersampled"])
def test_a_mask_with_zero_frequency_first_is_rolled_and_noted(tmp_path, kind):
    kspace = KSPACE.copy()
    if kind == "padded":
        kspace[:, :, :2] = kspace[:, :, -2:] = 0
    if kind == "undersampled":
        kspace *= LINES[..., None]
    if kind == "images":
        np.save(tmp_path / "scan.npy", SLICES)
    else:
        np.savez(tmp_path / "scan.npz", kspace=kspace)
    np.save(tmp_path / "lines.npy", np.fft.ifftshift(LINES, axes=-1))
    scan = read_scan(next(tmp_path.glob("scan.*")), None, tmp_path / "lines.npy")
    series = list(scan)
    for one in series:
        np.testing.assert_array_equal(one.mask, LINES)
    assert "the mask is taken with zero frequency first" in notes_of(scan, series)
