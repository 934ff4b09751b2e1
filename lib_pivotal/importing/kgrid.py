"""kgrid's generated HCP files (anime_screenshot_pipeline, prepare_hcp.py and configs/hcp, c9e3fb8).

The main file sets `config_dir`, `exp_dir_base`, `emb_dir` and `emb_lr`, and rests on `train_base.yaml` and
`dataset.yaml` beside it, in which rates are not scaled by the batch. How words begin stands in `emb_init.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_pivotal.data.sources.kgrid_files import read_kgrid_files
from lib_pivotal.importing.hcp import import_hcp, is_hcp
from lib_pivotal.importing.reading import Origin
from lib_pivotal.importing.translation import ConfigTranslation

TITLE = "kgrid's HCP settings"
MARKS = ("exp_dir_base", "config_dir", "emb_dir", "emb_lr")
"""Keys of the main file that HCP itself does not have."""

VECTORS = 8
RANDOM_ROWS = "*[0.1,10]"
"""What prepare_hcp.py gives a word when nothing else is asked for: tags, then ten random rows, cut to eight."""

# fmt: off
_SCHEDULER = {"name": "constant_with_warmup", "num_warmup_steps": 1000, "num_training_steps": 50000}
KNOWN_BASES: Mapping[str, Mapping[str, Any]] = {
    "train_base.yaml": {
        "mixed_precision": "bf16",
        "seed": 114514,
        "train": {
            "train_steps": 50000, "gradient_accumulation_steps": 1, "max_grad_norm": 1.0, "save_step": 5000,
            "optimizer": {"_target_": "bitsandbytes.optim.AdamW8bit", "weight_decay": 1e-3},
            "optimizer_pt": {"_target_": "bitsandbytes.optim.AdamW8bit", "weight_decay": 5e-4},
            "scale_lr": False, "scheduler": _SCHEDULER, "scale_lr_pt": False, "scheduler_pt": "${.scheduler}",
        },
        "model": {"tokenizer_repeats": 2, "gradient_checkpointing": False, "clip_skip": 0, "clip_final_norm": True},
    },
    "dataset.yaml": {"data": {"dataset1": {
        "batch_size": 8, "bucket": {"_target_": "hcpdiff.data.bucket.RatioBucket.from_ratios", "target_area": 262144},
    }}},
}
# fmt: on
"""What the two files hold when nobody changed them; used where they do not lie beside the main file."""


def is_kgrid(plain: Mapping[str, Any]) -> bool:
    """Whether an HCP file was made by kgrid's pipeline."""
    return sum(mark in plain for mark in MARKS) >= 2 and is_hcp(plain)


def import_kgrid(plain: Mapping[str, Any], origin: Origin) -> ConfigTranslation:
    """As HCP's, with kgrid's own bases, and words that begin as `emb_init.json` beside the pictures says."""
    sheet = import_hcp(plain, origin, bases=KNOWN_BASES, one_folder=True)
    sheet.honoured([key for key in MARKS if not sheet.claimed(key)], "used in other settings")
    _begin_embeddings(sheet)
    return sheet


def _begin_embeddings(sheet: ConfigTranslation) -> None:
    """Init text for words whose file is not here: kgrid's tags and random rows."""
    embeddings = [dict(embedding) for embedding in sheet.read("embeddings")]
    folder = str(sheet.read("data.folder"))
    if not embeddings or all(embedding["init_file"] for embedding in embeddings):
        return
    found: Mapping[str, tuple[str, ...]] = {}
    for place in (Path(folder), Path(folder).parent) if folder else ():
        found = found or _initial(place)
    for embedding in embeddings:
        if not embedding["init_file"]:
            embedding["init_text"] = ", ".join([*found.get(embedding["name"], ()), RANDOM_ROWS])
            embedding["vectors"] = VECTORS
    sheet.put("embeddings", embeddings)
    sheet.remark(
        "Embeddings start as kgrid's script makes them: "
        f"{'the tags of emb_init, then ' if found else ''}{RANDOM_ROWS}, cut "
        f"to {VECTORS} vectors."
    )


def _initial(folder: Path) -> Mapping[str, tuple[str, ...]]:
    try:
        return read_kgrid_files(folder).initial if folder.is_dir() else {}
    except (OSError, ValueError):
        return {}
