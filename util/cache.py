"""A cache on disk, keyed by a hash of everything that a result depends on, its code included.

Results are small JSON files in the folder `baselines/` of the cache; the phantom keeps its images
beside them. The cache is the folder `.cache/` beside the code, or the one that the environment
variable CINE_CACHE names. A file that cannot be read, or a folder that cannot be written, only
costs time. The whole folder may be removed at any time.
"""

import ast
import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from util.errors import InputError
from util.files import write_bytes

ROOT = Path(__file__).resolve().parent.parent  # of the project


def cache_folder() -> Path:
    """Where the caches are; it need not exist."""
    return Path(os.environ.get("CINE_CACHE") or ROOT / ".cache")


def recall(identity: Mapping[str, Any], kind: type) -> Any:
    """The result stored under `identity`; None if there is none, or none of this type."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(_file(identity).read_bytes())
        if content["identity"] == _as_stored(identity) and isinstance(content["result"], kind):
            return content["result"]
    return None


def remember(identity: Mapping[str, Any], result: Any) -> bool:
    """Store a result, if the folder can be written; returns whether it is stored."""
    content = json.dumps({"identity": _as_stored(identity), "result": result}, indent=1)
    with contextlib.suppress(OSError, InputError):
        _file(identity).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(_file(identity), content.encode())
        return True
    return False


def forget(identity: Mapping[str, Any]) -> None:
    """Remove the result stored under `identity`, if there is one."""
    with contextlib.suppress(OSError):
        _file(identity).unlink()


def source_hash(*modules: str, follow: bool = True) -> str:
    """A hash of the source of these modules and, with `follow`, of all modules of the project that
    they import.

    With it in its identity, a result is computed again after any edit that may change it. Take it
    when the modules are imported: later the files may differ from the code that runs.
    """
    pending, sources = list(modules), {}
    while pending:
        name = pending.pop()
        path = source_file(name)
        if name not in sources and path is not None:
            sources[name] = path.read_bytes()
            pending += project_imports(path) if follow else []
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(name.encode() + b"\0" + sources[name] + b"\0")
    return digest.hexdigest()[:16]


def source_file(module: str) -> Path | None:
    """The file of a module of the project, by its dotted name; None if it is not one."""
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    return path if path.is_file() else None


def project_imports(path: Path) -> list[str]:
    """Dotted names of the project's modules that a source file imports anywhere, sorted."""
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return sorted(name for name in names if source_file(name) is not None)


def _as_stored(identity: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(identity))


def _file(identity: Mapping[str, Any]) -> Path:
    text = json.dumps(identity, sort_keys=True)
    return cache_folder() / "baselines" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
