"""Several processes that train one run: gradients averaged, one writer.

Every process computes its own slice of the *same* global batch; losses are divided by the global number of samples,
so that the sum of the gradients is the gradient of one process that saw it all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from lib_pivotal.errors import TrainingError


class World:
    """This process among `size` processes; without `torchrun` it is alone and every call is free."""

    def __init__(self, *, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @classmethod
    def from_environment(cls) -> World:
        """Join the group that `torchrun` describes (gloo on the CPU, nccl on GPUs); alone where there is none."""
        if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
            return cls()
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        if not dist.is_initialized():
            if backend == "nccl":
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            dist.init_process_group(backend)
        return cls(rank=dist.get_rank(), size=dist.get_world_size())

    @property
    def writes(self) -> bool:
        """True for the one process that writes files and talks."""
        return self.rank == 0

    def average(self, parameters: Sequence[Tensor]) -> None:
        """Add up the gradients over the processes, in place. A gradient that some process has, all have after it."""
        if self.size == 1 or not parameters:
            return
        device = parameters[0].device
        present = torch.tensor([parameter.grad is not None for parameter in parameters], device=device).float()
        dist.all_reduce(present)
        used = [parameter for parameter, count in zip(parameters, present.tolist(), strict=True) if count > 0]
        if not used:
            return
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in used])
        dist.all_reduce(flat)
        offset = 0
        for parameter in used:
            parameter.grad = flat[offset : offset + parameter.numel()].view_as(parameter).clone()
            offset += parameter.numel()

    def total(self, value: float) -> float:
        """The sum of a number over the processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64)
        if dist.get_backend() == "nccl":
            tensor = tensor.cuda()
        dist.all_reduce(tensor)
        return float(tensor)

    def any(self, flag: bool) -> bool:
        """True everywhere if it is true somewhere: so that all stop, skip or halve together."""
        return self.total(1.0 if flag else 0.0) > 0

    def check_size(self, batch_size: int) -> None:
        """Raises TrainingError where a batch cannot be shared out evenly."""
        if batch_size % self.size:
            raise TrainingError(
                f"batch size {batch_size} cannot be shared by {self.size} processes: use a multiple of {self.size}"
            )

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
