"""Where a network is trained: the CPU, one graphics card, or several, of which each takes its share of every batch.

Several are used when the command is started once for each of them, as ``torchrun --nproc-per-node=gpu -m supermage.cli train RECIPE``
does. Without graphics cards the same works between processes of the CPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist

PATIENCE = timedelta(hours=12)
"""How long processes wait for one that makes maps or measures."""

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Devices:
    """The device of a process and its place among all.

    Attributes
    ----------
    device
        Where it computes.
    rank, world
        Its number, and how many there are.
    half
        Whether convolutions and products are taken in bfloat16 (sums, normalisation and weights stay in float32).
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    half: bool = False

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes files."""
        return self.rank == 0

    def share(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Its part of some rows; the parts of all together are the rows."""
        return rows[self.rank :: self.world]

    def summed(self, values: Tensor) -> Tensor:
        """Sum of all processes' tensors, the same bits in each; in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Go on when all are here."""
        if self.world > 1:
            dist.barrier()

    def close(self) -> None:
        """Part from the others."""
        if self.world > 1:
            dist.destroy_process_group()

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Where convolutions are taken in the precision asked for."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
            yield

    @contextmanager
    def repeatable(self) -> Iterator[None]:
        """Where cuDNN takes kernels that give the same bits every time, and measures none; nothing changes on the CPU, whose bits are."""
        if self.device.type != "cuda":
            yield
            return
        cudnn = torch.backends.cudnn
        before = cudnn.deterministic, cudnn.benchmark
        cudnn.deterministic, cudnn.benchmark = True, False
        try:
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = before


def find_devices(precision: Precision = "auto") -> Devices:
    """Device of this process, from what ``torchrun`` has set in the environment.

    Parameters
    ----------
    precision
        ``auto``: bfloat16 on graphics cards that have it, float32 everywhere else.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    cards = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cards else torch.device("cpu")
    if cards:
        torch.cuda.set_device(device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cards else "gloo", timeout=PATIENCE)
    half = precision == "bfloat16" or (precision == "auto" and cards and torch.cuda.is_bf16_supported())
    return Devices(device, rank, world, half)
