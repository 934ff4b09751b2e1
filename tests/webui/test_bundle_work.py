"""The verbs of `commands.bundles` on files that the web UI lists."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from lib_pivotal.bundle.listing import list_bundle
from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.errors import PivotalError
from tests.webui.fake.install import FakeWebUI
from tests.webui.files import embedding, write_embedding, write_lora


@pytest.fixture
def work(fake_webui: FakeWebUI) -> Any:
    from lib_pivotal.webui import bundle_work, cond_cache_patch, resolution_patch

    resolution_patch.register()
    cond_cache_patch.register()
    assert fake_webui.model is not None
    return bundle_work


def embeddings(path: Any) -> set[str]:
    return set(require(read_bundle(path)).embeddings)


def test_a_file_is_named_as_in_tags(fake_webui: FakeWebUI, work: Any) -> None:
    path = write_lora(fake_webui, "one", {"hana": 1}, metadata={"ss_output_name": "Alias"})
    assert work.path_of("one") == work.path_of("Alias") == path
    with pytest.raises(PivotalError, match="no LoRA file named 'nobody'"):
        work.path_of("nobody")


def test_embeddings_are_renamed_and_the_next_picture_knows(fake_webui: FakeWebUI, work: Any) -> None:
    path = write_lora(fake_webui, "one", {"hana": 1}, parts=("unet",))
    expected = fake_webui.pixels("<lora:one:1>hana")
    assert work.rename("one", {"hana": "kira"}).files == (path,)
    assert embeddings(path) == {"kira"}
    assert fake_webui.pixels("<lora:one:1>kira") == expected


def test_a_new_file_lies_beside_and_is_listed(fake_webui: FakeWebUI, work: Any) -> None:
    path = write_lora(fake_webui, "one", {"hana": 1, "kira": 2}, parts=("unet",))
    [new] = work.delete("one", ["kira"], new_name="two").files
    assert new == path.with_name("two.safetensors")
    assert (embeddings(path), embeddings(new)) == ({"hana", "kira"}, {"hana"})
    assert "two" in fake_webui.networks.available_networks
    for name in ("../x", "a/b", ".hidden"):
        with pytest.raises(PivotalError):
            work.delete("one", ["kira"], new_name=name)


def test_embeddings_of_the_folder_are_added(fake_webui: FakeWebUI, work: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1}, parts=("unet",))
    write_embedding(fake_webui, "Kira", seed=2)
    assert embeddings(*work.add("one", ["Kira"], new_name="two").files) == {"hana", "kira"}
    with pytest.raises(PivotalError, match="no embedding named 'nobody'"):
        work.add("one", ["nobody"])


def test_join_strip_split_convert(fake_webui: FakeWebUI, work: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1}, parts=("unet",))
    write_lora(fake_webui, "two", {"kira": 2}, parts=("unet", "te"))
    assert embeddings(*work.join(["one", "two"], "both").files) == {"hana", "kira"}
    with pytest.raises(PivotalError, match="at least two"):
        work.join([], "both")
    assert list_bundle(*work.strip("two", ["te"], new_name="bare").files).parts == ("unet",)
    written = work.split("two").files
    exports = fake_webui.data / "pivotal_exports" / "two"
    assert {path.parent for path in written} == {exports} and len(written) == 2
    [converted] = work.convert("two", "kohya").files
    assert converted.exists() and converted.parent == exports


@pytest.mark.parametrize("fake_webui", ["sd1", "sdxl"], indirect=True)
def test_an_adjusted_file_gives_the_picture_of_the_tag(
    fake_webui: FakeWebUI, work: Any, request: pytest.FixtureRequest
) -> None:
    metadata = {"pivotal.words": json.dumps({"hana": {"init_text": "red hair, *[0.1,1], girl", "vectors": 5}})}
    kind = request.node.callspec.params["fake_webui"]
    towers = tuple(tower.half() for tower in embedding(kind, 5, seed=1))
    write_lora(fake_webui, "one", {"hana": towers}, kind=kind, parts=("unet", "te"), metadata=metadata)
    plain = fake_webui.pixels("<lora:one:0.5> hana")
    expected = fake_webui.pixels("<lora:one:0.5:emb=hana*0.5~0.2> hana")
    [path] = work.adjust("one", {"hana": {"norm": 0.5, "init_share": 0.2}}, new_name="two").files
    assert fake_webui.pixels("<lora:two:0.5> hana") == expected != plain
    assert fake_webui.pixels("<lora:one:0.5> hana") == plain
    assert all(tower.dtype == torch.float32 for tower in require(read_bundle(path)).embeddings["hana"])
