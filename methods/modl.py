"""`modl`: model-based deep learning, with a solver as data consistency.

    z = x + CNN(x);  x = argmin_m |A m - y|^2 + l |m - z|^2

All iterations share the weights of one network and the learnt l. The network has five layers of
convolutions with batch norm. The paper's are 3 x 3 and of single images; here they are 3 x 3 x 3
and see the frames. The minimum has a closed form for one coil; for several it is found by conjugate
gradients, through which gradients pass implicitly (`CoilConsistency.solve`). With batch norm its
running statistics are those of all iterations.

In two dimensions the layers of the paper have 113,154 weights and biases, in three 338,946. Batch
norm, here after all layers but the last, has two numbers a feature and makes biases superfluous.

Reference: H. Aggarwal, M. Mani, M. Jacob, "MoDL: model-based deep learning architecture for inverse
problems", IEEE Trans Med Imaging 38:394-405, 2019.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.baselines import Measured
from methods.layers import run_block
from methods.unrolled import Unrolled, convolutions

LAYERS = 5
FIRST_WEIGHT = 0.05  # l before training
SOLVER_STEPS = 10  # of conjugate gradients


class MoDL(Unrolled):
    """Iterations of one network and a solver."""

    OWN: ClassVar = {"stages": 10, "features": 64}
    WEIGHS_LINES: ClassVar = True

    def __init__(self, stages: int, features: int, batch_norm: bool, real_image: bool, start: str):
        super().__init__(stages, real_image, start)
        self.denoiser = convolutions(self.parts, features, self.parts, LAYERS, batch_norm)
        self.log_weight = nn.Parameter(torch.tensor(math.log(FIRST_WEIGHT)))  # l stays positive

    def stage(
        self, number: int, images: Tensor, measured: Measured, memory: None
    ) -> tuple[Tensor, None]:
        channels = self.as_channels(images)
        correction = run_block(self.denoiser, channels, recompute=self.gradient_checkpointing)
        of_lines = (-self.log_weight).exp()  # 1 / l
        return measured.solve(images + self.as_images(correction), of_lines, SOLVER_STEPS), None
