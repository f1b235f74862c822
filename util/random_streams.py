"""Random numbers: one generator for each purpose, seed and sample.

A generator is keyed by its stream and by the numbers that identify a draw, such as
`(seed, round, sample)`. So a draw depends on nothing else: not on the batch, not on its order, not
on what was drawn before. Different streams never share numbers, even with equal seeds.
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What random numbers are for. The values are part of every result: never change one."""

    TRAINING_MASK = 1
    EVALUATION_MASK = 2
    TRAINING_ORDER = 3
    PHANTOM = 4
    TRAINING_SAMPLE = 5  # augmentation, strip, phase and noise
    EVALUATION_SAMPLE = 6  # phase and noise
    ADAPTATION = 7  # lines and strips of scan-specific fine-tuning
    DROPOUT = 8  # of all processes of a run but the first
    COILS = 9  # places of receive coils, and their noise
    HELD_OUT = 10  # lines by which a training-free method is chosen
    TRAINING_STRIP = 11  # strips of samples whose other draws are of a pool
    HIDDEN = 12  # lines that are hidden in training without the truth
    HELD_OUT_LINES = 13  # by which methods are scored without the truth


def generator(stream: Stream, *key: int) -> np.random.Generator:
    """The random generator of a stream for this key of non-negative numbers."""
    return np.random.default_rng([int(stream), *(int(number) for number in key)])
