"""Report a problem: a zip of versions, settings, the end of the log and the last traceback, without names and paths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lib_pivotal.errors import HostError
from lib_pivotal.file_names import refuse_output
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.runs.problem_report import ReportSource, newest_run, report_name, write_report

FOLDER = "reports"
"""Folder below that of runs for the reports of a page."""


def report(manager: RunManager, *, program: Mapping[str, str] | None = None) -> Path:
    """On the run that goes on or went before, else on the newest one in the folder of runs; answers the zip.

    Raises:
        HostError: it cannot be written.
    """
    backend = manager.backend
    runs_folder = backend.runs_folder()
    view = manager.current
    has_log = view is not None and next(view.folder.glob("*.events.jsonl"), None) is not None
    folder = view.folder if view is not None and has_log else newest_run(runs_folder)
    folders = {"runs": runs_folder, "lora": backend.lora_folder(), "working folder": Path.cwd()}
    source = ReportSource(folder, folders, {**(program or {}), "checkpoint": _checkpoint(manager)})
    return write_report(source, runs_folder / FOLDER / report_name())


def report_on(folder: Path, out: Path, *, overwrite: bool = False) -> Path:
    """On a run's folder, or the newest run in a folder of runs.

    Raises:
        HostError: no run is there, or the zip cannot be written.
        FileNameError: there is a file of this name.
    """
    found = newest_run(folder)
    if found is None:
        raise HostError(f"{folder}: no run is there (no NAME.events.jsonl)")
    refuse_output(out, overwrite=overwrite)
    return write_report(ReportSource(found, {"runs": folder, "working folder": Path.cwd()}, {}), out)


def _checkpoint(manager: RunManager) -> str:
    try:
        return manager.backend.checkpoint()
    except HostError as error:
        return f"none: {error}"
