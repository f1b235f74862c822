"""Raw data of Siemens scanners (twix, `.dat`), read by twixtools; `formats/raw_lines.py` puts its
lines together. Readout oversampling is as the protocol has it.

P. Ehses, twixtools, https://github.com/pehses/twixtools
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from formats.raw_lines import CALIBRATION, HEAD, NOISE, OTHERS, REVERSE, RawGroup, raw_scan
from formats.series import Scan, damage_explained, optional
from util.errors import InputError

SUFFIX = ".dat"
MOST_MEASUREMENTS = 64  # in a file of the newer versions
LONGEST_START = 10_000  # the first number of those is below
OLDER = b"Config"  # the first part of the header of the older version
COUNTERS = {
    "kspace_encode_step_1": "Lin",
    "kspace_encode_step_2": "Par",
    "slice": "Sli",
    "contrast": "Eco",
    "phase": "Phs",
    "repetition": "Rep",
    "set": "Set",
}
FLAGS = {
    "NOISEADJSCAN": NOISE,
    "REFLECT": REVERSE,
    **dict.fromkeys(("PHASCOR", "RTFEEDBACK", "HPFEEDBACK"), OTHERS[0]),
    **dict.fromkeys(("PHASESTABSCAN", "REFPHASESTABSCAN", "noname60"), OTHERS[0]),
}


def is_twix(path: Path) -> bool:
    """Whether a file is raw data of Siemens, by its suffix and its first numbers."""
    if path.suffix.lower() != SUFFIX:
        return False
    with path.open("rb") as file:
        start = file.read(64)
    first, second = np.frombuffer(start[:8].ljust(8, b"\xff"), "<u4").tolist()
    is_newer = first < LONGEST_START and 0 < second <= MOST_MEASUREMENTS
    return is_newer or OLDER in start


def read_twix(path: Path, axes: str | None) -> Scan:
    """The scan in a twix file: the series of all its measurements.

    Raises:
        InputError: twixtools is not installed, the file is damaged, or no Cartesian slices.
    """
    if axes is not None:
        raise InputError(f"{path} is twix, whose header names the axes: leave --axes out")
    twixtools = optional("twixtools")
    with damage_explained(path):
        found = twixtools.read_twix(str(path), parse_pmu=False, parse_geometry=False, verbose=False)
        measurements = {
            f"measurement_{i}": raw_group_of(one, path)
            for i, one in enumerate(found, 1)
            if isinstance(one, dict)
        }
    return raw_scan(path, "twix file", measurements, {})


def raw_group_of(one: Mapping[str, Any], path: Path) -> RawGroup:
    """A measurement of a file."""
    blocks = [
        block
        for block in one["mdb"]
        if not block.is_flag_set("SYNCDATA") and not block.is_flag_set("ACQEND")
    ]
    heads = np.zeros(len(blocks), HEAD)
    for head, block in zip(heads, blocks, strict=True):
        mdh = block.mdh
        head["number_of_samples"], head["active_channels"] = mdh.SamplesInScan, mdh.UsedChannels
        head["center_sample"] = mdh.CenterCol
        head["discard_pre"], head["discard_post"] = mdh.CutOff.Pre, mdh.CutOff.Post
        for name, counter in COUNTERS.items():
            head["idx"][name] = getattr(mdh.Counter, counter)
        bits = {bit for flag, bit in FLAGS.items() if block.is_flag_set(flag)}
        if block.is_flag_set("PATREFSCAN") and not block.is_flag_set("PATREFANDIMASCAN"):
            bits.add(CALIBRATION)
        head["flags"] = sum(1 << (bit - 1) for bit in bits)
    header = one["hdr"]
    sizes = header.get("MeasYaps", {}).get("sKSpace", {})
    of_image = RawGroup(heads, partial(samples_of, blocks, path), 1, 1, 0, 1).imaging
    steps = heads["idx"]["kspace_encode_step_1"][of_image]
    centres = [blocks[i].mdh.CenterLin for i in of_image]
    centre = int(centres[0]) if centres else 0
    last = int(steps.max(initial=0))
    # the middle of k-space is the line of zero frequency, also if lines before it are missing
    ny = max(int(sizes.get("lPhaseEncodingLines", 1)), 2 * centre, 2 * (last - centre) + 1)
    samples = int(heads["number_of_samples"][of_image].max(initial=1))
    oversampling = float(header.get("Dicom", {}).get("flReadoutOSFactor", 2.0))
    base = int(sizes.get("lBaseResolution", round(samples / oversampling)))
    nx = max(samples, round(base * oversampling))
    return RawGroup(heads, partial(samples_of, blocks, path), ny, nx, centre, min(base, nx))


def samples_of(blocks: Sequence[Any], path: Path, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The samples (C, N) of these acquisitions."""
    with damage_explained(path):
        for row in rows:
            yield np.asarray(blocks[row].data, np.complex64)
