"""Settings of a run from where they stand: plain data, a run.json, a bundle, and files of other trainers."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from lib_pivotal.bundle.format import META_RUN
from lib_pivotal.bundle.safetensors_file import read_header
from lib_pivotal.config import Run, check_run
from lib_pivotal.confinement import Confinement
from lib_pivotal.errors import BundleError, ConfigError
from lib_pivotal.files import typed_path
from lib_pivotal.importing.reading import SUFFIXES, read_bytes
from lib_pivotal.importing.report import FATES, KeyFate, KeyReport, table
from lib_pivotal.importing.settings import Imported, import_file, import_text, looks_foreign
from lib_pivotal.plain_json import parse_json
from lib_pivotal.runs.presets import read_run_settings

__all__ = [
    "FATES",
    "SUFFIXES",
    "ImportRequest",
    "Imported",
    "KeyFate",
    "KeyReport",
    "import_settings",
    "imported",
    "settings_of",
    "table",
]
"""The commands, and the parts of their answer for whoever shows it."""


@dataclass(frozen=True)
class ImportRequest:
    """Another trainer's settings: a `file`, or `text` with the `name` whose ending tells its format.

    A file that was `uploaded` rests on nothing but what lies beside it; `folders` says what may be read.
    """

    file: str = ""
    _: KW_ONLY
    name: str = ""
    text: str = ""
    uploaded: bool = False
    folders: Confinement = field(default_factory=Confinement)


def import_settings(request: ImportRequest) -> Imported:
    """Another trainer's settings as ours, with a report of what became of each key.

    Raises:
        ConfigError: they cannot be read, or are nobody's.
        FolderError: the file may not be read.
    """
    folders = request.folders
    if request.file:
        folders.check(request.file)
        sent = request.uploaded or folders.folders is not None
        return import_file(typed_path(request.file), uploaded=sent, may_read=folders.allows)
    return import_text(request.text.encode("utf-8", "replace"), request.name, may_read=folders.allows)


def imported(file: Path) -> Imported | None:
    """The same of an uploaded file that may be one of ours; None where it is.

    Raises:
        ConfigError: it cannot be read, or is nobody's.
    """
    if file.suffix.lower() not in SUFFIXES or not looks_foreign(read_bytes(file), file.name):
        return None
    return import_settings(ImportRequest(str(file), uploaded=True))


def settings_of(file: Path) -> Run:
    """The run that a bundle, or a run.json, carries.

    Raises:
        PivotalError: it carries none, or one that cannot be read.
    """
    if file.suffix == ".json":
        return read_run_settings(file)
    text = read_header(file).metadata.get(META_RUN, "")
    if not text:
        raise BundleError(f"{file.name}: carries no settings; it was not made here.")
    try:
        plain = parse_json(text)
    except ValueError as error:
        raise BundleError(f"{file.name}: its settings cannot be read ({error}). Use its run.json.") from None
    run, faults = check_run(plain)
    if faults and not run.embeddings and not run.name:
        raise ConfigError(faults)
    return run
