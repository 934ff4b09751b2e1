"""What Python logs while a run goes on, with tracebacks: kept, and written into the run's folder at its end."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from lib_pivotal.training.logs import AppendedFile

PACKAGE = "lib_pivotal"
RECORDS = 200
"""So many are kept: the oldest go first."""
BEGIN = "Traceback (most recent call last):"
SUFFIX = ".log"


class RunLog(logging.Handler):
    """The last records of this package, formatted with time, level and traceback."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._lines: deque[str] = deque(maxlen=RECORDS)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self._lines.append(self.format(record))

    def add_error(self, error: BaseException) -> None:
        """Keep an error's traceback: of those that we raise on purpose, the logger is told nothing."""
        self._lines.append("".join(traceback.format_exception(error)).rstrip())

    def write(self, path: Path) -> None:
        """Add what was kept to a file; none is made where there is nothing to tell.

        Raises:
            OSError: it cannot be written.
        """
        file = AppendedFile(path)
        for text in self._lines:
            file.append(text + "\n")

    @contextlib.contextmanager
    def listening(self) -> Iterator[RunLog]:
        """Inside, the package's records are kept."""
        logger = logging.getLogger(PACKAGE)
        logger.addHandler(self)
        try:
            yield self
        finally:
            logger.removeHandler(self)


def last_traceback(text: str) -> str:
    """The last traceback in a log, with the error's own line; empty where there is none.

    >>> last_traceback("a\\nTraceback (most recent call last):\\n  File x\\nValueError: y\\n2026-01-01 INFO z: w")
    'Traceback (most recent call last):\\n  File x\\nValueError: y'
    """
    begin = text.rfind(BEGIN)
    if begin < 0:
        return ""
    first, *rest = text[begin:].splitlines()
    found = [first]
    for line in rest:
        if not line.startswith(" ") and found[-1] and not found[-1].startswith((" ", BEGIN)):
            break  # the error's own line was the last
        found.append(line)
    return "\n".join(found).rstrip()
