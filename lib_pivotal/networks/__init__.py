"""Networks: adapters on a host's frozen layers. `build_network` makes one, `Network.from_kohya` reads one."""

from .network import Network, build_network
from .registry import ALGORITHMS
from .targets import LAYER_SETS, LayerRule, part_rules

__all__ = ["ALGORITHMS", "LAYER_SETS", "LayerRule", "Network", "build_network", "part_rules"]
