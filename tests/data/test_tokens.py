"""Places that a caption takes, and what lies behind a limit: by CLIP's own tokenizer, and as the web UI chunks."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_pivotal.data.tokens import TokenCounter, estimated_ids, estimated_tokens
from lib_pivotal.prompts import PromptReading, PromptRules
from lib_pivotal.standalone.tokenizer import clip_reading, clip_tokenizer, merges_path

COMMA = 267
TAGS = (
    "1girl, solo, long hair, blue eyes, school uniform, looking at viewer, smile, twintails, very long hair, "
    "hair ribbon, white background, upper body, open mouth, serafuku, heterochromia, thighhighs, outdoors, "
    "cherry blossoms, holding, detached sleeves, hatsune miku, absurdres, :3, ^_^, multiple girls, 2girls, "
    "side-tie bikini bottom, o_o"
).split(", ")
VECTORS = {"aoi": 7, "my-girl2": 12}


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    return TokenCounter(VECTORS, clip_reading())


def _ids(text: str) -> list[int]:
    return list(clip_tokenizer()(text, truncation=False, add_special_tokens=False)["input_ids"])


captions = st.lists(st.sampled_from([*TAGS, *VECTORS]), min_size=1, max_size=45, unique=True).map(", ".join)


@given(captions)
@settings(max_examples=60, deadline=None)
def test_places_are_transformers_tokens_with_embeddings_by_their_vectors(caption: str) -> None:
    expected = len(_ids(caption))
    for name, vectors in VECTORS.items():
        if name in caption.split(", "):
            expected += vectors - len(_ids(name))
    assert TokenCounter(VECTORS, clip_reading())(caption) == expected


def _open_clip() -> Callable[[str], list[int]]:
    """open_clip's own tokenizer, from its file: the package wants torchvision."""
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", merges_path().with_name("tokenizer.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    encode: Callable[[str], list[int]] = module.SimpleTokenizer().encode
    return encode


def test_places_are_open_clips_tokens() -> None:
    encode = _open_clip()
    counter = TokenCounter({}, clip_reading())
    texts = [", ".join(TAGS), "Saber, fate/stay night; don't", "a photo of 12 apples, café", "¡hola! ^_^, (^_^;)"]
    plain = [text.replace("(", "").replace(")", "") for text in texts]
    assert [counter(text) for text in texts[:3]] == [len(encode(text)) for text in plain[:3]]
    literal = TokenCounter({}, PromptReading(clip_reading().token_ids, PromptRules(emphasis=False)))
    assert [literal(text) for text in texts] == [len(encode(text)) for text in texts]


def _tail_as_in_v1_10_1(tags: list[str], backtrack: int) -> list[str]:
    """What `tokenize_line` (modules/sd_hijack_clip.py) does, written down for one chunk: which tags are not in it."""
    stream = [(token, number) for number, tag in enumerate(tags) for token in _places(tag, number, tags)]
    comma = -1
    for taken, (token, _) in enumerate(stream):
        if token == COMMA:
            comma = taken
        elif backtrack and taken == 75 and comma != -1 and taken - comma <= backtrack:
            return _unique(tags, stream[comma + 1 :])
        if taken == 75:
            return _unique(tags, stream[taken:])
        begins = token < 0 and (taken == 0 or stream[taken - 1][0] != token)
        if begins and taken + sum(other == token for other, _ in stream) > 75:  # a word is whole, or behind
            return _unique(tags, stream[taken:])
    return []


def _places(tag: str, number: int, tags: list[str]) -> list[int]:
    ids = [-1 - list(VECTORS).index(tag)] * VECTORS[tag] if tag in VECTORS else _ids(tag)
    return ids if number == len(tags) - 1 else [*ids, COMMA]


def _unique(tags: list[str], rest: list[tuple[int, int]]) -> list[str]:
    numbers = dict.fromkeys(number for token, number in rest if token != COMMA)
    return [tags[number] for number in numbers]


@given(st.lists(st.sampled_from([t for t in TAGS if t[-1].isalnum()] + list(VECTORS)), max_size=45, unique=True))
@settings(max_examples=150, deadline=None)
def test_the_tail_is_what_the_web_ui_puts_into_the_next_chunk(tags: list[str]) -> None:
    expected = _tail_as_in_v1_10_1(tags, 20)
    assert TokenCounter(VECTORS, clip_reading()).behind(", ".join(tags)) == expected


def test_a_embedding_is_wrapped_whole(counter: TokenCounter) -> None:
    caption = ", ".join(["red hat"] * 24 + ["aoi", "park"])  # 24·3 = 72 places, then 7 of the word
    assert counter(caption) == 72 + 7 + 2 and counter.behind(caption) == ["aoi", "park"]


def test_settings_of_the_web_ui_count() -> None:
    caption = ", ".join([*["red hat"] * 24, "blue red green hat", "park"])
    assert TokenCounter({}, clip_reading()).behind(caption) == ["blue red green hat", "park"]
    never = PromptReading(clip_reading().token_ids, PromptRules(comma_backtrack=0))
    assert TokenCounter({}, never).behind(caption) == ["… hat", "park"]  # three of its words fill the chunk
    literal = PromptReading(clip_reading().token_ids, PromptRules(emphasis=False))
    assert TokenCounter({}, literal)("(hat:1.2)") == 7 and TokenCounter({}, clip_reading())("(hat:1.2)") == 1


def test_a_sentence_is_cut_within_and_break_is_meant(counter: TokenCounter) -> None:
    sentence = " ".join(["red"] * 74 + ["hat", "and", "shoe"])
    assert counter.behind(sentence) == ["… and shoe"]
    assert counter.behind(f"{' '.join(['red'] * 70)} BREAK {' '.join(['blue'] * 70)}") == []


def test_weights_and_escapes(counter: TokenCounter) -> None:
    assert counter("(aoi:1.2), [red] hair") == 7 + 1 + 2
    assert counter(r"saber \(fate\), red") == len(_ids("saber (fate), red"))  # `),` is one token
    assert counter("Aoi, aoi") == 15


def test_the_limit_cuts_last_tags_but_never_a_embedding(counter: TokenCounter) -> None:
    assert counter.divide("red, blue, green, aoi", 11) == (["red", "blue", "aoi"], ["green"])
    assert counter.shorten("red, blue, green, aoi", 11) == "red, blue, aoi" and counter("red, blue, aoi") == 11
    assert counter.shorten("red,blue", 3) == "red,blue"


@given(captions, st.integers(20, 80))
@settings(max_examples=60, deadline=None)
def test_what_is_kept_fits_and_no_more_is_cut_than_must(caption: str, limit: int) -> None:
    counter = TokenCounter(VECTORS, clip_reading())
    kept, cut = counter.divide(caption, limit)
    assert sorted([*kept, *cut]) == sorted(caption.split(", ")) and not set(VECTORS) & set(cut)
    assert counter(", ".join(kept)) <= limit or set(kept) <= set(VECTORS)
    if cut:  # one tag more would not fit
        whole = caption.split(", ")
        assert counter(", ".join(tag for tag in whole if tag in (*kept, cut[0]))) > limit


def test_a_sentence_over_the_limit_loses_its_end_only() -> None:
    counter = TokenCounter(VECTORS, clip_reading())
    sentence = "a photo of a girl " + "who walks by the sea " * 20 + "as aoi"
    short = counter.shorten(sentence, 75)
    assert counter(short) == 75 and short.startswith("a photo of a girl who walks") and short.endswith("aoi")


def test_the_estimate_is_near_for_tags() -> None:
    assert estimated_tokens("long hair, blue eyes") == 5 == len(estimated_ids("long hair, blue eyes"))
    assert TokenCounter({"aoi": 4})("aoi, aois") == 4 + 1 + 1
