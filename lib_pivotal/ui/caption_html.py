"""Captions as HTML: embeddings in their colours, and of each tag what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from lib_pivotal.data.captions import EmbeddingFinder
from lib_pivotal.data.tags import same_tag
from lib_pivotal.ui.charts import COLOURS

if TYPE_CHECKING:
    from lib_pivotal.data.pruning import Decision
    from lib_pivotal.data.records import Picture

TITLES = {
    "init": "pruned; part of the init text",
    "absorbed": "pruned: the embedding learns it",
    "dropped": "said by another tag already, or about other pictures: left out",
    "kept": "stays in the caption",
}
"""What the page says of a tag."""


class CaptionHtml:
    """Writes captions of one run: each embedding has a colour, by its place."""

    def __init__(self, names: Sequence[str]) -> None:
        self._find = EmbeddingFinder(names)
        self._colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}

    def colour(self, embedding: str) -> str:
        """The colour of an embedding."""
        return self._colours[embedding]

    def before(
        self, named: Picture, trained: Picture, fates: Mapping[str, Decision], *, written: str | None = None
    ) -> str:
        """The caption that a picture has; tags that are not trained are struck out.

        `written` is the file's own: an embedding that is not in it is marked as put in front.
        """
        left = {same_tag(tag) for tag in trained.cut.tags(trained.caption)}
        own = self._find(written) if written is not None else self._find(named.caption)
        parts = [self._tag(tag, left, fates, own) for tag in named.cut.tags(named.caption)]
        return ", ".join(parts) or "<em>no caption</em>"

    def after(self, trained: Picture) -> str:
        """The caption as it is trained."""
        return ", ".join(self._plain(tag) for tag in trained.cut.tags(trained.caption)) or "<em>nothing</em>"

    def _tag(self, tag: str, left: set[str], fates: Mapping[str, Decision], own: Sequence[str]) -> str:
        embeddings = self._find(tag)
        if embeddings:
            added = embeddings[0] not in own
            kind, title = (
                ("pivotal-word added", "put in front by the run") if added else ("pivotal-word", "an embedding")
            )
            return f'<b class="{kind}" style="--word:{self.colour(embeddings[0])}" title="{title}">{escape(tag)}</b>'
        form = same_tag(tag)
        if form in left:
            return escape(tag)
        fate = fates.get(form, "dropped")
        return f'<s class="{fate}" title="{TITLES[fate]}">{escape(tag)}</s>'

    def _plain(self, tag: str) -> str:
        embeddings = self._find(tag)
        if not embeddings:
            return escape(tag)
        return f'<b class="pivotal-word" style="--word:{self.colour(embeddings[0])}">{escape(tag)}</b>'
