"""What a mirrored picture would teach wrongly: traits of one side, letters, and words for left and right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from lib_pivotal.data.captions import single_tags
from lib_pivotal.data.records import Problem
from lib_pivotal.data.tags import same_tag

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
"""A trait of one side counts when this share of a word's captions has it: fewer are taken for chance."""

_LEFT_RIGHT = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def reasons(caption: str) -> dict[str, str]:
    """Tag -> reason, of every tag of a caption that speaks against mirroring its picture."""
    return {tag: reason for tag in single_tags(caption) if (reason := _reason(tag))}


@lru_cache(maxsize=65_536)
def _reason(tag: str) -> str:
    """Kept, as few tags make up most of thousands of captions."""
    form = same_tag(tag)
    return ASYMMETRIC.get(form) or (SAYS_SIDE if _LEFT_RIGHT.search(form) else "")


def mirror_warnings(pictures: Mapping[str, Sequence[tuple[str, str]]]) -> list[Problem]:
    """One warning a word whose pictures should not be mirrored; `pictures`: word -> key and caption of each.

    Captions as they are on disk: what a word absorbs is just what may belong to one side.
    """
    problems = []
    for word, told in pictures.items():
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
                Problem(
                    "warning",
                    "mirrored",
                    f"{word}: its pictures are mirrored, but have {shown}{more}. Turn mirroring off for this "
                    "embedding.",
                    tuple(dict.fromkeys(key for tag in telling for key in keys[tag])),
                )
            )
    return problems
