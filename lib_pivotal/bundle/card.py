"""The result card of a bundle: what its metadata tells people, and what they may add to it.

Kept in the file: `pivotal.card` (JSON: prompts that were drawn, CFG, figures), `pivotal.recommended` (weights), and
ModelSpec's `description`, `license`, `usage_hint` and `thumbnail` (https://github.com/Stability-AI/ModelSpec: "in
data-image format", 256 x 256 recommended).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from lib_pivotal.bundle.format import META_CARD, META_RECOMMENDED, META_RUN
from lib_pivotal.bundle.listing import BundleSummary, list_bundle
from lib_pivotal.bundle.metadata import embedding_facts, finite_number, read_json, recommended_weights
from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.config_versions import upgraded

THUMBNAIL_PX = 256
THUMBNAIL_QUALITY = 85
_DATA_URL = "data:image/jpeg;base64,"
LICENCE, DESCRIPTION, HINT, THUMBNAIL = (
    f"modelspec.{key}" for key in ("license", "description", "usage_hint", "thumbnail")
)


@dataclass(frozen=True)
class DrawnPrompt:
    """A prompt that was drawn with the file, and how."""

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    steps: int = 0
    cfg: float = 0.0
    size_px: int = 0


@dataclass(frozen=True)
class EmbeddingCard:
    """An embedding and what it is."""

    name: str
    vectors: int
    init_text: str = ""
    images_seen: int = 0
    pruned_tags: tuple[str, ...] = ()
    separation: float | None = None


@dataclass(frozen=True)
class ResultCard:
    """What people want to know of a file. `weights` (`unet`, `te`) and `cfg` are recommended; empty and None: nothing
    is. `settings` and `figures` are by their title. `thumbnail` is a data URL."""

    title: str
    embeddings: tuple[EmbeddingCard, ...] = ()
    prompts: tuple[DrawnPrompt, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    cfg: float | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    description: str = ""
    licence: str = ""
    thumbnail: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(
            replace(self, weights=dict(self.weights), settings=dict(self.settings), figures=dict(self.figures))
        )

    def prompt_of(self, prompt: str, file_stem: str) -> str:
        """A prompt with the file's tag in front, at the recommended weights."""
        return f"{tag_of(file_stem, self.weights)} {prompt}".rstrip()


@dataclass(frozen=True)
class CardEdit:
    """What is written into a file's card; None: stays as it is. Empty text, or no weight: is taken out."""

    description: str | None = None
    licence: str | None = None
    weights: Mapping[str, float] | None = None
    cfg: float | None = None
    prompts: Sequence[DrawnPrompt] | None = None
    figures: Mapping[str, float] | None = None
    picture: Image.Image | None = None


def tag_of(file_stem: str, weights: Mapping[str, float]) -> str:
    """The tag of a file as the web UI reads it: one weight, or the text encoder's and the U-Net's.

    >>> tag_of("aoi", {}), tag_of("aoi", {"unet": 0.7, "te": 1.0})
    ('<lora:aoi:1>', '<lora:aoi:1:0.7>')
    """
    unet, te = weights.get("unet", 1.0), weights.get("te", weights.get("unet", 1.0))
    return f"<lora:{file_stem}:{unet:g}>" if unet == te else f"<lora:{file_stem}:{te:g}:{unet:g}>"


def read_card(path: str | Path) -> ResultCard:
    """The card of a file, from its header alone.

    Raises:
        BundleError: the file cannot be read.
    """
    return card_of(list_bundle(path))


def card_of(summary: BundleSummary) -> ResultCard:
    """The card that a listing's metadata makes."""
    metadata = summary.metadata
    kept, facts = read_json(metadata, META_CARD), embedding_facts(metadata)
    embeddings = tuple(_embedding(one.name, one.vectors, facts.get(one.name, {})) for one in summary.embeddings)
    shares = [one.separation for one in embeddings if one.separation is not None]
    figures = {"separation": sum(shares) / len(shares)} if shares else {}
    return ResultCard(
        title=metadata.get("modelspec.title") or summary.path.stem,
        embeddings=embeddings,
        prompts=tuple(_prompt(one) for one in _list(kept.get("prompts")) if isinstance(one, dict)),
        weights=recommended_weights(metadata),
        cfg=finite_number(kept.get("cfg")),
        settings=_settings(metadata),
        figures=figures | _numbers(kept.get("figures")),
        description=metadata.get(DESCRIPTION, ""),
        licence=metadata.get(LICENCE, ""),
        thumbnail=thumbnail if (thumbnail := metadata.get(THUMBNAIL, "")).startswith("data:image/") else "",
    )


def with_card(metadata: Mapping[str, str], edit: CardEdit, *, embeddings: Sequence[str] = ()) -> dict[str, str]:
    """The metadata with an edit of its card; what the edit does not name stays.

    `embeddings` are the file's: ModelSpec's usage hint lists them.
    """
    kept: dict[str, Any] = read_json(metadata, META_CARD)
    if edit.prompts is not None:
        kept["prompts"] = [asdict(prompt) for prompt in edit.prompts]
    if edit.figures is not None:
        kept["figures"] = dict(edit.figures)
    if edit.cfg is not None:
        kept["cfg"] = edit.cfg
    changed = {**metadata, META_CARD: json.dumps(kept, ensure_ascii=False)}
    for key, text in ((DESCRIPTION, edit.description), (LICENCE, edit.licence)):
        if text is not None:
            changed[key] = text.strip()
    if edit.weights is not None:
        changed[META_RECOMMENDED] = json.dumps(dict(edit.weights))
    if edit.picture is not None:
        changed[THUMBNAIL] = thumbnail_url(edit.picture)
    changed[HINT] = _hint(embeddings, recommended_weights(changed), finite_number(kept.get("cfg")))
    return {key: value for key, value in changed.items() if value or key not in (DESCRIPTION, LICENCE, HINT)}


def write_card(path: Path, edit: CardEdit, *, out: Path | None = None) -> Path:
    """Write the card into the file (or into `out`); tensors stay bit for bit as they are.

    Raises:
        BundleError: the file cannot be read or written.
    """
    bundle = require(read_bundle(path))
    metadata = with_card(bundle.metadata, edit, embeddings=tuple(bundle.embeddings))
    return write_bundle(
        out or path, network=bundle.network, embeddings=bundle.embeddings, metadata=metadata, dtype=None
    )


def thumbnail_url(picture: Image.Image) -> str:
    """A picture as ModelSpec's thumbnail: a square JPEG, padded with white, so that a grid is seen as a whole."""
    side = (THUMBNAIL_PX, THUMBNAIL_PX)
    small = ImageOps.pad(picture.convert("RGB"), side, Image.Resampling.LANCZOS, color="white")
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=THUMBNAIL_QUALITY, optimize=True)
    return _DATA_URL + base64.b64encode(buffer.getvalue()).decode("ascii")


def _hint(embeddings: Sequence[str], weights: Mapping[str, float], cfg: float | None) -> str:
    """ModelSpec's usage hint: "short, for example trigger words"."""
    parts = [f"Embeddings: {', '.join(embeddings)}"] if embeddings else []
    parts += [f"{title} weight {weights[key]:g}" for key, title in (("unet", "U-Net"), ("te", "TE")) if key in weights]
    return "; ".join([*parts, *([] if cfg is None else [f"CFG {cfg:g}"])])


def _embedding(name: str, vectors: int, facts: Mapping[str, Any]) -> EmbeddingCard:
    seen = finite_number(facts.get("images_seen"))
    return EmbeddingCard(
        name=name,
        vectors=vectors,
        init_text=str(facts.get("init_text") or ""),
        images_seen=int(seen or 0),
        pruned_tags=tuple(str(tag) for tag in _list(facts.get("pruned_tags"))),
        separation=finite_number(facts.get("separation")),
    )


def _prompt(plain: Mapping[str, Any]) -> DrawnPrompt:
    numbers = {key: finite_number(plain.get(key)) or 0 for key in ("seed", "steps", "size_px")}
    return DrawnPrompt(
        prompt=str(plain.get("prompt") or ""),
        negative_prompt=str(plain.get("negative_prompt") or ""),
        cfg=finite_number(plain.get("cfg")) or 0.0,
        **{key: int(number) for key, number in numbers.items()},
    )


def _settings(metadata: Mapping[str, str]) -> dict[str, str]:
    """The settings that people compare files by; only those that are known."""
    run = read_json(metadata, META_RUN)
    run = upgraded(run, 1) if run else {}
    network, schedule, common, data = (_table(run, key) for key in ("network", "schedule", "embeddings_common", "data"))
    found = {
        "checkpoint": metadata.get("ss_sd_model_name"),
        "steps": metadata.get("ss_steps"),
        "batch": schedule.get("batch_size") or metadata.get("ss_batch_size_per_device"),
        "resolution": data.get("resolution_px") or metadata.get("ss_resolution"),
        "network": network.get("algorithm") or metadata.get("ss_network_module"),
        "rank": metadata.get("ss_network_dim"),
        "embedding LR": common.get("lr"),
        "U-Net LR": metadata.get("ss_unet_lr"),
        "text encoder LR": metadata.get("ss_text_encoder_lr"),
        "optimiser": metadata.get("ss_optimizer"),
        "pictures": metadata.get("ss_num_train_images"),
        "clip skip": metadata.get("ss_clip_skip"),
    }
    return {title: str(value) for title, value in found.items() if value not in (None, "", "None")}


def _table(run: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = run.get(key)
    return found if isinstance(found, dict) else {}


def _numbers(value: Any) -> dict[str, float]:
    found = {str(k): finite_number(v) for k, v in value.items()} if isinstance(value, dict) else {}
    return {key: number for key, number in found.items() if number is not None}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
