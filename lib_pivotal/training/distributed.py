"""Several processes that train one run: gradients averaged, decisions taken together, one writer.

Every process computes its own slice of the *same* global batch; losses are divided by the global number of samples,
so that the sum of the gradients is the gradient of one process that saw it all. What one process meets (a stop, a
pause, lack of memory, a number that is not finite) all must act on in the same step, or they wait for each other for
ever: `agree` asks all. A process that is gone is noticed while waiting (`training.liveness`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from lib_pivotal.errors import TrainingError
from lib_pivotal.training.liveness import Liveness

COLLECTIVE_TIMEOUT = timedelta(days=7)
"""The backend's own limit. Whoever draws pictures or writes files may keep the others waiting for long: who is dead is
told by signs of life, not by time."""


class ProcessGroup:
    """This process among `size` processes; without `torchrun` it is alone and every call is free."""

    def __init__(self, *, rank: int = 0, size: int = 1, liveness: Liveness | None = None) -> None:
        self.rank = rank
        self.size = size
        self._liveness = liveness

    @classmethod
    def from_environment(cls) -> ProcessGroup:
        """Join the group that `torchrun` describes (gloo on the CPU, nccl on GPUs); alone where there is none."""
        if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
            return cls()
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        if backend == "nccl":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
        if not dist.is_initialized():
            group = dist.PrefixStore("group", store)  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT)
        life = dist.PrefixStore("life", store)  # type: ignore[attr-defined]
        return cls(rank=rank, size=size, liveness=Liveness(life, rank=rank, size=size))

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
        self._add_up(present)
        used = [parameter for parameter, count in zip(parameters, present.tolist(), strict=True) if count > 0]
        if not used:
            return
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in used])
        self._add_up(flat)
        offset = 0
        for parameter in used:
            parameter.grad = flat[offset : offset + parameter.numel()].view_as(parameter).clone()
            offset += parameter.numel()

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the values that the first one has, in place: of what each made by itself."""
        if self.size == 1 or not tensors:
            return
        for tensor in tensors:
            if not self.writes:
                tensor.zero_()
            self._add_up(tensor)

    def totals(self, values: Sequence[float]) -> list[float]:
        """The sums of numbers over the processes."""
        if self.size == 1 or not values:
            return list(values)
        tensor = torch.tensor(list(values), dtype=torch.float64)
        if dist.get_backend() == "nccl":
            tensor = tensor.cuda()
        self._add_up(tensor)
        return [float(value) for value in tensor.tolist()]

    def total(self, value: float) -> float:
        """The sum of a number over the processes."""
        return self.totals([value])[0]

    def agree(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag is true everywhere if it is true somewhere. All processes must ask the same at the same place."""
        return tuple(total > 0 for total in self.totals([1.0 if flag else 0.0 for flag in flags]))

    def any(self, flag: bool) -> bool:
        """True everywhere if it is true somewhere: so that all stop, skip or halve together."""
        return self.agree(flag)[0]

    def leave(self, reason: str) -> None:
        """Tell the others that this process takes no part any more, so that they do not wait for it."""
        if self._liveness is not None:
            self._liveness.leave(reason)

    def check_size(self, batch_size: int) -> None:
        """Raises TrainingError where a batch cannot be shared out evenly."""
        if batch_size % self.size:
            raise TrainingError(
                f"batch size {batch_size} cannot be shared by {self.size} processes: use a multiple of {self.size}"
            )

    def close(self) -> None:
        """Leave the group."""
        if self._liveness is not None:
            self._liveness.close()
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def _add_up(self, tensor: Tensor) -> None:
        """All-reduce in place. Raises TrainingError, with a sentence, where another process is gone."""
        try:
            work = dist.all_reduce(tensor, async_op=True)
            if self._liveness is not None:
                self._liveness.wait(work.is_completed)
            work.wait()
        except RuntimeError as error:  # the backend's: connection closed by peer, and the like
            reason = self._liveness.departed() if self._liveness is not None else ""
            raise TrainingError(reason or f"another process of this run is gone ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
