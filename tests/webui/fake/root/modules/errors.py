"""Exceptions that the web UI swallows: remembered, and written to the log."""

from __future__ import annotations

import logging
import sys
from typing import Any

logger = logging.getLogger(__name__)
exception_records: list[dict[str, Any]] = []


def record_exception() -> None:
    error = sys.exc_info()[1]
    if error is not None:
        exception_records.append({"exception": str(error)})


def report(message: str, *, exc_info: bool = False) -> None:
    record_exception()
    logger.error("%s", message, exc_info=exc_info)


def display(e: Exception, task: str, *, full_traceback: bool = False) -> None:
    record_exception()
    logger.error("%s: %s: %s", task or "error", type(e).__name__, e)
