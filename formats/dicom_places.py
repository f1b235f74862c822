"""Images of one DICOM series by their place: orientation and position along the normal.

Values are compared with each other, not rounded: orientations by their angle; positions are sorted
and cut at gaps. Where gaps are small, the times of the images tell whether a place has several
images of a time.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from formats.dicom_headers import TIME_KEYS, Frame

DEGREES = 1.0  # between orientations of two slices, at least
GAPS = (0.5, 0.1, 0.02)  # mm between two slices, at least; closer if times tell them apart


def grouped(frames: Iterable[Frame], keys: Iterable[Hashable]) -> list[list[Frame]]:
    """The images of each value of a key."""
    groups = defaultdict(list)
    for frame, key in zip(frames, keys, strict=True):
        groups[key].append(frame)
    return list(groups.values())


def with_places(frames: Sequence[Frame]) -> tuple[list[list[Frame]], int]:
    """The images of one DICOM series at each place, sorted by position; and how many have none."""
    places, lost = [], 0
    for alike in grouped(frames, [(frame.shape, frame.echo) for frame in frames]):
        for keys in (("orientation", "corner"), ("corner",), ("location",), ()):
            placed = [f for f in alike if None not in [getattr(f, key) for key in keys]]
            if placed:
                break
        lost += len(alike) - len(placed)
        for group in by_orientation(placed) if "orientation" in keys else [placed]:
            places += by_position(group, positions(group, keys))
    return places, lost


def by_orientation(frames: Sequence[Frame]) -> list[list[Frame]]:
    """The images of each orientation: those whose angles to a neighbour are within `DEGREES`."""
    directions = np.array([frame.orientation for frame in frames]).reshape(-1, 2, 3)
    directions /= np.maximum(np.linalg.norm(directions, axis=-1, keepdims=True), 1e-12)
    known, which = np.unique(directions, axis=0, return_inverse=True)
    close = np.einsum("iak,jak->ija", known, known).min(axis=-1) > np.cos(np.deg2rad(DEGREES))
    labels = np.arange(len(known))
    for near in close:
        labels[np.isin(labels, labels[near])] = labels[near][0]
    return grouped(frames, labels[which.reshape(-1)].tolist())


def positions(frames: Sequence[Frame], keys: Sequence[str]) -> np.ndarray:
    """The positions of images along their common normal, in mm."""
    if "corner" not in keys:
        return np.array([frame.location if keys else 0.0 for frame in frames])
    corners = np.array([frame.corner for frame in frames])
    if "orientation" in keys:
        directions = np.array([frame.orientation for frame in frames]).mean(axis=0)
        return corners @ np.cross(directions[:3], directions[3:])
    along = np.linalg.svd(corners - corners.mean(axis=0))[2][0]  # where they differ most
    return corners @ along


def by_position(frames: Sequence[Frame], values: np.ndarray) -> list[list[Frame]]:
    """The images of each position: the sorted `values` are cut at gaps.

    The gaps are the widest that leave no times repeated; if none do, the widest.
    """
    order = np.argsort(values, kind="stable")
    widest: list[list[Frame]] = []
    for gap in GAPS:
        labels = np.concatenate(([0], np.cumsum(np.diff(values[order]) > gap)))
        places = grouped([frames[i] for i in order], labels.tolist())
        alike = len(places[0]) > 1 and len({len(place) for place in places}) == 1
        if not any(repeats(place) for place in places) and (alike or not widest):
            return places
        widest = widest or places
    return widest


def time_key(frames: Sequence[Frame]) -> str | None:
    """The first keyword whose values tell the times of images: all differ, or most are there
    several times, as in several acquisitions."""
    for key in TIME_KEYS:
        counts = Counter(frame.times[key] for frame in frames)
        n_repeated = sum(n > 1 for n in counts.values())
        tells = n_repeated == 0 or 2 * n_repeated >= len(counts)
        if None not in counts and len(counts) > 1 and tells:
            return key
    return None


def has_times(frames: Sequence[Frame]) -> bool:
    """Whether images have times that all differ."""
    return time_key(frames) is not None and not repeats(frames)


def repeats(frames: Sequence[Frame]) -> bool:
    """Whether images have times of which most are there several times."""
    key = time_key(frames)
    return key is not None and len({frame.times[key] for frame in frames}) < len(frames)
