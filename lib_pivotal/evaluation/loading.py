"""A bundle's embeddings and network made ready on a host, as a generation would use them."""

from __future__ import annotations

import torch
from torch import Tensor

from lib_pivotal.bundle.layer_names import host_shape
from lib_pivotal.bundle.network_layouts import from_webui
from lib_pivotal.bundle.reader import Bundle
from lib_pivotal.networks.network import Network
from lib_pivotal.ports import Host


def load_on_host(host: Host, bundle: Bundle) -> tuple[dict[str, tuple[Tensor, ...]], Network | None]:
    """Embeddings in fp32 on the host's device, and the network (None where the file has none), not attached yet."""
    embeddings = {
        name: tuple(t.to(host.device, torch.float32) for t in towers) for name, towers in bundle.embeddings.items()
    }
    if not bundle.network:
        return embeddings, None
    network = Network.from_kohya(host.layers(), from_webui(bundle.network, host_shape(host)))
    return embeddings, network.to(host.device)
