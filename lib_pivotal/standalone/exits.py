"""How a command ends: errors that are the user's to mend as one readable text, and the exit status."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from pathlib import Path

from lib_pivotal.errors import PivotalError
from lib_pivotal.files import sentence_of

logger = logging.getLogger(__name__)

UNUSABLE = 2
INTERRUPTED = 130
WRITTEN_TO = ("out", "save", "home")
"""Options that name what a command writes, for errors of the system that name no file (a full disk)."""


def exit_status(parsed: argparse.Namespace) -> int:
    """Call `parsed.run` and turn what it raises into a text on stderr and a status.

    2 for our own errors and those of files and folders, 130 for Ctrl-C, 1 where nobody reads the output any more.
    """
    try:
        status: int = parsed.run(parsed)
        sys.stdout.flush()
        return status
    except PivotalError as error:
        return _told(parsed, str(error))
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # or the interpreter fails again as it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _told(parsed, sentence_of(error, _written_to(parsed)))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED


def _told(parsed: argparse.Namespace, text: str) -> int:
    if getattr(parsed, "verbose", False):
        logger.exception("failed")
    sys.stderr.write(f"{text}\n")
    return UNUSABLE


def _written_to(parsed: argparse.Namespace) -> Path | str:
    found = (getattr(parsed, name, None) for name in WRITTEN_TO)
    return next((place for place in found if place), "")
