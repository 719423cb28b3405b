"""Whether a processor computes in bfloat16: torch is asked where it knows, and Linux where it does not."""

import pytest
import torch

from bench.device import bfloat16
from bench.device.bfloat16 import computes_bfloat16, processor_computes_bfloat16

X86 = "model name\t: some\nflags\t\t: fpu avx512f avx512_bf16 amx_tile\nflags\t\t: fpu\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd i8mm bf16\n"
OLD = "flags\t\t: fpu avx2 avx512f avx512_vnni\n"


@pytest.fixture
def machine(monkeypatch):
    """Make a machine of what torch says and what Linux says; None stands for nothing said at all."""

    def make(torch_says, linux_says):
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            if torch_says is None:
                monkeypatch.delattr(torch.cpu, name, raising=False)
            else:
                monkeypatch.setattr(torch.cpu, name, lambda: torch_says, raising=False)

        class Missing:
            def read_text(self):
                if linux_says is None:
                    raise FileNotFoundError
                return linux_says

        monkeypatch.setattr(bfloat16, "Path", lambda name: Missing())
        processor_computes_bfloat16.cache_clear()
        return computes_bfloat16("cpu")

    yield make
    processor_computes_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("torch_says", "linux_says", "expected"),
    [
        (True, None, True),
        (None, X86, True),
        (False, ARM, True),
        (False, OLD, False),
        (False, None, False),
        (None, "", False),
    ],
)
def test_a_processor_is_asked_in_both_ways(machine, torch_says, linux_says, expected):
    assert machine(torch_says, linux_says) is expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_is_asked_for_its_capability(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert computes_bfloat16("cuda:0") is expected


def test_no_gpu_and_another_kind_of_device_do_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not computes_bfloat16("cuda")
    assert not computes_bfloat16("meta")
