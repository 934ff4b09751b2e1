"""The sentences around the figures: docs/evidence.md is written from evidence.json, so that they cannot differ."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from examples.evidence_claims import claims
from examples.evidence_losses import share

ROWS = (
    ("whole", "full network"),
    ("unet", "U-Net only"),
    ("te", "text encoder only"),
    ("words", "embeddings only"),
    ("half", "embeddings, half of the U-Net's weights"),
)
RETRO_ROWS = (
    ("whole", "full network"),
    ("half", "half of the U-Net's weights"),
    ("words", "embeddings only"),
)
TRIED = (
    ("whole", "full"),
    ("unet", "U-Net only"),
    ("words", "embeddings only"),
    ("words_describable", "embeddings: describable"),
    ("words_loss", "embeddings: loss"),
    ("retro_whole", "2nd: full"),
    ("retro_half", "2nd: half"),
    ("retro_words", "2nd: embeddings"),
)


def markdown(evidence: Mapping[str, Any]) -> str:
    """The page; each claim with what was expected, what was measured, and whether it holds."""
    parts = (_head, _parts, _claims, _transfer, _strong, _traits, _losses, _steps, _drift, _together, _tried, _again)
    return "\n".join(part(evidence) for part in parts)


def _head(evidence: Mapping[str, Any]) -> str:
    seeds, each = evidence["seeds"], evidence["pictures_per_word"]
    renders = _number(evidence["identity"]["renders"])
    return "# The claims, measured\n\n" + _say(
        f"""
Made by `python dev.py evidence --docs`; {seeds} seeds, means with the smallest and largest in brackets. Four
characters of [examples/avatars](../examples/avatars), 32 pictures each. Identity is a number from 0 to 1 by a
classifier that is independent of the diffusion model; true renders through the checkpoint's autoencoder get {renders}.
{each} pictures an embedding and row, 16 steps, guidance 2, the same prompts and noise in every row of a seed.

*Pivotal tuning* here: 16 vectors an embedding, its describable traits as init text, 640 steps of 8 in two phases: 400
of the embeddings alone (LR 1e-2, norms free), then 240 of the network (r16 on all layers of the U-Net at 2e-3, r4 on
the text encoder at 2e-4) with the embeddings as they are. *LoRA alone*: the same network for all 640 steps, both
parts at 2e-3, a plain trigger word in the captions. *Base*: the describable traits (hair colour and style, eyes,
skin) as prompt, without embedding and network.

![full, U-Net only, text encoder only, embeddings only, base; then the second checkpoint](evidence.png)
"""
    )


def _parts(evidence: Mapping[str, Any]) -> str:
    identity, spread = evidence["identity"], evidence["spread"]
    rows = [
        f"| {label} | {_with(identity['pivotal'], spread['pivotal'], row)} "
        f"| {_with(identity['lora_only'], spread['lora_only'], row)} |"
        for row, label in ROWS
    ]
    rows.append(f"| base | {_with(identity, spread, 'base')} | |")
    return _table("parts on | pivotal tuning | LoRA alone", rows)


def _claims(evidence: Mapping[str, Any]) -> str:
    verdicts = {True: "holds", False: "**does not hold**", None: "not measured"}
    rows = [f"| {c.number} | {c.text} | {c.measured} | {verdicts[c.holds]} |" for c in claims(evidence)]
    return _table(" | claim | measured | ", rows)


def _transfer(evidence: Mapping[str, Any]) -> str:
    there = evidence["transfer"]["identity"]
    rows = [
        f"| {label} | {_with(there['pivotal'], there['pivotal_spread'], row)} "
        f"| {_with(there['lora_only'], there['lora_only_spread'], row)} |"
        for row, label in RETRO_ROWS
    ]
    return (
        f"## On the second checkpoint (another drawing style)\n\nIdentity; base there {there['base']:.2f}.\n\n"
        + _table("parts on | pivotal tuning | LoRA alone", rows)
    )


def _strong(evidence: Mapping[str, Any]) -> str:
    found = evidence["guidance_4"]
    rows = [
        f"| {label} | {_number(found['pivotal'].get(row))} | {_number(found['lora_only'].get(row))} |"
        for row, label in (
            ("whole", "full network"),
            ("unet", "U-Net only"),
            ("words", "embeddings only"),
            ("retro_whole", "2nd checkpoint, full network"),
            ("retro_half", "2nd checkpoint, embeddings and half of the U-Net's weights"),
            ("retro_words", "2nd checkpoint, embeddings only"),
        )
    ]
    seeds = found["seeds"]
    text = f"""
Guidance 2 suits the embeddings, 4 suits the LoRA alone. The same files, 8 pictures an embedding; seeds:
{seeds["pivotal"]} of pivotal tuning, {seeds["lora_only"]} of the LoRA alone. Claim 4 is judged by the LoRA's better
figure of the two.
"""
    return "## At guidance 4\n\n" + _say(text) + "\n" + _table("parts on | pivotal tuning | LoRA alone", rows)


def _traits(evidence: Mapping[str, Any]) -> str:
    traits, there = evidence["traits"]["describable"], evidence["transfer"]["describable"]
    rows = [
        f"| {label} | {_number(traits['pivotal'].get(row))} | {_number(traits['random_init'].get(row))} "
        f"| {_number(traits['lora_only'].get(row))} | {_number(there['pivotal'].get(row))} "
        f"| {_number(there['lora_only'].get(row))} |"
        for row, label in ROWS
    ]
    rows.append(f"| traits as prompt (base) | {traits['base']:.2f} | | | {there['base']:.2f} | |")
    rows.append(f"| neither embedding nor traits | {traits['nothing']:.2f} | | | {there['nothing']:.2f} | |")
    return f"""## Describable traits

How many of hair colour, hair style, eyes and skin the attribute network sees as they should be. It knows only the base
world: of true renders of these characters, whose hair is of two colours, it sees {traits["renders"]:.2f} right.

""" + _table(
        "parts on | pivotal | random start | LoRA alone | pivotal, 2nd checkpoint | LoRA alone, 2nd checkpoint", rows
    )


def _losses(evidence: Mapping[str, Any]) -> str:
    losses = evidence["losses"]
    shown = ", ".join(f"{label} {losses[row]:.3f}" for row, label in ROWS if row in losses)
    base, nothing, embeddings, whole = (losses[row] for row in ("base", "nothing", "words", "whole"))
    return "## Without sampling: loss on pictures that no run has seen\n\n" + _say(
        f"""
Fixed noise, five timesteps, embedding in the prompt: {shown}. Describable traits as prompt instead of the embedding
{base:.3f}, neither {nothing:.3f}. Share of the embeddings, (base - embeddings) / (base - full): {share(losses,
"words"):.2f}; measured from the prompt with neither: {(nothing - embeddings) / (nothing - whole):.2f}.
"""
    )


def _steps(evidence: Mapping[str, Any]) -> str:
    text, chance = evidence["over_steps"]["init_text"], evidence["over_steps"]["random"]
    rows = [
        f"| {int(step)} | {_number(text['identity'][step])} | {_number((chance or {}).get('identity', {}).get(step))} "
        f"| {_number(text['describable'][step])} | {_number((chance or {}).get('describable', {}).get(step))} |"
        for step in text["identity"]
    ]
    reach = evidence["steps_to"]
    reached = [
        f"| {'half of the describable traits' if mark == 'describable' else f'identity {mark}'} "
        f"| {_steps_of(steps)} | {_steps_of(reach['random'][mark])} |"
        for mark, steps in reach["init_text"].items()
    ]
    return (
        f"## Init text or a random start\n\nOver the steps, seeds: {len(reach['init_text']['0.5'])} and "
        f"{len(reach['random']['0.5'])}; the network begins at step 400.\n\n"
        + _table("step | identity, init text | random | describable, init text | random", rows)
        + "\nSteps to it, each seed (lines between the points of the curve):\n\n"
        + _table("reached | init text | random start", reached)
    )


def _drift(evidence: Mapping[str, Any]) -> str:
    mine, other = evidence["drift"]["pivotal"], evidence["drift"]["lora_only"]
    return "## The text encoder's drift\n\n" + _say(
        f"""
1 - cosine of its outputs for 1,000 common captions: pivotal {mine:.5f}, LoRA alone {other:.5f}. In the pivotal run its
learning rate is ten times lower and its steps are fewer, as the embeddings do its work; that is the reason, not
another method.
"""
    )


def _together(evidence: Mapping[str, Any]) -> str:
    embeddings = evidence["sixteen_words"]
    if embeddings is None:
        return "## Sixteen embeddings in one run\n\nNot measured.\n"
    rows = [f"| {name} | {pair[0]:.2f} | {pair[1]:.2f} |" for name, pair in embeddings["by_word"].items()]
    text = f"""
One seed; 120 steps an embedding in either case (1,920 steps for 16 embeddings), in two phases as above; full network.
All 16 embeddings: mean {embeddings["whole"]:.2f}, least {embeddings["least"]:.2f}.
"""
    return "## Sixteen embeddings in one run\n\n" + _say(text) + "\n" + _table("embedding | one of 16 | alone", rows)


def _tried(evidence: Mapping[str, Any]) -> str:
    rows = [
        f"| {name} | " + " | ".join(_number(line.get(key), 3 if "loss" in key else 2) for key, _ in TRIED) + " |"
        for name, line in evidence["tried"].items()
    ]
    again = """
Some of them again, with the present classifier and guidance (`--trials` runs them all):
"""
    measured = _say(again) + "\n" + _table("set-up | " + " | ".join(label for _, label in TRIED), rows) + "\n"
    return "## What was tried\n\n" + TRIED_FIRST + "\n" + (measured if rows else "") + _say(LEARNT)


TRIED_FIRST = """Seed 0, 640 steps of 8 unless it says otherwise; norms free unless "pulled" towards the vocabulary's
median. Identity by the classifier of that time, which took the blotches of the lines with a star for characters.

| set-up | guidance | full | embeddings only | embeddings: describable | 2nd: full | 2nd: half | 2nd: embeddings |
|---|---|---|---|---|---|---|---|
| joint, 4 vectors, LR 5e-3, norms pulled, 800 steps | 4 | 0.88 | 0.00 | – | 0.57 | 0.04 | 0.00 |
| joint, 8 vectors, LR 1e-3 | 4 | 0.90 | 0.01 | 0.86 | 0.57 | 0.05 | 0.01 |
| joint, 8 vectors, LR 5e-3 | 4 | 0.87 | 0.03 | 0.81 | 0.57 | 0.18 | 0.06 |
| embeddings alone, 16 vectors, LR 2e-2 | 4 | – | 0.35* | 0.52 | – | – | 0.40* |
| embeddings alone, 16 vectors, LR 5e-3 | 4 | – | 0.38* | 0.50 | – | – | 0.36* |
| the same file | 2 | – | 0.33 | 0.66 | – | – | – |
| two phases, half the steps each, 16 vectors, LR 1e-2 | 2 | 0.94 | 0.21 | 0.59 | 0.73 | 0.35 | 0.22 |
"""
LEARNT = """
- Few vectors and pulled norms (the first set-up of this page) leave nothing in the embeddings: four vectors cut the
init text after hair colour and style, and the vocabulary's median norm (0.16) is that of rows that this small text
encoder never trained; its trained embeddings have 0.25. The network then learns it all.
- With 16 free vectors the embeddings alone show traits that the base world never shows, two-tone hair and capes, best
for corrixa. Two of four characters stay half-formed: see the picture.
- Embeddings only is above base by 0.1 in the mean; single seeds lie on both sides of it (range above). One of four
characters, corrixa, gives most of it. On the second checkpoint embeddings only do not pass the LoRA's better figure.
- Claim 7 compares short runs (120 steps an embedding; alone that is little for the network), so it shows that many
embeddings share a network to their gain, not how full-length runs compare.
- The difference in steps to an identity of 0.5 lies within the spread of the seeds; that in describable traits is
larger, and early.
- Guidance 4, which the demo uses, drives such embeddings into bright blotches (norms of 0.7 instead of 0.25);
guidance 2 does so less. The classifier is now taught what shows nobody.
- Embeddings that are trained first and then kept carry more than embeddings of a joint run, where the network takes
over; the describable traits stay in the embeddings either way once the init text fits in.
"""


def _again(evidence: Mapping[str, Any]) -> str:
    minutes = evidence["seconds_of_training"] / 60
    return "## How to measure again\n\n" + _say(
        f"""
`python dev.py evidence --docs` (with `--trials` also the table above): {minutes:.0f} minutes of training and about as
much for the pictures, on one core. Jobs that are done are kept, and scores are taken again from the stored pictures
(`--gather`).
"""
    )


def _say(text: str) -> str:
    """Paragraphs and lists in lines of 116 characters; an empty line ends a paragraph, `- ` begins a point."""
    wrapped = []
    for block in text.strip().split("\n\n"):
        points = block.split("\n- ") if block.startswith("- ") else [block]
        for number, point in enumerate(points):
            joined = " ".join(point.split())
            if block.startswith("- ") and number:
                joined = f"- {joined}"
            after = "  " if block.startswith("- ") else ""
            wrapped.append(
                textwrap.fill(joined, 116, subsequent_indent=after, break_long_words=False, break_on_hyphens=False)
            )
        wrapped.append("")
    return "\n".join(wrapped)


def _table(head: str, rows: Sequence[str]) -> str:
    columns = head.count("|") + 1
    return "\n".join([f"| {head} |", "|" + "---|" * columns, *rows]) + "\n"


def _with(values: Mapping[str, Any], spread: Mapping[str, Any], row: str) -> str:
    if row not in values:
        return "–"
    return f"{values[row]:.2f} [{spread[row][0]:.2f}, {spread[row][1]:.2f}]"


def _steps_of(found: Sequence[float | None]) -> str:
    return ", ".join("never" if steps is None else f"{steps:.0f}" for steps in found) or "–"


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
