"""Ours against open_clip 2.20.0 itself: SD2's text encoder and SDXL's second, and networks on their fused q, k and v.

What is read of open_clip's model is written out below as sgm has it (`FrozenOpenCLIPEmbedder2.encode_with_transformer`
and `text_transformer_forward`, generative-models 45c443b, modules/encoders/modules.py; SD2's is the same with the final
norm after the last layer but one). open_clip's model is small, its weights are random, and it is loaded by our reader
from a file in which it stands under the names of its own `state_dict`.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel

from lib_pivotal.networks.network import Network, build_network
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.standalone.tokenizer import OpenClipTokenizer, clip_tokenizer
from tests.standalone.tiny_families import FIRST, SD2_WIDTH, SECOND, make, write

PROMPTS = (
    "a red cat, looking at viewer",
    "",
    "AOI's  “house” &amp; &amp;lt;garden&gt; — 1girl, ^_^, 日本 café",
    ", ".join(f"tag{number}" for number in range(18)),
)
"""The last one fills a chunk nearly to its end."""

PREFIXES = {"sd2": "cond_stage_model.model.", "sdxl": "conditioner.embedders.1.model."}
WIDTHS = {"sd2": SD2_WIDTH, "sdxl": SECOND}
LAYERS = {"sd2": 3, "sdxl": 2}
ALPHA_OVER_RANK = 0.5


@pytest.fixture(scope="module")
def open_clip() -> dict[str, ModuleType]:
    """open_clip's modules `model` and `tokenizer` without the package around them, which wants torchvision (for its
    encoders of pictures; only one name of it is asked for)."""
    assert AutoModel  # transformers must have looked for torchvision before something stands there
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("open_clip is not installed")
    package = ModuleType("open_clip")
    package.__path__ = list(spec.submodule_search_locations)
    names = ("torchvision", "torchvision.ops", "torchvision.ops.misc")
    stubs = {} if importlib.util.find_spec("torchvision") else {name: ModuleType(name) for name in names}
    if stubs:
        stubs[names[-1]].FrozenBatchNorm2d = nn.BatchNorm2d  # type: ignore[attr-defined]
    with mock.patch.dict(sys.modules, {"open_clip": package, **stubs}):
        return {name: importlib.import_module(f"open_clip.{name}") for name in ("model", "tokenizer")}


def make_clip(model: ModuleType, family: str) -> nn.Module:
    """open_clip's CLIP, small; what begins as zeros and ones is random, too."""
    width = WIDTHS[family]
    with torch.random.fork_rng():
        torch.manual_seed(5)
        found: nn.Module = model.CLIP(
            embed_dim=width,
            vision_cfg=model.CLIPVisionCfg(layers=1, width=64, image_size=32),
            text_cfg=model.CLIPTextCfg(width=width, heads=width // 64, layers=LAYERS[family]),
        )
        for parameter in found.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn(parameter.shape)
    del found.visual
    return found.eval().requires_grad_(False).double()


@pytest.fixture(scope="module", params=PREFIXES)
def pair(request, tmp_path_factory, open_clip) -> tuple[str, nn.Module, StandaloneHost]:
    """(family, open_clip's model, our host on a file with its weights), all in fp64."""
    family, folder = request.param, tmp_path_factory.mktemp("openclip")
    theirs, prefix = make_clip(open_clip["model"], family), PREFIXES[family]
    tensors = load_file(write(folder / "before.safetensors", make(family)))
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    tensors |= {prefix + name: tensor.float() for name, tensor in theirs.state_dict().items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "x.safetensors")
    return family, theirs, StandaloneHost.load(folder / "x.safetensors", dtype=torch.float64)


def encoded(theirs: nn.Module, family: str, tokens: Tensor, table_output: Tensor) -> tuple[Tensor, Tensor | None]:
    """`(batch, 77, width)` as SD2 or SDXL reads it, and SDXL's pooled output `(batch, width)`."""
    x = (table_output + theirs.positional_embedding).permute(1, 0, 2)
    before_last = x
    for block in theirs.transformer.resblocks:
        before_last, x = x, block(x, attn_mask=theirs.attn_mask)
    before_last, last = before_last.permute(1, 0, 2), theirs.ln_final(x.permute(1, 0, 2))
    if family == "sd2":
        return theirs.ln_final(before_last), None
    return before_last, last[torch.arange(len(tokens)), tokens.argmax(dim=-1)] @ theirs.text_projection


def ours_of(host: StandaloneHost, family: str, prompts: list[str], embeddings=None) -> tuple[Tensor, Tensor | None]:
    """Our encoding, without CLIP-L's columns."""
    found = host.text.encode(prompts, embeddings or {})
    return found.context[..., FIRST if family == "sdxl" else 0 :], found.pooled


def close(ours: tuple[Tensor, Tensor | None], theirs: tuple[Tensor, Tensor | None]) -> None:
    for found, wanted in zip(ours, theirs, strict=True):
        assert (found is None) == (wanted is None)
        if found is not None and wanted is not None:
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


# ---- text ----


def test_tokens_are_open_clips(open_clip):
    ours, theirs = OpenClipTokenizer(clip_tokenizer()), open_clip["tokenizer"].SimpleTokenizer()
    found = ours(list(PROMPTS), truncation=False, add_special_tokens=False)["input_ids"]
    assert found == [theirs.encode(prompt) for prompt in PROMPTS]


@torch.no_grad()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_hidden_states_pooled_output_and_padding(pair, open_clip, prompt):
    """open_clip's own tokens, 0 after the end token, through open_clip's own layers."""
    family, theirs, host = pair
    tokens = open_clip["tokenizer"].tokenize([prompt])
    assert tokens.shape == (1, 77) and (int(tokens[0, -1]) == 0 or len(prompt) > 80)
    wanted = encoded(theirs, family, tokens, theirs.token_embedding(tokens))
    close(ours_of(host, family, [prompt]), wanted)
    if wanted[1] is not None:
        torch.testing.assert_close(theirs.encode_text(tokens), wanted[1], rtol=0, atol=0)
    other = torch.where(tokens == 0, torch.tensor(49407), tokens)
    if not torch.equal(other, tokens):
        found = ours_of(host, family, [prompt])[0]
        assert (
            float((encoded(theirs, family, other, theirs.token_embedding(other))[0] - found).abs().max()) > 1e-3
        ), "the padding token shows"


@torch.no_grad()
def test_fp32_within_a_millionth(pair, open_clip):
    family, theirs, host = pair
    tokens = open_clip["tokenizer"].tokenize(list(PROMPTS))
    with in_type(torch.float32, theirs, *host.text.models):
        wanted = encoded(theirs, family, tokens, theirs.token_embedding(tokens))
        for ours, other in zip(ours_of(host, family, list(PROMPTS)), wanted, strict=True):
            if other is not None:
                assert float((ours - other).abs().max()) <= 1e-6 * float(other.abs().max())


@contextlib.contextmanager
def in_type(dtype: torch.dtype, *models: nn.Module) -> Iterator[None]:
    """Weights in another type for a while."""
    for model in models:
        model.to(dtype)
    try:
        yield
    finally:
        for model in models:
            model.double()


def test_embeddings_and_their_gradient(pair, open_clip):
    """A word's rows stand in the output of open_clip's token table, where its place-holders are."""
    family, theirs, host = pair
    widths = [FIRST, SECOND] if family == "sdxl" else [SD2_WIDTH]
    generator = torch.Generator().manual_seed(1)
    embedding = tuple(
        torch.randn(2, width, generator=generator, dtype=torch.float64).requires_grad_() for width in widths
    )
    tokens = open_clip["tokenizer"].tokenize(["a a a cat"])
    rows = embedding[-1].detach().clone().requires_grad_()
    table = theirs.token_embedding(tokens)
    wanted = encoded(theirs, family, tokens, torch.cat([table[:, :2], rows[None], table[:, 4:]], dim=1))
    ours = ours_of(host, family, ["a aoi cat"], {"aoi": embedding})
    close(ours, wanted)
    for found, leaf in ((ours, embedding[-1]), (wanted, rows)):
        sum((one**3).sum() for one in found if one is not None).backward()
        assert leaf.grad is not None
    torch.testing.assert_close(embedding[-1].grad, rows.grad, rtol=1e-10, atol=1e-12)


# ---- networks on the fused projection ----


@pytest.fixture
def network(pair) -> Network:
    """On all layers of the text encoder in question, not nothing, its factors in fp64."""
    family, _, host = pair
    part = "te2" if family == "sdxl" else "te"
    layers = [layer for layer in host.layers() if layer.part == part]
    found = build_network(layers, [LayerRule("", 4, 4 * ALPHA_OVER_RANK)], seed=0, device="cpu").double()
    generator = torch.Generator().manual_seed(2)
    for parameter in found.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return found


THIRDS = {"q_proj": 0, "k_proj": 1, "v_proj": 2}
WHOLE = {"self_attn_out_proj": "attn.out_proj", "mlp_fc1": "mlp.c_fc", "mlp_fc2": "mlp.c_proj"}


def place_in_open_clip(name: str, theirs: nn.Module) -> tuple[str, slice]:
    """open_clip's parameter and its rows that belong to the layer of this kohya name."""
    number, rest = name.split("_encoder_layers_")[1].split("_", 1)
    block = f"transformer.resblocks.{number}."
    if rest in WHOLE:
        return f"{block}{WHOLE[rest]}.weight", slice(None)
    third = THIRDS[rest.removeprefix("self_attn_")]
    width = theirs.token_embedding.weight.shape[1]
    return f"{block}attn.in_proj_weight", slice(third * width, (third + 1) * width)


def test_networks_are_changes_of_open_clips_own_weights(pair, open_clip, network):
    """Rows of `in_proj_weight` plus alpha / rank · up · down: the same outputs, and the gradients that follow."""
    family, theirs, host = pair
    kohya, changed = network.kohya_tensors(torch.float64), copy.deepcopy(theirs).requires_grad_()
    weights = dict(changed.named_parameters())
    places = {name: place_in_open_clip(name, theirs) for name in network.layer_names}
    for name, (path, rows) in places.items():
        delta = kohya[f"{name}.lora_up.weight"] @ kohya[f"{name}.lora_down.weight"]
        weights[path].data[rows] += ALPHA_OVER_RANK * delta
    kept = LAYERS[family] - (1 if family == "sd2" else 0)
    assert len(places) == 6 * kept, "q, k, v, out and the two of the MLP"
    assert len({path for path, _ in places.values()}) == 4 * kept

    tokens = open_clip["tokenizer"].tokenize([PROMPTS[0]])
    wanted = encoded(changed, family, tokens, changed.token_embedding(tokens))
    bare = ours_of(host, family, [PROMPTS[0]])[0]
    with network.attach():
        ours = ours_of(host, family, [PROMPTS[0]])
    close(ours, wanted)
    assert float((bare - ours[0].detach()).abs().max()) > 1e-2
    for found in (ours, wanted):
        sum((one**2).sum() for one in found if one is not None).backward()
    with network.merged():
        close(ours_of(host, family, [PROMPTS[0]]), wanted)

    for name, parameter in network.named_parameters():
        _, layer, factor = name.split(".")
        path, rows = places[layer]
        gradient = ALPHA_OVER_RANK * weights[path].grad[rows]
        if factor == "up":
            expected = gradient @ kohya[f"{layer}.lora_down.weight"].t()
        else:
            expected = kohya[f"{layer}.lora_up.weight"].t() @ gradient
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-8, atol=1e-10)
