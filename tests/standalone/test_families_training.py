"""Training SD2, SDXL, SSD-1B's shape and inpainting checkpoints standalone: which parts, towards what, and the file."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image
from safetensors.torch import load_file, save_file

from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.config import run_from_dict
from lib_pivotal.errors import NetworkError
from lib_pivotal.evaluation.loading import load_on_host
from lib_pivotal.ports import Conditioning, SampleRequest, SessionRequest
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.training import assemble, build
from lib_pivotal.training.events import StepDone
from tests.standalone.tiny_families import FIRST, SD2_WIDTH, SECOND, make, write
from tests.training.runs import train

KINDS = {
    "sd1": ("sd1", 4),
    "sd2": ("sd2", 4),
    "sdxl": ("sdxl", 4),
    "sd1-inpaint": ("sd1", 9),
    "sd2-inpaint": ("sd2", 9),
}
WIDTHS = {"sd1": (FIRST,), "sd2": (SD2_WIDTH,), "sdxl": (FIRST, SECOND)}
TABLES = {
    "sd1": ("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",),
    "sd2": ("cond_stage_model.model.token_embedding.weight",),
    "sdxl": (
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
        "conditioner.embedders.1.model.token_embedding.weight",
    ),
}
"""The vocabularies of a file, in the order of a word's tensors."""

MIDDLE = ("middle_block.1.", "middle_block.2.")
LESS = {
    "ssd": (*MIDDLE, "input_blocks.5.1.transformer_blocks.1.", "output_blocks.0.1.transformer_blocks.1."),
    "lean": (*MIDDLE, "input_blocks.5.1.transformer_blocks.1."),
}
"""What SDXL loses: as SSD-1B attention in the middle and transformers of the deepest blocks; or on the way in only."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    found = {
        name: write(folder / f"{name}.safetensors", make(family, channels=channels))
        for name, (family, channels) in KINDS.items()
    }
    for name, gone in LESS.items():
        found[name] = without(found["sdxl"], gone, folder / f"{name}.safetensors")
    return found


def without(sdxl, gone, path):
    """SDXL with fewer layers."""
    tensors = {
        n: t for n, t in load_file(sdxl).items() if not n.removeprefix("model.diffusion_model.").startswith(gone)
    }
    assert len(tensors) < len(load_file(sdxl))
    save_file(tensors, path)
    return path


def make_run(folder, *, name="x", steps=3, network=None, embeddings=None, **sections):
    plain = {
        "name": name,
        "words": [{"name": "aoi", "vectors": 2}, {"name": "hana", "vectors": 1}],
        "embeddings_common": {"control": "none", **(embeddings or {})},
        "network": {
            "unet_rank": 2,
            "unet_lr": 1e-2,
            "te_rank": 2,
            "te_lr": 1e-3,
            "te_targets": "attention+mlp",
            **(network or {}),
        },
        "data": {"folder": str(folder), "resolution_px": 64, "random_latent": False},
        "schedule": {"max_steps": steps, "batch_size": 2, "warmup_steps": 0, "rate": "constant"},
        "saving": {"state_every_steps": 0, "dtype": "fp32"},
    }
    return run_from_dict({**plain, **sections})


def trained(run, checkpoint, out):
    """The losses of a run to a good end on a file or a host, and what it saved."""
    events = []
    host = checkpoint if isinstance(checkpoint, StandaloneHost) else StandaloneHost.load(checkpoint)
    ended = train(run, host, output_folder=out, listener=events.append)
    assert ended.reason == "finished", ended.message
    losses = [event.losses["loss"] for event in events if isinstance(event, StepDone)]
    assert np.isfinite(losses).all()
    return losses, require(read_bundle(ended.bundle))


def moved(bundle):
    """Parts whose network has changed something: `unet`, `te`, `te1`, `te2`."""
    ups = {key: tensor for key, tensor in bundle.network.items() if key.endswith("lora_up.weight")}
    return {key.split("_")[1] for key, tensor in ups.items() if tensor.abs().max() > 0}


# ---- networks on either text encoder of SDXL ----


@pytest.mark.parametrize(
    ("network", "parts", "rates"),
    [
        ({}, {"unet", "te1", "te2"}, "0.001"),
        ({"te2_targets": "none"}, {"unet", "te1"}, "[0.001, 0.0]"),
        ({"te_targets": "none", "te2_targets": "attention"}, {"unet", "te2"}, "[0.0, 0.001]"),
        ({"te_lr": 0.0, "te2_lr": 4e-3}, {"unet", "te2"}, "[0.0, 0.004]"),
        ({"te2_lr": 4e-3, "unet_targets": "none"}, {"te1", "te2"}, "[0.001, 0.004]"),
        ({"te_targets": "none"}, {"unet"}, "None"),
    ],
)
def test_either_text_encoder_has_a_network(files, two_embeddings_folder, tmp_path, network, parts, rates):
    _, bundle = trained(make_run(two_embeddings_folder, network=network), files["sdxl"], tmp_path)
    assert {key.split("_")[1] for key in bundle.network} == parts == moved(bundle)
    assert bundle.metadata["ss_text_encoder_lr"] == rates


def test_embeddings_alone_in_half_of_the_micro_batches_of_sdxl(files, two_embeddings_folder, tmp_path):
    """Both tensors of an embedding learn where U-Net and both text encoders have no network, and they only there."""
    events = []
    plain = make_run(two_embeddings_folder, network={"module_dropout": 0.2, "timestep_max": 900, "l1": 0.03})
    schedule = replace(
        plain.schedule, max_steps=2, embeddings_only_share=0.5, embedding_gradient_factor=0.0, batch_size=4
    )
    run = replace(plain, schedule=schedule, loss=replace(plain.loss, dco_beta=1000.0))
    host = StandaloneHost.load(files["sdxl"])
    start = build.make_embeddings(
        assemble.embedding_starts(run.embeddings, run.embeddings_common), host.text, host.device, seed=run.seed
    ).as_mapping()
    ended = train(run, host, output_folder=tmp_path, listener=events.append)
    assert ended.reason == "finished", ended.message
    bundle = require(read_bundle(ended.bundle))
    assert moved(bundle) == {"unet", "te1", "te2"}
    assert all(not torch.equal(bundle.embeddings["aoi"][tower], start["aoi"][tower]) for tower in range(2))
    steps = [event.gradient_norms for event in events if isinstance(event, StepDone)]
    off = [norms for norms in steps if norms["unet"] == 0]
    assert len(steps) == 4 and len(off) == 2
    assert all(norms["te"] == norms["te2"] == 0 < norms["word aoi"] + norms["word hana"] for norms in off)


def test_rates_of_the_text_encoders(files, two_embeddings_folder):
    run = make_run(two_embeddings_folder, network={"te2_lr": 4e-3})
    host = StandaloneHost.load(files["sdxl"])
    embeddings = build.make_embeddings(
        assemble.embedding_starts(run.embeddings, run.embeddings_common), host.text, host.device, seed=run.seed
    )
    network = build.make_network(assemble.network_plan(run.network), host.layers(), host.device, seed=run.seed)
    groups = {
        group.name: group
        for group in build.trained_groups(
            assemble.paces(run.embeddings_common, run.network, run.schedule), embeddings, network
        )
    }
    assert {name: groups[name].lr for name in ("unet", "te", "te2")} == {"unet": 1e-2, "te": 1e-3, "te2": 4e-3}
    assert {groups[name].kind for name in ("te", "te2")} == {"te"}, "both begin and stop together"


def test_second_encoder_alone_is_refused_where_there_is_one(files, two_embeddings_folder, tmp_path):
    network = {"unet_targets": "none", "te_targets": "none", "te2_targets": "attention"}
    run, host = make_run(two_embeddings_folder, network=network), StandaloneHost.load(files["sd1"])
    with pytest.raises(NetworkError, match=r"te2_targets = 'attention'.*no second text encoder.*SDXL"):
        train(run, host, output_folder=tmp_path, listener=lambda event: None)


def test_gradient_through_the_pooled_output(files, two_embeddings_folder):
    """It alone reaches OpenCLIP's last layer, which the prompt's own conditioning leaves out; CLIP-L takes no part."""
    host = StandaloneHost.load(files["sdxl"])
    run = make_run(two_embeddings_folder)
    network = build.make_network(assemble.network_plan(run.network), host.layers(), host.device, seed=run.seed)
    latents = torch.linspace(-1, 1, 256).view(1, 4, 8, 8)
    sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]])

    def loss(use):
        found = host.text.encode(["a red cat"], {})
        context, pooled = (
            (found.context.detach(), found.pooled) if use == "pooled" else (found.context, found.pooled.detach())
        )
        return host.denoiser(latents, torch.tensor([400]), Conditioning(context, pooled, sizes)).square().sum()

    ups = {name: p for name, p in network.named_parameters() if "_te" in name and "up" in name}
    with host.session(SessionRequest()), network.attach():
        found = {
            use: dict(zip(ups, torch.autograd.grad(loss(use), list(ups.values()), allow_unused=True), strict=True))
            for use in ("pooled", "context")
        }
        reached = {
            use: {n for n, g in grads.items() if g is not None and g.abs().max() > 0} for use, grads in found.items()
        }
        second = {name for name in ups if "lora_te2_" in name}
        assert reached["pooled"] == second
        assert reached["context"] == {name for name in ups if "layers_0_" in name}

        last = next(n for n in second if "layers_1_mlp_fc2" in n)
        gradient, step, ends = found["pooled"][last], 1e-2, []
        for sign in (1, -1):
            with torch.no_grad():
                ups[last].add_(sign * step * gradient / gradient.norm())
                ends.append(float(loss("pooled")))
                ups[last].sub_(sign * step * gradient / gradient.norm())
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(gradient.norm()), rel=1e-2)


# ---- v-prediction on a schedule of zero terminal SNR ----


@pytest.fixture(scope="module")
def silent(files, tmp_path_factory):
    """SDXL whose U-Net always answers 0, so that a loss is the mean square of the target: with markers and without."""
    folder = tmp_path_factory.mktemp("silent")
    tensors = load_file(files["sdxl"])
    for name in ("model.diffusion_model.out.2.weight", "model.diffusion_model.out.2.bias"):
        tensors[name] = torch.zeros_like(tensors[name])
    save_file(tensors, folder / "eps.safetensors")
    save_file({**tensors, "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, folder / "v.safetensors")
    return {kind: StandaloneHost.load(folder / f"{kind}.safetensors") for kind in ("eps", "v")}


def at(timestep, weighting="none"):
    return {
        "noise": {"timestep_min": timestep, "timestep_max": timestep + 1},
        "loss": {"weighting": weighting, "snr_gamma": 5.0},
        "network": {"algorithm": "none"},
    }


def squares_of_latents(vae, folder):
    """Mean square of each picture's x0, by diffusers' autoencoder and SDXL's factor."""
    pixels = [np.asarray(Image.open(p).convert("RGB").resize((64, 64))) for p in sorted(folder.rglob("*.png"))]
    with torch.no_grad():
        batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 127.5 - 1
        return (vae.encode(batch).latent_dist.mean * 0.13025).square().flatten(1).mean(1)


def test_at_the_end_of_the_schedule_v_is_the_picture(silent, two_embeddings_folder, tmp_path):
    """a = 0: the input is noise and nothing else, v = -x0; min-SNR gives that no weight, as min(0, 5) / (0 + 1)."""
    squares = squares_of_latents(silent["v"].codec.vae, two_embeddings_folder)
    steps = len(squares) // 2
    losses, _ = trained(make_run(two_embeddings_folder, steps=steps, **at(999)), silent["v"], tmp_path)
    assert np.mean(losses) == pytest.approx(float(squares.mean()), rel=1e-3)
    weighted, _ = trained(make_run(two_embeddings_folder, steps=1, **at(999, "min_snr")), silent["v"], tmp_path)
    assert weighted == [0.0]


@pytest.mark.parametrize("timestep", [20, 900])
@pytest.mark.parametrize("kind", ["eps", "v"])
def test_weights_of_a_run_are_those_of_the_formulas_on_diffusers_schedule(
    silent, two_embeddings_folder, tmp_path, kind, timestep
):
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=kind == "v"
    )
    a = float(scheduler.alphas_cumprod[timestep])
    snr = a / (1 - a)
    formulas = {
        "min_snr": min(snr, 5) / (snr + 1 if kind == "v" else snr),
        "debiased": 1 / (snr + 1) if kind == "v" else snr**-0.5,
        "soft_min_snr": 5 / (snr + 5) * (snr / (snr + 1) if kind == "v" else 1),
    }
    plain, _ = trained(make_run(two_embeddings_folder, steps=1, **at(timestep)), silent[kind], tmp_path)
    for name, weight in formulas.items():
        weighted, _ = trained(make_run(two_embeddings_folder, steps=1, **at(timestep, name)), silent[kind], tmp_path)
        assert weighted[0] / plain[0] == pytest.approx(weight, rel=1e-3), name


def test_v_with_zero_terminal_snr_is_trained_end_to_end(files, two_embeddings_folder, tmp_path):
    tensors = load_file(files["sdxl"])
    path = tmp_path / "marked.safetensors"
    save_file({**tensors, "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, path)
    run = make_run(two_embeddings_folder, steps=4, loss={"weighting": "min_snr"}, noise={"timestep_min": 990})
    _, bundle = trained(run, path, tmp_path)
    assert moved(bundle) == {"unet", "te1", "te2"}
    assert bundle.metadata["modelspec.prediction_type"] == "v"
    assert bundle.metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"


# ---- the file ----


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "ssd", "sd2-inpaint"])
def test_the_file_gives_the_picture_of_the_live_network(files, tmp_path, two_embeddings_folder, kind):
    """Hooked or merged into the weights: the same bits as from the file, and hooks and merging agree."""
    host = StandaloneHost.load(files[kind])
    run = make_run(two_embeddings_folder)
    embeddings = build.make_embeddings(
        assemble.embedding_starts(run.embeddings, run.embeddings_common), host.text, host.device, seed=run.seed
    ).as_mapping()
    network = build.make_network(assemble.network_plan(run.network), host.layers(), host.device, seed=run.seed)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in network.named_parameters():
        if "up" in name:
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    stored = {name: tuple(tensor.detach() for tensor in towers) for name, towers in embeddings.items()}
    path = write_bundle(
        tmp_path / "live.safetensors",
        network=network.kohya_tensors(),
        embeddings=stored,
        metadata={},
        dtype=torch.float32,
    )
    file_embeddings, file_network = load_on_host(host, require(read_bundle(path)))

    def picture(net, vectors, way):
        with getattr(net, way)():
            (made,) = host.sample([SampleRequest("aoi, (smile:1.2)", "", 64, 64, 3, 4.0, 7)], vectors)
        return np.asarray(made).astype(int)

    live, merged = (picture(network, embeddings, way) for way in ("attach", "merged"))
    assert np.array_equal(live, picture(file_network, file_embeddings, "attach"))
    assert np.array_equal(merged, picture(file_network, file_embeddings, "merged"))
    assert np.abs(live - merged).max() <= 1, "another order of adding up"
    (bare,) = host.sample([SampleRequest("aoi, (smile:1.2)", "", 64, 64, 3, 4.0, 7)], embeddings)
    assert np.abs(live - np.asarray(bare)).max() > 1


@pytest.mark.parametrize("kind", ["sd2-inpaint", "ssd", "lean"])
def test_shapes_that_differ_are_trained(files, two_embeddings_folder, tmp_path, kind):
    host = StandaloneHost.load(files[kind])
    assert host.info.inpainting == (kind == "sd2-inpaint")
    _, bundle = trained(make_run(two_embeddings_folder), files[kind], tmp_path)
    assert moved(bundle) == ({"unet", "te"} if kind == "sd2-inpaint" else {"unet", "te1", "te2"})
    assert kind == "sd2-inpaint" or not any("middle_block_1" in key for key in bundle.network)
    embeddings, network = load_on_host(host, bundle)
    assert not network.unmatched and set(embeddings) == {"aoi", "hana"}


@pytest.mark.parametrize(
    ("kind", "version", "v2", "architecture", "implementation"),
    [
        ("sd1", "sd_v1", "False", "stable-diffusion-v1/lora", "diffusers"),
        ("sd2", "sd_v2", "True", "stable-diffusion-v2-512/lora", "diffusers"),
        (
            "sdxl",
            "sdxl_base_v1-0",
            "False",
            "stable-diffusion-xl-v1-base/lora",
            "https://github.com/Stability-AI/generative-models",
        ),
    ],
)
def test_metadata_is_kohyas(files, two_embeddings_folder, tmp_path, kind, version, v2, architecture, implementation):
    """kohya-ss/sd-scripts 48d368f: library/model_util.py:1081, library/sai_model_spec.py, train_network.py:1026."""
    _, bundle = trained(make_run(two_embeddings_folder, steps=1), files[kind], tmp_path)
    found = bundle.metadata
    assert (found["ss_base_model_version"], found["ss_v2"]) == (version, v2)
    assert (found["modelspec.architecture"], found["modelspec.implementation"]) == (architecture, implementation)
    assert (found["modelspec.prediction_type"], found["modelspec.resolution"]) == ("epsilon", "64x64")
    assert found["modelspec.trigger_phrase"] == "aoi, hana"
    assert (found["ss_network_module"], found["ss_network_dim"]) == ("networks.lora", "2")
    assert set(json.loads(found["pivotal.words"])) == {"aoi", "hana"}


# ---- norms ----


@pytest.mark.parametrize("control", ["clip_ti_decay", "preserve_norm"])
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_embeddings_get_the_norms_of_each_encoders_own_embeddings(
    files, two_embeddings_folder, tmp_path, kind, control
):
    """At this rate either rule sets the norm; the encoders' vocabularies are of different size."""
    tensors = load_file(files[kind])
    targets = []
    for name, size in zip(TABLES[kind], (0.4, 2.5), strict=False):
        table = tensors[name].double()
        tensors[name] = (table * size / table.norm(dim=1).median()).float()
        targets.append(float(np.median(np.linalg.norm(tensors[name].numpy(), axis=1))))
    save_file(tensors, tmp_path / "scaled.safetensors")
    embeddings = {"control": control, "norm_target": "median", "lr": 0.02}
    run = make_run(two_embeddings_folder, embeddings=embeddings, network={"algorithm": "none"})
    _, bundle = trained(run, tmp_path / "scaled.safetensors", tmp_path)
    for towers in bundle.embeddings.values():
        assert [tensor.shape[1] for tensor in towers] == list(WIDTHS[kind])
        for tensor, target in zip(towers, targets, strict=True):
            np.testing.assert_allclose(np.linalg.norm(tensor.numpy(), axis=1), target, rtol=1e-4)
