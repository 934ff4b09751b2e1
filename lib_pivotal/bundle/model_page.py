"""A card as the text of a model page: Markdown, as Civitai and Hugging Face show it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from lib_pivotal.bundle.card import EmbeddingCard, ResultCard, tag_of

FIGURES: Mapping[str, str] = {
    "separation": "of what was learnt is in the embeddings",
    "drift": "drift of the text encoder",
}
"""What a figure of a card is called."""


def model_page(card: ResultCard, file_name: str, *, pictures: Mapping[str, str] | None = None) -> str:
    """The page; `pictures` are paths beside it by what they show, the first is the preview."""
    stem = PurePosixPath(file_name).stem
    shown = [f"![{_plain(title)}]({path})" for title, path in (pictures or {}).items()]
    sections = [
        f"# {_plain(card.title)}",
        *shown[:1],
        _plain(card.description),
        _use(card, file_name, stem),
        _embeddings(card),
        _prompts(card, stem),
        "\n\n".join(shown[1:]),
        _table("How it was trained", card.settings),
        _table("Measured", {FIGURES.get(key, key): figure_text(key, value) for key, value in card.figures.items()}),
        f"## Licence\n\n{_plain(card.licence)}" if card.licence else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def figure_text(key: str, value: float) -> str:
    """A figure with its unit: separation is a share.

    >>> figure_text("separation", 0.62), figure_text("drift", 0.0123)
    ('62%', '0.0123')
    """
    return f"{min(max(value, 0.0), 1.0):.0%}" if key == "separation" else f"{value:.3g}"


def _use(card: ResultCard, file_name: str, stem: str) -> str:
    lines = [
        f"Put `{file_name}` into `models/Lora`. Its embeddings are inside the file: there is nothing else to download."
        if card.embeddings
        else f"Put `{file_name}` into `models/Lora`."
    ]
    lines.append(f"\nIn the prompt: `{tag_of(stem, card.weights)}`")
    if card.weights or card.cfg is not None:
        weights = [f"{title} {card.weights[key]:g}" for key, title in _PARTS if key in card.weights]
        cfg = [] if card.cfg is None else [f"CFG {card.cfg:g}"]
        lines.append(f"\nRecommended: {', '.join([*weights, *cfg])}")
    return "## How to use it\n\n" + "\n".join(lines)


_PARTS = (("unet", "U-Net"), ("te", "text encoder"))


def _embeddings(card: ResultCard) -> str:
    if not card.embeddings:
        return ""
    rows = [_row(one) for one in card.embeddings]
    head = "| embedding | vectors | begun as | pruned tags | share |\n|---|---|---|---|---|"
    note = "Pruned tags are part of the embedding: they need not be in the prompt."
    return "\n".join(
        ["## Embeddings", "", head, *rows, "", *([note] if any(c.pruned_tags for c in card.embeddings) else [])]
    ).rstrip()


def _row(one: EmbeddingCard) -> str:
    share = "" if one.separation is None else figure_text("separation", one.separation)
    cells = (f"`{one.name}`", str(one.vectors), _cell(one.init_text), _cell(", ".join(one.pruned_tags)), share)
    return f"| {' | '.join(cells)} |"


def _prompts(card: ResultCard, stem: str) -> str:
    if not card.prompts:
        return ""
    blocks = []
    for one in card.prompts:
        facts = [
            f"Steps: {one.steps}",
            f"CFG scale: {one.cfg:g}",
            f"Seed: {one.seed}",
            f"Size: {one.size_px}x{one.size_px}",
        ]
        negative = [f"Negative prompt: {one.negative_prompt}"] if one.negative_prompt else []
        blocks.append("\n".join([card.prompt_of(one.prompt, stem), *negative, ", ".join(facts)]))
    return "## Sampled prompts\n\n" + "\n\n".join(f"```\n{block}\n```" for block in blocks)


def _table(title: str, values: Mapping[str, str]) -> str:
    rows = "\n".join(f"| {_cell(key)} | {_cell(value)} |" for key, value in values.items())
    return f"## {title}\n\n| | |\n|---|---|\n{rows}" if values else ""


def _cell(text: str) -> str:
    return " ".join(_plain(text).split()).replace("|", "\\|")


def _plain(text: str) -> str:
    """Text in which `<` opens no tag of HTML."""
    return text.replace("<", "&lt;").strip()
