"""kohya's sd-scripts (`--config_file` TOML of train_network.py, sdxl_train_network.py, train_textual_inversion.py), the
JSON of bmaltais' GUI around them, which has names of its own, and the TOML of LoRA_Easy_Training_Scripts, which has
tables of its own. Meanings: sd-scripts 48d368f, kohya_ss 45088f0.

The readers give one flat table of the scripts' own flags; `network_args` and their like are keys below it.
networks/lora.py gives adapters to all linear layers and 1×1 convolutions of the transformers, 192 in SD1, and with
`conv_dim` also to resnets and resamplers; dim is 4 and alpha 1 where none is written.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lib_pivotal.errors import NetworkError
from lib_pivotal.importing import common
from lib_pivotal.importing.kohya_dataset import easy_arguments
from lib_pivotal.importing.reading import Origin, flag, number, numbers, read_bytes, whole
from lib_pivotal.importing.report import shown
from lib_pivotal.importing.translation import (
    EMPTY,
    OFF,
    ConfigTranslation,
    Rule,
    Table,
    also,
    among,
    apply,
    aside,
    choice,
    each,
    given,
    holds,
    missing,
    refuse,
    to,
    turned,
    under,
    unless,
    when,
    where,
)
from lib_pivotal.networks.targets import SPATIAL_CONVOLUTION, block_patterns, preset_pattern

TITLE, GUI_TITLE, EASY_TITLE = "kohya settings", "kohya GUI settings", "LoRA_Easy_Training_Scripts settings"
DEFAULT_STEPS, DEFAULT_RATE, DEFAULT_DIM, DEFAULT_ALPHA = 1600, 2e-6, 4, 1.0
MOST_ARGUMENTS = 200
USUAL = "kohya's own default"

# fmt: off
GUI_NAMES = {
    "optimizer": "optimizer_type", "max_resolution": "resolution", "lora_network_weights": "network_weights",
    "sdxl_no_half_vae": "no_half_vae", "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
}
"""GUI -> script; all other keys that both have are called alike."""
EASY_NAMES = {"batch_size": "train_batch_size", "warmup_ratio": "lr_warmup_steps"}
EASY_SHARED = ("resolution", "batch_size", "enable_bucket", "bucket_no_upscale", "bucket_reso_steps",
               "min_bucket_reso", "max_bucket_reso")
"""What Easy's dataset file holds and the scripts know as flags, too."""
KINDS = {"locon": "lora", "diag-oft": "oft", "boft": "boft"}
"""LyCORIS' `algo` -> kind of network, where it is not called alike."""
GUI_KINDS = {
    **dict.fromkeys(("Standard", "Kohya LoCon", "LyCORIS/LoCon"), "lora"),
    "LyCORIS/LoHa": "loha", "LyCORIS/LoKr": "lokr", "LyCORIS/Diag-OFT": "oft",
    "Kohya DyLoRA": "dylora", "LyCORIS/Native Fine-Tuning": "full",
}
"""A GUI's LoRA_type -> kind of network; others have none here."""
KIND_OPTIONS = {
    "factor": "factor", "use_tucker use_cp": "tucker", "decompose_both": "decompose_both", "full_matrix": "full_matrix",
    "constraint constrain": "constraint", "rescaled": "rescale", "rs_lora": "rank_stabilised",
    "train_on_input": "on_input", "block_size unit": "unit",
}
"""Arguments of LyCORIS' kinds of network, and of sd-scripts' own DyLoRA and OFT -> ours."""
LAYER_SETS = {"attn-mlp": "kohya", "attn-only": "attention", "unet-transformer-only": "kohya"}
"""LyCORIS' presets without convolutions -> layers of the U-Net."""
NORMS = r"^lora_unet_.*_norm\d?$"
"""Its `train_norm`."""
LOSSES = {"l2": "mse", "l1": "l1", "huber": "huber", "smooth_l1": "smooth_l1"}
ARGUMENT_LISTS = ("network_args", "optimizer_args", "lr_scheduler_args")
OPTIONS = (
    "module_dropout use_tucker use_cp use_scalar rank_dropout_scale decompose_both train_norm rescaled constraint "
    "bypass_mode dora_wd block_size full_matrix train_on_input split_mode split_qkv loraplus_lr_ratio "
    "loraplus_unet_lr_ratio loraplus_text_encoder_lr_ratio ggpo_beta ggpo_sigma verbose scale"
).split()
"""Arguments of networks that are not here."""
LORA_PLUS = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
BLOCKS = ("block_dims", "block_alphas", "down_lr_weight", "mid_lr_weight", "up_lr_weight")
BLOCK_OPTIONS = ("conv_block_dims", "conv_block_alphas", "block_lr_zero_threshold", "block_lr")
ARGUMENTS = ("algo", "conv_dim", "conv_alpha", "rank_dropout", "preset", "LyCORIS_preset", *BLOCKS, *BLOCK_OPTIONS,
             *OPTIONS)
"""Arguments of the network that are keys of their own in a GUI's file."""
_GUI_MARKS = frozenset(
    "LoRA_type max_resolution model_list lr_warmup stop_text_encoder_training additional_parameters noise_offset_type "
    "sdxl_no_half_vae stop_text_encoder_training_pct num_cpu_threads_per_process".split()
)
_SCRIPT_MARKS = frozenset(
    "network_module network_dim network_alpha network_args optimizer_type train_batch_size max_train_steps "
    "max_train_epochs train_data_dir token_string unet_lr text_encoder_lr learning_rate lr_scheduler mixed_precision "
    "save_every_n_epochs pretrained_model_name_or_path resolution clip_skip output_name dataset_config".split()
)
# fmt: on


# ---- reading ----


def is_gui(plain: Mapping[str, Any]) -> bool:
    """Whether it is a file of bmaltais' GUI."""
    keys = {*plain, *flat(plain)}
    return len(_GUI_MARKS & keys) >= 2 or ("LoRA_type" in plain and "train_batch_size" in plain)


def is_kohya(plain: Mapping[str, Any]) -> bool:
    """Whether it is a file of the scripts."""
    return len(_SCRIPT_MARKS & {*plain, *flat(plain)}) >= 3


def flat(plain: Mapping[str, Any]) -> dict[str, Any]:
    """All keys beside each other: tables are only for the eye."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        found |= value if isinstance(value, dict) else {key: value}
    return found


def import_kohya(plain: Mapping[str, Any], origin: Origin) -> ConfigTranslation:
    """A TOML of the scripts."""
    return _translate(ConfigTranslation(expanded(flat(plain)), origin, usual=USUAL))


def import_kohya_gui(plain: Mapping[str, Any], origin: Origin) -> ConfigTranslation:
    """A JSON of the GUI, or the TOML of its own defaults; its own names come before the scripts'."""
    found = gui_flags(flat(plain))
    renamed = {gui: script for gui, script in GUI_NAMES.items() if gui in found}
    renamed |= {script: f"script.{script}" for script in renamed.values() if script in found}
    if _has_network(found) and found.get("token_string") in (None, "", []):
        listed = found.get("network_args")
        inner = listed if isinstance(listed, dict) else {}
        renamed |= {name: f"network_args.{name}" for name in ARGUMENTS if name in found and name not in inner}
    flags = {renamed.get(key, key): value for key, value in found.items()}
    names = {script: gui for gui, script in renamed.items()}
    return _translate(ConfigTranslation(flags, origin, names=names, dialect="gui", usual=USUAL))


def import_easy(plain: Mapping[str, Any], origin: Origin) -> ConfigTranslation:
    """As the scripts' flags; its `[[subsets]]` are read by a scan of the same file."""
    flags = easy_arguments(plain, "args")
    flags |= {key: value for key, value in easy_arguments(plain, "dataset_args").items() if key in EASY_SHARED}
    found = {EASY_NAMES.get(key, key): value for key, value in flags.items() if key not in EASY_NAMES or value}
    if plain.get("subsets"):
        found["dataset_config"] = origin.name
    sheet = _translate(ConfigTranslation(expanded(found), origin, usual=USUAL))
    table = plain.get("train_mode")
    mode = str(table.get("train_mode", "lora") if isinstance(table, dict) else table or "lora")
    if mode.lower() not in ("lora", "textual_inversion"):
        sheet.remark(f"train_mode = {mode}: a network is trained here; what fits it was taken.")
    return sheet


def _translate(sheet: ConfigTranslation) -> ConfigTranslation:
    path = sheet.origin.find(sheet.get("dataset_config"))
    reading = None if path is None else common.read_described(path, "kohya_toml", sheet.origin)
    sheet.described = None if path is None or reading is None else (reading, path)
    return apply(sheet, TABLE)


def expanded(found: Mapping[str, Any]) -> dict[str, Any]:
    """`network_args = ["conv_dim=4"]` -> `network_args = {"conv_dim": "4"}`, so that each has a line of its own."""
    return {key: _arguments(value) if key in ARGUMENT_LISTS else value for key, value in found.items()}


def _arguments(written: Any) -> Any:
    """`key=value` pairs of a list or of a line of text; as it was if it is neither."""
    if isinstance(written, str):
        written = written.replace('"', " ").replace("'", " ").split()
    if not isinstance(written, list):
        return written
    pairs = [str(item).strip().strip("\"'").partition("=") for item in written[:MOST_ARGUMENTS]]
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs if key.strip()}


def gui_flags(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A GUI's settings, with the flags typed into its field "additional parameters" beside or over the others."""
    found = dict(plain)
    typed = found.get("additional_parameters")
    script_to_gui = {script: gui for gui, script in GUI_NAMES.items()}
    for name, value in _command_line(typed if isinstance(typed, str) else "").items():
        target = script_to_gui.get(name, name)
        found[target if target in found else name] = value
    return expanded(found)


def _command_line(text: str) -> dict[str, Any]:
    """`--a=1 --b "x=1" "y=2" --c` -> `{a: "1", b: "x=1 y=2", c: True}`."""
    found: dict[str, Any] = {}
    for name, equals, rest in re.findall(r"--([a-z_0-9]+)(=?)\s*((?:(?!\s--[a-z]|^--).)*)", text[:4000], re.DOTALL):
        value = rest.strip()
        plain = value.strip("\"'") if value.count('"') <= 2 else value
        found[name] = plain if value or equals else True
    return found


def _has_network(found: Mapping[str, Any]) -> bool:
    return any(key in found for key in ("network_module", "network_dim", "LoRA_type", "network_args"))


# ---- length, optimiser, LR scheduler ----


def _length(sheet: ConfigTranslation) -> None:
    """Batch, steps, and epochs where the pictures can be counted."""
    keys = ("train_batch_size", "gradient_accumulation_steps", "num_processes")
    batch, accumulation, processes = (max(sheet.whole(key, 1), 1) for key in keys)
    sheet.own(keys[0], "schedule.batch_size", batch, 1)
    if processes > 1:
        sheet.translated(keys[2], "schedule.accumulation", accumulation * processes, "once for each GPU")
        sheet.note(keys[1], "translated", "× GPUs", "schedule.accumulation")
    else:
        sheet.own(keys[1], "schedule.accumulation", accumulation, 1)
        sheet.honoured(keys[2], "one process, as here")
    steps, epochs = sheet.whole("max_train_steps"), sheet.whole("max_train_epochs")
    key = "max_train_epochs" if epochs or sheet.dialect != "gui" else "epoch"
    epochs = epochs or (0 if steps else sheet.whole(key))
    reading = sheet.described[0] if sheet.described else None
    if reading is not None and (own := reading.settings.get("schedule.batch_size")):
        sheet.put("schedule.batch_size", own)  # the dataset file's tables come before the flags
    folder, draws = sheet.origin.find(sheet.get("train_data_dir")), common.draws_an_epoch(reading)
    if reading is None and folder is not None and folder.is_dir():
        draws = common.count_draws(folder)
    if epochs:
        common.take_epochs(sheet, key, epochs, draws)
        if not draws:
            sheet.put("schedule.max_steps", steps or DEFAULT_STEPS)
        sheet.honoured("max_train_steps", "epochs come before steps")
    elif steps:
        sheet.taken("max_train_steps", "schedule.max_steps", steps)
    else:
        sheet.default("max_train_steps", "schedule.max_steps", DEFAULT_STEPS, USUAL)
    sheet.epoch_steps = sheet.epoch_steps or math.ceil(draws / common.pictures_a_step(sheet))


def _optimizer(sheet: ConfigTranslation) -> None:
    """Optimiser, its decay and options, and the limit of gradients."""
    old = {"use_8bit_adam": "AdamW8bit", "use_lion_optimizer": "Lion"}
    written = sheet.get("optimizer_type")
    key = "optimizer_type" if written else next((key for key in old if sheet.flag(key)), "")
    ours = common.set_optimizer(sheet, key, old.get(key, written)) if key else "adamw"
    if not key:
        sheet.default("optimizer_type", "schedule.optimizer", ours, USUAL)
        sheet.honoured("optimizer_type", f"{USUAL}: AdamW")
    embeddings, key = sheet.given("token_string"), "optimizer_args.weight_decay"
    path = "embeddings_common.weight_decay" if embeddings else "network.weight_decay"
    common.take_decay(sheet, key, path, ours)
    for key in sheet.under("optimizer_args"):
        adafactors = key.partition(".")[2] in ("relative_step", "scale_parameter", "warmup_init")
        if ours == "adafactor" and adafactors and flag(sheet.get(key)) is False:
            sheet.honoured(key, "Adafactor with its own learning rates, as here")
    for limit in ("schedule.clip_network", *(("schedule.clip_embeddings",) if embeddings else ())):
        sheet.own("max_grad_norm", limit, sheet.number("max_grad_norm"), 1.0)


def _optimizer_option(sheet: ConfigTranslation, key: str, value: Any) -> None:
    if not common.take_option(sheet, key, key.partition(".")[2], option_value(value)):
        sheet.refused(key, "the optimiser has no such option here")


def option_value(written: Any) -> Any:
    """A value as kohya's command line has it (`0.9,0.99`, `True`); None: it is none."""
    if not isinstance(written, str):
        return written
    try:
        value = ast.literal_eval(written.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    parts = value if isinstance(value, list | tuple) else [value]
    plain = all(part is None or isinstance(part, bool | int | float) for part in parts)
    return (list(value) if isinstance(value, tuple) else value) if plain else None


def _course(sheet: ConfigTranslation) -> None:
    """The LR scheduler and its warm-up, which may be steps, a fraction of the run, or in the GUI per cent."""
    key, name = "lr_warmup_steps", sheet.get("lr_scheduler") or "constant"
    if sheet.given("lr_scheduler"):
        common.set_rate(sheet, "lr_scheduler", name)
    else:
        sheet.default("lr_scheduler", "schedule.lr_scheduler", "constant", USUAL)
    warmup, plain = sheet.number(key, 0.0), str(name).lower()
    per_cent = sheet.number("lr_warmup") if sheet.dialect == "gui" else None
    if plain in ("constant", "adafactor"):
        sheet.honoured((key, "lr_warmup"), "this scheduler has no warm-up")
    elif per_cent and not warmup:
        common.take_warmup(sheet, "lr_warmup", per_cent / 100, "per cent of the run's steps")
        sheet.honoured(key, "the per cent count")
    elif 0 < warmup < 1:
        common.take_warmup(sheet, key, warmup, "a fraction of the run's steps")
    else:
        sheet.taken(key, "schedule.warmup_steps", int(warmup))
    for key, scheduler in (("lr_scheduler_num_cycles", "cosine_with_restarts"), ("lr_scheduler_power", "polynomial")):
        if plain != scheduler:
            sheet.honoured(key, "of no effect on this scheduler")


# ---- network ----


def _network(sheet: ConfigTranslation) -> None:
    """Kind, layers, ranks, alphas and rates."""
    if not _has_network(sheet.plain):
        sheet.remark(
            "These settings train the checkpoint's own weights. That is not what this is for: a network of the usual "
            "size was set instead, with these pictures, captions and steps."
        )
        keys = "learning_rate unet_lr text_encoder_lr learning_rate_te learning_rate_te1 learning_rate_te2".split()
        sheet.refused(keys, "a learning rate for full fine-tuning does not fit a network; ours stays")
        return
    kind, lycoris = _kind(sheet)
    dim, alpha = sheet.whole("network_dim"), sheet.number("network_alpha")
    if dim:
        sheet.taken("network_dim", "network.unet_rank", dim)
    else:
        sheet.default("network_dim", "network.unet_rank", DEFAULT_DIM, USUAL)
        sheet.honoured("network_dim", f"{USUAL}: {DEFAULT_DIM}")
    rank = int(sheet.read("network.unet_rank"))
    if alpha is not None and alpha > 0:
        sheet.taken("network_alpha", "network.unet_alpha", alpha)
    elif alpha == 0:
        sheet.translated("network_alpha", "network.unet_alpha", float(rank), "kohya takes the rank for 0")
    else:
        sheet.default("network_alpha", "network.unet_alpha", DEFAULT_ALPHA, USUAL)
    unet_alpha = float(sheet.read("network.unet_alpha"))
    sheet.put("network.te_rank", rank)
    sheet.put("network.te_alpha", unet_alpha)
    train_unet, train_text = _rates(sheet)
    groups = _blocks(sheet, rank, unet_alpha) if kind == "lora" else []
    spatial = _spatial(sheet, rank, unet_alpha, lycoris=lycoris)
    groups += [] if str(sheet.get("network_args.preset")) in LAYER_SETS else spatial
    if sheet.flag("network_args.train_norm"):
        groups.append(common.group(NORMS, 1, 1.0, algorithm="norm"))
        sheet.note("network_args.train_norm", "translated", "a group of layers", f"network.groups {NORMS}")
    if not train_unet:
        sheet.put("network.unet_targets", "none")
    sheet.put("network.te_targets", "attention+mlp" if train_text else "none")
    _second_encoder(sheet, first=train_text)
    common.put_groups(sheet, groups)
    apply(sheet, NETWORK)


def _kind(sheet: ConfigTranslation) -> tuple[str, bool]:
    """(kind of network, whether LyCORIS makes it)."""
    algo, dora = sheet.get("network_args.algo"), sheet.get("network_args.dora_wd")
    named = sheet.get("LoRA_type") if sheet.given("LoRA_type") else None
    module = str(sheet.get("network_module") or "networks.lora")
    key, lycoris = "network_module", "lycoris" in module
    if named is not None:
        key, lycoris = "LoRA_type", str(named).startswith("LyCORIS")
        wanted = GUI_KINDS.get(str(named), "") or common.kind_of({}, str(named).rpartition("/")[2])
        sheet.honoured("network_module", "follows from LoRA_type")
    elif lycoris:
        key = "network_args.algo" if sheet.has("network_args.algo") else key
        wanted = common.kind_of({**KINDS, **common.ALIKE}, str(algo or "locon"))
        sheet.honoured("network_module", "LyCORIS")
    else:
        wanted = common.kind_of(common.ALIKE, module.rpartition(".")[2])
    if str(dora).lower() in ("true", "1") and wanted == "lora":
        wanted = "dora"
    why = f"the same kind of network is called {wanted} here"
    common.set_kind(sheet, key, wanted, why, shown(named or algo or module))
    if dora is not None and wanted in ("lora", "dora"):
        sheet.honoured("network_args.dora_wd", f"network.algorithm = {wanted}")
    elif str(dora).lower() in ("true", "1") and wanted in ("loha", "lokr"):
        sheet.put("network.options", {**sheet.read("network.options"), "weight_decompose": True})
        sheet.note("network_args.dora_wd", "taken", "", "network.options.weight_decompose = true")
    return ("lora" if wanted in ("lora", "dora", "") else wanted), lycoris


def _rates(sheet: ConfigTranslation) -> tuple[bool, bool]:
    """Rates of U-Net and text encoder; returns whether each is trained."""
    unet, text = sheet.number("unet_lr"), next(iter(_text_rates(sheet)), None)
    only_unet, only_text = sheet.flag("network_train_unet_only"), sheet.flag("network_train_text_encoder_only")
    if sheet.dialect == "gui" and unet == 0 and text == 0:
        unet = text = None
    elif sheet.dialect == "gui":  # resolve_network_train_flags: a rate of 0 leaves its part out
        only_unet, only_text = only_unet or text == 0, only_text or unet == 0
    parts = (("unet_lr", "network.unet_lr", unet, only_text), ("text_encoder_lr", "network.te_lr", text, only_unet))
    trained = []
    for key, path, own, left_out in parts:
        value = sheet.number("learning_rate", DEFAULT_RATE) if own is None else own
        trained.append(not left_out and value > 0)
        if not trained[-1]:
            sheet.put(path, 0.0)
            sheet.honoured(key, "this part is not trained", f"{path} = 0")
        elif own is None:
            fault = sheet.put(path, value)
            sheet.note("learning_rate", "not supported" if fault else "taken", fault, "network.unet_lr, network.te_lr")
            sheet.honoured(key, "learning_rate holds", f"{path} = {value:g}")
        elif isinstance(sheet.get(key), list):
            sheet.translated(key, path, value, "")
        else:
            sheet.taken(key, path, value)
    if not sheet.claimed("learning_rate"):
        sheet.honoured("learning_rate", "each part has its own learning rate")
    return trained[0], trained[1]


def _text_rates(sheet: ConfigTranslation) -> list[float]:
    """One for all text encoders, or one each."""
    return numbers(sheet.get("text_encoder_lr")) if sheet.given("text_encoder_lr") else []


def _second_encoder(sheet: ConfigTranslation, *, first: bool) -> None:
    """SDXL's second text encoder, where `text_encoder_lr` is a list of both rates (sd-scripts 48d368f)."""
    texts = _text_rates(sheet)
    if len(texts) < 2 or texts[0] == texts[1] or sheet.flag("network_train_unet_only"):
        return
    trained = texts[1] > 0
    targets, became = "attention+mlp" if trained else "none", []
    if trained:
        sheet.put("network.te2_lr", texts[1])
        became.append(f"network.te2_lr = {texts[1]:g}")
    if not (trained and first):
        sheet.put("network.te2_targets", targets)
    if not trained or not first:
        became.append(f"network.te2_targets = {targets}")
    own = f"network.te_lr = {texts[0]:g}" if first else "network.te_targets = none"
    sheet.note("text_encoder_lr", "translated", "of SDXL's first and second text encoder", ", ".join([own, *became]))


def _spatial(sheet: ConfigTranslation, rank: int, alpha: float, *, lycoris: bool) -> list[dict[str, Any]]:
    """Which layers: the transformers' own, or with a `conv_dim` (or LyCORIS) resnets too, their 3×3 with own rank."""
    keys = ("network_args.conv_dim", "network_args.conv_alpha")
    used = sheet.dialect != "gui" or str(sheet.get("LoRA_type")).startswith(("LyCORIS", "Kohya LoCon"))
    conv = sheet.whole(keys[0]) if used else 0
    if not conv and not (lycoris and used):
        sheet.honoured(keys, OFF if used else "not used by this LoRA_type")
        sheet.default("layers", "network.unet_targets", "kohya", "kohya's own layers")
        return []
    sheet.put("network.unet_targets", "all")
    conv = conv or rank
    conv_alpha = sheet.number(keys[1]) or (alpha if lycoris else 1.0)
    for key, name, value in ((keys[0], "rank", conv), (keys[1], "alpha", conv_alpha)):
        sheet.note(key, "translated", "3×3 convolutions, as a group", f"network.groups {name} = {value:g}")
    group = common.group(rf"^lora_unet_.*(?:{SPATIAL_CONVOLUTION})", conv, conv_alpha)
    return [] if conv == rank and conv_alpha == alpha else [group]


def _blocks(sheet: ConfigTranslation, rank: int, alpha: float) -> list[dict[str, Any]]:
    """`block_dims`, `block_alphas` and rates of blocks, as groups."""
    keys = [f"network_args.{name}" for name in BLOCKS]
    lists = [numbers(sheet.get(key)) if sheet.given(key) else [] for key in keys]
    dims, alphas, down, middle, up = lists
    rates: list[float] = []
    if max(len(down), len(up)) == 9 or len(middle) == 3:  # SDXL: 9 + 3 + 9, and the outermost two
        rates = [1.0, *(down or [1.0] * 9), *(middle or [1.0] * 3), *(up or [1.0] * 9), 1.0]
    elif down or middle or up:
        rates = [*(down or [1.0] * 12), *(middle or [1.0]), *(up or [1.0] * 12)]
    count, problem, patterns = len(dims) or len(rates), "", tuple[str, ...]()
    try:
        patterns = tuple(block_patterns("unet", count)) if count else ()
    except NetworkError as error:
        problem = str(error)
    sound = bool(patterns) and len(rates) in (0, count) and len(alphas) in (0, count)
    for key, values in zip(keys, lists, strict=True):
        if not sheet.get(key):
            sheet.honoured(key)
        elif sound and values:
            sheet.note(key, "translated", "one group a block", "network.groups")
        else:
            sheet.refused(key, problem or "names of curves are not read; give a number for each block")
    apply(sheet, [(_arguments_named(BLOCK_OPTIONS), missing("blocks have one rank for all their layers here"))])
    layers = preset_pattern("unet", "kohya")
    return [
        common.group(
            f"^(?=lora_unet_)(?=.*?(?:{layers}))(?=.*?(?:{pattern}))",
            int(dims[index]) if dims else rank,
            alphas[index] if alphas else alpha,
            rates[index] if rates else 1.0,
        )
        for index, pattern in enumerate(patterns if sound else ())
    ]


def _layer_set(sheet: ConfigTranslation, key: str, value: Any) -> None:
    """LyCORIS' set of layers by name; one that has none here stays open."""
    if str(value) in LAYER_SETS and sheet.read("network.unet_targets") != "none":
        sheet.translated(key, "network.unet_targets", LAYER_SETS[str(value)], "LyCORIS' set of layers")
        if str(value) == "unet-transformer-only":
            sheet.put("network.te_targets", "none")


def _option(sheet: ConfigTranslation, key: str, value: Any) -> None:
    """An argument that we do not have; values in lists of arguments are text."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        value = value.lower() == "true"
    elif not isinstance(value, bool) and number(value) is not None:
        value = number(value)
    _NO_OPTION(sheet, key, value)


def _dim_from_weights(sheet: ConfigTranslation, key: str, value: Any) -> None:
    """Ranks, alphas and layers of `network_weights`, whatever else is set."""
    if not flag(value):
        sheet.honoured(key, OFF)
    elif sheet.given("network_weights"):
        sheet.translated(key, "start.network", "as-stored", "the file's own ranks and alphas")
    else:
        sheet.honoured(key, "there is no file to take them from")


def _lora_plus(sheet: ConfigTranslation, key: str, value: Any) -> None:
    """LoRA+: one factor for all parts here. The U-Net's, where there is one for each."""
    ratio = number(value)
    if not ratio:
        sheet.honoured(key, OFF)
    elif key.endswith("loraplus_text_encoder_lr_ratio") and ratio != sheet.read("network.up_lr_factor"):
        sheet.refused(key, "one factor holds for all parts: network.up_lr_factor")
    else:
        fault = sheet.put("network.up_lr_factor", ratio)
        sheet.note(key, "not supported" if fault else "taken", fault, f"network.up_lr_factor = {ratio:g}")


def _trained(sheet: ConfigTranslation) -> None:
    """What is trained: one embedding (train_textual_inversion.py), or a network."""
    if not sheet.given("token_string"):
        _network(sheet)
        sheet.remark(
            "kohya trains no embeddings beside a network: choose them on the Data page, or keep the network alone."
        )
        return
    sheet.put("network.algorithm", "none")
    sheet.put("embeddings_common.control", "none")
    keys = ("token_string", "num_vectors_per_token", "init_word", "weights")
    sheet.put("embeddings", [common.take_embedding(sheet, (), keys, "")[0]])
    sheet.own("learning_rate", "embeddings_common.lr", sheet.number("learning_rate"), DEFAULT_RATE)
    apply(sheet, EMBEDDING)


def _prodigy(sheet: ConfigTranslation) -> None:
    if sheet.read("schedule.optimizer") == "prodigy":
        sheet.remark(
            "Prodigy needs one learning rate for all parts: set embeddings, U-Net and text encoder alike, to 1."
        )


# ---- noise, pictures and captions ----


def _noise(sheet: ConfigTranslation) -> None:
    """Noise offset or pyramid: the GUI has a switch between them."""
    kind = str(sheet.get("noise_offset_type", "")).lower() if sheet.dialect == "gui" else ""
    for key in ("noise_offset", "multires_noise_iterations", "multires_noise_discount") if kind else ():
        if kind != ("original" if key == "noise_offset" else "multires"):
            sheet.honoured(key, f"not used: noise_offset_type is {kind}")


def _min_snr(sheet: ConfigTranslation, key: str, value: Any) -> None:
    sheet.put("loss.weighting", "min_snr")
    sheet.taken(key, "loss.snr_gamma", number(value), "loss.weighting = min_snr")


def _pictures(sheet: ConfigTranslation) -> None:
    """Folders, size and buckets."""
    if folder := sheet.get("train_data_dir"):
        place = common.place_of(sheet.origin, folder)
        sheet.taken("train_data_dir", "data.folder", place, "folders N_name count N times, as there")
    if beside := sheet.get("reg_data_dir"):
        sheet.taken("reg_data_dir", "regularisation.folder", common.place_of(sheet.origin, beside))
        batch = sheet.read("schedule.batch_size")
        sheet.default("batch of regularisation", "regularisation.batch_size", batch, "one for one")
        sheet.remark(
            "kohya mixes regularisation pictures into the batch, one for one; here they come beside it: half of "
            "kohya's steps see as many of your own pictures."
        )
    side, why = common.resolution_of(sheet.get("resolution"))
    if side is None:
        sheet.honoured("resolution", "512 px")
    elif why and not sheet.flag("enable_bucket"):
        sheet.put("data.resolution_px", side)
        sheet.refused("resolution", f"one size that is no square: buckets of about {side} px instead")
    else:
        to("data.resolution_px", lambda _: side, why)(sheet, "resolution", sheet.get("resolution"))
    sheet.own("enable_bucket", "data.bucketing", sheet.flag("enable_bucket"), False)
    if why:
        sheet.put("data.bucketing", True)


def _cut(sheet: ConfigTranslation) -> None:
    key, tokens = "max_token_length", whole(sheet.get("max_token_length"))
    if tokens in (75, 150, 225):
        sheet.taken(key, "data.max_tokens", tokens, "longer captions lose their end")
    elif tokens is not None:
        sheet.refused(key, "kohya knows 75, 150 and 225 tokens; captions are not cut here")
    else:
        sheet.honoured(key, f"75 tokens, {USUAL}")
        sheet.default(key, "data.max_tokens", 75, f"{USUAL}: longer captions lose their end")


def _described(sheet: ConfigTranslation) -> None:
    """kohya's own dataset file, whose tables come before the flags: last of all."""
    path = sheet.origin.find(sheet.get("dataset_config"))
    if path is not None:
        why = "the Data page reads kohya's file itself, repeats and all"
        sheet.taken("dataset_config", "data.folder", str(path), why)
    if sheet.described is not None:
        common.take_described(sheet, *sheet.described, "dataset_config")


# ---- saving ----


def _intervals(sheet: ConfigTranslation) -> None:
    """Intervals in steps or in epochs."""
    for what, path in (("save", "saving.every_steps"), ("sample", "saving.sample_every_steps")):
        key, epochs_key = f"{what}_every_n_steps", f"{what}_every_n_epochs"
        steps, epochs, each = sheet.whole(key), sheet.whole(epochs_key), sheet.epoch_steps
        beyond = epochs >= sheet.epochs if sheet.epochs else each and epochs * each >= sheet.read("schedule.max_steps")
        if steps > 0:
            sheet.taken(key, path, steps)
            sheet.honoured(epochs_key, "the interval in steps counts" if epochs > 0 else OFF)
            continue
        sheet.honoured(key)
        if epochs <= 0:
            sheet.honoured(epochs_key)
        elif beyond:
            sheet.honoured(epochs_key, "beyond the run's end; at the end a file is saved anyway")
        else:
            common.take_interval(sheet, epochs_key, epochs, path)


def _prompts(sheet: ConfigTranslation, key: str, written: Any) -> None:
    """Prompts from a file, or in the GUI as text; `--w 512` and the like behind them are left away."""
    path = sheet.origin.find(written) if "\n" not in str(written) else None
    if path is not None and path.suffix.lower() == ".txt":
        written = read_bytes(path).decode("utf-8", "replace")
    elif written and sheet.dialect != "gui":
        sheet.refused(key, "this file is not here; write the prompts into saving.sample_prompts")
        return
    if not written:
        sheet.honoured(key, "none")
    else:
        lines = (re.split(r"\s--[a-z]\b", line)[0].strip() for line in str(written).splitlines()[:50])
        prompts = [line for line in lines if line and not line.startswith("#")]
        sheet.translated(key, "saving.sample_prompts", prompts, "sizes, seeds and negatives are the page's own")


# ---- keys that stand alone ----


def _zero(value: Any) -> float:
    return number(value) or 0.0


def _int(value: Any) -> int | None:
    return 0 if value in ("", None, False) else whole(value)


def _text(value: Any) -> str:
    return str(value or "")


def _arguments_named(names: Sequence[str]) -> str:
    return " ".join(f"network_args.{name}" for name in names)


def _folder(sheet: ConfigTranslation, key: str, value: Any) -> None:
    if value and not sheet.read("data.folder"):
        sheet.taken(key, "data.folder", str(value))
    else:
        sheet.honoured(key, "none")


def _crop(which: str) -> Rule:
    why = "which part stays; for several cuts a picture see data.crops"
    return turned("data.crop", lambda value: None if value in (None, "", False) else which, why)


_NO_BLOCKS = missing("this kind of network has no blocks here", (None, "", 0, "0"))
_NO_OPTION = missing("this option of the network is not here", (None, "", False, 0, "0", "False", "0.0"))
_OFF = when(lambda value: not flag(value), holds())
_ONE = (None, "", 1, 1.0)


# fmt: off
NETWORK: Table = (
    *((_arguments_named(theirs.split()), common.kind_option(ours)) for theirs, ours in KIND_OPTIONS.items()),
    ("network_dropout", to("network.dropout", _zero, off=OFF)),
    ("network_args.rank_dropout", to("network.rank_dropout", _zero, off=OFF)),
    ("scale_weight_norms", to("network.max_norm", _zero, off=OFF)),
    ("network_train_unet_only network_train_text_encoder_only", holds("taken into account")),
    under(lambda sheet: sheet.dialect != "gui", [("unit factor constrain train_blocks",)],
          "an option of kinds of network that are not here"),
    ("network_args.preset network_args.LyCORIS_preset", _layer_set,
     missing("LyCORIS' layer sets have no names here; all layers", (None, "", "full"))),
    (_arguments_named(LORA_PLUS), _lora_plus),
    (_arguments_named((*OPTIONS, "factor", "constrain", "unit")), _option),
    (_arguments_named((*BLOCKS, *BLOCK_OPTIONS)), _NO_BLOCKS),
    ("network_args.*", missing("this option of the network is not here")),
)
"""What a network may have besides its kind, layers, ranks and rates."""
EMBEDDING: Table = (
    ("template use_object_template use_style_template",
     missing("write templates into data.templates, the embedding as {word}; captions are used until then",
             (None, "", False, "caption"), told="captions are used")),
)

HUBER: Table = (
    ("huber_c", when(number, to("loss.huber_delta", number)), missing("the threshold has no further scale", _ONE)),
    ("huber_scale", missing("the threshold has no further scale", _ONE)),
    ("huber_schedule",
     among((None, "", "snr"), holds("the threshold follows the signal-to-noise ratio, as here")),
     to("loss.huber_schedule")),
)

TABLE: Table = (
    # what several keys decide together
    _length,
    ("max_train_steps max_train_epochs epoch", holds("not used")),
    _optimizer,
    _course,
    ("lr_warmup", holds()),
    ("lr_scheduler_min_lr_ratio", to("schedule.final_factor", _zero, off=OFF)),
    ("lr_scheduler_num_cycles", missing("", _ONE, at="schedule.lr_scheduler_cycles", told="one, as here")),
    ("lr_scheduler_power", missing("", _ONE, at="schedule.lr_scheduler_power", told="")),
    _noise,
    ("noise_offset", to("noise.offset", _zero, off=OFF)),
    ("multires_noise_iterations", to("noise.multires_iterations", lambda value: int(_zero(value)), off=OFF)),
    ("multires_noise_discount", to("noise.multires_discount", _zero, off=OFF)),
    ("noise_offset_type", holds("taken into account")),
    ("min_snr_gamma", when(number, _min_snr), holds()),
    ("debiased_estimation_loss", _OFF,
     where(lambda sheet: sheet.number("min_snr_gamma"), refuse("one weighting a run; min-SNR was taken")),
     turned("loss.weighting", lambda _: "debiased", "a weighting here")),
    ("loss_type", among((None, "", [], 0, False), holds("", "loss.kind = mse")),
     choice("loss.kind", LOSSES, "mse", "there is no such loss here; the squared error instead")),
    under(lambda sheet: sheet.read("loss.kind") in ("huber", "smooth_l1"), HUBER, "of no effect on this loss"),
    _pictures,
    ("bucket_no_upscale", to("data.upscale", lambda value: not flag(value), default=True)),
    ("flip_aug", to("data.flip", flag, default=False)),
    ("reg_data_dir", holds("no set beside")),
    ("alpha_mask", _OFF,
     turned("data.transparency", lambda _: "mask", "transparent pixels are masked away")),
    ("masked_loss", _OFF,
     also("data.mask_normalise", False,
          turned("data.masks", lambda _: "linear", "not scaled; put masks into `mask/` beside the pictures"))),
    ("shuffle_caption", to("data.shuffle_tags", flag, default=False)),
    ("enable_wildcard", to("data.wildcards", flag, default=False)),
    ("weighted_captions", to("data.emphasis", flag, default=False)),
    _cut,
    ("keep_tokens_separator", to("data.keep_separator", _text, off="none is used")),
    ("clip_skip", to("clip_skip", _int, off="the last layer, as Clip skip 1")),
    _described,
    ("output_name", when(given, common.take_name), holds("give the file a name")),
    ("save_precision", when(given, common.precision("saving.dtype")), holds("fp16")),
    _intervals,
    ("save_state save_state_on_train_end", holds("the state is saved every saving.state_every_steps steps")),
    ("sample_prompts", _prompts),
    _trained,
    _prodigy,
    # each for itself
    ("seed", when(lambda value: (number(value) or 0) >= 0 and whole(value) is not None, to("seed", whole)),
     holds("by chance there; here it is a number")),
    ("mixed_precision", common.precision("memory.precision")),
    ("gradient_checkpointing", to("memory.gradient_checkpointing", flag)),
    ("keep_tokens", to("data.keep_first", _int)),
    ("caption_dropout_rate", to("data.caption_dropout", _zero)),
    ("caption_tag_dropout_rate", to("data.tag_dropout", _zero, "embeddings are never dropped here")),
    ("caption_dropout_every_n_epochs", to("data.caption_dropout_epochs", _int)),
    ("caption_prefix", to("data.prefix", _text)),
    ("caption_suffix", to("data.suffix", _text)),
    ("token_warmup_step", to("data.caption_warmup_steps", _zero)),
    ("token_warmup_min", to("data.caption_warmup_tags", whole)),
    ("ip_noise_gamma", to("noise.perturbation", _zero)),
    ("noise_offset_random_strength", to("noise.random_offset", flag, off=OFF)),
    ("ip_noise_gamma_random_strength", to("noise.random_perturbation", flag, off=OFF)),
    ("adaptive_noise_scale", to("noise.adaptive_offset", _zero, off=OFF)),
    ("scale_v_pred_loss_like_noise_pred", to("loss.scale_v_like_noise", flag, off=OFF)),
    ("zero_terminal_snr", to("noise.zero_terminal_snr", flag)),
    ("min_timestep", to("noise.timestep_min", lambda value: _int(value) or 0, off="not limited")),
    ("max_timestep", to("noise.timestep_max", lambda value: _int(value) or 0, off="not limited")),
    ("prior_loss_weight", to("regularisation.weight", number)),
    ("bucket_reso_steps", to("data.bucket_step_px", whole)),
    ("random_crop", _crop("random")),
    ("face_crop_aug_range", _crop("face")),  # the one that counts where both are on
    ("image_folder", _folder),
    ("sd3_checkbox flux1_checkbox", unless(flag, "only SD1, SD2 and SDXL train here; what fits them was taken")),
    # what is not here
    ("caption_separator",
     missing("tags are separated by commas here", (",", *EMPTY), told="tags are separated by commas, as here")),
    ("caption_extension caption_extention",
     missing("captions are found in .txt, .caption and .json files; rename them", (".txt", ".caption", *EMPTY),
             told="captions in .txt and .caption files are found")),
    ("dataset_config in_json",
     missing("this description of datasets is not here; give its file or its folder as data.folder", EMPTY,
             told="none")),
    ("additional_parameters", missing("its flags are lines of their own", EMPTY)),
    ("dataset_repeats", missing("repeats stand in the folders' names", (None, "", "1", 1))),
    ("lr_scheduler", missing("the LR scheduler is constant", (None, "", "constant"))),
    ("num_vectors_per_token", missing("used where an embedding is trained", (None, "", 1, "1"))),
    (" ".join((*BLOCKS, *BLOCK_OPTIONS, "conv_dims", "conv_alphas")), _NO_BLOCKS),
    ("network_weights script.network_weights", common.begin_from),
    ("dim_from_weights", _dim_from_weights),
    ("network_args", missing("these options of the network are not here", EMPTY)),
    ("optimizer_args", missing("this list of options cannot be read")),
    ("optimizer_args.*", _optimizer_option),
    *each(missing, {
        "init_word weights": "used where an embedding is trained",
        "dataset_class": "a dataset of your own code cannot be read",
        "vae": "the VAE is the one that the web UI has loaded",
        "v_pred_like_loss": "there is no such addition to the loss",
        "color_aug": "colours are not changed",
        "secondary_separator": "tags are separated by commas alone",
        "full_fp16 full_bf16": "embeddings and network are fp32, the checkpoint as it is",
        "fp8_base fp8_base_unet": "a checkpoint in fp8 cannot be trained on",
        "base_weights base_weights_multiplier": "merge it into the checkpoint first",
        "resume": "states of other trainers cannot be gone on from",
        "initial_epoch initial_step skip_until_initial_step": "a run begins at its start",
        "lr_scheduler_type": "an LR scheduler built by class cannot be read; set schedule.lr_scheduler",
        "lr_scheduler_args.*": "options of a scheduler are not read",
        "lr_decay_steps": "the LR scheduler has no separate phase at the end",
        "lr_scheduler_timescale": "this option of the scheduler is not supported",
        "stop_text_encoder_training stop_text_encoder_training_pct":
            "kohya's LoRA script ignores it; see schedule.te_stop",
        "validation_split": "set validation.share and validation.every_steps",
        "use_8bit_adam use_lion_optimizer": "the optimiser that is named was taken",
        "no_token_padding": "text is padded as the web UI does it",
        "network_module": "there is no network in these settings",
        "save_every_n_epochs": "set saving.every_steps",
        "train_text_encoder": "see network.te_targets",
        "train_inpainting": "masks of an inpainting checkpoint are the pictures' mask files",
        "train_data_dir": "give the folder as data.folder",
        "conditioning_data_dir": "put masks into `mask/` beside the pictures",
        "use_object_template use_style_template": "write templates into data.templates",
        "split_mode": "this option of the network is not here",
        "network_alpha": "kohya's own default: 1",
    }),
    # what does not concern training
    *each(aside, {
        "resize_interpolation": "pictures are resized by Lanczos",
        "max_bucket_reso min_bucket_reso": "as far as the pictures' shapes go",
        "xformers sdpa mem_eff_attn torch_compile dynamo_backend dynamo_mode dynamo_use_dynamic dynamo_use_fullgraph "
        "lowram highvram lowvram no_half_vae script.no_half_vae cache_latents cache_latents_to_disk vae_batch_size "
        "skip_cache_check cache_info cache_text_encoder_outputs cache_text_encoder_outputs_to_disk "
        "script.cache_text_encoder_outputs sdxl_cache_text_encoder_outputs text_encoder_batch_size "
        "disable_mmap_load_safetensors fused_backward_pass max_data_loader_n_workers persistent_data_loader_workers "
        "cpu_offload_checkpointing deepspeed zero_stage offload_optimizer_device offload_optimizer_nvme_path "
        "offload_param_device offload_param_nvme_path zero3_init_flag zero3_save_16bit_model "
        "fp16_master_weights_and_gradients ddp_gradient_as_bucket_view ddp_static_graph ddp_timeout mem_eff_save "
        "fused_optimizer_groups blockwise_fused_optimizers blocks_to_swap use_safetensors split_attn":
            "speed or memory; the web UI's own settings hold here",
        "pretrained_model_name_or_path tokenizer_cache_dir model_list revision console_log_level console_log_file "
        "console_log_simple debug_dataset": "the checkpoint is used as the web UI has loaded it",
        "v2 v_parameterization sdxl sdxl_checkbox": "what the checkpoint predicts is found out from it",
        "logging_dir log_with log_prefix log_tracker_name log_tracker_config wandb_run_name wandb_api_key log_config "
        "use_wandb validation_seed validate_every_n_steps validate_every_n_epochs max_validation_steps":
            "logs of the other trainer",
        "huggingface_repo_id huggingface_repo_type huggingface_path_in_repo huggingface_token "
        "huggingface_repo_visibility save_state_to_huggingface resume_from_huggingface async_upload":
            "uploading is not part of training",
        "num_machines num_cpu_threads_per_process multi_gpu gpu_ids main_process_port extra_accelerate_launch_args "
        "config_file output_config num_processes headless print_only":
            "how the other trainer's processes are started",
        "output_dir save_model_as save_as_bool save_last_n_epochs save_last_n_epochs_state save_last_n_steps "
        "save_last_n_steps_state save_n_epoch_ratio no_metadata sample_at_first sample_sampler":
            "files have places and names of their own here",
        "training_comment metadata_*": "what a file tells of itself is edited on the page of bundles",
        "ae apply_t5_attn_mask clip_g clip_l discrete_flow_shift double_blocks_to_swap single_blocks_to_swap "
        "guidance_scale logit_mean logit_std mode_scale weighting_scheme model_prediction_type t5xxl t5xxl_device "
        "t5xxl_dtype t5xxl_lr t5xxl_max_token_length timestep_sampling save_clip save_t5xxl train_blocks unit "
        "img_attn_dim img_mlp_dim img_mod_dim in_dims single_dim single_mod_dim txt_attn_dim txt_mlp_dim txt_mod_dim "
        "train_double_block_indices train_single_block_indices batch_size clip_g_dropout_rate clip_l_dropout_rate "
        "t5_dropout_rate t5_max_token_length model_type pos_emb_random_crop_rate train_lora_ggpo show_timesteps "
        "show_timesteps_resolution enable_all_linear split_qkv train_t5xxl sigmoid_scale create_caption "
        "create_buckets generate_caption_database generate_image_buckets caption_metadata_filename "
        "latent_metadata_filename full_path train_dir use_latent_files learning_rate_te learning_rate_te1 "
        "learning_rate_te2 anima_* hunyuan_* lumina_* flux1_* flux_* sd3_* chroma_* qwen_*":
            "for other families of checkpoints, or pages of the GUI that are not about this run",
    }),
)
# fmt: on
