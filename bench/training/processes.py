"""The processes that train one network together, on one machine or several, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from bench.device.ranks import count_of_ranks
from bench.errors import UsageError


@dataclass(frozen=True)
class Processes:
    """Which of the run's processes is at work here.

    Attributes:
        rank: 0 is the one that writes.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def present(cls) -> Processes:
        """Return what `joined` has set up, or the only process there is."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def writes(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return the network with its gradients averaged over the processes after each backward pass."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)

    def gather(self, values: Tensor) -> Tensor:
        """Return the tensors of all processes, on the CPU, one after the other along the last dimension."""
        if self.size == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.size)]
        distributed.all_gather(parts, values.contiguous())
        return torch.cat(parts, -1)

    def agree(self, step: int) -> None:
        """See to it that all processes begin with the same step.

        Raises:
            UsageError: if one has found another checkpoint than the others.
        """
        steps = self.gather(torch.tensor([step])).tolist()
        if len(set(steps)) > 1:
            raise UsageError(
                f"the processes found checkpoints of the steps {steps} in the output folder; put it where all"
                " machines see it"
            )

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()


def without_exchange(network: nn.Module) -> AbstractContextManager[None]:
    """Return a context in which gradients stay in their process and add up there."""
    if isinstance(network, DistributedDataParallel):
        kept: AbstractContextManager[None] = network.no_sync()
        return kept
    return nullcontext()


def started_by_torchrun() -> bool:
    """Return whether this is one of several processes."""
    return count_of_ranks() > 1


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Meet the other processes that ``torchrun`` has started, if any, and leave them in the end."""
    if not started_by_torchrun():
        yield Processes()
        return
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UsageError(
            f"the variable WORLD_SIZE asks for several processes and {missing[0]} is not set: start them with"
            " torchrun, or unset WORLD_SIZE"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes.present()
    finally:
        distributed.destroy_process_group()
