"""The Bundles page: lists, cards, and work that says what it did."""

import json

import pytest
import torch

from lib_pivotal.bundle.embedding_files import write_embedding
from lib_pivotal.bundle.format import META_EMBEDDINGS
from lib_pivotal.bundle.listing import list_bundle
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import BundleError
from lib_pivotal.ui.bundle_controller import BundleController
from lib_pivotal.ui.bundles_html import bundle_card, bundle_list
from lib_pivotal.ui.bundles_panel import CHOOSE, EMBEDDINGS_AS, NETWORK_AS, _name_note, shown
from lib_pivotal.ui.compare_panel import _wanted

LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture
def bundles(backend):
    network = {f"{LAYER}.lora_down.weight": torch.ones(2, 8), f"{LAYER}.lora_up.weight": torch.ones(8, 2)}
    network[f"{LAYER}.alpha"] = torch.tensor(2.0)
    facts = {META_EMBEDDINGS: json.dumps({"aoi": {"init_text": "blue <hair>", "images_seen": 40, "vectors": 2}})}
    folder = backend.lora_folder()
    embeddings = {"aoi": (torch.ones(2, 768),), "hana": (torch.zeros(3, 768),)}
    write_bundle(folder / "gekidol.safetensors", network=network, embeddings=embeddings, metadata=facts)
    write_bundle(folder / "ink.safetensors", network=network, embeddings={"ink": (torch.ones(1, 768),)}, metadata={})
    return BundleController(backend)


def embeddings(backend, name):
    return list(read_bundle(backend.lora_folder() / name).embeddings)


def test_the_list_is_filtered_by_file_and_embedding(bundles):
    summaries, names = bundles.listing()
    assert names == ["gekidol.safetensors", "ink.safetensors"]
    assert bundle_list(summaries, names, query="", chosen="").count("data-bundle") == 2
    only = bundle_list(summaries, names, query="hana", chosen="gekidol.safetensors")
    assert only.count("data-bundle") == 1 and "chosen" in only and "2 embeddings · U-Net" in only
    assert "No file matches" in bundle_list(summaries, names, query="nobody", chosen="")


def test_a_card_tells_what_is_known_and_escapes_it(bundles):
    card = bundle_card(bundles.summary("gekidol.safetensors"), "gekidol.safetensors")
    assert "blue &lt;hair&gt;" in card and ">40<" in card and "unknown" in card


def test_an_adjusted_copy_says_what_was_done(bundles, backend):
    assert "old file stays" in bundles.adjust("gekidol.safetensors", "aoi*0.5~0")
    bundles.adjust("gekidol.safetensors", "aoi*0.5")
    assert {path.stem for path in backend.lora_folder().iterdir()} >= {"gekidol-adjusted", "gekidol-adjusted-2"}
    card = bundle_card(bundles.summary("gekidol-adjusted.safetensors"), "gekidol-adjusted.safetensors")
    assert "blue &lt;hair&gt;" in card and "adjusted: norm × 0.5, init text 0.0" in card


def test_an_embedding_is_renamed_and_taken_out(bundles, backend):
    assert "kaze" in bundles.rename_embedding("gekidol.safetensors", "aoi", "kaze")
    bundles.delete_embedding("gekidol.safetensors", "hana")
    assert embeddings(backend, "gekidol.safetensors") == ["kaze"]
    assert backend.saved == [backend.lora_folder() / "gekidol.safetensors"] * 2


@pytest.mark.parametrize("new", ["", "Aoi", "a.b", "hana"])
def test_a_bad_name_changes_nothing(bundles, backend, new):
    with pytest.raises(BundleError):
        bundles.rename_embedding("gekidol.safetensors", "aoi", new)
    assert sorted(embeddings(backend, "gekidol.safetensors")) == ["aoi", "hana"]


def test_an_embedding_is_put_in(bundles, backend, tmp_path):
    file = write_embedding(tmp_path / "kaze.pt", (torch.ones(4, 768),), name="kaze", layout="a1111_pt")
    bundles.add_word("ink.safetensors", file)
    assert sorted(embeddings(backend, "ink.safetensors")) == ["ink", "kaze"]


def test_a_copy_without_parts_leaves_the_old_file(bundles, backend):
    for _ in range(2):
        bundles.strip("gekidol.safetensors", ["words"])
    names = {path.name for path in backend.lora_folder().iterdir()}
    assert names >= {"gekidol-without-words-2.safetensors", "gekidol-without-words.safetensors"}
    assert embeddings(backend, "gekidol-without-words.safetensors") == []
    assert sorted(embeddings(backend, "gekidol.safetensors")) == ["aoi", "hana"]
    with pytest.raises(BundleError, match="choose what to remove"):
        bundles.strip("gekidol.safetensors", [])


def test_files_are_joined_under_a_new_name(bundles, backend):
    bundles.join("gekidol.safetensors", ["ink.safetensors"], "both")
    summary = list_bundle(backend.lora_folder() / "both.safetensors")
    assert [embedding.name for embedding in summary.embeddings] == ["aoi", "hana", "ink"] and summary.rank == 4
    for out in ("", "ink"):
        with pytest.raises(BundleError):
            bundles.join("gekidol.safetensors", ["ink.safetensors"], out)


def test_parts_of_a_split_are_no_loras(bundles, backend):
    assert "3 files" in bundles.split("gekidol.safetensors")
    assert len(bundles.listing()[1]) == 2


def test_a_sound_file_has_no_problem(bundles):
    assert not [one for one in bundles.verify("ink.safetensors").problems if str(one).startswith("error")]


@pytest.mark.parametrize("name", ["", "../runs", "nobody.safetensors", "/etc/hostname"])
def test_only_files_of_the_list_are_touched(bundles, name):
    with pytest.raises(BundleError, match="choose a file"):
        bundles.path(name)


def test_the_page_of_a_chosen_file(bundles):
    assert shown(bundles, "", "")["bundle_card"] == CHOOSE
    files, card, work, ranks, embedding, others = shown(bundles, "ink.safetensors", "").values()
    assert ranks["value"] <= ranks["maximum"]
    assert "chosen" in files and "ink" in card and work["visible"]
    assert embedding["choices"] == ["ink"] and others["choices"] == ["gekidol.safetensors"]


def wanted(bundles, **changes):
    values = {
        "file": "gekidol.safetensors", "words": ["aoi"], "prompts": "{word}\n\n{word}, smile", "negative": None,
        "weights": "1, 0.7", "size": 100, "steps": 8, "cfg": 7, "seed": 0,
    }  # fmt: skip
    return _wanted(bundles, {**values, **changes})


def test_a_comparison_is_read_from_the_page(bundles):
    found = wanted(bundles)
    assert found.prompts == ("{word}", "{word}, smile") and found.weights == (1.0, 0.7)
    assert found.size_px == 96 and found.embeddings == ("aoi",) and found.negative == ""


@pytest.mark.parametrize("changes", [{"weights": "much"}, {"size": None}, {"steps": 0}, {"file": None}, {"seed": -1}])
def test_a_comparison_that_makes_no_sense(bundles, changes):
    with pytest.raises(BundleError):
        wanted(bundles, **changes)


def test_the_checker_of_names_knows_the_file_and_the_others(bundles):
    def told(new):
        return " ".join(str(issue) for issue in bundles.name_issues("gekidol.safetensors", "aoi", new))

    assert "error" in told("hana") and "this file" in told("hana")
    assert "embeddings folder" in told("taken")
    assert "error" not in told("aoi"), "its own old name is free"
    assert "error" in told("a b")


def test_the_note_under_a_new_name(bundles):
    note = _name_note(bundles, "gekidol.safetensors", "aoi", "zzq-aoiko")
    assert "is a good name" in note
    assert 'class="error"' in _name_note(bundles, "gekidol.safetensors", "aoi", "hana")
    assert _name_note(bundles, "gekidol.safetensors", "aoi", "") == ""
    assert 'class="error"' in _name_note(bundles, "gone.safetensors", "aoi", "x-new")


def test_verify_asks_the_loader_of_the_process(bundles, backend, monkeypatch):
    from lib_pivotal.bundle.format import Problem

    problem = Problem("warning", "a web UI without this extension knows other names: none")
    monkeypatch.setattr(backend, "loader_problems", lambda path: [problem] if path.name == "ink.safetensors" else [])
    assert problem in bundles.verify("ink.safetensors").problems
    assert problem not in bundles.verify("gekidol.safetensors").problems


def test_embeddings_and_network_go_out_in_other_programs_layouts(bundles, backend):
    for layout in EMBEDDINGS_AS.values():
        said = bundles.split("gekidol.safetensors", layout)
        assert "3 files" in said and ("for HCP-Diffusion" in said) == (layout == "hcp")
    for layout in NETWORK_AS.values():
        assert "Written" in bundles.convert("gekidol.safetensors", layout)
    written = {path.name for path in (backend.runs_folder() / "split" / "gekidol").iterdir()}
    assert {"gekidol-diffusers.safetensors", "gekidol-peft", "gekidol-kohya.safetensors"} <= written
    assert not read_bundle(backend.runs_folder() / "split" / "gekidol" / "gekidol-kohya.safetensors").embeddings
