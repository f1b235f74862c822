"""Sorting the images of DICOM files into slices and frames.

A series is one place of one DICOM series: same SeriesInstanceUID, size and echo, and the same
orientation and position, but for rounding and drift. Frames are sorted by TriggerTime, else by
other times, else by InstanceNumber. A place whose times are each there k times has k acquisitions.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from formats.dicom_headers import ORDER_KEYS, SET_KEYS, TIME_KEYS, Frame
from formats.dicom_places import grouped, has_times, repeats, time_key, with_places

NOTABLE = 0.1  # mm between the images of a slice
UNEVEN = 1.5  # a gap between trigger times over their usual one, at which a frame may be missing
UNKNOWN = "the position of the slice is not given: all images of the series are taken as one slice"
TOGETHER = "{} DICOM series of single images are taken as one series: the same but for their UID"


@dataclass(frozen=True)
class Slice:
    """The images of a series, sorted by time, and what their headers say."""

    name: str
    frames: tuple[Frame, ...]
    notes: tuple[str, ...] = ()
    place: int = 0  # of its series
    acquisition: int = 1
    n_acquisitions: int = 1  # at this place

    @property
    def first(self) -> Frame:
        return self.frames[0]

    @property
    def is_turned(self) -> bool:
        """Whether the phase encoding runs along the rows, from left to right."""
        return self.first.direction == "ROW"


def sorted_slices(frames: Sequence[Frame]) -> tuple[list[Slice], list[str]]:
    """The slices with several frames, by series and position, and notes on what is left out."""
    single = list({(f.uid, f.corner, *f.times.values()): f for f in frames}.values())
    notes = []
    if repeated := len(frames) - len(single):
        notes.append(f"{repeated} of {len(frames)} images that repeat another are left out")
    of_series, joined = by_series(single)
    notes += joined
    slices: list[Slice] = []
    left_out: Counter[str] = Counter()
    numbers: Counter[int] = Counter()
    for series in of_series:
        places, lost = with_places(series)
        notes += [f"{lost} images without a position are left out"] if lost else []
        sets = [one for i, place in enumerate(places) for one in acquisitions(place, i)]
        longest = max(len(one.frames) for one in sets)
        reasons = [reason_to_leave_out(one.frames, longest) for one in sets]
        left_out.update(filter(None, reasons))
        kept = [one for one, reason in zip(sets, reasons, strict=True) if not reason]
        if kept:
            numbers[series[0].number] += 1
            slices += named(kept, numbers[series[0].number])
    notes += [f"{n} slice positions {reason} are left out" for reason, n in left_out.items()]
    return slices, notes


def named(sets: Sequence[Slice], repetition: int) -> list[Slice]:
    """The slices of a series with their names; `repetition`: of the series' number."""
    number = sets[0].first.number
    series = f"series_{number}_{repetition}" if repetition > 1 else f"series_{number}"
    places = {place: i for i, place in enumerate(dict.fromkeys(s.place for s in sets), start=1)}
    slices = []
    for one in sets:
        name = f"{series}_slice_{places[one.place]:02d}"
        name += f"_acquisition_{one.acquisition}" if one.n_acquisitions > 1 else ""
        slices.append(in_time(replace(one, name=name)))
    return slices


def by_series(frames: Sequence[Frame]) -> tuple[list[list[Frame]], list[str]]:
    """The images of each DICOM series, sorted by number, and notes.

    Series of one image at each position are one, if they are of one study, description and echo,
    and of one number, or of times that all differ at a position.
    """
    several: list[list[Frame]] = []
    single: list[list[Frame]] = []
    notes = []
    for series in grouped(frames, [frame.in_series for frame in frames]):
        is_single = all(len(place) == 1 for place in with_places(series)[0])
        (single if is_single else several).append(series)
    for same_number in (True, False):
        rest = [frame for series in single for frame in series]
        keys = [(f.patient, f.study, f.description, f.echo, f.number * same_number) for f in rest]
        single = []
        for alike in grouped(rest, keys):
            places = [place for place in with_places(alike)[0] if len(place) > 1]
            if not same_number:  # which says less
                places = [place for place in places if len(place) > 2 and has_times(place)]
            together = [frame for place in places for frame in place]
            if n_series := len({frame.in_series for frame in together}):
                uid, number = together[0].series, min(frame.number for frame in together)
                several.append([replace(frame, series=uid, number=number) for frame in together])
                notes.append(TOGETHER.format(n_series))
            apart = [frame for frame in alike if frame not in together]
            single += grouped(apart, [frame.in_series for frame in apart])
    return sorted([*several, *single], key=lambda s: (s[0].number, s[0].in_series)), notes


def in_sequence(frame: Frame) -> tuple:
    """The order in which images were measured."""
    times = [frame.times[key] or 0 for key in ("AcquisitionTime", "InstanceNumber")]
    return (*times, str(frame.file), frame.index)


def acquisitions(frames: Sequence[Frame], place: int) -> list[Slice]:
    """The images at a place, as one slice, or as several acquisitions of the same times."""
    sets, told_by = told_apart(sorted(frames, key=in_sequence))
    note = f"its place has {len(sets)} acquisitions, told apart by {told_by}"
    notes = (note,) if told_by else ()
    n = len(sets)
    return [Slice("", tuple(one), notes, place, i, n) for i, one in enumerate(sets, start=1)]


def told_apart(frames: Sequence[Frame]) -> tuple[list[list[Frame]], str]:
    """The acquisitions among images in sequence, and what tells them apart; "": there is one.

    Tags of `SET_KEYS` tell them apart, else the order: images of the same times, or times that
    begin again after equal numbers of images.
    """
    for tag in SET_KEYS:
        parts = grouped(frames, [frame.sets[tag] for frame in frames])
        if at_once(parts) or (tag == "AcquisitionNumber" and of_equal_length(parts)):
            return parts, tag
    key = time_key(frames) or known_times(frames)
    if key is None:
        return [list(frames)], ""
    times = [frame.times[key] or 0.0 for frame in frames]
    labels = [times[:i].count(time) for i, time in enumerate(times)]
    if not repeats(frames):
        labels = [0, *np.cumsum(np.diff(times) < 0).tolist()]
    parts = grouped(frames, labels)
    if repeats(frames) or (at_once(parts) and len({len(part) for part in parts}) == 1):
        return parts, "their order"
    return [list(frames)], ""


def known_times(frames: Sequence[Frame]) -> str | None:
    """The first keyword of `TIME_KEYS` that all images have, with several values."""
    values = {key: {frame.times[key] for frame in frames} for key in TIME_KEYS}
    return next((k for k, found in values.items() if None not in found and len(found) > 1), None)


def at_once(parts: Sequence[Sequence[Frame]]) -> bool:
    """Whether parts of the images of a place are acquisitions: each of several times that differ,
    all of about the same range of times."""
    key = known_times([frame for part in parts for frame in part])
    if key is None or len(parts) < 2 or min(map(len, parts)) < 3:
        return False
    times = [[frame.times[key] or 0.0 for frame in part] for part in parts]
    overlap = min(map(max, times)) - max(map(min, times))
    differ = all(len(set(some)) == len(some) for some in times)
    return differ and overlap > max(max(some) - min(some) for some in times) / 2


def of_equal_length(parts: Sequence[Sequence[Frame]]) -> bool:
    """Whether parts of images without times are as long, and long enough, to be acquisitions."""
    key = known_times([frame for part in parts for frame in part])
    lengths = {len(part) for part in parts}
    return key is None and len(parts) > 1 and len(lengths) == 1 and min(lengths) > 2


def reason_to_leave_out(frames: Sequence[Frame], longest: int) -> str:
    """Why the images at a position are no cine, in words that follow a number; "" if they are."""
    if len(frames) == 1:
        return "with a single image"
    if len(frames) < longest:
        return f"with {len(frames)} images, where others of the series have {longest},"
    times = {frame.times["TriggerTime"] for frame in frames}
    if len(times) == 1 and any(times) and time_key(frames) is None:
        return "whose images are all of one trigger time"
    return ""


def in_time(one: Slice) -> Slice:
    """A slice with its images sorted by time, and notes on times and places."""
    frames, notes = list(one.frames), list(one.notes)
    times = {key: [frame.times[key] for frame in frames] for key in (*TIME_KEYS, *ORDER_KEYS)}
    key = time_key(frames) if has_times(frames) else None
    if key is None:
        differ = [
            k for k in ORDER_KEYS if None not in times[k] and len(set(times[k])) == len(frames)
        ]
        key = differ[0] if differ else None
    n_bad = sum("TriggerTime" in frame.bad for frame in frames)
    if n_bad or key not in TIME_KEYS:
        found = "without trigger times that differ"
        if n_bad:
            found = f"the trigger time of {n_bad} of {len(frames)} images cannot be read"
        elif set(times["TriggerTime"]) == {0}:
            found = "all trigger times are 0"
        notes.append(f"{found}: frames are sorted by {key or 'the names of their files'}")
    frames.sort(key=lambda f: ((f.times[key] if key else None) or 0, str(f.file), f.index))
    if key == "TriggerTime" and len(frames) > 2:
        gaps = np.diff([frame.times[key] or 0 for frame in frames])
        if gaps.max() > UNEVEN * np.median(gaps):
            notes.append(
                f"trigger times are uneven (steps of {gaps.min():g} to {gaps.max():g} ms): frames"
                " may be missing"
            )
    return replace(one, frames=tuple(frames), notes=(*notes, *notes_on_place(frames)))


def frame_time_of(frames: Sequence[Frame]) -> float | None:
    """The time from frame to frame in ms; None if the headers have none, or an uneven one."""
    times = [frame.times["TriggerTime"] for frame in frames]
    if len(times) < 2 or None in times:
        return None
    gaps = np.diff(np.array(times, float))
    usual = float(np.median(gaps))
    return usual if gaps.min() > 0 and gaps.max() <= UNEVEN * usual else None


def notes_on_place(frames: Sequence[Frame]) -> list[str]:
    """Notes on where the images of a slice are, and how they are turned."""
    notes = []
    first = frames[0]
    if first.corner is None and first.location is None:
        notes.append(UNKNOWN)
    elif first.corner is None or first.orientation is None:
        notes.append("slices are told apart by part of their position, as the rest is not given")
    else:
        corners = np.array([frame.corner for frame in frames])
        apart = float(np.linalg.norm(corners - corners[0], axis=1).max())
        if apart > NOTABLE:
            notes.append(f"the positions of its images differ by up to {apart:.2g} mm")
    if len({frame.direction for frame in frames}) > 1:
        assumed = "rows" if first.direction == "ROW" else "columns"
        notes.append(f"the direction of phase encoding differs between images; {assumed} are taken")
    elif not first.direction:
        notes.append("the direction of phase encoding is not given; columns are assumed")
    return notes
