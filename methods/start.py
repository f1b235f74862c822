"""What a network corrects: the aliased image, or a training-free reconstruction from it.

A start is computed from the aliased image and its mask alone, without gradient. "zero_filled" is
the aliased image itself, as in the reference system; "view_sharing" and "kt_sparse" are the
training-free methods of these names (see `methods/baselines.py`), k-t sparse with a few steps;
"patch" is `patch_low_rank`, nearly to its end. That takes longer than the networks, so that
training makes it once and gives it to them (`training/loading.py`).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from methods.baselines import Measured, kt_sparse, patch_low_rank, view_sharing, zero_filled
from methods.layers import in_float32
from physics.coils import combine
from physics.fourier import join_complex, split_complex
from physics.sense import measurement_of

ZERO_FILLED, VIEW_SHARING = "zero_filled", "view_sharing"
KT_SPARSE, PATCH = "kt_sparse", "patch"
STARTS = (ZERO_FILLED, VIEW_SHARING, KT_SPARSE, PATCH)
KT_THRESHOLD, KT_FALL, KT_STEPS = 0.02, 0.25, 6  # of the k-t sparse start
OF_PATCH = {"first": 0.05, "last": 0.0025, "ratio": 1.4, "n_steps": 100, "exact": 1}
MAGNITUDE_EPSILON = 1e-12  # (1e-6 of the peak)^2: a finite gradient if both parts are zero


def ignores_prior(architecture: Mapping[str, Any]) -> bool:
    """Whether a network of these settings never assumes real-valued images: a U-Net that corrects
    the zero-filled image."""
    return architecture.get("start") == ZERO_FILLED and "data_consistency" in architecture


@torch.no_grad()
def initial_images(name: str, measured: Measured) -> Tensor:
    """The start of a name, but "zero_filled": (B, T, Y, X), real with the real-image prior, else
    complex; computed in single precision, whatever that of the network."""
    with in_float32(measured.known.device):
        if name == KT_SPARSE:
            return kt_sparse(measured, KT_THRESHOLD, KT_FALL, KT_STEPS)
        if name == PATCH:
            return patch_low_rank(measured, **OF_PATCH)  # type: ignore[arg-type]
        return view_sharing(measured)


class InitialImage:
    """The start of a batch in two real parts, and how corrections of the parts give an image.

    Attributes:
        parts: real and imaginary part of the start, (B, T, Y, X) float32 each. With the real-image
            prior a start is real: the second part is then the difference of the zero-filled images
            to it, which shows the aliasing. "zero_filled" never uses the prior.
    """

    def __init__(
        self,
        name: str,
        aliased: Tensor,
        mask: Tensor,
        maps: Tensor | None,
        real_image: bool,
        data_consistency: bool,
        images: Tensor | None = None,
    ):
        """
        Args:
            name: one of `STARTS`.
            aliased, mask, maps: as networks are called with (see `model.py`).
            real_image: assume real-valued images.
            data_consistency: whether `enforce` puts the measured lines back.
            images: what `initial_images` gives, if it was made before.
        """
        self.real_image = real_image and name != ZERO_FILLED
        self.data_consistency = data_consistency
        if name == ZERO_FILLED:
            combined = aliased if maps is None else combine(aliased, maps)
            self.parts = split_complex(combined)
            if not data_consistency:
                return
        self.measured = measurement_of(aliased, mask, maps, self.real_image)
        if name != ZERO_FILLED:
            if images is None:
                images = initial_images(name, self.measured)
            self.parts = self._parts(images)

    @torch.no_grad()
    def _parts(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.real_image:
            return images, zero_filled(self.measured) - images
        return split_complex(images)

    def add_corrections(self, first: Tensor, second: Tensor) -> Tensor:
        """The images (B, T, Y, X) that two corrections give, (B, T, Y, X) float32 each.

        With the real-image prior both correct the start. Otherwise they correct its real and its
        imaginary part, which form a complex image, or without data consistency a magnitude.
        """
        if self.real_image:
            return self.enforce(self.parts[0] + first + second)
        first, second = self.parts[0] + first, self.parts[1] + second
        if not self.data_consistency:
            return magnitude(first, second)
        return self.enforce(join_complex(first, second))

    def enforce(self, images: Tensor) -> Tensor:
        """The images with the measured lines put back, if that was asked for."""
        return self.measured.enforce(images) if self.data_consistency else images


def magnitude(real: Tensor, imaginary: Tensor) -> Tensor:
    """sqrt(real^2 + imaginary^2), with a finite gradient at zero."""
    return (real.square() + imaginary.square() + MAGNITUDE_EPSILON).sqrt()
