"""Read LoRA files for the web UI: the network by its own code, the embeddings by our tolerant reader.

v1.10.1 reads both in one loop (Lora/networks.py:183-265) and drops the whole file when a single embedding is odd. Here
its code gets the file without the embeddings; what is wrong with an embedding costs that embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from modules import devices
from modules.textual_inversion import textual_inversion

from lib_pivotal.bundle.format import EmbeddingTensors, Problem, is_embedding_key
from lib_pivotal.errors import BundleError
from lib_pivotal.webui import file_invalidation
from lib_pivotal.webui.generations import Generation, LoadedEmbeddings, ReadEmbeddings
from lib_pivotal.webui.resolution import EMBEDDINGS, resolver, say

logger = logging.getLogger(__name__)

ENTRY_BYTES = 1000
"""About what an entry takes beside its tensors."""


def read_state_dict(original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """While a network is read (`load_network`), keep its embeddings aside: v1.10.1 would drop the whole file for
    one."""
    aside = getattr(resolver.local, "aside", None)
    if aside is None:
        return original(*arguments, **named)
    from lib_pivotal.bundle import reader  # here: to start, no file is read

    try:
        tensors = original(*arguments, **named)
    except Exception as error:  # the official reader refuses a file for a dtype that it does not know
        bundle = reader.read_bundle(arguments[0])
        logger.warning("%s: read with care, since: %s", arguments[0], error)
        aside.embeddings, aside.problems = dict(bundle.embeddings), bundle.problems
        return bundle.network
    marked = {key for key, value in aside.metadata.items() if value == "<embed>"}
    embeddings = {key: value for key, value in tensors.items() if is_embedding_key(str(key)) or key in marked}
    if embeddings:
        found, _, problems = reader.take_embeddings(embeddings, {key: "<embed>" for key in marked})
        aside.embeddings, aside.problems = found, tuple(problems)
    return {key: value for key, value in tensors.items() if key not in embeddings}


@dataclass
class _Aside:
    metadata: Mapping[str, Any]
    embeddings: dict[str, EmbeddingTensors] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def load_network(original: Callable[..., Any], name: str, network_on_disk: Any) -> Any:
    """`networks.load_network` for the network, our reader for the embeddings; a network that fails leaves its
    embeddings."""
    aside = resolver.local.aside = _Aside(network_on_disk.metadata or {})
    try:
        net = original(name, network_on_disk)
    except Exception as error:
        if not aside.embeddings:
            raise
        logger.warning(
            "%s: the network cannot be used here, its embeddings can", network_on_disk.filename, exc_info=True
        )
        say(f"{name}: its network cannot be used with this checkpoint ({error}); its embeddings can")
        net = _bare_network(name, network_on_disk)
    finally:
        resolver.local.aside = None
    path = network_on_disk.filename
    setattr(net, EMBEDDINGS, LoadedEmbeddings(make_embeddings(aside.embeddings, path), aside.problems))
    file_invalidation.remember(net)
    return net


def _bare_network(name: str, network_on_disk: Any) -> Any:
    import network

    net = network.Network(name, network_on_disk)
    net.mtime = Path(network_on_disk.filename).stat().st_mtime
    return net


def make_embeddings(embeddings: Mapping[str, EmbeddingTensors], path: str) -> dict[str, Any]:
    """The web UI's own `Embedding` for each embedding, as `create_embedding_from_data` makes them: fp32 on its
    device."""
    made = {}
    for name, towers in embeddings.items():
        vectors = [tower.detach().to(devices.device, dtype=torch.float32) for tower in towers]
        vec = vectors[0] if len(vectors) == 1 else {"clip_l": vectors[0], "clip_g": vectors[1]}
        embedding = textual_inversion.Embedding(vec, name)
        embedding.vectors = vectors[0].shape[0]
        embedding.shape = sum(tower.shape[1] for tower in vectors)
        embedding.filename = path
        embedding.pivotal_widths = tuple(tower.shape[1] for tower in vectors)
        made[name] = embedding
    return made


def embeddings_of_file(path: str, generation: Generation) -> LoadedEmbeddings:
    """The words of a file without its network, made for a generation and gone with it. Never raises."""
    read = read_embeddings_of(path)
    known = generation.made.get(path)
    if known is None or known[0] != read.stamp:
        known = generation.made[path] = (
            read.stamp,
            LoadedEmbeddings(make_embeddings(read.embeddings, path), read.problems),
        )
    return known[1]


def read_embeddings_of(path: str) -> ReadEmbeddings:
    """What a file's embeddings are, read once as long as the file is the same and there is room; in main memory."""
    stamp = file_invalidation.full_stamp(path)
    known = resolver.files.get(path)
    if known is not None and known.stamp == stamp:
        return known
    try:
        from lib_pivotal.bundle.reader import read_embeddings  # here: as in read_state_dict

        embeddings, problems = read_embeddings(path)
        held = {
            name: tuple(tower.detach().to("cpu", copy=True) for tower in embedding)
            for name, embedding in embeddings.items()
        }
        read = ReadEmbeddings(stamp, held, problems)
    except BundleError as error:
        read = ReadEmbeddings(stamp, {}, (Problem("error", str(error)),))
    tensors = (tower for embedding in read.embeddings.values() for tower in embedding)
    resolver.files.put(path, read, size_bytes=ENTRY_BYTES + sum(tower.nbytes for tower in tensors))
    return read
