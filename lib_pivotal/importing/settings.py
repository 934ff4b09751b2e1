"""The door of this room: a file of another trainer in, our settings and a report out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lib_pivotal.config import VERSION, Run, check_run, run_to_dict
from lib_pivotal.errors import ConfigError, Fault
from lib_pivotal.importing import hcp, kgrid, kohya, kohya_dataset, onetrainer
from lib_pivotal.importing.reading import Origin, parse_text, read_bytes, refuse
from lib_pivotal.importing.report import Report
from lib_pivotal.importing.translation import ConfigTranslation

MayRead = Callable[[Path], bool]
OUR_KEYS = frozenset(
    (
        "words",
        "words_common",
        "embeddings",
        "embeddings_common",
        "network",
        "schedule",
        "data",
        "saving",
        "loss",
        "noise",
    )
)


@dataclass(frozen=True)
class Peer:
    """Another trainer: how its files are known, and what translates them."""

    name: str
    title: str
    fits: Callable[[Mapping[str, Any]], bool]
    translate: Callable[[Mapping[str, Any], Origin], ConfigTranslation]


PEERS: tuple[Peer, ...] = (
    Peer("kohya-easy", kohya.EASY_TITLE, kohya_dataset.is_easy, kohya.import_easy),
    Peer("kgrid", kgrid.TITLE, kgrid.is_kgrid, kgrid.import_kgrid),
    Peer("hcp", hcp.TITLE, hcp.is_hcp, hcp.import_hcp),
    Peer("onetrainer", onetrainer.TITLE, onetrainer.is_onetrainer, onetrainer.import_onetrainer),
    Peer("kohya-gui", kohya.GUI_TITLE, kohya.is_gui, kohya.import_kohya_gui),
    Peer("kohya", kohya.TITLE, kohya.is_kohya, kohya.import_kohya),
)
"""In the order in which they are asked."""


@dataclass(frozen=True)
class Imported:
    """What became of a file. `faults` are settings that still need a person, such as a name that is missing."""

    run: Run
    report: Report
    faults: tuple[Fault, ...] = ()

    def over(self, now: Run) -> Run:
        """The imported run, where what it does not say of its name, words and pictures stays as it is `now`."""
        data = self.run.data if self.run.data.folder else replace(self.run.data, folder=now.data.folder)
        embeddings = self.run.embeddings or now.embeddings
        return replace(self.run, name=self.run.name or now.name, embeddings=embeddings, data=data)

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
    plain = parse_text(content, name)
    if is_ours(plain):
        raise ConfigError([Fault(name, "", "is a run.json of this program", "Load it as it is.")])
    peer = detect(plain, name)
    sheet = peer.translate(plain, Origin(name, folder, uploaded, may_read))
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


def is_ours(plain: Any) -> bool:
    """Whether it is a run.json of our own."""
    return (
        isinstance(plain, dict)
        and len(OUR_KEYS & plain.keys()) >= 2
        and isinstance(plain.get("embeddings", plain.get("words", [])), list)
    )


def detect(plain: Any, name: str) -> Peer:
    """Which trainer wrote these settings.

    Raises:
        ConfigError: none that is known; says what the file seems to be.
    """
    what = "it is no mapping of keys to values"
    if isinstance(plain, dict):
        for peer in PEERS:
            if peer.fits(plain):
                return peer
        what = _guess(plain)
    known = "HCP-Diffusion, kgrid's pipeline, kohya's scripts, bmaltais' GUI or OneTrainer"
    raise refuse(name, f"holds the settings of no trainer that is known: {what}", f"Give a training file of {known}.")


def _guess(plain: Mapping[str, Any]) -> str:
    keys = {*plain, *kohya.flat(plain)}
    if {"datasets", "general"} & plain.keys() or {"subsets", "image_dir"} & keys:
        return "it looks like kohya's description of a dataset; give the file itself as data.folder (scan FILE)"
    if {"bs", "pretrained_model", "new_components", "infer_args", "merge"} & plain.keys():
        return "it looks like HCP's settings for making pictures"
    if "pipeline_type" in keys or "image_type" in keys:
        return "it looks like the settings of kgrid's picture pipeline, not of training"
    shown = ", ".join(str(key)[:30] for key in list(plain)[:6])
    return f"its keys are {shown}" if shown else "it is empty"
