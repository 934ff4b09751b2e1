"""What the page does, without widgets: scanning, proposing, checking, keeping a step, finding settings again."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_pivotal.commands import datasets, runs, settings
from lib_pivotal.commands.settings import Imported
from lib_pivotal.config import DataConfig, EmbeddingConfig, Run, write_run
from lib_pivotal.config_checks import name_faults
from lib_pivotal.data import tokens
from lib_pivotal.data.lint_warnings import LintWarning, of_problem, worst_first
from lib_pivotal.data.records import Dataset
from lib_pivotal.errors import ConfigError, Fault, HostError, PivotalError
from lib_pivotal.file_names import legal_file_name
from lib_pivotal.networks import registry as networks
from lib_pivotal.runs import defaults, host_defaults, naming, proposal
from lib_pivotal.runs.checkpoint_advice import idle_settings, native_px, suitability_remarks
from lib_pivotal.runs.defaults import Fitted
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.runs.plan import RunPlan
from lib_pivotal.runs.presets import apply_preset, read_run_settings, saved_presets
from lib_pivotal.runs.proposal import EmbeddingRow
from lib_pivotal.training import epochs, scanning
from lib_pivotal.ui.dataset_analysis import AnalysisCache, DatasetAnalysis
from lib_pivotal.ui.run_html import is_active

SCANS_KEPT = 4


@dataclass(frozen=True)
class Checked:
    """A run as the page shows it now: faults by field, how often each embedding would be drawn, what else to know,
    and the settings that mean nothing to the checkpoint."""

    run: Run
    faults: tuple[Fault, ...]
    samples: dict[str, float]
    name_note: tuple[str, str]
    remarks: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()


class PageController:
    """Everything that a page asks for; knows the manager, and keeps the last scans."""

    def __init__(self, manager: RunManager) -> None:
        self.manager = manager
        self._scans: OrderedDict[str, tuple[Dataset, dict[str, Any]]] = OrderedDict()
        self._names: tuple[object, tuple[LintWarning, ...]] = None, ()
        self._lock = threading.Lock()

    # ---- data ----

    def scan(self, folder: str, data: DataConfig | None = None) -> Dataset:
        """Look at a folder anew, by the settings of `data`.

        Raises:
            DataError: there is no such folder.
            ConfigError: no folder is given.
        """
        folder = datasets.given_folder(folder).strip()
        data = replace(data or DataConfig(), folder=folder)
        dataset = datasets.scan_pictures(data)
        with self._lock:
            before = self._scans.get(folder, (None, None))[0]
            if before is not None and before == dataset:
                dataset = before  # nothing changed: what was made of it holds
            self._scans[folder] = dataset, scanning.hangs_on(data)
            self._scans.move_to_end(folder)
            self._names = None, ()
            while len(self._scans) > SCANS_KEPT:
                self._scans.popitem(last=False)
        return dataset

    def dataset(self, folder: str) -> Dataset | None:
        """The last scan of a folder."""
        with self._lock:
            return self._scans.get(folder.strip(), (None, None))[0]

    def follow(self, run: Run) -> None:
        """Scan again where the last scan of the run's folder was made by other settings; never for the first time.

        Raises:
            DataError: the folder is gone.
        """
        with self._lock:
            settings = self._scans.get(run.data.folder.strip(), (None, None))[1]
        if settings is not None and settings != scanning.hangs_on(run.data):
            self.scan(run.data.folder, run.data)

    def recaption(self, folder: str, key: str, captions: Sequence[str]) -> None:
        """Give a picture of a scan other captions; remarks on files stay as the scan found them."""
        with self._lock:
            dataset, settings = self._scans.get(folder.strip(), (None, {}))
            if dataset is None:
                return
            first, more = (captions[0], tuple(captions[1:])) if captions else ("", ())
            pictures = tuple(
                replace(p, caption=first, alternatives=more) if p.key == key else p for p in dataset.pictures
            )
            self._scans[folder.strip()] = replace(dataset, pictures=pictures), settings

    def propose(self, run: Run, *, before: Sequence[EmbeddingConfig] = (), known: bool = False) -> Fitted:
        """Scan the run's folder and fit embeddings to it; at first size, balance, preset and name as well.

        `before` are the embeddings that the last scan proposed: those that differ from it are the user's and stay.
        `known`: this folder was scanned with these settings already, so that they stay.
        """
        run = replace(run, data=self.manager.backend.scanned_as(run.data))
        dataset = self.scan(run.data.folder, run.data)
        around = host_defaults.host_defaults_of(self.manager.backend)
        return defaults.fitted_run(dataset, run, before=before, embeddings_only=known, circumstances=around)

    def with_preset(self, key: str, run: Run, rows: Sequence[EmbeddingRow]) -> Run:
        """The run with a preset's settings, and over them those that the user has chosen for all runs."""
        return self.manager.backend.adjusted(apply_preset(key, run, rows))

    def rows(self, run: Run) -> tuple[EmbeddingRow, ...]:
        """The run's embeddings with what the scanned pictures say of them."""
        analysis = self.analysis(run)
        return (
            tuple(proposal.EmbeddingRow(embedding, 0, 0.0) for embedding in run.embeddings)
            if analysis is None
            else analysis.rows
        )

    def analysis(self, run: Run) -> DatasetAnalysis | None:
        """The scanned folder under these settings; None where it is not scanned."""
        dataset = self.dataset(run.data.folder)
        return None if dataset is None else self._analyses.of(dataset, run, self.manager.backend.prompts())

    @functools.cached_property
    def _analyses(self) -> AnalysisCache:
        return AnalysisCache()

    def tokens(self, text: str) -> int:
        """How many tokens a text has, as the loaded checkpoint reads it; estimated where none is loaded."""
        prompts = self.manager.backend.prompts()
        return len(prompts.token_ids(text)) if prompts is not None else tokens.estimated_tokens(text)

    def plan(self, run: Run) -> RunPlan | None:
        """What the run will do with the scanned folder; None where it is not scanned.

        Raises:
            PivotalError: a setting of sizes is none.
        """
        analysis = self.analysis(run)
        return None if analysis is None else analysis.plan

    def warnings(self, run: Run) -> tuple[LintWarning, ...]:
        """All that is worth a look: of files, embeddings, captions, pictures, samples and names."""
        analysis = self.analysis(run)
        if analysis is None:
            return ()
        try:
            found = list(analysis.plan.warnings)
        except PivotalError:
            found = [of_problem(problem) for problem in analysis.dataset.problems]
        found += self._about_names(run)
        return worst_first(found)

    def _about_names(self, run: Run) -> list[LintWarning]:
        """What the checker of names has against the run's embeddings; faults of spelling stand in the table already."""
        key = (run.name, tuple((embedding.name, embedding.vectors) for embedding in run.embeddings))
        with self._lock:
            known, found = self._names
        if known == key:  # files are looked at for each embedding
            return list(found)
        issues: list[LintWarning] = []
        for embedding in run.embeddings:
            siblings = {other.name: "this run" for other in run.embeddings if other is not embedding}
            for issue in naming.name_issues(
                self.manager.backend,
                embedding.name,
                vectors=embedding.vectors,
                file=f"{run.name}.safetensors",
                siblings=siblings,
            ):
                if issue.level != "info":
                    text = f"{issue.reason}. {issue.remedy}".strip()
                    issues.append(LintWarning("name", "warning", text, (), (embedding.name,)))
        with self._lock:
            self._names = key, tuple(issues)
        return issues

    # ---- before a run ----

    def check(self, run: Run, faults: Sequence[Fault]) -> Checked:
        """Everything that can be said without the model."""
        found = list(faults)
        if not run.data.folder:
            found.append(
                Fault("data.folder", "", "is empty", "Give the folder that holds the pictures, on the Data page.")
            )
        note = self.name_note(run.name)
        if note[0] == "error" and not any(fault.field == "name" for fault in found):
            found.append(Fault("name", run.name, note[1]))
        idle = (*idle_settings(self.manager.backend.model_info()), *networks.idle_settings(run.network.algorithms))
        run = self.settled(run)
        return Checked(run, tuple(found), self.samples(run), note, self.remarks(run), idle)

    def remarks(self, run: Run) -> tuple[str, ...]:
        """What the loaded checkpoint's kind makes of the run."""
        model, dataset = self.manager.backend.model_info(), self.dataset(run.data.folder)
        fitting = None if dataset is None else proposal.fitting_resolution(dataset, largest_px=native_px(model))
        return suitability_remarks(run, model, fitting_px=fitting)

    def settled(self, run: Run) -> Run:
        """The run with the steps that its epochs are, where its folder is scanned."""
        dataset = self.dataset(run.data.folder)
        return run if dataset is None else epochs.with_epoch_steps(run, dataset.pictures)

    def samples(self, run: Run) -> dict[str, float]:
        """How often each embedding is drawn in the run, on average; 0 where nothing is scanned."""
        with contextlib.suppress(PivotalError):
            plan = self.plan(run)
            if plan is not None:
                return {embedding.name: embedding.samples for embedding in plan.embeddings}
        return proposal.samples_of(run, self.rows(run))

    def name_note(self, name: str) -> tuple[str, str]:
        """Of the file's name: a level (`ok`, `warning`, `error`) and what to know."""
        if not name:
            return "warning", "empty: the file will be called pivotal"
        for fault in name_faults(name):
            return "error", f"{fault.problem}. {fault.remedy}"
        try:
            exists = (self.manager.backend.lora_folder() / f"{name}.safetensors").exists()
        except HostError as error:
            return "warning", str(error)
        if exists:
            return "warning", "there is a file of this name: choose another, or tick below that it may be replaced"
        return "ok", f"<lora:{name}:1> is free"

    def start(self, run: Run, faults: Sequence[Fault], *, overwrite: bool = False) -> None:
        """Begin the run; with `overwrite` it may replace files of its name.

        Raises:
            ConfigError: with every fault by field.
            FileNameError: there are files of its name.
            HostError: another run goes on, or there is no model.
        """
        checked = self.check(run, faults)
        if checked.faults:
            raise ConfigError(checked.faults)
        runs.start(self.manager, runs.StartRequest(run, overwrite=overwrite))

    # ---- a run ----

    def snapshot(self) -> dict[str, Any] | None:
        """Of the current run, or the last one."""
        view = self.manager.current
        return None if view is None else view.snapshot()

    def keep(self, step: int) -> str:
        """Copy the bundle that belongs to a step's pictures into the LoRA folder; says what was done.

        Raises:
            HostError: that step has no file.
            FileNameError: there is another file of its name in the folder.
        """
        return runs.keep(self.manager, "current", step=step).said

    # ---- settings of before ----

    def remembered(self) -> Run | None:
        """The settings to show on a fresh page: of the current run, else of the one before; None for neither."""
        view = self.manager.current
        folders = [view.folder] if view is not None else self._run_folders()
        if not folders:
            return None
        found = sorted(folders[0].glob("*.run.json"))
        try:
            return read_run_settings(found[0]) if found else None
        except ConfigError:
            return None

    def _run_folders(self) -> list[Path]:
        """Of all runs, the newest first."""
        found = {path.parent for path in self.manager.backend.runs_folder().glob("*/*.run.json")}
        return sorted(found, key=lambda folder: folder.name, reverse=True)

    def interrupted(self) -> list[str]:
        """Names of run folders that can be continued, the newest first."""
        return runs.interrupted(self.manager)

    def finished(self) -> list[str]:
        """Names of run folders that came to their end and can be made longer, the newest first."""
        return runs.finished(self.manager)

    def running(self) -> bool:
        """Whether a run goes on."""
        return is_active(self.snapshot())

    def presets_folder(self) -> Path:
        """Where users' presets are."""
        return self.manager.backend.runs_folder() / "presets"

    def own_presets(self) -> dict[str, Path]:
        """Users' presets by name."""
        return saved_presets(self.presets_folder())

    def bundles(self) -> list[str]:
        """Files in the LoRA folder, the newest first."""
        folder = self.manager.backend.lora_folder()
        found = [path for path in folder.rglob("*.safetensors") if not path.name.startswith(".")]
        found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        return [path.relative_to(folder).as_posix() for path in found[:500]]

    def run_file(self, run: Run) -> Path:
        """The settings as a file that can be downloaded."""
        name = legal_file_name(run.name) or "pivotal"  # what stands on the page was not checked yet
        path = Path(tempfile.mkdtemp(prefix="pivotal-")) / f"{name}.run.json"
        write_run(path, run)
        return path

    def imported(self, file: Path) -> Imported | None:
        """Another trainer's settings, translated; None for a file that is not another trainer's.

        Raises:
            ConfigError: it cannot be read, or is nobody's.
        """
        return settings.imported(file)

    def settings_of(self, file: Path) -> Run:
        """The run that a bundle, or a run.json, carries.

        Raises:
            PivotalError: it carries none, or one that cannot be read.
        """
        return settings.settings_of(file)
