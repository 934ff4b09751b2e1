"""What a caption looks like: words coloured, tags by what becomes of them, nothing that could run."""

from __future__ import annotations

from pathlib import Path

from lib_pivotal.data.pruning import EmbeddingRules, PrunedCaptions, TagRules
from lib_pivotal.data.records import Picture
from lib_pivotal.ui.caption_html import CaptionHtml

USES = [EmbeddingRules("aoi", "blue hair, *[0.1,2]", prune=True), EmbeddingRules("style", applies_to=("*",))]
CAPTION = "aoi, blue hair, red eyes, very long hair, long hair, <b>hat</b> ||| park"


def _html(caption: str = CAPTION) -> tuple[str, str]:
    wording = PrunedCaptions([Picture("a.png", Path("a"), caption, 64, 64, "x")], USES, TagRules())
    named = wording.named[0]
    fates = {t.tag: t.fate for embedding in wording.embeddings.values() for t in embedding.tags if t.fate != "kept"}
    writer = CaptionHtml(["aoi", "style"])
    return writer.before(named, wording.pruned(named), fates, written=caption), writer.after(wording.pruned(named))


def test_embeddings_and_fates_are_marked() -> None:
    before, after = _html()
    assert '<b class="pivotal-word added"' in before and ">style</b>" in before
    assert (
        '<s class="init"' in before
        and ('<s class="absorbed" title="pruned: the embedding learns it">red eyes</s>') in before
    )
    assert "blue hair" not in after and "red eyes" not in after and "hat" in after


def test_markup_in_captions_is_text() -> None:
    for text in _html():
        assert "<b>hat" not in text and "&lt;b&gt;hat&lt;/b&gt;" in text


def test_no_caption_and_nothing_left() -> None:
    writer = CaptionHtml([])
    empty = Picture("a.png", Path("a"), "", 64, 64, "x")
    assert "no caption" in writer.before(empty, empty, {}) and "nothing" in writer.after(empty)
