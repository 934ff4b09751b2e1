"""Captions in their files: as they are trained (shown, written, taken back), and those that are missing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from lib_pivotal.commands.datasets import FolderRequest, given_folder
from lib_pivotal.config import DataConfig
from lib_pivotal.confinement import Confinement
from lib_pivotal.data.caption_files import Changes, Outcome, caption_changes, records_place, write_changes
from lib_pivotal.data.caption_files import take_back as take_back_record
from lib_pivotal.errors import DataError
from lib_pivotal.importing.datasets import DATASET_FILES
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.runs.tagging import Tagger
from lib_pivotal.runs.view import RunView
from lib_pivotal.training.pruned_captions import make_pruned_captions


@dataclass(frozen=True)
class CaptionsWritten:
    """How many files were written, which were left and why, and the record of a way back, where there is one."""

    written: int
    left: tuple[str, ...] = ()
    record: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        plain: dict[str, Any] = {"written": self.written, "left": list(self.left)}
        return plain if self.record is None else {**plain, "record": str(self.record)}


@dataclass(frozen=True)
class FillRequest:
    """The folder of `data`, read by its settings, and the name of the tagger that writes what is missing there."""

    data: DataConfig
    tagger: str
    _: KW_ONLY
    folders: Confinement = field(default_factory=Confinement)


@dataclass(frozen=True)
class FillStarted:
    """Captions are being written; `view` shows how far."""

    view: RunView

    @property
    def said(self) -> str:
        """As a sentence or more."""
        return (
            "Captions are being written for the pictures that have none; the line on top tells how far it is, and Stop "
            "ends it. Scan the folder again when it is done."
        )


def preview(request: FolderRequest) -> Changes:
    """What writing captions as they are trained would change; nothing is written.

    Raises:
        ConfigError, FolderError, DataError: see `FolderRequest.open`.
    """
    dataset, run = request.open()
    return caption_changes(dataset, make_pruned_captions(run, dataset))


def preview_as_dict(found: Changes) -> dict[str, Any]:
    """For JSON: file, before and after of each."""
    changes = [
        {
            "key": change.key,
            "file": str(change.place),
            "before": None if change.before is None else change.text_before,
            "after": change.text_after,
        }
        for change in found.changes
    ]
    return {"digest": found.digest, "changes": changes, "several": list(found.several)}


def write(found: Changes, folder: Path | str, *, home: Path, digest: str | None = None) -> CaptionsWritten:
    """Write what `preview` has found for `folder`; the way back is kept below `home`.

    With the `digest` of a preview that was shown only if nothing has changed since.

    Raises:
        DataError: the digest is another one, or nothing could be recorded: nothing was written then.
    """
    if digest is not None and digest != found.digest:
        raise DataError(
            "settings, embeddings or files have changed since the preview, so nothing was written. "
            "Show what would change again"
        )
    if not found.changes:
        return CaptionsWritten(0)
    record = records_place(home, folder) / f"{time.strftime('%Y%m%d-%H%M%S')}-{found.digest[:6]}.json"
    return _written(write_changes(found.changes, record), record)


def take_back(folder: Path | str, *, home: Path, folders: Confinement | None = None) -> CaptionsWritten:
    """Give the files their captions of before the last time that they were written.

    Raises:
        FolderError: the folder may not be written.
        DataError: none was written from here.
    """
    folder = given_folder(folder)
    (folders or Confinement()).check(folder)
    records = sorted(records_place(home, folder).glob("*.json"))
    if not records:
        raise DataError(
            f"{folder}: no captions of this folder were written from here, so there is nothing to take back"
        )
    return _written(take_back_record(records[-1]))


def taggers(manager: RunManager) -> Sequence[Tagger]:
    """What can write captions in this process; empty where nothing can."""
    return manager.backend.taggers()


def fill(manager: RunManager, request: FillRequest) -> FillStarted:
    """Begin to write captions for pictures that have none; watched and stopped as a run.

    Raises:
        ConfigError: no folder is given.
        FolderError: the folder may not be used.
        DataError: there is no such folder.
        HostError: the tagger is not there (says what to do), or a run is going on.
    """
    given_folder(request.data.folder)
    request.folders.check_pictures(request.data, files=DATASET_FILES)
    return FillStarted(manager.write_captions(request.data, request.tagger))


def _written(outcome: Outcome, record: Path | None = None) -> CaptionsWritten:
    return CaptionsWritten(outcome.written, outcome.left, record)
