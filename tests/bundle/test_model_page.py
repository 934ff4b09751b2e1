"""The model page's Markdown, and nothing in it that a reader would take for HTML."""

from lib_pivotal.bundle.card import DrawnPrompt, EmbeddingCard, ResultCard
from lib_pivotal.bundle.model_page import model_page

CARD = ResultCard(
    "kira",
    (EmbeddingCard("kira", 3, "1girl | blue hair", 800, ("blue hair", "twintails"), 0.62),),
    (DrawnPrompt("kira, park", "bad", 1, 20, 7.0, 64),),
    weights={"unet": 0.8, "te": 1.0},
    cfg=5.0,
    settings={"steps": "500"},
    figures={"separation": 0.62, "drift": 0.0123},
    description="A <b>character</b>",
    licence="CC0-1.0",
)


def test_everything_is_on_it():
    page = model_page(CARD, "kira.safetensors", pictures={"parts": "kira-parts.png", "kira, park": "1.png"})
    lines = page.splitlines()
    assert lines[0] == "# kira" and lines[2] == "![parts](kira-parts.png)"
    assert "A &lt;b>character&lt;/b>" in lines
    assert "In the prompt: `<lora:kira:1:0.8>`" in lines and "Recommended: U-Net 0.8, text encoder 1, CFG 5" in lines
    assert "| `kira` | 3 | 1girl \\| blue hair | blue hair, twintails | 62% |" in lines
    assert page.count("```") == 2
    drawn = page.split("```")[1].strip().splitlines()
    assert drawn == [
        "<lora:kira:1:0.8> kira, park",
        "Negative prompt: bad",
        "Steps: 20, CFG scale: 7, Seed: 1, Size: 64x64",
    ], "as the web UI reads it with its arrow button"
    assert "| of what was learnt is in the embeddings | 62% |" in lines
    assert "| drift of the text encoder | 0.0123 |" in lines
    assert "![kira, park](1.png)" in lines and lines[-3:] == ["## Licence", "", "CC0-1.0"]


def test_what_is_not_known_has_no_section():
    page = model_page(ResultCard("plain"), "plain.safetensors")
    assert [line for line in page.splitlines() if line.startswith("#")] == ["# plain", "## How to use it"]
