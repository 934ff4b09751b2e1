"""The tags of extra networks in a prompt, `<lora:name:te:unet:dyn:key=value>`, read as the web UI reads them.

Where the web UI stumbles over a tag it loses every LoRA of the prompt (Lora/extra_networks_lora.py:24-43 raises for
`<lora:x:off>`; a name with `=` becomes a named argument, modules/extra_networks.py:37-42). `understand` tells what a
tag means, what it cannot mean, and how to write it so that every web UI means the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from lib_pivotal.embeddings.adjustment import TAG_FIELD, EmbeddingAdjustment, read_adjustment, spelled
from lib_pivotal.embeddings.name_matching import folded
from lib_pivotal.errors import EmbeddingNameError

TAG = re.compile(r"<(lora|lyco|words):([^>]+)>")
"""A tag that can bring embeddings; the web UI's own pattern (modules/extra_networks.py:173) with the kinds named."""

LORA_KINDS = ("lora", "lyco")
EMBEDDINGS_KIND = "words"
OFF = frozenset({"0", "off", "no", "false"})


@dataclass(frozen=True)
class Tag:
    """What a tag says.

    `te` and `unet` are the weights that the web UI will use, None where it cannot read them as numbers (another
    extension may: lora control's `0@0,1@1`). `embeddings`: whether its embeddings are wanted. `te_alone`: the text
    encoder's weight is named and the U-Net's is not, so that the web UI takes the one for both. `adjustments`: names of
    its embeddings as written, and how each is adjusted; `unread`: pieces that should say so and do not.
    """

    name: str
    te: float | None = 1.0
    unet: float | None = 1.0
    embeddings: bool = True
    te_alone: bool = False
    odd: str = ""
    adjustments: tuple[tuple[str, EmbeddingAdjustment], ...] = ()
    unread: tuple[str, ...] = ()


def understand(items: Sequence[str]) -> Tag:
    """Read the pieces of a tag behind its kind, `["gekidol", "1", "unet=0"]`, as v1.10.1 does."""
    name, *rest = [str(item) for item in items] or [""]
    named = dict(item.split("=", 1) for item in rest if "=" in item)
    positional = [item for item in rest if "=" not in item]
    first = positional[0] if positional else "1"
    te = _number(named.get("te", first))
    second = positional[1] if len(positional) > 1 else None
    unet = _number(named["unet"]) if "unet" in named else te if second is None else _number(second)
    adjustments, unread = _adjustments(rest)
    odd = next((text for text in (named.get("te"), named.get("unet"), *positional[:2]) if text and _bad(text)), "")
    return Tag(
        name=name,
        te=te,
        unet=unet,
        embeddings=named.get("words", "1").strip().lower() not in OFF,
        te_alone="te" in named and "unet" not in named and second is None and te != _number(first),
        odd=odd,
        adjustments=adjustments,
        unread=unread,
    )


def _adjustments(pieces: Sequence[str]) -> tuple[tuple[tuple[str, EmbeddingAdjustment], ...], tuple[str, ...]]:
    """Of an embedding that is adjusted twice, the last holds."""
    found: dict[str, tuple[str, EmbeddingAdjustment]] = {}
    unread = []
    for piece in pieces:
        if not piece.startswith(TAG_FIELD):
            continue
        try:
            name, adjustment = read_adjustment(piece.removeprefix(TAG_FIELD))
        except EmbeddingNameError as error:
            unread.append(str(error))
        else:
            found[folded(name)] = name, adjustment
    return tuple(found.values()), tuple(unread)


def tags_in(prompt: str) -> list[tuple[str, Tag]]:
    """Kind and meaning of every tag of a prompt, in its order."""
    return [(match.group(1), understand(match.group(2).split(":"))) for match in TAG.finditer(prompt)]


def with_weights(items: Sequence[str], *, te: str, unet: str) -> list[str]:
    """The pieces with these weights in plain places, `name:te:unet`, and everything else as it was.

    >>> with_weights(["x", "1", "te=0", "lbw=MIDD"], te="0", unet="1")
    ['x', '0', '1', 'lbw=MIDD']
    """
    name, *rest = items
    positional = [item for item in rest if "=" not in item]
    kept = [item for item in rest if "=" in item and item.split("=", 1)[0] not in ("te", "unet")]
    return [name, te, unet, *positional[2:], *kept]


def untrapped(prompt: str, *, applies: frozenset[str] | None = None) -> tuple[str, list[str]]:
    """The prompt with every `te=…` that stands alone written out, and the names of the tags that were changed.

    `<lora:x:1:te=0>` means `0:0` to the web UI; here it becomes what it says, `<lora:x:0:1>`. Only tags of the names
    in `applies` (None: all).
    """
    changed: list[str] = []

    def written(match: re.Match[str]) -> str:
        items = match.group(2).split(":")
        tag = understand(items)
        if not tag.te_alone or tag.te is None or (applies is not None and tag.name not in applies):
            return match.group()
        changed.append(tag.name)
        positional = [item for item in items[1:] if "=" not in item]
        pieces = with_weights(items, te=f"{tag.te:g}", unet=positional[0] if positional else "1")
        return f"<{match.group(1)}:{':'.join(pieces)}>"

    return TAG.sub(written, prompt), changed


PARTS = ("whole", "U-Net", "TE", "words", "none")
"""What can be left of a LoRA: everything, one part of the network (and its embeddings), its embeddings alone,
nothing."""

PART_TITLES: Mapping[str, str] = MappingProxyType(
    {part: part for part in PARTS} | {"whole": "full", "words": "embeddings"}
)
"""What people read for a part; what is stored and asked for stays as in `PARTS`, and both are understood."""


def part_switched(prompt: str, part: str, *, only: str = "") -> str:
    """The prompt with every LoRA tag (or that of the file `only`) reduced to a part, in plain `te:unet`.

    A weight that was 0 comes back as the other one, or as 1. Weights that are no numbers are another extension's and
    stay. ValueError for an unknown part.

    >>> part_switched("<lora:x:0.8> a face", "U-Net")
    '<lora:x:0:0.8> a face'
    """
    if part not in PARTS:
        raise ValueError(f"part {part!r} is unknown; there are {', '.join(PARTS)}")

    def switched(tag: Tag, items: list[str]) -> list[str]:
        te, unet = tag.te or tag.unet or 1.0, tag.unet or tag.te or 1.0
        kept = [item for item in items if not item.startswith("words=")]
        te_on, unet_on = part in ("whole", "TE"), part in ("whole", "U-Net")
        pieces = with_weights(kept, te=f"{te:g}" if te_on else "0", unet=f"{unet:g}" if unet_on else "0")
        return [*pieces, "words=0"] if part == "none" else pieces

    return _each_lora(prompt, switched, only=only)


def weight_set(prompt: str, *, te: float | None = None, unet: float | None = None, only: str = "") -> str:
    """The prompt with these weights in every LoRA tag, or in that of the file `only`."""

    def changed(tag: Tag, items: list[str]) -> list[str]:
        new_te, new_unet = tag.te if te is None else te, tag.unet if unet is None else unet
        return with_weights(items, te=f"{new_te:g}", unet=f"{new_unet:g}")

    return _each_lora(prompt, changed, only=only)


def embeddings_adjusted(
    prompt: str,
    names_of: Callable[[str], Sequence[str]],
    *,
    norm: float | None = None,
    init_share: float | None = None,
    only: str = "",
) -> str:
    """The prompt with these numbers for every embedding of its LoRA tags, or for the embedding `only`.

    `names_of` gives the embeddings of a file by its name in the tag; None leaves a number as the tag has it.

    >>> embeddings_adjusted("<lora:x:1> hana", lambda file: ["hana"], norm=0.5)
    '<lora:x:1:emb=hana*0.5~0> hana'
    """

    def changed(tag: Tag, items: list[str]) -> list[str]:
        found = {folded(name): (name, adjustment) for name, adjustment in tag.adjustments}
        for name in names_of(tag.name):
            if not only or folded(name) == folded(only):
                _, before = found.get(folded(name), (name, EmbeddingAdjustment()))
                found[folded(name)] = (
                    name,
                    EmbeddingAdjustment(
                        before.norm if norm is None else norm, before.init_share if init_share is None else init_share
                    ),
                )
        kept = [item for item in items if not item.startswith(TAG_FIELD)]
        return kept + [TAG_FIELD + spelled(name, one) for name, one in found.values() if not one.changes_nothing]

    return _each_lora(prompt, changed, only="")


def _each_lora(prompt: str, change: Callable[[Tag, list[str]], list[str]], *, only: str) -> str:
    def written(match: re.Match[str]) -> str:
        items = match.group(2).split(":")
        tag = understand(items)
        if match.group(1) not in LORA_KINDS or (only and tag.name != only) or tag.te is None or tag.unet is None:
            return match.group()
        return f"<{match.group(1)}:{':'.join(change(tag, items))}>"

    return TAG.sub(written, prompt)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _bad(text: str) -> bool:
    return _number(text) is None
