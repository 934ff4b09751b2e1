"""The door of this room: a file of another trainer in, our settings and a report out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lib_pivotal.config import VERSION, Run, check_run, run_to_dict
from lib_pivotal.errors import ConfigError, Fault
from lib_pivotal.importing.common import Origin
from lib_pivotal.importing.detect import detect, is_ours
from lib_pivotal.importing.reading import parse_text, read_bytes
from lib_pivotal.importing.report import Report

MayRead = Callable[[Path], bool]


@dataclass(frozen=True)
class Imported:
    """What became of a file. `faults` are settings that still need a person, such as a name that is missing."""

    run: Run
    report: Report
    faults: tuple[Fault, ...] = ()

    def over(self, now: Run) -> Run:
        """The imported run, where what it does not say of its name, words and pictures stays as it is `now`."""
        data = self.run.data if self.run.data.folder else replace(self.run.data, folder=now.data.folder)
        words = self.run.words or now.words
        return replace(self.run, name=self.run.name or now.name, words=words, data=data)

    def to_plain(self) -> dict[str, Any]:
        """For JSON: the contents of run.json, the report, and what still needs a person."""
        faults = [{"field": fault.field, "problem": fault.problem, "remedy": fault.remedy} for fault in self.faults]
        return {"run": run_to_dict(self.run), "report": self.report.to_plain(), "faults": faults}


def import_file(path: Path, *, uploaded: bool = False, may_read: MayRead | None = None) -> Imported:
    """Read a file and what it rests on, beside it and, unless it was `uploaded`, in the folders above.

    `may_read` says which of the files and folders that it names may be looked at (None: all of them).

    Raises:
        ConfigError: it cannot be read, or is nobody's settings.
    """
    folder = path.absolute().parent
    return import_text(read_bytes(path), path.name, folder=folder, uploaded=uploaded, may_read=may_read)


def import_text(
    content: bytes,
    name: str,
    *,
    folder: Path | None = None,
    uploaded: bool = False,
    may_read: MayRead | None = None,
) -> Imported:
    """The same for contents that may have come without a place on this computer; `name` tells the format by its ending.

    Raises:
        ConfigError: it cannot be read, or is nobody's settings.
    """
    origin = Origin(name, folder, uploaded) if may_read is None else Origin(name, folder, uploaded, may_read)
    return translate(parse_text(content, name), origin)


def translate(plain: Any, origin: Origin) -> Imported:
    """Plain values, as `reading.parse_text` gives them, into settings and report.

    Raises:
        ConfigError: they are nobody's settings.
    """
    name = origin.name
    if is_ours(plain):
        raise ConfigError([Fault(name, "", "is a run.json of this program", "Load it as it is.")])
    peer = detect(plain, name)
    sheet = peer.translate(plain, origin)
    run, faults = check_run({"version": VERSION, **sheet.run})
    return Imported(run, sheet.report(peer.name, f"{peer.title} ({name})"), tuple(faults))


def looks_foreign(content: bytes, name: str) -> bool:
    """Whether a file is to be imported, rather than read as a run.json of our own."""
    if Path(name).suffix.lower() != ".json":
        return True
    plain: Any = None
    try:
        plain = parse_text(content, name)
        if is_ours(plain):
            return False
        detect(plain, name)
    except ConfigError:
        ours = {field.name for field in fields(Run)}
        return isinstance(plain, dict) and bool(plain) and not ours & plain.keys()
    return True
