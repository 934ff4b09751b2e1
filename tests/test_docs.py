"""The docs' pictures are small and shown somewhere; their links lead somewhere."""

import dataclasses
import re
from pathlib import Path
from typing import get_args

import pytest

from lib_pivotal.training import events

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
PICTURES = sorted(path for path in DOCS.iterdir() if path.suffix in (".png", ".jpg", ".gif", ".webp"))
LIMIT_BYTES = 200_000


def links(page):
    """Relative links of a page, pictures too, without what comes behind `#`."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return {link.split("#")[0] for link in found if not link.startswith(("http", "#"))}


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_small_and_shown(picture):
    size = picture.stat().st_size
    assert size <= LIMIT_BYTES, f"{size} bytes: quantise it (Pillow: quantize(128, kmeans=2), save with optimize)"
    assert any(picture == (page.parent / link).resolve() for page in PAGES for link in links(page)), "no page shows it"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    missing = [link for link in links(page) if not (page.parent / link).exists()]
    assert not missing


EVENTS = {line.split("`")[1]: line for line in (DOCS / "events.md").read_text().splitlines() if line.startswith("| `")}


def test_the_table_of_events_names_those_that_there_are():
    assert set(EVENTS) == {kind.__name__ for kind in get_args(events.Event)}


@pytest.mark.parametrize("kind", get_args(events.Event), ids=lambda kind: kind.__name__)
def test_each_field_of_an_event_is_described(kind):
    written = {field.name for field in dataclasses.fields(kind)} - {"grid"}  # a picture: its file is `path`
    assert not {name for name in written if f"`{name}`" not in EVENTS[kind.__name__]}
