"""The order of the axes of an array: as the user names it, or guessed.

An order is a text with a letter for each axis: x readout, y phase-encoding line, t frame (time),
s slice or sample, c coil, and - for an axis of length 1 that is none of these.

A guess weighs, for every order, how alike neighbours along the time axis are, compared with the
axis along which they are most alike; whether there are fewer frames than lines; whether lines and
columns are similar in number; and whether the order is the format's usual one.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from util.errors import InputError

MEANING = {"x": "readout", "y": "phase encoding", "t": "time", "s": "slice or sample", "c": "coil"}
EXAMPLE = "such as 'x y t' or 's t y x' (x readout, y phase encoding, t time, s slice, c coil)"
UNUSUAL = 0.5  # cost of an order that is not the usual one
CLEARLY = 1.0  # difference in cost at which an order that was given is doubted
BLOCK = 48  # longest part of an axis that is compared, from its middle
LEAST_CHANGE = 1e-3  # below it, neighbours are equally alike
OPPOSITE = 2.0  # the most that neighbours can differ
NAMES = {3: "tyx", 4: "styx", 5: "stcyx"}  # of axes, by how many are longer than 1
MORE_FRAMES = 2.0  # weight of the logarithm of frames over lines


def parse_axes(text: str, shape: Sequence[int], where: str) -> str:
    """The order that a user gives for an array of this shape, a letter an axis.

    Axes of length 1 may be left out.

    Raises:
        InputError: it does not fit the shape.
    """
    letters = text.replace(",", " ").split()
    if len(letters) == 1:
        letters = list(letters[0])
    found = f"{where} is {tuple(shape)}"
    unknown = [letter for letter in letters if letter not in MEANING]
    if unknown or len(set(letters)) < len(letters) or not {"x", "y", "t"} <= set(letters):
        raise InputError(
            f"--axes is {text!r}; expected x, y and t, and s and c where there are such axes, each"
            f" once, {EXAMPLE}; {found}"
        )
    if len(letters) == len(shape):
        return "".join(letters)
    longer = [n for n in shape if n > 1]
    if len(letters) == len(longer):
        rest = iter(letters)
        return "".join(next(rest) if n > 1 else "-" for n in shape)
    raise InputError(
        f"--axes {text!r} names {len(letters)} axes, but {found}, {len(shape)} axes: name each,"
        f" {EXAMPLE}"
    )


def spelled(axes: str) -> str:
    """An order as `--axes` takes it."""
    return " ".join(axes.replace("-", ""))


def middle(shape: Sequence[int]) -> tuple[slice, ...]:
    """The part of an array that `change_along` compares."""
    return tuple(slice((n - min(n, BLOCK)) // 2, (n + min(n, BLOCK)) // 2) for n in shape)


def change_along(block: np.ndarray, axis: int) -> float:
    """How much neighbours along an axis differ: mean |a - b| over mean (|a| + |b|) / 2, where
    neither is zero, as in lines that were not measured."""
    if block.shape[axis] < 2:
        return OPPOSITE
    size = np.abs(np.moveaxis(block, axis, 0)).astype(np.float64)
    first, second = size[:-1], size[1:]
    both = (first > 0) & (second > 0) & np.isfinite(first) & np.isfinite(second)
    total = (first[both] + second[both]).sum() / 2
    return float(np.abs(first[both] - second[both]).sum() / total) if total > 0 else OPPOSITE


class Guess:
    """The costs of all orders of an array.

    Attributes:
        axes: the order of the lowest cost.
    """

    def __init__(self, block: np.ndarray, shape: Sequence[int], usual: Sequence[str], where: str):
        """`block`: the `middle` of the array; `usual`: orders that the format is written in, of
        any number of axes, the most usual first.

        Raises:
            InputError: the array has too few or too many axes.
        """
        self.shape = shape
        longer = [i for i, n in enumerate(shape) if n > 1]
        if len(longer) not in NAMES:
            few = len(longer) < 3
            kind = "which is no series of images" if few else "whose axes cannot be guessed"
            remedy = "choose a series over a heartbeat" if few else f"give --axes, {EXAMPLE}"
            raise InputError(
                f"{where} is {tuple(shape)}, {kind}; expected frames, lines and columns: {remedy}"
            )
        self.change = {i: max(LEAST_CHANGE, change_along(block, i)) for i in longer}
        names = NAMES[len(longer)]
        usual = [order for order in usual if sorted(order) == sorted(names)]
        costs = {}
        for order in map("".join, itertools.permutations(names)):
            at = dict(zip(order, longer, strict=True))
            if abs(order.index("y") - order.index("x")) == 1:
                costs[order] = self._cost(at) + UNUSUAL * (order not in usual)
        # of equal costs the usual order first, then y before x
        rank = {order: i for i, order in enumerate(usual)}
        best = min(
            costs, key=lambda order: (round(costs[order], 6), rank.get(order, 9), order[::-1])
        )
        self.costs, self.best = costs, best
        letters = iter(best)
        self.axes = "".join(next(letters) if n > 1 else "-" for n in shape)

    def _cost(self, at: dict[str, int]) -> float:
        n_frames, ny, nx = (self.shape[at[name]] for name in "tyx")
        unlike = math.log(self.change[at["t"]] / min(self.change.values()))
        many = max(0.0, math.log(n_frames / min(ny, nx)))
        return unlike + MORE_FRAMES * many + abs(math.log(ny / nx))

    def doubt(self, axes: str) -> list[str]:
        """A note if the order that was given looks wrong."""
        cost = self.costs.get(axes.replace("-", ""))  # none of axes that are no guess
        if cost is None or cost - self.costs[self.best] < CLEARLY:
            return []
        return [
            f"the axes are {tuple(self.shape)} and were given as '{spelled(axes)}', but neighbours"
            f" in time should be most alike, and fit '{spelled(self.axes)}' better: look at the"
            " result"
        ]


def to_frames(item: np.ndarray, axes: str) -> np.ndarray:
    """An array in the order `axes`, without s, as (T, C, Y, X)."""
    letters = axes.replace("s", "")
    keep = [i for i, letter in enumerate(letters) if letter != "-"]
    item = item.reshape([item.shape[i] for i in keep])
    named = [letters[i] for i in keep]
    if "c" not in named:
        item, named = item[None], ["c", *named]
    return item.transpose([named.index(name) for name in "tcyx"])


def from_frames(images: np.ndarray, axes: str) -> np.ndarray:
    """Images (S, T, Y, X) in the order `axes`; coils have length 1, or no axis."""
    named = {"s": 0, "t": 1, "y": 2, "x": 3}
    order = [named[letter] for letter in axes if letter in named]
    if "s" not in axes:
        images, order = images[0], [i - 1 for i in order]
    turned = images.transpose(order)
    ones = [i for i, letter in enumerate(axes) if letter in "-c"]
    return np.expand_dims(turned, tuple(ones))
