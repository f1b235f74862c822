"""TensorBoard logs of a run: scores by epoch, some validation samples as pictures, the settings."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid

from evaluation.scoring import Example
from report.figures import WINDOW
from training.run_folder import TENSORBOARD
from util.errors import InputError
from util.files import as_bytes, not_written


class TensorBoard:
    """The logs in a run's folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], epoch: int):
        """Log into `folder`; drop entries after `epoch`, so that a run can be continued."""
        self.path = folder / TENSORBOARD
        new = not self.path.exists()
        if not new:
            # Readers order files by the second and process in their names: await the next second.
            time.sleep(1 - time.time() % 1)
        with self.explained():
            self.writer = SummaryWriter(str(self.path), purge_step=epoch + 1)
            if new:
                table = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
                table = f"| setting | value |\n|---|---|\n{table}"
                self.writer.add_text("settings", as_bytes(table).decode())

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn a full disk into an InputError."""
        try:
            yield
        except OSError as error:
            raise InputError(not_written(self.path, error)) from None

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        """Log each finite value under its name."""
        with self.explained():
            for name, value in values.items():
                if math.isfinite(value):
                    self.writer.add_scalar(name, value, epoch)
            self.writer.flush()

    def examples(self, epoch: int, examples: Sequence[Example]) -> None:
        """The first frame of some validation samples: aliased, reconstruction and target."""
        for example in examples:
            series = (example.aliased, example.reconstruction, example.target)
            self.images(
                epoch, f"validation/sample_{example.sample:04d}", [images[0] for images in series]
            )

    def images(self, epoch: int, name: str, panels: Sequence[Tensor]) -> None:
        """Panels (Y, X) side by side, all on the window of the data."""
        grid = make_grid([panel.cpu()[None] for panel in panels], nrow=len(panels), pad_value=1)
        with self.explained():
            self.writer.add_image(name, grid.clamp(*WINDOW), epoch)

    def close(self) -> None:
        with self.explained():
            self.writer.close()
