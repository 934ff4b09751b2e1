"""Terms that people read: none that is retired stands on the page, in messages, on the command line or in the docs."""

import ast
import json
import re
from html import unescape
from pathlib import Path

import pytest

from lib_pivotal.config import EmbeddingConfig
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.runs.proposal import EmbeddingRow
from lib_pivotal.ui.embeddings_table import embeddings_table
from lib_pivotal.ui.tab import build_tab
from tests.ui.conftest import EmptyBackend

ROOT = Path(__file__).resolve().parent.parent

RETIRED = {
    r"words?(?!:)": "embedding(s), or its name",
    r"four rows": "parts grid",
    r"begins as|began as": "init text",
    r"absorb(?:s|ed|ing)?": "prune, pruned",
    r"draws|drawn": "samples, sampled",
    r"(?<!learning )rates?": "learning rate, LR",
    r"course": "LR scheduler",
    r"mend(?:s|ed|ing)?|remed(?:y|ies)": "fix",
    r"findings?|to look at": "warnings",
    r"draw one of them": "keep one",
    r"look again": "refresh",
    r"draw the sheet": "generate grid",
    r"pictures? now|pictures of (?:a|the) run": "sample now, samples",
    r"measure time": "estimate time and VRAM",
    r"anew": "again; reset from captions",
    r"(?:goes|go|going) on": "continues",
    r"(?:is|are|be) told": "is reported",
    r"so many": "N",
    r"has ended": "has finished",
}
"""What stood there once, as a whole word in any case, and what stands there now (the glossary of the project)."""

STAYS = (
    r"`[^`]*`",  # code: names of settings, files and keys
    r"\{[^{}]*\}",  # a placeholder
    r"\w*_words?\b|\bwords?[_.]\w*|\bwords/|/words?\b|words=0|<words:?[^>]*>|--\w[\w-]*",  # paths, keys, flags, tags
    r"schedule\.rate|rate word|rate \w+\"",
    r"word lists?|words? of (?:a |the )?(?:caption|file)s?\b|ordinary words?|everyday word|trigger words?",
    r"use of that word|(?:model's|checkpoint's|kgrid's|their) (?:own )?words|init words?|word regex|word wrap",
    r"what of it is a word|already a word|such words|(?:that|which) word\b",
    r"no word of the vocabulary|every such word of a prompt|its last words|words \*must\*|taken at their word",
    r"take words out|longer words such as|^pivotal-word\b.*|words \(the embeddings\)",
    r"^words only$|^word \{\}$",  # keys: parts grid, groups, API
    r"\*\*four rows\*\*|the \"four rows\"|^four rows(?: words| prompts|:|$)",  # its nickname
)
"""Words of captions and of the language, and what programs, files and prompts call so."""

_RETIRED = re.compile("|".join(rf"\b(?:{term})\b" for term in RETIRED), re.IGNORECASE)
_STAYS = re.compile("|".join(STAYS), re.IGNORECASE)


def retired_in(text):
    """Retired terms of a text that people read."""
    plain = unescape(re.sub(r"<(?!words)[^>]+>", " ", text))
    return [found.group() for found in _RETIRED.finditer(_STAYS.sub(" ", plain))]


def read_literals(path):
    """Texts of a module that are sentences or labels, with their lines; docstrings and keys are for programmers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            silent |= {id(part) for part in ast.walk(node)} - {id(node)}
            text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, text
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
            yield node.lineno, node.value


def modules():
    return sorted((ROOT / "lib_pivotal").rglob("*.py"))


@pytest.mark.parametrize("room", sorted({path.relative_to(ROOT).parts[1] for path in modules()}))
def test_no_message_has_a_retired_term(room):
    found = []
    for path in modules():
        if path.relative_to(ROOT).parts[1] != room:
            continue
        for line, text in read_literals(path):
            if " " in text.strip() and (terms := retired_in(text)):
                found.append(f"{path.relative_to(ROOT)}:{line}: {terms} in {text.strip()[:100]!r}")
    assert not found, "\n".join(found)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return build_tab(RunManager(EmptyBackend(tmp_path_factory.mktemp("page"))))


def test_no_label_of_the_page_has_a_retired_term(page):
    seen, found = 0, []
    for block in page.blocks.values():
        shown = [getattr(block, name, None) for name in ("label", "info", "placeholder")]
        if block.get_block_name() in ("button", "uploadbutton", "html", "markdown"):
            shown.append(block.value)
        if block.get_block_name() in ("checkboxgroup", "radio"):
            shown += [title for title, _ in block.choices]
        texts = [text for text in shown if isinstance(text, str) and text]
        seen += len(texts)
        found += [(getattr(block, "elem_id", None), text, terms) for text in texts if (terms := retired_in(text))]
    assert seen > 150, "the page was not walked"
    assert not found, found


def test_no_tooltip_has_a_retired_term(page):
    hints = next(block.value for block in page.blocks.values() if getattr(block, "elem_id", None) == "pivotal_hints")
    tooltips = json.loads(unescape(re.search(r'data-json="([^"]*)"', hints).group(1)))
    assert len(tooltips) > 100
    assert not {key: terms for key, text in tooltips.items() if (terms := retired_in(text))}


def test_no_column_of_the_table_has_a_retired_term():
    html = embeddings_table(
        [EmbeddingRow(EmbeddingConfig("aoi"), pictures=3, sampling_share=1.0, style=True)], {"aoi": 20.0}
    )
    shown = re.sub(r'<[^>]*?(?:title|aria-label|placeholder|data-label)="([^"]*)"', r" \1 <", html)
    assert "Init text" in shown and "LR factor" in shown and not retired_in(shown)


SELECTOR = re.compile(r"[#.\[]\w+-")
SCRIPT_TEXT = re.compile(r'"((?:[^"\\\\\n]|\\\\.)*)"')


@pytest.mark.parametrize("path", sorted((ROOT / "javascript").glob("*.js")), ids=lambda path: path.name)
def test_no_text_of_a_script_has_a_retired_term(path):
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith(("//", "*", "/*")):
            continue
        texts = [text for text in SCRIPT_TEXT.findall(line) if " " in text.strip() and not SELECTOR.search(text)]
        found += [(number, text, terms) for text in texts if (terms := retired_in(text))]
    assert not found, found


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_page_of_the_docs_has_a_retired_term(path):
    found, fenced = [], False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fenced ^= line.startswith("```")
        if fenced or line.startswith("    "):  # code and figures
            continue
        text = re.sub(r"\]\([^)]*\)", "]", line)
        if terms := retired_in(text):
            found.append(f"{path.name}:{number}: {terms} in {text[:120]!r}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The words' lr", ["words"]),
        ("Absorbs tags", ["Absorbs"]),
        ("the rates of words", ["rates", "words"]),
        ("the learning rates", []),
        ("`embeddings_common.lr`, words.0.name and <words:FILE>", []),
        ("so many things to look at", ["so many", "to look at"]),
        ("<b title='x'>Mend all</b>", ["Mend"]),
    ],
)
def test_terms_are_found(text, terms):
    assert retired_in(text) == terms
