import contextlib
import io
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from helpers import Canary, load

import data.stored
import dataset
from util.errors import InputError


def save(tmp_path, name="cine.npz", **arrays):
    path = tmp_path / name
    np.savez(path, **arrays)
    return path


def npy_bytes(array) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def zip_of(path, content: bytes, member="dataset.npy", compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(member, content)
    return path


def header_claiming(shape: str, padding: int = 0) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}" + " " * padding + "\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text.encode()


def test_values_come_back_as_they_were_saved(tmp_path, images):
    cine = load(save(tmp_path, dataset=images))
    assert torch.equal(cine.images, torch.from_numpy(images))
    assert cine.images.dtype == torch.float32
    assert cine.shape == (8, 32, 36)
    assert cine.groups is None
    assert cine.notices == []
    assert len(set(cine.hashes)) == 9


def test_other_files_hold_the_same(tmp_path, images):
    """Plain, compressed, in Fortran order, of the first samples and of complex pairs."""
    expected = load(save(tmp_path, dataset=images))
    np.savez_compressed(tmp_path / "small.npz", dataset=images)
    np.save(tmp_path / "plain.npy", images)
    assert load(tmp_path / "small.npz").hash == load(tmp_path / "plain.npy").hash == expected.hash
    np.save(tmp_path / "turned.npy", np.asfortranarray(images))
    for n in (9, 4):
        assert torch.equal(load(tmp_path / "turned.npy", n_samples=n).images, expected.images[:n])
    pairs = np.asfortranarray(np.stack((images, 0 * images), axis=-1))
    loaded = load(save(tmp_path, dataset=pairs), complex_pairs=True).images
    assert torch.equal(loaded.real, expected.images)


def test_missing_file_or_directory(tmp_path):
    with pytest.raises(InputError, match=r"does not exist.*'dataset' \[n_samples.*--data phantom"):
        load(tmp_path / "cine.npz")
    with pytest.raises(InputError, match=r"is a directory; expected an \.npz"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"time,space\n1,2\n", r"neither \.npz nor \.npy"),
        (pickle.dumps([1, 2]), r"neither \.npz nor \.npy"),
        (npy_bytes(np.full((1, 1, 1, 1), "a")), "of type <U1"),
    ],
)
def test_other_files(tmp_path, content, message):
    (tmp_path / "cine.npz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "cine.npz")


@pytest.mark.parametrize("name", ["cine.npz", "cine.npy"])
@pytest.mark.parametrize("kept", [0.01, 0.5, 0.999])
def test_truncated_file(tmp_path, images, name, kept):
    path = tmp_path / name
    (np.savez(path, dataset=images) if name.endswith("z") else np.save(path, images))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match="truncated or damaged"):
        load(path)


@pytest.mark.parametrize("saved", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("where", [0.3, 0.9])
def test_flipped_byte(tmp_path, images, saved, where):
    path = tmp_path / "cine.npz"
    saved(path, dataset=images)
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load(path)


def test_missing_key(tmp_path, images):
    with pytest.raises(InputError, match=r"no key 'dataset', its keys are 'a', 'b'"):
        load(save(tmp_path, a=images, b=images))
    cine = load(save(tmp_path, cine=images, groups=np.arange(9)))
    assert "its only array, 'cine', is used" in cine.notices[0]
    assert torch.equal(cine.images, torch.from_numpy(images))


@pytest.mark.parametrize("name", ["cine.npz", "cine.npy"])
def test_objects_are_never_unpickled(tmp_path, name):
    canary = np.empty((1, 1, 1, 1), dtype=object)
    canary[:] = Canary(tmp_path / "sung")
    path, content = tmp_path / name, npy_bytes(canary)
    zip_of(path, content) if name.endswith("z") else path.write_bytes(content)
    with pytest.raises(InputError, match="Python objects, which are never unpickled"):
        load(path)
    assert not (tmp_path / "sung").exists()


@pytest.mark.parametrize("shape", ["(200, 20, 192, 192)", "(9999999, 20, 192, 192)"])
@pytest.mark.parametrize("zipped", [True, False])
def test_header_claims_more_than_there_is(tmp_path, shape, zipped):
    path, content = tmp_path / "cine", header_claiming(shape) + bytes(64)
    zip_of(path, content) if zipped else path.write_bytes(content)
    with pytest.raises(InputError, match=r"claims .* but holds 64"):
        load(path)


def test_oversized_header(tmp_path):
    content = header_claiming("(1, 1, 1, 1)", padding=20_000) + bytes(4)
    with pytest.raises(InputError, match=r"header claims 200\d\d bytes"):
        load(zip_of(tmp_path / "cine.npz", content))


def test_zip_bomb_is_compared_with_the_memory_before_it_is_read(tmp_path, monkeypatch):
    zeros = np.zeros((8, 8, 64, 64), np.float32)
    path = tmp_path / "cine.npz"
    np.savez_compressed(path, dataset=zeros)
    assert path.stat().st_size < zeros.nbytes / 100
    monkeypatch.setattr(data.stored, "available_memory", lambda: 10**6)
    monkeypatch.setattr(dataset.Stored, "samples", lambda *a: pytest.fail("was read"))
    with pytest.raises(InputError, match=r"needs 0.0 GB of memory, but 0.0 GB are free: .*--n-sam"):
        load(path)
    monkeypatch.undo()
    monkeypatch.setattr(data.stored, "available_memory", lambda: 10**6)
    assert len(load(path, n_samples=1).images) == 1  # the remedy


REAL_TYPES = ["u1", "i2", "f2", "f4", "f8"]
FORMS = ["npy", "npz", "compressed", "Fortran order", "first samples"]


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        *((form, dtype) for form in FORMS for dtype in [*REAL_TYPES, "c8", "c16"]),
        *(("complex pairs", dtype) for dtype in REAL_TYPES),
    ],
)
def test_memory_is_what_was_counted(tmp_path, monkeypatch, form, dtype, normalise):
    array = np.zeros((40, 4, 96, 96), dtype)
    array[:, 0, 0, 0] = 1
    if form == "complex pairs":
        array = np.stack((array, array * 0), axis=-1)
    if form == "Fortran order":
        array = np.asfortranarray(array)
    path = tmp_path / "data"
    with path.open("wb") as file:
        if form == "npz":
            np.savez(file, dataset=array)
        elif form == "compressed":
            np.savez_compressed(file, dataset=array)
        else:
            np.save(file, array)
    changes = {"n_samples": 30 if form == "first samples" else None, "normalise": normalise}
    changes["complex_pairs"] = form == "complex pairs"
    counted = []
    monkeypatch.setattr(dataset, "require_memory", lambda needed, *rest: counted.append(needed))
    tracemalloc.start()
    try:
        load(path, **changes)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken <= counted[0] <= 1.2 * taken


@pytest.mark.parametrize("shape", [(9, 8, 32), (0, 8, 32, 36), (9, 8, 0, 36), ()])
def test_wrong_axes(tmp_path, shape):
    with pytest.raises(InputError, match=r"the array is \(.*expected .*n_samples, n_frames, ny, n"):
        load(save(tmp_path, dataset=np.zeros(shape, np.float32)))


def test_complex_data_are_not_made_real_in_silence(tmp_path, images):
    turned = images * np.exp(1j)
    loaded = load(save(tmp_path, dataset=turned)).images
    assert loaded.dtype == torch.complex64
    np.testing.assert_allclose(loaded.numpy(), turned, rtol=1e-6)
    with pytest.raises(InputError, match=r"magnitudes lie in \[.*, 2.*--normalise"):
        load(save(tmp_path, dataset=2 * turned / images.max()))
    normalised = load(save(tmp_path, dataset=2 * turned), normalise=True).images
    torch.testing.assert_close(normalised.abs().amax(dim=(1, 2, 3)), torch.ones(len(images)))


def test_pairs_of_real_and_imaginary_part(tmp_path, images):
    pairs = np.stack((images, images / 2), axis=-1)
    loaded = load(save(tmp_path, dataset=pairs), complex_pairs=True, normalise=True).images
    assert loaded.shape == images.shape
    torch.testing.assert_close(loaded.imag, loaded.real / 2)
    with pytest.raises(InputError, match=r"the array is .* no axis of length 0"):
        load(save(tmp_path, dataset=pairs))
    with pytest.raises(InputError, match="--complex-pairs expects"):
        load(save(tmp_path, dataset=images), complex_pairs=True)


@pytest.mark.parametrize("dtype", ["f2", "f8", ">f4", ">f8", bool, "u1", "i4", ">i2"])
def test_other_types_give_the_same_values(tmp_path, images, dtype):
    values = (images.astype("f2") if "f" in str(dtype) else images > 0.5).astype(np.float32)
    cine = load(save(tmp_path, dataset=values.astype(dtype)))
    assert torch.equal(cine.images, torch.from_numpy(values))
    assert cine.hash == load(save(tmp_path, dataset=values)).hash


def test_damaged_headers_are_one_line(tmp_path, images):
    np.save(tmp_path / "whole.npy", images)
    content = (tmp_path / "whole.npy").read_bytes()
    path = tmp_path / "cine.npy"
    for byte in range(128):
        path.write_bytes(content[:byte] + bytes([content[byte] ^ 0x04]) + content[byte + 1 :])
        with contextlib.suppress(InputError):  # and nothing else
            load(path)
    for shape in ("(-1, -8, 2, 2)", "(True, 1, 1, 1)", "(1, 1", "3"):
        path.write_bytes(header_claiming(shape) + bytes(128))
        with pytest.raises(InputError, match="damaged"):
            load(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path, images, bad):
    images = images.copy()
    images[2, 3, 4, 5] = images[7, 0, 0, 0] = bad
    with pytest.raises(InputError, match=r"2 values are NaN .*, the first at \(2, 3, 4, 5\)"):
        load(save(tmp_path, dataset=images))


@pytest.mark.parametrize(
    ("dtype", "factor", "message"),
    [
        (np.int16, 4000, r"values lie in \[0, .*expected \[0, 1\]: --normalise"),
        (np.float64, 1e300, r"values lie in \[.*e\+299"),  # beyond single precision
        (np.float16, 3, r"values lie in \[.*expected \[0, 1\]"),  # divided in single
    ],
)
def test_values_outside_the_range(tmp_path, images, dtype, factor, message):
    values = (images.astype(np.float64) * factor).astype(dtype)
    path = save(tmp_path, dataset=values)
    with pytest.raises(InputError, match=message):
        load(path)
    exact = values.astype(np.float64)
    exact /= exact.max(axis=(1, 2, 3), keepdims=True)
    found = load(path, normalise=True).images
    np.testing.assert_allclose(found.numpy(), exact, rtol=1e-6)
    assert torch.equal(found.amax(dim=(1, 2, 3)), torch.ones(9))


def test_negative_values(tmp_path, images):
    with pytest.raises(InputError, match="no negative values"):
        load(save(tmp_path, dataset=images - 0.5), normalise=True)


@pytest.mark.parametrize("normalise", [False, True])
def test_constant_samples_stay_finite(tmp_path, images, normalise):
    images = images.copy()
    images[1], images[4] = 0, 0.5
    cine = load(save(tmp_path, dataset=images), normalise=normalise)
    assert cine.images.isfinite().all()
    assert not cine.images[1].any()


def test_frames_in_the_last_axis_are_refused_with_the_call_that_mends_it(tmp_path, images):
    path = save(tmp_path, dataset=np.moveaxis(images, 1, -1))  # (9, 32, 36, 8)
    with pytest.raises(InputError, match=r"last axis is much the shortest.*np\.moveaxis"):
        load(path)
    with np.load(path) as arrays:
        mended = np.moveaxis(arrays["dataset"], -1, 1)
    assert load(save(tmp_path, dataset=mended)).shape == (8, 32, 36)


def test_n_samples_takes_the_first(tmp_path, images):
    path = save(tmp_path, dataset=images, groups=np.arange(9))
    cine = load(path, n_samples=4)
    assert len(cine.images) == len(cine.groups) == len(cine.hashes) == 4
    with pytest.raises(InputError, match="holds 9 samples, --n-samples asks for 10"):
        load(path, n_samples=10)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        *(
            (groups, r"'groups' is .* expected \(9,\) numbers or names")
            for groups in (np.arange(8), np.zeros((9, 1)), np.full(9, np.nan), 1j * np.ones(9))
        ),
        # a patient without a name is not one patient
        (np.array(["a", "", "b", " ", *"cdefg"]), "no name for the samples 1, 3"),
    ],
)
def test_unusable_groups(tmp_path, images, groups, message):
    with pytest.raises(InputError, match=message):
        load(save(tmp_path, dataset=images, groups=groups))


def test_groups_may_be_bytes(tmp_path, images):
    names = np.array([b"patient %d" % i for i in range(7)] + [b"M\xfcller", b"M\xf6ller"])
    groups = load(save(tmp_path, dataset=images, groups=names)).groups.tolist()
    assert groups[:2] == ["patient 0", "patient 1"]  # str, which config.json can hold
    assert groups[7:] == [r"M\xfcller", r"M\xf6ller"]  # not ASCII, and still two patients


def test_float64_may_exceed_one_by_rounding(tmp_path, images):
    values = images.astype(np.float64)
    values[0, 0, 0, 0] = 1 + 2e-8
    loaded = load(save(tmp_path, dataset=values)).images
    assert loaded.max() == 1
    values[0, 0, 0, 0] = 1 + 2e-7
    with pytest.raises(InputError, match=r"expected \[0, 1\]"):
        load(save(tmp_path, dataset=values))


def test_phantom_is_data_like_any_other(monkeypatch, images):
    asked = []
    monkeypatch.setattr(dataset, "load_phantom", lambda *a: asked.append(a) or images)
    cine = load("phantom", n_samples=9, n_frames=8, data_seed=4)
    assert asked == [(9, (8, 192, 192), 4)]
    assert cine.source == "phantom"


def test_remedies_for_other_shapes_and_types_work(tmp_path, images):
    """What the error advises makes a file that loads."""
    fields = np.zeros(images.shape, dtype=[("real", "f4"), ("imag", "f4")])
    fields["real"] = images
    with pytest.raises(InputError, match=r"dataset\['real'\] \+ 1j \* dataset\['imag'\]"):
        load(save(tmp_path, dataset=fields))
    assert load(save(tmp_path, dataset=fields["real"] + 1j * fields["imag"])).images.is_complex()

    slices = images.reshape(3, 3, *images.shape[1:])
    with pytest.raises(InputError, match=r"reshape\(-1, \*dataset\.shape\[2:\]\)"):
        load(save(tmp_path, dataset=slices))
    assert len(load(save(tmp_path, dataset=slices.reshape(-1, *slices.shape[2:]))).images) == 9

    names = np.array([f"p{i}" for i in range(9)], dtype=object)
    np.savez(tmp_path / "names.npz", dataset=images, groups=names)
    with pytest.raises(InputError, match=r"np\.array\(names, dtype=str\)"):
        load(tmp_path / "names.npz")
    mended = load(save(tmp_path, dataset=images, groups=np.array(names, dtype=str)))
    assert mended.groups.tolist() == names.tolist()
