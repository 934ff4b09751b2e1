"""One job at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules import fifo_lock

queue_lock = fifo_lock.FIFOLock()


def wrap_queued_call(func: Callable[..., Any]) -> Callable[..., Any]:
    def queued(*args: Any, **kwargs: Any) -> Any:
        with queue_lock:
            return func(*args, **kwargs)

    return queued
