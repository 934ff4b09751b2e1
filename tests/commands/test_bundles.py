"""Work on bundle files: one rule and one sentence on the page, in the API and on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_pivotal.bundle.embedding_files import write_embedding
from lib_pivotal.bundle.listing import list_bundle
from lib_pivotal.bundle.low_rank import RankCut
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.commands import bundles
from lib_pivotal.embeddings.adjustment import EmbeddingAdjustment
from lib_pivotal.standalone.token_tables import FileTables
from lib_pivotal.standalone.tokenizer import OpenClipTokenizer, clip_tokenizer
from lib_pivotal.ui.bundle_controller import BundleController
from tests.commands.fronts import detail, refusal
from tests.standalone import tiny_families
from tests.webui.test_api_paths import Site


def names(path: Path) -> set[str]:
    return {embedding.name for embedding in list_bundle(path).embeddings}


@pytest.mark.parametrize("new", ["Aoi", "a.b"])
def test_a_name_that_no_embedding_may_have(site: Site, page_bundles: BundleController, line: Any, new: str) -> None:
    told = refusal(lambda: page_bundles.rename_embedding("one.safetensors", "aoi", new))
    assert repr(new) in told
    assert detail(site, "/bundles/rename", {"name": "one", "renames": {"aoi": new}}) == told
    assert told in line("bundle", "rename", site.lora("one"), f"aoi={new}")


def test_nothing_is_not_written_anew(site: Site, page_bundles: BundleController) -> None:
    before = site.tree()
    told = refusal(lambda: page_bundles.strip("one.safetensors", []))
    assert detail(site, "/bundles/strip", {"name": "one", "parts": []}) == told == "choose what to remove"
    told = refusal(lambda: page_bundles.delete_embedding("one.safetensors", ""))
    assert detail(site, "/bundles/delete", {"name": "one", "words": []}) == told
    assert detail(site, "/bundles/rename", {"name": "one", "renames": {}}) == told
    assert site.tree() == before


def test_a_file_is_joined_once(site: Site, page_bundles: BundleController, line: Any) -> None:
    one = site.lora("one")
    told = "is named twice. Name each file once"
    assert told in refusal(lambda: page_bundles.join("one.safetensors", ["one.safetensors"], "both"))
    assert told in detail(site, "/bundles/join", {"names": ["one", "one"], "new_name": "both"})
    assert told in line("bundle", "join", one, one, "--out", one.with_name("both.safetensors"))


def test_weights_of_files_that_are_joined(site: Site, line: Any) -> None:
    for stem, embedding in (("net1", "umi"), ("net2", "sora")):
        layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
        network = {f"{layer}.lora_down.weight": torch.ones(2, 8), f"{layer}.lora_up.weight": torch.ones(8, 2)}
        embeddings = {f"bundle_emb.{embedding}.string_to_param.*": torch.ones(2, 768)}
        save_file({**network, **embeddings, f"{layer}.alpha": torch.tensor(2.0)}, site.lora(stem))
    body = {"names": ["net1", "net2"], "new_name": "both"}
    assert "2 files but 1 weights" in detail(site, "/bundles/join", {**body, "weights": [0.5]})
    assert site.post("/bundles/join", {**body, "weights": "0.5"}).status_code == 422
    assert site.post("/bundles/join", {**body, "weights": [1, 0.5]}).is_success
    files, out = (site.lora("net1"), site.lora("net2")), site.lora("both2")
    line("bundle", "join", *files, "--out", out, "--weights", 1, 0.5)
    assert names(out) == names(site.lora("both")) == {"umi", "sora"}
    content = [path.read_bytes()[-64:] for path in (out, site.lora("both"))]
    assert content[0] == content[1]


def test_an_embedding_file_gives_a_name_in_lower_case(site: Site, page_bundles: BundleController, line: Any) -> None:
    site.cmd_opts.embeddings_dir = str(site.data / "embeddings")
    file = Path(site.cmd_opts.embeddings_dir) / "Kira.pt"
    file.parent.mkdir()
    write_embedding(file, (torch.ones(4, 768),), name="Kira", layout="a1111_pt")
    assert page_bundles.add_word("one.safetensors", file) == "kira was added."
    assert site.post("/bundles/add", {"name": "two", "embeddings": ["Kira"]}).is_success
    third = site.lora("three")
    line("bundle", "strip", site.lora("two"), "metadata", "--out", third)
    line("bundle", "delete", third, "kira")
    assert names(third) == {"hana"}
    line("bundle", "add", third, file)
    assert (names(site.lora("one")), names(site.lora("two")), names(third)) == (
        {"aoi", "kira"}, {"hana", "kira"}, {"hana", "kira"},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["a,b", "x#y"])
def test_a_new_file_can_be_called_in_a_prompt(site: Site, page_bundles: BundleController, line: Any, name: str) -> None:
    before, one, out = site.tree(), site.lora("one"), site.lora(name)
    told = refusal(lambda: page_bundles.join("one.safetensors", ["two.safetensors"], name))
    assert detail(site, "/bundles/join", {"names": ["one", "two"], "new_name": name}) == told
    for arguments in (
        ("join", one, site.lora("two")), ("rename", one, "aoi=kaze"), ("delete", one, "aoi"), ("strip", one, "words"),
        ("convert", one, "--layout", "kohya"),
    ):  # fmt: skip
        assert told in line("bundle", *arguments, "--out", out), arguments
    assert site.tree() == before


def test_a_warning_leaves_a_file_sound(site: Site, page_bundles: BundleController, line: Any) -> None:
    verdict = page_bundles.verify("one.safetensors")
    assert verdict.sound and verdict.problems, "made by hand, it has no hashes"
    answer = site.post("/bundles/verify", {"name": "one"}).json()
    assert answer == verdict.as_dict()
    assert f"{site.lora('one')}: sound" in line("bundle", "verify", site.lora("one"))


def test_hidden_files_are_in_no_list(site: Site, page_bundles: BundleController, line: Any) -> None:
    site.lora("one").rename(site.lora(".one"))
    assert page_bundles.listing()[1] == ["two.safetensors"]
    assert ".one" not in line("bundle", "list", site.backend.lora_folder())


def test_a_file_is_shown_alike(site: Site, line: Any) -> None:
    shown = site.post("/bundles/show", {"name": "one"}).json()
    assert shown["words"][0]["name"] == "aoi" and "metadata" in shown
    assert json.loads(line("bundle", "show", site.lora("one"), "--json")) == shown


def test_an_adapter_of_peft_goes_into_any_folder(site: Site, line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    network = {f"{layer}.lora_down.weight": torch.ones(2, 8), f"{layer}.lora_up.weight": torch.ones(8, 2)}
    save_file({**network, f"{layer}.alpha": torch.tensor(2.0)}, site.lora("net"))
    monkeypatch.chdir(site.data)
    assert line("bundle", "convert", site.lora("net"), "--layout", "peft", "--out", ".") == "wrote .\n"
    assert list(site.data.rglob("adapter_model.safetensors"))


def test_embeddings_are_adjusted_alike(site: Site, page_bundles: BundleController, line: Any) -> None:
    told = page_bundles.adjust("one.safetensors", "<lora:one:1:emb=aoi*0.5~0> aoi")
    assert told == "aoi was adjusted in one-adjusted.safetensors; the old file stays as it was."
    body = {"name": "one", "adjustments": {"aoi": {"norm": 0.5}}}
    assert site.post("/bundles/adjust", {**body, "new_name": "api"}).is_success
    line("bundle", "adjust", site.lora("one"), "AOI*0.5", "--out", site.lora("line"))
    files = [site.lora(stem) for stem in ("one-adjusted", "api", "line")]
    assert len({path.read_bytes() for path in files}) == 1
    [vectors] = read_bundle(files[0]).embeddings["aoi"]
    assert torch.equal(vectors, torch.full((2, 768), 0.5))
    assert "already" in detail(site, "/bundles/adjust", {**body, "new_name": "api"})
    assert site.post("/bundles/adjust", {**body, "new_name": "api", "overwrite": True}).is_success


def test_adjustments_that_cannot_be(site: Site, page_bundles: BundleController, line: Any) -> None:
    before, one = site.tree(), site.lora("one")
    for text in ("", "aoi*1~0"):
        assert refusal(lambda text=text: page_bundles.adjust("one.safetensors", text)).startswith("choose an embedding")
    for text, numbers, reason in (
        ("umi*2", {"umi": {"norm": 2}}, "has no embedding 'umi'"),
        ("aoi~0.5", {"aoi": {"init_share": 0.5}}, "aoi: its file keeps no init text to turn to"),
        ("aoi~2", {"aoi": {"init_share": 2}}, "from 0 to 1"),
    ):
        told = refusal(lambda text=text: page_bundles.adjust("one.safetensors", text))
        assert reason in told
        assert detail(site, "/bundles/adjust", {"name": "one", "adjustments": numbers}) == told
        assert reason in line("bundle", "adjust", one, text)
    for odd in ({"aoi": 2}, {"aoi": {"share": 2}}, {"aoi": {"norm": "2"}}, {"aoi": {"norm": 10**400}}, ["aoi"]):
        assert site.post("/bundles/adjust", {"name": "one", "adjustments": odd}).status_code == 422
    assert site.tree() == before


def test_an_init_text_needs_a_checkpoint_of_the_family(site: Site) -> None:
    facts = {"pivotal.words": json.dumps({"aoi": {"init_text": "red hair"}})}
    save_file({"bundle_emb.aoi.string_to_param.*": torch.ones(2, 768)}, site.lora("one"), facts)
    request = bundles.Adjust(site.lora("one"), {"aoi": EmbeddingAdjustment(1, 0.5)})
    told = refusal(lambda: bundles.adjust(request))
    assert "its init text is read with a checkpoint, and none is there" in told
    sd2 = FileTables([torch.ones(49_408, 1024)], [OpenClipTokenizer(clip_tokenizer())])
    told = refusal(lambda: bundles.adjust(request, bundles.NoHost(tables=sd2)))
    assert told == "aoi: is 768 wide, the checkpoint's vectors are 1024; take one of its family"


LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


def test_a_dylora_is_cut_alike(site: Site, page_bundles: BundleController, line: Any) -> None:
    network = {
        f"{LAYER}.lora_down.weight": torch.randn(8, 8).half(),
        f"{LAYER}.lora_up.weight": torch.randn(8, 8).half(),
        f"{LAYER}.alpha": torch.tensor(4.0),
    }
    facts = {"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "dylora", "block_size": "2"}'}
    save_file({**network, "bundle_emb.umi.string_to_param.*": torch.ones(2, 768)}, site.lora("net"), facts)
    body = {"name": "net", "new_name": "api"}
    told = refusal(lambda: page_bundles.cut("net.safetensors", 3))
    assert told == detail(site, "/bundles/cut", {**body, "rank": 3}) and "Give 2 or 4" in told
    assert told in line("bundle", "cut", site.lora("net"), "--rank", 3, "--out", site.lora("line"))
    assert site.post("/bundles/cut", {**body, "rank": "4"}).status_code == 422
    assert site.post("/bundles/cut", {**body, "rank": 4}).is_success
    assert "net-r4.safetensors" in page_bundles.cut("net.safetensors", 4)
    line("bundle", "cut", site.lora("net"), "--rank", 4, "--out", site.lora("line"))
    for stem in ("api", "net-r4", "line"):
        found = load_file(site.lora(stem))
        assert torch.equal(found[f"{LAYER}.lora_down.weight"], network[f"{LAYER}.lora_down.weight"][:4])
        assert torch.equal(found[f"{LAYER}.lora_up.weight"], network[f"{LAYER}.lora_up.weight"][:, :4])
        assert found[f"{LAYER}.alpha"].item() == 4.0 and names(site.lora(stem)) == {"umi"}


def test_a_lora_is_resized_alike(site: Site, page_bundles: BundleController, line: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    network = {
        f"{LAYER}.lora_down.weight": torch.randn(4, 8, generator=generator),
        f"{LAYER}.lora_up.weight": torch.randn(8, 4, generator=generator),
    }
    save_file({**network, "bundle_emb.umi.string_to_param.*": torch.ones(2, 768)}, site.lora("net"))
    told = refusal(lambda: page_bundles.resize("net.safetensors", "page", RankCut()))
    body = {"name": "net", "new_name": "api"}
    assert told == detail(site, "/bundles/resize", body) and "give a rank" in told
    assert told in line("bundle", "resize", site.lora("net"), "--out", site.lora("line"))
    assert site.post("/bundles/resize", {**body, "rank": 1.5}).status_code == 422
    assert site.post("/bundles/resize", {**body, "rank": 1, "value": "x"}).status_code == 422
    answer = site.post("/bundles/resize", {**body, "rank": 2}).json()
    assert answer["layers"][LAYER]["rank"] == 2 and 0 < answer["layers"][LAYER]["lost"] == answer["lost"] < 1
    assert page_bundles.resize("net.safetensors", "page", RankCut(2)).endswith(answer["said"].split(": ", 2)[2])
    assert "of the change is lost" in line(
        "bundle", "resize", site.lora("net"), "--out", site.lora("line"), "--rank", 2
    )
    contents = {site.lora(stem).read_bytes()[-64:] for stem in ("api", "page", "line")}
    assert len(contents) == 1 and names(site.lora("line")) == {"umi"}
    assert "already" in detail(site, "/bundles/resize", {**body, "rank": 2})
    assert site.post("/bundles/resize", {**body, "rank": 2, "overwrite": True}).is_success


def test_another_kind_is_made_a_lora_alike(site: Site, page_bundles: BundleController, line: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    loha = {f"hada_w{one}_{half}": (8, 2) if half == "a" else (2, 8) for one in (1, 2) for half in "ab"}
    save_file(
        {f"{LAYER}.{name}": torch.randn(*shape, generator=generator) for name, shape in loha.items()},
        site.lora("loha"),
    )
    assert "rank 4; 0.00% of the change is lost" in page_bundles.to_lora("loha.safetensors", "page", RankCut(4))
    assert site.post("/bundles/to_lora", {"name": "loha", "new_name": "api", "rank": 4, "base": None}).is_success
    line("bundle", "to_lora", site.lora("loha"), "--out", site.lora("line"), "--rank", 4)
    assert len({site.lora(stem).read_bytes()[-64:] for stem in ("api", "page", "line")}) == 1


def test_a_checkpoint_minus_its_base_alike(
    site: Site, page_bundles: BundleController, line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_families.write(site.data / "base.safetensors", tiny_families.make("sd1"))
    weights = load_file(base)
    save_file({key: tensor * 1.1 for key, tensor in weights.items()}, site.data / "tuned.safetensors")
    listed = ModuleType("modules.sd_models")
    listed.get_closet_checkpoint_match = lambda name: (  # type: ignore[attr-defined]
        SimpleNamespace(filename=str(site.data / f"{name}.safetensors")) if name in ("base", "tuned") else None
    )
    monkeypatch.setitem(sys.modules, "modules.sd_models", listed)
    monkeypatch.setattr(sys.modules["modules"], "sd_models", listed, raising=False)
    body = {"checkpoint": "tuned", "base": "other", "new_name": "api", "rank": 2}
    assert "other: the web UI lists no such checkpoint" in detail(site, "/bundles/extract", body)
    answer = site.post("/bundles/extract", {**body, "base": "base"})
    assert answer.is_success and answer.json()["written"] == [str(site.lora("api"))]
    tuned = site.data / "tuned.safetensors"
    assert "layers, rank 2" in page_bundles.extract(str(tuned), f'"{base}"', "page", RankCut(2))
    assert "its base: give the path" in refusal(lambda: page_bundles.extract(str(tuned), " ", "page", RankCut(2)))
    line("bundle", "extract", tuned, base, "--out", site.lora("line"), "--rank", 2)
    assert len({site.lora(stem).read_bytes()[-64:] for stem in ("api", "page", "line")}) == 1
