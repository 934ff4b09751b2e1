"""What holds now: which names mean what, and for which prompts. One object for the running web UI."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from modules import sd_hijack

from lib_pivotal.bundle.format import Problem
from lib_pivotal.webui.patches import Patches
from lib_pivotal.webui.words import Ids, WordTable

logger = logging.getLogger(__name__)

WORDS = "pivotal_words"
"""Attribute of a loaded network: its `LoadedWords`."""


@dataclass(frozen=True, eq=False)
class LoadedWords:
    """The words of one file, ready for the text encoder, and what was wrong with them."""

    embeddings: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()


@dataclass
class Resolver:
    """What is in force now, and the patches that put it in force."""

    patches: Patches = field(default_factory=Patches)
    table: WordTable = field(default_factory=WordTable)
    data: Mapping[str, Any] | None = None
    """The extra networks whose words are in force: the argument of the last activation."""
    built_from: object = None
    """What the table was built from: the same again needs no new one."""
    texts: tuple[str, ...] = ()
    comment: Callable[[str], None] | None = None
    """Puts a line under the picture that is being made."""
    local: threading.local = field(default_factory=threading.local)
    ids: WeakKeyDictionary[Any, dict[str, Ids]] = field(default_factory=WeakKeyDictionary)
    widths: WeakKeyDictionary[Any, tuple[int, ...]] = field(default_factory=WeakKeyDictionary)
    files: dict[str, tuple[object, LoadedWords]] = field(default_factory=dict)

    def in_force(self) -> WordTable:
        """The table that holds in this thread: the token counter has one of its own."""
        own = getattr(self.local, "table", None)
        return self.table if own is None else own


resolver = Resolver()


def say(text: str) -> None:
    """A line under the picture, and in the log."""
    comments = sd_hijack.model_hijack.comments
    if text not in comments:
        comments.append(text)
        logger.warning("%s", text)
    if resolver.comment is not None:  # the second pass of hires fix comes after the web UI collected the others
        resolver.comment(text)
