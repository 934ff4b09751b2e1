"""Runs that begin from a file: the same model at step 0, what is frozen comes out as it went in, what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_pivotal.bundle.listing import list_bundle
from lib_pivotal.bundle.network_layouts import to_diffusers
from lib_pivotal.bundle.reader import Bundle, read_bundle
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.config import check_run, run_from_dict
from lib_pivotal.errors import BundleError, EmbeddingNameError, NetworkError, StateError
from lib_pivotal.evaluation.loading import load_on_host
from lib_pivotal.training import build
from lib_pivotal.training.events import Commands
from tests.training.runs import Recorder, assert_same, compiled, contents, plain_run, stopping_at, tensors_of, train


@pytest.fixture
def first(tiny_host: Any, two_embeddings_folder: Path, tmp_path: Path) -> Path:
    """A bundle of two embeddings and a network, as a run leaves it, in fp16."""
    plain = plain_run(two_embeddings_folder, max_steps=4)
    plain["saving"]["dtype"] = "fp16"
    train(run_from_dict(plain), tiny_host, output_folder=tmp_path / "first", listener=Recorder())
    return tmp_path / "first" / "two.safetensors"


def continued(folder: Path, first: Path, *, steps: int = 4, network: dict[str, Any] | None = None, **start: str) -> Any:
    plain = plain_run(folder, max_steps=steps)
    plain["network"] |= network or {}
    plain["start"] = {"init_file": str(first), **start}
    plain["seed"] = 5
    return run_from_dict(plain)


def go(run: Any, host: Any, folder: Path, **more: Any) -> Recorder:
    recorder = more.pop("listener", None) or Recorder()
    train(run, host, output_folder=folder, listener=recorder, **more)
    return recorder


def bundle_of(path: Path) -> Bundle:
    return read_bundle(path)


# ---- what is trained further ----


@pytest.mark.parametrize("use", ["train", "freeze"])
def test_step_0_is_the_files_own_model(use: str, tiny_host: Any, two_embeddings_folder: Path, first: Path) -> None:
    """The parts that a run starts with predict what the file predicts, loaded as for a picture."""
    prepared = compiled(continued_plan(two_embeddings_folder, first, use))
    with tiny_host.session(prepared.session):
        parts = build.make_parts(prepared, tiny_host)
        embeddings, network = load_on_host(tiny_host, bundle_of(first))
        assert network is not None and parts.network is not None
        for name, towers in embeddings.items():
            assert all(torch.equal(a, b) for a, b in zip(parts.embeddings.parameters_of(name), towers, strict=True))
        captions = ["aoi, red hair", "hana"]
        latents, timesteps = torch.randn(2, 4, 8, 8), torch.tensor([10, 700])
        found = []
        for vectors, one in ((parts.embeddings.as_mapping(), parts.network.eval()), (embeddings, network.eval())):
            with one.attach(), torch.no_grad():
                found.append(tiny_host.denoiser(latents, timesteps, tiny_host.text.encode(captions, vectors)))
        assert torch.equal(*found)
        with torch.no_grad():
            bare = tiny_host.denoiser(latents, timesteps, tiny_host.text.encode(captions, embeddings))
        assert not torch.equal(found[0], bare)


def continued_plan(folder: Path, first: Path, use: str) -> Any:
    """With one more embedding, so that something is trained where the file is frozen."""
    plain = plain_run(folder)
    plain["start"] = {"init_file": str(first), "network": use, "embeddings": use}
    plain["words"].append({"name": "new", "applies_to": ["*aoi_1*"], "vectors": 1})
    return run_from_dict(plain)


def test_everything_moves_on_from_the_file(
    tiny_host: Any, two_embeddings_folder: Path, first: Path, tmp_path: Path
) -> None:
    go(continued(two_embeddings_folder, first, steps=1), tiny_host, tmp_path / "on")
    before, after = tensors_of(first), tensors_of(tmp_path / "on" / "two.safetensors")
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        moved = (after[key].float() - tensor.float()).abs().max()
        assert moved < 0.05, key  # one step away, not begun anew
    anew = plain_run(two_embeddings_folder, max_steps=1)
    anew["seed"] = 5
    go(run_from_dict(anew), tiny_host, tmp_path / "anew")
    fresh = tensors_of(tmp_path / "anew" / "two.safetensors")
    downs = [key for key in after if key.endswith("lora_down.weight")]
    assert all((fresh[key] - after[key]).abs().max() > 0.05 for key in downs)


# ---- what is trained as it is stored ----


STORED = {
    "lora": {"network.unet_rank": 3},
    "dora": {"network.algorithm": "dora"},
    "loha": {"network.algorithm": "loha", "network.options": {"weight_decompose": True}},
    "lokr": {"network.algorithm": "lokr", "network.options": {"factor": 2}},
    "oft": {"network.algorithm": "oft"},
    "ia3": {"network.algorithm": "ia3"},
}


@pytest.mark.parametrize("kind", STORED)
def test_any_kind_of_any_size_is_a_start(
    kind: str, tiny_host: Any, two_embeddings_folder: Path, tmp_path: Path
) -> None:
    """The run's own settings ask for a LoRA of rank 2: the file's kind, layers, ranks and alphas hold."""
    plain = plain_run(two_embeddings_folder, max_steps=1)
    plain["network"] |= {path.partition(".")[2]: value for path, value in STORED[kind].items()}
    train(run_from_dict(plain), tiny_host, output_folder=tmp_path / "first", listener=Recorder())
    first = tmp_path / "first" / "two.safetensors"
    run = continued(two_embeddings_folder, first, steps=1, network={"unet_alpha": 7.0}, embeddings="none")
    go(replace(run, start=replace(run.start, network="as-stored")), tiny_host, tmp_path / "on")
    before, after = (bundle_of(path).network for path in (first, tmp_path / "on" / "two.safetensors"))
    assert before.keys() == after.keys()
    moved = [key for key, tensor in before.items() if not torch.equal(tensor, after[key])]
    assert moved and not any(key.endswith(("alpha", "on_input")) for key in moved)
    assert all((after[key] - before[key]).abs().max() < 0.05 for key in moved)


def test_kohyas_own_oft_is_a_start(tiny_host: Any, two_embeddings_folder: Path, first: Path, tmp_path: Path) -> None:
    """Its layers are called `oft_unet_...`; it comes out under the names of all others."""
    blocks = {f"{TO_Q.replace('lora_', 'oft_')}.oft_blocks": torch.randn(4, 8, 8) * 0.1}
    blocks |= {key.replace("oft_blocks", "alpha"): torch.tensor(1.0) for key in blocks}
    run = continued(two_embeddings_folder, changed(first, tmp_path, lambda network: blocks), embeddings="none", steps=1)
    go(replace(run, start=replace(run.start, network="as-stored")), tiny_host, tmp_path / "on")
    found = bundle_of(tmp_path / "on" / "two.safetensors").network
    assert set(found) == {f"{TO_Q}.oft_blocks", f"{TO_Q}.alpha"}
    moved = (found[f"{TO_Q}.oft_blocks"] - next(iter(blocks.values()))).abs().max()
    assert 0 < moved < 0.05


def test_a_stored_network_that_is_for_another_checkpoint(
    tiny_host: Any, two_embeddings_folder: Path, first: Path, tmp_path: Path
) -> None:
    other = changed(first, tmp_path, lambda network: network | {"lora_unet_nowhere.diff": torch.ones(2, 2)})
    run = continued(two_embeddings_folder, other)
    with pytest.raises(NetworkError, match="1 tensors have no layer in this checkpoint"):
        go(replace(run, start=replace(run.start, network="as-stored")), tiny_host, tmp_path / "on")


# ---- what is frozen ----


def test_a_lora_under_existing_embeddings(
    tiny_host: Any, two_embeddings_folder: Path, first: Path, tmp_path: Path
) -> None:
    run = continued(two_embeddings_folder, first, network={"unet_rank": 3}, embeddings="freeze")
    run = replace(run, start=replace(run.start, network="none"))
    go(run, tiny_host, tmp_path / "on")
    before, after = bundle_of(first), bundle_of(tmp_path / "on" / "two.safetensors")
    for name, towers in before.embeddings.items():
        for one, two in zip(towers, after.embeddings[name], strict=True):
            assert one.dtype == two.dtype == torch.float16 and torch.equal(one, two)
    ups = [tensor for key, tensor in after.network.items() if key.endswith("lora_up.weight")]
    assert all(tensor.dtype == torch.float32 and bool(tensor.any()) for tensor in ups)
    assert list_bundle(tmp_path / "on" / "two.safetensors").metadata["ss_network_dim"] in ("2", "3")


def test_embeddings_under_an_existing_network(
    tiny_host: Any, two_embeddings_folder: Path, first: Path, tmp_path: Path
) -> None:
    run = continued(two_embeddings_folder, first, network={"algorithm": "none", "max_norm": 0.001}, embeddings="train")
    run = replace(run, start=replace(run.start, network="freeze"))
    go(run, tiny_host, tmp_path / "on")
    before, after = bundle_of(first), bundle_of(tmp_path / "on" / "two.safetensors")
    assert before.network.keys() == after.network.keys()
    for key, tensor in before.network.items():
        assert tensor.dtype == after.network[key].dtype and torch.equal(tensor, after.network[key]), key
    for name, towers in before.embeddings.items():
        assert not torch.equal(towers[0], after.embeddings[name][0])
    assert list_bundle(tmp_path / "on" / "two.safetensors").metadata["ss_network_dim"] == "2"


def test_a_frozen_network_in_another_layout_has_the_same_effect(
    tiny_host: Any, two_embeddings_folder: Path, first: Path, tmp_path: Path
) -> None:
    from lib_pivotal.bundle.layer_names import host_shape

    other = write_bundle(
        tmp_path / "diffusers.safetensors",
        network=to_diffusers(bundle_of(first).network, shape=host_shape(tiny_host)),
        embeddings={}, metadata=list_bundle(first).metadata, dtype=None,
    )  # fmt: skip
    losses = []
    for file in (first, other):
        run = continued(two_embeddings_folder, file, steps=2)
        run = replace(run, start=replace(run.start, network="freeze", embeddings="none"))
        losses.append(go(run, tiny_host, tmp_path / file.stem).losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# ---- states ----


@pytest.mark.parametrize(("network", "embeddings"), [("train", "train"), ("train", "freeze"), ("freeze", "train")])
def test_resume_is_bit_exact(
    network: str, embeddings: str, tiny_host: Any, two_embeddings_folder: Path, first: Path, tmp_path: Path
) -> None:
    run = continued(two_embeddings_folder, first, steps=6)
    run = replace(
        run,
        start=replace(run.start, network=network, embeddings=embeddings),
        schedule=replace(run.schedule, ema_decay=0.9),
    )
    whole = go(run, tiny_host, tmp_path / "whole")
    commands = Commands()
    go(run, tiny_host, tmp_path / "parts", commands=commands, listener=stopping_at(3, commands))
    rest = go(run, tiny_host, tmp_path / "parts", resume=True)
    assert whole.losses[3:] == rest.losses
    assert_same(tensors_of(tmp_path / "whole" / "two.safetensors"), tensors_of(tmp_path / "parts" / "two.safetensors"))


def test_a_file_that_changed_is_noticed_and_one_that_moved_is_not(
    tiny_host: Any, two_embeddings_folder: Path, first: Path, tmp_path: Path
) -> None:
    run = continued(two_embeddings_folder, first, steps=4)
    commands = Commands()
    go(run, tiny_host, tmp_path / "on", commands=commands, listener=stopping_at(2, commands))
    moved = shutil.copy(first, tmp_path / "moved.safetensors")
    longer = replace(run, start=replace(run.start, init_file=str(moved)))
    bundle = bundle_of(first)
    write_bundle(
        first, network={k: t * 2 for k, t in bundle.network.items()}, embeddings=bundle.embeddings, metadata={},
        dtype=None,
    )  # fmt: skip
    before = contents(tmp_path / "on")
    with pytest.raises(StateError, match=r"start.init_file\) was two.safetensors \[\w{10}\], is two.safetensors \["):
        go(run, tiny_host, tmp_path / "on", resume=True)
    first.unlink()
    with pytest.raises(BundleError, match="start.init_file = .*two.safetensors: cannot be read"):
        go(run, tiny_host, tmp_path / "on", resume=True)
    assert contents(tmp_path / "on") == before
    go(longer, tiny_host, tmp_path / "on", resume=True)


# ---- what does not fit is refused before anything starts; what is missing is told ----


def changed(first: Path, tmp_path: Path, change: Any) -> Path:
    bundle = bundle_of(first)
    network: dict[str, Tensor] = change(dict(bundle.network))
    return write_bundle(
        tmp_path / "changed.safetensors", network=network, embeddings=bundle.embeddings,
        metadata=list_bundle(first).metadata, dtype=None,
    )  # fmt: skip


TO_Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"unet_rank": 4}, r"lora_down.weight is \[2, 32\], in this run's network \[4, 32\]: set network.unet_rank"),
        ({"algorithm": "dora"}, r"holds lora_down.weight, lora_up.weight, this run's network dora_scale, lora_down"),
        ({"te_targets": "none"}, r"12 of its \d+ layers have no place .*lora_te_text_model.*\[2, \d+\].*te_targets"),
        ({"algorithm": "none"}, r"has a network, and this run trains none: choose network.algorithm"),
    ],
)
def test_a_network_that_does_not_fit(
    settings: dict[str, Any], told: str, tiny_host: Any, two_embeddings_folder: Path, first: Path, tmp_path: Path
) -> None:
    run = continued(two_embeddings_folder, first, network=settings)
    with pytest.raises(NetworkError, match=told) as caught:
        go(run, tiny_host, tmp_path / "on")
    assert str(first) in str(caught.value)
    assert not (tmp_path / "on").exists()


def test_shapes_of_another_model(tiny_host: Any, two_embeddings_folder: Path, first: Path, tmp_path: Path) -> None:
    wide = changed(first, tmp_path, lambda network: {**network, f"{TO_Q}.lora_down.weight": torch.ones(2, 33)})
    with pytest.raises(NetworkError, match=rf"{TO_Q}.lora_down.weight is \[2, 33\], .*\[2, 32\]: choose"):
        go(continued(two_embeddings_folder, wide), tiny_host, tmp_path / "on")
    sdxl = write_bundle(
        tmp_path / "xl.safetensors", network=bundle_of(first).network, embeddings={}, dtype=None,
        metadata={"ss_base_model_version": "sdxl_base_v1-0"},
    )  # fmt: skip
    with pytest.raises(BundleError, match="is for SDXL, and tiny is SD1"):
        go(continued(two_embeddings_folder, sdxl), tiny_host, tmp_path / "on")
    foreign = changed(first, tmp_path, lambda network: {"lora_unet_down_blocks_9_resnets_0_conv1.diff": torch.ones(1)})
    run = continued(two_embeddings_folder, foreign)
    with pytest.raises(NetworkError, match="1 tensors have no layer in this checkpoint"):
        go(replace(run, start=replace(run.start, network="freeze")), tiny_host, tmp_path / "on")
    assert not (tmp_path / "on").exists()


def test_embeddings_of_another_size(tiny_host: Any, two_embeddings_folder: Path, first: Path, tmp_path: Path) -> None:
    plain = plain_run(two_embeddings_folder)
    plain["start"] = {"init_file": str(first)}
    plain["words"][0]["vectors"] = 5
    told = r"embedding 'aoi' is \[3, 16\], this run's \[5, 16\]. Set its vectors to 3"
    with pytest.raises(EmbeddingNameError, match=told):
        go(run_from_dict(plain), tiny_host, tmp_path / "on")
    wide = write_bundle(
        tmp_path / "wide.safetensors", network={}, embeddings={"aoi": (torch.ones(3, 24),)}, metadata={}, dtype=None
    )
    with pytest.raises(EmbeddingNameError, match="Choose the checkpoint that the file is for"):
        go(continued(two_embeddings_folder, wide), tiny_host, tmp_path / "on")
    assert not (tmp_path / "on").exists()


def test_what_the_file_has_not_begins_as_usual_and_is_told(
    tiny_host: Any, two_embeddings_folder: Path, first: Path, tmp_path: Path
) -> None:
    bundle = bundle_of(first)
    one = {key: tensor for key, tensor in bundle.network.items() if key.startswith(TO_Q)}
    one[f"{TO_Q}.alpha"] *= 4
    some = tmp_path / "some.safetensors"
    write_bundle(
        some, network=one, embeddings={"aoi": bundle.embeddings["aoi"], "extra": (torch.ones(1, 16),)},
        metadata={}, dtype=None,
    )  # fmt: skip
    told = " | ".join(go(continued(two_embeddings_folder, some, steps=1), tiny_host, tmp_path / "on").told)
    assert "layers are not in it and start as usual, such as lora_" in told
    assert "has no hana, which start as their init text says" in told
    assert "its extra are not among the run's embeddings and are left out" in told
    assert "the alphas of 1 layers are the file's" in told
    alone = write_bundle(tmp_path / "a.safetensors", network={}, embeddings=bundle.embeddings, metadata={}, dtype=None)
    told = " | ".join(go(continued(two_embeddings_folder, alone, steps=1), tiny_host, tmp_path / "b").told)
    assert "has no network, so the run's starts as usual" in told


def test_all_frozen_trains_nothing(tiny_host: Any, two_embeddings_folder: Path, first: Path, tmp_path: Path) -> None:
    run = continued(two_embeddings_folder, first)
    run = replace(run, start=replace(run.start, network="freeze", embeddings="freeze"))
    with pytest.raises(NetworkError, match="all of it is frozen, so nothing would be trained"):
        go(run, tiny_host, tmp_path / "on")
    plain = {"start": {"init_file": "x", "network": "freeze"}, "data": {"folder": "x"}}
    assert any(fault.problem == "nothing is trained" for fault in check_run(plain)[1])
