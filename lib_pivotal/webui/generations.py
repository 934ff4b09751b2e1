"""For which generation names hold: from its activation to its end, whichever way it ends, in the thread that makes it.

Never for what comes after it: a run that trains an embedding of the same name, a picture without the tag.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from lib_pivotal.bundle.format import EmbeddingTensors, Problem
from lib_pivotal.byte_cache import ByteCache
from lib_pivotal.webui.name_table import Ids, NameTable
from lib_pivotal.webui.patches import Patches

FILES_BYTES = 64 * 2**20
"""So much of what `<words:file>` read is kept, in main memory and as the files have it."""


@dataclass(frozen=True, eq=False)
class LoadedEmbeddings:
    """The embeddings of one file, ready for the text encoder, and what was wrong with them."""

    embeddings: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, eq=False)
class ReadEmbeddings:
    """The embeddings of one file as they were read, and what was wrong with them; `stamp` tells the file's content."""

    stamp: object
    embeddings: Mapping[str, EmbeddingTensors]
    problems: tuple[Problem, ...] = ()


@dataclass(eq=False)
class Generation:
    """What holds for one picture, or batch of pictures, from its activation to its end.

    `closed`: no name of a bundle holds in it, nor in one inside it, whatever is activated.
    """

    closed: bool = False
    table: NameTable = field(default_factory=NameTable)
    data: Mapping[str, Any] | None = None
    """The extra networks whose embeddings are in force: the argument of the last activation."""
    texts: tuple[str, ...] = ()
    comment: Callable[[str], None] | None = None
    """Puts a line under the picture that is being made."""
    made: dict[str, tuple[object, LoadedEmbeddings]] = field(default_factory=dict)
    """Embeddings of files without their networks, on the device; by path, with the file's stamp."""


@dataclass
class EmbeddingResolution:
    """What is in force now, and the patches that put it in force."""

    patches: Patches = field(default_factory=Patches)
    local: threading.local = field(default_factory=threading.local)
    built: tuple[object, NameTable] | None = None
    """The last table and what it was built from: the same again needs no new one."""
    ids: WeakKeyDictionary[Any, ByteCache[str, Ids]] = field(default_factory=WeakKeyDictionary)
    widths: WeakKeyDictionary[Any, tuple[int, ...]] = field(default_factory=WeakKeyDictionary)
    adjusted: WeakKeyDictionary[Any, tuple[object, Any]] = field(default_factory=WeakKeyDictionary)
    """By embedding: what it was adjusted by last, and the embedding so adjusted."""
    files: ByteCache[str, ReadEmbeddings] = field(default_factory=lambda: ByteCache(FILES_BYTES))

    def in_force(self) -> NameTable:
        """The table that holds in this thread: the token counter has one of its own."""
        own: NameTable | None = getattr(self.local, "table", None)
        if own is not None:
            return own
        generation = self.generation
        return NameTable() if generation is None else generation.table

    @property
    def generation(self) -> Generation | None:
        """The innermost generation of this thread, or else what was activated outside of any (`activated_alone`)."""
        open_ones = self._open()
        return open_ones[-1] if open_ones else getattr(self.local, "alone", None)

    @contextmanager
    def generating(self, *, closed: bool = False, inherits: bool = False) -> Iterator[Generation]:
        """A generation from here to the end of the block; one inside another leaves the outer one as it is.

        `inherits`: it activates nothing of its own, so that inside another one (an extension's picture in the middle of
        a picture) the outer one's names go on.
        """
        open_ones = self._open()
        self.end_alone()  # what another program left in force is not for this
        generation = Generation(closed=closed or any(outer.closed for outer in open_ones))
        if inherits and open_ones:
            outer = open_ones[-1]
            generation.table, generation.data, generation.made = outer.table, outer.data, outer.made
        open_ones.append(generation)
        try:
            yield generation
        finally:
            open_ones.remove(generation)

    def activated_alone(self) -> Generation:
        """For an activation outside of any generation, by another extension's own pipeline: holds until the web UI's
        counterpart, `extra_networks.deactivate`, or the next generation in this thread."""
        self.local.alone = Generation()
        return self.local.alone

    def end_alone(self) -> None:
        """What was activated outside of any generation holds no longer."""
        self.local.alone = None

    def forget(self) -> None:
        """Let no name hold, in any thread, and keep nothing."""
        self.local = threading.local()
        self.built = None
        self.adjusted.clear()
        self.files.clear()

    def _open(self) -> list[Generation]:
        if not hasattr(self.local, "generations"):
            self.local.generations = []
        return self.local.generations
