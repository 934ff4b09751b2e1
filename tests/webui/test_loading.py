"""Files read for the web UI: one odd word costs that word, a network that fails leaves its words."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.webui.fake.install import FakeWebUI
from tests.webui.files import embedding, material, write_lora


@pytest.fixture
def ours(fake_webui: FakeWebUI) -> FakeWebUI:
    from lib_pivotal.webui import cond_cache_patch, resolution_patch

    resolution_patch.register()
    cond_cache_patch.register()
    return fake_webui


def odd_lora(webui: FakeWebUI) -> Path:
    """One sound word, one that the web UI's own reader raises for."""
    odd = {"bundle_emb.nested.string_to_param.*": torch.zeros(1, 16), "bundle_emb.broken": torch.zeros(2)}
    return write_lora(webui, "one", {"hana": 1}, parts=("unet",), extra=odd)


def test_one_odd_embedding_costs_that_embedding(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import cond_cache_patch, resolution_patch

    write_lora(fake_webui, "sound", {"hana": 1}, parts=("unet",))
    odd_lora(fake_webui)
    plain = fake_webui.pixels("hana")
    assert fake_webui.pixels("<lora:one:1>hana") == plain, "the stock web UI drops the whole file"
    assert fake_webui.errors.exception_records
    resolution_patch.register()
    cond_cache_patch.register()
    fake_webui.errors.exception_records.clear()
    assert fake_webui.pixels("<lora:one:1>hana") == fake_webui.pixels("<lora:sound:1>hana") != plain
    assert fake_webui.errors.exception_records == []


def test_a_network_that_fails_leaves_its_embeddings(ours: FakeWebUI) -> None:
    layer = next(iter(material("sd1").unet_layers))
    write_lora(ours, "sound", {"hana": 1})
    write_lora(ours, "one", {"hana": 1}, extra={f"{layer}.nonsense": torch.zeros(2)})
    expected = ours.pixels("<lora:sound:1>hana")
    done = ours.txt2img("<lora:one:1>hana")
    assert [image.tobytes() for image in done.images] == expected
    assert "its network cannot be used with this checkpoint" in done.comments
    assert [net.modules for net in ours.networks.loaded_networks] == [{}]


def test_a_network_that_fails_and_has_no_embeddings_fails_as_ever(ours: FakeWebUI) -> None:
    layer = next(iter(material("sd1").unet_layers))
    write_lora(ours, "one", extra={f"{layer}.nonsense": torch.zeros(2)})
    plain = ours.pixels("hana")
    assert ours.pixels("<lora:one:1>hana") == plain
    assert "Could not find a module type" in ours.errors.exception_records[-1]["exception"]
    assert ours.networks.loaded_networks == []


def test_a_type_that_the_official_reader_does_not_know(ours: FakeWebUI) -> None:
    """A further tensor of a newer safetensors type: the rest of the file acts."""
    write_lora(ours, "sound", {"hana": 1}, parts=("unet",))
    path = write_lora(ours, "one", {"hana": 1}, parts=("unet",))
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    end = len(content) - 8 - length
    header["extra.weight"] = {"dtype": "F8_E8M0", "shape": [4], "data_offsets": [end, end + 4]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :] + b"\0" * 4)
    assert ours.pixels("<lora:one:1>hana") == ours.pixels("<lora:sound:1>hana")


def test_embeddings_of_a_file_are_read_again_when_it_changes(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"hana": 1})
    write_lora(ours, "two", {"hana": 2})
    first, second = ours.pixels("<words:one>hana"), ours.pixels("<words:two>hana")
    assert first != second
    write_lora(ours, "one", {"hana": 2}, listed=False)
    assert ours.pixels("<words:one>hana") == second


def test_a_file_that_cannot_be_read_is_told(ours: FakeWebUI) -> None:
    path = write_lora(ours, "one", {"hana": 1})
    path.write_bytes(path.read_bytes()[:100])
    done = ours.txt2img("<words:one>hana")
    assert "one" in done.comments
    assert [image.tobytes() for image in done.images] == ours.pixels("hana")


def test_embeddings_are_the_web_uis_own_kind(ours: FakeWebUI) -> None:
    from modules.textual_inversion import textual_inversion

    from lib_pivotal.webui import loading

    made: dict[str, Any] = loading.make_embeddings({"hana": embedding("sdxl", 3)}, "file")
    found = made["hana"]
    assert type(found) is textual_inversion.Embedding
    assert (found.vectors, found.shape, found.filename) == (3, 40, "file")
    assert {key: tensor.shape for key, tensor in found.vec.items()} == {"clip_l": (3, 16), "clip_g": (3, 24)}
