"""What networks and training-free methods are called with, checked where a user's call arrives.

These are the doors: the networks of `load_network`, and the methods of `baseline`, `calibrated` and
`averaged`. Training calls networks without a door. Shapes and types are looked at on any device;
values only on a CPU, because looking at them would wait for a GPU. A check costs milliseconds and
changes nothing.
"""

import torch
from torch import Tensor, nn

from util.errors import InputError

EVERY = 8  # columns of which one is looked at: all of them tell the same lines
OUTSIDE = 1e-3  # share of the energy that may be outside of the mask: rounding, no lines


def require_measured(
    aliased: Tensor, mask: Tensor, maps: Tensor | None = None, start: Tensor | None = None
) -> None:
    """Raise InputError unless a method can be called with `(aliased, mask)`, or of several coils
    `(aliased, mask, maps)` (see `model.py`); a `start` is not looked at.

    A mask that is not centred is found by its lines. If the images were undersampled by the same
    mask, that takes a fully sampled centre of three lines or more.
    """
    named = {"aliased": aliased, "mask": mask} | ({} if maps is None else {"maps": maps})
    for name, given in named.items():
        if not isinstance(given, Tensor):
            raise InputError(
                f"{name} is of type {type(given).__name__}, expected a torch tensor:"
                " torch.from_numpy makes one of a NumPy array"
            )
    require_shapes(named)
    if aliased.device.type == mask.device.type == "cpu":
        require_values(aliased.detach(), mask)


def require_shapes(named: dict[str, Tensor]) -> None:
    """Raise InputError unless the tensors have the axes and types of a method's arguments."""
    aliased, mask, maps = named["aliased"], named["mask"], named.get("maps")
    axes = "(B, T, Y, X)" if maps is None else "(B, T, C, Y, X)"
    if aliased.dim() != axes.count(",") + 1:
        remedy = (
            "images of several coils need maps"
            if maps is None and aliased.dim() == 5
            else "aliased[None] is a batch of one series"
        )
        raise InputError(f"aliased is {tuple(aliased.shape)}, expected {axes}: {remedy}")
    n_samples, n_frames, *coils, ny, nx = aliased.shape
    expected = {"aliased": tuple(aliased.shape), "mask": (n_samples, n_frames, ny, 1)}
    if maps is not None:
        expected["maps"] = (n_samples, *coils, ny, nx)
    for name, given in named.items():
        if tuple(given.shape) != expected[name]:
            remedy = ": a mask (T, Y) is mask[None, :, :, None]" if given is mask else ""
            raise InputError(
                f"{name} is {tuple(given.shape)}, expected {expected[name]} for aliased images"
                f" {tuple(aliased.shape)}{remedy}"
            )
        if given is not mask and not given.is_complex():
            raise InputError(
                f"{name} is {given.dtype}, expected complex numbers: give them with their phase,"
                " not as magnitudes"
            )


def require_values(aliased: Tensor, mask: Tensor) -> None:
    """Raise InputError unless the values are finite, and the lines of the images those of a centred
    mask."""
    lines = mask.bool()
    if not (mask == lines).all():
        raise InputError(
            "mask has other values than 0 and 1, expected 1 for a measured line: round them, or"
            " give 1 where a line has values"
        )
    if not aliased.sum().isfinite():
        raise InputError(
            "aliased has values that are not finite, expected numbers: find where they come from,"
            " or set them to 0"
        )
    always = lines.all(dim=1)  # (B, Y, 1): in every frame
    around = torch.arange(-1, 2)
    ends, middle = always[:, around], always[:, around + always.shape[1] // 2]
    if (ends.all(dim=1) & ~middle.any(dim=1)).any():
        raise InputError(
            "mask has zero frequency at its first line, expected it at n // 2: make it with"
            " centred=True, or take torch.fft.fftshift(mask, dim=-2), and undersample with that"
        )
    energy = torch.fft.fft(aliased[..., ::EVERY], dim=-2).abs().square().sum(dim=-1, keepdim=True)
    energy = energy.sum(dim=2) if energy.dim() == 5 else energy  # of all coils
    missing = ~torch.fft.ifftshift(lines, dim=-2)
    share = (energy * missing).sum() / energy.sum()
    if share > OUTSIDE:
        raise InputError(
            f"aliased has {share:.0%} of its energy in lines that mask does not have, expected"
            " images undersampled by this mask: centre it by torch.fft.fftshift(mask, dim=-2), or"
            " undersample(images, mask) first"
        )


def check_call(network: nn.Module, args: tuple, kwargs: dict) -> None:
    """`require_measured` as a hook before a network's forward pass."""
    require_measured(*args, **kwargs)
