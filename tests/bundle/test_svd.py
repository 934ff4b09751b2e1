"""LoRAs by singular values: what is written changes the model as its source did, as far as the report says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_pivotal.bundle.deltas import layer_delta
from lib_pivotal.bundle.listing import list_bundle
from lib_pivotal.bundle.low_rank import RankCut
from lib_pivotal.bundle.network_layouts import from_webui, group_layers
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.bundle.svd import extract, resize, to_lora
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import BundleError, FileNameError
from lib_pivotal.networks.network import Network
from lib_pivotal.standalone.families import Family
from lib_pivotal.standalone.model import StandaloneHost
from tests.standalone import tiny_families

EVERYTHING = RankCut(10_000)
NOT_TRAINED_HERE = (
    "lora_unet_conv_in", "lora_unet_conv_out", "lora_unet_time_embedding", "lora_unet_add_embedding",
    "lora_te_text_model_encoder_layers_2_",
)  # fmt: skip
"""Layers that no set of a run's has, so that the host does not list them; SD2's last layer is read by nobody."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], tuple[Path, Path]]:
    """(fine-tuned, base) of a family: one whose layers, biases and norms all moved a little."""
    made: dict[str, tuple[Path, Path]] = {}

    def of(family: Family) -> tuple[Path, Path]:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            base = tiny_families.write(folder / "base.safetensors", tiny_families.make(family))
            tuned = folder / "tuned.safetensors"
            generator = torch.Generator().manual_seed(1)
            weights = load_file(base)
            moved = {key: t + 0.02 * torch.randn(t.shape, generator=generator) for key, t in weights.items()}
            save_file(moved, tuned)
            made[family] = (tuned, base)
        return made[family]

    return of


def worst_difference(tuned: Path, base: Path, lora: Path) -> float:
    """How far `base` with the LoRA is from `tuned`, relative, in the layer where that is most, through the host."""
    host, wanted = (
        StandaloneHost.load(base),
        {layer.name: layer.module for layer in StandaloneHost.load(tuned).layers() if layer.kind != "norm"},
    )
    shape = list_shape(base)
    network = Network.from_kohya(host.layers(), from_webui(read_bundle(lora).network, shape))
    unmatched = {key.partition(".")[0] for key in network.unmatched}
    assert not [name for name in unmatched if not name.startswith(NOT_TRAINED_HERE)]
    assert set(network.layer_names) == set(wanted)
    with network.merged():
        return max(
            float((layer.module.weight - wanted[layer.name].weight).norm() / wanted[layer.name].weight.norm())
            for layer in host.layers()
            if layer.kind != "norm"
        )


def list_shape(path: Path) -> Any:
    from lib_pivotal.bundle.layer_names import checkpoint_shape

    return checkpoint_shape(path)


# ---- extract ----


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_at_full_rank_the_fine_tuned_weights_come_back(
    checkpoints: Callable[[Family], tuple[Path, Path]], family: Family, tmp_path: Path
) -> None:
    tuned, base = checkpoints(family)
    told: list[tuple[int, int, str]] = []
    report = extract(
        tuned, base, tmp_path / "x.safetensors", cut=EVERYTHING, dtype="fp32", progress=lambda *one: told.append(one)
    )
    assert report.lost < 1e-5 and all(layer.lost < 1e-5 for layer in report.layers)
    assert worst_difference(tuned, base, report.path) < 1e-5
    assert [done for done, _, _ in told] == list(range(1, told[-1][1] + 1)) and told[-1][1] == len(report.layers)
    assert "A LoRA has no place for" in " ".join(report.notes)
    summary = list_bundle(report.path)
    assert summary.parts == (("unet", "te", "te2") if family == "sdxl" else ("unet", "te"))
    assert summary.metadata["ss_v2"] == str(family == "sd2")
    assert summary.metadata["ss_base_model_version"].startswith({"sd1": "sd_v1", "sd2": "sd_v2"}.get(family, "sdxl"))


def test_what_is_lost_is_what_the_singular_values_say(
    checkpoints: Callable[[Family], tuple[Path, Path]], tmp_path: Path
) -> None:
    tuned, base = checkpoints("sd1")
    report = extract(tuned, base, tmp_path / "x.safetensors", cut=RankCut(4), dtype="fp32")
    after, before = load_file(tuned), load_file(base)
    key = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
    singular = torch.linalg.svdvals((after[key] - before[key]).flatten(1).double())
    layer = next(one for one in report.layers if one.name == "lora_unet_down_blocks_0_resnets_0_conv1")
    assert layer.rank == 4
    assert math.isclose(layer.lost, float(singular[4:].norm() / singular.norm()), rel_tol=1e-4)
    assert report.worst[0].lost == max(one.lost for one in report.layers) > report.lost > 0
    network = read_bundle(report.path).network
    down, up = (network[f"{layer.name}.lora_{half}.weight"] for half in ("down", "up"))
    assert down.shape[2:] == (3, 3) and up.shape[2:] == (1, 1)  # LoCon's form
    metadata = list_bundle(report.path).metadata
    assert metadata["ss_network_dim"] == "4" and float(metadata["ss_network_alpha"]) == 4
    assert json.loads(metadata["ss_network_args"]) == {"conv_dim": "4", "conv_alpha": "4.0"}
    assert metadata["ss_training_comment"] == "extracted by SVD (rank 4): tuned.safetensors minus base.safetensors"


def test_layers_that_are_alike_are_left_out(tmp_path: Path) -> None:
    base = tiny_families.write(tmp_path / "base.safetensors", tiny_families.make("sd1"))
    weights = load_file(base)
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    half = {name: tensor.half() for name, tensor in weights.items()}  # a copy in fp16 is no other checkpoint
    save_file({**half, key: half[key] + 1}, tmp_path / "tuned.safetensors")
    report = extract(tmp_path / "tuned.safetensors", base, tmp_path / "x.safetensors", cut=RankCut(2))
    assert [layer.name for layer in report.layers] == [
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    ]
    assert "layers are the same in both" in report.notes[0]
    assert {t.dtype for t in read_bundle(report.path).network.values()} == {torch.float16}
    save_file(half, tmp_path / "tuned.safetensors")
    with pytest.raises(BundleError, match="no layer differs"):
        extract(tmp_path / "tuned.safetensors", base, tmp_path / "y.safetensors", cut=RankCut(2))


def test_two_that_do_not_go_together(checkpoints: Callable[[Family], tuple[Path, Path]], tmp_path: Path) -> None:
    tuned, base = checkpoints("sd1")
    with pytest.raises(BundleError, match="is of SD1, .* of SDXL"):
        extract(tuned, checkpoints("sdxl")[1], tmp_path / "x.safetensors", cut=RankCut(2))
    wider = tiny_families.write(tmp_path / "wide.safetensors", tiny_families.make("sd1", channels=9))
    with pytest.raises(BundleError, match=r"lora_unet_conv_in is \[64, 4, 3, 3\] in .*, but \[64, 9, 3, 3\] in"):
        extract(tuned, wider, tmp_path / "x.safetensors", cut=RankCut(2))
    with pytest.raises(BundleError, match="cannot take the place of one that it is made from"):
        extract(tuned, base, base, cut=RankCut(2), overwrite=True)
    with pytest.raises(BundleError, match="no precision 'fp8'"):
        extract(tuned, base, tmp_path / "x.safetensors", cut=RankCut(2), dtype="fp8")


# ---- resize ----


@pytest.fixture
def bundle(network: dict[str, Tensor], embeddings: dict[str, tuple[Tensor, ...]], tmp_path: Path) -> Path:
    """A LoRA of ranks 4 and 2 with a convolution, and two embeddings."""
    conv = {
        "lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight": torch.randn(4, 8, 3, 3),
        "lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight": torch.randn(8, 4, 1, 1),
        "lora_unet_down_blocks_0_resnets_0_conv1.alpha": torch.tensor(1.0),
    }
    return write_bundle(
        tmp_path / "bundle.safetensors",
        network={**network, **conv},
        embeddings=embeddings,
        metadata={"ss_network_dim": "4", "ss_training_comment": "mine", "ss_network_args": '{"conv_dim": "4"}'},
        dtype=torch.float32,
    )


def deltas(path: Path) -> dict[str, Tensor]:
    return {name: layer_delta(layer).weight for name, layer in group_layers(read_bundle(path).network).items()}


def kohya_resized(layer: dict[str, Tensor], rank: int) -> tuple[Tensor, float]:
    """(up · down at the new rank, alpha) by kohya's steps: the product without its scale, cut, alpha = scale · rank."""
    up, down = layer["lora_up.weight"].double(), layer["lora_down.weight"].double()
    u, s, v = torch.linalg.svd(up.flatten(1) @ down.flatten(1))
    return u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank], float(layer["alpha"]) / down.shape[0] * rank


def test_resized_as_kohya_does(bundle: Path, tmp_path: Path) -> None:
    report = resize(bundle, tmp_path / "small.safetensors", cut=RankCut(3))
    before, after = (group_layers(read_bundle(path).network) for path in (bundle, report.path))
    for name, layer in before.items():
        if layer["lora_down.weight"].shape[0] <= 3:
            assert all(torch.equal(after[name][suffix], tensor) for suffix, tensor in layer.items())
            continue
        wanted, alpha = kohya_resized(layer, 3)
        found = after[name]["lora_up.weight"].double().flatten(1) @ after[name]["lora_down.weight"].double().flatten(1)
        assert torch.allclose(found, wanted, atol=1e-5)
        assert float(after[name]["alpha"]) == pytest.approx(alpha)
        assert after[name]["lora_down.weight"].shape == (3, *layer["lora_down.weight"].shape[1:])
    by_hand = {name: float((deltas(report.path)[name] - d).norm() / d.norm()) for name, d in deltas(bundle).items()}
    assert {layer.name: layer.lost for layer in report.layers} == pytest.approx(by_hand, rel=1e-4, abs=1e-6)
    metadata = list_bundle(report.path).metadata
    assert metadata["ss_network_dim"] == "3" and metadata["ss_output_name"] == "small"
    assert metadata["ss_training_comment"] == "dimension is resized from 4 to 3; mine"
    assert json.loads(metadata["ss_network_args"])["conv_dim"] == "3"


def test_embeddings_go_along_bit_for_bit(bundle: Path, tmp_path: Path) -> None:
    report = resize(bundle, tmp_path / "small.safetensors", cut=RankCut(rule="sv_fro", value=0.6))
    one, two = read_bundle(bundle), read_bundle(report.path)
    assert one.embeddings.keys() == two.embeddings.keys()
    assert all(torch.equal(a[0], b[0]) for a, b in zip(one.embeddings.values(), two.embeddings.values(), strict=True))
    assert list_bundle(report.path).metadata["ss_training_comment"] == "Dynamic resize with sv_fro 0.6 from 4; mine"
    for layer in report.layers:
        if layer.rank > 1:
            assert layer.lost <= math.sqrt(1 - 0.6**2) + 1e-6


def test_dora_and_norms_go_along(tmp_path: Path) -> None:
    network = {
        "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.randn(4, 8),
        "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": torch.randn(8, 4),
        "lora_unet_mid_block_attentions_0_proj_in.dora_scale": torch.rand(1, 8),
        "lora_unet_mid_block_attentions_0_norm.w_norm": torch.rand(8),
        "lora_unet_mid_block_attentions_0_norm.b_norm": torch.rand(8),
    }
    path = write_bundle(tmp_path / "x.safetensors", network=network, embeddings={}, metadata={}, dtype=None)
    after = read_bundle(resize(path, tmp_path / "y.safetensors", cut=RankCut(2)).path).network
    for key in network:
        if "lora_" not in key.partition(".")[2]:
            assert torch.equal(after[key], network[key])


def test_tucker_becomes_locon(tmp_path: Path) -> None:
    name = "lora_unet_mid_block_resnets_0_conv1"
    network = {
        f"{name}.lora_down.weight": torch.randn(4, 8, 1, 1),
        f"{name}.lora_mid.weight": torch.randn(4, 4, 3, 3),
        f"{name}.lora_up.weight": torch.randn(8, 4, 1, 1),
        f"{name}.alpha": torch.tensor(2.0),
    }
    path = write_bundle(tmp_path / "x.safetensors", network=network, embeddings={}, metadata={}, dtype=None)
    small = resize(path, tmp_path / "y.safetensors", cut=RankCut(3))
    whole = deltas(path)[name].double()
    rest = torch.linalg.svdvals(whole.flatten(1))[3:]
    assert small.lost == pytest.approx(float(rest.norm() / whole.norm()), rel=1e-3)
    assert read_bundle(small.path).network[f"{name}.lora_down.weight"].shape == (3, 8, 3, 3)
    full = to_lora(path, tmp_path / "z.safetensors", cut=EVERYTHING)
    assert torch.allclose(deltas(full.path)[name], deltas(path)[name], atol=1e-4)


def test_resizing_refuses_other_kinds_and_files_that_are_there(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNameError):
        resize(bundle, bundle, cut=RankCut(2))
    loha = {f"lora_unet_mid_block_attentions_0_proj_in.hada_w{half}": torch.ones(2, 2) for half in ("1_a", "1_b", "2_a", "2_b")}  # fmt: skip  # noqa: E501
    path = write_bundle(tmp_path / "loha.safetensors", network=loha, embeddings={}, metadata={}, dtype=None)
    with pytest.raises(BundleError, match="is LoHa, and only LoRAs are resized. Make it a LoRA first"):
        resize(path, tmp_path / "y.safetensors", cut=RankCut(2))
    words = write_bundle(
        tmp_path / "words.safetensors", network={}, embeddings={"aoi": (torch.ones(1, 768),)}, metadata={}, dtype=None
    )
    with pytest.raises(BundleError, match="holds no LoRA"):
        resize(words, tmp_path / "y.safetensors", cut=RankCut(2))


# ---- to_lora ----

LINEAR = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"


def a_file(tmp_path: Path, network: dict[str, Tensor], **more: Any) -> Path:
    return write_bundle(
        tmp_path / "kind.safetensors", network=network, embeddings={"aoi": (torch.ones(2, 768),)}, dtype=None,
        metadata={"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "x"}', **more},
    )  # fmt: skip


def test_loha_and_lokr_as_loras(tmp_path: Path) -> None:
    network = {
        f"{LINEAR}.hada_w1_a": torch.randn(64, 2), f"{LINEAR}.hada_w1_b": torch.randn(2, 64),
        f"{LINEAR}.hada_w2_a": torch.randn(64, 2), f"{LINEAR}.hada_w2_b": torch.randn(2, 64),
        f"{LINEAR}.alpha": torch.tensor(1.0),
        f"{CONV}.lokr_w1": torch.randn(4, 4), f"{CONV}.lokr_w2_a": torch.randn(16, 2),
        f"{CONV}.lokr_w2_b": torch.randn(2, 16 * 9), f"{CONV}.alpha": torch.tensor(2.0),
        "lora_unet_mid_block_attentions_0_norm.w_norm": torch.rand(8),
        "lora_unet_mid_block_attentions_0_norm.b_norm": torch.rand(8),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.randn(2, 8),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.randn(8, 2),
    }  # fmt: skip
    path = a_file(tmp_path, network)
    report = to_lora(path, tmp_path / "x.safetensors", cut=RankCut(8))
    assert report.lost < 1e-5  # LoHa of rank 2 is a LoRA of rank 4, LoKr of 4x4 and rank 2 one of rank 8
    before, after = deltas(path), deltas(report.path)
    assert torch.allclose(after[LINEAR], before[LINEAR], atol=1e-4)
    assert torch.allclose(after[CONV].flatten(1), before[CONV], atol=1e-4)
    assert read_bundle(report.path).network[f"{CONV}.lora_down.weight"].shape == (8, 64, 3, 3)
    for key, tensor in network.items():
        if key.startswith(("lora_te", "lora_unet_mid")):
            assert torch.equal(read_bundle(report.path).network[key], tensor)
    metadata = list_bundle(report.path).metadata
    assert metadata["ss_network_module"] == "networks.lora"
    assert json.loads(metadata["ss_network_args"]) == {"conv_dim": "8", "conv_alpha": "8.0"}
    assert metadata["ss_training_comment"] == "LoHa and LoKr made a LoRA by SVD (rank 8)"
    assert torch.equal(read_bundle(report.path).embeddings["aoi"][0], torch.ones(2, 768))


def test_kinds_that_are_relative_need_their_checkpoint(
    checkpoints: Callable[[Family], tuple[Path, Path]], tmp_path: Path
) -> None:
    _, base = checkpoints("sd1")
    weights = load_file(base)
    weight = weights["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"]
    other = weights["model.diffusion_model.input_blocks.1.0.in_layers.2.weight"]
    network = {
        f"{LINEAR}.weight": torch.randn(64), f"{LINEAR}.on_input": torch.tensor(0),
        f"{CONV.replace('lora_', 'oft_')}.oft_blocks": 0.1 * torch.randn(8, 8, 8),
    }  # fmt: skip
    path = a_file(tmp_path, network)
    with pytest.raises(BundleError, match=r"2 layers are \(IA\)\^3, which changes .* give the checkpoint as the base"):
        to_lora(path, tmp_path / "x.safetensors", cut=RankCut(8))
    report = to_lora(path, tmp_path / "x.safetensors", cut=EVERYTHING, base=base)
    after = deltas(report.path)
    assert torch.allclose(after[LINEAR], weight * network[f"{LINEAR}.weight"][:, None], atol=1e-4)
    layer = {"oft_blocks": network[f"{CONV.replace('lora_', 'oft_')}.oft_blocks"]}
    assert torch.allclose(after[CONV], layer_delta(layer, weight=other).weight, atol=1e-4)
    wrong = a_file(tmp_path, {"lora_unet_down_blocks_9_resnets_0_conv1.oft_blocks": torch.ones(2, 2, 2)})
    with pytest.raises(BundleError, match="has no such layer"):
        to_lora(wrong, tmp_path / "y.safetensors", cut=RankCut(2), base=base)


def test_biases_are_told_and_a_lora_is_one_already(bundle: Path, tmp_path: Path) -> None:
    path = a_file(tmp_path, {f"{LINEAR}.diff": torch.randn(6, 5), f"{LINEAR}.diff_b": torch.randn(6)})
    report = to_lora(path, tmp_path / "x.safetensors", cut=RankCut(2))
    assert report.notes == ("A LoRA has no place for 1 biases, which were left out.",)
    with pytest.raises(BundleError, match="holds nothing that is not a LoRA already"):
        to_lora(bundle, tmp_path / "y.safetensors", cut=RankCut(2))


def test_a_report_in_a_sentence(bundle: Path, tmp_path: Path) -> None:
    report = resize(bundle, tmp_path / "small.safetensors", cut=RankCut(1))
    assert str(report).startswith("3 layers, rank 1; ") and f"most in {report.worst[0].name}" in str(report)
