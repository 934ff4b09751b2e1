"""What is wrong between words and captions: words that nothing tells apart, and captions that say too much or nothing.

All of it is read from a `Wording`: captions with their words, before anything is pruned.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from glob import escape

from lib_pivotal.data.captions import legal_name
from lib_pivotal.data.findings import Finding, Remedy, count_of, listed
from lib_pivotal.data.pruning import TagFate, Wording
from lib_pivotal.data.records import Picture
from lib_pivotal.data.tags import NOT_CORE, same_tag, tag_class

OWN_CONCEPT = 0.5
"""A folder is a word's own if so many of its pictures have it."""
ALWAYS_SEEN = 0.8
"""A tag in so many of a word's captions is taken for a part of it, where the rule for core tags leaves it alone."""
TELLING = 1.5
"""... and is so much more frequent than in all captions."""
DIFFERENCE, CERTAINTY = 0.25, 2.8
"""Shares of a tag in two sets of captions differ if they are so far apart, and so many standard errors."""
_NOT_OF_A_WORD = frozenset(("people", "expression", "background", "quality"))


def word_findings(wording: Wording) -> list[Finding]:
    """All checks of this module."""
    return [
        *never_present(wording),
        *always_present(wording),
        *never_apart(wording),
        *explained(wording),
        *without_word(wording),
        *to_absorb(wording),
    ]


def never_present(wording: Wording) -> list[Finding]:
    """Words that no picture has: training refuses them."""
    concepts = {legal_name(picture.concept): picture.concept for picture in wording.named}
    found = []
    for name, word in wording.words.items():
        if word.keys:
            continue
        text = f"{name}: no caption names this embedding, so it would learn nothing."
        remedies = [Remedy("remove_word", f"Remove {name}", {"word": name})]
        concept = concepts.get(legal_name(name))
        if concept is not None:
            text += " There is a folder of this name: add the name to its captions."
            remedies.insert(0, _apply(name, concept))
        found.append(Finding("word_never", "error", text, (), (name,), tuple(remedies)))
    return found


def always_present(wording: Wording) -> list[Finding]:
    """Words that every picture has: normal where there is one word, else a word that tells nothing apart."""
    if len(wording.named) < 2:
        return []
    alone = len(wording.uses) == 1
    found = []
    for name, word in wording.words.items():
        if len(word.keys) < len(wording.named):
            continue
        if alone:
            text = (
                f"{name} is in every caption. Fine for a single embedding; class pictures or preservation "
                "(Regularisation) "
                "keep the rest of the model from becoming it."
            )
            found.append(Finding("word_always", "info", text, (), (name,)))
            continue
        text = (
            f"{name} is in every caption: what it should learn goes into the network just as well, and appears without "
            "the embedding. Add pictures that do not have it, or remove it."
        )
        remedy = Remedy("remove_word", f"Remove {name}", {"word": name})
        found.append(Finding("word_always", "warning", text, (), (name,), (remedy,)))
    return found


def never_apart(wording: Wording) -> list[Finding]:
    """Words that have the same pictures: nothing can tell a run which is which."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, word in wording.words.items():
        if word.keys:
            groups.setdefault(tuple(sorted(word.keys)), []).append(name)
    found = []
    for keys, names in groups.items():
        if len(names) < 2:
            continue
        text = (
            f"{' and '.join(names)} never appear apart ({count_of(len(keys), 'picture')}): the run cannot tell which "
            "is which. Add pictures of each without the other, or keep one embedding."
        )
        kept = next((name for name in names if not wording.words[name].use.form_of), names[0])
        remedies = (
            Remedy("remove_word", f"Keep {kept}, remove {other}", {"word": other}) for other in names if other != kept
        )
        found.append(Finding("words_never_apart", "warning", text, keys, tuple(names), tuple(remedies)))
    return found


def explained(wording: Wording) -> list[Finding]:
    """Words that others explain: each of its pictures has one that only occurs with it, or nothing marks it there.

    The first is seen from the words alone: a style in which nobody is drawn but characters who are never drawn in
    another. The second from tags: a word whose pictures are all another word's, and whose captions say the same as
    that word's others. Pictures of words that never meet it are no comparison: those words tell them apart.
    """
    keys = {name: set(word.keys) for name, word in wording.words.items() if word.keys}
    found = []
    for name, mine in keys.items():
        if len(mine) == len(wording.named):
            continue  # said by always_present
        inside = [other for other, theirs in keys.items() if other != name and theirs < mine]
        strangers = [other for other in inside if wording.words[other].use.form_of != name]
        if strangers and set().union(*(keys[other] for other in inside)) == mine:
            text = (
                f"{name}: all of its pictures have {listed(inside)}, and those embeddings never appear without "
                "it. What is "
                f"{name} and what is theirs cannot be separated. Add pictures of them without {name}, or of {name} "
                "without them."
            )
            remedy = Remedy("remove_word", f"Remove {name}", {"word": name})
            found.append(Finding("word_explained", "warning", text, tuple(sorted(mine)), (name, *inside), (remedy,)))
            continue
        found += _nothing_of_its_own(wording, name, keys)
    return found


def _nothing_of_its_own(wording: Wording, name: str, keys: Mapping[str, set[str]]) -> list[Finding]:
    mine = keys[name]
    captions = {picture.key: picture for picture in wording.named}
    for other, theirs in keys.items():
        if not mine < theirs:
            continue
        rivals = [word for word in keys if word != other and not keys[word] & mine]
        rest = theirs - mine - set().union(*(keys[word] for word in rivals)) if rivals else theirs - mine
        if not rest or _differ(wording, [captions[key] for key in mine], [captions[key] for key in rest]):
            continue
        text = (
            f"{name}: all of its pictures are {other}'s, and their captions say nothing that those of {other} without "
            f"it do not say, too. Make sure that one can see what {name} is; else it learns nothing of its own."
        )
        remedy = Remedy("remove_word", f"Remove {name}", {"word": name})
        return [Finding("word_explained", "info", text, tuple(sorted(mine)), (name, other), (remedy,))]
    return []


def _differ(wording: Wording, first: Sequence[Picture], second: Sequence[Picture]) -> bool:
    """Whether some tag, not of a word, is clearly more frequent in one set (two proportions, pooled)."""
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


def _tag_counts(wording: Wording, pictures: Sequence[Picture]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for picture in pictures:
        tags = {same_tag(tag) for tag in picture.tags if not wording.find(tag)}
        counts.update(tags)
    return counts


def without_word(wording: Wording) -> list[Finding]:
    """Pictures of no word; where their folder is a word's own, it is a slip that can be mended."""
    if not wording.uses:
        return []
    unnamed: dict[str, list[str]] = {}
    words: dict[str, Counter[str]] = {}
    sizes: Counter[str] = Counter()
    for picture in wording.named:
        sizes[picture.concept] += 1
        mine = [name for name in wording.words_of[picture.key] if name in wording.words]
        words.setdefault(picture.concept, Counter()).update(mine)
        if not mine:
            unnamed.setdefault(picture.concept, []).append(picture.key)
    found, rest = [], []
    for concept, keys in unnamed.items():
        commonest = words[concept].most_common(1)
        if len(sizes) < 2 or not commonest or commonest[0][1] < OWN_CONCEPT * sizes[concept]:
            rest += keys
            continue
        name = commonest[0][0]
        text = (
            f"{concept}: {count_of(len(keys), 'caption')} of {sizes[concept]} lack {name}, which the others name; they "
            "train the network only."
        )
        found.append(Finding("no_word", "warning", text, tuple(keys), (name,), (_apply(name, concept),)))
    if rest:
        text = f"{count_of(len(rest), 'picture')} name none of the embeddings: they train the network only."
        found.append(Finding("no_word", "info", text, tuple(rest)))
    return found


def to_absorb(wording: Wording) -> list[Finding]:
    """Tags in captions that describe what the word should be."""
    found = []
    for name, word in wording.words.items():
        if word.style or not word.keys:
            continue
        core = [tag for tag in word.tags if tag.belongs and tag.fate == "kept"]
        if core:
            tags = listed(f"{tag.tag} ({tag.share:.0%})" for tag in core)
            text = (
                f"{name}: its captions also say {tags}. What a caption says, the embedding need not learn: prune these "
                "tags."
            )
            remedy = Remedy("absorb", f"Prune them from {name}", {"word": name, "tags": []})
            found.append(
                Finding("tags_describe_word", "warning", text, _keys_with(wording, name, core), (name,), (remedy,))
            )
        always = [tag for tag in word.tags if _always_there(wording, name, tag)]
        if always and word.use.prune and wording.rules.mode == "character_core":
            tags = listed(f"{tag.tag} ({tag.share:.0%})" for tag in always)
            text = (
                f"{name}: nearly all of its captions say {tags}, which stays in the captions by the rule. Prune it if "
                "it belongs to the embedding."
            )
            remedy = Remedy("absorb", f"Prune it from {name}", {"word": name, "tags": [t.tag for t in always]})
            found.append(
                Finding("tags_describe_word", "info", text, _keys_with(wording, name, always), (name,), (remedy,))
            )
    return found


def _always_there(wording: Wording, name: str, tag: TagFate) -> bool:
    if tag.belongs or tag.by_hand or tag.share < ALWAYS_SEEN or tag.count < 3:
        return False
    covers = len(wording.words[name].keys) > 0.9 * len(wording.named)
    if not covers and tag.lift < TELLING:
        return False
    return tag_class(tag.tag) not in _NOT_OF_A_WORD and NOT_CORE.isdisjoint(same_tag(tag.tag).split())


def _keys_with(wording: Wording, name: str, tags: Sequence[TagFate]) -> tuple[str, ...]:
    """The word's pictures whose captions have one of the tags."""
    forms = {same_tag(tag.tag) for tag in tags}
    mine = set(wording.words[name].keys)
    return tuple(
        picture.key
        for picture in wording.named
        if picture.key in mine and any(same_tag(tag) in forms for tag in picture.tags)
    )


def _apply(name: str, concept: str) -> Remedy:
    arguments = {"word": name, "pattern": f"concept:{escape(concept)}"}
    return Remedy("apply_to", f"Put {name} before the captions of {concept}", arguments)
