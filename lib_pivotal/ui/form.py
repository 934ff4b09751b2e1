"""One table ties every setting of a run to its component: label, group, and nothing that `config.py` knows already."""

from __future__ import annotations

import json
import typing
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import gradio as gr

from lib_pivotal.config import DataConfig, EmbeddingConfig, LayerGroup, PartConfig, Run, check_run, run_to_dict
from lib_pivotal.config_schema import Setting, describe, walk
from lib_pivotal.config_versions import path_in_1
from lib_pivotal.errors import Fault
from lib_pivotal.networks.registry import KindOption, all_options, group_algorithm_names, owned_options
from lib_pivotal.plain_json import parse_json

Kind = Literal["number", "text", "flag", "choice", "lines", "embeddings", "groups", "parts"]
PREFIX = "pivotal_"


@dataclass(frozen=True)
class FormRow:
    """A setting on the page: its dotted path, its label, and the group that it stands in."""

    path: str
    label: str
    group: str

    @property
    def elem_id(self) -> str:
        """The id of its element: `network.unet_lr` is `pivotal_network_unet_lr`. Ids stay what they once were."""
        return PREFIX + path_in_1(self.path).replace(".", "_")


SPACES_COUNT = frozenset({"data.name_join"})
"""Texts of which spaces at the ends are a part."""

GROUPS: dict[str, str] = {
    "data": "Data",
    "main": "Main settings",
    "embeddings": "Embeddings",
    "network": "Network",
    "loss": "Loss and noise",
    "schedule": "Schedule and optimiser",
    "captions": "Captions",
    "pictures": "Pictures and masks",
    "regularisation": "Regularisation",
    "memory": "Memory and precision",
    "saving": "Saving and samples",
    "validation": "Validation",
}
"""Key -> title. `data` stands on the Data page, `main` open on the Train page, the others folded below it."""

OPTIONS = "network.options"


def option_rows() -> tuple[FormRow, ...]:
    """A row for each setting that only some kinds of network have, with their names."""
    return tuple(
        FormRow(f"{OPTIONS}.{name}", f"{_words(name)} ({', '.join(option.titles)})", "network")
        for name, option in all_options().items()
    )


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


TABLE: tuple[FormRow, ...] = (
    FormRow("data.folder", "Folder of pictures", "data"),
    FormRow("embeddings", "Embeddings", "data"),
    FormRow("name", "Output name", "main"),
    FormRow("embeddings_common.lr", "Embedding LR", "main"),
    FormRow("network.unet_lr", "U-Net LR", "main"),
    FormRow("network.te_targets", "Text encoder", "main"),
    FormRow("network.te_lr", "Text encoder LR", "main"),
    FormRow("network.unet_rank", "Rank", "main"),
    FormRow("schedule.batch_size", "Batch size", "main"),
    FormRow("data.resolution_px", "Resolution (px)", "main"),
    FormRow("schedule.max_steps", "Steps", "main"),
    FormRow("embeddings_common.control", "Embedding norm control", "embeddings"),
    FormRow("embeddings_common.norm_target", "Norm that the control keeps", "embeddings"),
    FormRow("embeddings_common.direction_kappa", "Direction: pull to the start (kappa)", "embeddings"),
    FormRow("embeddings_common.weight_decay", "Embedding weight decay", "embeddings"),
    FormRow("embeddings_common.initial_std", "Std of random vectors", "embeddings"),
    FormRow("embeddings_common.keep_commas", "Commas of the init text take a vector", "embeddings"),
    FormRow("embeddings_common.start", "Init text becomes", "embeddings"),
    FormRow("embeddings_common.start_weight", "Hold near the start (weight)", "embeddings"),
    FormRow("embeddings_common.text_steps", "Text-only warm-up (steps)", "embeddings"),
    FormRow("embeddings_common.editability", "Keep prompts editable", "embeddings"),
    FormRow("embeddings_common.editability_weight", "Keep prompts editable (weight)", "embeddings"),
    FormRow("embeddings_common.editability_prompts", "Prompts that are kept, one per line", "embeddings"),
    FormRow("embeddings_common.whole_tags", "Init text in whole tags", "embeddings"),
    FormRow("data.most_vectors", "Vectors of core tags, at most", "embeddings"),
    FormRow("data.random_vectors", "Random vectors behind them", "embeddings"),
    FormRow("data.prune_mode", "Tag pruning", "embeddings"),
    FormRow("data.core_rule", "Rule for core tags", "embeddings"),
    FormRow("data.core_threshold", "Core tags: share", "embeddings"),
    FormRow("data.core_feature_threshold", "Core tags: share of looks", "embeddings"),
    FormRow("data.drop_difficulty", "Prune below difficulty", "embeddings"),
    FormRow("data.balance", "Balance by", "embeddings"),
    FormRow("data.balance_weights", "Sampling weights of folders, one per line", "embeddings"),
    FormRow("network.algorithm", "Network type", "network"),
    *option_rows(),
    FormRow("network.unet_targets", "U-Net layers", "network"),
    FormRow("network.unet_alpha", "U-Net alpha", "network"),
    FormRow("network.te2_targets", "Second text encoder (SDXL)", "network"),
    FormRow("network.te2_lr", "Second text encoder LR (SDXL)", "network"),
    FormRow("network.te_rank", "Text encoder rank", "network"),
    FormRow("network.te_alpha", "Text encoder alpha", "network"),
    FormRow("network.dropout", "Dropout", "network"),
    FormRow("network.rank_dropout", "Rank dropout", "network"),
    FormRow("network.module_dropout", "Module dropout", "network"),
    FormRow("network.up_lr_factor", "LoRA+ factor of up", "network"),
    FormRow("network.l1", "L1 on the network", "network"),
    FormRow("network.lr_ramp", "Ramp of the network's LR", "network"),
    FormRow("network.lr_ramp_start", "Ramp begins at", "network"),
    FormRow("network.timestep_min", "Network: lowest timestep", "network"),
    FormRow("network.timestep_max", "Network: timesteps below", "network"),
    FormRow("network.max_norm", "Max norm of a layer", "network"),
    FormRow("network.weight_decay", "Network weight decay", "network"),
    FormRow("network.groups", "Groups of layers", "network"),
    FormRow("start.init_file", "Begin from (LoRA or bundle)", "network"),
    FormRow("start.network", "Network of that file", "network"),
    FormRow("start.embeddings", "Embeddings of that file", "network"),
    FormRow("loss.kind", "Loss", "loss"),
    FormRow("loss.huber_delta", "Huber delta", "loss"),
    FormRow("loss.huber_schedule", "Huber schedule", "loss"),
    FormRow("loss.weighting", "Timestep weighting", "loss"),
    FormRow("loss.snr_gamma", "SNR gamma", "loss"),
    FormRow("loss.dco_beta", "DCO's loss (beta)", "loss"),
    FormRow("loss.scale_v_like_noise", "Scale v-prediction loss like noise", "loss"),
    FormRow("noise.offset", "Noise offset", "loss"),
    FormRow("noise.random_offset", "Noise offset of random strength", "loss"),
    FormRow("noise.adaptive_offset", "Adaptive noise scale", "loss"),
    FormRow("noise.multires_iterations", "Multi-resolution scales", "loss"),
    FormRow("noise.multires_discount", "Multi-resolution discount", "loss"),
    FormRow("noise.perturbation", "Input perturbation", "loss"),
    FormRow("noise.random_perturbation", "Input perturbation of random strength", "loss"),
    FormRow("noise.timestep_min", "Lowest timestep", "loss"),
    FormRow("noise.timestep_max", "Timesteps below", "loss"),
    FormRow("noise.timestep_distribution", "Timestep distribution", "loss"),
    FormRow("noise.zero_terminal_snr", "Zero terminal SNR", "loss"),
    FormRow("schedule.epochs", "Epochs instead of steps", "schedule"),
    FormRow("schedule.optimizer", "Optimiser", "schedule"),
    FormRow("schedule.optimizer_options", "Optimiser options, one per line", "schedule"),
    FormRow("schedule.lr_scheduler", "LR scheduler", "schedule"),
    FormRow("schedule.lr_scheduler_cycles", "LR scheduler cycles", "schedule"),
    FormRow("schedule.lr_scheduler_power", "LR scheduler power", "schedule"),
    FormRow("schedule.warmup_steps", "LR warm-up (steps, below 1 a fraction)", "schedule"),
    FormRow("schedule.final_factor", "Final LR factor", "schedule"),
    FormRow("schedule.accumulation", "Gradient accumulation", "schedule"),
    FormRow("schedule.phases", "Phases", "schedule"),
    FormRow("schedule.embeddings_steps", "Steps of embeddings only", "schedule"),
    FormRow("schedule.embeddings_patience", "First phase: patience", "schedule"),
    FormRow("schedule.embeddings_look_steps", "First phase: check every … steps", "schedule"),
    FormRow("schedule.embeddings_least_steps", "First phase: least steps", "schedule"),
    FormRow("schedule.continued_embedding_lr_factor", "Embedding LR factor after that", "schedule"),
    FormRow("schedule.embeddings_only_share", "Embeddings-only share", "schedule"),
    FormRow("schedule.embedding_gradient_factor", "Embedding gradient beside the network", "schedule"),
    FormRow("schedule.network_start", "Network starts at (fraction)", "schedule"),
    FormRow("schedule.te_stop", "Text encoder stops at (fraction)", "schedule"),
    FormRow("schedule.clip_embeddings", "Max grad norm, embeddings", "schedule"),
    FormRow("schedule.clip_network", "Max grad norm, network", "schedule"),
    FormRow("schedule.ema_decay", "EMA", "schedule"),
    FormRow("seed", "Seed", "schedule"),
    FormRow("data.captions_from", "Captions from", "captions"),
    FormRow("data.caption_lines", "Lines of a caption file", "captions"),
    FormRow("data.missing_caption", "Where a caption is missing", "captions"),
    FormRow("data.name_words", "Words of a file's name", "captions"),
    FormRow("data.name_join", "Joined by", "captions"),
    FormRow("data.shuffle_tags", "Shuffle tags", "captions"),
    FormRow("data.keep_first", "Keep tokens (first tags)", "captions"),
    FormRow("data.keep_separator", "Keep tokens separator", "captions"),
    FormRow("data.tag_dropout", "Tag dropout", "captions"),
    FormRow("data.tag_dropout_mode", "Tag dropout mode", "captions"),
    FormRow("data.tag_dropout_classes", "Tag dropout by class, one per line", "captions"),
    FormRow("data.caption_dropout", "Caption dropout", "captions"),
    FormRow("data.bare_caption", "Bare name as the caption (chance)", "captions"),
    FormRow("data.bare_caption_class", "Class beside the bare name", "captions"),
    FormRow("data.caption_dropout_epochs", "Without captions every … epochs", "captions"),
    FormRow("data.caption_warmup_steps", "Caption warm-up (steps)", "captions"),
    FormRow("data.caption_warmup_tags", "Warm-up begins with tags", "captions"),
    FormRow("data.max_tags", "Max tags", "captions"),
    FormRow("data.max_tokens", "Max tokens", "captions"),
    FormRow("data.emphasis", "Weights such as (x:1.2)", "captions"),
    FormRow("data.prefix", "Caption prefix", "captions"),
    FormRow("data.suffix", "Caption suffix", "captions"),
    FormRow("data.templates", "Templates, one per line", "captions"),
    FormRow("data.word_lists", "Word lists, one per line", "captions"),
    FormRow("data.wildcards", "Wildcards", "captions"),
    FormRow("data.wildcard_folder", "Folder of wildcard lists", "captions"),
    FormRow("data.caption_fields", "Caption fields, one per line", "captions"),
    FormRow("clip_skip", "Clip skip", "captions"),
    FormRow("data.parts", "Parts with their own settings, one per line", "captions"),
    FormRow("data.layout", "The folder is", "pictures"),
    FormRow("data.duplicates", "Duplicates", "pictures"),
    FormRow("data.least_px", "Shorter side at least (px)", "pictures"),
    FormRow("data.bucketing", "Aspect-ratio buckets", "pictures"),
    FormRow("data.bucket_step_px", "Bucket step (px)", "pictures"),
    FormRow("data.upscale", "Enlarge small pictures", "pictures"),
    FormRow("data.most_cropped", "Crop away at most (share)", "pictures"),
    FormRow("data.crop", "Crop", "pictures"),
    FormRow("data.crops", "Crops per picture", "pictures"),
    FormRow("data.scale_augmentation", "Scale augmentation", "pictures"),
    FormRow("data.flip", "Flip half of the samples", "pictures"),
    FormRow("data.random_latent", "Sample latents at random", "pictures"),
    FormRow("data.transparency", "Behind transparent pixels", "pictures"),
    FormRow("data.masks", "Masks", "pictures"),
    FormRow("data.mask_normalise", "Normalise masked loss", "pictures"),
    FormRow("data.mask_minimum", "Unmasked weight", "pictures"),
    FormRow("data.mask_off", "Unmasked probability", "pictures"),
    FormRow("data.mask_prior", "Keep what is masked", "pictures"),
    FormRow("data.mask_temperature", "Temperature of masks", "pictures"),
    FormRow("regularisation.folder", "Folder of class pictures", "regularisation"),
    FormRow("regularisation.weight", "Weight of class pictures", "regularisation"),
    FormRow("regularisation.batch_size", "Class pictures per batch", "regularisation"),
    FormRow("regularisation.target", "Class pictures train towards", "regularisation"),
    FormRow("regularisation.preservation", "Preservation (weight)", "regularisation"),
    FormRow("regularisation.class_text", "Class prompt", "regularisation"),
    FormRow("regularisation.prompts", "Prompts of class pictures, one per line", "regularisation"),
    FormRow("regularisation.negative_prompt", "Negative prompt of class pictures", "regularisation"),
    FormRow("regularisation.count", "Class pictures to make", "regularisation"),
    FormRow("memory.precision", "Precision", "memory"),
    FormRow("memory.gradient_checkpointing", "Gradient checkpointing", "memory"),
    FormRow("data.cache_folder", "Keep latents in folder", "memory"),
    FormRow("memory.latents_mb", "Latents in memory (MB)", "memory"),
    FormRow("saving.sample_every_steps", "Samples every … steps", "saving"),
    FormRow("saving.sample_prompts", "Sample prompts, one per line", "saving"),
    FormRow("saving.sample_embeddings", "Sampled embeddings, one per line", "saving"),
    FormRow("saving.keep_sampled", "Keep the file of each set of samples", "saving"),
    FormRow("saving.separation_every_steps", "Separation every … steps", "saving"),
    FormRow("saving.every_steps", "Save the file every … steps", "saving"),
    FormRow("saving.state_every_steps", "Save the state every … steps", "saving"),
    FormRow("saving.sample_every_epochs", "Samples every … epochs", "saving"),
    FormRow("saving.every_epochs", "Save the file every … epochs", "saving"),
    FormRow("saving.state_every_epochs", "Save the state every … epochs", "saving"),
    FormRow("saving.keep_states", "States kept", "saving"),
    FormRow("saving.dtype", "Precision of the file", "saving"),
    FormRow("saving.embedding_files", "Also one file per embedding", "saving"),
    FormRow("saving.card", "Result card and preview", "saving"),
    FormRow("saving.licence", "Licence of the file", "saving"),
    FormRow("saving.folder", "Folder of the file (command line)", "saving"),
    FormRow("validation.every_steps", "Validate every … steps", "validation"),
    FormRow("validation.patience", "End early after validations", "validation"),
    FormRow("validation.share", "Held-out share of each embedding", "validation"),
    FormRow("validation.most", "Held-out pictures of each, at most", "validation"),
    FormRow("validation.folder", "Folder of validation pictures", "validation"),
    FormRow("validation.noise_levels", "Noise levels a picture", "validation"),
    FormRow("validation.keep_best", "Keep the file of the best step", "validation"),
)

_OPTIONS: dict[str, KindOption] = {f"{OPTIONS}.{name}": option for name, option in all_options().items()}
_HINTS: dict[str, Any] = {
    **{path: hint for path, _, hint in walk(Run) if path != OPTIONS},
    **{path: option.hint for path, option in _OPTIONS.items()},
}
_SETTINGS: dict[str, Setting] = {
    **{path: describe(field) for path, field, _ in walk(Run)},
    **{path: option.setting for path, option in _OPTIONS.items()},
}


def kind_of(path: str) -> Kind:
    """Which sort of component a setting needs, from its type."""
    hint, setting = _HINTS[path], _SETTINGS[path]
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        kinds: dict[Any, Kind] = {EmbeddingConfig: "embeddings", LayerGroup: "groups", PartConfig: "parts"}
        return kinds.get(item, "lines")
    if setting.listed:
        return "choice"
    if hint is bool:
        return "flag"
    return "text" if hint is str else "number"


def help_text(path: str) -> str:
    """What it does, its unit, its limits and a good range: one tooltip."""
    return _sentence(_SETTINGS[path])


def embedding_help() -> dict[str, str]:
    """The same for the settings of a single embedding, by name."""
    return {field.name: _sentence(describe(field)) for field in fields(EmbeddingConfig)}


def _sentence(setting: Setting) -> str:
    parts = [setting.help]
    if setting.good_range:
        parts.append(f"Good: {setting.good_range}.")
    low, high = (None if limit is None else _shown(limit) for limit in (setting.minimum, setting.maximum))
    unit = f" {setting.unit}" if setting.unit and setting.unit != "path" else ""
    if low is not None and high is not None:
        parts.append(f"From {low} to {high}{unit}.")
    elif low is not None:
        parts.append(f"{'Above' if setting.above_minimum else 'At least'} {low}{unit}.")
    elif unit:
        parts.append(f"In{unit}.")
    return " ".join(parts)


def _shown(limit: float) -> str:
    return f"{int(limit):,}".replace(",", " ") if limit == int(limit) else f"{limit:g}"


class Form:
    """The components of one page, by path; they are made group by group where the page wants them."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self._defaults = _flat(run_to_dict(Run()))

    def add(self, path: str, **options: Any) -> Any:
        """Make the component of one setting here."""
        entry = next(entry for entry in TABLE if entry.path == path)
        self._made[path] = component = _component(entry, to_widget(path, self._defaults[path]), options)
        return component

    def add_group(self, group: str, *, columns: int = 3) -> None:
        """Make what is left of a group here, in rows of `columns`."""
        entries = [entry for entry in TABLE if entry.group == group and entry.path not in self._made]
        for start in range(0, len(entries), columns):
            with gr.Row(elem_classes=["pivotal-row"]):
                for entry in entries[start : start + columns]:
                    self.add(entry.path)

    def __getitem__(self, path: str) -> Any:
        return self._made[path]

    @property
    def components(self) -> list[Any]:
        """All of them in the table's order: the inputs of `read`, the outputs of `write`."""
        return [self._made[entry.path] for entry in TABLE]

    @staticmethod
    def read(values: Sequence[Any]) -> tuple[Run, list[Fault]]:
        """The run that the page shows, as far as it can be understood, and every fault by field."""
        plain: dict[str, Any] = {}
        faults: list[Fault] = []
        for entry, value in zip(TABLE, values, strict=True):
            try:
                _put(plain, entry.path, from_widget(entry.path, value))
            except ValueError as error:
                faults.append(Fault(entry.path, value, str(error)))
        network = plain["network"]
        kinds = (network["algorithm"], *(group["algorithm"] for group in network.get("groups", ())))
        network["options"] = owned_options(kinds, network["options"])
        run, found = check_run(plain)
        return run, faults + found

    @staticmethod
    def write(run: Run) -> list[Any]:
        """Values of all components for a run."""
        flat = _flat(run_to_dict(run))
        return [to_widget(entry.path, flat[entry.path]) for entry in TABLE]

    def fill(self, run: Run) -> dict[Any, Any]:
        """Component -> its value for a run: what an event answers that fills the form."""
        return dict(zip(self.components, self.write(run), strict=True))


def to_widget(path: str, value: Any) -> Any:
    """A plain JSON value as its component holds it."""
    kind = kind_of(path)
    if kind == "embeddings":
        return json.dumps(value, ensure_ascii=False)
    if kind == "lines":
        return "\n".join(value)
    if kind == "groups":
        return "\n".join(_group_line(group) for group in value)
    if kind == "parts":
        return "\n".join(_part_line(part) for part in value)
    return value


def from_widget(path: str, value: Any) -> Any:
    """What a component holds as a plain JSON value.

    Raises:
        ValueError: text that cannot be read; its message is for the user.
    """
    kind = kind_of(path)
    if kind == "embeddings":
        try:
            return parse_json(value or "[]")
        except ValueError as error:
            raise ValueError(f"is no list of embeddings: {error}") from error
    if kind == "lines":
        return [line.strip() for line in (value or "").splitlines() if line.strip()]
    if kind == "groups":
        return [_group(line) for line in (value or "").splitlines() if line.strip()]
    if kind == "parts":
        return [_part(line) for line in (value or "").splitlines() if line.strip()]
    if kind == "text":
        return (value or "") if path in SPACES_COUNT else (value or "").strip()
    return value


def _group_line(group: dict[str, Any]) -> str:
    own = f" | {group['algorithm']}" if group.get("algorithm") else ""
    return f"{group['pattern']} | {group['rank']} | {group['alpha']!r} | {group['lr_factor']!r}{own}"


def _group(line: str) -> dict[str, Any]:
    """`pattern | rank | alpha | factor`, and `| kind` where it is another kind of network; the pattern may hold `|`
    itself, so the line is read from the right."""
    rest, _, last = (part.strip() for part in line.rpartition("|"))
    algorithm = last if last in group_algorithm_names() else ""
    parts = [part.strip() for part in (rest if algorithm else line).rsplit("|", 3)]
    try:
        pattern, rank, alpha, factor = parts
        numbers = {"rank": int(rank), "alpha": float(alpha), "lr_factor": float(factor)}
    except ValueError as error:
        raise ValueError(f"cannot read {line!r}: write pattern | rank | alpha | LR factor") from error
    return {"pattern": pattern, **numbers, "algorithm": algorithm}


def _part_line(part: dict[str, Any]) -> str:
    """`red/* | shuffle_tags = false | keep_first = 2`: what differs from the run; values as in JSON."""
    usual = run_to_dict(Run(data=DataConfig(parts=(PartConfig(),))))["data"]["parts"][0]
    own = {name: value for name, value in part.items() if name != "applies_to" and value != usual[name]}
    values = {name: json.dumps(value, ensure_ascii=False).replace("|", "\\u007c") for name, value in own.items()}
    return " | ".join([part["applies_to"], *(f"{name} = {value}" for name, value in values.items())])


def _part(line: str) -> dict[str, Any]:
    pattern, *pairs = (piece.strip() for piece in line.split("|"))
    found: dict[str, Any] = {"applies_to": pattern}
    for pair in pairs:
        name, _, value = (piece.strip() for piece in pair.partition("="))
        try:
            found[name] = parse_json(value)
        except ValueError:
            found[name] = value  # text without quotes
    return found


def _component(entry: FormRow, value: Any, options: dict[str, Any]) -> Any:
    kind, setting = kind_of(entry.path), _SETTINGS[entry.path]
    common = {"label": entry.label, "value": value, "elem_id": entry.elem_id, "interactive": True, **options}
    common["elem_classes"] = ["pivotal-field", *options.get("elem_classes", [])]
    if kind == "number":
        return gr.Number(**{"min_width": 120, **common})
    if kind == "flag":
        return gr.Checkbox(**{"min_width": 120, **common})
    if kind == "choice":
        return gr.Dropdown(choices=list(setting.choices), **{"min_width": 120, **common})
    lines = 2 if kind in ("lines", "groups", "parts") else 1
    if kind == "parts":
        common.setdefault("placeholder", "red/* | shuffle_tags = false | keep_first = 2")
    if kind == "groups":
        common.setdefault("placeholder", "down_blocks_[12] | 8 | 4 | 0.5")
    return gr.Textbox(**{"lines": lines, "max_lines": 8 if lines > 1 else 1, "min_width": 120, **common})


def _flat(plain: dict[str, Any]) -> dict[str, Any]:
    usual = {path.removeprefix(f"{OPTIONS}."): option.default for path, option in _OPTIONS.items()}
    network = {**plain["network"], "options": {**usual, **plain["network"]["options"]}}
    plain, found = {**plain, "network": network}, {}
    for path in _HINTS:
        value: Any = plain
        for part in path.split("."):
            value = value[part]
        found[path] = value
    return found


def _put(plain: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        plain = plain.setdefault(parent, {})
    plain[last] = value
