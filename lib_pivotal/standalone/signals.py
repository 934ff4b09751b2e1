"""Ctrl-C and SIGTERM as a wish to stop: the step in hand is finished and everything is saved."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Protocol

logger = logging.getLogger(__name__)


class Stoppable(Protocol):
    """What can be asked to end after the step in hand: a run's commands, or a queue's run."""

    @property
    def stopping(self) -> bool:
        """Whether it was asked already."""
        ...

    def stop(self) -> None:
        """Ask it."""
        ...


@contextlib.contextmanager
def stopping_on_signals(commands: Stoppable) -> Iterator[None]:
    """Inside, SIGINT and SIGTERM ask the run to stop; a second SIGINT interrupts at once. Then as it was before.

    A step that is torn in its middle could not be continued exactly. Only a process's main thread can do this;
    elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if commands.stopping and number == signal.SIGINT:
            raise KeyboardInterrupt
        logger.warning("stopping after this step, everything is saved; Ctrl-C once more ends it at once")
        commands.stop()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
