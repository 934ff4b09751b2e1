"""Lack of memory: how it is told from other errors, and how what is free is given back."""

from __future__ import annotations

import gc

import torch

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
