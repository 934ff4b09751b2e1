"""kohya's network flags: module, dim, alpha, what `network_args` say, blocks, and the rates of its parts.

networks/lora.py (48d368f) gives adapters to all linear layers and 1×1 convolutions of the transformers, 192 in SD1,
and with `conv_dim` also to resnets and resamplers; dim is 4 and alpha 1 where none is written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lib_pivotal.errors import NetworkError
from lib_pivotal.importing.kohya_flags import Flags
from lib_pivotal.importing.reading import number, numbers, whole
from lib_pivotal.importing.report import shown
from lib_pivotal.importing.sheet import OFF, Sheet, choices, missing
from lib_pivotal.networks.targets import SPATIAL_CONVOLUTION, block_patterns, preset_pattern

DEFAULT_DIM = 4
DEFAULT_ALPHA = 1.0
PROJECTIONS = r"_proj_(in|out)$"

LYCORIS_NAMES = {"locon": "lora", "lora": "lora", "loha": "loha", "lokr": "lokr", "diag-oft": "oft", "boft": "boft"}
GUI_TYPES = {
    "Standard": "lora",
    "LoRA": "lora",
    "Kohya LoCon": "lora",
    "LyCORIS/LoCon": "lora",
    "LyCORIS/LoHa": "loha",
    "LyCORIS/LoKr": "lokr",
    "LyCORIS/Diag-OFT": "oft",
    "LoHa": "loha",
    "LoKr": "lokr",
}
"""A GUI's LoRA_type -> kind of network; others have none here."""

RATES = ("learning_rate", "unet_lr", "text_encoder_lr")
ALL_LAYERS_TYPES = ("LyCORIS", "Kohya LoCon")


def take_network(flags: Flags) -> None:
    """Kind, layers, ranks, alphas and rates."""
    sheet = flags.sheet
    if not any(sheet.has(key) for key in ("network_module", "network_dim", "LoRA_type", "network_args")):
        _whole_checkpoint(flags)
        return
    kind, lycoris = _kind(flags)
    dim, alpha = whole(flags.get("network_dim")), flags.number("network_alpha")
    default_dim = DEFAULT_DIM
    if dim:
        sheet.taken("network_dim", "network.unet_rank", dim)
    else:
        sheet.default("network_dim", "network.unet_rank", default_dim, "kohya's own default")
        sheet.honoured("network_dim", "kohya's own default: 4")
    rank = int(sheet.read("network.unet_rank"))
    if alpha is not None and alpha > 0:
        sheet.taken("network_alpha", "network.unet_alpha", alpha)
    elif alpha == 0:
        sheet.translated("network_alpha", "network.unet_alpha", float(rank), "kohya takes the rank for 0")
    else:
        sheet.default("network_alpha", "network.unet_alpha", DEFAULT_ALPHA, "kohya's own default")
    unet_alpha = float(sheet.read("network.unet_alpha"))
    sheet.put("network.te_rank", rank)
    sheet.put("network.te_alpha", unet_alpha)
    train_unet, train_text = _rates(flags)
    groups = _blocks(flags, rank, unet_alpha) if kind == "lora" else []
    groups += _spatial(flags, rank, unet_alpha, lycoris=lycoris)
    if not train_unet:
        sheet.put("network.unet_targets", "none")
    sheet.put("network.te_targets", "attention+mlp" if train_text else "none")
    _second_encoder(flags, first=train_text)
    if groups and (fault := sheet.put("network.groups", groups)):
        sheet.remark(f"The groups of layers could not be taken over: network.groups {fault}.")
    _rest(flags)


def argument(flags: Flags, name: str) -> tuple[str, Any]:
    """(key, value) of one of the network's arguments: in `network_args`, or a key of its own in a GUI's file."""
    key = f"network_args.{name}"
    if flags.sheet.has(key) or not flags.gui:
        return key, flags.sheet.get(key)
    return name, flags.sheet.get(name)


def _whole_checkpoint(flags: Flags) -> None:
    """DreamBooth and fine-tuning."""
    flags.sheet.remark(
        "These settings train the checkpoint's own weights. That is not what this is for: a network of the usual size "
        "was set instead, with these pictures, captions and steps."
    )
    for name in (
        "learning_rate",
        "unet_lr",
        "text_encoder_lr",
        "learning_rate_te",
        "learning_rate_te1",
        "learning_rate_te2",
    ):
        flags.sheet.refused(name, "a learning rate for full fine-tuning does not fit a network; ours stays")


def _kind(flags: Flags) -> tuple[str, bool]:
    """(kind of network, whether LyCORIS makes it)."""
    sheet = flags.sheet
    gui_type = flags.get("LoRA_type")
    module = str(flags.get("network_module") or "networks.lora")
    algo_key, algo = argument(flags, "algo")
    if gui_type is not None:
        key, wanted = "LoRA_type", GUI_TYPES.get(str(gui_type), "")
        lycoris = str(gui_type).startswith("LyCORIS")
        sheet.honoured("network_module", "follows from LoRA_type")
    elif "lycoris" in module:
        key = algo_key if sheet.has(algo_key) else "network_module"
        wanted, lycoris = LYCORIS_NAMES.get(str(algo or "locon").lower(), ""), True
        sheet.honoured("network_module", "LyCORIS")
    else:
        key, lycoris = "network_module", False
        wanted = {"lora": "lora", "loha": "loha", "lokr": "lokr"}.get(module.rpartition(".")[2], "")
    _, dora = argument(flags, "dora_wd")
    dora_on = str(dora).lower() in ("true", "1") and wanted == "lora"
    wanted = "dora" if dora_on else wanted
    if wanted in choices("network.algorithm"):
        sheet.translated(key, "network.algorithm", wanted, f"the same kind of network is called {wanted} here")
        if not sheet.has(key):
            sheet.put("network.algorithm", wanted)
    else:
        sheet.refused(
            key,
            f"{shown(gui_type or algo or module)} is not here; a LoRA of the same rank instead",
            "network.algorithm = lora",
        )
    if dora is not None and wanted in ("lora", "dora"):
        sheet.honoured(argument(flags, "dora_wd")[0], f"network.algorithm = {wanted}")
    return ("lora" if wanted in ("lora", "dora", "") else wanted), lycoris


def _rates(flags: Flags) -> tuple[bool, bool]:
    """Rates of U-Net and text encoder; returns whether each is trained."""
    sheet = flags.sheet
    common, unet = flags.number("learning_rate"), flags.number("unet_lr")
    texts = _text_rates(flags)
    text = texts[0] if texts else None
    only_unet, only_text = flags.flag("network_train_unet_only"), flags.flag("network_train_text_encoder_only")
    if flags.gui and not (unet == 0 and text == 0):
        # resolve_network_train_flags: a rate of 0 leaves its part out
        only_unet, only_text = only_unet or text == 0, only_text or unet == 0
    elif flags.gui:
        unet = text = None
    common = 2e-6 if common is None else common
    unet_lr, text_lr = common if unet is None else unet, common if text is None else text
    train_unet, train_text = not only_text and unet_lr > 0, not only_unet and text_lr > 0
    for key, path, value, trained, own in (
        ("unet_lr", "network.unet_lr", unet_lr, train_unet, unet),
        ("text_encoder_lr", "network.te_lr", text_lr, train_text, text),
    ):
        if not trained:
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
    sheet.honoured("network_train_unet_only", "taken into account")
    sheet.honoured("network_train_text_encoder_only", "taken into account")
    return train_unet, train_text


def _second_encoder(flags: Flags, *, first: bool) -> None:
    """SDXL's second text encoder, where `text_encoder_lr` is a list of both rates (sd-scripts 48d368f)."""
    sheet, texts = flags.sheet, _text_rates(flags)
    if len(texts) < 2 or texts[0] == texts[1] or flags.flag("network_train_unet_only"):
        return
    if texts[1] > 0:
        sheet.put("network.te2_lr", texts[1])
        became = f"network.te2_lr = {texts[1]:g}"
        if not first:
            sheet.put("network.te2_targets", "attention+mlp")
            became += ", network.te2_targets = attention+mlp"
    else:
        sheet.put("network.te2_targets", "none")
        became = "network.te2_targets = none"
    own = f"network.te_lr = {texts[0]:g}, {became}" if first else f"network.te_targets = none, {became}"
    sheet.note("text_encoder_lr", "translated", "of SDXL's first and second text encoder", own)


def _text_rates(flags: Flags) -> list[float]:
    """One for all text encoders, or one each."""
    written = flags.get("text_encoder_lr")
    return [] if written is None else numbers(written)


def _spatial(flags: Flags, rank: int, alpha: float, *, lycoris: bool) -> list[dict[str, Any]]:
    """Which layers: the transformers' own, or with a `conv_dim` (or LyCORIS) resnets too, their 3×3 with own rank."""
    sheet = flags.sheet
    dim_key, dim_value = argument(flags, "conv_dim")
    alpha_key, alpha_value = argument(flags, "conv_alpha")
    used = not flags.gui or str(flags.get("LoRA_type") or "").startswith(ALL_LAYERS_TYPES)
    conv = whole(dim_value) if used else None
    if not conv and not (lycoris and used):
        told = OFF if used else "not used by this LoRA_type"
        sheet.honoured(dim_key, told)
        sheet.honoured(alpha_key, told)
        return _transformers(sheet, rank, alpha)
    sheet.put("network.unet_targets", "all")
    conv = conv or rank
    given = number(alpha_value)
    conv_alpha = given if given else (alpha if lycoris else 1.0)
    sheet.note(dim_key, "translated", "3×3 convolutions, as a group", f"network.groups rank = {conv}")
    sheet.note(alpha_key, "translated", "3×3 convolutions, as a group", f"network.groups alpha = {conv_alpha:g}")
    if conv == rank and conv_alpha == alpha:
        return []
    return [
        {"pattern": rf"^lora_unet_.*(?:{SPATIAL_CONVOLUTION})", "rank": conv, "alpha": conv_alpha, "lr_factor": 1.0}
    ]


def _transformers(sheet: Sheet, rank: int, alpha: float) -> list[dict[str, Any]]:
    """kohya's plain LoRA: all linear layers of the transformers, their `proj_in` and `proj_out` too."""
    if "kohya" in choices("network.unet_targets"):
        sheet.default("layers", "network.unet_targets", "kohya", "kohya's own layers")
        return []
    sheet.default("layers", "network.unet_targets", "attention+ff", "and a group for proj_in and proj_out")
    return [{"pattern": rf"^lora_unet_.*(?:{PROJECTIONS})", "rank": rank, "alpha": alpha, "lr_factor": 1.0}]


# ---- blocks ----


def _blocks(flags: Flags, rank: int, alpha: float) -> list[dict[str, Any]]:
    """`block_dims`, `block_alphas` and rates of blocks, as groups."""
    sheet = flags.sheet
    dims = _list_of(flags, "block_dims")
    alphas = _list_of(flags, "block_alphas")
    down, middle, up = (_list_of(flags, f"{part}_lr_weight") for part in ("down", "mid", "up"))
    rates = _all_rates(down, middle, up)
    count = len(dims) or len(rates)
    problem = ""
    try:
        patterns = block_patterns("unet", count) if count else ()
    except NetworkError as error:
        patterns, problem = (), str(error)
    sound = bool(patterns) and len(rates) in (0, count) and len(alphas) in (0, count)
    for name, values in (
        *(("block_dims", dims), ("block_alphas", alphas)),
        *(("down_lr_weight", down), ("mid_lr_weight", middle), ("up_lr_weight", up)),
    ):
        key, written = argument(flags, name)
        if not written:
            sheet.honoured(key)
        elif sound and values:
            sheet.note(key, "translated", "one group a block", "network.groups")
        else:
            sheet.refused(key, problem or "names of curves are not read; give a number for each block")
    for name in ("conv_block_dims", "conv_block_alphas", "block_lr_zero_threshold", "block_lr"):
        key, written = argument(flags, name)
        missing("blocks have one rank for all their layers here")(sheet, key, written)
    if not sound:
        return []
    layers = preset_pattern("unet", "kohya")
    return [
        {
            "pattern": f"^(?=lora_unet_)(?=.*?(?:{layers}))(?=.*?(?:{pattern}))",
            "rank": int(dims[index]) if dims else rank,
            "alpha": alphas[index] if alphas else alpha,
            "lr_factor": rates[index] if rates else 1.0,
        }
        for index, pattern in enumerate(patterns)
    ]


def _list_of(flags: Flags, name: str) -> list[float]:
    written = argument(flags, name)[1]
    return numbers(written) if written not in (None, "") else []


def _all_rates(down: Sequence[float], middle: Sequence[float], up: Sequence[float]) -> list[float]:
    """kohya's three lists as one factor a block, for SD1 (12 + 1 + 12) or SDXL (9 + 3 + 9, and the outermost two)."""
    if not (down or middle or up):
        return []
    if max(len(down), len(up)) == 9 or len(middle) == 3:
        return [1.0, *(down or [1.0] * 9), *(middle or [1.0] * 3), *(up or [1.0] * 9), 1.0]
    return [*(down or [1.0] * 12), *(middle or [1.0]), *(up or [1.0] * 12)]


# ---- the rest ----


def _rest(flags: Flags) -> None:
    """Dropouts, and arguments that we do not have."""
    sheet = flags.sheet
    for key, path in (
        ("network_dropout", "network.dropout"),
        (argument(flags, "rank_dropout")[0], "network.rank_dropout"),
    ):
        value = number(sheet.get(key))
        if value:
            sheet.taken(key, path, value)
        else:
            sheet.honoured(key)
    norms = flags.number("scale_weight_norms")
    if norms:
        sheet.taken("scale_weight_norms", "network.max_norm", norms)
    else:
        sheet.honoured("scale_weight_norms")
    told = {
        "preset": ("LyCORIS' layer sets have no names here; all layers", (None, "", "full")),
        "LyCORIS_preset": ("LyCORIS' layer sets have no names here; all layers", (None, "", "full")),
    }
    gui_only = ("unit", "factor", "constrain", "train_blocks") if flags.gui else ()
    for name in gui_only:
        sheet.honoured(name, "an option of kinds of network that are not here")
    for name in (
        *("preset", "LyCORIS_preset", "module_dropout", "use_tucker", "use_cp", "use_scalar", "rank_dropout_scale"),
        *("decompose_both", "train_norm", "factor", "rescaled", "constrain", "constraint", "bypass_mode", "dora_wd"),
        *("block_size", "full_matrix", "train_on_input", "unit", "split_mode", "split_qkv", "loraplus_lr_ratio"),
        *("loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio", "ggpo_beta", "ggpo_sigma", "verbose", "scale"),
    ):
        key, value = argument(flags, name)
        if not sheet.claimed(key):
            why, off = told.get(
                name, ("this option of the network is not here", (None, "", False, 0, "0", "False", "0.0"))
            )
            missing(why, off)(sheet, key, _plain(value))
    for key in sheet.keys_under("network_args"):
        if not sheet.claimed(key):
            missing("this option of the network is not here")(sheet, key, sheet.get(key))


def _plain(value: Any) -> Any:
    """`"True"` -> True, `"0"` -> 0: values in lists of arguments are text."""
    if isinstance(value, str) and re.fullmatch(r"(?i)true|false", value):
        return value.lower() == "true"
    found = number(value)
    return value if found is None or isinstance(value, bool) else found
