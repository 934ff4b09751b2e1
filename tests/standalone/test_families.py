"""SD2, SDXL and inpainting checkpoints standalone: known from headers, loaded, encoded, trained, saved and drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.config import run_from_dict
from lib_pivotal.errors import EmbeddingNameError, HostError
from lib_pivotal.evaluation.loading import load_on_host
from lib_pivotal.ports import Conditioning, ModelInfo, SampleRequest, SessionRequest
from lib_pivotal.standalone.families import Family, checkpoint_info, read_yaml
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.standalone.single_file import load_checkpoint
from lib_pivotal.standalone.text import StandaloneTextEncoder
from lib_pivotal.standalone.tokenizer import clip_tokenizer
from lib_pivotal.training.events import Notice, PicturesMade, StepDone
from lib_pivotal.training.schedule import rescale_zero_terminal_snr
from tests.standalone.tiny_families import FIRST, SD2_WIDTH, SECOND, make, text_model, write
from tests.training.runs import train

KINDS = {"sd1": ("sd1", 4), "sd2": ("sd2", 4), "sdxl": ("sdxl", 4), "inpaint": ("sd1", 9), "sdxl-inpaint": ("sdxl", 9)}
WIDTHS = {"sd1": (FIRST,), "sd2": (SD2_WIDTH,), "sdxl": (FIRST, SECOND)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    found = {}
    for name, (family, channels) in KINDS.items():
        checkpoint = make(family, channels=channels)
        found[name] = checkpoint, write(folder / f"{name}.safetensors", checkpoint)
    return found


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def host(files, kind):
    return StandaloneHost.load(files[kind][1])


def vectors(family, count=2, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(count, width, generator=generator).to(dtype) for width in WIDTHS[family])


def beside(host, latents):
    """What an inpainting checkpoint and SDXL see beside the text."""
    batch = latents.shape[0]
    sizes = torch.tensor([[96.0, 64, 0, 8, 64, 64]]).expand(batch, -1)
    concat = torch.linspace(-1, 1, batch * 5 * 64).view(batch, 5, 8, 8)
    return {
        "sizes": sizes if host.info.family == "sdxl" else None,
        "concat": concat if host.info.inpainting else None,
    }


# ---- loading ----


def test_loaded_as_it_was(files, host, kind):
    family, channels = KINDS[kind]
    checkpoint = files[kind][0]
    assert (host.info.family, host.info.inpainting, host.info.v_prediction) == (family, channels == 9, False)
    assert host.codec.scale_factor == (0.13025 if family == "sdxl" else 0.18215)
    assert host.text.widths == WIDTHS[family]
    for ours, theirs in zip(host.models(), checkpoint.models(), strict=True):
        wanted = theirs.state_dict()
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in ours.state_dict().items())
    assert host.denoiser.unet.config.attention_head_dim == checkpoint.unet.config.attention_head_dim


def test_layers_have_kohyas_names(host, kind):
    names = [layer.name for layer in host.layers()]
    assert len(set(names)) == len(names)
    prefixes = {name.split("_text_model")[0] for name in names if "text_model" in name}
    assert prefixes == ({"lora_te1", "lora_te2"} if KINDS[kind][0] == "sdxl" else {"lora_te"})
    assert {layer.part for layer in host.layers()} >= ({"te", "te2"} if len(prefixes) == 2 else {"te"})
    thirds = [name for name in names if name.endswith(("q_proj", "k_proj", "v_proj", "out_proj"))]
    assert len(thirds) == 4 * 2 * len(prefixes), "q, k, v and out of two layers a text encoder"


def test_markers_say_how_sdxl_predicts(files, tmp_path):
    checkpoint, plain = files["sdxl"]
    path = write(tmp_path / "marked.safetensors", checkpoint, markers=("v_pred", "ztsnr"))
    marked, unmarked = StandaloneHost.load(path), StandaloneHost.load(plain)
    assert marked.info.v_prediction and not unmarked.info.v_prediction
    assert marked.alphas_cumprod[-1] == 0 and unmarked.alphas_cumprod[-1] > 0
    torch.testing.assert_close(marked.alphas_cumprod, rescale_zero_terminal_snr(unmarked.alphas_cumprod))


@pytest.mark.parametrize(("shift", "predicts_v"), [(-5.0, True), (5.0, False)])
def test_sd2_is_asked_for_its_answer(files, tmp_path, shift, predicts_v):
    tensors = load_file(files["sd2"][1])
    tensors["model.diffusion_model.out.2.bias"] += shift
    save_file(tensors, tmp_path / "asked.safetensors")
    assert StandaloneHost.load(tmp_path / "asked.safetensors").info.v_prediction == predicts_v
    (tmp_path / "asked.yaml").write_text(f"model: {{params: {{parameterization: {'eps' if predicts_v else 'v'}}}}}")
    assert StandaloneHost.load(tmp_path / "asked.safetensors").info.v_prediction != predicts_v, "a yaml decides"


@pytest.mark.parametrize(("name", "used"), [("sd1", True), ("sd2", True), ("sdxl", False)])
def test_schedule_in_the_file_is_used_as_ldm_uses_it(files, tmp_path, name, used):
    """ldm has it as a buffer, which loading overwrites: a file in half precision has a rounded schedule."""
    computed = StandaloneHost.load(files[name][1]).alphas_cumprod
    save_file({**load_file(files[name][1]), "alphas_cumprod": computed.half()}, tmp_path / "half.safetensors")
    found = StandaloneHost.load(tmp_path / "half.safetensors").alphas_cumprod
    assert found.dtype is torch.float32 and not torch.equal(computed, computed.half().float())
    assert torch.equal(found, computed.half().float() if used else computed)


def test_older_layouts(files, tmp_path):
    old = {
        name.replace("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."): tensor
        for name, tensor in load_file(files["sd1"][1]).items()
    }
    save_file(old, tmp_path / "old.safetensors")
    loaded = load_checkpoint(tmp_path / "old.safetensors")
    wanted = files["sd1"][0].text_model.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.text_model.state_dict().items())


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_diffusers_folders(files, tmp_path, name):
    checkpoint = files[name][0]
    parts = {"unet": checkpoint.unet, "vae": checkpoint.vae, "text_encoder": checkpoint.text_model}
    if checkpoint.text_model_2 is not None:
        parts["text_encoder_2"] = checkpoint.text_model_2
    for part, model in parts.items():
        model.save_pretrained(tmp_path / part)
    loaded = load_checkpoint(tmp_path)
    assert loaded.family == name and len(loaded.models()) == len(checkpoint.models())
    host, same = StandaloneHost.load(tmp_path), StandaloneHost.load(files[name][1])
    assert host.codec.scale_factor == same.codec.scale_factor
    assert torch.equal(host.text.encode(["a cat"], {}).context, same.text.encode(["a cat"], {}).context)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"model.diffusion_model.x_embedder.proj.weight": (1,)}, "SD3"),
        ({"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": (1,)}, "Flux"),
        ({"conditioner.embedders.0.model.ln_final.weight": (1280,)}, "refiner.*Choose the base"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (64, 8, 3, 3)}, "instruct-pix2pix.*8 channels"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (64, 5, 3, 3)}, "depth-to-image.*5 channels"),
        ({"embedder.model.ln_final.weight": (1024,)}, "unCLIP"),
        ({"cond_stage_model.roberta.embeddings.word_embeddings.weight": (1,)}, "AltDiffusion"),
    ],
)
def test_other_kinds_are_refused_in_one_sentence(tmp_path, extra, reason):
    save_file({name: torch.zeros(shape) for name, shape in extra.items()}, tmp_path / "x.safetensors")
    with pytest.raises(HostError, match=reason) as caught:
        load_checkpoint(tmp_path / "x.safetensors")
    assert "Choose" in str(caught.value) and "\n" not in str(caught.value)


def test_refiner_folder_is_refused(tmp_path):
    (tmp_path / "text_encoder_2").mkdir()
    with pytest.raises(HostError, match="refiner"):
        load_checkpoint(tmp_path)


# ---- text ----


def padded(encoder, prompt, pad):
    """`(1, 77)`: start, tokens, end, padding."""
    tokenizer = clip_tokenizer()
    ids = [tokenizer.bos_token_id, *encoder.token_ids(prompt), tokenizer.eos_token_id]
    return torch.tensor([ids + [tokenizer.eos_token_id if pad is None else pad] * (77 - len(ids))])


@torch.no_grad()
def test_sd2_reads_the_last_layer_but_one_through_the_norm(files):
    """The file's last layer is left out, whatever clip skip says; chunks are filled with token 0."""
    checkpoint, path = files["sd2"]
    for skip in (1, 2):
        encoder = StandaloneHost.load(path, clip_skip=skip).text
        found = encoder.encode(["a red cat"], {})
        assert found.pooled is None
        wanted = checkpoint.text_model(padded(encoder, "a red cat", 0)).last_hidden_state
        torch.testing.assert_close(found.context, wanted)


@torch.no_grad()
def test_sdxl_reads_both_without_the_norm_and_the_pooled_output(files):
    checkpoint, path = files["sdxl"]
    encoder = StandaloneHost.load(path, clip_skip=2).text
    found = encoder.encode(["a red cat"], {})
    first = checkpoint.text_model(padded(encoder, "a red cat", None), output_hidden_states=True).hidden_states[-2]
    theirs = checkpoint.text_model_2(padded(encoder, "a red cat", 0), output_hidden_states=True)
    torch.testing.assert_close(found.context, torch.cat([first, theirs.hidden_states[-2]], dim=-1))
    torch.testing.assert_close(found.pooled, theirs.text_embeds)
    emphasised = encoder.encode(["a (red:1.4) cat"], {})
    torch.testing.assert_close(emphasised.pooled, found.pooled)
    assert not torch.equal(emphasised.context, found.context)


@torch.no_grad()
def test_pooled_output_is_the_first_chunks(files):
    encoder = StandaloneHost.load(files["sdxl"][1]).text
    found = encoder.encode(["a cat BREAK a dog", "a cat", "a cat BREAK a dog"], {})
    alone = encoder.encode(["a cat"], {})
    assert found.context.shape == (3, 154, FIRST + SECOND) and found.pooled.shape == (3, SECOND)
    for row in found.pooled:
        torch.testing.assert_close(row, alone.pooled[0])
    torch.testing.assert_close(found.context[1, :77], alone.context[0])


def test_gradients_of_both_towers_and_pooled_against_finite_differences():
    first, second = text_model(FIRST), text_model(SECOND, openclip_kind=True, projected=True)
    models = [model.double().requires_grad_(False).eval() for model in (first, second)]
    encoder = StandaloneTextEncoder(models[0], clip_tokenizer(), second=models[1], family="sdxl")
    embedding = tuple(tensor.requires_grad_() for tensor in vectors("sdxl", 1, dtype=torch.float64))

    def loss(left, right):
        found = encoder.encode(["(aoi:1.3), red", "aoi"], {"aoi": (left, right)})
        return sum(
            (t * torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view_as(t)).sum()
            for t in (found.context, found.pooled)
        )

    loss(*embedding).backward()
    for tower, tensor in enumerate(embedding):
        for column in (0, 7, 41):
            step = torch.zeros_like(tensor)
            step[0, column] = 1e-5
            with torch.no_grad():
                ends = [
                    loss(*(t + sign * step if i == tower else t for i, t in enumerate(embedding))) for sign in (1, -1)
                ]
            assert float(ends[0] - ends[1]) / 2e-5 == pytest.approx(float(tensor.grad[0, column]), rel=1e-5, abs=1e-7)


def test_embeddings_of_another_family_are_refused(files):
    encoder = StandaloneHost.load(files["sdxl"][1]).text
    with pytest.raises(EmbeddingNameError, match=r"'aoi' has 1 tensor\(s\).*2 text"):
        encoder.encode(["aoi"], {"aoi": (torch.zeros(1, FIRST),)})


def test_html_entities_are_resolved_for_openclip_only(files):
    towers = StandaloneHost.load(files["sdxl"][1]).text.towers
    assert towers[1].token_ids("a &amp;amp; b") == towers[1].token_ids("a & b")
    assert towers[0].token_ids("a & b") == towers[1].token_ids("a & b")


# ---- the U-Net and training ----


def test_everything_beside_the_text_matters_and_carries_gradient(host):
    latents = torch.linspace(-1, 1, 256).view(1, 4, 8, 8)
    embedding = tuple(tensor.requires_grad_() for tensor in vectors(host.info.family))
    with host.session(SessionRequest()):
        found = host.text.encode(["aoi"], {"aoi": embedding})
        more = beside(host, latents)
        conditioning = Conditioning(found.context, found.pooled, **more)
        prediction = host.denoiser(latents, torch.tensor([400]), conditioning)
        assert prediction.shape == latents.shape
        prediction.square().sum().backward(retain_graph=True)
        assert all(tensor.grad.abs().sum() > 0 for tensor in embedding)
        for name, tensor in more.items():
            if tensor is not None:
                changed = Conditioning(found.context, found.pooled, **{**more, name: tensor * 2})
                assert not torch.equal(host.denoiser(latents, torch.tensor([400]), changed), prediction), name
        if found.pooled is not None:
            only_pooled = Conditioning(found.context.detach(), found.pooled, **more)
            loss = host.denoiser(latents, torch.tensor([400]), only_pooled).square().sum()
            grads = torch.autograd.grad(loss, embedding, allow_unused=True)
            assert grads[0] is None and grads[1].abs().sum() > 0, "only OpenCLIP's tower is pooled"


def test_missing_conditioning_is_said(files):
    sdxl, inpainting = (StandaloneHost.load(files[name][1]) for name in ("sdxl", "inpaint"))
    latents, time = torch.zeros(1, 4, 8, 8), torch.tensor([4])
    with pytest.raises(HostError, match="pooled text and the sizes"):
        sdxl.denoiser(latents, time, Conditioning(torch.zeros(1, 77, FIRST + SECOND)))
    with pytest.raises(HostError, match="takes 9 channels, 4"):
        inpainting.denoiser(latents, time, Conditioning(torch.zeros(1, 77, FIRST)))


def plain_run(folder, *, preview=0, **memory):
    return run_from_dict(
        {
            "name": "two",
            "words": [{"name": "aoi", "init_text": "red hair", "vectors": 2}, {"name": "hana", "vectors": 1}],
            "embeddings_common": {"control": "clip_ti_decay"},
            "network": {"unet_rank": 2, "te_rank": 2, "te_targets": "attention+mlp", "te_lr": 1e-3, "unet_lr": 1e-2},
            "data": {"folder": str(folder), "resolution_px": 64},
            "schedule": {"max_steps": 4, "batch_size": 2},
            "saving": {"state_every_steps": 0, "dtype": "fp32", "preview_every_steps": preview},
            "memory": memory,
        }
    )


def test_a_run_is_trained_saved_read_back_and_drawn(host, two_embeddings_folder, tmp_path):
    events = []
    ended = train(plain_run(two_embeddings_folder, preview=4), host, output_folder=tmp_path, listener=events.append)
    assert ended.reason == "finished", ended.message
    losses = [event.losses["loss"] for event in events if isinstance(event, StepDone)]
    assert len(losses) == 4 and np.isfinite(losses).all()
    (pictures,) = [event for event in events if isinstance(event, PicturesMade)]
    assert len(pictures.cells) == 4, "four rows"

    family = host.info.family
    bundle = require(read_bundle(ended.bundle))
    assert [tuple(t.shape) for t in bundle.embeddings["aoi"]] == [(2, width) for width in WIDTHS[family]]
    versions = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}
    assert bundle.metadata["ss_base_model_version"] == versions[family]
    if family == "sdxl":
        assert any(key.startswith("lora_te2_") for key in bundle.network)
        assert all("_blocks_" in key for key in bundle.network if key.startswith("lora_unet_"))
    moved = [key for key, tensor in bundle.network.items() if key.endswith("lora_up.weight") and tensor.abs().max() > 0]
    assert {key.split("_")[1] for key in moved} == {"unet", "te1", "te2"} if family == "sdxl" else {"unet", "te"}

    embeddings, network = load_on_host(host, bundle)
    request = SampleRequest("aoi, smile", "", 64, 64, 2, 4.0, 7)
    with network.attach():
        (with_network,) = host.sample([request], embeddings)
    (bare,) = host.sample([request], embeddings)
    assert np.abs(np.asarray(with_network).astype(int) - np.asarray(bare)).max() > 0


@pytest.mark.parametrize(("name", "precision"), [("sd1", "bf16"), ("sd2", "fp16"), ("sdxl", "bf16"), ("sdxl", "fp16")])
def test_half_precision_weights_with_embeddings_in_fp32(files, two_embeddings_folder, tmp_path, name, precision):
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    losses = {}
    for kind in (torch.float32, dtype):
        host, events = StandaloneHost.load(files[name][1], dtype=kind), []
        out = tmp_path / str(kind)
        ended = train(plain_run(two_embeddings_folder), host, output_folder=out, listener=events.append)
        assert ended.reason == "finished", ended.message
        losses[kind] = [event.losses["loss"] for event in events if isinstance(event, StepDone)]
        assert {p.dtype for model in host.models() for p in model.parameters()} == {kind}
        bundle = require(read_bundle(ended.bundle))
        for tensor in (
            *bundle.network.values(),
            *(tensor for towers in bundle.embeddings.values() for tensor in towers),
        ):
            rounded = tensor.to(dtype).float()
            moved = tensor.dim() > 0 and bool(tensor.any())
            assert not moved or not torch.equal(rounded, tensor), "trained in fp32, whatever the weights are"
    assert losses[dtype] == pytest.approx(losses[torch.float32], rel=0.05)


@pytest.mark.parametrize("name", ["sd2", "sdxl"])
def test_checkpointing_changes_no_loss(files, two_embeddings_folder, tmp_path, name):
    found = []
    for on in (False, True):
        events = []
        run = plain_run(two_embeddings_folder, gradient_checkpointing=on)
        train(run, StandaloneHost.load(files[name][1]), output_folder=tmp_path / str(on), listener=events.append)
        found.append([event.losses["loss"] for event in events if isinstance(event, StepDone)])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_autoencoder_that_overflows_in_half_precision_is_said_and_trained_with(files, two_embeddings_folder, tmp_path):
    host, events = StandaloneHost.load(files["sd1"][1]), []
    with torch.no_grad():
        host.codec.vae.encoder.conv_in.weight.mul_(2.0**18)
    host.codec.vae.half()
    ended = train(plain_run(two_embeddings_folder), host, output_folder=tmp_path, listener=events.append)
    assert ended.reason == "finished", ended.message
    told = [event.message for event in events if isinstance(event, Notice)]
    assert sum("encoded in fp32 instead" in message for message in told) == 1
    assert host.codec.vae.dtype is torch.float16
    assert all(np.isfinite(event.losses["loss"]) for event in events if isinstance(event, StepDone))


# ---- what is known without the weights ----


def _loaded(path: Path) -> tuple[str, bool, bool]:
    checkpoint = load_checkpoint(path)
    inpainting = checkpoint.unet.config.in_channels == 9
    return checkpoint.family, checkpoint.prediction_type == "v_prediction", inpainting


def _glanced(info: ModelInfo) -> tuple[str, bool, bool]:
    return info.family, info.v_prediction, info.inpainting


@pytest.mark.parametrize(
    ("family", "channels", "markers"),
    [("sd1", 4, ()), ("sd2", 4, ()), ("sdxl", 4, ()), ("sdxl", 4, ("v_pred",)), ("sd1", 9, ()), ("sdxl", 9, ())],
)
def test_a_file_as_it_is_loaded(tmp_path: Path, family: Family, channels: int, markers: tuple[str, ...]) -> None:
    path = write(tmp_path / "tiny.safetensors", make(family, channels=channels), markers=markers)
    info = checkpoint_info(path)
    assert _glanced(info) == _loaded(path) and info.name == "tiny"


@pytest.mark.parametrize(("kind", "predicts_v"), [("v", True), ("eps", False)])
def test_a_yaml_beside_says_what_sd2_predicts(tmp_path: Path, kind: str, predicts_v: bool) -> None:
    path = write(tmp_path / "tiny.safetensors", make("sd2"))
    path.with_suffix(".yaml").write_text(f"model:\n  params:\n    parameterization: {kind}\n", encoding="utf-8")
    assert _glanced(checkpoint_info(path)) == ("sd2", predicts_v, False) == _loaded(path)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_folder_as_diffusers_writes_it(tmp_path: Path, family: Family) -> None:
    checkpoint = make(family)
    parts = {"unet": checkpoint.unet, "vae": checkpoint.vae, "text_encoder": checkpoint.text_model}
    parts |= {"text_encoder_2": checkpoint.text_model_2} if checkpoint.text_model_2 is not None else {}
    for name, model in parts.items():
        model.save_pretrained(tmp_path / name)
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    assert _glanced(checkpoint_info(tmp_path)) == (family, True, False) == _loaded(tmp_path)


def test_what_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(HostError, match="cannot be read as a checkpoint"):
        checkpoint_info(path)
    save_file({"lora_unet_x.alpha": torch.ones(1)}, path)
    with pytest.raises(HostError, match="it has no U-Net"):
        checkpoint_info(path)
    name = "model.diffusion_model.x_embedder.proj.weight"
    save_file({name: torch.ones(1)}, path)
    with pytest.raises(HostError, match="SD3"):
        checkpoint_info(path)
    with pytest.raises(HostError, match="no unet/config.json"):
        checkpoint_info(tmp_path)


def test_a_yaml_of_something_else_is_named(tmp_path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text("learning_rate: 1\n", encoding="utf-8")
    with pytest.raises(HostError, match=r"model\.yaml: no model\.params"):
        read_yaml(path)
    path.write_text(yaml.safe_dump({"model": {"params": {"scale_factor": 1.5}}}), encoding="utf-8")
    assert read_yaml(path) == {"scale_factor": 1.5}
    assert read_yaml(tmp_path / "none.yaml") == {}
