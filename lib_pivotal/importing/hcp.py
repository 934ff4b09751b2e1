"""HCP-Diffusion's training YAML. Meanings from its sources at 404f0e8: hcpdiff/train_ac.py, models/lora_base.py."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lib_pivotal.data.sources.source import Reading
from lib_pivotal.importing.common import Origin, set_optimizer, set_precision, set_rate
from lib_pivotal.importing.datasets import draws_an_epoch, read_described, take_epochs
from lib_pivotal.importing.hcp_data import take_data
from lib_pivotal.importing.hcp_network import take_network
from lib_pivotal.importing.hcp_words import take_words
from lib_pivotal.importing.hcp_yaml import resolve
from lib_pivotal.importing.reading import flag, number, whole
from lib_pivotal.importing.report import shown
from lib_pivotal.importing.sheet import Rule, Sheet, apply_rules, aside, choices, missing, to

TITLE = "HCP-Diffusion settings"

_SCHEDULER = {"name": "one_cycle", "num_warmup_steps": 200, "num_training_steps": 1000, "scheduler_kwargs": {}}
KNOWN_BASES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "train_base.yaml": {
            "mixed_precision": "fp16",
            "seed": 114514,
            "train": {
                "train_steps": 1000,
                "gradient_accumulation_steps": 1,
                "max_grad_norm": 1.0,
                "save_step": 100,
                "optimizer": {"_target_": "torch.optim.AdamW", "weight_decay": 1e-3},
                "optimizer_pt": {"_target_": "torch.optim.AdamW", "weight_decay": 5e-4},
                "scale_lr": True,
                "scale_lr_pt": True,
                "scheduler": _SCHEDULER,
                "scheduler_pt": "${.scheduler}",
            },
            "model": {"tokenizer_repeats": 2, "gradient_checkpointing": True, "clip_skip": 0, "clip_final_norm": True},
        },
        "lora_conventional.yaml": {
            "_base_": ["train_base.yaml", "tuning_base.yaml"],
            "train": {"scheduler": {**_SCHEDULER, "name": "constant_with_warmup", "num_warmup_steps": 50}},
            "model": {"tokenizer_repeats": 1},
            "lora_unet": [{"lr": 1e-4, "rank": 8, "layers": [r"re:.*\.attn.?$", r"re:.*\.ff$"]}],
            "lora_text_encoder": [{"lr": 1e-5, "rank": 4, "layers": [r"re:.*self_attn$", r"re:.*mlp$"]}],
        },
        "tuning_base.yaml": {"tokenizer_pt": {"emb_dir": "embs/", "train": []}},
        "base_dataset.yaml": {
            "data": {
                "dataset1": {
                    "batch_size": 4,
                    "loss_weight": 1.0,
                    "bucket": {
                        "_target_": "hcpdiff.data.bucket.RatioBucket.from_files",
                        "target_area": 512 * 512,
                        "num_bucket": 5,
                    },
                }
            }
        },
        "regularization_dataset.yaml": {
            "_base_": ["base_dataset.yaml"],
            "data": {
                "dataset_class": {
                    "batch_size": 1,
                    "loss_weight": 1.0,
                    "bucket": {"_target_": "hcpdiff.data.bucket.FixedBucket", "target_size": [512, 512]},
                }
            },
        },
    }
)
"""What HCP's own base files hold and a file that rests on them needs; used where they are not on this computer."""

_LOG = aside("logs and samples of the other trainer")
_SPEED = aside("speed or memory; the web UI's own settings hold here")
_PART = missing("the checkpoint is used as the web UI has loaded it")
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "exp_dir": aside("files go to the folder of this extension's runs"),
        "exp_dir_base": aside("files go to the folder of this extension's runs"),
        "mixed_precision": set_precision,
        "allow_tf32": _SPEED,
        "seed": to("seed", whole),
        "ckpt_type": aside("a bundle is always a safetensors file"),
        "previewer": missing("write the prompts of pictures into the settings"),
        "train.workers": aside("pictures are read as they are needed"),
        "train.set_grads_to_none": _SPEED,
        "train.max_grad_norm": to(
            "schedule.clip_network", number, "limits the network's gradients; HCP never those of embeddings"
        ),
        "train.resume": missing(
            "continuing from HCP's files is not possible; convert them and load them as embeddings"
        ),
        "train.scale_lr": lambda sheet, key, value: None,
        "train.loss.criterion.reduction": aside("here each sample has its own loss, always"),
        "model.revision": aside("the checkpoint is the one that the web UI has loaded"),
        "model.pretrained_model_name_or_path": aside("the checkpoint is the one that the web UI has loaded"),
        "model.enable_xformers": _SPEED,
        "model.gradient_checkpointing": to("memory.gradient_checkpointing", flag),
        "model.force_cast_precision": _SPEED,
        "model.vae_dtype": _SPEED,
        "model.tokenizer": _PART,
        "model.noise_scheduler": missing("noise has settings of its own here"),
        "model.unet": _PART,
        "model.text_encoder": _PART,
        "model.vae": _PART,
        "tokenizer_pt.replace": aside("embedding files are written new, none is replaced"),
    }
)


def import_hcp(
    plain: Mapping[str, Any],
    origin: Origin,
    *,
    bases: Mapping[str, Mapping[str, Any]] = KNOWN_BASES,
    one_folder: bool = False,
) -> Sheet:
    """Translate one file, with its bases as far as they are here. `one_folder`: what lies around the sources is a tree
    that a scan reads as a whole."""
    merged = resolve(plain, origin.folder, bases, only_below=origin.uploaded)
    sheet = Sheet(merged.plain)
    sheet.remarks += merged.remarks
    for name in merged.missing:
        sheet.remark(f"The base {name} is not on this computer: what stands in it is missing here.")
    factor, rates_factor_words = _scale_factors(sheet, merged.plain)
    accumulation = max(whole(sheet.get("train.gradient_accumulation_steps")) or 1, 1)
    described = None
    if origin.folder is not None and not one_folder:
        described = read_described(origin.folder / origin.name, "hcp", origin.may_read)
    _take_steps(sheet, accumulation)
    _take_rates(sheet, accumulation)
    _take_optimizers(sheet)
    _take_loss(sheet)
    _take_model(sheet)
    take_words(sheet, merged.plain, origin, rates_factor_words)
    take_network(sheet, merged.plain, factor)
    take_data(sheet, merged.plain, origin, described)
    _take_epochs(sheet, described)
    apply_rules(sheet, RULES)
    for prefix in ("logger", "vis_info", "previewer", "infer", "trainer"):
        for key in sheet.keys_under(prefix):
            if not sheet.claimed(key):
                _LOG(sheet, key, sheet.get(key))
    _claim_plumbing(sheet, merged.used)
    for key in sheet.keys_under("data"):
        if key.endswith(".cond_root"):
            sheet.refused(key, "pictures of ControlNet have no use here")
    sheet.default("words_common.control", "words_common.control", "none", "HCP does not control embedding norms")
    sheet.default("words_common.keep_commas", "words_common.keep_commas", True, "in HCP commas of init texts count")
    sheet.default("schedule.clip_words", "schedule.clip_words", 0.0, "HCP never limits the gradients of embeddings")
    return sheet


def is_xl(plain: Mapping[str, Any]) -> bool:
    """Whether the file is for SDXL, by its checkpoint's name or its kind of dataset."""
    model = plain.get("model")
    name = str(model.get("pretrained_model_name_or_path", "")) if isinstance(model, dict) else ""
    data = plain.get("data")
    kinds = (
        [str(one.get("_target_", "")) for one in data.values() if isinstance(one, dict)]
        if isinstance(data, dict)
        else []
    )
    return "xl" in name.lower() or any("CropInfo" in kind for kind in kinds)


# ---- rates and steps ----


def _scale_factors(sheet: Sheet, plain: Mapping[str, Any]) -> tuple[float, float]:
    """By what HCP multiplies the network's and the words' rates: pictures a step over all datasets."""
    data = plain.get("data")
    batches = (
        [whole(one.get("batch_size")) or 1 for one in data.values() if isinstance(one, dict)]
        if isinstance(data, dict)
        else []
    )
    accumulation = max(whole(sheet.get("train.gradient_accumulation_steps")) or 1, 1)
    pictures = (sum(batches) or 1) * accumulation
    factors = []
    for key, what in (("train.scale_lr", "the network's"), ("train.scale_lr_pt", "the embedding")):
        on = sheet.flag(key, default=False)
        factors.append(float(pictures) if on else 1.0)
        if on:
            sheet.note(
                key,
                "translated",
                f"HCP multiplies {what} learning rates by {pictures} = pictures a step of all datasets "
                f"({sum(batches) or 1}) × "
                f"accumulation ({accumulation}), for one GPU; here learning rates are written as they act",
            )
        else:
            sheet.honoured(key, "learning rates act as they are written, as here")
    return factors[0], factors[1]


def _take_steps(sheet: Sheet, accumulation: int) -> None:
    """HCP counts micro-batches as steps; here a step is an update."""
    why = f"HCP counts each of the {accumulation} micro-batches of an update as a step"
    sheet.taken("train.gradient_accumulation_steps", "schedule.accumulation", accumulation)
    for key, path in (("train.train_steps", "schedule.max_steps"), ("train.save_step", "saving.every_steps")):
        steps = whole(sheet.get(key))
        if steps is None:
            if sheet.has(key):
                sheet.honoured(key, "not given")
        elif accumulation > 1:
            sheet.translated(key, path, max(steps // accumulation, 1), why)
        else:
            sheet.taken(key, path, steps)


def _take_epochs(sheet: Sheet, described: Reading | None) -> None:
    """Epochs come before steps in HCP (train_ac.py: epochs × batches of the first set); known only after the data."""
    epochs = whole(sheet.get("train.train_epochs"))
    if not epochs or epochs < 1:
        sheet.honoured("train.train_epochs", "not given; steps count")
        return
    take_epochs(sheet, "train.train_epochs", epochs, draws_an_epoch(described) if described is not None else 0)
    sheet.honoured("train.train_steps", "epochs come before steps")


def _take_rates(sheet: Sheet, accumulation: int) -> None:
    name = sheet.get("train.scheduler.name")
    if name is not None:
        ours = set_rate(sheet, "train.scheduler.name", name)
        if ours == "one_cycle":
            sheet.default(
                "final_div_factor of one_cycle", "schedule.final_factor", 4e-06, "torch's OneCycleLR ends there"
            )
    warmup = whole(sheet.get("train.scheduler.num_warmup_steps")) or 0
    used = str(name) not in ("constant", "None")
    if used:
        sheet.taken("train.scheduler.num_warmup_steps", "schedule.warmup_steps", warmup)
    else:
        sheet.honoured("train.scheduler.num_warmup_steps", "this scheduler has no warm-up")
    length = whole(sheet.get("train.scheduler.num_training_steps"))
    steps = whole(sheet.get("train.train_steps"))
    if length is not None and length == steps:
        sheet.honoured("train.scheduler.num_training_steps", "the LR scheduler is as long as the run, as here")
    elif str(name).startswith("constant"):
        sheet.honoured("train.scheduler.num_training_steps", "of no effect on a constant learning rate")
    else:
        sheet.refused(
            "train.scheduler.num_training_steps",
            f"here the LR scheduler is always as long as the run ({shown(steps)} steps)",
        )
    _take_scheduler_options(sheet)
    if accumulation > 1 and warmup and used:
        sheet.translated(
            "train.scheduler.num_warmup_steps", "schedule.warmup_steps", warmup // accumulation,
            "HCP counts micro-batches",
        )  # fmt: skip
    same = all(
        sheet.get(key) == sheet.get(key.replace("scheduler_pt", "scheduler"))
        for key in sheet.keys_under("train.scheduler_pt")
    )
    for key in sheet.keys_under("train.scheduler_pt"):
        if same or sheet.get(key) in (None, "${.scheduler}"):
            sheet.honoured(key, "as the network's")
        else:
            sheet.refused(key, "embeddings and network share one LR scheduler here, the network's was taken")


def _take_scheduler_options(sheet: Sheet) -> None:
    for key in sheet.keys_under("train.scheduler.scheduler_kwargs"):
        missing("options of a scheduler are not read")(sheet, key, sheet.get(key))
    for key in sheet.keys_under("train.scheduler"):
        if not sheet.claimed(key):
            sheet.refused(key, "an LR scheduler built by class cannot be read; set schedule.rate")


def _take_optimizers(sheet: Sheet) -> None:
    kind = sheet.get("train.optimizer._target_")
    if kind is not None:
        set_optimizer(sheet, "train.optimizer._target_", kind)
    of_words = sheet.get("train.optimizer_pt._target_")
    if of_words is not None and of_words == kind:
        sheet.honoured("train.optimizer_pt._target_", "as the network's")
    else:
        sheet.refused(
            "train.optimizer_pt._target_", "embeddings and network share one optimiser here, the network's was taken"
        )
    for part, path in (("optimizer", "network.weight_decay"), ("optimizer_pt", "words_common.weight_decay")):
        decay = number(sheet.get(f"train.{part}.weight_decay"))
        if decay is not None:
            sheet.taken(f"train.{part}.weight_decay", path, decay)
        elif kind is not None:
            sheet.default(f"train.{part}.weight_decay", path, 0.01, "AdamW's own default")
        for key in sheet.keys_under(f"train.{part}"):
            if sheet.claimed(key):
                continue
            if key.endswith(("._partial_", ".relative_step", ".warmup_init", ".scale_parameter", ".type")):
                sheet.honoured(key, "how the optimiser is made; here too")
            else:
                sheet.refused(key, "options of the optimiser keep their defaults")


# ---- loss and model ----

_LOSSES = {
    "MSELoss": ("none", ""),
    "MinSNRLoss": ("min_snr", ""),
    "SoftMinSNRLoss": ("soft_min_snr_cubed", "γ³/(snr²+γ³)"),
}


def _take_loss(sheet: Sheet) -> None:
    target = str(sheet.get("train.loss.criterion._target_", "torch.nn.MSELoss"))
    name = target.rpartition(".")[2]
    ours = _LOSSES.get(name, ("", ""))[0]
    key = "train.loss.criterion._target_"
    if ours in choices("loss.weighting"):
        sheet.translated(key, "loss.weighting", ours, f"{name} is called {ours} here, on the squared error")
    elif ours:
        sheet.put("loss.weighting", "soft_min_snr")
        sheet.refused(
            key, f"{name} with {_LOSSES[name][1]} is not here; the nearest was taken", "loss.weighting = soft_min_snr"
        )
    else:
        sheet.refused(key, "there is no such loss here; the plain squared error instead", "loss.weighting = none")
    gamma = number(sheet.get("train.loss.criterion.gamma"))
    if gamma is not None:
        sheet.taken("train.loss.criterion.gamma", "loss.snr_gamma", gamma)
    elif name.endswith("SNRLoss"):
        sheet.default("train.loss.criterion.gamma", "loss.snr_gamma", 1.0, "HCP's own default")
    sheet.honoured("train.loss.criterion._partial_", "how the loss is made")
    if sheet.get("train.loss.type") in (None, "eps"):
        sheet.honoured("train.loss.type", "what is predicted follows from the checkpoint")
    else:
        sheet.refused(
            "train.loss.type", "the error of the predicted picture is not here; noise or v, as the checkpoint"
        )
    scale = str(sheet.get("train.cfg_scale", "1.0"))
    if scale in ("1", "1.0", "None"):
        sheet.honoured("train.cfg_scale")
    else:
        sheet.refused("train.cfg_scale", "DreamArtist's training with a negative embedding is not supported")


def _take_model(sheet: Sheet) -> None:
    xl = "xl" in str(sheet.get("model.pretrained_model_name_or_path", "")).lower()
    skip = whole(sheet.get("model.clip_skip"))
    if skip is not None and xl:
        fits = skip == 1
        sheet.put("clip_skip", 1)
        sheet.note(
            "model.clip_skip",
            "translated" if fits else "not supported",
            "SDXL's own layer is the one before the last; that is Clip skip 1 of the web UI",
            "clip_skip = 1",
        )
    elif skip is not None:
        sheet.translated("model.clip_skip", "clip_skip", skip + 1, "HCP counts from 0, the web UI from 1")
    if sheet.flag("model.clip_final_norm", default=True) != xl:
        sheet.honoured("model.clip_final_norm", "as the web UI does for this kind of checkpoint")
    else:
        sheet.refused("model.clip_final_norm", "the last norm is used where the web UI uses it")
    repeats = whole(sheet.get("model.tokenizer_repeats"))
    if repeats:
        sheet.translated(
            "model.tokenizer_repeats",
            "data.max_tokens",
            75 * repeats,
            "HCP cuts captions after this many times 75 tokens",
        )
    decay = number(sheet.get("model.ema.decay_max"))
    for key in ("model.ema_unet", "model.ema_text_encoder"):
        value = number(sheet.get(key))
        if not value:
            sheet.honoured(key)
        else:
            sheet.taken(key, "schedule.ema_decay", value)
    if decay is not None:
        sheet.taken("model.ema.decay_max", "schedule.ema_decay", decay)
    for key in sheet.keys_under("model.ema"):
        if not sheet.claimed(key):
            missing("the average's warm-up has its own rule here")(sheet, key, sheet.get(key))
        if key.endswith(("._target_", "._partial_")):
            sheet.honoured(key, "how the average is made")


def _claim_plumbing(sheet: Sheet, used: set[str]) -> None:
    """Keys that exist to be referred to, and how objects are made."""
    for key in sheet.values:
        if sheet.claimed(key):
            continue
        if any(key == one or key.startswith(f"{one}.") for one in used):
            sheet.honoured(key, "used in other settings")
        elif key.rpartition(".")[2] in ("_partial_", "_recursive_", "_convert_"):
            sheet.honoured(key, "how an object is made")
