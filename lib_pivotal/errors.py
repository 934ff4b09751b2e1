"""One family of errors. Each says what is wrong, the value, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class PivotalError(Exception):
    """Base of every error that the library raises on purpose."""


@dataclass(frozen=True)
class Fault:
    """One fault of a configuration: `field` is a dotted path such as `embeddings.0.name`."""

    field: str
    value: Any
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.field} = {self.value!r}: {self.problem}"
        return f"{text}. {self.remedy}" if self.remedy else text


class ConfigError(PivotalError):
    """Every fault of a configuration at once, by field."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"  - {fault}" for fault in self.faults)
        super().__init__(f"{len(self.faults)} setting(s) need attention:\n{lines}")


class FolderError(PivotalError):
    """A file or folder outside those that may be read and written."""


class DataError(PivotalError):
    """A dataset, picture, caption or mask that cannot be used."""


class EmbeddingNameError(PivotalError):
    """An embedding (embedding) that cannot be made, found or spliced into a prompt."""


class NetworkError(PivotalError):
    """A network that cannot be built, attached or read."""


class BundleError(PivotalError):
    """A bundle file that cannot be read, written or verified."""


class FileNameError(BundleError):
    """A name that no file which is written here may have, or that is taken."""


class HostError(PivotalError):
    """The host (checkpoint, device, web UI) cannot do what is asked."""


class StateError(PivotalError):
    """A saved training state that cannot be written or resumed."""


class TrainingError(PivotalError):
    """A run that cannot go on; what was trained so far is kept."""
