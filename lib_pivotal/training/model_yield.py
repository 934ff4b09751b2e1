"""How a run lets others have the model between two steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class YieldTerms:
    """What a run lends to whoever serves: `write_bundle` writes the bundle as it is now, `wait` returns when the run is
    not paused, `stopping` tells whether it only waits for its end, `say` tells the user in words."""

    write_bundle: Callable[[Path], Path]
    wait: Callable[[], None]
    stopping: Callable[[], bool]
    say: Callable[[str], None]


class ModelYield(Protocol):
    """Lets others have the model between two steps."""

    def wanted(self) -> bool:
        """Whether somebody waits for the model. Asked after every step: must be quick."""
        ...

    def serve(self, terms: YieldTerms) -> None:
        """Give the model back, wait until the run goes on, and take the model again; the network's hooks are off.

        While the run is not stopping, on return the host is as before, though its modules may be others.
        """
        ...
