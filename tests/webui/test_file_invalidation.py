"""A LoRA file that changed is seen at the next picture: weights, words, conditionings, the list."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.webui.fake.install import FakeWebUI
from tests.webui.files import write_lora


@pytest.fixture
def ours(fake_webui: FakeWebUI) -> FakeWebUI:
    from lib_pivotal.webui import cond_cache_patch, resolution_patch

    resolution_patch.register()
    cond_cache_patch.register()
    return fake_webui


def replaced(path: Path, by: Path) -> None:
    """Another content under the same name, with an *older* time stamp."""
    shutil.copyfile(by, f"{path}.new")
    Path(f"{path}.new").replace(path)
    os.utime(path, (1e9, 1e9))


@pytest.mark.parametrize("parts", [("unet",), ("te",), ()])
def test_a_replaced_file_acts_at_the_next_picture(ours: FakeWebUI, parts: tuple[str, ...]) -> None:
    path = write_lora(ours, "one", {"hana": 1})
    other = write_lora(ours, "two", {"hana": 2}, parts=parts)
    ours.opts.data["lora_in_memory_limit"] = 5
    first, second = ours.pixels("<lora:one:1>hana"), ours.pixels("<lora:two:1>hana")
    assert first != second
    assert ours.pixels("<lora:one:1>hana") == first
    replaced(path, other)
    assert ours.pixels("<lora:one:1>hana") == second


def test_the_stock_web_ui_does_not_see_it(fake_webui: FakeWebUI) -> None:
    path = write_lora(fake_webui, "one", parts=("unet",))
    other = write_lora(fake_webui, "two", parts=("te",))
    first = fake_webui.pixels("<lora:one:1>hana")
    replaced(path, other)
    assert fake_webui.pixels("<lora:one:1>hana") == first


def test_layers_of_another_checkpoint(ours: FakeWebUI) -> None:
    """A network's modules belong to layers of the checkpoint that was loaded when it was read."""
    ours.opts.data["lora_in_memory_limit"] = 5
    write_lora(ours, "one", {"hana": 1}, parts=("unet", "te"))
    first = ours.pixels("<lora:one:1>hana")
    ours.add_checkpoint("sd2")
    ours.choose("sd2")
    ours.pixels("<lora:one:1>hana")
    ours.choose("sd1")
    assert ours.pixels("<lora:one:1>hana") == first


def test_forgetting_a_file_renews_its_entry(ours: FakeWebUI) -> None:
    from lib_pivotal.webui import file_invalidation

    path = write_lora(ours, "one", {"hana": 1}, metadata={"ss_output_name": "first"})
    ours.pixels("<lora:one:1>hana")
    before = ours.networks.available_networks["one"].shorthash
    write_lora(ours, "one", {"hana": 2}, metadata={"ss_output_name": "second"}, listed=False)
    file_invalidation.forget_lora_file(path)
    assert ours.networks.available_networks["one"].alias == "second"
    assert set(ours.networks.available_network_aliases) == {"one", "second"}
    assert before not in ours.networks.available_network_hash_lookup
    path.unlink()
    file_invalidation.forget_lora_file(path)
    assert ours.networks.available_networks == {}
    assert ours.networks.available_network_aliases == {}


def test_a_file_declared_changed_is_read_again_though_its_stamp_is_the_same(ours: FakeWebUI) -> None:
    from lib_pivotal.webui import file_invalidation

    path = write_lora(ours, "one", {"hana": 1}, parts=("unet",))
    first = ours.pixels("<lora:one:1>hana")
    net = ours.networks.loaded_networks[0]
    assert not file_invalidation.is_stale(net)
    file_invalidation.forget_lora_file(path)
    assert file_invalidation.is_stale(net)
    assert file_invalidation.drop_stale() == ["one"]
    assert ours.networks.loaded_networks == []
    assert ours.pixels("<lora:one:1>hana") == first


def test_merged_weights_come_out_of_the_layers(ours: FakeWebUI) -> None:
    from lib_pivotal.webui import file_invalidation

    before = {name: tensor.clone() for name, tensor in ours.model.state_dict().items()}
    write_lora(ours, "one", parts=("unet", "te"))
    ours.pixels("<lora:one:1>hana")
    changed = [name for name, tensor in ours.model.state_dict().items() if not tensor.equal(before[name])]
    assert changed
    count = file_invalidation.unmerge({"one"})
    assert count >= len(changed)
    assert all(tensor.equal(before[name]) for name, tensor in ours.model.state_dict().items())
    assert file_invalidation.unmerge({"one"}) == 0


def test_what_conditionings_depend_on(ours: FakeWebUI) -> None:
    from lib_pivotal.webui import file_invalidation

    assert file_invalidation.network_state() == ()
    write_lora(ours, "one", parts=("te",))
    states = []
    for prompt in ("<lora:one:1>", "<lora:one:0.5:1>", "<lora:one:1>"):
        ours.pixels(prompt)
        states.append(file_invalidation.network_state())
    assert states[0] == states[2] != states[1]


def test_nothing_to_do_without_lora_or_model(tmp_path: Path) -> None:
    from tests.webui.fake.install import installed

    with installed(tmp_path, lora=False) as webui:
        from lib_pivotal.webui import file_invalidation

        assert file_invalidation.drop_stale() == []
        assert file_invalidation.unmerge({"one"}) == 0
        assert file_invalidation.network_state() == ()
        file_invalidation.forget_lora_file(tmp_path / "x.safetensors")
        assert file_invalidation.stamp_of(tmp_path / "nothing") is None
        assert webui.sd_models.model_data.sd_model is None
