"""Files with embeddings as HTML: a list to choose from, and one file's card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from lib_pivotal.bundle.format import META_EMBEDDINGS, META_RUN, Problem
from lib_pivotal.bundle.metadata import separation_shares
from lib_pivotal.config_versions import upgraded
from lib_pivotal.plain_json import parse_json

if TYPE_CHECKING:
    from lib_pivotal.bundle.card import ResultCard
    from lib_pivotal.bundle.listing import BundleSummary


PARTS = {"unet": "U-Net", "te": "text encoder", "te2": "text encoder 2"}
FAMILIES = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL", "unknown": ""}


def describe(summary: BundleSummary) -> str:
    """One phrase: embeddings, parts, family, size."""
    count = len(summary.embeddings)
    facts = [f"{count} embedding{'s' if count != 1 else ''}"] if count else []
    facts.append(", ".join(PARTS[part] for part in summary.parts) or "no network")
    facts.append(FAMILIES[summary.family])
    facts.append(f"{summary.file_bytes / 1e6:.1f} MB")
    return " · ".join(fact for fact in facts if fact)


def bundle_list(summaries: Sequence[BundleSummary], names: Sequence[str], *, query: str, chosen: str) -> str:
    """A button a file; a click chooses it."""
    wanted = [part.strip().lower() for part in query.split(",") if part.strip()]
    lines = []
    for summary, name in zip(summaries, names, strict=True):
        text = f"{name} {' '.join(embedding.name for embedding in summary.embeddings)}".lower()
        if not all(part in text for part in wanted):
            continue
        kind = " chosen" if name == chosen else ""
        sign = '<i class="pivotal-alert" title="This file has problems.">!</i>' if summary.problems else ""
        embeddings = "".join(
            f'<span class="pivotal-tag">{escape(embedding.name)}</span>' for embedding in summary.embeddings[:12]
        )
        more = f"<small>and {len(summary.embeddings) - 12} more</small>" if len(summary.embeddings) > 12 else ""
        lines.append(
            f'<button type="button" class="pivotal-bundle{kind}" data-bundle="{escape(name)}">'
            f"<b>{escape(name.removesuffix('.safetensors'))}</b>{sign}<small>{describe(summary)}</small>"
            f"<span>{embeddings}{more}</span></button>"
        )
    if not lines:
        text = "No file matches." if names else "No LoRA file yet. The files of your runs appear here."
        return f'<div class="pivotal-empty">{text}</div>'
    return f'<div class="pivotal-bundle-list">{"".join(lines)}</div>'


def bundle_card(summary: BundleSummary, name: str) -> str:
    """Embeddings with what is known of them, what is wrong, and the run that made it."""
    from lib_pivotal.bundle.card import card_of  # here: the page is built without torch

    card = card_of(summary)
    facts, shares = _json(summary.metadata.get(META_EMBEDDINGS, "")), separation_shares(summary.metadata)
    rows = "".join(
        _embedding_row(embedding.name, embedding.vectors, facts.get(embedding.name), _share(shares, embedding.name))
        for embedding in summary.embeddings
    )
    table = (
        '<table class="pivotal-words plain"><thead><tr><th>Embedding</th><th>Vectors</th><th>Init text</th>'
        f"<th>Pictures seen</th>{'<th>Of what was learnt</th>' if shares else ''}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        if rows
        else "<p>No embeddings: a plain LoRA.</p>"
    )
    rank = f" · rank {summary.rank}" if summary.rank else ""
    return (
        f'<div class="pivotal-bundle-card"><h3>{escape(name.removesuffix(".safetensors"))}</h3>'
        f"<p><small>{describe(summary)}{rank}</small></p>{problem_list(summary.problems)}{_card(card, summary)}{table}"
        f"{_pruned(card)}{_prompts(card, summary)}{_made_with(summary)}</div>"
    )


def _card(card: ResultCard, summary: BundleSummary) -> str:
    """The picture, the description, and what is recommended; nothing of it where the file has none."""
    lines = (
        [f"<p>{'<br>'.join(escape(line) for line in card.description.splitlines())}</p>"] if card.description else []
    )
    if card.weights or card.cfg is not None:
        from lib_pivotal.bundle.card import tag_of  # here: as above

        cfg = "" if card.cfg is None else f" at CFG {card.cfg:g}"
        lines.append(f"<p>Recommended: {_copied(tag_of(summary.path.stem, card.weights))}{cfg}</p>")
    if card.licence:
        lines.append(f"<p><small>Licence: {escape(card.licence)}</small></p>")
    picture = f'<img src="{escape(card.thumbnail)}" alt="Preview" data-zoom="1">' if card.thumbnail else ""
    return f'<div class="pivotal-result-card">{picture}<div>{"".join(lines)}</div></div>' if picture or lines else ""


def _pruned(card: ResultCard) -> str:
    """Tags that are part of an embedding."""
    lines = [
        f"<p><small><b>{escape(one.name)}</b> was pruned of: {escape(', '.join(one.pruned_tags))}</small></p>"
        for one in card.embeddings
        if one.pruned_tags
    ]
    return "".join(lines)


def _prompts(card: ResultCard, summary: BundleSummary) -> str:
    """Prompts that were drawn, ready to copy."""
    if not card.prompts:
        return ""
    found = "".join(_copied(card.prompt_of(one.prompt, summary.path.stem)) for one in card.prompts)
    return f'<p class="pivotal-try"><span>Sampled with it:</span>{found}</p>'


def _copied(text: str) -> str:
    return f'<button type="button" class="pivotal-copy" data-copy="{escape(text)}" title="Copy">{escape(text)}</button>'


def _share(shares: Mapping[str, float], name: str) -> str:
    """A cell with an embedding's separation; none where no embedding of the file has one."""
    if not shares:
        return ""
    said = f"{min(max(shares[name], 0.0), 1.0):.0%} is in the embedding" if name in shares else ""
    return f"<td>{said}</td>"


def _embedding_row(name: str, vectors: int, facts: object, share: str) -> str:
    known = facts if isinstance(facts, dict) else {}
    begun = escape(str(known.get("init_text") or "")) or f"<small>{'random' if known else 'unknown'}</small>"
    seen = escape(str(known.get("images_seen") or ""))
    changes = known.get("adjusted")
    begun += f" <small>{escape(_adjusted(changes))}</small>" if isinstance(changes, list) else ""
    return f"<tr><td><b>{escape(name)}</b></td><td>{vectors}</td><td>{begun}</td><td>{seen}</td>{share}</tr>"


def _adjusted(changes: Sequence[object]) -> str:
    """What was done to an embedding after training, in its order."""
    numbers = [one for one in changes if isinstance(one, dict)]
    return "adjusted: " + ", ".join(f"norm × {one.get('norm')}, init text {one.get('init_share')}" for one in numbers)


def _made_with(summary: BundleSummary) -> str:
    run = _json(summary.metadata.get(META_RUN, ""))
    if not run:
        return ""
    run = upgraded(run, 1)
    network, schedule, embeddings = (_part(run, key) for key in ("network", "schedule", "embeddings_common"))
    steps = summary.metadata.get("ss_steps") or schedule.get("max_steps")
    facts = [
        f"{steps} steps",
        f"embedding LR {embeddings.get('lr')}",
        f"U-Net LR {network.get('unet_lr')}",
        f"batch {schedule.get('batch_size')}",
    ]
    return f"<p><small>Made with: {escape(' · '.join(facts))}. Load all of it on the Train page.</small></p>"


def _part(run: dict[str, object], key: str) -> dict[str, object]:
    found = run.get(key)
    return found if isinstance(found, dict) else {}


def problem_list(problems: Sequence[Problem]) -> str:
    """What is wrong with a file."""
    items = "".join(
        f'<li class="{problem.severity}"><i>{"✕" if problem.severity == "error" else "!"}</i>'
        f"<span>{escape(str(problem).partition(': ')[2])}</span></li>"
        for problem in problems
    )
    return f'<ul class="pivotal-problems">{items}</ul>' if items else ""


def _json(text: str) -> dict[str, object]:
    try:
        found = parse_json(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
