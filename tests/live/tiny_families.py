"""Random checkpoints with the text encoders' true widths, two layers deep: SD2 and SDXL for the live tests.

Run by the web UI's own Python (`python tiny_families.py WEBUI FOLDER CLIP_FOLDER`), since the web UI's libraries build
the models; also copied into an extension's scripts folder, where it tells open_clip the small architectures.
Nothing is downloaded.
"""

import json
import sys
from pathlib import Path

ARCHITECTURES = {"pivotal-tiny-h": 1024, "pivotal-tiny-bigg": 1280}
SD2_TEXT = {"target": "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder"}
AUTOENCODER = {
    "embed_dim": 4,
    "ddconfig": {
        "double_z": True,
        "z_channels": 4,
        "resolution": 64,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    },
    "lossconfig": {"target": "torch.nn.Identity"},
}
UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": [1, 2],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_head_channels": 16,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "use_checkpoint": False,
    "legacy": False,
}


def add_architectures():
    """Make the small architectures known to open_clip."""
    import tempfile

    import open_clip

    folder = Path(tempfile.mkdtemp(prefix="pivotal_open_clip_"))
    for name, width in ARCHITECTURES.items():
        config = {
            "embed_dim": 64,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": width, "heads": 8, "layers": 2},
        }
        (folder / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(folder)


def sd2():
    """A configuration as v2-inference.yaml, small."""
    text = {**SD2_TEXT, "params": {"arch": "pivotal-tiny-h", "version": None, "layer": "penultimate"}}
    return {
        "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
        "params": {
            "linear_start": 0.00085,
            "linear_end": 0.012,
            "num_timesteps_cond": 1,
            "timesteps": 1000,
            "first_stage_key": "jpg",
            "cond_stage_key": "txt",
            "image_size": 8,
            "channels": 4,
            "cond_stage_trainable": False,
            "conditioning_key": "crossattn",
            "scale_factor": 0.18215,
            "use_ema": False,
            "unet_config": {
                "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
                "params": {**UNET, "image_size": 8, "transformer_depth": 1, "context_dim": 1024},
            },
            "first_stage_config": {"target": "ldm.models.autoencoder.AutoencoderKL", "params": AUTOENCODER},
            "cond_stage_config": text,
        },
    }


def sdxl(clip_folder):
    """A configuration as sd_xl_base.yaml, small."""
    sizes = [
        {
            "is_trainable": False,
            "input_key": key,
            "target": "sgm.modules.encoders.modules.ConcatTimestepEmbedderND",
            "params": {"outdim": 16},
        }
        for key in ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple")
    ]
    first = {"version": str(clip_folder), "layer": "hidden", "layer_idx": 1}
    second = {
        "arch": "pivotal-tiny-bigg",
        "version": None,
        "freeze": True,
        "layer": "penultimate",
        "always_return_pooled": True,
        "legacy": False,
    }
    module = "sgm.modules.diffusionmodules"
    return {
        "target": "sgm.models.diffusion.DiffusionEngine",
        "params": {
            "scale_factor": 0.13025,
            "disable_first_stage_autocast": True,
            "denoiser_config": {
                "target": f"{module}.denoiser.DiscreteDenoiser",
                "params": {
                    "num_idx": 1000,
                    "weighting_config": {"target": f"{module}.denoiser_weighting.EpsWeighting"},
                    "scaling_config": {"target": f"{module}.denoiser_scaling.EpsScaling"},
                    "discretization_config": {"target": f"{module}.discretizer.LegacyDDPMDiscretization"},
                },
            },
            "network_config": {
                "target": f"{module}.openaimodel.UNetModel",
                "params": {
                    **UNET,
                    "adm_in_channels": 64 + 3 * 2 * 16,
                    "num_classes": "sequential",
                    "transformer_depth": [1, 1],
                    "context_dim": 2048,
                    "spatial_transformer_attn_type": "softmax",
                },
            },
            "conditioner_config": {
                "target": "sgm.modules.GeneralConditioner",
                "params": {
                    "emb_models": [
                        {
                            "is_trainable": False,
                            "input_key": "txt",
                            "target": "sgm.modules.encoders.modules.FrozenCLIPEmbedder",
                            "params": first,
                        },
                        {
                            "is_trainable": False,
                            "input_key": "txt",
                            "target": "sgm.modules.encoders.modules.FrozenOpenCLIPEmbedder2",
                            "params": second,
                        },
                        *sizes,
                    ]
                },
            },
            "first_stage_config": {
                "target": "sgm.models.autoencoder.AutoencoderKLInferenceWrapper",
                "params": AUTOENCODER,
            },
        },
    }


def write(folder, name, config):
    """Build the model, fill it with random numbers, save it with its yaml."""
    import torch
    from ldm.util import instantiate_from_config
    from omegaconf import OmegaConf
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = instantiate_from_config(OmegaConf.create(config)).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1 and float(parameter.detach().abs().max()) == 0:
            torch.nn.init.normal_(parameter, std=0.02)
    for key, value in model.named_parameters():
        if key.endswith(("ln_final.bias", "final_layer_norm.bias")):
            value.data -= 0.1  # the web UI's emphasis divides by a mean that must not be 0
    tensors = {key: value.contiguous().clone() for key, value in model.state_dict().items()}
    tensors = {key: value for key, value in tensors.items() if not key.endswith("logit_scale")}
    save_file(tensors, str(folder / f"{name}.safetensors"))
    (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create({"model": config})), encoding="utf-8")


def main(webui, folder, clip_folder):
    """Write sd2.safetensors and sdxl.safetensors."""
    for repository in ("stable-diffusion-stability-ai", "generative-models"):
        sys.path.insert(0, str(webui / "repositories" / repository))
    import pytorch_lightning
    import transformers

    sys.modules["pytorch_lightning.utilities.distributed"] = pytorch_lightning.utilities.rank_zero
    config = transformers.CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=8,
        projection_dim=64,
    )
    (clip_folder / "config.json").write_text(config.to_json_string(), encoding="utf-8")
    transformers.CLIPTextModel.from_pretrained = classmethod(lambda kind, folder: kind(config))
    add_architectures()
    write(folder, "sd2", sd2())
    write(folder, "sdxl", sdxl(clip_folder))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
elif "lib_pivotal" not in str(__file__):
    add_architectures()
