"""A journal: results on disk as they are made, so that a stop loses none of them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from util.errors import InputError
from util.files import not_written


class Journal:
    """Results by key in a file of JSON lines, valid for one identity.

    A file of another identity is replaced, and a last line that a crash left incomplete is
    ignored. Numbers keep all digits.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]):
        """`identity`: everything else that the results depend on."""
        self.path, self.results = path, {}
        header = json.dumps(identity, sort_keys=True)
        lines = path.read_text().splitlines() if path.exists() else []
        if lines[:1] == [header]:
            for line in lines[1:]:
                try:
                    key, result = json.loads(line)
                except ValueError:
                    break
                self.results[key] = result
        # written anew, so that no incomplete line stays in the middle
        self._write("w", header, *(json.dumps(item) for item in self.results.items()))

    def get(self, key: Mapping[str, Any]) -> Any:
        """The result stored under a key; None if there is none."""
        return self.results.get(json.dumps(key, sort_keys=True))

    def add(self, key: Mapping[str, Any], result: Any) -> None:
        """Store a result.

        Raises:
            InputError: it could not be written.
        """
        text = json.dumps(key, sort_keys=True)
        self.results[text] = result
        self._write("a", json.dumps([text, result]))

    def remove(self) -> None:
        """Remove the file, when its results are stored elsewhere."""
        self.path.unlink(missing_ok=True)

    def _write(self, mode: str, *lines: str) -> None:
        try:
            with self.path.open(mode) as file:
                file.writelines(f"{line}\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(not_written(self.path, error)) from None
