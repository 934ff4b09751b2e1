"""Random checkpoints of every family with the text encoders' true widths, few layers deep, for the live tests.

Run by the web UI's own Python (`python tiny_families.py WEBUI FOLDER CLIP_FOLDER NAME ...`), since the web UI's
libraries build the models; also copied into an extension's scripts folder, where it tells open_clip the small
architectures. Nothing is downloaded.
"""

import json
import sys
from pathlib import Path

ARCHITECTURES = {"pivotal-tiny-h": (1024, 3), "pivotal-tiny-bigg": (1280, 2)}
"""Name of the open_clip architecture: width (as of ViT-H and ViT-bigG), layers."""

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
    "out_channels": 4,
    "model_channels": 64,
    "num_res_blocks": 2,
    "num_head_channels": 64,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "use_checkpoint": False,
    "legacy": False,
}
"""As in the real ones: two residual blocks a level, heads of 64, linear projections."""


def add_architectures():
    """Make the small architectures known to open_clip."""
    import tempfile

    import open_clip

    folder = Path(tempfile.mkdtemp(prefix="pivotal_open_clip_"))
    for name, (width, layers) in ARCHITECTURES.items():
        config = {
            "embed_dim": width,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
            "text_cfg": {
                "context_length": 77,
                "vocab_size": 49408,
                "width": width,
                "heads": width // 64,
                "layers": layers,
            },
        }
        (folder / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(folder)


def latent_diffusion(text, unet, *, v=False, inpainting=False):
    """A configuration as v1-inference.yaml and v2-inference.yaml have it, small."""
    kind = "LatentInpaintDiffusion" if inpainting else "LatentDiffusion"
    extra = {"finetune_keys": None} if inpainting else {}
    return {
        "target": f"ldm.models.diffusion.ddpm.{kind}",
        "params": {
            **extra,
            "parameterization": "v" if v else "eps",
            "linear_start": 0.00085,
            "linear_end": 0.012,
            "num_timesteps_cond": 1,
            "timesteps": 1000,
            "first_stage_key": "jpg",
            "cond_stage_key": "txt",
            "image_size": 8,
            "channels": 4,
            "cond_stage_trainable": False,
            "conditioning_key": "hybrid" if inpainting else "crossattn",
            "scale_factor": 0.18215,
            "use_ema": False,
            "unet_config": {
                "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
                "params": {**UNET, **unet, "in_channels": 9 if inpainting else 4, "image_size": 8},
            },
            "first_stage_config": {"target": "ldm.models.autoencoder.AutoencoderKL", "params": AUTOENCODER},
            "cond_stage_config": text,
        },
    }


def sd1(clip_folder, **kind):
    """SD1 has eight heads, and projections that are convolutions; its text encoder is CLIP-L."""
    text = {"target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder", "params": {"version": str(clip_folder)}}
    unet = {
        "attention_resolutions": [4, 2, 1],
        "channel_mult": [1, 2, 2, 2],
        "num_heads": 8,
        "num_head_channels": -1,
        "use_linear_in_transformer": False,
        "transformer_depth": 1,
        "context_dim": 768,
    }
    return latent_diffusion(text, unet, **kind)


def sd2(**kind):
    """SD2: OpenCLIP-H, whose last layer is left out."""
    text = {
        "target": "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder",
        "params": {"arch": "pivotal-tiny-h", "version": None, "layer": "penultimate"},
    }
    unet = {
        "attention_resolutions": [4, 2, 1],
        "channel_mult": [1, 2, 2, 2],
        "transformer_depth": 1,
        "context_dim": 1024,
    }
    return latent_diffusion(text, unet, **kind)


def embedder(key, target, params):
    """One of SDXL's embedders."""
    return {
        "is_trainable": False,
        "input_key": key,
        "target": f"sgm.modules.encoders.modules.{target}",
        "params": params,
    }


def sdxl(clip_folder, *, v=False, inpainting=False, ssd=False, refiner=False):
    """A configuration as sd_xl_base.yaml, small; SSD-1B's has the base's and loses layers when it is loaded."""
    sizes = ["original_size_as_tuple", "crop_coords_top_left", "aesthetic_score" if refiner else "target_size_as_tuple"]
    first = {"version": str(clip_folder), "layer": "hidden", "layer_idx": 1}
    second = {
        "arch": "pivotal-tiny-bigg",
        "version": None,
        "freeze": True,
        "layer": "penultimate",
        "always_return_pooled": True,
        "legacy": False,
    }
    towers = [
        embedder("txt", "FrozenCLIPEmbedder", first),
        embedder("txt", "FrozenOpenCLIPEmbedder2", second),
    ]
    embedders = [*towers[refiner:], *(embedder(key, "ConcatTimestepEmbedderND", {"outdim": 256}) for key in sizes)]
    module = "sgm.modules.diffusionmodules"
    kind = "V" if v else "Eps"
    unet = {
        "in_channels": 9 if inpainting else 4,
        "attention_resolutions": [4, 2],
        "channel_mult": [1, 2, 2],
        "adm_in_channels": 1280 + (5 if refiner else 6) * 256,
        "num_classes": "sequential",
        "transformer_depth": 1 if refiner else [0, 2, 10] if ssd else [1, 1, 2],
        "context_dim": 1280 if refiner else 2048,
        "spatial_transformer_attn_type": "softmax",
    }
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
                    "scaling_config": {"target": f"{module}.denoiser_scaling.{kind}Scaling"},
                    "discretization_config": {"target": f"{module}.discretizer.LegacyDDPMDiscretization"},
                },
            },
            "network_config": {"target": f"{module}.openaimodel.UNetModel", "params": {**UNET, **unet}},
            "conditioner_config": {"target": "sgm.modules.GeneralConditioner", "params": {"emb_models": embedders}},
            "first_stage_config": {
                "target": "sgm.models.autoencoder.AutoencoderKLInferenceWrapper",
                "params": AUTOENCODER,
            },
        },
    }


def pix2pix(clip_folder):
    """instruct-pix2pix: SD1 that takes the latents of the picture to be changed, too."""
    config = sd1(clip_folder)
    config["params"]["conditioning_key"] = "hybrid"
    config["params"]["unet_config"]["params"]["in_channels"] = 8
    return config


def depth():
    """SD2's depth-to-image, without the model that estimates depths."""
    config = sd2()
    config["target"] = "ldm.models.diffusion.ddpm.LatentDepth2ImageDiffusion"
    config["params"] |= {
        "finetune_keys": None,
        "conditioning_key": "hybrid",
        "depth_stage_config": {"target": "torch.nn.Identity"},
    }
    config["params"]["unet_config"]["params"]["in_channels"] = 5
    return config


def unclip():
    """SD2.1-unclip: the embedding of a picture is a second condition."""
    encoders = "ldm.modules.encoders.modules"
    width = ARCHITECTURES["pivotal-tiny-h"][0]
    config = sd2(v=True)
    config["target"] = "ldm.models.diffusion.ddpm.ImageEmbeddingConditionedLatentDiffusion"
    config["params"] |= {
        "conditioning_key": "crossattn-adm",
        "embedder_config": {
            "target": f"{encoders}.FrozenOpenCLIPImageEmbedder",
            "params": {"arch": "pivotal-tiny-h", "version": None},
        },
        "noise_aug_config": {
            "target": f"{encoders}.CLIPEmbeddingNoiseAugmentation",
            "params": {
                "timestep_dim": width,
                "noise_schedule_config": {"timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"},
            },
        },
    }
    config["params"]["unet_config"]["params"] |= {"num_classes": "sequential", "adm_in_channels": 2 * width}
    return config


def shrunk_to_ssd(tensors):
    """Without the layers that `convert_sdxl_to_ssd` (modules/sd_hijack.py of the web UI) takes out."""
    unet = "model.diffusion_model."
    gone = [f"{unet}middle_block.1.", f"{unet}middle_block.2."]
    gone += [f"{unet}{block}.1.transformer_blocks.{number}." for block in DEEP for number in range(4, 10)]
    gone += [f"{unet}output_blocks.{block}.1.transformer_blocks.1." for block in (4, 5)]
    return {key: value for key, value in tensors.items() if not key.startswith(tuple(gone))}


DEEP = ("input_blocks.7", "input_blocks.8", "output_blocks.0", "output_blocks.1")
"""Blocks of SDXL that lose six of ten transformers in SSD-1B."""


def configurations(clip_folder):
    """Name -> configuration, and the marker tensors that its file has."""
    return {
        "sd1": (sd1(clip_folder), ()),
        "sd2": (sd2(), ()),
        "sd2v": (sd2(v=True), ()),
        "sdxl": (sdxl(clip_folder), ()),
        "sdxlv": (sdxl(clip_folder, v=True), ("v_pred", "ztsnr")),
        "unmarked": (sdxl(clip_folder), ("v_pred",)),
        "sd1inpaint": (sd1(clip_folder, inpainting=True), ()),
        "sd2inpaint": (sd2(inpainting=True), ()),
        "sdxlinpaint": (sdxl(clip_folder, inpainting=True), ()),
        "ssd": (sdxl(clip_folder, ssd=True), ()),
        "refiner": (sdxl(clip_folder, refiner=True), ()),
        "pix2pix": (pix2pix(clip_folder), ()),
        "depth": (depth(), ()),
        "unclip": (unclip(), ()),
    }


IN_THE_WEB_UI = {"pix2pix": "modules.models.diffusion.ddpm_edit.LatentDiffusion"}
"""Classes of the web UI's own with the same tensors: its yaml names them."""


def write(folder, name, config, markers):
    """Build the model, fill it with random numbers, save it in fp16 with its yaml."""
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
    weights = dict(model.named_parameters())  # the noise schedule's buffers stay as exact as real files have them
    tensors = {key: value.half() if key in weights else value for key, value in tensors.items()}
    tensors = {key: value for key, value in tensors.items() if not key.endswith("logit_scale")}
    tensors = shrunk_to_ssd(tensors) if name == "ssd" else tensors
    tensors |= {marker: torch.tensor([]) for marker in markers}
    save_file(tensors, str(folder / f"{name}.safetensors"))
    config = {**config, "target": IN_THE_WEB_UI.get(name, config["target"])}
    (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create({"model": config})), encoding="utf-8")


def prepare(webui, clip_folder):
    """Make the web UI's libraries importable and build small models, in this process."""
    for repository in ("stable-diffusion-stability-ai", "generative-models"):
        sys.path.insert(0, str(Path(webui) / "repositories" / repository))
    import pytorch_lightning
    import transformers

    sys.modules["pytorch_lightning.utilities.distributed"] = pytorch_lightning.utilities.rank_zero
    config = transformers.CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=2,
        num_attention_heads=12,
        projection_dim=768,
    )
    (Path(clip_folder) / "config.json").write_text(config.to_json_string(), encoding="utf-8")
    transformers.CLIPTextModel.from_pretrained = classmethod(lambda kind, folder: kind(config))
    add_architectures()


def main(webui, folder, clip_folder, *names):
    """Write `NAME.safetensors` with its yaml for each of `names` (of `configurations`)."""
    prepare(webui, clip_folder)
    for name in names:
        write(Path(folder), name, *configurations(clip_folder)[name])


if __name__ == "__main__":
    main(*sys.argv[1:])
elif "lib_pivotal" not in str(__file__):
    add_architectures()
