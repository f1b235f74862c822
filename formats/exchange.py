"""Files for other programs, and the reconstructions that come back.

`write_test_part` writes what is measured of samples, without their truth: `test.npz` of all, a
MATLAB and a BART file for each. `read_reconstruction` reads images of any program as (N, T, Y, X).
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from data.batches import Batch
from data.stored import GrowingArrays
from formats.arrays import OWN_NAME, require_readable
from formats.axes import parse_axes, spelled, to_frames
from formats.bart import bart_data, bart_pair, bart_variable, in_dimensions
from formats.hdf5 import hdf5_variables
from formats.matlab import mat5_variables, mat_content
from formats.nifti import nifti_variable
from formats.numpy_files import numpy_variables
from formats.reading import kind_of, opened
from formats.variables import (
    IMAGE_NAMES,
    Variable,
    as_numbers,
    complex_variable,
    has_pairs,
    last_part,
    n_long_axes,
)
from physics.fourier import fftc
from util.errors import InputError
from util.files import write_bytes
from util.progress import name_list

ARRAYS, PATTERN = "test.npz", "pattern"
KINDS = ("npz", "mat", "cfl")
READ = "expected a reconstruction as .npz, .npy, .mat, HDF5, .cfl or NIfTI, or a folder of these"
NAMES = (OWN_NAME, f"{OWN_NAME}s", "recon", "rec", *IMAGE_NAMES)  # the first comes first
TRUTH_NAMES = ("target", "truth")  # of files that have both
INDEX = "index"  # the samples of the items, if the file has them
ORDERS = {3: "tyx", 4: "styx"}  # of files that do not state their axes, by their number
NUMBERED = re.compile(r"sample_(\d+)")
AXES_OF = {"kspace": "tcyx", "maps": "cyx", "mask": "ty"}  # of the arrays of a sample


def exported_arrays(batch: Batch) -> dict[str, np.ndarray]:
    """What is measured of the samples of a batch, without their truth.

    Of one coil `kspace` (B, T, Y, X), of several (B, T, C, Y, X) and `maps` (B, C, Y, X) complex64;
    `aliased` (B, T, Y, X) complex64, combined; `mask` (B, T, Y) uint8, and `index` (B,).
    """
    lines = batch.mask if batch.maps is None else batch.mask[:, :, None]
    arrays = {
        INDEX: torch.tensor(batch.samples),
        "kspace": fftc(batch.aliased) * lines,
        "aliased": batch.combined,
        "mask": batch.mask[..., 0].to(torch.uint8),
    }
    if batch.maps is not None:
        arrays["maps"] = batch.maps
    return {name: array.cpu().numpy() for name, array in arrays.items()}


def write_test_part(
    folder: Path,
    batches: Iterable[Batch],
    n: int,
    kinds: Sequence[str],
    masks: Path | None = None,
) -> None:
    """Write the `n` samples of `batches` as files of these `kinds`: `test.npz`, and
    `mat/sample_0003.mat` and `cfl/sample_0003_kspace.cfl`, `_maps` and `_mask` for each sample.

    `masks`: a file of masks, which is copied to `pattern/`; None: there is none.

    Raises:
        InputError: a file could not be written, or scipy is needed and not installed.
    """
    arrays = GrowingArrays(folder / ARRAYS, n)
    for batch in batches:
        found = exported_arrays(batch)
        if "npz" in kinds:
            arrays.add(found)
        for i, sample in enumerate(batch.samples):
            one = {name: values[i] for name, values in found.items() if name != INDEX}
            stem = f"sample_{sample:04d}"
            if "mat" in kinds:
                write_bytes(folder / "mat" / f"{stem}.mat", mat_content(one))
            for name, content in bart_files(stem, one).items() if "cfl" in kinds else ():
                write_bytes(folder / "cfl" / name, content)
    arrays.close()
    if masks is not None:
        write_bytes(folder / PATTERN / masks.name, masks.read_bytes())


def bart_files(stem: str, arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """The contents of BART's files of a sample by name; the map of a single coil is of ones."""
    kspace = arrays["kspace"]
    coils = kspace if kspace.ndim == 4 else kspace[:, None]
    maps = arrays.get("maps", np.ones((1, *kspace.shape[-2:]), np.complex64))
    found = {"kspace": coils, "maps": maps, "mask": arrays["mask"]}
    pairs = (
        bart_pair(f"{stem}_{name}", in_dimensions(values, AXES_OF[name]))
        for name, values in found.items()
    )
    return {name: content for pair in pairs for name, content in pair.items()}


def read_reconstruction(
    path: Path, samples: Sequence[int], shape: Sequence[int], axes: str | None = None
) -> np.ndarray:
    """The images (N, T, Y, X) of `samples` in a file, or in a folder with a file for each, float32
    or complex64, with the scale of the file.

    A folder's files are in the order of their names, or have the samples as `sample_0003` in them;
    a file with `index` names the sample of each item.

    Args:
        shape: (T, Y, X), expected.
        axes: order of the axes, such as "x y t s"; None: BART's and NIfTI's own, else "s t y x".

    Raises:
        InputError: it cannot be read, or is of another shape.
    """
    path = Path(path)
    with opened(path, READ):
        if not path.is_dir():
            return read_items(bart_data(path) or path, samples, shape, axes)
        files = [file for file in sorted(path.iterdir()) if file.is_file()]
        files = [file for file in files if file.suffix.lower() != ".hdr" or bart_data(file) is None]
        by_sample = in_samples(files, samples, path)
        return np.concatenate([read_items(f, [k], shape, axes) for k, f in by_sample])


def in_samples(
    files: Sequence[Path], samples: Sequence[int], folder: Path
) -> list[tuple[int, Path]]:
    """Each sample with its file of a folder."""
    numbers = [(int(found[1]), file) for file in files if (found := NUMBERED.search(file.name))]
    if len(numbers) < len(files) == len(samples):
        return list(zip(samples, files, strict=True))
    of_sample = dict(numbers)
    missing = [sample for sample in samples if sample not in of_sample]
    if missing or len(numbers) > len(of_sample):
        lack = f"none of the samples {name_list(missing)}" if missing else "several of one sample"
        raise InputError(
            f"{folder} has {len(files)} files, {lack}; expected one for each of the {len(samples)}"
            " test samples, with names such as sample_0003"
        )
    return [(k, of_sample[k]) for k in samples]


def read_items(
    path: Path, samples: Sequence[int], shape: Sequence[int], axes: str | None
) -> np.ndarray:
    """The images (N, T, Y, X) of samples in a file; see `read_reconstruction`."""
    variable, order, index = array_of(path, axes is not None)
    where = f"{path}: '{variable.name}'"
    require_readable(variable, where)
    if has_pairs(variable):
        variable = complex_variable(variable)
    if axes is not None:
        order = parse_axes(axes, variable.shape, where)
    images = as_stack(as_numbers(variable.whole()), order, (len(samples), *shape), where)
    if index is None:
        return images
    numbers = index.ravel().tolist()
    if sorted(numbers) != sorted(samples):
        raise InputError(
            f"{path} names the samples {name_list(numbers)} as its '{INDEX}'; expected those of the"
            f" test part, {name_list(samples)}: reconstruct these, or leave '{INDEX}' out"
        )
    return images[[numbers.index(sample) for sample in samples]]


def array_of(path: Path, axes_given: bool) -> tuple[Variable, str | None, np.ndarray | None]:
    """The array of a file that is the reconstruction, the order of its axes as the format has it
    (None: it does not), and the samples of its items (None: it does not say)."""
    kind = kind_of(path)
    if kind == "bart":
        return *bart_variable(path, axes_given), None
    if kind == "nifti":
        variable, _, order = nifti_variable(path)
        return variable, order, None
    readers = {"numpy": numpy_variables, "mat5": mat5_variables}
    if kind in readers:
        variables = readers[kind](path)
    elif kind == "hdf5":
        variables, _ = hdf5_variables(path)
    else:
        raise InputError(f"{path} is of no known format; {READ}")
    index = next((v.whole() for v in variables if last_part(v.name) == INDEX), None)
    return the_reconstruction(variables, path), None, index


def the_reconstruction(variables: Sequence[Variable], path: Path) -> Variable:
    """The array of a known name, or the only one of three long axes."""
    cines = [v for v in variables if v.dtype.kind in "biufcV" and n_long_axes(v) > 2]
    for name in NAMES:
        found = [v for v in cines if last_part(v.name) == name and name not in TRUTH_NAMES]
        if len(found) == 1:
            return found[0]
    if len(cines) != 1:
        listed = ", ".join(f"{v.name!r} {v.shape}" for v in variables) or "none"
        raise InputError(
            f"{path}: its arrays are {listed}; expected one reconstruction: call it '{OWN_NAME}'"
        )
    return cines[0]


def as_stack(
    array: np.ndarray, order: str | None, expected: Sequence[int], where: str
) -> np.ndarray:
    """An array as (N, T, Y, X) of the `expected` shape.

    Args:
        order: of its axes; None: (N, T, Y, X), without N for one sample.

    Raises:
        InputError: it has another shape.
    """
    if order is None:
        if array.ndim > 4:
            array = array.reshape([n for n in array.shape if n > 1])
        if array.ndim not in ORDERS:
            raise InputError(
                f"{where} is {array.shape}; expected images {tuple(expected)} (sample, frame, line,"
                " column): save the reconstruction as such"
            )
        order = ORDERS[array.ndim]
    if "t" not in order:
        raise InputError(f"{where} is {array.shape}, without an axis of time; expected {expected}")
    at = order.find("s")
    items = np.moveaxis(array, at, 0) if at >= 0 else array[None]
    frames = [to_frames(item, order) for item in items]  # (T, C, Y, X) each
    if frames[0].shape[1] > 1:
        raise InputError(
            f"{where} is {array.shape} ('{spelled(order)}'), of {frames[0].shape[1]} coils;"
            " expected one image of all coils: combine them"
        )
    images = np.stack([frame[:, 0] for frame in frames])
    if images.shape != tuple(expected):
        raise InputError(misfit(array.shape, images.shape, expected, where))
    return images


def misfit(stored: Sequence[int], found: Sequence[int], expected: Sequence[int], where: str) -> str:
    """The sentence that images of the shape `found` (N, T, Y, X), `stored` in another, do not have
    the `expected` one: what differs, and what to do."""
    text = f"{where} is {tuple(stored)}"
    wanted = f"{tuple(expected)} (sample, frame, line, column)"
    names = ("test samples", "frames", "lines", "columns")
    differing = [i for i in range(4) if found[i] != expected[i]]
    fitting = next(fitting_orders(stored, expected), None)
    if fitting is not None:
        swapped = sorted(differing) == [2, 3]
        which = "lines and columns are exchanged" if swapped else "its axes are in another order"
        return f"{text}, expected {wanted}: {which}; give --axes '{spelled(fitting)}'"
    if len(differing) == 1:
        (i,) = differing
        remedy = "reconstruct all of the test part, and nothing else"
        if i:
            remedy = "interpolate nothing, and leave nothing out"
        return f"{text} with {found[i]} {names[i]}, expected {expected[i]}, {wanted}: {remedy}"
    return f"{text}, expected {wanted}: reconstruct the exported test part at its own size"


def fitting_orders(stored: Sequence[int], expected: Sequence[int]) -> Iterator[str]:
    """The orders of the axes of an array with which it has the expected shape."""
    longer = [n for n in stored if n > 1]
    letters = {len("styx"): "styx", len("tyx"): "tyx" if expected[0] == 1 else ""}
    lengths = dict(zip("styx", expected, strict=True))
    for order in itertools.permutations(letters.get(len(longer), "")):
        if [lengths[letter] for letter in order] == longer:
            rest = iter(order)
            yield "".join(next(rest) if n > 1 else "-" for n in stored)
