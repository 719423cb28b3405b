"""Whether a sweep fits on a GPU: tensors counted by hand, batches that fit, the sentence that says so."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from bench import NoiseSchedule, Prediction, get_sampler
from bench.device.footprint import footprint
from bench.published.presets import get_preset
from bench.sweep.device_memory import GIB, LIBRARIES, SLACK, DeviceNeeds, device_needs, lacks_on_devices
from bench.sweep.preflight import missing_requirements
from bench.sweep.request import Sweep
from models.unet import UNet, UNetConfig

X = 3 * 8 * 8 * 4  # bytes of one sample


class Wide(nn.Module):
    """Makes four times x and, while that lives, four times x again; a view of it takes nothing."""

    schedule, shape, variance = NoiseSchedule.linear(10), (3, 8, 8), "fixed"

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1000))
        self.register_buffer("unused", torch.ones(500))

    def forward(self, x, t):
        wide = x.repeat(1, 4, 1, 1) * self.weight[0]
        return Prediction((wide + 1)[:, :3])


class Space:
    """A square of x, with a table of its own."""

    name, dim, fingerprint, quantised = "own", 3 * 8 * 8, "own", False
    most_at_once = 7

    def __init__(self):
        self.table = torch.ones(3 * 8 * 8)

    def __call__(self, x):
        return x.flatten(1) * self.table

    def to(self, device):
        return self


def test_tensors_are_counted_once_and_for_as_long_as_they_live():
    weight = torch.ones(100)

    def chain():
        x = torch.zeros(10)
        for _ in range(5):
            x = x.view(2, 5).view(10) + weight[:10]  # the old one and the new one
        x += 1
        return x

    found = footprint(chain)
    assert (found.resident, found.working) == (400, 80)

    def kept():
        return [torch.zeros(10) for _ in range(5)]

    assert footprint(kept).working == 200


def test_the_needs_of_a_network_counted_by_hand():
    needs = device_needs(Wide(), [])
    assert needs.weights == 4000  # the buffer that no operation takes stays out
    # x and t, the repeated x and its product; the last two while the sum is made, the first two gone by then
    assert needs.network == X + 8 + 8 * X


def test_a_u_net_takes_its_weights_and_as_much_more_as_it_gets_samples():
    network = UNet(
        UNetConfig(
            image_size=16, in_channels=3, out_channels=3, channels=32, widths=(32, 64), blocks=1,
            attention=(False, True), norm_groups=8,
        )
    ).eval()  # fmt: skip
    one, four = (
        footprint(lambda n=n: network(torch.zeros(n, 3, 16, 16), torch.zeros(n, dtype=torch.int64)))
        for n in (1, 4)
    )
    assert one.resident == four.resident
    assert one.resident == pytest.approx(sum(p.numel() * 4 for p in network.parameters()), rel=0.01)
    assert four.working == pytest.approx(4 * one.working, rel=0.01)
    # at the least the maps that the way up waits for: x's, one a block, one a resampling
    assert one.working > 4 * (16 * 16 * 32 * 2 + 8 * 8 * (32 + 64))


def test_network_and_spaces_run_in_turn_and_a_space_in_parts():
    needs = DeviceNeeds(weights=1000, network=10, spaces=[(50, 7), (3, None)])
    assert needs.activations(5) == 250  # the space's five
    assert needs.activations(20) == 350  # the space takes seven at a time
    assert needs.activations(100) == 1000
    assert needs.total(100) == LIBRARIES + 1000 + int(SLACK * 1000)
    assert needs.largest_batch(needs.total(320)) == 320
    assert needs.largest_batch(needs.total(329)) == 320
    assert needs.largest_batch(LIBRARIES) == 0


def test_one_sentence_a_gpu_that_is_too_small(monkeypatch):
    free = {"cuda:0": 80 * GIB, "cuda:1": GIB, "cuda:2": GIB // 4}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device], 80 * GIB))
    asked = ("cuda:0", "cuda:1", "cuda:2", "cuda:1")
    batch = 200_000  # 9 X and 8 bytes, slack, and the libraries: 6.3 GiB
    second, third = lacks_on_devices(asked, batch, Wide(), [Space()])
    gib = device_needs(Wide(), [Space()]).total(batch) / GIB
    told = f"about {gib:.1f} GiB are needed on cuda:1 at --batch 200000 (weights 0.0, activations 1.3 by"
    assert second.startswith(told)
    needs = device_needs(Wide(), [Space()])
    suggested = int(second.rpartition("--batch ")[2])
    assert needs.total(suggested) <= GIB < needs.total(suggested + 1000)
    assert third.endswith("0.2 are free: free some of it, or give --device cpu")
    (again,) = lacks_on_devices(asked, suggested, Wide(), [])
    assert "needed on cuda:2" in again


def test_no_gpu_is_asked_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: pytest.fail("asked"))
    assert list(lacks_on_devices(("cpu",), 10**9, Wide(), [])) == []


def test_a_presets_sweep_is_checked_at_the_batch_it_was_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (LIBRARIES + 2**20, GIB))
    preset = get_preset("ddim-table1-cifar10")
    asked = Sweep("exact-mixture", (get_sampler("ddim"),), devices=("cuda:0",), n=50_000, batch=50_000)
    (sentence,) = missing_requirements(preset, asked)
    assert "needed on cuda:0 at --batch 50000" in sentence
    fits = int(sentence.rpartition("--batch ")[2])
    assert list(missing_requirements(preset, replace(asked, batch=fits))) == []
