"""Counting memory: every tensor that operations make, by what it is for, and the most that was alive at once.

torch shows each operation to a dispatch mode. Storages are counted when they appear and when they die, as the
profiler's records would say it, but also where no numbers are there at all (fake tensors): so a step can be counted
that no memory of this machine would hold.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WORKING = "working"
"""The kind of whatever nobody claims."""


class MemoryTracker(TorchDispatchMode):
    """Inside, storages that operations allocate are counted under the kind that is set.

    Not seen: what is there already, what kernels take for themselves. The latter is estimated where it is large: see
    `workspace_bytes`. Code that asks a fake tensor for its number ("is all of it finite?") is answered with 1, so that
    it can be counted. `as_gpu` estimates as for a GPU's kernels, whatever the device.
    """

    def __init__(self, *, as_gpu: bool = False) -> None:
        super().__init__()
        self._as_gpu = as_gpu
        self._kind = WORKING
        self._events: list[tuple[int, int]] = []
        self._kinds: dict[int, str] = {}
        self._alive: dict[int, tuple[int, Any]] = {}
        self._next = 0

    @contextlib.contextmanager
    def counting(self, kind: str) -> Iterator[None]:
        """What is allocated inside is of this kind."""
        before, self._kind = self._kind, kind
        try:
            yield
        finally:
            self._kind = before

    def rename(self, tensors: Iterable[Tensor], kind: str) -> None:
        """These tensors, whatever they were counted as, are of this kind."""
        for tensor in tensors:
            found = self._alive.get(_key(tensor))
            if found is not None:
                self._kinds[found[0]] = kind

    def peak(self) -> dict[str, int]:
        """Bytes by kind at the moment when their sum was the largest."""
        sizes, live, most, moment = dict[int, int](), 0, -1, -1
        for index, (_, size) in enumerate(self._events):
            live += size
            if live > most:
                most, moment = live, index
        for number, size in self._events[: moment + 1]:
            sizes[number] = sizes.get(number, 0) + size
        found: Counter[str] = Counter()
        for number, size in sizes.items():
            if size:
                found[self._kinds[number]] += size
        return dict(found)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return _ONES[_kind_of(args[0])]
        result = func(*args, **(kwargs or {}))
        if all(returned.alias_info is None for returned in func._schema.returns):  # else a view, or in place
            for tensor in tree_leaves(result):
                if isinstance(tensor, Tensor):
                    self._add(tensor)
            self._add_workspace(workspace_bytes(func, args, result, as_gpu=self._as_gpu))
        return result

    def _add(self, tensor: Tensor) -> None:
        key = _key(tensor)
        if key in self._alive:
            return
        storage = tensor.untyped_storage()
        number, size = self._number(), storage.nbytes()

        def gone(_: Any) -> None:
            self._events.append((number, -size))
            if self._alive.get(key, (None,))[0] == number:
                del self._alive[key]

        self._alive[key] = (number, weakref.ref(storage, gone))
        self._events.append((number, size))

    def _add_workspace(self, size: int) -> None:
        if size:
            number = self._number()
            self._kinds[number] = WORKING
            self._events += [(number, size), (number, -size)]

    def _number(self) -> int:
        self._next += 1
        self._kinds[self._next] = self._kind
        return self._next


_ONES = {"bool": True, "int": 1, "float": 1.0}


def _kind_of(tensor: Tensor) -> str:
    if tensor.dtype is torch.bool:
        return "bool"
    return "float" if tensor.is_floating_point() else "int"


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def workspace_bytes(func: Any, args: Any, result: Any, *, as_gpu: bool = False) -> int:
    """What a kernel takes for itself beside its results, where that can be large.

    Convolutions: on a CPU, oneDNN brings the weights into its own order (measured: exactly their size); where it has no
    kernels for half precision, torch unfolds the picture instead (measured, too). On a GPU, cuDNN brings input, weights
    and result from NCHW to NHWC, where it computes in tensor cores: an estimate. Fused attention's backward pass on a
    GPU sums the gradient of the queries in fp32 (FlashAttention-2, Dao 2023, arXiv 2307.08691, section 3.1.2).
    """
    name = func._schema.name
    if name in ("aten::convolution", "aten::convolution_backward"):
        own, weight = (args[0], args[1]) if name == "aten::convolution" else (args[1], args[2])
        if own.device.type != "cuda" and not as_gpu:
            return _columns_bytes(own, weight, result, args) if unfolds(own.dtype) else _bytes(weight)
        made = result if name == "aten::convolution" else args[0]
        return _bytes(own) + _bytes(weight) + _bytes(made)
    if "attention" in name and "backward" in name and (as_gpu or args[1].device.type == "cuda"):
        return int(args[1].numel() * torch.float32.itemsize)
    return 0


def unfolds(dtype: torch.dtype) -> bool:
    """Whether convolutions of this type unfold their pictures on this CPU: where its oneDNN has no kernels for it."""
    name = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}.get(dtype)
    if name is None:
        return False
    try:
        return not getattr(torch.ops.mkldnn, name)()
    except (AttributeError, RuntimeError):  # torch before 2.2 does not know of fp16, a build without oneDNN of neither
        return True


def _columns_bytes(own: Tensor, weight: Tensor, result: Any, args: Any) -> int:
    """A picture unfolded: a column of all its inputs for each pixel of the result."""
    made = result if isinstance(result, Tensor) else args[0]
    window = int(weight[0].numel())
    pixels = made.shape[0] * made[0, 0].numel()
    return 0 if weight.shape[-1] == 1 else window * pixels * own.element_size()


def _bytes(tensor: Tensor) -> int:
    return int(tensor.numel() * tensor.element_size())
