"""The resumable state of a run: written atomically, kept rolling, read without executing anything.

A state is complete or absent: it is written beside its final name, flushed to the disk and renamed. A process killed
at any moment leaves at worst a stray temporary file, which the next write removes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lib_pivotal.bundle.pickles import load_plain
from lib_pivotal.errors import BundleError, StateError
from lib_pivotal.files import TEMPORARY_SUFFIX, replacing

logger = logging.getLogger(__name__)
FORMAT_VERSION = 1
_NAME = re.compile(r"state-(\d{8})\.pt")


def state_path(folder: Path, step: int) -> Path:
    """The file of the state after `step` steps."""
    return folder / f"state-{step:08d}.pt"


def list_states(folder: Path) -> list[Path]:
    """States in `folder`, the newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def save_state(folder: Path, step: int, content: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Write a state (tensors, numbers, text, lists, dicts only) and drop the oldest beyond `keep`.

    Raises:
        StateError: the folder cannot be written; the states that were there stay untouched.
    """
    target = state_path(folder, step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary, temporary.open("wb") as stream:
            torch.save({"format_version": FORMAT_VERSION, "step": step, **content}, stream)
    except (OSError, RuntimeError) as error:
        raise StateError(
            f"cannot write the state {target}: {error}. Free disk space or choose another folder"
        ) from error
    for stray in folder.glob(f".state-*{TEMPORARY_SUFFIX}"):
        stray.unlink(missing_ok=True)
    for old in list_states(folder)[keep:]:
        old.unlink(missing_ok=True)
    return target


def load_state(path: Path) -> dict[str, Any]:
    """Read one state; pickled code is never executed.

    Raises:
        StateError: unreadable, or written by a newer version.
    """
    try:
        content = load_plain(path)
    except BundleError as error:
        raise StateError(f"cannot read the state {path}: {error}. Delete it to resume from the one before") from error
    if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
        found = content.get("format_version") if isinstance(content, dict) else type(content).__name__
        raise StateError(f"{path} has state format {found!r}, this version reads {FORMAT_VERSION}. Start a new run")
    return content


def load_latest_state(folder: Path) -> dict[str, Any] | None:
    """The newest readable state, or None; damaged ones are skipped with a warning."""
    for path in list_states(folder):
        try:
            return load_state(path)
        except StateError as error:
            logger.warning("%s", error)
    return None
