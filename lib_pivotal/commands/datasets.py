"""Folders of pictures: what is in them, what a run will do with them, and what one click fixes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

from lib_pivotal.config import DataConfig, Run, run_to_dict
from lib_pivotal.config_schema import parse
from lib_pivotal.confinement import Confinement
from lib_pivotal.data.lint import UNNAMED_MARK, mark_told, unnamed_mark
from lib_pivotal.data.lint_warnings import Fix, LintWarning
from lib_pivotal.data.records import Dataset, DatasetProblem
from lib_pivotal.data.tags import tag_shares
from lib_pivotal.errors import ConfigError, Fault
from lib_pivotal.importing.datasets import DATASET_FILES
from lib_pivotal.runs.defaults import fitted_run
from lib_pivotal.runs.fixes import apply_first_fixes, apply_fix
from lib_pivotal.runs.host_defaults import HostDefaults
from lib_pivotal.runs.plan import RunPlan, make_plan
from lib_pivotal.runs.presets import run_settings
from lib_pivotal.training import scanning
from lib_pivotal.training.scanning import cut_as, with_settings

TAGS_TOLD = 40
ROUNDS_OF_FIXES = 2
"""A fix may change what a scan finds, and so what the next plan warns of."""


@dataclass(frozen=True)
class ScanRequest:
    """A folder, and settings of a run's `data` (`{"layout": "kohya"}`); `folders` says what may be read."""

    folder: Path | str
    settings: Mapping[str, Any] = field(default_factory=dict)
    _: KW_ONLY
    circumstances: HostDefaults = field(default_factory=HostDefaults)
    folders: Confinement = field(default_factory=Confinement)

    def data(self) -> DataConfig:
        """The settings with the folder.

        Raises:
            ConfigError: a setting is wrong; all faults at once.
            FolderError: the folder may not be read.
        """
        data, faults = parse(DataConfig, {**self.settings, "folder": given_folder(self.folder)}, path="data.")
        if faults:
            raise ConfigError(faults)
        self.folders.check_pictures(data, files=DATASET_FILES)
        return data


@dataclass(frozen=True)
class FolderRequest:
    """A folder and a run over it; without `run` one is fitted, its captions read as `reading` says."""

    folder: Path | str
    run: Run | None = None
    _: KW_ONLY
    reading: DataConfig = field(default_factory=DataConfig)
    circumstances: HostDefaults = field(default_factory=HostDefaults)
    folders: Confinement = field(default_factory=Confinement)

    def open(self) -> tuple[Dataset, Run]:
        """The folder scanned, and the run over it.

        Raises:
            ConfigError: no folder is given.
            FolderError: the folder, or one that the run names, may not be read.
            DataError: there is no such folder.
        """
        run = self.run or Run(data=self.reading)
        run = replace(run, data=replace(run.data, folder=given_folder(self.folder)))
        self.folders.check_run(run, files=DATASET_FILES)
        run = replace(run, data=self.circumstances.scanned_as(run.data))
        dataset = scan_pictures(run.data)
        if self.run is None:
            run = fitted_run(dataset, run, circumstances=self.circumstances).run
        return dataset, run


@dataclass(frozen=True)
class Planned:
    """A plan, the run that was planned, and the labels of the fixes that were applied before."""

    plan: RunPlan
    run: Run
    fixed: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON: `RunPlan.as_dict()` with `run` and `fixed`."""
        return {**self.plan.as_dict(), "run": run_to_dict(self.run), "fixed": list(self.fixed)}


def given_folder(folder: Path | str) -> str:
    """A folder as it was given.

    Raises:
        ConfigError: none was: what is empty would else be the folder that the process runs in.
    """
    if not str(folder).strip():
        raise ConfigError([Fault("data.folder", "", "is empty", "Give the folder that holds the pictures.")])
    return str(folder)


def scan_pictures(data: DataConfig) -> Dataset:
    """The pictures of a run's `data.folder`, also where another trainer's dataset file describes them.

    Raises:
        DataError: there is no such folder, or it is not of that layout.
    """
    return scanning.scan_pictures(data, files=DATASET_FILES)


def scan(request: ScanRequest) -> dict[str, Any]:
    """What is in a folder: layout, sources, counts, concepts with their pictures, sizes, the most frequent tags, and
    every problem.

    Raises:
        ConfigError: a setting is wrong; all faults at once.
        FolderError: the folder may not be read.
        DataError: there is no such folder, or it is not of that layout.
    """
    data = request.circumstances.scanned_as(request.data())
    dataset = scan_pictures(data)
    asked = with_settings(Run(data=data), dataset.settings).data  # what the folder's own file says of captions
    return scan_report(dataset if "keep_separator" in request.settings else cut_as(asked, dataset))


def scan_report(dataset: Dataset) -> dict[str, Any]:
    """The same of a folder that is scanned."""
    report = dataset.summary()
    for name, keys in dataset.concepts.items():
        report["concepts"][name]["keys"] = list(keys)
    flat = [picture.flat for picture in dataset.pictures]
    if mark := unnamed_mark(dataset.pictures):
        problem = DatasetProblem("info", UNNAMED_MARK, f'{mark_told(mark)} (here: --keep-separator "{mark}").')
        report["problems"].append(problem.as_dict())
    report["tags"] = {item.tag: round(item.share, 4) for item in tag_shares(flat)[:TAGS_TOLD]}
    return report


def plan(request: FolderRequest, *, fix: bool = False) -> Planned:
    """What a run will do with a folder; `fix` applies the first fix of each warning and error before.

    Raises:
        ConfigError, FolderError, DataError: see `FolderRequest.open`.
    """
    dataset, run = request.open()
    prompts = request.circumstances.prompts
    if not fix:
        return Planned(make_plan(dataset, run, prompts=prompts), run)

    def warnings(one: Run) -> Sequence[LintWarning]:
        return make_plan(dataset, one, prompts=prompts).at_least("warning")

    def scan_again(one: Run) -> None:  # a fix may leave pictures out
        nonlocal dataset
        dataset = scan_pictures(one.data)

    run, labels = fix_all(run, warnings, scan_again=scan_again)
    return Planned(make_plan(dataset, run, prompts=prompts), run, tuple(labels))


def fix_all(
    run: Run, warnings: Callable[[Run], Sequence[LintWarning]], *, scan_again: Callable[[Run], None]
) -> tuple[Run, list[str]]:
    """The run after the first fix of each of its warnings and errors, and the labels of those applied."""
    done: list[str] = []
    for _ in range(ROUNDS_OF_FIXES):
        run, labels = apply_first_fixes(run, warnings)
        if not labels:
            break
        done += labels
        scan_again(run)
    return run, done


def fix(run: Mapping[str, Any], chosen: Any) -> dict[str, Any]:
    """A run with one fix of a plan applied, as plain data.

    Raises:
        ConfigError, DataError: what is given is no run or no fix, or they do not fit.
    """
    return run_to_dict(apply_fix(run_settings(dict(run)), Fix.from_dict(chosen)))
