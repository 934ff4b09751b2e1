"""`<lora:name:te:unet:dyn>`."""

from __future__ import annotations

from typing import Any

import networks
from modules import extra_networks, shared


class ExtraNetworkLora(extra_networks.ExtraNetwork):
    remove_symbols = str.maketrans("", "", ":,")

    def __init__(self) -> None:
        super().__init__("lora")
        self.errors: dict[str, int] = {}

    def activate(self, p: Any, params_list: list[Any]) -> None:
        added, multiplier = shared.opts.sd_lora, shared.opts.extra_networks_default_multiplier
        self.errors.clear()
        wanted = added != "None" and added in networks.available_networks
        if wanted and not any(params.items[0] == added for params in params_list):
            p.all_prompts = [f"{text}<lora:{added}:{multiplier}>" for text in p.all_prompts]
            params_list.append(extra_networks.ExtraNetworkParams(items=[added, multiplier]))
        columns: list[list[Any]] = [[], [], [], []]
        for params in params_list:
            assert params.items
            places, named = params.positional, params.named
            te = float(named.get("te", float(places[1]) if len(places) > 1 else 1.0))
            unet = float(named.get("unet", float(places[2]) if len(places) > 2 else te))
            dyn = int(places[3]) if len(places) > 3 else None
            dyn = int(named["dyn"]) if "dyn" in named else dyn
            for column, value in zip(columns, (places[0], te, unet, dyn), strict=True):
                column.append(value)
        networks.load_networks(*columns)
        if shared.opts.lora_add_hashes_to_infotext:
            if not getattr(p, "is_hr_pass", False) or not hasattr(p, "lora_hashes"):
                p.lora_hashes = {}
            for net in networks.loaded_networks:
                if net.network_on_disk.shorthash and net.mentioned_name:
                    p.lora_hashes[net.mentioned_name.translate(self.remove_symbols)] = net.network_on_disk.shorthash
            if p.lora_hashes:
                p.extra_generation_params["Lora hashes"] = ", ".join(f"{k}: {v}" for k, v in p.lora_hashes.items())

    def deactivate(self, p: Any) -> None:
        if self.errors:
            p.comment("Networks with errors: " + ", ".join(f"{k} ({v})" for k, v in self.errors.items()))
            self.errors.clear()
