"""Checkpoints of kinds that are not trained here, SD3 and AltDiffusion, small enough for the live tests.

Run by the web UI's own Python (`python tiny_foreign.py WEBUI FOLDER CLIP_FOLDER HUB NAME ...`). The web UI takes their
tokenizers from the hub's cache: HUB is such a cache, and becomes `$HUGGINGFACE_HUB_CACHE`. Nothing is downloaded: an
SD3 file that holds its text encoders, as many do, needs no further file. Also copied into an extension's scripts
folder, where it makes the web UI's own classes of these two build fewer layers.
"""

import json
import shutil
import sys
from pathlib import Path

LAYERS = 3
"""Of SD3's text encoders: it takes the last but one."""
ROBERTA = {
    "num_hidden_layers": 2,
    "vocab_size": 300,
    "hidden_size": 1024,
    "intermediate_size": 256,
    "max_position_embeddings": 514,
}
"""XLM-RoBERTa's width and few of everything else."""
SNAPSHOT = "0" * 40


def shrink():
    """Inside the web UI: few layers, and a tokenizer that needs no sentencepiece."""
    import transformers
    from modules import xlmr
    from modules.models.sd3 import sd3_cond

    class Small(transformers.XLMRobertaConfig):
        def __setattr__(self, name, value):
            super().__setattr__(name, ROBERTA.get(name, value))

    xlmr.XLMRobertaConfig = Small
    xlmr.XLMRobertaTokenizer = transformers.XLMRobertaTokenizerFast
    for config in (sd3_cond.CLIPL_CONFIG, sd3_cond.CLIPG_CONFIG):
        config["num_hidden_layers"] = LAYERS


def tokenizer(specials, before, after):
    """tokenizer.json of a unigram model: the special tokens, then one token a letter."""
    letters = ["▁", *map(chr, range(33, 127))]
    vocabulary = [*((special, 0.0) for special in specials), *((letter, -10.0) for letter in letters)]
    ids = {special: number for number, special in enumerate(specials)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    around = [{"SpecialToken": {"id": one, "type_id": 0}} for one in before]
    around += [{"Sequence": {"id": "A", "type_id": 0}}]
    around += [{"SpecialToken": {"id": one, "type_id": 0}} for one in after]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": special, **flags} for special, number in ids.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": around,
            "pair": [*around, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {one: {"id": one, "ids": [ids[one]], "tokens": [one]} for one in {*before, *after}},
        },
        "decoder": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
        "model": {"type": "Unigram", "unk_id": ids["<unk>"], "vocab": vocabulary},
    }


def write_hub(hub, clip_folder):
    """The three tokenizers as the hub's cache has them."""

    def snapshot(name):
        folder = Path(hub) / f"models--{name.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text(SNAPSHOT, encoding="utf-8")
        (folder / "snapshots" / SNAPSHOT).mkdir(parents=True, exist_ok=True)
        return folder / "snapshots" / SNAPSHOT

    clip = snapshot("openai/clip-vit-large-patch14")
    for file in sorted(Path(clip_folder).iterdir()):
        shutil.copyfile(file, clip / file.name)
    for name, specials, before, after in (
        ("google/t5-v1_1-xxl", ("<pad>", "</s>", "<unk>"), (), ("</s>",)),
        ("xlm-roberta-large", ("<s>", "<pad>", "</s>", "<unk>", "<mask>"), ("<s>",), ("</s>",)),
    ):
        text = json.dumps(tokenizer(specials, before, after), ensure_ascii=False)
        (snapshot(name) / "tokenizer.json").write_text(text, encoding="utf-8")


def sd3():
    """What the web UI looks at (sd3_impls.py, `BaseModel`; sd3_cond.py, `before_load_weights`); the rest stays 0."""
    import torch

    depth, patches, width = 2, 192 * 192, 2 * 64
    shapes = {
        "x_embedder.proj.weight": (width, 16, 2, 2),
        "pos_embed": (1, patches, width),
        "y_embedder.mlp.0.weight": (width, 2048),
        "context_embedder.weight": (width, 4096),
        "final_layer.linear.weight": (2 * 2 * 16, width),
    }
    assert depth * 64 == width
    tensors = {f"model.diffusion_model.{key}": 0.02 * torch.randn(shape) for key, shape in shapes.items()}
    for name, columns in (("clip_l", 768), ("clip_g", 1280)):
        place = f"text_encoders.{name}.transformer.text_model.embeddings.position_embedding.weight"
        tensors[place] = 0.02 * torch.randn(77, columns)
    return tensors, None


def xlmr(clip_folder):
    """SD1 with XLM-RoBERTa for a text encoder."""
    import tiny_families
    import torch
    import transformers
    from ldm.util import instantiate_from_config
    from omegaconf import OmegaConf

    config = tiny_families.sd1(clip_folder)
    model = instantiate_from_config(OmegaConf.create(config)).state_dict()
    tensors = {key: value for key, value in model.items() if not key.startswith("cond_stage_model.")}
    settings = transformers.XLMRobertaConfig(**ROBERTA, num_attention_heads=16, type_vocab_size=1)
    text = transformers.XLMRobertaModel(settings).state_dict()
    tensors |= {f"cond_stage_model.roberta.{key}": value for key, value in text.items()}
    for key, value in torch.nn.Linear(ROBERTA["hidden_size"], 768).state_dict().items():
        tensors[f"cond_stage_model.transformation.{key}"] = value
    config["params"]["cond_stage_config"] = {
        "target": "modules.xlmr.BertSeriesModelWithTransformation",
        "params": {"name": "XLMR-Large"},
    }
    return tensors, {"model": config}


def main(webui, folder, clip_folder, hub, *names):
    """Write `NAME.safetensors`, and its yaml where it is not the web UI's own, for each of `names`; and the hub."""
    import tiny_families
    import torch
    from omegaconf import OmegaConf
    from safetensors.torch import save_file

    tiny_families.prepare(webui, clip_folder)
    write_hub(hub, clip_folder)
    for name in names:
        torch.manual_seed(0)
        tensors, config = sd3() if name == "sd3" else xlmr(clip_folder)
        tensors = {key: value.contiguous().clone() for key, value in tensors.items()}
        save_file(tensors, str(Path(folder) / f"{name}.safetensors"))
        if config is not None:
            yaml = Path(folder) / f"{name}.yaml"
            yaml.write_text(OmegaConf.to_yaml(OmegaConf.create(config)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
elif "lib_pivotal" not in str(__file__):
    shrink()
