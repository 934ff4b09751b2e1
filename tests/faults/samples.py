"""Small good files of every sort that the project reads: what hostile files are made of."""

from __future__ import annotations

import json
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import torch

from lib_pivotal.bundle.embedding_files import SUFFIXES, write_embedding
from lib_pivotal.bundle.metadata import with_embedding_facts
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.config import run_from_dict, run_to_dict
from lib_pivotal.training.state import save_state
from tests.training.runs import plain_run

Samples = dict[str, list[tuple[str, bytes]]]

KOHYA = """
pretrained_model_name_or_path = "sd15.safetensors"
network_module = "networks.lora"
network_dim = 16
network_args = ["rank_dropout=0.1"]
unet_lr = 1e-4
text_encoder_lr = 5e-5
train_batch_size = 2
max_train_steps = 800
lr_scheduler = "cosine"
lr_warmup_steps = 0.1
optimizer_type = "AdamW8bit"
optimizer_args = ["weight_decay=0.05", "betas=0.9,0.99"]
min_snr_gamma = 5
shuffle_caption = true
[picture_arguments]
resolution = "512,768"
max_token_length = 225
clip_skip = 2
[[datasets]]
resolution = 512
batch_size = 4
  [[datasets.subsets]]
  image_dir = "pictures"
  num_repeats = 3
"""
KOHYA_GUI = {
    "LoRA_type": "Standard", "network_dim": 32, "network_alpha": 16, "train_batch_size": "2", "learning_rate": "1e-4",
    "unet_lr": 1e-4, "text_encoder_lr": 0, "max_resolution": "768,768", "optimizer": "Prodigy", "lr_warmup": 10,
    "lr_scheduler": "cosine", "max_train_steps": "400", "epoch": "1", "noise_offset_type": "Multires", "seed": "",
    "multires_noise_iterations": 6, "additional_parameters": "--network_dropout 0.1", "max_train_epochs": "",
}  # fmt: skip
ONETRAINER = {
    "training_method": "LORA", "model_type": "STABLE_DIFFUSION_15", "batch_size": 4,
    "learning_rate": 1e-4, "epochs": 10, "embedding_learning_rate": 2e-3, "learning_rate_scheduler": "COSINE",
    "learning_rate_warmup_steps": 40,
    "lora_rank": 8, "lora_alpha": 4.0, "resolution": "768", "loss_weight_fn": "MIN_SNR_GAMMA",
    "min_noising_strength": 0.1,
    "optimizer": {"optimizer": "ADAMW_8BIT", "weight_decay": 0.02, "beta1": 0.9, "fused": True},
    "unet": {"train": True, "learning_rate": None}, "text_encoder": {"train": True, "learning_rate": 2e-5},
    "additional_embeddings": [{"placeholder": "<hero>", "token_count": 5, "initial_embedding_text": "girl"}],
    "output_model_destination": "models\\my lora.safetensors", "ema": "GPU", "ema_decay": 0.999,
    "layer_filter_preset": "attn-only", "concepts": [{"path": "pictures", "image": {"crop_jitter": True}}],
}  # fmt: skip
HCP = """
hero: surtr
train:
  train_steps: 900
  gradient_accumulation_steps: 1
  optimizer: {_target_: torch.optim.AdamW, _partial_: True, weight_decay: 1e-3}
  scale_lr: True
  scheduler: {name: constant_with_warmup, num_warmup_steps: 40, num_training_steps: 900}
  scheduler_pt: ${.scheduler}
  loss: {criterion: {_target_: hcpdiff.loss.MinSNRLoss, gamma: 2.0}, type: eps}
model: {pretrained_model_name_or_path: some/sd15, tokenizer_repeats: 3, clip_skip: 1}
tokenizer_pt:
  emb_dir: embs
  train: [{name: '${hero}', lr: 0.003}, {name: other-word, lr: 0.001}]
lora_unet:
  - {lr: 1e-4, rank: 8, layers: ['re:.*\\.attn.?$', 're:.*\\.ff$']}
lora_text_encoder:
  - {lr: 1e-5, rank: 4, alpha: 2, layers: ['re:.*self_attn$', 're:.*mlp$']}
data:
  dataset1:
    batch_size: 4
    source:
      one: {img_root: pics, caption_file: pics}
    bucket: {_target_: hcpdiff.data.bucket.RatioBucket.from_files, target_area: '${hcp.eval:"512*512"}', num_bucket: 5}
  dataset_class: {batch_size: 1, loss_weight: 0.7, source: {one: {img_root: class_pics}}}
"""


def make_samples() -> Samples:
    """Contents by sort, each with its ending."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            "bundles": _bundles(folder),
            "embeddings": _embeddings(folder),
            "states": _states(folder),
            "run.json": _runs(),
            "settings of other trainers": [
                (".toml", KOHYA.encode()),
                (".json", json.dumps(KOHYA_GUI).encode()),
                (".json", json.dumps(ONETRAINER).encode()),
                (".yaml", textwrap.dedent(HCP).encode()),
                (".yaml", b"_base_: [main.yaml, ../outside.yaml]\n" + textwrap.dedent(HCP).encode()),
            ],
        }


def _network() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    network = {}
    for layer in (
        "unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "te_text_model_encoder_layers_0_mlp_fc1",
    ):
        network[f"lora_{layer}.lora_up.weight"] = torch.randn(6, 2, generator=generator)
        network[f"lora_{layer}.lora_down.weight"] = torch.randn(2, 6, generator=generator)
        network[f"lora_{layer}.alpha"] = torch.tensor(1.0)
    return network


def _bundles(folder: Path) -> list[tuple[str, bytes]]:
    facts = {"aoi": {"vectors": 2, "weight": 0.8}, "hana": {"vectors": 1}}
    metadata = with_embedding_facts({"ss_base_model_version": "sd_v1-5", "ss_tag_frequency": '{"a": {"b": 1}}'}, facts)
    one = {"aoi": (torch.ones(2, 768),), "hana": (torch.zeros(1, 768),)}
    two = {"aoi": (torch.ones(2, 768), torch.ones(2, 1280))}
    made = [
        write_bundle(folder / "one.safetensors", network=_network(), embeddings=one, metadata=metadata),
        write_bundle(folder / "two.safetensors", network={}, embeddings=two, metadata={}),
        write_bundle(folder / "three.safetensors", network=_network(), embeddings={}, metadata={}, dtype=torch.float32),
    ]
    golden = Path(__file__).parents[1] / "golden"
    found = [(".safetensors", path.read_bytes()) for path in (*made, *sorted(golden.glob("lycoris_*.safetensors")))]
    torch.save({**_network(), "bundle_emb.aoi.string_to_param.*": torch.ones(1, 768)}, folder / "old.pt")
    return [*found, (".pt", (folder / "old.pt").read_bytes())]


def _embeddings(folder: Path) -> list[tuple[str, bytes]]:
    found = []
    for layout, suffix in SUFFIXES.items():
        for vectors in ((torch.ones(2, 768),), (torch.ones(2, 768), torch.ones(2, 1280))):
            path = write_embedding(folder / f"e{suffix}", vectors, name="aoi", layout=layout)
            found.append((suffix, path.read_bytes()))
    return found


def _states(folder: Path) -> list[tuple[str, bytes]]:
    content: dict[str, Any] = {
        "trainable": {"words": {"aoi": [torch.ones(2, 8)]}, "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}},
        "guard": {"skips": 0, "rollbacks": 0, "steps": 4},
        "images_seen": {"aoi": 4},
        "splits": 1,
        "basis": {"settings": run_to_dict(run_from_dict(plain_run("pictures"))), "pictures": {"a": "0"}},
        "tuple": (1, 2.5, None, float("inf")),
    }
    new = save_state(folder / "states", 4, content).read_bytes()
    torch.save({"format_version": 1, "step": 4, **content}, folder / "state.pt")
    return [(".safetensors", new), (".pt", (folder / "state.pt").read_bytes())]


def _runs() -> list[tuple[str, bytes]]:
    whole = run_to_dict(run_from_dict(plain_run("pictures")))
    return [(".json", json.dumps(plain).encode()) for plain in (whole, plain_run("pictures"), {"version": 1})]
