"""What the command line and the web API say of a folder and a run: one function a verb, plain data in and out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_pivotal.config import DataConfig, Run, check_run, run_to_dict
from lib_pivotal.data.caption_files import Outcome, caption_changes, records_place, take_back, write_changes
from lib_pivotal.data.dataset import Dataset
from lib_pivotal.data.findings import Remedy
from lib_pivotal.errors import ConfigError, DataError
from lib_pivotal.runs.circumstances import Circumstances
from lib_pivotal.runs.defaults import fitted_run
from lib_pivotal.runs.plan import Plan, make_plan
from lib_pivotal.runs.remedies import apply_remedy, mended
from lib_pivotal.training.scanning import scan_pictures
from lib_pivotal.training.wording import make_wording


def planned(
    folder: Path | str,
    run: Run | None = None,
    *,
    mend: bool = False,
    circumstances: Circumstances | None = None,
    reading: DataConfig | None = None,
) -> tuple[Plan, dict[str, Any]]:
    """The plan of a folder, and it as plain data: `Plan.as_dict()` with `run`, what was planned, and `mended`.

    Without `run` one is fitted to the folder and to the checkpoint of `circumstances`, its captions read as `reading`
    says; `mend` applies the first remedy of each warning and error before, whose labels `mended` has.

    Raises:
        DataError: there is no such folder.
    """
    dataset, run = _with_folder(folder, run, circumstances, reading)
    prompts = circumstances.prompts if circumstances is not None else None
    applied: list[str] = []
    if mend:
        run, applied = mended(run, lambda one: make_plan(dataset, one, prompts=prompts).at_least("warning"))
        dataset = scan_pictures(run.data)  # a remedy may leave pictures out
    plan = make_plan(dataset, run, prompts=prompts)
    return plan, {**plan.as_dict(), "run": run_to_dict(run), "mended": applied}


def remedied(run: Mapping[str, Any], remedy: Any) -> dict[str, Any]:
    """A run with a remedy of a plan applied, as plain data.

    Raises:
        ConfigError, DataError: what is given is no run or no remedy, or they do not fit.
    """
    return run_to_dict(apply_remedy(settings(dict(run)), Remedy.from_dict(remedy)))


def settings(plain: Any) -> Run:
    """A run as settings: words and pictures may be missing.

    Raises:
        ConfigError: another setting has a fault.
    """
    run, faults = check_run(plain)
    faults = [fault for fault in faults if fault.field != "words"]
    if faults:
        raise ConfigError(faults)
    return run


def captions_preview(
    folder: Path | str,
    run: Run | None = None,
    *,
    circumstances: Circumstances | None = None,
    reading: DataConfig | None = None,
) -> dict[str, Any]:
    """What writing captions as they are trained would change: file, before and after of each; nothing is written."""
    dataset, run = _with_folder(folder, run, circumstances, reading)
    found = caption_changes(dataset, make_wording(run, dataset))
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


def captions_written(
    folder: Path | str,
    run: Run | None,
    *,
    home: Path,
    digest: str = "",
    circumstances: Circumstances | None = None,
    reading: DataConfig | None = None,
) -> dict[str, Any]:
    """Write them; the way back is kept below `home`. With a preview's `digest` only if nothing has changed since.

    Raises:
        DataError: the digest is another one, or nothing could be recorded: nothing was written then.
    """
    dataset, run = _with_folder(folder, run, circumstances, reading)
    found = caption_changes(dataset, make_wording(run, dataset))
    if digest and digest != found.digest:
        raise DataError(
            "settings, embeddings or files have changed since the preview, so nothing was written. Preview again."
        )
    if not found.changes:
        return _outcome(Outcome(0))
    record = records_place(home, folder) / f"{time.strftime('%Y%m%d-%H%M%S')}-{found.digest[:6]}.json"
    return {**_outcome(write_changes(found.changes, record)), "record": str(record)}


def captions_taken_back(folder: Path | str, *, home: Path) -> dict[str, Any]:
    """Give the files their captions of before the last time that they were written.

    Raises:
        DataError: none was written from here.
    """
    records = sorted(records_place(home, folder).glob("*.json"))
    if not records:
        raise DataError(f"{folder}: no captions of this folder were written from here; there is nothing to take back.")
    return _outcome(take_back(records[-1]))


def _with_folder(
    folder: Path | str,
    run: Run | None,
    circumstances: Circumstances | None = None,
    reading: DataConfig | None = None,
) -> tuple[Dataset, Run]:
    settings_of = run or Run(data=reading or DataConfig())
    data = replace(settings_of.data, folder=str(folder))
    run_here = replace(settings_of, data=circumstances.scanned_as(data) if circumstances is not None else data)
    dataset = scan_pictures(run_here.data)
    return dataset, run_here if run is not None else fitted_run(dataset, run_here, circumstances=circumstances).run


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {"written": outcome.written, "left": list(outcome.left)}
