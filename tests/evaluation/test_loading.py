"""A saved bundle on a host: the same layers, the same picture; also where the web UI's names differ from kohya's."""

import torch

from lib_pivotal.bundle.layer_names import host_shape
from lib_pivotal.bundle.network_layouts import for_webui
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.evaluation.loading import load_on_host
from lib_pivotal.networks.network import build_network
from lib_pivotal.networks.targets import part_rules
from lib_pivotal.ports import SampleRequest


def test_file_gives_the_picture_of_the_live_network(tiny_host, tmp_path):
    rules = part_rules("unet", "all", rank=2, alpha=2) + part_rules("te", "attention+mlp", rank=2, alpha=2)
    network = build_network(tiny_host.layers(), rules, seed=1, device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    embeddings = {"aoi": (torch.randn(2, 16, generator=generator),)}
    stored = for_webui(network.kohya_tensors(), host_shape(tiny_host))
    path = write_bundle(
        tmp_path / "b.safetensors", network=stored, embeddings=embeddings, metadata={}, dtype=torch.float32
    )
    again_embeddings, again = load_on_host(tiny_host, read_bundle(path))
    assert again.unmatched == () and set(again.layer_names) == set(network.layer_names)
    request = [SampleRequest("aoi", width_px=64, height_px=64, steps=2)]
    with network.attach():
        live = tiny_host.sample(request, embeddings)[0]
    with again.attach():
        saved = tiny_host.sample(request, again_embeddings)[0]
    assert live.tobytes() == saved.tobytes()


def test_embeddings_alone(tiny_host, tmp_path):
    path = write_bundle(tmp_path / "w.safetensors", network={}, embeddings={"aoi": (torch.ones(1, 16),)}, metadata={})
    embeddings, network = load_on_host(tiny_host, read_bundle(path))
    assert network is None and embeddings["aoi"][0].dtype == torch.float32
