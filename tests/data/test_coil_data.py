"""Training data of several coils, from files to a run."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers import TINY, blurred, load

import dataset
from data.samples import CoilSamples
from phantom.coils import coil_scan
from phantom.scanner import phantom
from train import train
from util.errors import InputError

IMAGES = blurred(phantom(4, (6, 40, 36), seed=3))
SCANS = [coil_scan(image, 3, 1e-4, sample=i) for i, image in enumerate(IMAGES)]
KSPACE, NOISE = (torch.stack(parts).numpy() for parts in zip(*SCANS, strict=True))
FILES = ("a.npz", "a.npy", "a.h5")


def save(folder, name, kspace=KSPACE, **others):
    path = folder / name
    if name.endswith(".npy"):
        np.save(path, kspace)
    elif name.endswith(".npz"):
        np.savez(path, kspace=kspace, **others)
    else:
        with h5py.File(path, "w") as file:
            for key, array in {"kspace": kspace, **others}.items():
                file[key] = array
    return str(path)


@pytest.mark.parametrize("name", FILES)
def test_kspace_becomes_coil_images_whose_combination_is_in_range(tmp_path, name, monkeypatch):
    path = save(tmp_path, name, 1e-5 * KSPACE)
    cine = load(path)
    assert cine.images.shape == (4, 6, 3, 40, 36)
    assert (cine.n_coils, cine.shape) == (3, (6, 40, 36))
    assert cine.images.is_complex()
    assert cine.quality.peaks == pytest.approx([1] * 4, abs=1e-5)
    root = cine.images[1].abs().square().sum(dim=1).sqrt()
    assert root.max().item() == pytest.approx(1, abs=0.02)
    assert torch.corrcoef(torch.stack([root.ravel(), IMAGES[1].ravel()]))[0, 1] > 0.98
    assert "not whitened: the corners of k-space hold signal, too" in cine.notices[0]
    monkeypatch.setattr(dataset, "MAPPED_FROM", 0)
    mapped = load(path, n_samples=3)
    assert isinstance(mapped.images, CoilSamples)
    assert mapped.hashes == cine.hashes[:3]
    torch.testing.assert_close(mapped.images[1], cine.images[1])


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
@pytest.mark.parametrize("noise", [NOISE, NOISE[0]])
def test_a_scan_of_noise_whitens(tmp_path, name, noise):
    path = save(tmp_path, name, noise=noise, groups=np.arange(4))
    cine = load(path)
    assert cine.notices == ["the noise of 3 coils is whitened by a scan of noise"]
    assert cine.groups.tolist() == [0, 1, 2, 3]
    # other noise makes other data
    again = load(save(tmp_path, "b" + name[1:], noise=noise[..., ::-1, :].copy()))
    assert again.hashes != cine.hashes


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
def test_a_mapped_file_is_checked_once_until_it_or_its_noise_changes(tmp_path, name, monkeypatch):
    monkeypatch.setattr(dataset, "MAPPED_FROM", 0)
    path = save(tmp_path, name, noise=NOISE)
    first = load(path)
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "read_coils", lambda *a: pytest.fail("was read again"))
        again = load(path)
        assert again.hashes == first.hashes
        assert again.quality.peaks.tolist() == first.quality.peaks.tolist()
        assert again.notices == first.notices
        assert torch.equal(again.images[2], first.images[2])
        about = Path(path).stat()
        save(tmp_path, name, noise=2 * NOISE)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # as old as before, as large
        with pytest.raises(pytest.fail.Exception):
            load(path)


def test_a_run_on_kspace_names_its_coils_and_scores_the_sense_methods(tmp_path):
    path = save(tmp_path, "a.npz", noise=NOISE)
    settings = TINY | {
        "model": "cascade", "stages": 1, "features": 4, "num_epochs": 1, "split": (2, 1, 1),
        "baselines": ("zero_filled", "cg_sense"), "virtual_coils": 2, "augment": ("flips", "time"),
        "lesions": True, "average": 2,
    }  # fmt: skip
    scores = train(str(tmp_path / "out"), data=path, **settings)
    assert scores["cg_sense"]["psnr"] > scores["zero_filled"]["psnr"]
    text = (tmp_path / "out" / "output.txt").read_text()
    assert "k-space of 3 coils, compressed to 2 virtual coils" in text
    assert "with the noise of the scan" in text
    assert "magnitude images" not in text
    assert (tmp_path / "out" / "maps.png").stat().st_size > 1000
    with np.load(tmp_path / "out" / "reconstructions.npz") as arrays:
        assert arrays["maps"].shape == (1, 2, 40, 36)
        assert arrays["aliased"].shape == (1, 6, 40, 36)


def test_kspace_in_fortran_order_and_names_of_patients_are_read(tmp_path):
    fortran = load(save(tmp_path, "a.npy", np.asfortranarray(KSPACE)))
    assert fortran.hashes == load(save(tmp_path, "b.npy")).hashes
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"], file["groups"] = KSPACE, ["a", "b", "b", "c"]
    assert load(str(tmp_path / "a.h5")).groups.tolist() == ["a", "b", "b", "c"]


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (NOISE[:, 0], r"the noise is \(4, 4096\) complex64 for 3 coils"),
        (NOISE[0, 0], r"expected finite numbers \[n_coils, n\]"),
        (NOISE[:2], r"the noise is \(2, 3, 4096\)"),
        (NOISE * np.array([1, 0, 1])[:, None], "the noise of coil 1 is zero"),
        (np.array("a"), "the noise is"),
    ],
)
def test_other_noise_is_refused(tmp_path, noise, message):
    with pytest.raises(InputError, match=message):
        load(save(tmp_path, "a.npz", noise=noise))


@pytest.mark.parametrize(
    ("kspace", "message"),
    [
        (KSPACE[:, :, 0], r"\[n_samples, n_frames, n_coils, .* one coil is kspace\[:, :, None\]"),
        (KSPACE.real, "float32; expected complex k-space"),
        (KSPACE.transpose(0, 1, 3, 4, 2), "of 6 frames, 40 coils, 36 lines and 3 columns"),
    ],
)
def test_other_kspace_is_refused(tmp_path, kspace, message):
    with pytest.raises(InputError, match=message):
        load(save(tmp_path, "a.npz", kspace))


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
def test_a_mask_has_to_agree_with_kspace(tmp_path, name):
    mask = np.arange(4 * 6 * 40).reshape(4, 6, 40) % 3 > 0
    mask[..., 17:24] = True
    measured = KSPACE * mask[:, :, None, :, None]
    cine = load(save(tmp_path, name, measured, mask=mask))
    np.testing.assert_array_equal(cine.measured, mask)
    one = save(tmp_path, f"one_{name}", KSPACE * mask[:1, :1, None, :, None], mask=mask[0, 0])
    assert load(one, n_samples=2).is_undersampled
    for kspace in (KSPACE, np.roll(measured, 1, axis=3)):
        path = save(tmp_path, f"b_{name}", kspace, mask=mask)
        with pytest.raises(InputError, match="'kspace' has values in lines where 'mask' is 0"):
            load(path)
    with pytest.raises(InputError, match="expected the measured lines"):
        load(save(tmp_path, f"c_{name}", measured, mask=mask[:, :, 1:]))


def test_notes_on_some_samples_name_them(tmp_path):
    rng = np.random.default_rng(0)
    noise = 0.05 * np.abs(KSPACE).max() * rng.standard_normal(KSPACE[2].shape)
    kspace = np.concatenate([KSPACE[:2], (KSPACE[2] + noise)[None], KSPACE[3:]])
    kspace = kspace.astype(np.complex64)
    (first, second) = load(save(tmp_path, "a.npz", kspace)).notices
    assert first.endswith("too, in the samples 0, 1, 3")
    assert second.endswith(", in the samples 2")


def test_settings_that_do_not_fit_kspace_are_refused(tmp_path):
    path = save(tmp_path, "a.npz")
    with pytest.raises(InputError, match="--complex-pairs is for images"):
        load(path, complex_pairs=True)
    given = TINY | {"model": "cascade", "in_channels": 6}
    with pytest.raises(InputError, match="k-space of 3 coils, and --coils simulates others"):
        train(str(tmp_path / "a"), data=path, coils=4, **given)
    with pytest.raises(InputError, match="--augment jitter is for magnitude images"):
        train(str(tmp_path / "b"), data=path, augment=("jitter",), **given)
    with pytest.raises(InputError, match="--real-image"):
        train(str(tmp_path / "c"), data=path, real_image=True, **given)
    with pytest.raises(InputError, match="lines around the centre of k-space were measured in no"):
        train(str(tmp_path / "d"), data=path, **given | {"acc": 20, "sample_n": 1})


def test_hdf5_without_kspace_names_what_it_has(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = np.zeros((2, 3))
    with pytest.raises(InputError, match=r"HDF5 without 'kspace', its arrays are 'images'"):
        load(str(tmp_path / "a.h5"))
