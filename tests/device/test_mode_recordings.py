"""Recordings of networks on a GPU: which one is played when; and, on one, that they say what networks say."""

import pytest
import torch
from torch import nn

from bench import NoiseSchedule, Prediction
from bench.device import modes
from bench.device.modes import Mode, Prepared
from bench.device.precision import allow_tf32, tf32_allowed
from bench.diffusion.grid import grid_for
from bench.errors import UsageError
from bench.sweep.readiness import ModeRefused, Readiness


class Small(nn.Module):
    """A network with a convolution, whose rounding shows in which precision it is computed."""

    schedule, shape, variance = NoiseSchedule.linear(20), (16, 8, 8), "fixed"

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x, t):
        return Prediction(self.layer(x) * (1 + t.view(-1, 1, 1, 1) / 20))


@pytest.fixture
def small():
    return Small().eval()


@pytest.fixture(autouse=True)
def switches():
    """TF32 as it was."""
    before = tf32_allowed()
    yield
    allow_tf32(*before)


# Which recording is played, seen without a GPU: a stand-in records nothing and counts.


@pytest.fixture
def recorded(monkeypatch):
    """The recordings that are made, as what each was made with."""
    made = []

    class StandIn:
        def __init__(self, function, leaves, tree, other):
            made.append((torch.is_autocast_cache_enabled(), torch.is_inference_mode_enabled()))
            self.function = function

        def play(self, leaves):
            return "played", self

    monkeypatch.setattr(modes, "_Recording", StandIn)
    monkeypatch.setattr(modes, "_is_on_gpu", lambda leaf: True)
    return made


def ask(network, batch=2):
    return network(torch.ones(batch, 16, 8, 8), torch.zeros(batch))


def test_a_recording_is_played_in_the_precision_it_was_made_in(small, recorded, monkeypatch):
    casting = {"now": None}
    monkeypatch.setattr(modes.torch, "is_autocast_enabled", lambda kind: casting["now"] is not None)
    monkeypatch.setattr(modes.torch, "get_autocast_dtype", lambda kind: casting["now"])
    prepared = Prepared(small, Mode("cuda-graph"))
    answers = {}
    ways = [(None, False), (None, True), (torch.bfloat16, False), (torch.float16, False)]
    for preparing in (True, False):
        for half, tf32 in ways:
            casting["now"] = half
            allow_tf32(tf32)
            with torch.no_grad(), prepared.preparing() if preparing else prepared.running():
                word, recording = ask(small)
            assert word == "played"
            assert answers.setdefault((half, tf32), recording) is recording
    assert len(set(map(id, answers.values()))) == len(ways) == len(recorded)


def test_a_recording_is_of_one_size_and_knows_of_no_gradients(small, recorded):
    prepared = Prepared(small, Mode("cuda-graph"))
    with torch.no_grad(), prepared.preparing():
        ask(small)
    with prepared.running():
        with torch.no_grad():
            assert ask(small)[0] == "played"
            assert isinstance(ask(small, batch=3), Prediction)  # of a size that nobody prepared
        x = torch.ones(2, 16, 8, 8, requires_grad=True)
        (gradient,) = torch.autograd.grad(small(x, torch.zeros(2)).eps.sum(), x)
    assert gradient.abs().sum() > 0
    assert len(recorded) == 1


def test_nothing_is_recorded_that_will_be_gone_or_cannot_be_written_to(small, recorded):
    prepared = Prepared(small, Mode("cuda-graph"))
    with torch.inference_mode(), prepared.preparing():
        ask(small)
    assert recorded == [(False, False)]  # neither autocast's casts of weights nor tensors of inference mode
    assert torch.is_autocast_cache_enabled()


def test_a_device_without_graphs_is_named(small):
    with pytest.raises(UsageError, match="a CUDA graph needs a CUDA device, and this is cpu"):
        Readiness(small, "'small'", torch.device("cpu")).make_ready(
            "cuda-graph", "float32", 2, grid_for(small, 4, "uniform"), 0
        )


# On a GPU.

CUDA = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def on_gpu(function):
    """Mark a test that needs a GPU."""
    for mark in CUDA:
        function = mark(function)
    return function


def questions(batch=2):
    generator = torch.Generator().manual_seed(1)
    for time in (0, 9, 19):
        x = torch.randn(batch, 16, 8, 8, generator=generator)
        yield x.cuda(), torch.full((batch,), time, device="cuda")


@on_gpu
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("mode", ["cuda-graph", "cuda-graph+channels_last"])
def test_a_graph_says_what_the_network_says_in_every_precision(small, mode, requires_grad):
    network = small.cuda().requires_grad_(requires_grad)
    prepared = Prepared(network, Mode.parse(mode))
    ways = [(None, False), (None, True), (torch.bfloat16, False), (torch.float16, False)]

    def answers(way):
        half, tf32 = way
        allow_tf32(tf32)
        with torch.no_grad(), torch.autocast("cuda", half or torch.float16, enabled=half is not None):
            return [network(x, t).eps.float().clone() for x, t in questions()]

    own = {way: answers(way) for way in ways}
    for way in ways:
        with prepared.preparing():
            answers(way)
    torch.cuda.empty_cache()
    torch.full((2**24,), float("nan"), device="cuda")  # whoever reads memory that was given back sees it
    for _ in range(2):
        for way in reversed(ways):
            with prepared.running():
                played = answers(way)
            for one, other in zip(played, own[way], strict=True):
                scale = float(other.abs().max())
                assert torch.allclose(one, other, rtol=0, atol=scale * (1e-5 if way[0] is None else 1e-2))
    assert torch.equal(answers((None, False))[0], own[None, False][0])


@on_gpu
def test_graphs_made_in_inference_mode_are_played_outside_of_it(small):
    network, prepared = small.cuda(), Prepared(small, Mode("cuda-graph"))
    x, t = next(questions())
    with torch.inference_mode(), prepared.preparing():
        network(x, t)
    with torch.no_grad(), prepared.running():
        assert torch.allclose(network(x, t).eps, network.layer(x) * (1 + t.view(-1, 1, 1, 1) / 20), atol=1e-5)


class Waits(Small):
    """A network that looks at a number of the GPU's."""

    def forward(self, x, t):
        return Prediction(self.layer(x) * float(t[0] + 1))


@on_gpu
def test_a_network_that_waits_for_the_gpu_is_refused_and_leaves_all_as_it_was():
    network = Waits().cuda().eval().requires_grad_(False)
    stream = torch.cuda.current_stream()
    readiness = Readiness(network, "'waits'", torch.device("cuda"))
    with pytest.raises(ModeRefused, match="synchroni"):
        readiness.make_ready("cuda-graph", "float32", 2, grid_for(network, 4, "uniform"), 0)
    assert torch.cuda.current_stream() == stream
    assert torch.cuda.get_sync_debug_mode() == 0
    assert torch.isfinite(torch.randn(4, device="cuda")).all()  # the generator is not left recording
    assert readiness.make_ready("eager", "float32", 2, grid_for(network, 4, "uniform"), 0) == 0


@on_gpu
@pytest.mark.parametrize("mode", ["eager+channels_last", "cuda-graph", "cuda-graph+channels_last", "compile"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_modes_of_a_gpu_are_admitted(small, mode, precision):
    network = small.cuda().requires_grad_(False)
    readiness, grid = Readiness(network, "'small'", torch.device("cuda")), grid_for(small, 4, "uniform")
    assert readiness.make_ready(mode, precision, 2, grid, 0) < 0.1
    with torch.no_grad(), readiness.running(mode):
        assert torch.isfinite(network(*next(questions())).eps).all()
