"""What images are, measured in their values: phase images, and images interpolated to more lines.

Images are (T, Y, X) real: frame, phase-encoding line, readout.
"""

import numpy as np

JUMP, JUMPING = 0.15, 0.1  # of the range, between neighbouring frames; share of pixels of noise
LEVELS, COMMON = 64, 0.2  # of gray; share of pixels that have the most usual one
MIDDLE = (0.3, 0.7)  # of the range, where a phase of zero is
FEWEST = 1 / 4  # of the lines: the fewest that count as measured
WINDOW = 3  # lines on either side of an edge of k-space
EDGE = 10.0  # dB from the lines inside the edge to those outside


def looks_like_phase(images: np.ndarray) -> bool:
    """Whether values are phases: without signal they jump from frame to frame, or are set to the
    middle of their range; or some are negative."""
    low, high = float(images.min()), float(images.max())
    if low < 0 or low == high or len(images) < 2:
        return low < 0
    change = np.abs(np.diff(images, axis=0)).mean(axis=0) / (high - low)  # (Y, X)
    counts, edges = np.histogram(images, LEVELS, (low, high))
    usual = (edges[counts.argmax()] - low) / (high - low)
    is_common = counts.max() > COMMON * images.size and MIDDLE[0] < usual < MIDDLE[1]
    return bool((change > JUMP).mean() > JUMPING or is_common)


def acquired_lines(
    images: np.ndarray, stated: int | None, reach: float = 1.0
) -> tuple[int | None, list[str]]:
    """The number of lines around the centre of k-space that were measured, if that is less than
    the images have, and a note.

    Args:
        stated: the lines of the scanner, as the header has them. If it does not, the number is
            measured: lines up to an edge where the energy falls on both sides.
        reach: lines of the images for each of these: the field of view of the images over theirs.
    """
    ny = images.shape[1]
    n = edge_of(images) if stated is None else round(stated * max(reach, 1.0))
    if n is None or n >= ny:
        return None, []
    how = "its k-space shows" if stated is None else "its header states"
    over = "" if stated in (n, None) else f" over the middle {n} of k-space,"
    note = f"the scanner measured {stated or n} of {ny} lines,{over} as {how}"
    return n, [f"{note}: the others are interpolated"]


def edge_of(images: np.ndarray) -> int | None:
    """The number of lines around the centre of k-space inside an edge of `EDGE`; None: no edge."""
    ny = images.shape[1]
    energy = (np.abs(np.fft.fft(images, axis=1)) ** 2).mean(axis=(0, 2))
    half = ny // 2
    level = 10 * np.log10(np.maximum(energy, energy.max() * 1e-14))
    level = (
        level[1:half] + level[:-half:-1][: half - 1]
    ) / 2  # of the lines 1, 2, ... of both sides
    best, place = 0.0, 0
    for n in range(max(WINDOW, int(FEWEST * half)), half - WINDOW):
        fall = level[n - WINDOW : n].mean() - level[n : n + WINDOW].mean()
        if fall > best and level[n - WINDOW : n].min() > level[n:].max():
            best, place = fall, n
    return 2 * place if best > EDGE else None
