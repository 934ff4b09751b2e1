"""Names of a bundle's embeddings, into the running web UI and out again.

v1.10.1 enters a bundle's embeddings into its registry of embeddings (Lora/networks.py:343-356) and takes them out by
name at the next activation (285-290). From this come lost folder embeddings, results that depend on what was made
before, a broken Textual Inversion page, and whole LoRAs dropped for one odd embedding. Here the embeddings never enter
the registry:

    networks.load_network       the network is read without its embeddings; these by our tolerant reader
    processing.process_images_inner     a generation, with everything in it, is what names hold for (`generations`)
    networks.load_networks      stale copies are dropped first; afterwards it is settled what each name means
    extra_networks.activate     tags that would cost all LoRAs are mended; `<words:file>` is read
    extra_networks.deactivate   ends what was activated outside of a generation
    TextConditionalModel.tokenize_line, *.tokenize      names are found in the text, as written (`name_matching`)
    EmbeddingDatabase.find_embedding_at_position        and handed over where the web UI asks for embeddings

All of this is passed through untouched while no bundle is in the prompt.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import ref

from modules import (
    extra_networks,
    processing,
    sd_hijack,
    sd_hijack_clip,
    sd_hijack_open_clip,
    sd_hijack_xlmr,
    sd_models,
    shared,
)
from modules.textual_inversion import textual_inversion

from lib_pivotal.byte_cache import ByteCache
from lib_pivotal.webui import adjusting, catalog, compat, file_invalidation, loading, prompt_tags, prompting, settings
from lib_pivotal.webui.generations import Generation, LoadedEmbeddings
from lib_pivotal.webui.name_table import EmbeddingOrigin, Ids, NameTable, build_table
from lib_pivotal.webui.resolution import EMBEDDINGS, resolver, say

logger = logging.getLogger(__name__)

PRIORITY = "pivotal_name_priority"
FOLDER_FIRST = "the embeddings folder"
IDS_BYTES = 2 * 2**20
"""So much is kept of what names are taken apart into, by text encoder."""


def register() -> None:
    """Put the patches in place; `unregister` takes them back."""
    networks = compat.find_lora_networks()
    unregister()
    if networks is None:
        logger.warning("the built-in Lora extension is switched off: embeddings in bundles cannot be used")
        return
    wrap = resolver.patches.wrap
    wrap(networks, "load_network", loading.load_network)
    wrap(networks, "load_networks", _load_networks)
    wrap(sd_models, "read_state_dict", loading.read_state_dict)
    wrap(processing, "process_images_inner", _process_images)
    wrap(extra_networks, "activate", _activate)
    wrap(extra_networks, "deactivate", _deactivate)
    wrap(textual_inversion.EmbeddingDatabase, "find_embedding_at_position", prompting.find_embedding_at_position)
    wrap(compat.text_model_base(), "tokenize_line", prompting.tokenize_line)
    for owner in (
        sd_hijack_clip.FrozenCLIPEmbedderWithCustomWords,
        sd_hijack_open_clip.FrozenOpenCLIPEmbedderWithCustomWords,
        sd_hijack_open_clip.FrozenOpenCLIPEmbedder2WithCustomWords,
    ):
        wrap(owner, "tokenize", prompting.tokenize)


def unregister() -> None:
    """Take every patch back and let no name hold."""
    resolver.patches.undo()
    resolver.forget()


def _process_images(original: Callable[..., Any], p: Any, *arguments: Any, **named: Any) -> Any:
    """`processing.process_images_inner`: every way to make pictures comes through it.

    txt2img, img2img, the API, scripts with one picture after another; both passes and all batches stay within it, and
    interrupts and errors leave it.
    """
    with resolver.generating(inherits=bool(getattr(p, "disable_extra_networks", False))):
        return original(p, *arguments, **named)


def _activate(original: Callable[..., Any], p: Any, extra_network_data: Any) -> Any:
    """`extra_networks.activate`: mend tags, let the web UI activate, then settle the names."""
    generation = resolver.generation or resolver.activated_alone()
    generation.texts, generation.data = _texts_of(p), extra_network_data
    generation.comment = getattr(p, "comment", None)
    try:
        given = extra_network_data
        if given and any(kind in given for kind in prompt_tags.LORA_KINDS):
            given = {**given, **{kind: mended(given[kind]) for kind in prompt_tags.LORA_KINDS if kind in given}}
        answer = original(p, given)
        resolve()
        _note_hashes(p, extra_network_data)
    finally:
        generation.comment = None
    return answer


def _deactivate(original: Callable[..., Any], p: Any, extra_network_data: Any) -> Any:
    """`extra_networks.deactivate`: the web UI's own comes at the end of a generation, which ends by itself."""
    resolver.end_alone()
    return original(p, extra_network_data)


def _note_hashes(p: Any, extra_network_data: Any) -> None:
    """ "Lora hashes" in the infotext for `<words:file>` too, as Lora/extra_networks_lora.py:47-56 writes them."""
    params = (extra_network_data or {}).get(prompt_tags.EMBEDDINGS_KIND, ())
    if not params or not shared.opts.lora_add_hashes_to_infotext:
        return
    known = dict(getattr(p, "lora_hashes", None) or {})
    for tag in map(_tag, params):
        entry = catalog.find_on_disk(tag.name)
        if entry is not None:
            entry.read_hash()
            known.setdefault(tag.name.replace(":", "").replace(",", ""), entry.shorthash)
    p.lora_hashes = known
    p.extra_generation_params["Lora hashes"] = ", ".join(f"{name}: {digest}" for name, digest in known.items())


def _load_networks(original: Callable[..., Any], names: Sequence[str], *arguments: Any, **named: Any) -> Any:
    """`networks.load_networks`, for changed files too."""
    file_invalidation.drop_stale()
    answer = original(names, *arguments, **named)
    resolve()
    return answer


def resolve() -> NameTable:
    """Settle which names hold for the networks that are loaded now, and say what the user should know.

    Outside of a generation none holds: a run loads and unloads networks, too.
    """
    generation = resolver.generation
    if generation is None or generation.closed:
        return NameTable()
    sources = _sources(generation)
    if not sources:
        generation.table = NameTable()
        return generation.table
    generation.table = _table_of(sources)
    table = generation.table
    for collision in table.collisions_in(generation.texts) if generation.texts else table.collisions:
        say(str(collision))
    for embedding in generation.table.unnamed:
        say(f"the embedding {embedding!r} has no token, so no prompt can name it: rename it")
    return generation.table


def _table_of(sources: Sequence[EmbeddingOrigin]) -> NameTable:
    """The table of these sources, the last one again where it is of the same."""
    folder_wins = settings.value(PRIORITY) == FOLDER_FIRST
    folder = sd_hijack.model_hijack.embedding_db.word_embeddings
    made_from = (
        tuple((source.labels, source.stamp) for source in sources),
        # references and not ids: another object may come to lie where one was
        tuple(ref(embedding) for source in sources for embedding in source.embeddings.values()),
        tuple((name, ref(embedding)) for name, embedding in folder.items()),
        folder_wins,
        ref(shared.sd_model.cond_stage_model),
    )
    built = resolver.built
    if built is None or built[0] != made_from:
        table = build_table(sources, ids_of=ids_of, folder=folder_entries(), folder_wins=folder_wins)
        built = resolver.built = made_from, table
    return built[1]


def _sources(generation: Generation) -> list[EmbeddingOrigin]:
    networks = compat.find_lora_networks()
    data = generation.data or {}
    tags = {tag.name: tag for kind in prompt_tags.LORA_KINDS for tag in map(_tag, data.get(kind, ()))}
    sources: dict[str, EmbeddingOrigin] = {}
    for net in networks.loaded_networks:
        loaded, entry = getattr(net, EMBEDDINGS, None), net.network_on_disk
        tag = tags.get(net.name, prompt_tags.Tag(net.name))
        if loaded is None or not tag.embeddings:
            continue
        _add_source(sources, tag, entry, loaded)
    for tag in map(_tag, data.get(prompt_tags.EMBEDDINGS_KIND, ())):
        entry = catalog.find_on_disk(tag.name)
        if entry is None:
            say(f"no LoRA file named {tag.name!r} for <words:{tag.name}>")
            continue
        entry.read_hash()  # as `networks.load_networks` does for the files that it loads
        loaded = loading.embeddings_of_file(entry.filename, generation)
        if not loaded.embeddings and not loaded.problems:
            say(f"{tag.name} has no embeddings")
        _add_source(sources, tag, entry, loaded)
    return list(sources.values())


def _add_source(
    sources: dict[str, EmbeddingOrigin], tag: prompt_tags.Tag, entry: Any, loaded: LoadedEmbeddings
) -> None:
    if entry.filename in sources:
        return
    labels = (tag.name, entry.name, entry.alias)
    widths = model_widths()
    fitting = {
        name: embedding for name, embedding in loaded.embeddings.items() if fits(embedding.pivotal_widths, widths)
    }
    for problem in loaded.problems:
        if problem.severity == "error":
            say(
                f"{labels[0]}: "
                + (f"the embedding {problem.embedding!r} was {problem.what}" if problem.embedding else problem.what)
            )
    for name in fitting:
        if extra_networks.re_extra_net.search(name):
            say(
                f"{labels[0]}: the embedding {name!r} looks like a tag, and the web UI takes it out of prompts: "
                "rename it"
            )
    odd = [name for name in loaded.embeddings if name not in fitting]
    if odd:
        there = "+".join(str(width) for width in loaded.embeddings[odd[0]].pivotal_widths)
        need = "+".join(str(width) for width in widths) or "no such vectors"
        say(f"{labels[0]}: its embeddings do not fit this checkpoint ({there} wide, it has {need}): {', '.join(odd)}")
    if fitting:
        stamp = entry.filename, file_invalidation.full_stamp(entry.filename), tag.adjustments
        given = adjusting.adjusted(fitting, tag, entry.filename)
        sources[entry.filename] = EmbeddingOrigin(labels, given, stamp, entry.shorthash or "")


def mended(params: Iterable[Any]) -> list[Any]:
    """The tags as the web UI can take them: it raises for a weight that is no number, and loses all LoRAs with it."""
    networks = compat.find_lora_networks()
    good: list[Any] = []
    for param in params:
        name = str(param.items[0]) if param.items else ""
        if "=" in name:  # was taken for a named argument
            param = extra_networks.ExtraNetworkParams(items=param.items[1:])
            param.items, param.positional = [name, *param.items], [name, *param.positional]
        if _own_activation(networks) and not _readable(param):
            say(f"<lora:{':'.join(map(str, param.items))}> was left out: its weights are not numbers")
            continue
        if any(other.positional[:1] == param.positional[:1] for other in good):
            say(f"{name} is in the prompt twice: the web UI uses the last weights for both")
        good.append(param)
    return good


def _own_activation(networks: Any) -> bool:
    """Whether the web UI's own code reads the tags: another extension may understand weights that it does not."""
    current = extra_networks.extra_network_registry.get("lora")
    return current is not None and type(current) is type(networks.extra_network_lora)


def _readable(param: Any) -> bool:
    weights = [*param.positional[1:3], *(param.named[key] for key in ("te", "unet") if key in param.named)]
    whole = [*param.positional[3:4], *([param.named["dyn"]] if "dyn" in param.named else [])]
    try:
        [float(weight) for weight in weights], [int(number) for number in whole]
    except ValueError:
        return False
    return bool(param.positional)


def names_of(extra_network_data: Any) -> list[str]:
    """The files that the tags of a prompt name, whatever the kind of tag."""
    kinds = (*prompt_tags.LORA_KINDS, prompt_tags.EMBEDDINGS_KIND)
    return [_tag(param).name for kind in kinds for param in (extra_network_data or {}).get(kind, ())]


def _tag(param: Any) -> prompt_tags.Tag:
    return prompt_tags.understand(param.items)


def _texts_of(p: Any) -> tuple[str, ...]:
    """Every prompt of the pictures that are being made."""
    texts: list[str] = []
    for name in ("prompts", "negative_prompts", "hr_prompts", "hr_negative_prompts"):
        value = getattr(p, name, None)
        if isinstance(value, list | tuple):
            texts += [text for text in value if isinstance(text, str)]
    return tuple(texts)


def folder_entries() -> dict[Ids, Any]:
    """The embeddings folder's entries in the web UI's registry, by their token ids."""
    lookup = sd_hijack.model_hijack.embedding_db.ids_lookup
    return {tuple(ids): embedding for found in list(lookup.values()) for ids, embedding in found}


def ids_of(name: str) -> Ids:
    """The token ids of a name, as the loaded checkpoint's text encoder takes it apart."""
    encoder = shared.sd_model.cond_stage_model
    known = resolver.ids.get(encoder)
    if known is None:
        known = resolver.ids[encoder] = ByteCache(IDS_BYTES)
    ids = known.get(name)
    if ids is None:
        ids = tuple(int(token) for token in encoder.tokenize([name])[0])
        known.put(name, ids, size_bytes=sys.getsizeof(name) + 40 * len(ids) + 100)
    return ids


def model_widths() -> tuple[int, ...]:
    """Widths of the loaded checkpoint's token vectors: (768,), (1024,), (768, 1280); () where embeddings cannot be
    used."""
    encoder = getattr(shared.sd_model, "cond_stage_model", None)
    if encoder is None:
        return ()
    if encoder not in resolver.widths:
        embedders = getattr(encoder, "embedders", None)
        towers = [encoder] if embedders is None else list(embedders)
        kind = sd_hijack_clip.FrozenCLIPEmbedderWithCustomWordsBase
        without = sd_hijack_xlmr.FrozenXLMREmbedderWithCustomWords
        # AltDiffusion's counts as a kind of CLIP's, but its vectors do not go through what splices embeddings in
        asked = [tower for tower in towers if isinstance(tower, kind) and not isinstance(tower, without)]
        resolver.widths[encoder] = tuple(int(tower.encode_embedding_init_text(",", 1).shape[1]) for tower in asked)
    return resolver.widths[encoder]


def fits(embedding: tuple[int, ...], model: tuple[int, ...]) -> bool:
    """Whether an embedding of these widths can be used: SDXL's refiner has only the second tower."""
    return embedding == model or (len(embedding) == 2 and model == embedding[1:])
