"""Which device to compute on."""

from __future__ import annotations

import os
import re

import torch

from divacli.errors import DivaError


def resolve_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` stands for.

    Of several processes on one machine each takes the CUDA device of its own number, unless one is named;
    `auto` is the CPU where there are fewer devices than processes.

    Raises:
        DivaError: It is none of these, there is no such device, or not one for each process.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if name == "auto":
        # NCCL refuses two processes on one device.
        name = "cuda" if found and processes <= found else "cpu"
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", name):
        raise DivaError(f"--device {name}", expected="auto, cpu, cuda or cuda:N")
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= found:
        raise DivaError(
            f"--device {name}: torch sees {found} CUDA device{'' if found == 1 else 's'}",
            expected="one that exists",
            hint="use --device cpu, or check the driver with nvidia-smi",
        )
    if name == "cuda" and processes > found:
        raise DivaError(
            f"--device cuda: {processes} processes on a machine with {found} CUDA device"
            f"{'' if found == 1 else 's'}",
            expected="a device for each process",
            hint=f"use --nproc-per-node {found}, or --device cpu",
        )
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % found)
    return torch.device(name)
