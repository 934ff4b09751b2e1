"""The token counter beside the prompt counts a bundled embedding as its vectors, as soon as its tag stands there.

v1.10.1 strips the tags and counts with whatever names hold from the picture before (modules/ui.py:156-186): an
embedding is counted by the letters of its name until a picture was made, and by its vectors after its tag is gone. Here
a prompt is counted with the embeddings of its own tags, from the files' headers. The negative prompt has no tags; it is
counted with those that the positive one beside it had last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from modules import script_callbacks, sd_hijack, shared

from lib_pivotal.webui import catalog, compat, prompt_tags, resolution_patch, settings
from lib_pivotal.webui.name_table import EmbeddingOrigin, NameTable, build_table
from lib_pivotal.webui.patches import Patches
from lib_pivotal.webui.resolution import resolver


@dataclass
class _TokenCounter:
    patches: Patches = field(default_factory=Patches)
    positive: str = ""


_counter = _TokenCounter()


def register() -> None:
    """Count with the embeddings of the prompt's own tags."""
    unregister()
    _counter.patches.wrap(sd_hijack.StableDiffusionModelHijack, "get_prompt_lengths", _get_prompt_lengths)
    if hasattr(script_callbacks, "on_before_token_counter"):
        script_callbacks.on_before_token_counter(before_count)
    else:  # 1.7: the page is built after this, and takes the function that it finds then
        _counter.patches.wrap(compat.ui_module(), "update_token_counter", _update_token_counter)


def unregister() -> None:
    """Take it back."""
    _counter.patches.undo()


def before_count(params: Any) -> None:
    """Note, for the count that follows in this thread, which embeddings the prompt's tags bring."""
    if params.is_positive:
        styles = shared.prompt_styles.get_style_prompts(params.styles or [])
        added = getattr(shared.opts, "sd_lora", "None")
        setting = "" if added == "None" else f"<lora:{added}>"
        _counter.positive = " ".join([params.prompt, *styles, setting])
    resolver.local.counted = _counter.positive


def _update_token_counter(original: Callable[..., Any], text: str, *rest: Any, is_positive: bool = True) -> Any:
    before_count(SimpleNamespace(prompt=text, styles=[], is_positive=is_positive))
    return original(text, *rest, is_positive=is_positive)


def _get_prompt_lengths(original: Callable[..., Any], hijack: Any, text: str) -> Any:
    prompt = getattr(resolver.local, "counted", None)
    if prompt is None or hijack.clip is None:
        return original(hijack, text)
    resolver.local.table = table_for(prompt)
    try:
        return original(hijack, text)
    finally:
        resolver.local.table = None


def table_for(prompt: str) -> NameTable:
    """The names that a prompt's tags bring, standing for nothing but their numbers of vectors."""
    widths = resolution_patch.model_widths()
    sources: dict[str, EmbeddingOrigin] = {}
    for _, tag in prompt_tags.tags_in(prompt):
        entry = catalog.find_on_disk(tag.name) if tag.embeddings else None
        if entry is None or entry.filename in sources:
            continue
        embeddings = {
            embedding["name"]: SimpleNamespace(vectors=embedding["vectors"], name=embedding["name"])
            for embedding in catalog.describe(entry)["words"]
            if resolution_patch.fits(tuple(embedding["widths"]), widths)
        }
        sources[entry.filename] = EmbeddingOrigin((tag.name, entry.name, entry.alias), embeddings)
    return build_table(
        list(sources.values()),
        ids_of=resolution_patch.ids_of,
        folder=resolution_patch.folder_entries(),
        folder_wins=settings.value(resolution_patch.PRIORITY) == resolution_patch.FOLDER_FIRST,
    )
