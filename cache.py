"""A cache of numbers that depend on nothing but what names them: parameters and scores of the
training-free methods.

Each is a small JSON file in `.baseline_cache/`, under the hash of its identity, a dict of all that
it depends on. A file that cannot be read, or a folder that cannot be written, only costs time.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import InputError
from runtime import whole_file

CACHE = Path(".baseline_cache")


def recall(identity: Mapping[str, Any], kind: type) -> Any:
    """What was remembered under `identity`; None if nothing, or nothing legible of this kind."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(_file(identity).read_bytes())
        if content["identity"] == _as_stored(identity) and isinstance(content["found"], kind):
            return content["found"]
    return None


def remember(identity: Mapping[str, Any], found: Any) -> None:
    """Keep what was found, where the folder can be written."""
    with contextlib.suppress(OSError, InputError):
        CACHE.mkdir(exist_ok=True)
        content = json.dumps({"identity": _as_stored(identity), "found": found}, indent=1)
        with whole_file(_file(identity)) as file:
            file.write(content.encode())


def _as_stored(identity: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(identity))


def _file(identity: Mapping[str, Any]) -> Path:
    text = json.dumps(identity, sort_keys=True)
    return CACHE / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
