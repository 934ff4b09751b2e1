"""kohya's sd-scripts (`--config_file` TOML of train_network.py, sdxl_train_network.py, train_textual_inversion.py), the
JSON of bmaltais' GUI around them, which has names of its own, and the TOML of LoRA_Easy_Training_Scripts, which has
tables of its own. Meanings: sd-scripts 48d368f, kohya_ss 45088f0.

The readers give one flat table of the scripts' own flags; `network_args` and their like are keys below it.
networks/lora.py gives adapters to all linear layers and 1×1 convolutions of the transformers, 192 in SD1, and with
`conv_dim` also to resnets and resamplers; dim is 4 and alpha 1 where none is written.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lib_pivotal.config_schema import asked
from lib_pivotal.errors import NetworkError
from lib_pivotal.importing import common
from lib_pivotal.importing.kohya_dataset import easy_arguments
from lib_pivotal.importing.reading import Origin, flag, number, numbers, read_bytes, whole
from lib_pivotal.importing.report import shown
from lib_pivotal.importing.translation import (
    OFF,
    ConfigTranslation,
    Rule,
    Table,
    apply,
    aside,
    choices,
    holds,
    missing,
    refuse,
    to,
    turned,
    unless,
)
from lib_pivotal.networks.targets import SPATIAL_CONVOLUTION, block_patterns, preset_pattern

TITLE, GUI_TITLE, EASY_TITLE = "kohya settings", "kohya GUI settings", "LoRA_Easy_Training_Scripts settings"
DEFAULT_STEPS = 1600
DEFAULT_RATE = 2e-6
DEFAULT_DIM = 4
DEFAULT_ALPHA = 1.0
MOST_ARGUMENTS = 200
_OWN = "kohya's own default"

GUI_NAMES = {
    "optimizer": "optimizer_type",
    "max_resolution": "resolution",
    "lora_network_weights": "network_weights",
    "sdxl_no_half_vae": "no_half_vae",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
}
"""GUI -> script; all other keys that both have are called alike."""
EASY_NAMES = {"batch_size": "train_batch_size", "warmup_ratio": "lr_warmup_steps"}
EASY_SHARED = (
    "resolution batch_size enable_bucket bucket_no_upscale bucket_reso_steps min_bucket_reso max_bucket_reso".split()
)
"""What Easy's dataset file holds and the scripts know as flags, too."""
KINDS = {"locon": "lora", "lora": "lora", "loha": "loha", "lokr": "lokr", "diag-oft": "oft", "boft": "boft"}
"""LyCORIS' `algo` -> kind of network."""
GUI_KINDS = {
    **dict.fromkeys(("Standard", "LoRA", "Kohya LoCon", "LyCORIS/LoCon"), "lora"),
    **dict.fromkeys(("LyCORIS/LoHa", "LoHa"), "loha"),
    **dict.fromkeys(("LyCORIS/LoKr", "LoKr"), "lokr"),
    "LyCORIS/Diag-OFT": "oft",
}
"""A GUI's LoRA_type -> kind of network; others have none here."""
LOSSES = {"l2": "mse", "l1": "l1", "huber": "huber", "smooth_l1": "smooth_l1"}
ARGUMENT_LISTS = ("network_args", "optimizer_args", "lr_scheduler_args")
OPTIONS = (
    "module_dropout use_tucker use_cp use_scalar rank_dropout_scale decompose_both train_norm rescaled constraint "
    "bypass_mode dora_wd block_size full_matrix train_on_input split_mode split_qkv loraplus_lr_ratio "
    "loraplus_unet_lr_ratio loraplus_text_encoder_lr_ratio ggpo_beta ggpo_sigma verbose scale"
).split()
"""Arguments of networks that are not here."""
BLOCK_ARGUMENTS = (
    "block_dims block_alphas down_lr_weight mid_lr_weight up_lr_weight conv_block_dims conv_block_alphas "
    "block_lr_zero_threshold block_lr"
).split()
ARGUMENTS = ("algo", "conv_dim", "conv_alpha", "rank_dropout", "preset", "LyCORIS_preset", *BLOCK_ARGUMENTS, *OPTIONS)
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
    return _translate(ConfigTranslation(expanded(flat(plain)), origin))


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
    return _translate(ConfigTranslation(flags, origin, names=names, dialect="gui"))


def import_easy(plain: Mapping[str, Any], origin: Origin) -> ConfigTranslation:
    """As the scripts' flags; its `[[subsets]]` are read by a scan of the same file."""
    flags = easy_arguments(plain, "args")
    flags |= {key: value for key, value in easy_arguments(plain, "dataset_args").items() if key in EASY_SHARED}
    found = {EASY_NAMES.get(key, key): value for key, value in flags.items() if key not in EASY_NAMES or value}
    if plain.get("subsets"):
        found["dataset_config"] = origin.name
    sheet = _translate(ConfigTranslation(expanded(found), origin))
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


def _given(sheet: ConfigTranslation, name: str) -> Any:
    """The flag's value; None where it is missing or empty."""
    value = sheet.get(name)
    return None if value in ("", []) else value


def _number(sheet: ConfigTranslation, name: str) -> float | None:
    return number(_given(sheet, name))


def _argument(sheet: ConfigTranslation, name: str) -> Any:
    return sheet.get(f"network_args.{name}")


def _has_network(found: Mapping[str, Any]) -> bool:
    return any(key in found for key in ("network_module", "network_dim", "LoRA_type", "network_args"))


def _take_flag(sheet: ConfigTranslation, key: str, path: str, value: Any, default: Any) -> None:
    """A flag as it is, or kohya's default where the file has none."""
    if _given(sheet, key) is not None:
        sheet.taken(key, path, value)
    else:
        sheet.honoured(key, _OWN, f"{path} = {default}")
        sheet.default(key, path, default, _OWN)


# ---- length, optimiser, LR scheduler ----


def _length(sheet: ConfigTranslation) -> None:
    """Batch, steps, and epochs where the pictures can be counted."""
    batch, accumulation, processes = (
        max(whole(_given(sheet, key)) or 1, 1)
        for key in ("train_batch_size", "gradient_accumulation_steps", "num_processes")
    )
    _take_flag(sheet, "train_batch_size", "schedule.batch_size", batch, 1)
    if processes > 1:
        path, each = "schedule.accumulation", accumulation * processes
        sheet.translated("num_processes", path, each, "once for each GPU")
        sheet.note("gradient_accumulation_steps", "translated", "× GPUs", path)
    else:
        _take_flag(sheet, "gradient_accumulation_steps", "schedule.accumulation", accumulation, 1)
        sheet.honoured("num_processes", "one process, as here")
    steps, epochs = (whole(_given(sheet, key)) or 0 for key in ("max_train_steps", "max_train_epochs"))
    key = "max_train_epochs" if epochs or sheet.dialect != "gui" else "epoch"
    if key == "epoch" and not steps:
        epochs = whole(sheet.get("epoch")) or 0
    reading = sheet.described[0] if sheet.described else None
    if reading is not None and (own := reading.settings.get("schedule.batch_size")):
        sheet.put("schedule.batch_size", own)  # the dataset file's tables come before the flags
    folder = sheet.origin.find(_given(sheet, "train_data_dir"))
    draws = common.draws_an_epoch(reading)
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
        sheet.default("max_train_steps", "schedule.max_steps", DEFAULT_STEPS, _OWN)
    sheet.epoch_steps = sheet.epoch_steps or math.ceil(draws / common.pictures_a_step(sheet))


def _optimizer(sheet: ConfigTranslation) -> None:
    """Optimiser, its decay and the limit of gradients."""
    embeddings = _given(sheet, "token_string") is not None
    key = "optimizer_type"
    written = _given(sheet, key)
    if not written and (other := next((one for one in ("use_8bit_adam", "use_lion_optimizer") if sheet.flag(one)), "")):
        ours = common.set_optimizer(sheet, other, "AdamW8bit" if other == "use_8bit_adam" else "Lion")
    elif written:
        ours = common.set_optimizer(sheet, key, written)
    else:
        ours = "adamw"
        sheet.default(key, "schedule.optimizer", ours, _OWN)
        sheet.honoured(key, "kohya's own default: AdamW")
    path, key = (
        "embeddings_common.weight_decay" if embeddings else "network.weight_decay",
        "optimizer_args.weight_decay",
    )
    decay = number(sheet.get(key))
    if decay is not None:
        sheet.taken(key, path, decay)
    else:
        sheet.default(key, path, common.WEIGHT_DECAY.get(ours, 0.01), "the optimiser's own default")
    for name in ("relative_step", "scale_parameter", "warmup_init") if ours == "adafactor" else ():
        if flag(sheet.get(f"optimizer_args.{name}")) is False:
            sheet.honoured(f"optimizer_args.{name}", "Adafactor with its own learning rates, as here")
    _optimizer_options(sheet, ours)
    norm = _number(sheet, "max_grad_norm")
    for limit in ("schedule.clip_network", *(("schedule.clip_embeddings",) if embeddings else ())):
        _take_flag(sheet, "max_grad_norm", limit, norm, 1.0)


def _optimizer_options(sheet: ConfigTranslation, optimizer: str) -> None:
    """`optimizer_args` that the optimiser has here, too."""
    known, lines = asked("training.optimizers:option_names", optimizer), list[str]()
    for key in sheet.open_under("optimizer_args"):
        name = key.partition(".")[2]
        value = option_value(sheet.get(key))
        if name in known and value is not None:
            lines.append(f"{name} = {json.dumps(value)}")
            sheet.note(key, "taken", "", f"schedule.optimizer_options: {lines[-1]}")
    if lines:
        sheet.put("schedule.optimizer_options", lines)


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
    name = _given(sheet, "lr_scheduler")
    if name:
        common.set_rate(sheet, "lr_scheduler", name)
    else:
        sheet.default("lr_scheduler", "schedule.lr_scheduler", "constant", _OWN)
    key, warmup = "lr_warmup_steps", _number(sheet, "lr_warmup_steps") or 0.0
    per_cent = number(sheet.get("lr_warmup")) if sheet.dialect == "gui" else None
    plain = str(name or "constant").lower()
    if plain in ("constant", "adafactor"):
        sheet.honoured((key, "lr_warmup"), "this scheduler has no warm-up")
    elif per_cent and not warmup:
        common.take_warmup(sheet, "lr_warmup", per_cent / 100, "per cent of the run's steps")
        sheet.honoured(key, "the per cent count")
    else:
        if 0 < warmup < 1:
            common.take_warmup(sheet, key, warmup, "a fraction of the run's steps")
        else:
            sheet.taken(key, "schedule.warmup_steps", int(warmup))
        sheet.honoured("lr_warmup")
    if lowest := _number(sheet, "lr_scheduler_min_lr_ratio"):
        sheet.taken("lr_scheduler_min_lr_ratio", "schedule.final_factor", lowest)
    for key, scheduler, one, where, why in (
        ("lr_scheduler_num_cycles", "cosine_with_restarts", "one, as here", "schedule.lr_scheduler_cycles",
         "restarts keep their own number here"),
        ("lr_scheduler_power", "polynomial", "", "schedule.lr_scheduler_power", "the power is 1 here, a straight line"),
    ):  # fmt: skip
        value = _number(sheet, key)
        if plain != scheduler:
            sheet.honoured(key, "of no effect on this scheduler")
        else:
            missing(why, (None, 1.0), at=where, told=one)(sheet, key, value)


# ---- network ----


def _network(sheet: ConfigTranslation) -> None:
    """Kind, layers, ranks, alphas and rates."""
    if not _has_network(sheet.plain):
        _whole_checkpoint(sheet)
        return
    kind, lycoris = _kind(sheet)
    dim, alpha = whole(_given(sheet, "network_dim")), _number(sheet, "network_alpha")
    if dim:
        sheet.taken("network_dim", "network.unet_rank", dim)
    else:
        sheet.default("network_dim", "network.unet_rank", DEFAULT_DIM, _OWN)
        sheet.honoured("network_dim", "kohya's own default: 4")
    rank = int(sheet.read("network.unet_rank"))
    if alpha is not None and alpha > 0:
        sheet.taken("network_alpha", "network.unet_alpha", alpha)
    elif alpha == 0:
        sheet.translated("network_alpha", "network.unet_alpha", float(rank), "kohya takes the rank for 0")
    else:
        sheet.default("network_alpha", "network.unet_alpha", DEFAULT_ALPHA, _OWN)
    unet_alpha = float(sheet.read("network.unet_alpha"))
    sheet.put("network.te_rank", rank)
    sheet.put("network.te_alpha", unet_alpha)
    train_unet, train_text = _rates(sheet)
    groups = _blocks(sheet, rank, unet_alpha) if kind == "lora" else []
    groups += _spatial(sheet, rank, unet_alpha, lycoris=lycoris)
    if not train_unet:
        sheet.put("network.unet_targets", "none")
    sheet.put("network.te_targets", "attention+mlp" if train_text else "none")
    _second_encoder(sheet, first=train_text)
    if groups and (fault := sheet.put("network.groups", groups)):
        sheet.remark(f"The groups of layers could not be taken over: network.groups {fault}.")
    apply(sheet, NETWORK)


def _whole_checkpoint(sheet: ConfigTranslation) -> None:
    """DreamBooth and fine-tuning."""
    sheet.remark(
        "These settings train the checkpoint's own weights. That is not what this is for: a network of the usual size "
        "was set instead, with these pictures, captions and steps."
    )
    keys = "learning_rate unet_lr text_encoder_lr learning_rate_te learning_rate_te1 learning_rate_te2".split()
    sheet.refused(keys, "a learning rate for full fine-tuning does not fit a network; ours stays")


def _kind(sheet: ConfigTranslation) -> tuple[str, bool]:
    """(kind of network, whether LyCORIS makes it)."""
    gui_type, algo = _given(sheet, "LoRA_type"), _argument(sheet, "algo")
    module = str(_given(sheet, "network_module") or "networks.lora")
    key, lycoris = "network_module", "lycoris" in module
    if gui_type is not None:
        key, named = "LoRA_type", str(gui_type)
        wanted = GUI_KINDS.get(named, "") or common.kind_of({}, named.rpartition("/")[2])
        lycoris = str(gui_type).startswith("LyCORIS")
        sheet.honoured("network_module", "follows from LoRA_type")
    elif lycoris:
        key = "network_args.algo" if sheet.has("network_args.algo") else key
        wanted = common.kind_of(KINDS, str(algo or "locon"))
        sheet.honoured("network_module", "LyCORIS")
    else:
        wanted = common.kind_of({name: name for name in ("lora", "loha", "lokr")}, module.rpartition(".")[2])
    dora = _argument(sheet, "dora_wd")
    if str(dora).lower() in ("true", "1") and wanted == "lora":
        wanted = "dora"
    why = f"the same kind of network is called {wanted} here"
    common.set_kind(sheet, key, wanted, why, shown(gui_type or algo or module))
    if dora is not None and wanted in ("lora", "dora"):
        sheet.honoured("network_args.dora_wd", f"network.algorithm = {wanted}")
    return ("lora" if wanted in ("lora", "dora", "") else wanted), lycoris


def _rates(sheet: ConfigTranslation) -> tuple[bool, bool]:
    """Rates of U-Net and text encoder; returns whether each is trained."""
    common_rate, unet = _number(sheet, "learning_rate"), _number(sheet, "unet_lr")
    text = next(iter(_text_rates(sheet)), None)
    only_unet, only_text = sheet.flag("network_train_unet_only"), sheet.flag("network_train_text_encoder_only")
    if sheet.dialect == "gui" and unet == 0 and text == 0:
        unet = text = None
    elif sheet.dialect == "gui":  # resolve_network_train_flags: a rate of 0 leaves its part out
        only_unet, only_text = only_unet or text == 0, only_text or unet == 0
    common_rate = DEFAULT_RATE if common_rate is None else common_rate
    parts = (("unet_lr", "network.unet_lr", unet, only_text), ("text_encoder_lr", "network.te_lr", text, only_unet))
    trained = []
    for key, path, own, left_out in parts:
        value = common_rate if own is None else own
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
    written = _given(sheet, "text_encoder_lr")
    return [] if written is None else numbers(written)


def _second_encoder(sheet: ConfigTranslation, *, first: bool) -> None:
    """SDXL's second text encoder, where `text_encoder_lr` is a list of both rates (sd-scripts 48d368f)."""
    texts = _text_rates(sheet)
    if len(texts) < 2 or texts[0] == texts[1] or sheet.flag("network_train_unet_only"):
        return
    became = "network.te2_targets = none"
    if texts[1] > 0:
        sheet.put("network.te2_lr", texts[1])
        became = f"network.te2_lr = {texts[1]:g}"
    if texts[1] <= 0 or not first:
        sheet.put("network.te2_targets", "attention+mlp" if texts[1] > 0 else "none")
        became += ", network.te2_targets = attention+mlp" if texts[1] > 0 else ""
    own = f"network.te_lr = {texts[0]:g}, {became}" if first else f"network.te_targets = none, {became}"
    sheet.note("text_encoder_lr", "translated", "of SDXL's first and second text encoder", own)


def _spatial(sheet: ConfigTranslation, rank: int, alpha: float, *, lycoris: bool) -> list[dict[str, Any]]:
    """Which layers: the transformers' own, or with a `conv_dim` (or LyCORIS) resnets too, their 3×3 with own rank."""
    keys = ("network_args.conv_dim", "network_args.conv_alpha")
    of_type = str(_given(sheet, "LoRA_type") or "").startswith(("LyCORIS", "Kohya LoCon"))
    used = sheet.dialect != "gui" or of_type
    conv = whole(sheet.get(keys[0])) if used else None
    if not conv and not (lycoris and used):
        sheet.honoured(keys, OFF if used else "not used by this LoRA_type")
        return _transformers(sheet, rank, alpha)
    sheet.put("network.unet_targets", "all")
    conv = conv or rank
    conv_alpha = number(sheet.get(keys[1])) or (alpha if lycoris else 1.0)
    for key, name, value in ((keys[0], "rank", conv), (keys[1], "alpha", conv_alpha)):
        sheet.note(key, "translated", "3×3 convolutions, as a group", f"network.groups {name} = {value:g}")
    pattern = rf"^lora_unet_.*(?:{SPATIAL_CONVOLUTION})"
    group = {"pattern": pattern, "rank": conv, "alpha": conv_alpha, "lr_factor": 1.0}
    return [] if conv == rank and conv_alpha == alpha else [group]


def _transformers(sheet: ConfigTranslation, rank: int, alpha: float) -> list[dict[str, Any]]:
    """kohya's plain LoRA: all linear layers of the transformers, their `proj_in` and `proj_out` too."""
    if "kohya" in choices("network.unet_targets"):
        sheet.default("layers", "network.unet_targets", "kohya", "kohya's own layers")
        return []
    sheet.default("layers", "network.unet_targets", "attention+ff", "and a group for proj_in and proj_out")
    return [{"pattern": r"^lora_unet_.*(?:_proj_(in|out)$)", "rank": rank, "alpha": alpha, "lr_factor": 1.0}]


def _blocks(sheet: ConfigTranslation, rank: int, alpha: float) -> list[dict[str, Any]]:
    """`block_dims`, `block_alphas` and rates of blocks, as groups."""
    names = ("block_dims", "block_alphas", "down_lr_weight", "mid_lr_weight", "up_lr_weight")
    lists = [numbers(written) if (written := _argument(sheet, name)) not in (None, "") else [] for name in names]
    dims, alphas, down, middle, up = lists
    rates: list[float] = []
    if max(len(down), len(up)) == 9 or len(middle) == 3:  # SDXL: 9 + 3 + 9, and the outermost two
        rates = [1.0, *(down or [1.0] * 9), *(middle or [1.0] * 3), *(up or [1.0] * 9), 1.0]
    elif down or middle or up:
        rates = [*(down or [1.0] * 12), *(middle or [1.0]), *(up or [1.0] * 12)]
    count, problem = len(dims) or len(rates), ""
    patterns: Sequence[str] = ()
    try:
        patterns = block_patterns("unet", count) if count else ()
    except NetworkError as error:
        problem = str(error)
    sound = bool(patterns) and len(rates) in (0, count) and len(alphas) in (0, count)
    for name, values in zip(names, lists, strict=True):
        key = f"network_args.{name}"
        if not sheet.get(key):
            sheet.honoured(key)
        elif sound and values:
            sheet.note(key, "translated", "one group a block", "network.groups")
        else:
            sheet.refused(key, problem or "names of curves are not read; give a number for each block")
    apply(sheet, BLOCKS)
    layers = preset_pattern("unet", "kohya")
    return [
        {
            "pattern": f"^(?=lora_unet_)(?=.*?(?:{layers}))(?=.*?(?:{pattern}))",
            "rank": int(dims[index]) if dims else rank,
            "alpha": alphas[index] if alphas else alpha,
            "lr_factor": rates[index] if rates else 1.0,
        }
        for index, pattern in enumerate(patterns if sound else ())
    ]


def _option(sheet: ConfigTranslation, key: str, value: Any) -> None:
    """An argument that we do not have; values in lists of arguments are text."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        value = value.lower() == "true"
    elif not isinstance(value, bool) and number(value) is not None:
        value = number(value)
    missing("this option of the network is not here", (None, "", False, 0, "0", "False", "0.0"))(sheet, key, value)


def _other_kinds(sheet: ConfigTranslation) -> None:
    """Options that a GUI's file always has."""
    if sheet.dialect == "gui":
        sheet.honoured(
            ("unit", "factor", "constrain", "train_blocks"), "an option of kinds of network that are not here"
        )


# ---- embeddings ----


def _embedding(sheet: ConfigTranslation) -> None:
    """train_textual_inversion.py: one embedding, no network."""
    sheet.put("network.algorithm", "none")
    sheet.put("embeddings_common.control", "none")
    embedding, told = common.new_embedding(_given(sheet, "token_string"), ())
    sheet.note("token_string", "translated" if told else "taken", told, f"embeddings.0.name = {embedding['name']}")
    vectors = min(max(whole(_given(sheet, "num_vectors_per_token")) or 1, 1), 75)
    common.take_embedding(sheet, 0, embedding, "vectors", vectors, "num_vectors_per_token")
    common.take_embedding(sheet, 0, embedding, "init_text", str(_given(sheet, "init_word") or "")[:400], "init_word")
    absent = "this file is not here; set embeddings.0.init_file"
    common.take_start(sheet, 0, embedding, "weights", "embeddings.0.init_file", "", absent)
    sheet.put("embeddings", [embedding])
    _take_flag(sheet, "learning_rate", "embeddings_common.lr", _number(sheet, "learning_rate"), DEFAULT_RATE)
    why = "write templates into data.templates, the embedding as {word}; captions are used until then"
    template = missing(why, (None, "", False, "caption"), told="captions are used")
    apply(sheet, [("template use_object_template use_style_template", template)])


def _trained(sheet: ConfigTranslation) -> None:
    """What is trained: one embedding, or a network."""
    if _given(sheet, "token_string") is not None:
        _embedding(sheet)
        return
    _network(sheet)
    sheet.remark(
        "kohya trains no embeddings beside a network: choose them on the Data page, or keep the network alone."
    )


def _prodigy(sheet: ConfigTranslation) -> None:
    if sheet.read("schedule.optimizer") == "prodigy":
        sheet.remark(
            "Prodigy needs one learning rate for all parts: set embeddings, U-Net and text encoder alike, to 1."
        )


# ---- noise and loss ----


def _noise(sheet: ConfigTranslation) -> None:
    """Noise offset or pyramid (the GUI has a switch between them), min-SNR, loss."""
    kind = str(sheet.get("noise_offset_type", "")).lower() if sheet.dialect == "gui" else ""
    for key, wanted in (
        ("noise_offset", "original"), ("multires_noise_iterations", "multires"), ("multires_noise_discount", "multires")
    ):  # fmt: skip
        if kind and kind != wanted:
            sheet.honoured(key, f"not used: noise_offset_type is {kind}")
    gamma = _number(sheet, "min_snr_gamma")
    if gamma:
        sheet.put("loss.weighting", "min_snr")
        sheet.taken("min_snr_gamma", "loss.snr_gamma", gamma, "loss.weighting = min_snr")
    if sheet.flag("debiased_estimation_loss") and gamma:
        sheet.refused("debiased_estimation_loss", "one weighting a run; min-SNR was taken")
    elif sheet.flag("debiased_estimation_loss"):
        sheet.translated("debiased_estimation_loss", "loss.weighting", "debiased", "a weighting here")


def _loss(sheet: ConfigTranslation) -> None:
    written = str(_given(sheet, "loss_type") or "l2").lower()
    ours = LOSSES.get(written)
    if ours is None:
        sheet.refused("loss_type", "there is no such loss here; the squared error instead", "loss.kind = mse")
    else:
        sheet.renamed("loss_type", "loss.kind", ours, written)
    if ours not in ("huber", "smooth_l1"):
        sheet.honoured(("huber_c", "huber_schedule", "huber_scale"), "of no effect on this loss")
        return
    delta = _number(sheet, "huber_c")
    if delta:
        sheet.taken("huber_c", "loss.huber_delta", delta)
    schedule = str(_given(sheet, "huber_schedule") or "snr")
    if schedule == "snr":
        sheet.honoured("huber_schedule", "the threshold follows the signal-to-noise ratio, as here")
    elif schedule in choices("loss.huber_schedule"):
        sheet.taken("huber_schedule", "loss.huber_schedule", schedule)
    else:
        sheet.refused("huber_schedule", "the threshold follows the signal-to-noise ratio here")


# ---- pictures and captions ----


def _pictures(sheet: ConfigTranslation) -> None:
    """Folders, size, buckets, flips and masks."""
    if folder := _given(sheet, "train_data_dir"):
        place = common.place_of(sheet.origin, folder)
        sheet.taken("train_data_dir", "data.folder", place, "folders N_name count N times, as there")
    if beside := _given(sheet, "reg_data_dir"):
        sheet.taken("reg_data_dir", "regularisation.folder", common.place_of(sheet.origin, beside))
        batch = sheet.read("schedule.batch_size")
        sheet.default("batch of regularisation", "regularisation.batch_size", batch, "one for one")
        sheet.remark(
            "kohya mixes regularisation pictures into the batch, one for one; here they come beside it: half of "
            "kohya's steps see as many of your own pictures."
        )
    side, why = common.resolution_of(_given(sheet, "resolution"))
    if side is None:
        sheet.honoured("resolution", "512 px")
    elif why:
        sheet.translated("resolution", "data.resolution_px", side, why)
    else:
        sheet.taken("resolution", "data.resolution_px", side)
    for key, path, on in (
        ("enable_bucket", "data.bucketing", True),
        ("bucket_no_upscale", "data.upscale", False),
        ("flip_aug", "data.flip", True),
    ):
        sheet.own(key, path, sheet.flag(key) == on, _OWN)
    if why and not sheet.read("data.bucketing"):
        sheet.put("data.bucketing", True)
        sheet.refused("resolution", f"one size that is no square: buckets of about {side} px instead")
    if sheet.flag("alpha_mask"):
        sheet.translated("alpha_mask", "data.transparency", "mask", "transparent pixels are masked away")
    if sheet.flag("masked_loss"):
        sheet.put("data.mask_normalise", False)
        why = "not scaled; put masks into `mask/` beside the pictures"
        sheet.translated("masked_loss", "data.masks", "linear", why)


def _captions(sheet: ConfigTranslation) -> None:
    """Shuffling and length."""
    for key, path in (
        ("shuffle_caption", "data.shuffle_tags"),
        ("enable_wildcard", "data.wildcards"),
        ("weighted_captions", "data.emphasis"),
    ):
        sheet.own(key, path, sheet.flag(key), _OWN)
    key, tokens = "max_token_length", whole(_given(sheet, "max_token_length"))
    if tokens in (75, 150, 225):
        sheet.taken(key, "data.max_tokens", tokens, "longer captions lose their end")
    elif tokens is not None:
        sheet.refused(key, "kohya knows 75, 150 and 225 tokens; captions are not cut here")
    else:
        sheet.honoured(key, "75 tokens, kohya's own default")
        sheet.default(key, "data.max_tokens", 75, "kohya's own default: longer captions lose their end")


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
        steps, epochs = whole(_given(sheet, key)) or 0, whole(_given(sheet, epochs_key)) or 0
        total = sheet.read("schedule.max_steps")
        each = sheet.epoch_steps
        beyond = epochs >= sheet.epochs if sheet.epochs else each and epochs * each >= total
        if steps > 0:
            sheet.taken(key, path, steps)
        else:
            sheet.honoured(key)
        if epochs <= 0:
            sheet.honoured(epochs_key)
        elif steps > 0:
            sheet.honoured(epochs_key, "the interval in steps counts")
        elif beyond:
            sheet.honoured(epochs_key, "beyond the run's end; at the end a file is saved anyway")
        else:
            common.take_interval(sheet, epochs_key, epochs, path)


def _prompts(sheet: ConfigTranslation, key: str, written: Any) -> None:
    """Prompts from a file, or in the GUI as text; `--w 512` and the like behind them are left away."""
    path = sheet.origin.find(written) if "\n" not in str(written) else None
    if written in ("", []) or not written:
        sheet.honoured(key, "none")
        return
    if path is not None and path.suffix.lower() == ".txt":
        text = read_bytes(path).decode("utf-8", "replace")
    elif sheet.dialect == "gui":
        text = str(written)
    else:
        sheet.refused(key, "this file is not here; write the prompts into saving.sample_prompts")
        return
    lines = (re.split(r"\s--[a-z]\b", line)[0].strip() for line in text.splitlines()[:50])
    prompts = [line for line in lines if line and not line.startswith("#")]
    sheet.translated(key, "saving.sample_prompts", prompts, "sizes, seeds and negatives are the page's own")


# ---- keys that stand alone ----


def _int(value: Any) -> int | None:
    return 0 if value in ("", None, False) else whole(value)


def _zero(value: Any) -> float:
    return number(value) or 0.0


def _text(value: Any) -> str:
    return str(value or "")


def _or_none(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """For rows that say what holds where nothing is written: also where it is empty."""
    return lambda value: None if value in ("", []) else convert(value)


def _named(sheet: ConfigTranslation, key: str, value: Any) -> None:
    if value and value != []:
        common.take_name(sheet, key, str(value))
    else:
        sheet.honoured(key, "give the file a name")


def _file_type(sheet: ConfigTranslation, key: str, value: Any) -> None:
    if value and value != []:
        common.precision("saving.dtype")(sheet, key, value)
    else:
        sheet.honoured(key, "fp16")


def _crop(which: str) -> Rule:
    why = "which part stays; for several cuts a picture see data.crops"
    return turned("data.crop", lambda value: None if value in (None, "", False) else which, why)


def _seed(sheet: ConfigTranslation, key: str, value: Any) -> None:
    found = whole(value)
    if found is None or found < 0:
        sheet.honoured(key, "by chance there; here it is a number")
    else:
        sheet.taken(key, "seed", found)


def _image_folder(sheet: ConfigTranslation, key: str, value: Any) -> None:
    if value and not sheet.read("data.folder"):
        sheet.taken(key, "data.folder", str(value))
    else:
        sheet.honoured(key, "none")


_SPEED = aside("speed or memory; the web UI's own settings hold here")
_CARD = aside("what a file tells of itself is edited on the page of bundles")
_OTHER = aside("for other families of checkpoints, or pages of the GUI that are not about this run")
_NO_BLOCKS = missing("this kind of network has no blocks here", (None, "", 0, "0"))
_LAYER_SETS = missing("LyCORIS' layer sets have no names here; all layers", (None, "", "full"))
_NO_OPTION = missing("this option of the network is not here")
_ONE_RANK = missing("blocks have one rank for all their layers here")
_USED = missing("used where an embedding is trained")

BLOCKS: Table = ((" ".join(f"network_args.{name}" for name in BLOCK_ARGUMENTS[5:]), _ONE_RANK),)
"""What a network that has blocks may say of them besides ranks, alphas and rates."""

# fmt: off
NETWORK: Table = (
    ("network_dropout", to("network.dropout", _zero, off=OFF)),
    ("network_args.rank_dropout", to("network.rank_dropout", _zero, off=OFF)),
    ("scale_weight_norms", to("network.max_norm", _zero, off=OFF)),
    ("network_train_unet_only network_train_text_encoder_only", holds("taken into account")),
    _other_kinds,
    ("network_args.preset network_args.LyCORIS_preset", _LAYER_SETS),
    (" ".join(f"network_args.{name}" for name in (*OPTIONS, "factor", "constrain", "unit")), _option),
    (" ".join(f"network_args.{name}" for name in BLOCK_ARGUMENTS), _NO_BLOCKS),
    ("network_args.*", _NO_OPTION),
)
# fmt: on
"""What a network may have besides its kind, layers, ranks and rates."""

# fmt: off
TABLE: Table = (
    # what several keys decide together
    _length,
    ("max_train_steps max_train_epochs epoch", holds("not used")),
    _optimizer,
    _course,
    _noise,
    ("noise_offset", to("noise.offset", _zero, off=OFF)),
    ("multires_noise_iterations", to("noise.multires_iterations", lambda value: int(_zero(value)), off=OFF)),
    ("multires_noise_discount", to("noise.multires_discount", _zero, off=OFF)),
    ("noise_offset_type", holds("taken into account")),
    ("min_snr_gamma debiased_estimation_loss", holds()),
    _loss,
    ("huber_c huber_scale", missing("the threshold has no further scale", (None, "", 1, 1.0))),
    _pictures,
    ("reg_data_dir", holds("no set beside")),
    ("masked_loss alpha_mask", holds()),
    _captions,
    ("keep_tokens_separator", to("data.keep_separator", _or_none(_text), off="none is used")),
    ("clip_skip", to("clip_skip", _or_none(whole), off="the last layer, as Clip skip 1")),
    _described,
    ("output_name", _named),
    ("save_precision", _file_type),
    _intervals,
    ("save_state save_state_on_train_end", holds("the state is saved every saving.state_every_steps steps")),
    ("sample_prompts", _prompts),
    _trained,
    _prodigy,
    # each for itself
    ("seed", _seed),
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
    ("zero_terminal_snr", to("noise.zero_terminal_snr", flag)),
    ("min_timestep", to("noise.timestep_min", lambda value: _int(value) or 0, off="not limited")),
    ("max_timestep", to("noise.timestep_max", lambda value: _int(value) or 0, off="not limited")),
    ("prior_loss_weight", to("regularisation.weight", number)),
    ("bucket_reso_steps", to("data.bucket_step_px", whole)),
    ("random_crop", _crop("random")),
    ("face_crop_aug_range", _crop("face")),  # the one that counts where both are on
    ("image_folder", _image_folder),
    ("sd3_checkbox flux1_checkbox", unless(flag, "only SD1, SD2 and SDXL train here; what fits them was taken")),
    ("caption_separator",
     unless(lambda value: value not in (",", "", None),
            "tags are separated by commas here", "tags are separated by commas, as here")),
    ("caption_extension caption_extention",
     unless(lambda value: value not in (".txt", ".caption", "", None),
            "captions are found in .txt, .caption and .json files; rename them",
            "captions in .txt and .caption files are found")),
    ("dataset_config in_json",
     unless(lambda value: value not in (None, "", [], {}),
            "this description of datasets is not here; give its file or its folder as data.folder", "none")),
    # what is not here
    ("dataset_class", missing("a dataset of your own code cannot be read")),
    ("vae", missing("the VAE is the one that the web UI has loaded")),
    ("noise_offset_random_strength", missing("noise offset has one strength here", at="noise.random_offset")),
    ("ip_noise_gamma_random_strength",
     missing("input perturbation has one strength here", at="noise.random_perturbation")),
    ("adaptive_noise_scale", missing("noise offset does not depend on the picture here", at="noise.adaptive_offset")),
    ("scale_v_pred_loss_like_noise_pred",
     missing("choose a weighting; predictions of v are not scaled apart from it", at="loss.scale_v_like_noise")),
    ("v_pred_like_loss", missing("there is no such addition to the loss")),
    ("color_aug", missing("colours are not changed")),
    ("secondary_separator", missing("tags are separated by commas alone")),
    ("full_fp16 full_bf16", missing("embeddings and network are fp32, the checkpoint as it is")),
    ("fp8_base fp8_base_unet", missing("a checkpoint in fp8 cannot be trained on")),
    ("network_weights script.network_weights",
     missing("a run starts with a new network; continue from a saved state instead")),
    ("dim_from_weights", missing("a run begins with a new network")),
    ("base_weights base_weights_multiplier", missing("merge it into the checkpoint first")),
    ("resume", missing("states of other trainers cannot be gone on from")),
    ("initial_epoch initial_step skip_until_initial_step", missing("a run begins at its start")),
    ("lr_scheduler_type", missing("an LR scheduler built by class cannot be read; set schedule.lr_scheduler")),
    ("lr_scheduler_args", missing("options of a scheduler are not read")),
    ("lr_decay_steps", missing("the LR scheduler has no separate phase at the end")),
    ("lr_scheduler_timescale", missing("this option of the scheduler is not supported")),
    ("lr_scheduler_min_lr_ratio", missing("this scheduler ends at 0")),
    ("stop_text_encoder_training stop_text_encoder_training_pct",
     missing("kohya's LoRA script ignores it; see schedule.te_stop")),
    ("validation_split", missing("there is no validation set; the separation score measures instead")),
    ("additional_parameters", missing("its flags are lines of their own", (None, ""))),
    ("use_8bit_adam use_lion_optimizer", missing("the optimiser that is named was taken")),
    ("no_token_padding", missing("text is padded as the web UI does it")),
    ("network_module", missing("there is no network in these settings")),
    ("save_every_n_epochs", missing("set saving.every_steps")),
    ("train_text_encoder", missing("see network.te_targets")),
    ("dataset_repeats", missing("repeats stand in the folders' names", (None, "", "1", 1))),
    ("train_inpainting", missing("masks of an inpainting checkpoint are the pictures' mask files")),
    ("lr_scheduler", missing("the LR scheduler is constant", (None, "", "constant"))),
    ("train_data_dir", missing("give the folder as data.folder")),
    ("conditioning_data_dir", missing("put masks into `mask/` beside the pictures")),
    ("init_word weights", _USED),
    ("num_vectors_per_token", missing("used where an embedding is trained", (None, "", 1, "1"))),
    ("use_object_template use_style_template", missing("write templates into data.templates")),
    (" ".join(BLOCK_ARGUMENTS) + " conv_dims conv_alphas", _NO_BLOCKS),
    ("split_mode", missing("this option of the network is not here")),
    ("network_alpha", missing("kohya's own default: 1")),
    ("optimizer_args", missing("this list of options cannot be read")),
    ("optimizer_args.*", refuse("the optimiser has no such option here")),
    ("network_args", missing("these options of the network are not here", (None, "", []))),
    # what does not concern training
    ("resize_interpolation", aside("pictures are resized by Lanczos")),
    ("max_bucket_reso min_bucket_reso", aside("as far as the pictures' shapes go")),
    ("xformers sdpa mem_eff_attn torch_compile dynamo_backend dynamo_mode dynamo_use_dynamic dynamo_use_fullgraph "
     "lowram highvram lowvram no_half_vae script.no_half_vae cache_latents cache_latents_to_disk vae_batch_size "
     "skip_cache_check cache_info cache_text_encoder_outputs cache_text_encoder_outputs_to_disk "
     "script.cache_text_encoder_outputs sdxl_cache_text_encoder_outputs "
     "text_encoder_batch_size disable_mmap_load_safetensors fused_backward_pass "
     "max_data_loader_n_workers persistent_data_loader_workers cpu_offload_checkpointing deepspeed zero_stage "
     "offload_optimizer_device offload_optimizer_nvme_path offload_param_device offload_param_nvme_path "
     "zero3_init_flag zero3_save_16bit_model fp16_master_weights_and_gradients ddp_gradient_as_bucket_view "
     "ddp_static_graph ddp_timeout mem_eff_save fused_optimizer_groups blockwise_fused_optimizers blocks_to_swap "
     "use_safetensors split_attn", _SPEED),
    ("pretrained_model_name_or_path tokenizer_cache_dir model_list revision console_log_level console_log_file "
     "console_log_simple debug_dataset", aside("the checkpoint is used as the web UI has loaded it")),
    ("v2 v_parameterization sdxl sdxl_checkbox", aside("what the checkpoint predicts is found out from it")),
    ("logging_dir log_with log_prefix log_tracker_name log_tracker_config wandb_run_name wandb_api_key log_config "
     "use_wandb validation_seed validate_every_n_steps validate_every_n_epochs max_validation_steps",
     aside("logs of the other trainer")),
    ("huggingface_repo_id huggingface_repo_type huggingface_path_in_repo huggingface_token huggingface_repo_visibility "
     "save_state_to_huggingface resume_from_huggingface async_upload", aside("uploading is not part of training")),
    ("num_machines num_cpu_threads_per_process multi_gpu gpu_ids main_process_port extra_accelerate_launch_args "
     "config_file output_config num_processes headless print_only",
     aside("how the other trainer's processes are started")),
    ("output_dir save_model_as save_as_bool save_last_n_epochs save_last_n_epochs_state save_last_n_steps "
     "save_last_n_steps_state save_n_epoch_ratio no_metadata sample_at_first sample_sampler",
     aside("files have places and names of their own here")),
    ("training_comment metadata_*", _CARD),
    ("ae apply_t5_attn_mask clip_g clip_l discrete_flow_shift double_blocks_to_swap single_blocks_to_swap "
     "guidance_scale logit_mean logit_std mode_scale weighting_scheme model_prediction_type t5xxl t5xxl_device "
     "t5xxl_dtype t5xxl_lr t5xxl_max_token_length timestep_sampling save_clip save_t5xxl train_blocks unit "
     "img_attn_dim img_mlp_dim img_mod_dim in_dims single_dim single_mod_dim txt_attn_dim txt_mlp_dim txt_mod_dim "
     "train_double_block_indices train_single_block_indices batch_size clip_g_dropout_rate clip_l_dropout_rate "
     "t5_dropout_rate t5_max_token_length model_type pos_emb_random_crop_rate train_lora_ggpo show_timesteps "
     "show_timesteps_resolution enable_all_linear split_qkv train_t5xxl sigmoid_scale create_caption create_buckets "
     "generate_caption_database generate_image_buckets caption_metadata_filename latent_metadata_filename full_path "
     "train_dir use_latent_files learning_rate_te learning_rate_te1 learning_rate_te2", _OTHER),
    ("lr_scheduler_args.*", missing("options of a scheduler are not read")),
    ("anima_* hunyuan_* lumina_* flux1_* flux_* sd3_* chroma_* qwen_*", _OTHER),
)
# fmt: on
