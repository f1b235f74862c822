"""Files for other programs, and reconstructions that come back in any format."""

import numpy as np
import pytest
import torch
from helpers import make_images

from CS_mask import Sampling
from data.acquisition import Acquisition
from data.batches import EvaluationBatches
from formats.bart import bart_pair, bart_variable, in_dimensions
from formats.exchange import read_reconstruction, write_test_part
from formats.matlab import mat_content
from physics.fourier import ifftc
from util.errors import InputError

SHAPE = (5, 8, 9)
SAMPLES = [2, 4, 7]


@pytest.fixture
def stack() -> np.ndarray:
    """Images (N, T, Y, X) complex, no two values the same."""
    n = len(SAMPLES) * np.prod(SHAPE)
    values = np.arange(1, n + 1).reshape(len(SAMPLES), *SHAPE)
    return (values + 2j * values).astype(np.complex64)


def save(folder, kind: str, array: np.ndarray):
    """A file of a kind with images (N, T, Y, X)."""
    path = folder / f"rec.{kind}"
    if kind == "npy":
        np.save(path, array)
    elif kind == "npz":
        np.savez(path, reconstruction=array, target=np.zeros_like(array))
    elif kind == "mat":
        path.write_bytes(mat_content({"rec": array}))
    elif kind == "h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["recon"] = array
    elif kind == "cfl":
        for name, content in bart_pair("rec", in_dimensions(array, "styx")).items():
            (folder / name).write_bytes(content)
    else:
        nibabel = pytest.importorskip("nibabel")
        nibabel.save(nibabel.Nifti1Image(array.transpose(3, 2, 0, 1), np.eye(4)), path)
    return path


@pytest.mark.parametrize("kind", ["npy", "npz", "mat", "h5", "cfl", "nii", "nii.gz"])
@pytest.mark.parametrize("is_complex", [True, False])
def test_every_format_gives_the_same_images(tmp_path, stack, kind, is_complex):
    array = stack if is_complex else stack.real.copy()
    found = read_reconstruction(save(tmp_path, kind, array), SAMPLES, SHAPE)
    assert found.dtype == (np.complex64 if is_complex or kind == "cfl" else np.float32)
    np.testing.assert_array_equal(found, array)


def test_a_folder_has_a_file_for_each_sample_by_number_or_in_order(tmp_path, stack):
    numbered, ordered = tmp_path / "numbered", tmp_path / "ordered"
    for folder, names in ((numbered, ["b_sample_0002", "a_sample_4", "sample_0007"]),
                          (ordered, ["a", "b", "c"])):  # fmt: skip
        folder.mkdir()
        for name, images in zip(names, stack, strict=True):
            for file, content in bart_pair(name, in_dimensions(images, "tyx")).items():
                (folder / file).write_bytes(content)
        np.testing.assert_array_equal(read_reconstruction(folder, SAMPLES, SHAPE), stack)
    with pytest.raises(InputError, match=r"has 3 files, none of the samples 8; expected one for"):
        read_reconstruction(numbered, [2, 4, 8], SHAPE)


def test_a_file_that_names_its_samples_is_put_in_order(tmp_path, stack):
    path = tmp_path / "rec.npz"
    np.savez(path, images=stack[[1, 0, 2]], index=np.array([4, 2, 7]))
    np.testing.assert_array_equal(read_reconstruction(path, SAMPLES, SHAPE), stack)
    with pytest.raises(InputError, match=r"names the samples 4, 2, 7 as its 'index'; expected"):
        read_reconstruction(path, [2, 4, 8], SHAPE)


def test_axes_are_taken_as_given(tmp_path, stack):
    path = save(tmp_path, "npy", stack.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(read_reconstruction(path, SAMPLES, SHAPE, "y x t s"), stack)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.swapaxes(2, 3), r"lines and columns are exchanged; give --axes 's t x y'"),
        (lambda a: a.transpose(2, 3, 1, 0), r"in another order; give --axes 'y x t s'"),
        (lambda a: a[:, 1:], r"with 4 frames, expected 5, .*: interpolate nothing"),
        (lambda a: a[1:], r"with 2 test samples, expected 3, .*: reconstruct all of the test part"),
        (lambda a: a[..., 1:, 1:], r"expected \(3, 5, 8, 9\) \(sample, frame, line, column\): rec"),
        (lambda a: a[0, 0], r"its arrays are 'rec' \(8, 9\); expected one reconstruction: call it"),
    ],
)
def test_another_shape_is_refused_with_what_differs(tmp_path, stack, change, message):
    path = tmp_path / "rec.mat"
    path.write_bytes(mat_content({"rec": change(stack)}))
    with pytest.raises(InputError, match=message):
        read_reconstruction(path, SAMPLES, SHAPE)


def test_what_is_no_reconstruction_is_refused(tmp_path, stack):
    path = tmp_path / "rec.npz"
    np.savez(path, a=stack, b=stack)
    with pytest.raises(InputError, match=r"'a' .*'b' .*; expected one reconstruction: call it"):
        read_reconstruction(path, SAMPLES, SHAPE)
    (tmp_path / "rec.txt").write_text("no array")
    with pytest.raises(InputError, match="is of no known format; expected a reconstruction as"):
        read_reconstruction(tmp_path / "rec.txt", SAMPLES, SHAPE)
    with pytest.raises(InputError, match="does not exist"):
        read_reconstruction(tmp_path / "none.npy", SAMPLES, SHAPE)


def test_barts_dimensions():
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    placed = in_dimensions(array, "tcyx")
    assert placed.shape == (5, 4, 1, 3, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1)
    np.testing.assert_array_equal(placed.squeeze(), array.transpose(3, 2, 1, 0))


@pytest.mark.parametrize("coils", [None, 3])
def test_exported_files_have_what_is_measured_and_agree(tmp_path, coils):
    images = torch.from_numpy(make_images())
    acquisition = Acquisition(
        Sampling(("gaussian",), (4, 4), (6,)), coils is not None, 0.0, 0, coils
    )
    batches = EvaluationBatches(images, SAMPLES, acquisition, 1)
    write_test_part(tmp_path, batches, len(SAMPLES), ("npz", "mat", "cfl"))
    with np.load(tmp_path / "test.npz") as file:
        arrays = dict(file)
    loadmat = pytest.importorskip("scipy.io").loadmat
    assert arrays["index"].tolist() == SAMPLES
    for i, batch in enumerate(batches):
        stem = f"sample_{SAMPLES[i]:04d}"
        np.testing.assert_array_equal(arrays["mask"][i], batch.mask[0, ..., 0])
        np.testing.assert_array_equal(arrays["aliased"][i], batch.combined[0])
        kspace = torch.from_numpy(arrays["kspace"][i])
        torch.testing.assert_close(ifftc(kspace), batch.aliased[0], rtol=1e-5, atol=1e-5)
        if coils:
            np.testing.assert_array_equal(arrays["maps"][i], batch.maps[0])
        in_mat = loadmat(tmp_path / "mat" / f"{stem}.mat")
        for name in arrays.keys() - {"index"}:
            np.testing.assert_array_equal(in_mat[name], arrays[name][i])
        variable, _ = bart_variable(tmp_path / "cfl" / f"{stem}_kspace.cfl")
        in_bart = variable.whole()  # (X, Y, 1, C, ..., T, ...)
        assert in_bart.shape[:4] == (36, 32, 1, coils or 1)
        assert in_bart.shape[10] == 8
        np.testing.assert_array_equal(in_bart.squeeze().T, arrays["kspace"][i])
        maps = bart_variable(tmp_path / "cfl" / f"{stem}_maps.cfl")[0].whole()
        assert maps.shape[:4] == (36, 32, 1, coils or 1)


def test_nothing_of_the_truth_is_exported(tmp_path):
    """Lines that were not measured are zero, and images are those of the lines that were."""
    images = torch.from_numpy(make_images())
    acquisition = Acquisition(Sampling(("gaussian",), (4, 4), (6,)), False, 0.0, 0)
    batches = EvaluationBatches(images, SAMPLES, acquisition, 1)
    write_test_part(tmp_path, batches, len(SAMPLES), ("npz",))
    with np.load(tmp_path / "test.npz") as file:
        arrays = dict(file)
    assert set(arrays) == {"index", "kspace", "aliased", "mask"}
    missing = arrays["mask"] == 0
    assert missing.mean() == pytest.approx(0.75)
    assert not arrays["kspace"][missing].any()
    again = ifftc(torch.from_numpy(arrays["kspace"]))
    np.testing.assert_allclose(arrays["aliased"], again, atol=1e-6)
    assert np.abs(np.abs(arrays["aliased"]) - images[SAMPLES].numpy()).mean() > 0.02
