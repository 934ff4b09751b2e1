"""What is worth a look before training, in four parts.

Embeddings and captions: embeddings that nothing tells apart, captions that say too much or nothing; read from a
`PrunedCaptions`, before anything is pruned. A mark between tags that no setting names (`aoi ## hat, smile` in nearly
every caption). Embeddings with a side that are mirrored all the same. Pictures and captions against the settings:
sizes, what is cut off, how long.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from glob import escape

from lib_pivotal.data.buckets import Buckets, Placement, crop_report
from lib_pivotal.data.captions import EmbeddingFinder, legal_name, single_tags
from lib_pivotal.data.lint_warnings import Fix, LintWarning, count_of, listed
from lib_pivotal.data.pruning import PrunedCaptions, TagDecision
from lib_pivotal.data.records import DatasetProblem, Picture
from lib_pivotal.data.tags import NOT_CORE, same_tag, tag_class
from lib_pivotal.data.tokens import CHUNK, TokenCounter

OWN_CONCEPT = 0.5
"""A folder is an embedding's own if so many of its pictures have it."""
ALWAYS_SEEN = 0.8
"""A tag in so many of an embedding's captions is taken for a part of it, where the rule for core tags leaves it
alone."""
TELLING = 1.5
"""... and is so much more frequent than in all captions."""
DIFFERENCE, CERTAINTY = 0.25, 2.8
"""Shares of a tag in two sets of captions differ if they are so far apart, and so many standard errors."""
_NOT_OF_A_WORD = frozenset(("people", "expression", "background", "quality"))


def embedding_warnings(wording: PrunedCaptions) -> list[LintWarning]:
    """All checks of this module."""
    return [
        *never_present(wording),
        *always_present(wording),
        *never_apart(wording),
        *explained(wording),
        *without_embedding(wording),
        *to_absorb(wording),
    ]


def never_present(wording: PrunedCaptions) -> list[LintWarning]:
    """Embeddings that no picture has: training refuses them."""
    concepts = {legal_name(picture.concept): picture.concept for picture in wording.named}
    found = []
    for name, embedding in wording.embeddings.items():
        if embedding.keys:
            continue
        text = f"{name}: no caption names this embedding, so it would learn nothing."
        fixes = [Fix("remove_word", f"Remove {name}", {"embedding": name})]
        concept = concepts.get(legal_name(name))
        if concept is not None:
            text += " There is a folder of this name: add the name to its captions."
            fixes.insert(0, _apply(name, concept))
        found.append(LintWarning("word_never", "error", text, (), (name,), tuple(fixes)))
    return found


def always_present(wording: PrunedCaptions) -> list[LintWarning]:
    """Embeddings that every picture has: normal where there is one embedding, else an embedding that tells nothing
    apart."""
    if len(wording.named) < 2:
        return []
    alone = len(wording.uses) == 1
    found = []
    for name, embedding in wording.embeddings.items():
        if len(embedding.keys) < len(wording.named):
            continue
        if alone:
            text = (
                f"{name} is in every caption. Fine for a single embedding; class pictures or preservation "
                "(Regularisation) "
                "keep the rest of the model from becoming it."
            )
            found.append(LintWarning("word_always", "info", text, (), (name,)))
            continue
        text = (
            f"{name} is in every caption: what it should learn goes into the network just as well, and appears without "
            "the embedding. Add pictures that do not have it, or remove it."
        )
        fix = Fix("remove_word", f"Remove {name}", {"embedding": name})
        found.append(LintWarning("word_always", "warning", text, (), (name,), (fix,)))
    return found


def never_apart(wording: PrunedCaptions) -> list[LintWarning]:
    """Embeddings that have the same pictures: nothing can tell a run which is which."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, embedding in wording.embeddings.items():
        if embedding.keys:
            groups.setdefault(tuple(sorted(embedding.keys)), []).append(name)
    found = []
    for keys, names in groups.items():
        if len(names) < 2:
            continue
        text = (
            f"{' and '.join(names)} never appear apart ({count_of(len(keys), 'picture')}): the run cannot tell which "
            "is which. Add pictures of each without the other, or keep one embedding."
        )
        kept = next((name for name in names if not wording.embeddings[name].use.form_of), names[0])
        fixes = (
            Fix("remove_word", f"Keep {kept}, remove {other}", {"embedding": other}) for other in names if other != kept
        )
        found.append(LintWarning("words_never_apart", "warning", text, keys, tuple(names), tuple(fixes)))
    return found


def explained(wording: PrunedCaptions) -> list[LintWarning]:
    """Embeddings that others explain: each of its pictures has one that only occurs with it, or nothing marks it there.

    The first is seen from the embeddings alone: a style in which nobody is drawn but characters who are never drawn in
    another. The second from tags: an embedding whose pictures are all another embedding's, and whose captions say the
    same as that embedding's others. Pictures of embeddings that never meet it are no comparison: those embeddings tell
    them apart.
    """
    keys = {name: set(embedding.keys) for name, embedding in wording.embeddings.items() if embedding.keys}
    found = []
    for name, mine in keys.items():
        if len(mine) == len(wording.named):
            continue  # said by always_present
        inside = [other for other, theirs in keys.items() if other != name and theirs < mine]
        strangers = [other for other in inside if wording.embeddings[other].use.form_of != name]
        if strangers and set().union(*(keys[other] for other in inside)) == mine:
            text = (
                f"{name}: all of its pictures have {listed(inside)}, and those embeddings never appear without "
                "it. What is "
                f"{name} and what is theirs cannot be separated. Add pictures of them without {name}, or of {name} "
                "without them."
            )
            fix = Fix("remove_word", f"Remove {name}", {"embedding": name})
            found.append(LintWarning("word_explained", "warning", text, tuple(sorted(mine)), (name, *inside), (fix,)))
            continue
        found += _nothing_of_its_own(wording, name, keys)
    return found


def _nothing_of_its_own(wording: PrunedCaptions, name: str, keys: Mapping[str, set[str]]) -> list[LintWarning]:
    mine = keys[name]
    captions = {picture.key: picture for picture in wording.named}
    for other, theirs in keys.items():
        if not mine < theirs:
            continue
        rivals = [embedding for embedding in keys if embedding != other and not keys[embedding] & mine]
        rest = theirs - mine - set().union(*(keys[embedding] for embedding in rivals)) if rivals else theirs - mine
        if not rest or _differ(wording, [captions[key] for key in mine], [captions[key] for key in rest]):
            continue
        text = (
            f"{name}: all of its pictures are {other}'s, and their captions say nothing that those of {other} without "
            f"it do not say, too. Make sure that one can see what {name} is; else it learns nothing of its own."
        )
        fix = Fix("remove_word", f"Remove {name}", {"embedding": name})
        return [LintWarning("word_explained", "info", text, tuple(sorted(mine)), (name, other), (fix,))]
    return []


def _differ(wording: PrunedCaptions, first: Sequence[Picture], second: Sequence[Picture]) -> bool:
    """Whether some tag, not of an embedding, is clearly more frequent in one set (two proportions, pooled)."""
    counts = [_tag_counts(wording, pictures) for pictures in (first, second)]
    sizes = [len(first), len(second)]
    for form in counts[0].keys() | counts[1].keys():
        shares = [count[form] / size for count, size in zip(counts, sizes, strict=True)]
        pooled = (counts[0][form] + counts[1][form]) / sum(sizes)
        error = math.sqrt(pooled * (1 - pooled) * (1 / sizes[0] + 1 / sizes[1]))
        apart = abs(shares[0] - shares[1])
        if apart >= DIFFERENCE and apart >= CERTAINTY * error:
            return True
    return False


def _tag_counts(wording: PrunedCaptions, pictures: Sequence[Picture]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for picture in pictures:
        tags = {same_tag(tag) for tag in picture.tags if not wording.find(tag)}
        counts.update(tags)
    return counts


def without_embedding(wording: PrunedCaptions) -> list[LintWarning]:
    """Pictures of no embedding; where their folder is an embedding's own, it is a slip with a fix."""
    if not wording.uses:
        return []
    unnamed: dict[str, list[str]] = {}
    embeddings: dict[str, Counter[str]] = {}
    sizes: Counter[str] = Counter()
    for picture in wording.named:
        sizes[picture.concept] += 1
        mine = [name for name in wording.embeddings_of[picture.key] if name in wording.embeddings]
        embeddings.setdefault(picture.concept, Counter()).update(mine)
        if not mine:
            unnamed.setdefault(picture.concept, []).append(picture.key)
    found, rest = [], []
    for concept, keys in unnamed.items():
        commonest = embeddings[concept].most_common(1)
        if len(sizes) < 2 or not commonest or commonest[0][1] < OWN_CONCEPT * sizes[concept]:
            rest += keys
            continue
        name = commonest[0][0]
        text = (
            f"{concept}: {count_of(len(keys), 'caption')} of {sizes[concept]} lack {name}, which the others name; they "
            "train the network only."
        )
        found.append(LintWarning("no_word", "warning", text, tuple(keys), (name,), (_apply(name, concept),)))
    if rest:
        text = f"{count_of(len(rest), 'picture')} name none of the embeddings: they train the network only."
        found.append(LintWarning("no_word", "info", text, tuple(rest)))
    return found


def to_absorb(wording: PrunedCaptions) -> list[LintWarning]:
    """Tags in captions that describe what the embedding should be."""
    found = []
    for name, embedding in wording.embeddings.items():
        if embedding.style or not embedding.keys:
            continue
        core = [tag for tag in embedding.tags if tag.belongs and tag.fate == "kept"]
        if core:
            tags = listed(f"{tag.tag} ({tag.share:.0%})" for tag in core)
            text = (
                f"{name}: its captions also say {tags}. What a caption says, the embedding need not learn: prune these "
                "tags."
            )
            fix = Fix("absorb", f"Prune them from {name}", {"embedding": name, "tags": []})
            found.append(
                LintWarning("tags_describe_word", "warning", text, _keys_with(wording, name, core), (name,), (fix,))
            )
        always = [tag for tag in embedding.tags if _always_there(wording, name, tag)]
        if always and embedding.use.prune and wording.rules.mode == "character_core":
            tags = listed(f"{tag.tag} ({tag.share:.0%})" for tag in always)
            text = (
                f"{name}: nearly all of its captions say {tags}, which stays in the captions by the rule. Prune it if "
                "it belongs to the embedding."
            )
            fix = Fix("absorb", f"Prune it from {name}", {"embedding": name, "tags": [t.tag for t in always]})
            found.append(
                LintWarning("tags_describe_word", "info", text, _keys_with(wording, name, always), (name,), (fix,))
            )
    return found


def _always_there(wording: PrunedCaptions, name: str, tag: TagDecision) -> bool:
    if tag.belongs or tag.by_hand or tag.share < ALWAYS_SEEN or tag.count < 3:
        return False
    covers = len(wording.embeddings[name].keys) > 0.9 * len(wording.named)
    if not covers and tag.lift < TELLING:
        return False
    return tag_class(tag.tag) not in _NOT_OF_A_WORD and NOT_CORE.isdisjoint(same_tag(tag.tag).split())


def _keys_with(wording: PrunedCaptions, name: str, tags: Sequence[TagDecision]) -> tuple[str, ...]:
    """The embedding's pictures whose captions have one of the tags."""
    forms = {same_tag(tag.tag) for tag in tags}
    mine = set(wording.embeddings[name].keys)
    return tuple(
        picture.key
        for picture in wording.named
        if picture.key in mine and any(same_tag(tag) in forms for tag in picture.tags)
    )


def _apply(name: str, concept: str) -> Fix:
    arguments = {"embedding": name, "pattern": f"concept:{escape(concept)}"}
    return Fix("apply_to", f"Put {name} before the captions of {concept}", arguments)


UNNAMED_MARK = "unnamed_mark"
"""The kind of the warning."""
NEARLY_EVERY = 0.9
"""The share of captions that must have the mark."""
FEWEST = 3
"""With fewer captions it may be chance."""
MOST_OF_ONE = 2
"""`a ## b ## c`: kept in front, free, kept at the end."""

_MARK = re.compile(r"(?<!\S)[^\w\s,.()\[\]{}\"'\\]{2,}(?!\S)")
_FACE = re.compile(r"(?![-=~]+>|<[-=~]+).*[:;=].*|><")
"""Other than one sign again and again (`::`), and other than arrows."""


def unnamed_mark(pictures: Iterable[Picture]) -> str:
    """Two signs or more between blanks that stand in nearly every caption, and nowhere within a tag; "" if none does.

    What the pictures' own cut knows as a mark is none that is not named. Faces (`:-|`) are tags.
    """
    captions = [(caption, picture.cut.mark) for picture in pictures if (caption := picture.caption.strip())]
    if len(captions) < FEWEST:
        return ""
    counts = [Counter(mark for mark in _MARK.findall(caption) if mark != known) for caption, known in captions]
    shared = Counter(mark for count in counts for mark in count if _may_be_one(mark))
    for mark, number in shared.most_common():
        if number < NEARLY_EVERY * len(captions):
            break
        alone = all(caption.count(mark) == count[mark] for (caption, _), count in zip(captions, counts, strict=True))
        if alone and max(count[mark] for count in counts) <= MOST_OF_ONE:
            return mark
    return ""


def mark_told(mark: str) -> str:
    """What to say of it."""
    return (
        f'Nearly every caption has " {mark} " between tags, and it is read as part of one. If it divides tags that '
        f"stay in front from those that are shuffled, say so: data.keep_separator = {mark}"
    )


def _may_be_one(mark: str) -> bool:
    return len(set(mark)) == 1 or not _FACE.fullmatch(mark)


SIDE = "belongs to one side"
LETTERS = "letters would be mirrored"
SAYS_SIDE = "the caption names a side"

_SIDE_TAGS = (
    # eyes and face
    "heterochromia, eyepatch, medical eyepatch, monocle, hair over one eye, one eye covered, scar across eye, "
    "scar on face, scar on cheek, scar on forehead, mole under eye, mole under mouth, mole on cheek, mole on breast, "
    "teardrop tattoo, star facial mark, "
    # hair
    "side ponytail, side braid, one side up, single side bun, single hair ring, single braid, asymmetrical hair, "
    "asymmetrical bangs, asymmetrical sidelocks, split-color hair, swept bangs, hair over shoulder, "
    # body
    "single horn, single wing, asymmetrical wings, asymmetrical horns, broken horn, torn ear, single mechanical arm, "
    "prosthetic arm, prosthetic leg, mechanical arm, missing limb, amputee, arm tattoo, shoulder tattoo, leg tattoo, "
    # clothes
    "asymmetrical clothes, asymmetrical legwear, asymmetrical sleeves, asymmetrical gloves, asymmetrical footwear, "
    "mismatched legwear, mismatched gloves, uneven legwear, uneven sleeves, single thighhigh, single sock, single "
    "kneehigh, single pantsleg, single glove, single elbow glove, single gauntlet, single sleeve, single detached "
    "sleeve, single bare shoulder, single off shoulder, one-shoulder dress, single strap, single shoe, single boot, "
    "single earring, single pauldron, single epaulette, single shoulder pad, side cape, aiguillette, "
    "split theme"
)
ASYMMETRIC: Mapping[str, str] = {
    **{tag.strip(): SIDE for tag in _SIDE_TAGS.split(",")},
    **dict.fromkeys(
        "text, english text, japanese text, chinese text, korean text, german text, speech bubble, thought bubble, "
        "signature, artist name, character name, copyright name, dated, logo, name tag, number, clothes writing, "
        "text on clothes, jersey number, body writing, watermark, sign, comic".split(", "),
        LETTERS,
    ),
}
"""Tag -> why a mirrored picture would be wrong."""

TRAIT_SHARE = 0.2
"""A trait of one side counts when this share of an embedding's captions has it: fewer are taken for chance."""

_LEFT_RIGHT = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def reasons(caption: str) -> dict[str, str]:
    """Tag -> reason, of every tag of a caption that speaks against mirroring its picture."""
    return {tag: reason for tag in single_tags(caption) if (reason := _reason(tag))}


@lru_cache(maxsize=65_536)
def _reason(tag: str) -> str:
    """Kept, as few tags make up most of thousands of captions."""
    form = same_tag(tag)
    return ASYMMETRIC.get(form) or (SAYS_SIDE if _LEFT_RIGHT.search(form) else "")


def mirror_warnings(pictures: Mapping[str, Sequence[tuple[str, str]]]) -> list[DatasetProblem]:
    """One warning an embedding whose pictures should not be mirrored; `pictures`: embedding -> key and caption of each.

    Captions as they are on disk: what an embedding absorbs is just what may belong to one side.
    """
    problems = []
    for embedding, told in pictures.items():
        counts: Counter[str] = Counter()
        why: dict[str, str] = {}
        keys: dict[str, list[str]] = {}
        for key, caption in told:
            for tag, reason in reasons(caption).items():
                form = same_tag(tag)
                counts[form] += 1
                why[form] = reason
                keys.setdefault(form, []).append(key)
        telling = [tag for tag, count in counts.most_common() if why[tag] != SIDE or count >= TRAIT_SHARE * len(told)]
        if telling:
            shown = "; ".join(f"{tag} ({counts[tag]} of {len(told)}: {why[tag]})" for tag in telling[:4])
            more = f", and {len(telling) - 4} more" if len(telling) > 4 else ""
            problems.append(
                DatasetProblem(
                    "warning",
                    "mirrored",
                    f"{embedding}: its pictures are mirrored, but have {shown}{more}. Turn mirroring off for this "
                    "embedding.",
                    tuple(dict.fromkeys(key for tag in telling for key in keys[tag])),
                )
            )
    return problems


def cut_remarks(pictures: Sequence[Picture], buckets: Buckets) -> list[DatasetProblem]:
    """One line on sizes, cuts, enlarged and bordered pictures; none where every picture fits as it is."""
    placed = [(picture, buckets.assign(picture.width_px, picture.height_px)) for picture in pictures]
    report = crop_report([placement for _, placement in placed])
    parts = [f"{_count(report['pictures'], 'picture')} in {_count(report['buckets'], 'size')}"]
    if report["most_cropped"] >= 0.005:  # which would read as 0 %
        parts.append(f"{report['mean_cropped']:.0%} is cut off on average, {report['most_cropped']:.0%} at most")
    if report["upscaled"]:
        parts.append(f"{report['upscaled']} {_are(report['upscaled'])} enlarged")
    if report["bordered"]:
        text = (
            f"{report['bordered']} {_are(report['bordered'])} shown in full with a border: cutting would take "
            "too much"
        )
        parts.append(text)
    keys = tuple(picture.key for picture, placement in placed if placement.upscaled or not placement.covers)
    return [DatasetProblem("info", "buckets", "; ".join(parts) + ".", keys)] if len(parts) > 1 else []


def mirror_remarks(
    pictures: Sequence[Picture], *, embeddings: Sequence[str], keys: Collection[str]
) -> list[DatasetProblem]:
    """A warning for each embedding whose pictures (those of `keys`) are mirrored but should not be."""
    find = EmbeddingFinder(embeddings)
    told: dict[str, list[tuple[str, str]]] = {}
    for picture in pictures:
        if picture.key in keys:
            for name in find(picture.caption):
                told.setdefault(name, []).append((picture.key, picture.flat))
    return mirror_warnings(told)


def _count(number: float, name: str) -> str:
    return f"{number:g} {name}{'' if number == 1 else 's'}"


def _are(number: float) -> str:
    return "is" if number == 1 else "are"


ENLARGED = 1.25
"""A picture that grows by more than this in length looks soft, and the run learns to draw softly."""
ROOM_FOR_TAGS = 25
"""Places that a caption's tags want beside its embeddings, when vectors are cut to fit."""
LEAST_VECTORS = 2


def too_small(placed: Sequence[tuple[Picture, Placement]], *, fitting_px: int, target_px: int) -> list[LintWarning]:
    """Pictures that are enlarged for their size; `fitting_px` is the training size that most pictures have."""
    grown = [
        (picture, placement.resized_px[0] / picture.width_px) for picture, placement in placed if placement.upscaled
    ]
    if not grown:
        return []
    most = max(factor for _, factor in grown)
    many = count_of(len(grown), "picture")
    text = f"{many} {_are(len(grown))} smaller than the training size and enlarged, {most:.2g} times at most."
    fixes = [Fix("set", "Train them at their own size", {"path": "data.upscale", "value": False})]
    if fitting_px < target_px:
        small = Fix("set", f"Train all at {fitting_px} px", {"path": "data.resolution_px", "value": fitting_px})
        fixes.insert(0 if len(grown) > 0.5 * len(placed) else 1, small)
    severity = "warning" if most > ENLARGED else "info"
    keys = tuple(picture.key for picture, _ in grown)
    return [LintWarning("small_pictures", severity, text, keys, (), tuple(fixes))]  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Length:
    """How long a picture's longest caption is; `max_tokens` as in the run, 0: chunks of 75, as many as needed."""

    key: str
    text: str = field(repr=False)
    places: int
    counter: TokenCounter = field(repr=False)
    max_tokens: int = 0

    @cached_property
    def behind(self) -> tuple[str, ...]:
        """What is cut off, or without a limit, what is behind the first chunk; found out when it is asked for."""
        if self.places <= (self.max_tokens or CHUNK):
            return ()
        if self.max_tokens:
            return tuple(self.counter.divide(self.text, self.max_tokens)[1])
        return tuple(self.counter.behind(self.text))


def caption_length(key: str, text: str, counter: TokenCounter, *, max_tokens: int) -> Length:
    """Counted now."""
    return Length(key, text, counter(text), counter, max_tokens)


def overruns(
    lengths: Sequence[Length],
    embeddings_of: Mapping[str, Sequence[str]],
    vectors: Mapping[str, int],
    *,
    max_tokens: int,
    shuffled: bool,
) -> list[LintWarning]:
    """Captions whose embeddings and tags take more places than a chunk (or than the limit) has: what is lost is
    named."""
    found = _vectors_alone(embeddings_of, vectors, limit=max_tokens or CHUNK)
    over = [length for length in lengths if length.places > (max_tokens or CHUNK)]
    if not over:
        return found
    worst = max(over, key=lambda length: length.places)
    tail = listed((f"`{tag}`" for tag in worst.behind), most=6) or "its embeddings"
    many = f"{count_of(len(over), 'caption')} {'takes' if len(over) == 1 else 'take'} more than"
    if max_tokens:
        text = (
            f"{many} the limit of {max_tokens} places, {worst.places} at most; the last tags are cut off. Of "
            f"{worst.key} this loses {tail}."
        )
        fix = Fix("set", "Keep all, in chunks of 75", {"path": "data.max_tokens", "value": 0})
        fixes = [fix, *_fewer(over, embeddings_of, vectors, limit=max_tokens)]
        found.append(LintWarning("tokens", "warning", text, tuple(length.key for length in over), (), tuple(fixes)))
        return found
    order = " (tags are shuffled: as written)" if shuffled else ""
    text = (
        f"{many} 75 places, {worst.places} at most. Nothing is lost, but what is behind stands in a chunk of its own, "
        f"which sees nothing of the text before it: of {worst.key}{order} {tail}."
    )
    fewer = _fewer(over, embeddings_of, vectors, limit=CHUNK)
    found.append(LintWarning("tokens", "info", text, tuple(length.key for length in over), (), fewer))
    return found


def _vectors_alone(
    embeddings_of: Mapping[str, Sequence[str]], vectors: Mapping[str, int], *, limit: int
) -> list[LintWarning]:
    """Pictures whose embeddings alone are too long."""
    sums = {key: sum(vectors.get(name, 0) for name in names) for key, names in embeddings_of.items()}
    over = {key: places for key, places in sums.items() if places > limit}
    if not over:
        return []
    worst = max(over, key=lambda key: over[key])
    names = [name for name in embeddings_of[worst] if name in vectors]
    parts = " + ".join(f"{name} {vectors[name]}" for name in names)
    text = (
        f"The vectors of the embeddings alone take {over[worst]} of {limit} places in {count_of(len(over), 'caption')} "
        f"({parts}): an embedding ends up in another chunk than the others, or is cut. Give them fewer vectors."
    )
    fix = _cut_vectors(names, vectors, room=max(limit - ROOM_FOR_TAGS, len(names) * LEAST_VECTORS))
    return [LintWarning("vectors_overrun", "warning", text, tuple(over), tuple(names), fix)]


def _fewer(
    over: Sequence[Length], embeddings_of: Mapping[str, Sequence[str]], vectors: Mapping[str, int], *, limit: int
) -> tuple[Fix, ...]:
    """Fewer vectors, where these alone can bring the longest caption under the limit."""
    worst = max(over, key=lambda length: length.places)
    names = [name for name in embeddings_of.get(worst.key, ()) if name in vectors]
    taken = sum(vectors[name] for name in names)
    room = taken - (worst.places - limit)
    if taken > limit or room < len(names) * LEAST_VECTORS * 2:  # an embedding of very few vectors holds little
        return ()
    return _cut_vectors(names, vectors, room=room)


def _cut_vectors(names: Sequence[str], vectors: Mapping[str, int], *, room: int) -> tuple[Fix, ...]:
    taken = sum(vectors[name] for name in names)
    if taken <= room:
        return ()
    fitting = {name: max(LEAST_VECTORS, vectors[name] * room // taken) for name in names}
    shown = ", ".join(f"{name} {number}" for name, number in fitting.items())
    return (Fix("vectors", f"Fewer vectors: {shown}", {"vectors": fitting}),)
