"""The docs' pictures are small and shown somewhere; their links lead somewhere."""

import re
from pathlib import Path

import pytest

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
