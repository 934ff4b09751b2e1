"""The claims with their figures: what was expected, what was measured, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any


@dataclass(frozen=True)
class Claim:
    """One line of the table; `holds` is None where it was not measured."""

    number: str
    text: str
    measured: str
    holds: bool | None


def claims(evidence: Mapping[str, Any]) -> list[Claim]:
    """Every claim of the issue, judged by the means over the seeds.

    On the second checkpoint the LoRA alone counts at the guidance that suits it better.
    """
    identity, there = evidence["identity"], evidence["transfer"]["identity"]
    pivotal, lora, base = identity["pivotal"], identity["lora_only"], identity["base"]
    kept, lora_kept = pivotal["unet"] / pivotal["whole"], lora["unet"] / lora["whole"]
    gain = pivotal["words"] - base
    other = max(there["lora_only"]["whole"], evidence["guidance_4"]["lora_only"].get("retro_whole", 0.0))
    drift = evidence["drift"]
    exact = evidence["renaming_is_exact"]
    return [
        Claim("1", "pivotal: U-Net only keeps at least 0.9 of full", f"{kept:.2f}", kept >= 0.9),
        Claim("2", "LoRA alone: U-Net only keeps at most 0.6 of full", f"{lora_kept:.2f}", lora_kept <= 0.6),
        Claim("3", "embeddings only is above base by at least 0.1", f"{gain:+.2f}", gain >= 0.1),
        *(
            Claim(
                "4",
                f"second checkpoint: {label} beat the plain LoRA",
                f"{there['pivotal'][row]:.2f} to {other:.2f}",
                there["pivotal"][row] > other,
            )
            for row, label in (("words", "embeddings only"), ("half", "embeddings with half of the U-Net's weights"))
        ),
        Claim("5", "renaming an embedding changes nothing, bit for bit", "the same" if exact else "different", exact),
        _faster(evidence, "0.5", "an init text helps: fewer steps to an identity of 0.5"),
        _faster(evidence, "describable", "an init text helps: fewer steps to half of the describable traits"),
        Claim(
            "6",
            "the text encoder drifts less than with LoRA alone",
            f"{drift['pivotal']:.5f} to {drift['lora_only']:.5f}",
            drift["pivotal"] < drift["lora_only"],
        ),
        _sixteen(evidence),
    ]


def _faster(evidence: Mapping[str, Any], key: str, text: str) -> Claim:
    """Seed against the same seed; holds where each needs fewer steps with the init text."""
    found = evidence["steps_to"]
    pairs = list(zip(found["init_text"][key], found["random"][key], strict=False))
    if not pairs or any(None in pair for pair in pairs):
        return Claim("6", text, "–", None)
    mine, chance = mean(pair[0] for pair in pairs), mean(pair[1] for pair in pairs)
    seeds = f"{len(pairs)} seed{'s' if len(pairs) > 1 else ''}"
    return Claim("6", text, f"{mine:.0f} to {chance:.0f} ({seeds})", all(first < second for first, second in pairs))


def _sixteen(evidence: Mapping[str, Any]) -> Claim:
    text, embeddings = "16 embeddings in one run are within 0.05 of runs with one embedding", evidence["sixteen_words"]
    if embeddings is None:
        return Claim("7", text, "–", None)
    gain = embeddings["same_words"] - embeddings["one_word_each"]
    return Claim("7", text, f"{embeddings['same_words']:.2f} to {embeddings['one_word_each']:.2f}", gain >= -0.05)
