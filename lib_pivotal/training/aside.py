"""How a run lets others have the model between two steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Aside(Protocol):
    """Lets others have the model between two steps."""

    def wanted(self) -> bool:
        """Whether somebody waits for the model. Asked after every step: must be quick."""
        ...

    def serve(
        self,
        *,
        write_bundle: Callable[[Path], Path],
        wait: Callable[[], None],
        stopping: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        """Give the model back, call `wait` (returns when the run is not paused), and take the model again.

        While `stopping` is false, on return the host is as before, though its modules may be others.

        `write_bundle` writes the bundle as it is now; `say` tells the user in words. The network's hooks are off.
        """
        ...
