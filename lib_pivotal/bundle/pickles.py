"""Tensors out of `.pt` and `.bin` files, without ever executing a pickle.

`torch.load(weights_only=True)` builds tensors and plain containers only, and refuses everything else.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib_pivotal.errors import BundleError


def load_plain(path: str | Path) -> Any:
    """What a torch file holds: tensors, numbers, text, lists and dicts. BundleError for anything that would run code.

    `nn.ParameterDict` of old web UIs is refused by torch as well: convert such a file once in the program that made it.
    """
    path = Path(path)
    try:
        # torch.serialization: the web UI replaces torch.load by a checker of its own, which answers None for a refusal
        return torch.serialization.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BundleError(f"{path}: cannot be opened: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0] if str(error) else "unknown content"
        raise BundleError(
            f"{path}: refused: it holds more than plain tensors, and reading it could run code ({reason}). "
            "If you trust it, open it once in the program that made it and save it as .safetensors."
        ) from None
    except Exception as error:  # torch raises a dozen types for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(f"{path}: not a torch file ({reason}). Download or save it again.") from None


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a flat torch file (a state dict), other values left out."""
    content = load_plain(path)
    if not isinstance(content, dict):
        raise BundleError(f"{path}: holds a {type(content).__name__}, a table of tensors was expected")
    return {key: value.detach() for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
