"""Which files a run would write, and whether they are another run's: asked before anything starts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lib_pivotal.bundle.format import META_RUN
from lib_pivotal.bundle.safetensors_file import read_header
from lib_pivotal.config import Run, run_to_dict
from lib_pivotal.errors import BundleError
from lib_pivotal.file_names import refuse_taken
from lib_pivotal.files import is_taken
from lib_pivotal.plain_json import parse_json

NAMELESS = "pivotal"
"""What a run without a name is called."""


def refuse_taken_results(run: Run, folder: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse a run that would write over files in `folder` that it was not told to replace.

    A run that goes on may replace its own files. States are not asked for: each run has a folder of its own for them.

    Raises:
        FileNameError: which files are there.
    """
    if overwrite:
        return
    there = files_there(run, folder)
    if resume:
        there = _not_its_own(run, there)
    remedy = "Give the run another name, or say that it may be replaced (overwrite)"
    refuse_taken(there, overwrite=False, remedy=remedy + ("." if resume else ", or continue that run (resume)."))


def files_there(run: Run, folder: Path) -> list[Path]:
    """Files in `folder` that a run of this name writes or may write: the last one, those of steps, and words' own.

    None where there is no folder, or nobody may look into it: nothing can be written over there either.
    """
    name = run.name or NAMELESS
    try:
        entries = list(folder.iterdir())
    except OSError:
        return []
    of_steps = re.compile(re.escape(name) + r"-\d{6,8}\.safetensors")
    found = [folder / f"{name}.safetensors"]
    found += sorted(path for path in entries if of_steps.fullmatch(path.name))
    if run.saving.embedding_files:
        words = [word.name for word in run.words]
        found += [folder / f"{word}.safetensors" for word in words if word != name]
        found += [folder / f"{word}-word.safetensors" for word in words if word == name]
    return [path for path in dict.fromkeys(found) if is_taken(path)]


def is_of(run: Run, path: Path) -> bool:
    """Whether a bundle is of this run: it carries a run of the same name, seed, words and network."""
    try:
        plain = parse_json(read_header(path).metadata.get(META_RUN, ""))
        return _identity(plain) == _identity(run_to_dict(run))
    except (BundleError, OSError, ValueError, RecursionError):
        return False


def _identity(plain: Any) -> Any:
    """What stays the same when a run is made longer, saved more often, its pictures are moved or its words pruned."""
    if not isinstance(plain, dict):
        return None
    words = plain.get("words")
    names = [word.get("name") for word in words if isinstance(word, dict)] if isinstance(words, list) else None
    return [plain.get("name") or NAMELESS, plain.get("seed"), names, plain.get("network")]


def _not_its_own(run: Run, there: list[Path]) -> list[Path]:
    """Files of words carry no settings: they were written with the last file."""
    name = run.name or NAMELESS
    ended = any(path.stem == name and is_of(run, path) for path in there)
    of_words = {word.name for word in run.words} | {f"{word.name}-word" for word in run.words}
    return [path for path in there if not (is_of(run, path) or (ended and path.stem in of_words - {name}))]
