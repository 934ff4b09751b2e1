"""Tags of a concept: how frequent, how telling, which ones the embedding should absorb, and the init text they make."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from lib_pivotal.byte_cache import ByteCache
from lib_pivotal.data.captions import EmbeddingFinder, peeled, single_tags, without_escapes
from lib_pivotal.errors import DataError

CoreRule = Literal["narugo", "kgrid"]

NARUGO_THRESHOLD = 0.45
NARUGO_FEATURE_THRESHOLD = 0.35
NARUGO_FEATURES = frozenset(
    "skin eye eyes pupil pupils eyebrow eyebrows eyelash eyelashes hair bangs ponytail twintails braid ahoge horn "
    "horns ear ears neck breast breasts scar face facial beard mustache blood tooth teeth fang fangs tail wing "
    "wings halo mole freckles".split()
)
KGRID_THRESHOLD = 0.4
KGRID_EASY = frozenset(
    "hair eyes eye eyebrows pupils skin bangs sidelocks ahoge twintails ponytail braid braids bun drills bob "
    "breasts heterochromia".split()
)
"""Difficulty 0: what every model can draw from an embedding; ends or begins a tag."""
KGRID_HARD = frozenset(
    "elf ear ears horn horns tail tails wing wings halo mole moles scar scars furry fur fang fangs fins antennae "
    "freckles tattoo markings mark eyepatch".split()
)
"""Difficulty 1: what an embedding learns better when its vectors begin with it."""
NOT_CORE = frozenset(
    "solo girl girls boy boys 1girl 1boy 2girls 2boys 3girls 3boys multiple body background quality chibi "
    "monochrome comic looking viewer text signature watermark peeking focus smile mouth anime screenshot sky wall "
    "tree cloud day night indoors outdoors close window curtains portrait standing sitting lying holding open "
    "closed blush".split()
)
"""Embeddings that make a tag a matter of the picture, never of the character."""
NEVER_CORE = frozenset(
    "frown|frowning|grin|laughing|angry|annoyed|sad|crying|tears|happy|serious|expressionless|surprised|embarrassed|"
    "nervous|sleeping|crossed arms|arms up|arm up|arms behind back|hand up|hands up|hand on own hip|v|waving|pointing|"
    "running|walking|jumping|kneeling|squatting|crouching|leaning forward|all fours|on back|on side|from side|"
    "from behind|from above|from below|profile|cowboy shot|wide shot|very wide shot|upper body|lower body|full body|"
    "head tilt|turned head|facing away|dutch angle|pov|close-up|from afar|left side|right side|centered|straight-on|"
    "wet|wet hair|floating hair|wind|backlighting|sunlight|lens flare|depth of field|blurry|cropped|"
    "male focus|simple background|commentary|highres|absurdres".split("|")
)
"""The same as whole tags: expressions, poses, views, light. Single embeddings of them (`side`) belong to other tags,
too."""
CLOTHES = frozenset(
    "shirt dress skirt pants shorts jacket coat hoodie sweater vest uniform swimsuit bikini kimono suit cape "
    "cloak hat cap helmet ribbon bow necktie bowtie scarf gloves socks thighhighs pantyhose shoes boots sleeves "
    "collar belt apron armor serafuku sleeveless necklace earrings jewelry bag glasses clothes".split()
)
"""Narugo leaves clothes to the caption, so that they can be changed; kgrid lets the embedding absorb frequent ones."""


FEW_CAPTIONS = 20
"""With fewer captions than this a share is partly chance: its lower bound must come near the threshold, too."""
NEAR = 0.9
ONE_SIDED_90 = 1.2816
"""Standard errors below a share in which it truly lies with 90 %."""


@dataclass(frozen=True)
class TagShare:
    """A tag and the share of captions that have it."""

    tag: str
    share: float


@lru_cache(maxsize=65536)
def _without_weight(tag: str) -> str:
    """`(red hair:1.2)` -> `red hair`; faces such as `:)` stay."""
    opening, inside, _ = peeled(tag.strip())
    return inside.strip() if opening and inside.strip() else tag


@lru_cache(maxsize=65536)
def same_tag(tag: str) -> str:
    """The form in which tags are compared: lower case, `_` a space, no emphasis or escapes: `(Long_Hair:1.2)`.

    Only brackets around the whole tag are emphasis: `:)`, `:]` and `\\o/` are three tags.
    """
    text = without_escapes(_without_weight(tag))
    return re.sub(r"\s+", " ", text.replace("_", " ")).strip().casefold() or tag.strip()


def tag_counts(captions: Iterable[str], *, separator: str = ",") -> Counter[str]:
    """In how many captions each tag (compared by `same_tag`, spelled as first met, without weights) is."""
    spelling: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for caption in captions:
        for form, tag in _forms(caption, separator):
            counts[spelling.setdefault(form, tag)] += 1
    return counts


_forms_known: ByteCache[tuple[str, str], tuple[tuple[str, str], ...]] = ByteCache(64 * 2**20)


def _forms(caption: str, separator: str) -> tuple[tuple[str, str], ...]:
    """The tags of a caption, each once: by `same_tag`, and without weight. The same captions are counted many times."""
    known = _forms_known.get((caption, separator))
    if known is None:
        found = {same_tag(tag): tag for tag in reversed(single_tags(caption, separator=separator))}
        known = tuple((form, _without_weight(tag)) for form, tag in found.items() if form)
        # the caption, and of each tag a tuple: most of their texts are the same in many captions
        _forms_known.put((caption, separator), known, size_bytes=300 + len(caption) + 80 * len(known))
    return known


def tag_shares(captions: Sequence[str], *, separator: str = ",") -> list[TagShare]:
    """The share of captions that have each tag, most frequent first, then by alphabet."""
    return shares_of(tag_counts(captions, separator=separator), len(captions))


def shares_of(counts: Mapping[str, int], captions: int) -> list[TagShare]:
    """The same from what `tag_counts` counted in so many captions."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [TagShare(tag, count / captions) for tag, count in ordered]


def core_tags(
    captions: Sequence[str],
    *,
    rule: CoreRule = "narugo",
    embeddings: Collection[str] = (),
    threshold: float | None = None,
    feature_threshold: float = NARUGO_FEATURE_THRESHOLD,
    features: Collection[str] = NARUGO_FEATURES,
    blacklist: Collection[str] | None = None,
) -> list[TagShare]:
    """The tags that belong to a concept and that its embedding should absorb, most frequent first.

    `narugo`: share >= .45, or >= .35 with one of `features` in it; not blacklisted, nor clothes. `kgrid`: share >= .4
    among the captions of the concept alone (those tagged `solo`, if there are any; else those with one of
    `embeddings`); not blacklisted. A tag is blacklisted if one of its words is. `embeddings`, the trained
    embeddings, are never core tags.

    Differs from both: expressions, poses and views (`NEVER_CORE`) are never core unless `blacklist` is given; and with
    fewer than `FEW_CAPTIONS` captions the lower bound of the share (Wilson's, 90 %) must reach .9 of the threshold.
    Else 3 smiles in 5 pictures make a smile the character's.
    """
    if rule not in ("narugo", "kgrid"):
        raise DataError(f"rule = {rule!r}: the rules for core tags are 'narugo' and 'kgrid'.")
    find = EmbeddingFinder(embeddings)
    used = alone(captions, embeddings=embeddings) if rule == "kgrid" else captions
    least = threshold if threshold is not None else (NARUGO_THRESHOLD if rule == "narugo" else KGRID_THRESHOLD)
    refused = refused_parts(rule) if blacklist is None else blacklist
    never: Collection[str] = NEVER_CORE if blacklist is None else ()
    found: list[TagShare] = []
    for item in tag_shares(used):
        parts = set(_parts(item.tag))
        feature = rule == "narugo" and not parts.isdisjoint(features)
        enough = _is_frequent(item.share, len(used), min(least, feature_threshold) if feature else least)
        if enough and parts.isdisjoint(refused) and same_tag(item.tag) not in never and not find(item.tag):
            found.append(item)
    return found


def _is_frequent(share: float, captions: int, least: float) -> bool:
    """Whether a share reaches the threshold, and not by the chance of few captions."""
    return share >= least and (captions >= FEW_CAPTIONS or lower_bound(share, captions) >= NEAR * least)


def lower_bound(share: float, count: int) -> float:
    """Of the true share, when `share` of `count` were seen: Wilson's score interval (1927), one-sided 90 %."""
    z2 = ONE_SIDED_90**2 / count
    spread = ONE_SIDED_90 * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    return (share + z2 / 2 - spread) / (1 + z2)


def refused_parts(rule: CoreRule) -> frozenset[str]:
    """Embeddings that keep a tag from being core: those of the picture, with narugo clothes too."""
    return NOT_CORE | CLOTHES if rule == "narugo" else NOT_CORE


def alone(captions: Sequence[str], *, embeddings: Collection[str] = ()) -> list[str]:
    """The captions of pictures with nobody else: those tagged `solo`; if none is, those with at most one of
    `embeddings`."""
    solo = [caption for caption in captions if "solo" in map(same_tag, single_tags(caption))]
    if solo:
        return solo
    find = EmbeddingFinder(embeddings)
    return [caption for caption in captions if len(find(caption)) <= 1] or list(captions)


def difficulty(tag: str) -> int:
    """kgrid's: 0 easy (hair, eyes), 1 hard (ears, horns, marks), 2 anything else; by the tag's last or first word."""
    parts = _parts(tag)
    if not parts:
        return 2
    ends = {parts[-1], parts[0]}
    if ends & KGRID_HARD:
        return 1
    return 0 if ends & KGRID_EASY else 2


def without_overlaps(tags: Sequence[TagShare]) -> list[TagShare]:
    """Without tags that end a longer one: `long hair` beside `very long hair`."""
    forms = [_cached_parts(item.tag) for item in tags]
    ends = {form[start:] for form in forms for start in range(1, len(form))}
    return [item for item, form in zip(tags, forms, strict=True) if form not in ends]


def init_text(
    core: Sequence[TagShare],
    *,
    std: float = 0.1,
    random_vectors: int = 10,
    lead: str = "",
    minimum_difficulty: int = 0,
    maximum_difficulty: int = 3,
) -> str:
    """The text an embedding's vectors begin with: core tags by frequency, then `*[std,n]`: n random vectors.

    narugo: `lead="1girl"`, all core tags. kgrid: difficulty from 1 to below 2, overlaps dropped, std .1, 10 vectors.
    """
    chosen = [
        item
        for item in without_overlaps(sorted(core, key=lambda item: (-item.share, item.tag)))
        if minimum_difficulty <= difficulty(item.tag) < maximum_difficulty
    ]
    parts = [lead] if lead else []
    parts += [same_tag(item.tag) for item in chosen]
    if random_vectors > 0:
        parts.append(f"*[{std:g},{random_vectors}]")
    return ", ".join(parts)


TagClass = Literal["people", "character", "clothes", "expression", "background", "quality", "other"]
TAG_CLASSES: tuple[TagClass, ...] = ("people", "character", "clothes", "expression", "background", "quality", "other")
_CLASS_WORDS: dict[TagClass, frozenset[str]] = {
    "people": frozenset("solo girl girls boy boys 1girl 1boy 2girls 2boys 3girls 3boys multiple people person".split()),
    "expression": frozenset(
        "smile frown mouth blush grin closed open tears crying angry sad happy serious surprised looking".split()
    ),
    "background": frozenset(
        "background sky wall tree cloud clouds day night indoors outdoors window curtains park city sea beach forest "
        "sunset room street scenery".split()
    ),
    "quality": frozenset(
        "quality masterpiece absurdres highres lowres best worst jpeg artifacts signature watermark text".split()
    ),
}


def tag_class(tag: str) -> TagClass:
    """What a tag is about; a tag of looks is `character` by the rules of `difficulty`, unless it names clothes."""
    parts = set(_parts(tag))
    first: tuple[TagClass, ...] = ("people", "quality", "background")
    for name in first:
        if parts & _CLASS_WORDS[name]:
            return name
    if parts & CLOTHES:
        return "clothes"
    if parts & _CLASS_WORDS["expression"]:
        return "expression"
    return "character" if difficulty(tag) < 2 else "other"


def _parts(tag: str) -> list[str]:
    return list(_cached_parts(tag))


@lru_cache(maxsize=65536)
def _cached_parts(tag: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[\W_]+", same_tag(tag)) if part)
