"""What each embedding takes from the captions: core tags by rule, tags moved by hand, and the captions that are left.

Rules as in kgrid's pipeline (anime2sd/captioning/tagging_character.py and waifuc_actions.py of
https://github.com/cyber-meow/anime_screenshot_pipeline/tree/c9e3fb8) and narugo's CyberHarem 1.5. Nothing here opens
or changes a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal, TypeVar

from lib_pivotal.data.captions import Cut, EmbeddingFinder, legal_name, single_tags, split_group
from lib_pivotal.data.records import COMMON_CUT, Picture
from lib_pivotal.data.tags import (
    NARUGO_FEATURE_THRESHOLD,
    NOT_CORE,
    CoreRule,
    TagShare,
    core_tags,
    difficulty,
    same_tag,
    shares_of,
    tag_counts,
    tag_shares,
    without_overlaps,
)

PruneMode = Literal["none", "minimal", "character", "character_core"]
Decision = Literal["absorbed", "init", "kept"]
Made = TypeVar("Made")
META_TAGS = frozenset(
    "alternate costume|alternate hairstyle|alternate hair color|alternate eye color|alternate breast size|cosplay|"
    "adapted costume|official alternate costume|casual|contemporary|parody|crossdressing|genderswap|aged up|"
    "aged down|virtual youtuber|head out of frame|feet out of frame|no eyewear".split("|")
)
"""Tags that speak of other pictures than this one; kgrid's minimal pruning drops its list of them."""


@dataclass(frozen=True)
class TagRules:
    """Which tags leave captions. `threshold` and `drop_difficulty` None: the rule's own."""

    mode: PruneMode = "character_core"
    rule: CoreRule = "narugo"
    threshold: float | None = None
    feature_threshold: float = NARUGO_FEATURE_THRESHOLD
    drop_difficulty: int | None = None

    @property
    def dropped_below(self) -> int:
        """Core tags of lower difficulty are dropped: narugo drops all, kgrid those below 2."""
        return self.drop_difficulty or (3 if self.rule == "narugo" else 2)


@dataclass(frozen=True)
class EmbeddingRules:
    """An embedding as captions meet it; the meaning of each field is that of `config.EmbeddingConfig`."""

    name: str
    init_text: str = ""
    prune: bool = False
    prune_tags: tuple[str, ...] = ()
    keep_tags: tuple[str, ...] = ()
    applies_to: tuple[str, ...] = ()
    form_of: str = ""


@dataclass(frozen=True)
class TagDecision:
    """A tag beside an embedding: how often, how telling, and what happens to it.

    `share` is P(tag | embedding), `lift` P(tag | embedding) / P(tag); `init`: absorbed, and the embedding's vectors
    begin with it. `core`: by the rule; `by_hand`: the embedding's own list says so; `belongs`: it is absorbed if the
    embedding absorbs at all; `by_rule`: it would belong if no list said anything.
    """

    tag: str
    count: int
    share: float
    lift: float
    difficulty: int
    fate: Decision
    core: bool = False
    by_hand: bool = False
    belongs: bool = False
    by_rule: bool = False


@dataclass(frozen=True)
class EmbeddingTags:
    """What the pictures say of one embedding: its pictures' keys, whether it is a style, and its tags."""

    use: EmbeddingRules
    keys: tuple[str, ...]
    style: bool
    tags: tuple[TagDecision, ...]

    @property
    def belonging(self) -> tuple[TagShare, ...]:
        """What the embedding stands for, whether its captions are pruned now or not, most frequent first."""
        return tuple(TagShare(tag.tag, tag.share) for tag in self.tags if tag.belongs)


def applies(patterns: Iterable[str], picture: Picture) -> bool:
    """Whether one of an embedding's `applies_to` patterns means this picture."""
    for pattern in patterns:
        kind, colon, value = pattern.partition(":")
        if colon and kind == "concept":
            if fnmatchcase(picture.concept, value) or picture.concept == value:
                return True
        elif colon and kind == "type":
            if picture.image_type == value:
                return True
        elif picture.key == pattern or fnmatchcase(picture.key, pattern):
            return True
    return False


def name_embedding(text: str, embedding: str, find: EmbeddingFinder, cut: Cut = COMMON_CUT) -> str:
    """A caption that names `word`: a tag that says the same in other letters is replaced, else it goes in front."""
    if find(text):
        return text
    parts = cut.parts(text)
    for tags in parts:
        for index, tag in enumerate(tags):
            if legal_name(same_tag(tag)).replace("_", "-") == embedding.replace("_", "-"):
                tags[index] = embedding
                return cut.join(parts)
    return f"{embedding}, {text}" if text.strip() else embedding


class PrunedCaptions:
    """The captions of a dataset with its embeddings: who is in which picture, what each embedding takes, what is left.

    `extra(picture)` names embeddings that templates or prefixes write into a picture's caption.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        uses: Sequence[EmbeddingRules],
        rules: TagRules,
        *,
        extra: Callable[[Picture], Collection[str]] = lambda picture: (),
    ) -> None:
        self.rules, self.uses, self._extra = rules, tuple(uses), extra
        self._trained: tuple[Picture, ...] | None = None
        self._once: dict[str, tuple[object, Any]] = {}
        self._before: PrunedCaptions | None = None
        self._finders = {use.name: EmbeddingFinder([use.name]) for use in uses}
        self.find = find = EmbeddingFinder([use.name for use in uses])
        self._holds_embedding = lru_cache(maxsize=2**16)(lambda tag: bool(find(tag)))  # tags are few, captions many
        self.named = tuple(self._named(picture) for picture in pictures)
        """The pictures with embeddings that `applies_to` gives them in their captions, nothing pruned."""
        self.embeddings_of: dict[str, tuple[str, ...]] = {}
        for picture in self.named:
            self.embeddings_of[picture.key] = self._embeddings_in(picture)
        self._overall = _shares_by_form([picture.flat for picture in self.named])
        by_embedding: dict[str, list[Picture]] = {use.name: [] for use in uses}
        for picture in self.named:
            for embedding in self.embeddings_of[picture.key]:
                by_embedding.setdefault(embedding, []).append(picture)
        self._pictures_of = by_embedding
        self._styles = self._find_styles()
        self._cores = self._find_cores()
        self.embeddings = {use.name: self._describe(use) for use in uses}
        self._absorbed = {name: _taken(embedding) for name, embedding in self.embeddings.items()}

    def revised(self, uses: Sequence[EmbeddingRules]) -> PrunedCaptions | None:
        """The same with other lists, init texts or switches of its embeddings; only embeddings that differ are
        described anew.

        None where names, `applies_to` or `form_of` differ: then nothing of this one holds, and a new one is needed.
        """
        if [_identity(use) for use in uses] != [_identity(use) for use in self.uses]:
            return None
        other = copy(self)
        other.uses, other._trained, other._once = tuple(uses), None, {}
        other._before = self if self._trained is not None else None
        changed = [new for new, old in zip(uses, self.uses, strict=True) if new != old]
        found = {use.name: self._describe(use) for use in changed}
        other.embeddings = {**self.embeddings, **found}
        other._absorbed = {**self._absorbed, **{name: _taken(embedding) for name, embedding in found.items()}}
        return other

    def of_caption(self, picture: Picture) -> tuple[Picture, Picture]:
        """A picture with a caption of its own, such as one that is being typed: with its embeddings, and as trained."""
        named = self._named(picture)
        return named, self._without(named, self._embeddings_in(named))

    def pruned(self, picture: Picture) -> Picture:
        """A picture of `named` as it is trained: captions (and fields of tags) without what its embeddings absorb."""
        return self._without(picture, self.embeddings_of[picture.key])

    def captions(self) -> tuple[Picture, ...]:
        """All pictures as they are trained; read once."""
        if self._trained is None:
            before, self._before = self._before, None
            old = before._trained if before is not None else None
            if before is None or old is None:
                self._trained = tuple(self.pruned(picture) for picture in self.named)
            else:  # only pictures of embeddings that changed
                moved = {name for name in self.embeddings if self.embeddings[name] is not before.embeddings[name]}
                self._trained = tuple(
                    trained if moved.isdisjoint(self.embeddings_of[picture.key]) else self.pruned(picture)
                    for picture, trained in zip(self.named, old, strict=True)
                )
        return self._trained

    def once(self, name: str, inputs: object, make: Callable[[], Made]) -> Made:
        """What `make` makes of this wording and `inputs`; made again only where these differ from the last ones."""
        known = self._once.get(name)
        if known is None or known[0] != inputs:
            known = self._once[name] = (inputs, make())
        made: Made = known[1]
        return made

    # -- parts

    def _embeddings_in(self, picture: Picture) -> tuple[str, ...]:
        found = [embedding for text in (picture.caption, *picture.alternatives) for embedding in self.find(text)]
        return tuple(dict.fromkeys([*found, *self._extra(picture)]))

    def _without(self, picture: Picture, embeddings_of: Sequence[str]) -> Picture:
        """A picture without what those embeddings absorb."""
        embeddings = [embedding for embedding in embeddings_of if embedding in self._absorbed]
        pruning = [embedding for embedding in embeddings if self.embeddings[embedding].use.prune]
        forms = set().union(*(self._absorbed[embedding] for embedding in pruning)) if pruning else set()
        tidy = self.rules.mode == "minimal" or (self.rules.mode != "none" and bool(pruning))
        if not forms and not tidy:
            return picture

        def prune(text: str) -> str:
            return self._prune_text(text, forms, picture.cut, tidy=tidy)

        return replace(
            picture,
            caption=prune(picture.caption),
            alternatives=tuple(prune(text) for text in picture.alternatives),
            fields=tuple((key, prune(text)) for key, text in picture.fields),
        )

    def _named(self, picture: Picture) -> Picture:
        given = [use.name for use in self.uses if use.applies_to and applies(use.applies_to, picture)]
        if not given:
            return picture
        caption, alternatives = picture.caption, picture.alternatives
        for embedding in reversed(given):  # so that the first word of the run stands first
            find = self._finders[embedding]
            caption = name_embedding(caption, embedding, find, picture.cut)
            alternatives = tuple(name_embedding(text, embedding, find, picture.cut) for text in alternatives)
        return replace(picture, caption=caption, alternatives=alternatives)

    def _find_styles(self) -> set[str]:
        """Embeddings whose pictures have others, too, changing ones: they say how things are drawn, not who.

        One after the other, the one with the most various company first: a character who is drawn in a style half of
        the time is none for that.
        """
        found = {use.name for use in self.uses if any(pattern.startswith("type:") for pattern in use.applies_to)}
        found -= {use.name for use in self.uses if use.form_of}
        while True:
            various = {use.name: self._company(use, found) for use in self.uses if use.name not in found}
            name = max(various, key=lambda name: various[name], default="")
            if not name or not various[name]:
                return found
            found.add(name)

    def _company(self, use: EmbeddingRules, styles: set[str]) -> int:
        """How many other words, styles aside, stand beside an embedding that is itself a style; else 0."""
        if use.form_of:
            return 0
        mine = self._pictures_of[use.name]
        left = {use.name, *styles, *(other.name for other in self.uses if other.form_of == use.name)}
        company = Counter(
            embedding for picture in mine for embedding in self.embeddings_of[picture.key] if embedding not in left
        )
        beside = sum(any(embedding not in left for embedding in self.embeddings_of[picture.key]) for picture in mine)
        is_style = len(company) > 2 and beside >= 0.5 * len(mine) and max(company.values()) < 0.9 * len(mine)
        return len(company) if is_style else 0

    def _find_cores(self) -> dict[str, dict[str, TagShare]]:
        """Core tags of each embedding, by form of the tag: of what is shared by its forms, and of forms only what is
        new."""
        found: dict[str, dict[str, TagShare]] = {}
        people = [use.name for use in self.uses if use.name not in self._styles and not use.form_of]
        find_people = EmbeddingFinder(people)
        for use in self.uses:
            mine = self._pictures_of[use.name]
            if use.name in self._styles or not mine:
                found[use.name] = {}
                continue
            lone = [p for p in mine if len(find_people(p.caption)) <= 1] or mine
            found[use.name] = self._core_of([p.flat for p in lone])
        for use in self.uses:
            forms = [other.name for other in self.uses if other.form_of == use.name and self._pictures_of[other.name]]
            if forms:  # kgrid: of several forms of one character, what all have in common
                found[use.name] = {
                    form: item for form, item in found[use.name].items() if all(form in found[name] for name in forms)
                }
        for use in self.uses:
            if use.form_of in found:
                found[use.name] = {
                    form: item for form, item in found[use.name].items() if form not in found[use.form_of]
                }
        return found

    def _core_of(self, captions: Sequence[str]) -> dict[str, TagShare]:
        rules = self.rules
        items = core_tags(
            captions,
            rule=rules.rule,
            embeddings=[use.name for use in self.uses],
            threshold=rules.threshold,
            feature_threshold=rules.feature_threshold,
        )
        return {same_tag(item.tag): item for item in items}

    def _describe(self, use: EmbeddingRules) -> EmbeddingTags:
        mine = self._pictures_of[use.name]
        captions = [picture.flat for picture in mine]
        counts = tag_counts(captions)
        core = self._cores[use.name]
        prune_tags, keep_tags = {same_tag(tag) for tag in use.prune_tags}, {same_tag(tag) for tag in use.keep_tags}
        begins = {same_tag(piece) for piece in use.init_text.split(",")}
        rows = []
        for item in shares_of(counts, len(captions)):
            form = same_tag(item.tag)
            if self._holds_embedding(item.tag) or not form:
                continue
            is_core = form in core
            takes = self._takes(item.tag, core=is_core, style=use.name in self._styles)
            belongs = form in prune_tags or (takes and form not in keep_tags)
            fate: Decision = "kept" if not (use.prune and belongs) else "init" if form in begins else "absorbed"
            rows.append(
                TagDecision(
                    tag=item.tag,
                    count=counts[item.tag],
                    share=item.share,
                    lift=item.share / self._overall.get(form, item.share),
                    difficulty=difficulty(item.tag),
                    fate=fate,
                    core=is_core,
                    by_hand=form in prune_tags or form in keep_tags,
                    belongs=belongs,
                    by_rule=takes,
                )
            )
        return EmbeddingTags(use, tuple(p.key for p in mine), use.name in self._styles, tuple(rows))

    def _takes(self, tag: str, *, core: bool, style: bool) -> bool:
        """Whether the mode takes a tag out of an embedding's captions."""
        mode = self.rules.mode
        if style or mode in ("none", "minimal"):
            return False
        if mode == "character":  # any tag of looks, however rare
            return difficulty(tag) < min(self.rules.dropped_below, 2) and NOT_CORE.isdisjoint(same_tag(tag).split())
        return core and difficulty(tag) < self.rules.dropped_below

    def _prune_text(self, text: str, forms: Collection[str], cut: Cut, *, tidy: bool) -> str:
        parts = cut.parts(text)
        kept = [_those(tags, lambda tag: same_tag(tag) not in forms or self._holds_embedding(tag)) for tags in parts]
        if tidy:
            single = [TagShare(tag, 1.0) for tags in kept for tag in single_tags(",".join(tags))]
            shown = {item.tag for item in without_overlaps(single)}
            kept = [
                _those(tags, lambda t: self._holds_embedding(t) or (t in shown and same_tag(t) not in META_TAGS))
                for tags in kept
            ]
        return text if kept == parts else cut.join(kept)


def _those(tags: Sequence[str], stays: Callable[[str], bool]) -> list[str]:
    """The tags that stay; of some that brackets hold together those that do, in their brackets."""
    found = []
    for tag in tags:
        group = split_group(tag)
        if group is None:
            found += [tag] if stays(tag) else []
            continue
        opening, inside, closing = group
        left = _those(inside, stays)
        found += [tag] if left == inside else [f"{opening}{', '.join(left)}{closing}"] if left else []
    return found


def _identity(use: EmbeddingRules) -> tuple[object, ...]:
    """What decides which pictures an embedding has, and which tags are core."""
    return use.name, use.applies_to, use.form_of


def _taken(embedding: EmbeddingTags) -> set[str]:
    return {same_tag(tag.tag) for tag in embedding.tags if tag.fate != "kept"}


def _shares_by_form(captions: Sequence[str]) -> Mapping[str, float]:
    return {same_tag(item.tag): item.share for item in tag_shares(captions)} if captions else {}
