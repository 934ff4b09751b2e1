"""What is wrong with pictures for a run: too small, nearly the same, longer captions than a prompt has places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lib_pivotal.data.buckets import Placement
from lib_pivotal.data.findings import Finding, Remedy, count_of, listed
from lib_pivotal.data.records import Picture
from lib_pivotal.data.tokens import CHUNK, TokenCounter

ENLARGED = 1.25
"""A picture that grows by more than this in length looks soft, and the run learns to draw softly."""
ROOM_FOR_TAGS = 25
"""Places that a caption's tags want beside its words, when vectors are cut to fit."""
LEAST_VECTORS = 2


def too_small(placed: Sequence[tuple[Picture, Placement]], *, fitting_px: int, target_px: int) -> list[Finding]:
    """Pictures that are enlarged for their size; `fitting_px` is the training size that most pictures have."""
    grown = [
        (picture, placement.resized_px[0] / picture.width_px) for picture, placement in placed if placement.upscaled
    ]
    if not grown:
        return []
    most = max(factor for _, factor in grown)
    many = count_of(len(grown), "picture")
    text = f"{many} {_are(len(grown))} smaller than the training size and enlarged, {most:.2g} times at most."
    remedies = [Remedy("set", "Train them at their own size", {"path": "data.upscale", "value": False})]
    if fitting_px < target_px:
        small = Remedy("set", f"Train all at {fitting_px} px", {"path": "data.resolution_px", "value": fitting_px})
        remedies.insert(0 if len(grown) > 0.5 * len(placed) else 1, small)
    severity = "warning" if most > ENLARGED else "info"
    keys = tuple(picture.key for picture, _ in grown)
    return [Finding("small_pictures", severity, text, keys, (), tuple(remedies))]  # type: ignore[arg-type]


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
    words_of: Mapping[str, Sequence[str]],
    vectors: Mapping[str, int],
    *,
    max_tokens: int,
    shuffled: bool,
) -> list[Finding]:
    """Captions whose words and tags take more places than a chunk (or than the limit) has: what is lost is named."""
    found = _vectors_alone(words_of, vectors, limit=max_tokens or CHUNK)
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
        remedy = Remedy("set", "Keep all, in chunks of 75", {"path": "data.max_tokens", "value": 0})
        remedies = [remedy, *_fewer(over, words_of, vectors, limit=max_tokens)]
        found.append(Finding("tokens", "warning", text, tuple(length.key for length in over), (), tuple(remedies)))
        return found
    order = " (tags are shuffled: as written)" if shuffled else ""
    text = (
        f"{many} 75 places, {worst.places} at most. Nothing is lost, but what is behind stands in a chunk of its own, "
        f"which sees nothing of the text before it: of {worst.key}{order} {tail}."
    )
    fewer = _fewer(over, words_of, vectors, limit=CHUNK)
    found.append(Finding("tokens", "info", text, tuple(length.key for length in over), (), fewer))
    return found


def _vectors_alone(words_of: Mapping[str, Sequence[str]], vectors: Mapping[str, int], *, limit: int) -> list[Finding]:
    """Pictures whose words alone are too long."""
    sums = {key: sum(vectors.get(name, 0) for name in names) for key, names in words_of.items()}
    over = {key: places for key, places in sums.items() if places > limit}
    if not over:
        return []
    worst = max(over, key=lambda key: over[key])
    names = [name for name in words_of[worst] if name in vectors]
    parts = " + ".join(f"{name} {vectors[name]}" for name in names)
    text = (
        f"The vectors of the embeddings alone take {over[worst]} of {limit} places in {count_of(len(over), 'caption')} "
        f"({parts}): an embedding ends up in another chunk than the others, or is cut. Give them fewer vectors."
    )
    remedy = _cut_vectors(names, vectors, room=max(limit - ROOM_FOR_TAGS, len(names) * LEAST_VECTORS))
    return [Finding("vectors_overrun", "warning", text, tuple(over), tuple(names), remedy)]


def _fewer(
    over: Sequence[Length], words_of: Mapping[str, Sequence[str]], vectors: Mapping[str, int], *, limit: int
) -> tuple[Remedy, ...]:
    """Fewer vectors, where these alone can bring the longest caption under the limit."""
    worst = max(over, key=lambda length: length.places)
    names = [name for name in words_of.get(worst.key, ()) if name in vectors]
    taken = sum(vectors[name] for name in names)
    room = taken - (worst.places - limit)
    if taken > limit or room < len(names) * LEAST_VECTORS * 2:  # a word of very few vectors holds little
        return ()
    return _cut_vectors(names, vectors, room=room)


def _cut_vectors(names: Sequence[str], vectors: Mapping[str, int], *, room: int) -> tuple[Remedy, ...]:
    taken = sum(vectors[name] for name in names)
    if taken <= room:
        return ()
    fitting = {name: max(LEAST_VECTORS, vectors[name] * room // taken) for name in names}
    shown = ", ".join(f"{name} {number}" for name, number in fitting.items())
    return (Remedy("vectors", f"Fewer vectors: {shown}", {"vectors": fitting}),)


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
