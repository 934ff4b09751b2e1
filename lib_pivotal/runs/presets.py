"""Presets: named starting points of a run, fitted to the pictures; users' own are kept as run.json files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lib_pivotal.config import Run, check_run, run_to_dict, write_run
from lib_pivotal.errors import ConfigError, Fault
from lib_pivotal.file_names import REMEDY, name_reasons, refuse_taken
from lib_pivotal.plain_json import parse_json
from lib_pivotal.runs.balance import with_balance

if TYPE_CHECKING:
    from lib_pivotal.runs.proposal import EmbeddingRow

ADVISED_SAMPLES = 800
"""So often an embedding wants to be drawn in a run (kgrid's rule of thumb)."""
PICTURES_PER_RUN = 8
"""Presets draw the four rows about so often."""

SEPARATION_LEAST_STEPS = 400
"""Presets do not measure separation more often: a measurement takes as long as 7 steps where one embedding has 24
pictures (on the avatars)."""

KEPT_OF_DATA = (
    *("folder", "layout", "captions_from", "caption_lines", "missing_caption", "duplicates", "least_px"),
    *("name_words", "name_join", "keep_separator", "parts"),
    *("resolution_px", "templates", "cache_folder", "masks", "transparency", "bucket_step_px"),
    *("prefix", "suffix", "word_lists", "wildcards", "wildcard_folder", "caption_fields", "emphasis", "max_tokens"),
    *("prune_mode", "core_rule", "core_threshold", "core_feature_threshold", "drop_difficulty"),
    *("most_vectors", "random_vectors"),
    *("balance", "balance_weights"),
)
"""What belongs to the pictures and captions, which a preset leaves alone."""

MEASURED_FROM = 20
"""Presets measure separation where each character has so many pictures: one in ten is held out for it."""
DRAWN_EMBEDDINGS = 6
"""With more embeddings than these, presets choose so many for the rows: each costs four pictures every time."""


@dataclass(frozen=True)
class Preset:
    """A starting point: `settings` by dotted path; `samples` each embedding should get, which makes the steps; `why`
    says where the numbers come from: the balance was measured (docs/evidence.md), rates and ranks are what others
    train with, and were not measured here on a full-size checkpoint."""

    key: str
    label: str
    help: str
    why: str
    settings: Mapping[str, Any]
    samples: int = ADVISED_SAMPLES
    prune: bool = True
    balance: str = ""
    """A stop of `runs.balance`; "" leaves what the settings say."""

    @property
    def said(self) -> str:
        """What the page says of it."""
        return f"{self.help} {self.why}"


def _settings(**values: Any) -> Mapping[str, Any]:
    """Keyword arguments as dotted paths: `network__unet_lr` is `network.unet_lr`."""
    return MappingProxyType({key.replace("__", "."): value for key, value in values.items()})


PRESETS: tuple[Preset, ...] = (
    Preset(
        "character",
        "Character",
        "One character (or thing). The embedding learns who it is, the network the rest; captions keep what changes.",
        "The balance was measured on the avatars; r16, alpha 8 and LR 2e-4 are kgrid's, 3,000 samples a little "
        "less than HCP's 1,000 steps of 4.",
        _settings(network__unet_rank=16, network__unet_alpha=8.0, schedule__batch_size=4, data__keep_first=1),
        samples=3000,
        balance="embedding",
    ),
    Preset(
        "several",
        "Several characters + style",
        "Many embeddings at once; what they share goes into the network. Steps grow with their number.",
        "The balance as for one character: 16 embeddings in one run came out as good as alone, in the mean. Twice"
        " the rank, as more has to fit; fewer samples each, as they share the network's.",
        _settings(
            network__unet_rank=32,
            network__unet_alpha=16.0,
            schedule__batch_size=4,
            schedule__warmup_steps=50,
            data__keep_first=2,
        ),
        samples=1600,
        balance="embedding",
    ),
    Preset(
        "style",
        "Style",
        "How things look, not who is shown: captions keep everything, the network learns the rest.",
        "A style sits in the network, so the balance stays with it: on all layers, at a lower LR and over "
        "more samples, since it is in every picture.",
        _settings(
            embeddings_common__lr=2e-3,
            network__unet_rank=32,
            network__unet_alpha=16.0,
            network__unet_lr=1e-4,
            network__unet_targets="all",
            noise__offset=0.03,
            loss__weighting="min_snr",
            schedule__batch_size=4,
        ),
        samples=6000,
        prune=False,
        balance="shared",
    ),
    Preset(
        "quick",
        "Quick look",
        "A short, rough run to check embeddings and captions before a long one.",
        "Trained jointly and at high LRs, which shows the full picture soonest; nothing of it is meant to be kept.",
        _settings(
            network__unet_rank=8,
            network__unet_alpha=8.0,
            network__unet_lr=5e-4,
            embeddings_common__lr=1e-2,
            schedule__batch_size=2,
            data__keep_first=1,
        ),
        samples=200,
        balance="shared",
    ),
    Preset(
        "two_phase",
        "Two-phase (cloneofsimo)",
        "First the embeddings only, then the network with the embeddings frozen: the original pivotal tuning.",
        "cloneofsimo's own numbers: r4, LR 5e-4 for embeddings, 1e-4 for the U-Net and 1e-5 for the text encoder,"
        " weight decay 1e-3, linear decay.",
        _settings(
            embeddings_common__lr=5e-4,
            network__unet_rank=4,
            network__unet_alpha=4.0,
            network__unet_lr=1e-4,
            network__te_targets="attention",
            network__te_rank=4,
            network__te_alpha=4.0,
            network__te_lr=1e-5,
            network__weight_decay=0.001,
            schedule__phases="two_phase",
            schedule__lr_scheduler="linear",
            schedule__batch_size=4,
        ),
        samples=4000,
        prune=False,
    ),
)


def preset(key: str) -> Preset:
    """By key.

    Raises:
        ConfigError: there is none.
    """
    for one in PRESETS:
        if one.key == key:
            return one
    known = ", ".join(one.key for one in PRESETS)
    raise ConfigError([Fault("preset", key, "is not a preset", f"Use one of: {known}.")])


def fitting_preset(rows: Sequence[EmbeddingRow]) -> str:
    """Which preset a folder's embeddings suggest."""
    characters = [row for row in rows if not row.style]
    if len(rows) > 1:
        return "several"
    return "character" if characters or not rows else "style"


def apply_preset(key: str, run: Run, rows: Sequence[EmbeddingRow] = (), *, steps: int = 0) -> Run:
    """`run` with the preset's settings; what names it and its pictures (name, folder, embeddings, size, seed) stays.

    Steps follow from how often each embedding shall be drawn, unless `steps` says the length; warm-up, preview and
    saving intervals and those of separation from the steps.
    """
    from lib_pivotal.runs.proposal import steps_for_samples  # here: the page that lists presets is built at start-up

    chosen = preset(key)
    plain = run_to_dict(
        replace(Run(), name=run.name, seed=run.seed, clip_skip=run.clip_skip, embeddings=run.embeddings)
    )
    for path, value in chosen.settings.items():
        _set(plain, path, value)
    batch = plain["schedule"]["batch_size"]
    steps = steps or (steps_for_samples(rows, chosen.samples, batch=batch) if rows else 1500)
    plain["schedule"]["max_steps"] = steps
    plain["schedule"]["warmup_steps"] = min(plain["schedule"]["warmup_steps"], steps // 10)
    if plain["schedule"]["phases"] == "two_phase":
        plain["schedule"]["embeddings_steps"] = steps // 2
    every = preview_interval(steps)
    plain["saving"]["sample_every_steps"] = every
    plain["saving"]["state_every_steps"] = min(500, max(every, 50))
    for path in KEPT_OF_DATA:
        plain["data"][path] = run_to_dict(run)["data"][path]
    plain["saving"]["sample_prompts"] = list(run.saving.sample_prompts)
    plain["saving"]["sample_embeddings"] = _drawn(run, rows)
    plain["saving"]["folder"] = run.saving.folder
    plain["validation"] = run_to_dict(run)["validation"]  # it changes nothing of what is trained
    for embedding, row in zip(plain["embeddings"], _rows_of(run, rows), strict=True):
        embedding["prune"] = chosen.prune and row is not None and bool(row.absorbed)
    fitted = check_run(plain)[0]
    fitted = with_balance(fitted, chosen.balance, vectors=False) if chosen.balance else fitted
    many = all(row.pictures >= MEASURED_FROM for row in rows if not row.style)
    every = separation_interval(fitted.schedule.total_steps) if many else 0
    return replace(fitted, saving=replace(fitted.saving, separation_every_steps=every))


def _drawn(run: Run, rows: Sequence[EmbeddingRow]) -> list[str]:
    """With many embeddings, the few that are drawn: the most frequent and the rarest tell most."""
    names = [embedding.name for embedding in run.embeddings]
    if len(names) <= DRAWN_EMBEDDINGS:
        return []
    known = {row.embedding.name: row.sampling_share for row in rows}
    ordered = sorted(names, key=lambda name: -known.get(name, 0.0))
    half = DRAWN_EMBEDDINGS // 2
    return [*ordered[:half], *ordered[-half:]]


def preview_interval(steps: int) -> int:
    """Steps between pictures, in round numbers."""
    wanted = steps / PICTURES_PER_RUN
    sizes = (10, 20, 25, 50, 100, 150, 200, 250, 300, 400, 500, 750, 1000, 1500, 2000, 2500)
    return min(sizes, key=lambda size: abs(size - wanted))


def separation_interval(steps: int) -> int:
    """Steps between measurements of separation: half as often as samples; of a short run only its end is measured."""
    return max(SEPARATION_LEAST_STEPS, preview_interval(2 * steps))


def _rows_of(run: Run, rows: Sequence[EmbeddingRow]) -> list[EmbeddingRow | None]:
    by_name = {row.embedding.name: row for row in rows}
    return [by_name.get(embedding.name) for embedding in run.embeddings]


def _set(plain: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        plain = plain[parent]
    plain[last] = value


# ---- users' own ----


def saved_presets(folder: Path) -> dict[str, Path]:
    """Users' presets by name, from a folder that need not exist."""
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def save_preset(folder: Path, name: str, run: Run, *, overwrite: bool = False) -> Path:
    """Keep a run's settings under a name; what belongs to one set of pictures is left out.

    Raises:
        ConfigError: no file may be called so.
        FileNameError: there is a preset of this name already.
    """
    name = name.strip()
    reasons = name_reasons(name)
    if name in (one.label for one in PRESETS):
        reasons.append("is the name of a preset that is always there")
    if reasons:
        raise ConfigError([Fault("preset", name, f"is not a name for a preset: it {'; it '.join(reasons)}", REMEDY)])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    refuse_taken([path], overwrite=overwrite, remedy="Choose another name, or tick that it may be replaced.")
    bare = replace(run, name="", embeddings=(), data=replace(run.data, folder="", layout="auto", cache_folder=""))
    write_run(path, bare)
    return path


def load_preset(path: Path, run: Run) -> Run:
    """A user's preset over `run`: embeddings, name and pictures stay."""
    found = read_run_settings(path)
    kept = run.data
    data = replace(found.data, folder=kept.folder, layout=kept.layout, cache_folder=kept.cache_folder)
    return replace(found, name=run.name, embeddings=run.embeddings, data=data)


def read_run_settings(path: Path) -> Run:
    """A run.json as settings: embeddings and pictures may be missing.

    Raises:
        ConfigError: the file is no JSON, or a setting in it has a fault.
    """
    try:
        plain = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([Fault(str(path), "", f"cannot be read as JSON: {error}")]) from error
    return run_settings(plain)


def run_settings(plain: Any) -> Run:
    """Plain data as settings: embeddings and pictures may be missing.

    Raises:
        ConfigError: another setting has a fault.
    """
    run, faults = check_run(plain)
    faults = [fault for fault in faults if fault.field != "embeddings"]
    if faults:
        raise ConfigError(faults)
    return run
