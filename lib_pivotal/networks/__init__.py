"""Networks: adapters on a host's frozen layers. `network.build_network` makes one, `Network.from_kohya` reads one."""
