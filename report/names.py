"""Names of methods in words, for whoever reads a figure or a page.

Files of numbers, settings and flags have the names of `BASELINES` and `MODELS`.
"""

import re

from methods.baselines import BASELINES
from methods.calibration import calibrated_name
from model import MODELS

GROUND_TRUTH = "ground truth"
WORDS = {
    "zero_filled": "zero-filled",
    "hermitian": "Hermitian",
    "hermitian_nearest": "Hermitian nearest frame",
    "hermitian_view_sharing": "Hermitian view sharing",
    "cg_sense": "CG-SENSE",
    "kt_sparse": "k-t sparse",
    "temporal_tv": "temporal TV",
    "low_rank_sparse": "low rank + sparse",
    "unet": "U-Net",
    "unet_resnet": "U-Net + refiner",
    "cnn3d": "3-D U-Net",
    "dc_cnn": "DC-CNN",
    "crnn": "CRNN",
    "varnet": "VarNet",
    "modl": "MoDL",
}  # of the others, the underscores are spaces


def in_words(text: str, count: int = 0) -> str:
    """A text with the methods that it names in words, such as "calibrated cascade"; files, flags
    and names that are not of methods stay as they are. `count`: of names, from the first; 0: all.
    """
    names = "|".join(sorted(map(re.escape, [*BASELINES, *MODELS]), key=len, reverse=True))
    variants = rf"(_adapted)?({calibrated_name('')})?(?:_average(\d+))?"
    return re.sub(rf"(?<![\w./-])({names}){variants}(?![\w/])", _words, text, count=count)


def _words(found: re.Match[str]) -> str:
    method, adapted, calibrated, n_averaged = found.groups()
    words = [WORDS.get(method, method.replace("_", " "))]
    words[:0] = (["calibrated"] if calibrated else []) + (["adapted"] if adapted else [])
    return " ".join(words) + (f", mean of {n_averaged}" if n_averaged else "")
