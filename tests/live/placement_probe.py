"""For tests, an extension's script: a GPU that is only a name, on which --medvram can be seen to work on a CPU.

torch takes `cpu:0` for the CPU, but a device of that name is another for whoever compares. The web UI computes on it
from now on, and each module's place is written down when it is moved. A module with weights that computes elsewhere
would have failed on a GPU: it is noted as astray. Routes tell what was noted, and forget it.
"""

import weakref

import torch
from modules import devices, lowvram, script_callbacks, shared

GPU = torch.device("cpu", 0)


class Ledger:
    """Which modules are on `GPU`, what computed, and what went wrong."""

    def __init__(self):
        self.there = weakref.WeakSet()
        self.forget()

    def forget(self):
        self.computed, self.astray, self.beside = 0, [], 0

    def moved(self, module, device):
        for each in module.modules():
            (self.there.add if device == GPU else self.there.discard)(each)

    def used(self, module):
        model = shared.sd_model
        if module not in self.parts:
            return
        self.computed += 1
        if module not in self.there:
            self.astray.append(self.parts[module])
        if self.parts[module].startswith("model.") and any(
            one in self.there for one in model.first_stage_model.modules()
        ):
            self.beside += 1

    def watch(self):
        """The loaded checkpoint's modules with weights of their own."""
        found = shared.sd_model.named_modules()
        self.parts = weakref.WeakKeyDictionary(
            {m: name for name, m in found if any(p is not None for p in m._parameters.values())}
        )

    parts = weakref.WeakKeyDictionary()


ledger = Ledger()


def watch_moves(original):
    def to(self, *args, **kwargs):
        device = kwargs.get("device", args[0] if args else None)
        if isinstance(device, str | torch.device):
            ledger.moved(self, torch.device(device))
        return original(self, *args, **kwargs)

    return to


def watching():
    """From now on, with nothing noted."""
    ledger.watch()
    ledger.forget()


def told():
    vae = list(shared.sd_model.first_stage_model.modules())
    return {
        "computed": ledger.computed,
        "astray": sorted(set(ledger.astray)),
        "unet_beside_vae": ledger.beside,
        "vae_there": any(module in ledger.there for module in vae),
    }


def astray_on_purpose():
    """A layer of the autoencoder, sent away and called."""
    lowvram.send_everything_to_cpu()
    layer = shared.sd_model.first_stage_model.post_quant_conv
    with torch.no_grad():
        layer(torch.zeros(1, layer.weight.shape[1], 1, 1, dtype=layer.weight.dtype))


def add_routes(demo, app):
    for name, function in (("watching", watching), ("told", told), ("astray", astray_on_purpose)):
        app.add_api_route(f"/placement/{name}", function, methods=["GET"])


devices.device = shared.device = GPU
torch.nn.Module.to = watch_moves(torch.nn.Module.to)
torch.nn.modules.module.register_module_forward_hook(lambda module, given, result: ledger.used(module))
script_callbacks.on_app_started(add_routes)
