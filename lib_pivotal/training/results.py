"""Which files a run would write, and whether they are another run's: asked before anything starts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_pivotal.bundle.format import META_RUN
from lib_pivotal.bundle.safetensors_file import read_header
from lib_pivotal.config import Run, run_to_dict, upgraded
from lib_pivotal.errors import BundleError
from lib_pivotal.file_names import refuse_taken
from lib_pivotal.files import is_taken
from lib_pivotal.plain_json import parse_json

NAMELESS = "pivotal"
"""What a run without a name is called."""


@dataclass(frozen=True)
class Results:
    """The files of a run, told by what stays the same when it is made longer, saved more often, its pictures are moved
    or its embeddings pruned."""

    name: str
    embeddings: tuple[str, ...]
    embedding_files: bool
    identity: Any

    @classmethod
    def of(cls, run: Run) -> Results:
        """Those of a run."""
        embeddings = tuple(embedding.name for embedding in run.embeddings)
        return cls(run.name or NAMELESS, embeddings, run.saving.embedding_files, _identity(run_to_dict(run)))

    def refuse_taken(self, folder: Path, *, resume: bool = False, overwrite: bool = False) -> None:
        """Refuse a run that would write over files in `folder` that it was not told to replace.

        A run that goes on may replace its own files. States are not asked for: each run has a folder of its own for
        them.

        Raises:
            FileNameError: which files are there.
        """
        if overwrite:
            return
        there = self.files_there(folder)
        if resume:
            there = self._not_its_own(there)
        remedy = "Give the run another name, or say that it may be replaced (overwrite)"
        refuse_taken(there, overwrite=False, remedy=remedy + ("." if resume else ", or continue that run (resume)."))

    def files_there(self, folder: Path) -> list[Path]:
        """Files in `folder` that a run of this name writes or may write: the last one, those of steps, and embeddings'
        own.

        None where there is no folder, or nobody may look into it: nothing can be written over there either.
        """
        try:
            entries = list(folder.iterdir())
        except OSError:
            return []
        last, *of_embeddings = self.last_files
        of_step = _of_a_step(self.name)
        of_steps = sorted(path for path in entries if of_step.fullmatch(path.name))
        found = [folder / last, *of_steps, *(folder / name for name in of_embeddings)]
        return [path for path in dict.fromkeys(found) if is_taken(path)]

    @property
    def last_files(self) -> tuple[str, ...]:
        """Names of the files that the run leaves at its end: the bundle, and embeddings' own."""
        name, found = self.name, [f"{self.name}.safetensors"]
        if self.embedding_files:
            found += [f"{embedding}.safetensors" for embedding in self.embeddings if embedding != name]
            found += [f"{embedding}-word.safetensors" for embedding in self.embeddings if embedding == name]
        return tuple(found)

    def clash(self, other: Results) -> str:
        """The name of a file that both runs write, empty where there is none; on many disks `Aoi` and `aoi` are one."""
        own, others = ({file.lower() for file in one.last_files} for one in (self, other))
        of_steps = {file for file in others if _of_a_step(self.name.lower()).fullmatch(file)}
        of_steps |= {file for file in own if _of_a_step(other.name.lower()).fullmatch(file)}
        return min((own & others) | of_steps, default="")

    def has(self, path: Path) -> bool:
        """Whether a bundle is of this run: it carries a run of the same name, seed, embeddings and network."""
        try:
            return bool(_identity(parse_json(read_header(path).metadata.get(META_RUN, ""))) == self.identity)
        except (BundleError, OSError, ValueError, RecursionError):
            return False

    def _not_its_own(self, there: list[Path]) -> list[Path]:
        """Files of embeddings carry no settings: they were written with the last file."""
        ended = any(path.stem == self.name and self.has(path) for path in there)
        of_embeddings = {*self.embeddings, *(f"{embedding}-word" for embedding in self.embeddings)} - {self.name}
        return [path for path in there if not (self.has(path) or (ended and path.stem in of_embeddings))]


def refuse_taken_results(run: Run, folder: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """`Results.refuse_taken` of a run that is not compiled yet."""
    Results.of(run).refuse_taken(folder, resume=resume, overwrite=overwrite)


def _of_a_step(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name) + r"-\d{6,8}\.safetensors")


def _identity(plain: Any) -> Any:
    if not isinstance(plain, dict):
        return None
    plain = upgraded(plain, 1)  # a file of an older version is a run's own, too
    embeddings = plain.get("embeddings")
    names = (
        [embedding.get("name") for embedding in embeddings if isinstance(embedding, dict)]
        if isinstance(embeddings, list)
        else None
    )
    return [plain.get("name") or NAMELESS, plain.get("seed"), names, plain.get("network")]
