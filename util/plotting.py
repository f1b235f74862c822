"""What is used of matplotlib, imported whatever backend the environment names.

Figures are drawn without a backend. But matplotlib fails at its import if `MPLBACKEND` names one
that is not installed, such as that of a notebook in a script that the notebook starts.
"""

import contextlib
import os
import sys

_is_first = "matplotlib" not in sys.modules
_backend = os.environ.pop("MPLBACKEND", None)

import matplotlib  # noqa: E402
from matplotlib import style  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure, FigureBase  # noqa: E402
from matplotlib.image import AxesImage  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

if _backend is not None:
    os.environ["MPLBACKEND"] = _backend
    if _is_first:
        with contextlib.suppress(ValueError):  # then matplotlib chooses, if a figure is shown
            matplotlib.rcParams["backend"] = _backend

__all__ = [
    "Axes",
    "AxesImage",
    "Figure",
    "FigureBase",
    "FigureCanvasAgg",
    "MaxNLocator",
    "Rectangle",
    "matplotlib",
    "style",
]
