"""What the web UI's process and the one that judges it tell each other."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from tests.faults.moments import Moment

BOARD = "PIVOTAL_FAULTS_BOARD"
DATA = "PIVOTAL_FAULTS_DATA"
"""Variables of the web UI's process: the board's file, its data folder."""


class Board:
    """Numbers that outlive the process that writes them."""

    FIELDS = ("steps", "saved", "first_step", "calls", "released")

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(4 * len(self.FIELDS)))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 4 * len(self.FIELDS))

    def __getitem__(self, name: str) -> int:
        return int(struct.unpack_from("=i", self._memory, 4 * self.FIELDS.index(name))[0])

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("=i", self._memory, 4 * self.FIELDS.index(name), value)

    def clear(self) -> None:
        """For the next run; no first step yet."""
        for name in self.FIELDS:
            self[name] = -1 if name == "first_step" else 0


def sendable(settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON can hold them."""
    return {key: [value.place, value.number] if isinstance(value, Moment) else value for key, value in settings.items()}


def readable(settings: dict[str, Any]) -> dict[str, Any]:
    """The other way round."""
    moments = ("moment", "again")
    return {key: Moment(*value) if key in moments and value else value for key, value in settings.items()}
