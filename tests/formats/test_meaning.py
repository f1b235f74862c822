"""What an array is, where its name and its number of frames say nothing, or something else."""

import h5py
import numpy as np
import pytest
import scipy.io
from helpers import make_images
from scans import fft2c, save_mat73, with_phase
from scipy.ndimage import gaussian_filter

from formats.reading import read_scan
from util.errors import InputError

SLICES = gaussian_filter(make_images(12), (0, 0, 1, 1))  # (12, 8, 32, 36)
Y, X = np.mgrid[:32, :36]
PLACES = [(0, 0), (31, 5), (5, 35), (31, 35)]
MAPS = np.stack([np.exp(-np.hypot(Y - a, X - b) / 20 + 1j * (a + b) * X / 900) for a, b in PLACES])
COILS = (with_phase(SLICES[:3])[:, :, None] * MAPS).astype(np.complex64)  # s t c y x
KSPACE = fft2c(COILS).astype(np.complex64)
BRAIN = fft2c(with_phase(SLICES[:, 0])[:, None] * MAPS).astype(np.complex64)  # slices: s c y x
LIMITS = (
    "<a><encoding><encodingLimits><slice><maximum>{}</maximum></slice></encodingLimits>"
    "</encoding></a>"
)


def refusal(path, axes=None):
    with pytest.raises(InputError) as error:
        list(read_scan(path, axes))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("header", [None, LIMITS.format(0), LIMITS.format(30)])
def test_slices_in_fastmris_layout_are_no_frames(tmp_path, header):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = BRAIN.swapaxes(2, 3)
        file["reconstruction_rss"] = np.abs(SLICES[:, 0])
        if header:
            file["ismrmrd_header"] = header
    assert "as slices and coils do" in (found := refusal(tmp_path / "a.h5"))
    assert "say so with --axes 't c x y'" in found
    assert len(list(read_scan(tmp_path / "a.h5", "t c x y"))) == 1


@pytest.mark.parametrize("domain", ["images", "k-space"])
def test_coils_are_no_frames(tmp_path, domain):
    one = COILS[0, 0] if domain == "images" else KSPACE[0, 0]
    scipy.io.savemat(tmp_path / "a.mat", {"KSpaceDATA": one.transpose(1, 2, 0)})
    assert "as slices and coils do" in refusal(tmp_path / "a.mat")
    scipy.io.savemat(tmp_path / "b.mat", {"rawdata": np.abs(COILS[0, 0]).transpose(1, 2, 0)})
    assert "as slices and coils do" in refusal(tmp_path / "b.mat")


@pytest.mark.parametrize("save", [scipy.io.savemat, lambda path, d: save_mat73(path, **d)])
def test_coils_of_one_slice_are_no_slices(tmp_path, save):
    """(x, y, c, t), where the layout has (x, y, s, t)."""
    save(tmp_path / "a.mat", {"kspace_full": KSPACE[0].transpose(3, 2, 1, 0)})
    scan = read_scan(tmp_path / "a.mat")
    (series,) = scan
    np.testing.assert_array_equal(series.values, KSPACE[0])
    assert "'x y c t', as the values have them" in scan.notes[0]
    save(tmp_path / "b.mat", {"kspace_full": KSPACE[:, :, 0].transpose(3, 2, 0, 1)})
    assert len(read_scan(tmp_path / "b.mat")) == 3


@pytest.mark.parametrize("order", ["stcyx", "tscyx", "tcyx", "ctyx", "yxct", "yxsct"])
def test_coils_slices_and_frames_are_told_apart(tmp_path, order):
    lines = np.ones((8, 32), bool)
    lines[::2, 1:12:3] = lines[1::2, 20::3] = False  # which tells y from x
    kspace = KSPACE * lines[:, None, :, None]
    letters = order if "s" in order else "s" + order
    turned = kspace.transpose(["stcyx".index(letter) for letter in letters])
    np.save(tmp_path / "a.npy", turned if "s" in order else turned[0])
    series = list(read_scan(tmp_path / "a.npy"))
    assert len(series) == (3 if "s" in order else 1)
    np.testing.assert_array_equal(series[0].values, kspace[0])


def test_an_order_that_the_values_contradict_names_the_one_they_fit(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"kspace": KSPACE[0]})  # t c y x
    found = refusal(tmp_path / "a.mat")
    assert "not 'x y s t', as the format has them, but fit 't c y x'" in found


def test_magnitudes_of_coils_and_thin_slices_are_asked_for(tmp_path):
    np.save(tmp_path / "a.npy", np.abs(COILS[0]))  # t c y x
    found = refusal(tmp_path / "a.npy")
    assert "give --axes 't s y x' or --axes 't c y x'" in found


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"kspace": COILS[0, :, 0]}, "named as k-space, but its energy is spread as in images"),
        ({"images": KSPACE[0, :, 0]}, "named as images, but its energy is in one place"),
    ],
)
def test_a_name_that_the_values_contradict_is_refused(tmp_path, arrays, problem):
    np.savez(tmp_path / "a.npz", **arrays)
    assert problem in refusal(tmp_path / "a.npz")


# -- names


CINE, ONE = SLICES[0], KSPACE[0, :, 0]
LINES = np.random.default_rng(0).random((8, 32)) < 0.4
LINES[:, 14:19] = True
UNDER = ONE * LINES[..., None]


@pytest.mark.parametrize(
    ("arrays", "is_kspace", "note"),
    [
        ({"kspace": UNDER, "mask_type": np.array("vista"), "mask": LINES}, True, ""),
        ({"kspace": UNDER, "mask_seed": np.array(3), "mask": LINES}, True, ""),
        ({"kspace": UNDER, "my_mask": LINES, "mask_seed": np.array(3)}, True, "'mask_seed' () is"),
        ({"kspace_x": UNDER, "kspace_mask": LINES, "kspace_shape": np.arange(3)}, True, ""),
        ({"images": CINE, "kspace_shape": np.arange(3)}, False, ""),
        ({"images": CINE, "heart_mask": CINE > 0.5}, False, "is no mask of these lines"),
        ({"kspace": UNDER, "mask": np.zeros((0, 0))}, True, "'mask' (0, 0) is no mask"),
        ({"kspace": UNDER, "kspace_ref": ONE, "target": CINE}, True, "and not 'kspace_ref', 'targ"),
    ],
)
def test_names_that_only_begin_alike(tmp_path, arrays, is_kspace, note):
    np.savez(tmp_path / "a.npz", **arrays)
    scan = read_scan(tmp_path / "a.npz")
    (series,) = scan
    assert series.is_kspace == is_kspace
    assert note in " | ".join(scan.notes)
    if any(v is LINES for v in arrays.values()):
        np.testing.assert_array_equal(series.mask, LINES)


def test_one_of_several_is_not_taken_in_silence(tmp_path):
    np.savez(tmp_path / "a.npz", kspace=UNDER, mask04=LINES, mask08=LINES)
    assert "'mask04', 'mask08' all fit as its mask" in refusal(tmp_path / "a.npz")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["slice1/kspace"] = file["slice2/kspace"] = UNDER
    assert "several arrays could be the cine" in refusal(tmp_path / "a.h5")


def test_text_and_empty_arrays_of_matlab_are_none(tmp_path):
    full = KSPACE.transpose(4, 3, 2, 0, 1)
    word = np.array([[ord(letter) for letter in "uniform"]], np.uint16)
    save_mat73(tmp_path / "a.mat", kspace_full=full, mask=word, us_mask=np.array([0.0, 0.0]))
    with h5py.File(tmp_path / "a.mat", "r+") as file:
        file["mask"].attrs["MATLAB_class"] = np.bytes_("char")
        file["us_mask"].attrs["MATLAB_empty"] = np.uint8(1)
    assert [series.mask for series in read_scan(tmp_path / "a.mat")] == [None] * 3


def test_structs_and_cells_are_searched(tmp_path):
    filed = KSPACE[0].transpose(3, 2, 1, 0)
    cell = np.array([filed, None], object)[:1]
    scipy.io.savemat(tmp_path / "a.mat", {"data": {"scan": {"kspace": filed}, "fov": 300}})
    scipy.io.savemat(tmp_path / "b.mat", {"kspace": cell}, do_compression=True)
    save_mat73(tmp_path / "c.mat", other=np.ones(3))
    with h5py.File(tmp_path / "c.mat", "r+") as file:
        pairs = np.empty(filed.T.shape, [("real", "f4"), ("imag", "f4")])
        pairs["real"], pairs["imag"] = filed.T.real, filed.T.imag
        file["#refs#/b"] = pairs
        file["kspace"] = np.array([[file["#refs#/b"].ref]], h5py.ref_dtype)
        file["kspace"].attrs["MATLAB_class"] = np.bytes_("cell")
    for name in "abc":
        (series,) = read_scan(tmp_path / f"{name}.mat")
        np.testing.assert_array_equal(series.values, KSPACE[0])
    two = np.array([filed, filed, None], object)[:2]
    scipy.io.savemat(tmp_path / "d.mat", {"kspace": two})
    assert "its arrays are 'kspace{1}' (36, 32, 4, 8), 'kspace{2}'" in refusal(tmp_path / "d.mat")


# -- frames, lines and coils


@pytest.mark.parametrize("empty", [(3, 4), (7,)])
def test_frames_without_lines_are_left_out_and_written_as_zeros(tmp_path, empty):
    kspace = UNDER.copy()
    kspace[list(empty)] = 0
    scipy.io.savemat(tmp_path / "a.mat", {"kspace": kspace.transpose(2, 1, 0), "mask": LINES.T})
    scan = read_scan(tmp_path / "a.mat", "x y t")
    (series,) = scan
    left = np.delete(np.arange(8), empty)
    np.testing.assert_array_equal(series.values, UNDER[left])
    np.testing.assert_array_equal(series.mask, LINES[left])
    assert any("frames without any line are left out" in note for note in series.notes)
    (content,) = scan.write({series.name: CINE[left]}).values()
    (tmp_path / "b.mat").write_bytes(content)
    written = scipy.io.loadmat(tmp_path / "b.mat")["reconstruction"].transpose(2, 1, 0)
    np.testing.assert_array_equal(written[left], CINE[left])
    assert not written[list(empty)].any()


def broken_line(kspace):
    kspace[2, 16, 20:] = 0


def no_centre(kspace):
    kspace[5, 14:19] = 0


def cut_short(kspace):
    kspace[7, LINES[7].cumsum() > 3] = 0


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda kspace: None, "of 32 lines were measured in a frame, "),
        (broken_line, "lines measured only in part are left out: 1 (in frame 3)"),
        (no_centre, "the centre of k-space was not measured: frame 6"),
        (cut_short, "less than half as many lines as usual: frame 8"),
    ],
)
def test_what_is_unusual_in_the_lines_is_said(tmp_path, change, note):
    kspace = UNDER.copy()
    change(kspace)
    np.savez(tmp_path / "a.npz", kspace=kspace)
    (series,) = read_scan(tmp_path / "a.npz", "t y x")
    assert note in " | ".join(series.notes)
    lines = (series.values != 0).any(-1)
    assert (lines == (series.values != 0).all(-1)).all()


def test_empty_frames_of_images_are_said(tmp_path):
    np.savez(tmp_path / "a.npz", cine=np.concatenate((CINE, 0 * CINE[:1])))
    (series,) = read_scan(tmp_path / "a.npz")
    assert series.notes == ["frames that are zero: 9 of 9, cut them off"]


def test_a_dead_coil_is_left_out_with_its_map_and_noise(tmp_path):
    dead = KSPACE[0].copy()
    dead[:, 1] = 0
    noise = np.arange(400).reshape(4, 100)
    np.savez(tmp_path / "a.npz", kspace=dead, csm=MAPS, noise=noise)
    (series,) = read_scan(tmp_path / "a.npz", "t c y x")
    np.testing.assert_array_equal(series.values, KSPACE[0][:, [0, 2, 3]])
    np.testing.assert_allclose(series.maps, MAPS[[0, 2, 3]], rtol=1e-6)
    np.testing.assert_array_equal(series.noise, noise[[0, 2, 3]])
    assert "coils that are zero everywhere are left out: 2 of 4" in series.notes
