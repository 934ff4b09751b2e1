"""Signs of life between the processes of one run: whoever waits for the others finds out if one of them is gone.

Each process counts up a number in the store that they share, from a thread of its own, so that it lives on while its
main thread draws pictures. A waiting process looks at the others' numbers: one that has not moved for `patience_s`
is dead. A process that leaves on purpose says why.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from lib_pivotal.errors import TrainingError

logger = logging.getLogger(__name__)
BEAT_S = 1.0
PATIENCE_S = 20.0
LOOK_S = 0.5
"""How often a waiting process looks at the others."""


class Store(Protocol):
    """Of torch.distributed's stores what is used here."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...
    def set_timeout(self, timeout: timedelta) -> None: ...


class Liveness:
    """This process's signs of life, and the others'."""

    def __init__(
        self, store: Store, *, rank: int, size: int, beat_s: float = BEAT_S, patience_s: float = PATIENCE_S
    ) -> None:
        self._store = store
        self._rank = rank
        self._others = [other for other in range(size) if other != rank]
        self._patience_s = patience_s
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._end = threading.Event()
        store.set_timeout(timedelta(seconds=patience_s))
        self._thread = threading.Thread(target=self._beat, args=(beat_s,), name="pivotal signs of life", daemon=True)
        self._thread.start()

    def wait(self, done: Callable[[], bool]) -> None:
        """Return when `done()` is true.

        Raises:
            TrainingError: another process is gone.
        """
        pause_s, look_at = 0.0002, time.monotonic() + LOOK_S
        while not done():
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.02)
            if time.monotonic() >= look_at:
                if reason := self.departed():
                    raise TrainingError(reason)
                look_at = time.monotonic() + LOOK_S

    def departed(self) -> str:
        """A sentence about a process that is gone; empty while all are there."""
        now = time.monotonic()
        for other in self._others:
            try:
                if self._store.check([f"left/{other}"]):
                    why = self._store.get(f"left/{other}").decode(errors="replace")
                    return f"process {other} of this run has exited: {why}"
                beat = self._store.get(f"beat/{other}") if self._store.check([f"beat/{other}"]) else b""
            except RuntimeError as error:  # the store lives in one of the processes, or in torchrun
                return f"the other processes of this run cannot be reached any more ({str(error).splitlines()[0]})"
            last, since = self._seen.get(other, (None, now))
            if beat != last:
                self._seen[other] = (beat, now)
            elif now - since > self._patience_s:
                return f"process {other} of this run has given no sign of life for {now - since:.0f} s: it was killed"
        return ""

    def leave(self, reason: str) -> None:
        """Tell the others why this process takes no part any more."""
        self._end.set()
        try:
            self._store.set(f"left/{self._rank}", reason or "no reason given")
        except RuntimeError:
            logger.debug("the others cannot be informed", exc_info=True)

    def close(self) -> None:
        """No more signs of life."""
        self._end.set()
        self._thread.join(timeout=5)

    def _beat(self, beat_s: float) -> None:
        count = 0
        while not self._end.is_set():
            count += 1
            try:
                self._store.set(f"beat/{self._rank}", str(count))
            except RuntimeError:
                logger.debug("no sign of life could be given", exc_info=True)
            self._end.wait(beat_s)
