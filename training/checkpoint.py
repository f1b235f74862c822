"""Checkpoints: written atomically, and read without executing code from the file.

A checkpoint is a dict of tensors and plain values with the keys in `KEYS`. It is written to a
temporary file in the same folder, which then replaces the old one: a crash never leaves an
incomplete checkpoint. It is read with `weights_only=True`, which executes no code.
"""

import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from methods.arguments import check_call
from model import MODELS, architecture_settings, build_model, channels_last
from util.errors import InputError
from util.files import whole_file
from util.random_streams import Stream, generator

BEST, LAST = "checkpoint_best.pt", "checkpoint_last.pt"
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
FOR_REAL, FOR_COMPLEX = "cascade_phantom", "cascade_phantom_complex"
FOR_COILS = "cascade_phantom_coils"
SHIPPED = {  # by name: the file in WEIGHTS, and its SHA-256
    FOR_REAL: (
        "cascade_phantom.pt",
        "75751ccd91308914cc444963389876e1f747351a22f874315a4048282bf3cd71",
    ),
    FOR_COMPLEX: (
        "cascade_phantom_complex.pt",
        "66adbc5908130f2dbb2c1c44c7711919ead1b08bfaab1bcd8df8a6a8d941f054",
    ),
    FOR_COILS: (
        "cascade_phantom_coils.pt",
        "c08bc0228a28a870527489d447a0a5202c647df7ffdea70d4452556a9935e6a8",
    ),
}
FORMAT = 2
ALWAYS = {"memory": True}  # former settings of networks, with the value that all have now
FORMER = {"cascade": {"start": "kt_sparse"}}  # values of settings that older networks do not name
KEYS = {
    "format": int,  # FORMAT
    "model": str,  # name in model.MODELS
    "architecture": dict,  # settings that build the network
    "weights": dict,  # the network's state_dict, or that of its moving average if there is one
    "training_weights": dict,  # last checkpoint with a moving average: the network itself; else {}
    "settings": dict,  # all settings of the run
    "epoch": int,  # epochs completed
    "step": int,  # steps done of the epoch that was interrupted, else 0
    "epoch_loss": float,  # sum of the sample losses of these steps
    "epoch_seconds": float,  # time of these steps
    "history": list,  # a dict of scores for every completed epoch
    "scores": dict,  # of the last validation
    "best_psnr": float,  # highest mean validation PSNR so far, or that of held-out lines
    "data": dict,  # hash, shape of a sample, masks of a file, hashes of what trained and selected
    "versions": dict,
    "random_states": dict,  # of torch's generators
    "optimizer": dict,  # empty in the best checkpoint, which is for inference only
}


def weights_file(weights: str) -> Path:
    """The file of a setting `initial_weights`: a path, or the name of a file in
    `weights/` (see `SHIPPED`)."""
    given = Path(weights)
    named = WEIGHTS / (SHIPPED[weights][0] if weights in SHIPPED else f"{weights}.pt")
    return named if named.is_file() and not given.is_file() else given


def load_network(weights: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """A trained network, ready for inference: call it as `network(aliased, mask)`.

    Args:
        weights: path of a checkpoint, or the name of weights that come with the project, such as
            "cascade_phantom".

    Raises:
        InputError: the file cannot be used. The network raises it if it is not called with aliased
            images and their mask (`methods/arguments.py`).
    """
    path = weights_file(str(weights))
    network = network_of(load_checkpoint(path), path, device)
    network.register_forward_pre_hook(check_call, with_kwargs=True)
    return network


def network_of(checkpoint: dict[str, Any], path: Path, device: torch.device | str) -> nn.Module:
    """The network of a checkpoint that was read from `path`, ready for inference.

    Raises:
        InputError: it cannot be built.
    """
    architecture = architecture_of(checkpoint, path)
    try:
        network = build_model(checkpoint["model"], **architecture)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} describes a network that cannot be built ({reason})") from None
    load_weights(network, checkpoint, path)
    channels_last(network.to(device))
    return network.eval()


def architecture_of(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """The settings that build a checkpoint's network; InputError if they are not its model's."""
    model = checkpoint["model"]
    if model not in MODELS:
        raise InputError(f"{path} holds the unknown model {model!r}")
    known = architecture_settings(model)
    stored = FORMER.get(model, {}) | checkpoint["architecture"]
    architecture = {k: v for k, v in stored.items() if (k, v) not in ALWAYS.items()}
    if set(architecture) != set(known):
        raise InputError(
            f"{path} describes its {model} by {', '.join(architecture)}, expected"
            f" {', '.join(known)}: use the version of the code that wrote it"
        )
    return architecture


def require_as_shipped(path: Path) -> None:
    """Raise InputError if the file comes with the project and has other contents."""
    expected = dict(SHIPPED.values()).get(path.name)
    if expected is None or path.parent.resolve() != WEIGHTS or not path.is_file():
        return
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    if found != expected:
        raise InputError(
            f"{path} is not the file that comes with the project (SHA-256 {found[:12]}, expected"
            f" {expected[:12]}): restore it, or give your own weights another name"
        )


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write `checkpoint` atomically.

    Raises:
        InputError: it could not be written; the file that was there before is untouched.
    """
    assert checkpoint.keys() == KEYS.keys()
    with whole_file(path) as file:
        torch.save(checkpoint, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read and check a checkpoint; its tensors land on the CPU.

    Raises:
        InputError: the file does not exist, is damaged, or is not a checkpoint of this project.
    """
    require_as_shipped(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist: expected a checkpoint of an earlier run, or one of the names"
            f" {', '.join(SHIPPED)}"
        ) from None
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} holds more than tensors and plain values, or is damaged; none of its code was"
            " executed: expected a checkpoint written by this project"
        ) from None
    except Exception as error:  # torch raises errors of many kinds for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path} cannot be read as a checkpoint ({reason}): expected one of this project"
        ) from None
    wrong = [name for name, kind in KEYS.items() if not _holds(checkpoint, name, kind)]
    if wrong:
        raise InputError(
            f"{path} is not a checkpoint of this project: missing or of the wrong type:"
            f" {', '.join(wrong)}"
        )
    if checkpoint["format"] != FORMAT:
        raise InputError(
            f"{path} has checkpoint format {checkpoint['format']}, this code reads {FORMAT}:"
            " use the version of the code that wrote it"
        )
    return checkpoint


def _holds(checkpoint: Any, name: str, kind: type) -> bool:
    """Whether a checkpoint has a value of the right type under `name`."""
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(name), kind):
        return False
    if name == "data":
        seen = checkpoint["data"].get("seen")
        return isinstance(seen, dict) and {"trained", "selected"} <= seen.keys()
    return True


def load_weights(
    network: nn.Module, checkpoint: dict[str, Any], path: Path, key: str = "weights"
) -> None:
    """Load a checkpoint's weights into the network that it describes.

    Raises:
        InputError: the names or shapes are not the network's, or a value is not finite.
    """
    try:
        network.load_state_dict(checkpoint[key])
    except (RuntimeError, TypeError, AttributeError) as error:
        detail = (str(error).splitlines() or [""])[-1].strip()
        raise InputError(f"{path} does not fit the architecture in it ({detail})") from None
    broken = [name for name, value in network.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise InputError(f"{path} holds weights that are not finite, first in {broken[0]}")


def weights_hash(network: nn.Module) -> str:
    """A hash of all weights and buffers of a network."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's generators that training draws from (dropout)."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(
    checkpoint: dict[str, Any], seed: int, rank: int, device: torch.device
) -> None:
    """Restore the generators of process `rank` from a checkpoint; a process that the run did not
    have before gets numbers of its own."""
    own = [checkpoint["random_states"], *checkpoint["random_states"].get("others", [])][rank:]
    if not own:
        seed_dropout(seed, rank, checkpoint["epoch"], checkpoint["step"])
        return
    torch.set_rng_state(own[0]["cpu"].cpu())
    if device.type == "cuda" and "cuda" in own[0]:
        torch.cuda.set_rng_state(own[0]["cuda"].cpu(), device)
    elif device.type == "mps" and "mps" in own[0]:
        torch.mps.set_rng_state(own[0]["mps"].cpu())


def seed_dropout(seed: int, rank: int, epoch: int = 0, step: int = 0) -> None:
    """Give process `rank` random numbers for dropout that no other process draws."""
    rng = generator(Stream.DROPOUT, seed, rank, epoch, step)
    torch.manual_seed(int(rng.integers(2**63)))
