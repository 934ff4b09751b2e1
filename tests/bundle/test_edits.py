"""Work on files: nothing changes but what was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_pivotal.bundle.edits import add_embeddings, convert, delete_embeddings, join, rename_embeddings, split, strip
from lib_pivotal.bundle.embedding_files import read_embedding
from lib_pivotal.bundle.metadata import EmbeddingFacts, FolderFacts, TrainingFacts, build_metadata, embedding_facts
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.bundle.verify import verify
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import BundleError, FileNameError

Embeddings = dict[str, tuple[Tensor, ...]]
legal_names = st.from_regex(r"[a-z]([a-z0-9_-]{0,20}[a-z])?", fullmatch=True)


def facts_for(embeddings: Embeddings, title: str = "avatars") -> dict[str, str]:
    return build_metadata(
        TrainingFacts(
            title,
            folders={f"1_{title}": FolderFacts(images=3, tags={"hat": 2})},
            embeddings={
                name: EmbeddingFacts(init_text=f"init {name}", vectors=len(v[0])) for name, v in embeddings.items()
            },
        )
    )


@pytest.fixture
def bundle(tmp_path: Path, network: dict[str, Tensor], embeddings: Embeddings) -> Path:
    return write_bundle(
        tmp_path / "b.safetensors", network=network, embeddings=embeddings, metadata=facts_for(embeddings)
    )


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return set(first) == set(second) and all(
        first[k].dtype == second[k].dtype and torch.equal(first[k], second[k]) for k in first
    )


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(name=legal_names.filter(lambda name: name != "ink-style"))
def test_renaming_changes_the_name_alone_bit_for_bit(bundle: Path, name: str) -> None:
    before = read_bundle(bundle)
    out = rename_embeddings(bundle, {"kira": name}, out=bundle.with_name("renamed.safetensors"), overwrite=True)
    after = read_bundle(out)
    assert set(after.embeddings) == {name, "ink-style"}
    assert torch.equal(after.embeddings[name][0], before.embeddings["kira"][0])
    assert same(after.network, before.network)
    assert embedding_facts(after.metadata)[name]["init_text"] == "init kira"
    kept = {k: v for k, v in before.metadata.items() if k.startswith("ss_")}
    assert {k: v for k, v in after.metadata.items() if k.startswith("ss_")} == kept
    assert [p for p in verify(out) if p.severity == "error"] == []


def test_two_names_can_be_swapped_in_place(bundle: Path) -> None:
    before = read_bundle(bundle).embeddings
    assert rename_embeddings(bundle, {"kira": "ink-style", "ink-style": "kira"}) == bundle
    after = read_bundle(bundle).embeddings
    assert torch.equal(after["kira"][0], before["ink-style"][0]) and torch.equal(
        after["ink-style"][0], before["kira"][0]
    )


def test_renaming_there_and_back_gives_the_same_file(bundle: Path) -> None:
    before = bundle.read_bytes()
    rename_embeddings(bundle, {"kira": "mira"})
    assert bundle.read_bytes() != before
    rename_embeddings(bundle, {"mira": "kira"})
    assert bundle.read_bytes() == before


@pytest.mark.parametrize(
    ("renames", "reason"),
    [
        ({"nobody": "x"}, "has no embedding 'nobody'; its embeddings: "),
        ({"kira": "ink-style"}, "same name"),
        ({"kira": "Kira.2"}, "upper-case"),
    ],
)
def test_bad_renames_leave_the_file_alone(bundle: Path, renames: dict[str, str], reason: str) -> None:
    before = bundle.read_bytes()
    with pytest.raises(BundleError, match=reason):
        rename_embeddings(bundle, renames)
    assert bundle.read_bytes() == before


def test_foreign_names_are_put_right_by_renaming(save: Callable[..., Path]) -> None:
    vectors = torch.randn(1, 768)
    path = save({"bundle_emb.<embedding>.clip_l": vectors, "bundle_emb.v1.5-Girl.clip_l": vectors + 1})
    with pytest.raises(BundleError, match="<embedding>"):
        rename_embeddings(path, {"v1.5-Girl": "girl"})
    rename_embeddings(path, {"v1.5-Girl": "girl", "<embedding>": "mira"})
    assert set(safetensors.torch.load_file(path)) == {
        "bundle_emb.girl.string_to_param.*",
        "bundle_emb.mira.string_to_param.*",
    }


def test_broken_embeddings_are_not_lost_silently(save: Callable[..., Path]) -> None:
    path = save({"bundle_emb.dog.clip_l": torch.ones(1, 768), "bundle_emb.cat.clip_g": torch.ones(1, 1280)})
    with pytest.raises(BundleError, match="'cat': skipped"):
        rename_embeddings(path, {"dog": "fox"})
    rename_embeddings(path, {"dog": "fox"}, drop_broken=True)
    assert set(read_bundle(path).embeddings) == {"fox"}


def test_delete_and_add(bundle: Path, embeddings: Embeddings) -> None:
    delete_embeddings(bundle, ["kira"])
    assert set(read_bundle(bundle).embeddings) == set(embedding_facts(read_bundle(bundle).metadata)) == {"ink-style"}
    with pytest.raises(BundleError, match="already holds ink-style"):
        add_embeddings(bundle, {"ink-style": embeddings["kira"]})
    add_embeddings(bundle, {"kira": embeddings["kira"]}, facts={"kira": {"init_text": "again", "vectors": 3}})
    assert embedding_facts(read_bundle(bundle).metadata)["kira"]["init_text"] == "again"
    add_embeddings(bundle, {"ink-style": embeddings["kira"]}, replace=True)
    assert len(read_bundle(bundle).embeddings["ink-style"][0]) == 3
    assert verify(bundle) == []


@pytest.mark.parametrize(
    ("parts", "left"),
    [(["te"], ("unet",)), (["unet"], ("te",)), (["words"], ("unet", "te")), (["te", "words"], ("unet",))],
)
def test_strip(bundle: Path, parts: list[str], left: tuple[str, ...]) -> None:
    before = read_bundle(bundle)
    after = read_bundle(strip(bundle, parts, out=bundle.with_name("s.safetensors")))  # type: ignore[arg-type]
    assert {key.split("_")[1] for key in after.network} == set(left)
    assert all(torch.equal(after.network[key], before.network[key]) for key in after.network)
    assert set(after.embeddings) == (set() if "words" in parts else set(before.embeddings))
    assert set(embedding_facts(after.metadata)) == set(after.embeddings)


def test_strip_metadata_keeps_what_readers_need(bundle: Path) -> None:
    after = read_bundle(strip(bundle, ["metadata"]))
    assert set(after.metadata) == {
        "ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha",
        "sshs_model_hash", "sshs_legacy_hash",
    }  # fmt: skip
    with pytest.raises(BundleError, match="cannot strip vae"):
        strip(bundle, ["vae"])  # type: ignore[list-item]


@pytest.mark.parametrize("layout", ["a1111", "hcp"])
def test_split_and_put_together_again(bundle: Path, tmp_path: Path, layout: str) -> None:
    before = read_bundle(bundle)
    files = split(bundle, tmp_path / "parts", layout=layout)  # type: ignore[arg-type]
    assert len(files) == 3
    assert same(safetensors.torch.load_file(files[0]), before.network)
    embeddings = {path.stem: read_embedding(path).vectors for path in files[1:]}
    again = read_bundle(add_embeddings(files[0], embeddings, out=tmp_path / "again.safetensors"))
    assert same(again.network, before.network)
    assert all(torch.equal(again.embeddings[name][0], vectors[0]) for name, vectors in before.embeddings.items())


def test_split_refuses_names_that_leave_the_folder_before_writing_anything(
    save: Callable[..., Path], tmp_path: Path
) -> None:
    path = save({"bundle_emb.good.clip_l": torch.ones(1, 768), "bundle_emb.../evil.clip_l": torch.ones(1, 768)})
    with pytest.raises(BundleError, match="no file can safely"):
        split(path, tmp_path / "parts")
    assert not (tmp_path / "parts").exists()


def test_join(bundle: Path, tmp_path: Path, network: dict[str, Tensor]) -> None:
    mira = {"mira": (torch.randn(2, 768).half(),)}
    other = write_bundle(
        tmp_path / "o.safetensors", network=network, embeddings=mira, metadata=facts_for(mira, "other")
    )
    joined = read_bundle(join([bundle, other], tmp_path / "j.safetensors"))
    assert set(joined.embeddings) == set(embedding_facts(joined.metadata)) == {"kira", "ink-style", "mira"}
    down = next(key for key in network if key.endswith("lora_down.weight"))
    assert joined.network[down].shape[0] == 2 * network[down].shape[0]
    assert joined.metadata["ss_network_dim"] == "8" and joined.metadata["ss_output_name"] == "j"
    assert set(json.loads(joined.metadata["ss_tag_frequency"])) == {"1_avatars", "1_other"}
    assert joined.metadata["modelspec.merged_from"] == "avatars, other"
    assert verify(tmp_path / "j.safetensors") == []


def test_join_tells_every_conflict(bundle: Path, tmp_path: Path) -> None:
    embeddings = {"kira": (torch.ones(1, 768),)}
    layer = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    loha = {f"{layer}.hada_w1_a": torch.ones(1)}
    other = write_bundle(tmp_path / "o.safetensors", network=loha, embeddings=embeddings, metadata={})
    with pytest.raises(BundleError) as caught:
        join([bundle, other], tmp_path / "j.safetensors")
    assert "2 conflict(s)" in str(caught.value) and "'kira'" in str(caught.value) and layer in str(caught.value)
    assert not (tmp_path / "j.safetensors").exists()
    with pytest.raises(BundleError, match="at least two"):
        join([bundle], tmp_path / "j.safetensors")
    with pytest.raises(BundleError, match="2 files but 1 weights"):
        join([bundle, other], tmp_path / "j.safetensors", weights=[1.0])


def test_joining_embeddings_of_two_families_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "o.safetensors", network={}, embeddings={"x": (torch.ones(1, 1024),)}, metadata={})
    with pytest.raises(BundleError, match="different models"):
        join([bundle, other], tmp_path / "j.safetensors")


def test_convert_to_a_plain_kohya_lora(bundle: Path, tmp_path: Path) -> None:
    before = read_bundle(bundle)
    out = convert(bundle, tmp_path / "k.safetensors", layout="kohya")
    assert same(safetensors.torch.load_file(out), before.network)
    assert read_bundle(out).metadata["ss_output_name"] == "avatars"
    there = convert(bundle, tmp_path / "d.safetensors", layout="diffusers")
    assert all(key.startswith(("unet.", "text_encoder.")) for key in read_bundle(there).network)
    back = read_bundle(convert(there, tmp_path / "kk.safetensors", layout="kohya"))
    assert set(back.network) == set(before.network)


def test_keys_that_nobody_knows_are_carried_through(save: Callable[..., Path], tmp_path: Path) -> None:
    """Where the network stays as it is; another layout for them would be a guess."""
    strange = {"oft_unet_x.oft_blocks": torch.ones(2, 2), "some.thing": torch.arange(3), "lone": torch.ones(1)}
    path = save({**strange, "bundle_emb.dog.clip_l": torch.ones(1, 768)})
    for out in (
        rename_embeddings(path, {"dog": "fox"}, out=tmp_path / "r.safetensors"),
        strip(path, ["te"], out=tmp_path / "s.safetensors"),
    ):
        assert same(read_bundle(out).network, strange)
    with pytest.raises(BundleError, match=r"2 key\(s\) .*some\.thing, lone"):
        convert(path, tmp_path / "k.safetensors", layout="kohya")


def test_another_file_is_only_replaced_when_told(bundle: Path, tmp_path: Path) -> None:
    target, folder = tmp_path / "t.safetensors", tmp_path / "parts"
    target.write_bytes(b"another's")
    split(bundle, folder)
    peft = convert(bundle, tmp_path / "peft", layout="peft")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    works: list[Callable[..., object]] = [
        lambda **more: rename_embeddings(bundle, {"kira": "mira"}, out=target, **more),
        lambda **more: delete_embeddings(bundle, ["kira"], out=target, **more),
        lambda **more: add_embeddings(bundle, {"sky": (torch.ones(1, 768),)}, out=target, **more),
        lambda **more: strip(bundle, ["metadata"], out=target, **more),
        lambda **more: convert(bundle, target, layout="kohya", **more),
        lambda **more: convert(bundle, peft, layout="peft", **more),
        lambda **more: split(bundle, folder, **more),
    ]
    for work in works:
        with pytest.raises(FileNameError, match="there is a file of this name already"):
            work()
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    for work in works:
        work(overwrite=True)
    assert target.read_bytes() != b"another's"


def test_the_file_itself_may_be_named_as_the_target(bundle: Path) -> None:
    assert rename_embeddings(bundle, {"kira": "mira"}, out=bundle.parent / "." / bundle.name)
    assert "mira" in read_bundle(bundle).embeddings


def test_layouts_that_there_are_not(bundle: Path, tmp_path: Path) -> None:
    """A layout may become a part of a name: it is checked before anything is written."""
    for work in (convert, split):
        with pytest.raises(BundleError, match=r"there is no layout '\.\./x'; choose from"):
            work(bundle, tmp_path / "new", layout="../x")  # type: ignore[operator]
    assert not (tmp_path / "new").exists()


def test_two_embeddings_are_never_one_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    tensors = {f"bundle_emb.{name}.string_to_param.*": torch.ones(1, 768) for name in ("<a>", "_a_")}
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(BundleError, match=r"two of its parts would be one file, _a_\.safetensors"):
        split(path, tmp_path / "parts")
    assert not (tmp_path / "parts").exists()


def test_embeddings_alone_are_no_network_for_peft(tmp_path: Path, embeddings: Embeddings) -> None:
    path = write_bundle(tmp_path / "w.safetensors", network={}, embeddings=embeddings, metadata={})
    with pytest.raises(BundleError, match="holds no network"):
        convert(path, tmp_path / "peft", layout="peft")


LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"alpha": torch.ones(3)}, "alpha has 3 values"),
        ({"alpha": torch.ones(0)}, "alpha has 0 values"),
        ({"lora_down.weight": torch.ones(4, 6)}, "do not fit together"),
        ({"lora_down.weight": torch.ones(())}, "do not fit together"),
        ({"lora_down.weight": torch.ones(0, 6), "lora_up.weight": torch.ones(6, 0)}, "do not fit together"),
        ({"lora_up.weight": torch.ones(2)}, "do not fit together"),
        ({"lora_up.weight": torch.ones(6, 1)}, "do not fit together"),
        ({"lora_up.weight": None}, "has no lora_up.weight"),
    ],
)
def test_nothing_is_made_of_a_layer_whose_tensors_do_not_fit(
    save: Callable[..., Path], tmp_path: Path, tensors: dict[str, Tensor | None], reason: str
) -> None:
    good = {"lora_up.weight": torch.ones(6, 2), "lora_down.weight": torch.ones(2, 6), "alpha": torch.tensor(1.0)}
    content = {f"{LAYER}.{suffix}": tensor for suffix, tensor in {**good, **tensors}.items() if tensor is not None}
    path = save(content)
    for layout in ("kohya", "diffusers", "peft"):
        with pytest.raises(BundleError, match=reason):
            convert(path, tmp_path / layout / "x.safetensors", layout=layout)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=reason):
        join([path, path], tmp_path / "joined.safetensors")
    assert any(reason in problem.what for problem in verify(path))
    assert not list(tmp_path.glob("joined*")) and not list(tmp_path.glob("*/x*"))
