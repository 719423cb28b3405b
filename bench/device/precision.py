"""TF32: whether a GPU may round the factors of float32 products to 10 bits, for a network and for a score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def allow_tf32(products: bool, convolutions: bool | None = None) -> None:
    """Allow TF32 on a GPU, or forbid it, until it is said otherwise; convolutions as products by default."""
    torch.backends.cuda.matmul.allow_tf32 = products
    torch.backends.cudnn.allow_tf32 = products if convolutions is None else convolutions


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 within, in products and convolutions, whatever was allowed; it moves FID by 0.02.

    On a CPU it forbids the short formats that oneDNN may be allowed. cuDNN takes its algorithms without
    trying them, so that a second run takes the same ones. All is as before afterwards.
    """
    switches = _switches()
    before = [one.fp32_precision for one in switches]
    old = (_allowed(torch.backends.cuda.matmul), _allowed(torch.backends.cudnn))
    benchmark = torch.backends.cudnn.benchmark
    try:
        torch.backends.cudnn.benchmark = False
        allow_tf32(False)
        for one in switches:
            one.fp32_precision = "ieee"
        yield
    finally:
        allow_tf32(*old)
        for one, value in zip(switches, before, strict=True):
            one.fp32_precision = value
        torch.backends.cudnn.benchmark = benchmark


def _switches() -> list[Any]:
    """Each backend's own switch, since torch 2.9.

    They go beside the old, common ones and not instead: torch fails where the two say different things.
    """
    backends: Any = torch.backends
    cuda, cudnn, cpu = backends.cuda, backends.cudnn, backends.mkldnn
    if not hasattr(cuda.matmul, "fp32_precision"):
        return []
    return [cuda.matmul, cudnn.conv, cudnn.rnn, cpu.matmul, cpu.conv]


def _allowed(backend: Any) -> bool:
    """Whether products (``cuda.matmul``) or convolutions (``cudnn``) may be TF32; never fails."""
    switch = getattr(backend, "conv", backend)
    found = switch.fp32_precision == "tf32" if hasattr(switch, "fp32_precision") else backend.allow_tf32
    return bool(found)


def tf32_allowed() -> tuple[bool, bool]:
    """Return whether products and convolutions may be TF32 now."""
    return _allowed(torch.backends.cuda.matmul), _allowed(torch.backends.cudnn)


@contextmanager
def own_float32() -> Iterator[None]:
    """What float32 means within is said within: the caller's settings count for nothing, and are put back.

    Torch has them twice, as one precision of products and as switches of backends, and fails where it is
    asked for the one while the others say something else.
    """
    switches = [*_switches(), *([torch.backends] if hasattr(torch.backends, "fp32_precision") else [])]
    before = [one.fp32_precision for one in switches]
    common, (_, convolutions) = _common(), tf32_allowed()
    try:
        torch.set_float32_matmul_precision("highest")
        for one in switches:
            one.fp32_precision = "ieee"
        yield
    finally:
        torch.set_float32_matmul_precision(common)
        torch.backends.cudnn.allow_tf32 = convolutions
        for one, value in zip(switches, before, strict=True):
            one.fp32_precision = value


def _common() -> str:
    """Return the one precision of float32 products; torch's own where its switches say another."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "highest"


PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""What the network may compute in: float32 is never TF32 by default of a GPU; the last two are autocast."""
