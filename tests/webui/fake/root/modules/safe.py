"""`torch.load` behind a check of the file: what is not an old plain checkpoint is refused with *None*, not an error."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from typing import Any

import torch
from modules import errors

_MEMBERS = re.compile(r"^([^/]+)/((data/\d+)|version|byteorder|.data/serialization_id|(data\.pkl))$")
_REBUILDS = ("_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_device_tensor_from_numpy")
_STORAGES = tuple(f"{kind}Storage" for kind in ("Float", "Half", "Int", "Long", "Double", "Byte", "BFloat16"))


class RestrictedUnpickler(pickle.Unpickler):
    extra_handler: Any = None

    def persistent_load(self, saved_id: Any) -> Any:
        assert saved_id[0] == "storage"
        return torch.storage.TypedStorage(_internal=True)

    def find_class(self, module: str, name: str) -> Any:
        if self.extra_handler is not None and (found := self.extra_handler(module, name)) is not None:
            return found
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in _REBUILDS:
            return getattr(torch._utils, name)
        if module == "torch" and name in (*_STORAGES, "float32"):
            return getattr(torch, name)
        if (module, name) == ("torch.nn.modules.container", "ParameterDict"):
            return torch.nn.ParameterDict
        raise Exception(f"global '{module}/{name}' is forbidden")


def check_pt(filename: Any, extra_handler: Any) -> None:
    with zipfile.ZipFile(filename) as archive:
        for name in archive.namelist():
            if not _MEMBERS.match(name):
                raise Exception(f"bad file inside {filename}: {name}")
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Exception(f"data.pkl not found in {filename}")
        with archive.open(pickles[0]) as file:
            unpickler = RestrictedUnpickler(file)
            unpickler.extra_handler = extra_handler
            unpickler.load()


def load(filename: Any, *args: Any, **kwargs: Any) -> Any:
    return load_with_extra(filename, *args, extra_handler=global_extra_handler, **kwargs)


def load_with_extra(filename: Any, extra_handler: Any = None, *args: Any, **kwargs: Any) -> Any:
    from modules import shared

    try:
        if not shared.cmd_opts.disable_safe_unpickle:
            check_pt(filename, extra_handler)
    except Exception:
        errors.report(f"Error verifying pickled file from {filename}", exc_info=True)
        return None
    return unsafe_torch_load(filename, *args, **kwargs)


unsafe_torch_load = torch.load
torch.load = load
global_extra_handler: Any = None
