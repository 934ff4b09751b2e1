"""Lack of memory: how it is told from other errors, and how what is free is given back."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from lib_pivotal.errors import PivotalError

Made = TypeVar("Made")
_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory, of the GPU or of the machine, did not suffice."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


def release_memory() -> None:
    """Give freed memory back before something is tried again.

    Call it after the `except` block, never inside: there the exception's traceback still holds what the failed attempt
    had made.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def made_or(make: Callable[[], Made], otherwise: PivotalError) -> Made:
    """What `make` gives; where memory does not suffice, `otherwise` is raised, with what the attempt had made freed."""
    try:
        return make()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    release_memory()
    raise otherwise
