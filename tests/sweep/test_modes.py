"""Modes held to eager float32 and told in records and tables; batches that are found or that memory cuts."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.commands import bench
from support.reports import record, table
from support.sweeps import Silent
from torch import nn

from bench import NoiseSchedule, Prediction, get_sampler, load_results
from bench.device import modes
from bench.device.modes import EAGER, Mode, Prepared, networks_of
from bench.device.precision import PRECISIONS
from bench.diffusion.grid import grid_for
from bench.errors import UsageError
from bench.metrics.levels import Levels
from bench.plugins.loading import registry
from bench.records.record import DrawingInfo, Record
from bench.records.store import Store
from bench.records.trial import BlockResult, Cost, Trial
from bench.report.page.details import command_of, facts_of
from bench.report.tables.scores import score_sheet
from bench.report.tables.table import tables_of
from bench.sweep import choices
from bench.sweep.choices import CHOICES, Chooser, OutOfMemory, even, largest_that_pays
from bench.sweep.executors.serial import Serial
from bench.sweep.readiness import ModeRefused, Readiness, is_out_of_memory
from bench.sweep.request import Sweep
from bench.sweep.runner import Runner
from bench.sweep.tolerances import TOLERANCES
from bench.sweep.worker import worker

COMPILES = pytest.mark.skipif(
    shutil.which("gcc") is None or not hasattr(torch.compiler, "set_stance"),
    reason="torch.compile needs a compiler, and its stances torch 2.6",
)
CPU = torch.device("cpu")

FILE = """
import torch
from torch import nn
import bench


class Small(nn.Module):
    schedule, shape, variance = bench.NoiseSchedule.linear(T=20), (1, 4, 4), "fixed"

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, t):
        {before}
        return bench.Prediction(self.layer(x) * 0.1 + 0.5 * x)


def make():
    return Small()
"""


class Small(nn.Module):
    """A network with a convolution, that says how it was called."""

    schedule, shape, variance = NoiseSchedule.linear(20), (2, 4, 4), "fixed"

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 3, padding=1)
        self.layouts = []

    def forward(self, x, t):
        self.layouts.append(self.layer.weight.is_contiguous(memory_format=torch.channels_last))
        return Prediction(self.layer(x))


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Small().eval().requires_grad_(False)


@pytest.fixture
def file(tmp_path, monkeypatch):
    def write(before="pass"):
        (tmp_path / "small.py").write_text(FILE.replace("{before}", before))
        return f"{tmp_path / 'small.py'}:make"

    yield write
    worker.cache_clear()


def ready(model):
    return Readiness(model, "'small'", CPU)


def make_ready(readiness, mode="eager", precision="float32", batch=3):
    grid = grid_for(readiness.model, 4, "uniform")
    return readiness.make_ready(mode, precision, batch, grid, 0)


@pytest.fixture
def otherwise(monkeypatch):
    """Have ``compile`` do what a test says, at once and without a compiler."""

    def put(change):
        monkeypatch.setattr(modes.torch, "compile", lambda forward, dynamic: lambda *a: change(forward(*a)))

    return put


def test_a_mode_is_read_as_it_is_written():
    for engine in modes.ENGINES:
        for last in (False, True):
            assert Mode.parse(str(Mode(engine, last))) == Mode(engine, last)
    for text in ("fast", "compile+", "compile+channels_first", ""):
        with pytest.raises(UsageError, match="unknown mode"):
            Mode.parse(text)


def test_every_precision_has_its_tolerance():
    assert set(TOLERANCES) == set(PRECISIONS)
    document = (Path(__file__).parents[2] / "docs" / "performance.md").read_text(encoding="utf-8")
    for name, one in TOLERANCES.items():
        assert f"| `{name}` | {one.answers:g} | {one.images:g} |" in document


def test_the_networks_of_a_model_are_found_wherever_it_holds_them(small):
    class Holder:
        def __init__(self):
            self.inside = {"network": small}

        def __call__(self, x, t):
            return self.inside["network"](x, t)

    assert networks_of(Holder()) == [small]
    assert networks_of(lambda x, t: small(x, t)) == [small]
    assert networks_of(small) == [small]  # not its layers


def test_the_layout_is_another_while_it_runs_and_as_it_was_afterwards(small):
    x, t = torch.randn(3, 2, 4, 4), torch.zeros(3, dtype=torch.int64)
    own, place = small(x, t).eps, small.layer.weight.data_ptr()
    prepared = Prepared(small, Mode.parse("eager+channels_last"))
    for _ in range(2):
        with prepared.running():
            answer = small(x, t).eps
        assert small.layouts[-1]
        assert answer.is_contiguous()
        assert torch.allclose(answer, own, atol=1e-6)
    assert small.layer.weight.data_ptr() == place
    assert torch.equal(small(x, t).eps, own)
    assert not small.layouts[-1]
    assert "forward" not in vars(small)


def test_a_model_without_a_network_has_one_mode():
    with pytest.raises(UsageError, match=r"holds no torch\.nn\.Module"):
        Prepared(lambda x, t: Prediction(x), Mode("compile"))
    Prepared(lambda x, t: Prediction(x), Mode())


@COMPILES
def test_a_compiled_network_agrees_and_nothing_is_compiled_while_it_is_timed(small):
    readiness = ready(small)
    assert make_ready(readiness, "compile") < 1e-5
    assert readiness.seconds > 0
    x, t = torch.randn(3, 2, 4, 4), torch.full((3,), 9)
    own, small.layouts = small(x, t).eps, []
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch.no_grad(), readiness.running("compile"):
        assert torch.allclose(small(x, t).eps, own, atol=1e-6)
        other = small(torch.randn(5, 2, 4, 4), torch.full((5,), 9)).eps  # of a size that nobody prepared
    assert other.shape[0] == 5
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


def test_answers_that_differ_are_refused_with_the_difference(small, otherwise):
    otherwise(lambda answer: Prediction(answer.eps * 1.5))
    with pytest.raises(
        ModeRefused, match=r"compile in float32 is refused.* differs by 0\.5 .*0\.001 is allowed"
    ):
        make_ready(ready(small), "compile")


def test_answers_that_are_no_numbers_are_refused(small, otherwise):
    otherwise(lambda answer: Prediction(answer.eps * float("nan")))
    with pytest.raises(ModeRefused, match="differs by inf"):
        make_ready(ready(small), "compile")


def test_what_cannot_be_compiled_is_refused_with_the_reason(small, otherwise):
    def fails(answer):
        raise RuntimeError("no compiler is here")

    otherwise(fails)
    with pytest.raises(
        ModeRefused, match=r"mode compile does not work for model 'small': .*no compiler is here"
    ):
        make_ready(ready(small), "compile")


def test_half_precision_is_measured_against_float32(small):
    gap = make_ready(ready(small), "eager", "bfloat16")
    assert 1e-4 < gap < TOLERANCES["bfloat16"].answers


def test_memory_that_runs_out_is_known_by_its_cause():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 TB"))
    fault = ValueError("a model's fault")
    fault.__cause__ = RuntimeError("DefaultCPUAllocator: not enough memory: can't allocate memory")
    assert is_out_of_memory(fault)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


# The trial, its record and the tables.

TRIAL = Trial("digits", "ddim:eta=0", "uniform", 10, 100, 0, 50, "float32", "cpu", ("fd_pixels",))


def test_keys_of_before_stay_and_another_mode_is_another_trial():
    assert "mode" not in TRIAL.to_json()
    assert TRIAL.key == "b4093ecb7a127c05"  # as the version before modes has it
    assert replace(TRIAL, mode="compile").key not in (TRIAL.key, replace(TRIAL, mode="cuda-graph").key)
    for trial in (TRIAL, replace(TRIAL, mode="compile+channels_last")):
        assert Trial.from_json(json.loads(json.dumps(trial.to_json()))) == trial


def test_a_record_of_before_is_read_as_eager_and_written_as_it_was():
    old = record("ddim", 10, 4.0)
    written = old.to_json()
    assert "drawing" not in written
    assert "mode" not in written["trial"]
    again = Record.from_json(written)
    assert (again.trial.mode, again.drawing) == (EAGER, None)
    assert again.to_json() == written
    told = replace(old, drawing=DrawingInfo(answers=0.01, images=0.2, compared=16, steps=10, batch=8))
    assert Record.from_json(told.to_json()) == told


def compiled(steps=10, value=4.0, **info):
    made = record("ddim", steps, value, drawn={"mode": "compile"})
    return replace(made, drawing=DrawingInfo(0.0021, 0.34, 16, 10, **info))


def test_tables_do_not_mix_modes_and_say_theirs():
    other, eager = sorted(tables_of([record("ddim", 10, 4.0), compiled()]), key=lambda one: one.trial.mode)
    assert "mode" not in eager.title
    assert "float32, mode compile, cpu" in other.title
    assert other.slug != eager.slug
    note = score_sheet(other).note
    assert "network run in mode compile, float32: its answers differ" in note
    assert "at most 0.0021 of the greatest value, images by 0.34 of 256 levels" in note
    assert "mode" not in score_sheet(eager).note


def test_the_name_of_an_eager_table_is_that_of_before():
    assert table([record("ddim", 10, 4.0)]).slug == "ema_cifar10-fid-quadratic"


def test_a_cell_that_memory_cut_is_told():
    note = score_sheet(table([replace(record("ddim", 10, 4.0), drawing=DrawingInfo(batch=12))])).note
    assert "memory held 12 samples at a time in 1 cell" in note
    assert "network run" not in note


def test_everything_known_of_a_trial_has_its_mode_and_the_command_makes_it_again():
    facts = facts_of(compiled(ready_seconds=31.0, batch=8))
    assert facts["mode"] == "compile"
    assert facts["differs"] == (
        "answers by at most 0.0021 of the greatest value from eager float32, images by 0.34 of 256 levels on"
        " average (16 at S=10), made ready in 31 s, which no cost holds, memory held 8 samples at a time"
    )
    assert "mode" not in facts_of(record("ddim", 10, 4.0))
    layout = replace(compiled(), trial=replace(compiled().trial, mode="eager+channels_last"))
    assert "--mode compile" in command_of(compiled())
    assert "--mode eager --channels-last" in command_of(layout)
    assert "--mode " not in command_of(record("ddim", 10, 4.0))


# Whole sweeps.


def run(folder, model, **changes):
    samplers = tuple(map(get_sampler, changes.pop("samplers", ("ddim", "ddim:eta=1"))))
    asked = {"steps": (4,), "n": 40, "batch": 20, "metrics": ("fd_pixels",), "reference": "digits"}
    runner = Runner(Sweep(**{"model": model, "samplers": samplers, **asked, **changes}), Store(folder))
    return runner, runner.run(runner.plan(), Silent())


@pytest.fixture
def digits():
    yield "digits"
    worker.cache_clear()


def test_a_sweep_in_half_precision_says_how_far_it_is_from_float32(tmp_path, digits):
    _, records = run(tmp_path, digits, precision="bfloat16")
    for made in records:
        assert made.status == "done"
        assert 0 < made.drawing.images < TOLERANCES["bfloat16"].images
        assert 0 < made.drawing.answers < TOLERANCES["bfloat16"].answers
        assert (made.drawing.compared, made.drawing.steps, made.drawing.batch) == (16, 4, None)
    frame = load_results(tmp_path)
    assert "mode" not in frame
    assert frame.images_differ.gt(0).all()


def test_images_are_compared_by_the_executor_with_its_options(tmp_path, digits, monkeypatch):
    class Optioned(Serial):
        name, elsewhere, given = "optioned", False, []

        def with_options(self, options):
            self.given.append(options)
            return self

    monkeypatch.setitem(registry().executors.entries, "optioned", Optioned())
    monkeypatch.setitem(registry().executors.origins, "optioned", registry().executors.origins["serial"])
    _, records = run(tmp_path, digits, precision="bfloat16", samplers=("ddim",), executor="optioned:a=1")
    assert records[0].drawing.images > 0
    assert Optioned.given
    assert all(options == {"a": "1"} for options in Optioned.given)


def test_a_sweep_as_it_is_says_nothing_and_asks_nothing(tmp_path, digits):
    runner, records = run(tmp_path, digits)
    assert [made.drawing for made in records] == [None, None]
    assert runner._compared == {}
    assert not {"mode", "images_differ"} & set(load_results(tmp_path))


def test_images_that_differ_are_refused_before_anything_is_drawn(tmp_path, digits, otherwise):
    def off(answer):
        return Prediction(answer.eps * 1.0009, *answer[1:])  # which the answers' tolerance lets pass

    otherwise(off)
    modes.torch.compiler.set_stance
    with pytest.raises(ModeRefused, match=r"mode compile in float32 is refused: ddim:eta=0.* of 256 levels"):
        run(tmp_path, digits, mode="compile", samplers=("ddim",), steps=(20,))
    assert not list((tmp_path / "records").glob("*.json"))


def test_a_faithful_mode_gives_the_scores_of_eager_and_counts_its_making_apart(tmp_path, digits, otherwise):
    otherwise(lambda answer: answer)
    _, own = run(tmp_path, digits)
    runner, records = run(tmp_path, digits, mode="compile")
    assert runner.worker.readiness.seconds > 0
    for made, other in zip(own, records, strict=True):
        assert other.scores["fd_pixels"].value == pytest.approx(made.scores["fd_pixels"].value, rel=1e-6)
        assert (other.drawing.answers, other.drawing.images) == (0.0, 0.0)
        assert other.key != made.key
    assert set(load_results(tmp_path)["mode"]) == {"eager", "compile"}
    again, _ = run(tmp_path, digits, mode="compile")
    assert again.plan().pending == []


def test_a_mode_that_the_device_lacks_is_a_usage_error(tmp_path, digits):
    with pytest.raises(UsageError, match="cuda-graph is not to be had: a CUDA graph needs a CUDA device"):
        run(tmp_path, digits, mode="cuda-graph")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--mode", "cuda-graph", "--device", "cpu"], 2, "a CUDA graph needs a CUDA device, and this is cpu"),
        (["--mode", "auto", "--channels-last"], 2, "--mode auto tries both layouts"),
        (["--batch", "some"], 2, "it takes a whole number, or auto, got 'some'"),
    ],
)
def test_the_command_line_says_what_cannot_be(tmp_path, arguments, status, said):
    done = bench("run", "--samplers", "ddim", "--results", str(tmp_path), *arguments)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr


# Batches.


def costs(fixed, each, limit=10**9):
    """The seconds of a call: a fixed cost and one for each image; beyond a limit memory runs out."""

    def seconds(sizes):
        if max(sizes) > limit:
            raise OutOfMemory
        return [fixed + each * size for size in sizes]

    return seconds


def test_the_largest_batch_that_pays():
    # images a second are 1 / (each + fixed / size): twice the batch gains a twentieth up to about this size
    assert largest_that_pays(costs(1.0, 0.01), 4096) == 1024
    assert largest_that_pays(costs(0.0, 0.01), 4096) == 16  # nothing is gained: the smallest that is tried
    assert largest_that_pays(costs(1.0, 0.01), 100) == 64
    assert largest_that_pays(costs(1.0, 0.01), 5) == 5
    assert largest_that_pays(costs(1.0, 0.01, limit=300), 4096) == 256
    assert largest_that_pays(costs(1.0, 0.01, limit=3), 4096) == 2
    assert largest_that_pays(costs(20.0, 0.01), 4096) == 32  # a call of 20 s: no larger one is waited for


def test_blocks_are_as_equal_as_they_can_be():
    assert [even(256, n) for n in (1000, 256, 100, 257)] == [250, 256, 100, 129]


def test_a_batch_that_is_found_is_kept_and_found_again(tmp_path, digits):
    runner, records = run(tmp_path, digits, batch=None, auto_batch=True)
    assert records[0].trial.batch == runner.sweep.batch <= 40
    assert any(
        sentence.startswith(f"batch {runner.sweep.batch}: images a second") for sentence in runner._chosen
    )
    again, _ = run(tmp_path, digits, batch=None, auto_batch=True)
    assert again.plan().pending == []
    (kept,) = json.loads((tmp_path / CHOICES).read_text()).values()
    assert kept == {"mode": "eager", "precision": "float32", "batch": runner.sweep.batch}


def test_a_damaged_choice_is_made_anew(tmp_path, digits):
    run(tmp_path, digits, batch=None, auto_batch=True)
    for text in ("{", "[]", '{"x": 1}'):
        (tmp_path / CHOICES).write_text(text)
        runner, _ = run(tmp_path, digits, batch=None, auto_batch=True)
        assert runner._chosen


HOLDS_SEVEN = "if len(x) > 7: raise MemoryError('eight are too many')"


@pytest.fixture
def images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels)
    return str(tmp_path / "images.npz")


def test_the_search_stops_where_memory_runs_out(tmp_path, file, images):
    runner, (made,) = run(
        tmp_path / "a", file(HOLDS_SEVEN), reference=images, samplers=("ddim",), batch=None, auto_batch=True
    )
    assert made.status == "done"
    assert made.trial.batch == runner.sweep.batch <= 4  # 16 and 8 do not fit
    assert made.drawing is None


def test_a_block_that_memory_does_not_hold_is_drawn_in_parts(tmp_path, file, images, monkeypatch):
    asked = {"reference": images, "samplers": ("ddim:eta=1",)}
    _, (whole,) = run(tmp_path / "a", file(), **asked)
    worker.cache_clear()
    monkeypatch.setattr(choices, "largest_that_pays", lambda seconds, most: 20)
    _, (parts,) = run(tmp_path / "b", file(HOLDS_SEVEN), **{**asked, "batch": None, "auto_batch": True})
    assert (parts.status, parts.trial.batch, parts.drawing) == ("done", 20, DrawingInfo(batch=5))
    assert parts.cost.calls == whole.cost.calls == 4
    assert parts.scores["fd_pixels"].value == pytest.approx(whole.scores["fd_pixels"].value, rel=1e-5)
    assert len(parts.images.blocks) == parts.trial.block_count == 2
    assert load_results(tmp_path / "b").batch_held.tolist() == [5]
    for name in ("previews", "film"):
        own, other = (
            getattr(Store(tmp_path / folder), name)(made) for folder, made in (("a", whole), ("b", parts))
        )
        assert own.shape == other.shape
        assert (own.int() - other.int()).abs().max() <= 1


def test_without_auto_a_batch_that_memory_does_not_hold_is_a_failure(tmp_path, file, images):
    _, (made,) = run(tmp_path, file(HOLDS_SEVEN), reference=images, samplers=("ddim",))
    assert made.status == "failed"
    assert "eight are too many" in made.message


def test_what_is_kept_of_a_block_knows_that_it_was_drawn_in_parts():
    cost, nothing = Cost(calls=1), torch.empty(0, 1, 1, 1, dtype=torch.uint8)
    first, second = (
        BlockResult(block, {}, cost, nothing, nothing, Levels(1), batch=batch)
        for block, batch in ((range(3), 2), (range(3, 6), None))
    )
    first.extend(second)
    assert first.batch == 2
    assert BlockResult.from_arrays(first.block, first.to_arrays(), cost).batch == 2
    assert BlockResult.from_arrays(second.block, second.to_arrays(), cost).batch is None


# What is chosen where the mode is left open.


def chosen(monkeypatch, ranked, refused):
    monkeypatch.setattr(Chooser, "ranked", lambda self, batch: (ranked, ["measured"]))
    sweep = Sweep("digits", (get_sampler("ddim"),), mode="auto", precision="auto", batch=10)
    made = Chooser(sweep, None, None).choose(lambda choice: refused.get((choice.mode, choice.precision), ""))
    return (made.mode, made.precision, made.batch), made.told


def test_auto_takes_the_fastest_that_is_admitted(monkeypatch):
    ranked = [("compile", "bfloat16"), ("eager", "bfloat16"), ("compile", "float32")]
    assert chosen(monkeypatch, ranked, {})[0] == ("compile", "bfloat16", 10)
    found, told = chosen(monkeypatch, ranked, {ranked[0]: "mode compile in bfloat16 is refused: by far"})
    assert found == ("eager", "bfloat16", 10)
    assert told == ("measured", "mode compile in bfloat16 is refused: by far", "mode eager, bfloat16")


def test_auto_goes_on_as_it_is_where_nothing_is_admitted_or_faster(monkeypatch):
    ranked = [("compile", "float32")]
    assert chosen(monkeypatch, ranked, {ranked[0]: "refused"})[0] == ("eager", "float32", 10)
    assert chosen(monkeypatch, [], {})[0] == ("eager", "float32", 10)


@pytest.mark.parametrize("answers", [0, 8])  # at once, or when it is measured beside the others
def test_auto_leaves_out_a_mode_that_memory_does_not_hold(tmp_path, digits, otherwise, monkeypatch, answers):
    monkeypatch.setattr(choices, "LONG", 0.0)  # so that compiling is thought of
    monkeypatch.setattr(choices, "computes_bfloat16", lambda device: False)
    given = []

    def runs_out(answer):
        given.append(answer)
        if len(given) > answers:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answer

    otherwise(runs_out)
    runner, records = run(tmp_path, digits, mode="auto", precision="auto")
    assert "mode compile in float32 is left out: memory does not hold it at batch 20" in runner._chosen
    assert runner._chosen[-1] == "mode eager, float32: none that is admitted is faster"
    assert {(made.status, made.trial.mode, made.drawing) for made in records} == {("done", "eager", None)}


def test_a_mode_that_is_left_out_in_one_precision_stays_ready_in_another(monkeypatch):
    forgotten, told = [], []

    def call(self, mode, precision, batch):
        if (mode, precision) in (("compile", "bfloat16"), ("cuda-graph", "float32")):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return lambda: 1.0

    monkeypatch.setattr(Chooser, "_call", call)
    worker = SimpleNamespace(device=CPU, readiness=SimpleNamespace(forget=forgotten.append))
    asked = [("eager", "float32"), ("compile", "float32"), ("compile", "bfloat16"), ("cuda-graph", "float32")]
    assert list(Chooser(None, worker, None)._measured(asked, 4, told)) == asked[:2]
    assert forgotten == ["cuda-graph"]
    assert [one.split(" is ")[0] for one in told] == [
        "mode compile in bfloat16",
        "mode cuda-graph in float32",
    ]


def test_auto_refuses_a_mode_with_the_difference_and_the_sweep_goes_on(
    tmp_path, digits, otherwise, monkeypatch
):
    monkeypatch.setattr(choices, "LONG", 0.0)  # so that compiling is thought of
    monkeypatch.setattr(choices, "computes_bfloat16", lambda device: False)
    otherwise(lambda answer: Prediction(answer.eps * 1.5, *answer[1:]))
    runner, records = run(tmp_path, digits, mode="auto", precision="auto")
    assert any(
        "mode compile in float32 is refused: an answer of model 'digits'" in one for one in runner._chosen
    )
    assert runner._chosen[-1] == "mode eager, float32: none that is admitted is faster"
    assert {(made.status, made.trial.mode, made.drawing) for made in records} == {("done", "eager", None)}


@pytest.mark.parametrize("able", [True, False])
def test_auto_goes_by_what_the_processor_computes_in(tmp_path, digits, monkeypatch, able):
    monkeypatch.setattr(choices, "computes_bfloat16", lambda device: able)
    tried = []
    measured = Chooser._measured

    def seen(self, candidates, *rest):
        tried.extend(candidates)
        return measured(self, candidates, *rest)

    monkeypatch.setattr(Chooser, "_measured", seen)
    run(tmp_path, digits, mode="auto", precision="auto", samplers=("ddim",))
    assert (("eager", "bfloat16") in tried) is able
