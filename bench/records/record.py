"""A record: everything known of one trial."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args

from bench.errors import BenchError
from bench.metrics.levels import Levels
from bench.records.trial import BlockImages, Cost, Failure, Trial
from bench.records.typed import check_fields
from bench.stats.score import Score

FORMAT = 2
"""Version of the record format; a record of a later version cannot be read.

Records of format 1 hold hashes of whole files of an older version of the project, so that nothing can be said
of whether they would still come out the same.
"""

FLOOR = "real images"
"""Label of a record that scores real images in the place of samples."""

SPLIT_OFF = "split off the reference"
"""Names, in the provenance of real images, which of the reference were scored against the rest of it."""

GIVEN = "images of "
"""Begins the ``plugin`` of a row of images that were given, not drawn here: their source follows."""

Kind = Literal["samples", "real", "bound"]
"""What was measured: samples, real images in their place (a table's floor), or a bound on likelihoods."""

Status = Literal["done", "failed", "skipped"]
"""``skipped`` where sampler and model do not fit."""


@dataclass(frozen=True)
class Part:
    """A group of a record's fields that a file may hold more of than this version knows.

    Attributes:
        unknown: fields of a newer version; they are written back as they were read.
    """

    unknown: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as what ``json.dumps`` takes; optional ones that are None are left out."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "unknown"}
        return {name: value for name, value in fields.items() if value is not None} | dict(self.unknown)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote, by this version or another one."""
        known = {f.name for f in dataclasses.fields(cls)} - {"unknown"}
        mine = {name: value for name, value in fields.items() if name in known}
        return cls(**mine, unknown={name: value for name, value in fields.items() if name not in known})


@dataclass(frozen=True)
class RowInfo(Part):
    """What stands in the row of a record: a sampler, or what is measured in its place.

    Attributes:
        name: name of the rule; empty where there is no sampler.
        label: the row's name in tables.
        parameters: every parameter of the rule with its value.
        place: what sorts each parameter's values: the number itself, or the index of the choice.
        order: declared order of convergence, None where none is.
        source: paper and equation.
        plugin: distribution or file that registered the sampler.
        version: version of the distribution.
    """

    name: str = ""
    label: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    place: Sequence[float] = ()
    order: int | None = None
    source: str = ""
    plugin: str = ""
    version: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", tuple(self.place))  # JSON has lists only


@dataclass(frozen=True)
class ModelInfo(Part):
    """The model of a record.

    Attributes:
        weights: hash of the numbers that it predicts with.
        schedule: name of its noise schedule.
    """

    weights: str = ""
    schedule: str = ""


@dataclass(frozen=True)
class GridInfo(Part):
    """The steps that were taken.

    Attributes:
        steps: number of steps, None for real images.
        distinct_levels: number of different noise levels among them.
        moved: greatest distance by which a time was rounded to a time step, None where none was.
        folds: number of disjoint sets of real images that the score is the mean of, None for samples.
        tuning_calls: network calls that learning the times, weights or moments took; None where none were.
    """

    steps: int | None = None
    distinct_levels: int | None = None
    moved: float | None = None
    folds: int | None = None
    tuning_calls: int | None = None


@dataclass(frozen=True)
class ImagesInfo(Part):
    """How the values of a trial's images are spread, in [-1, 1]; see `bench.metrics.levels`.

    Attributes:
        mean: their mean.
        sd: their standard deviation.
        outside: share of the values that lay far outside [-1, 1] before they were rounded.
        blocks: a text for each block of the trial, see `bench.records.trial.BlockImages`: any one of them can
            be drawn again and compared. None where they were not kept.
    """

    mean: float | None = None
    sd: float | None = None
    outside: float | None = None
    blocks: Sequence[str] | None = None

    @classmethod
    def of(cls, levels: Levels, blocks: Sequence[BlockImages] = ()) -> ImagesInfo:
        """Return it for images whose values are spread so."""
        told = [str(block) for block in blocks] or None
        return cls(levels.mean, levels.sd, levels.share_outside, told)


@dataclass(frozen=True)
class DrawingInfo(Part):
    """How the network was run, and what that changes, where it was not as it is in float32 and all at once.

    Attributes:
        answers: greatest difference of its answers from those of the network as it is in float32, as a part
            of the greatest value.
        images: mean absolute difference, likewise, of images that the sampler drew from the same noise, in
            levels of 256.
        compared: number of these images; None where none were.
        steps: numbers of steps that they were drawn in.
        ready_seconds: what compiling, recording and comparing took, which no cost holds.
        batch: samples drawn at a time at the least, where memory did not hold a block.
    """

    answers: float | None = None
    images: float | None = None
    compared: int | None = None
    steps: int | None = None
    ready_seconds: float | None = None
    batch: int | None = None


@dataclass(frozen=True)
class Environment(Part):
    """The machine, the versions and the command that made a record.

    Attributes:
        versions: the versions of Python and of the packages that numbers depend on, by name.
        device_name: name of the processor or GPU.
        threads: threads of torch.
        commit: the commit of the checkout; empty where it ran from an installed package.
        dirty: whether the checkout had changes, None where there was none.
        command: the command line.
        finished: date and time, ISO 8601 in UTC.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    device_name: str = ""
    threads: int | None = None
    commit: str = ""
    dirty: bool | None = None
    command: str = ""
    finished: str = ""

    @property
    def of_objects(self) -> bool:
        """Whether a call in Python made the record, of a model or a sampler that was given as an object."""
        return self.command.startswith("bench.run(")


Outcome = Literal["continued", "beaten", "best", "tied", "precise", "most", "time", "unscored"]
"""Why a trial was drawn to its n: another round went on from it; it lost against a better one; all others of
its column did; none left in the column differs by more than was asked; its standard error is what was asked;
n is the most allowed; the time was spent; it has no score to go on from."""


@dataclass(frozen=True)
class StopInfo(Part):
    """The rounds that a trial was part of, and why they ended for it.

    Attributes:
        rule: what was asked, as on the command line: ``--until-tie 0.02``.
        rounds: numbers of samples after which it was asked whether to go on, ascending; the last is the most.
        level: chance of a false claim in a column of the table, in all rounds together.
        outcome: why this is its n.
        by: label of the row that it lost against or that it ties with; empty where there is none.
    """

    rule: str = ""
    rounds: Sequence[int] = ()
    level: float = 0.0
    outcome: Outcome = "continued"
    by: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounds", tuple(self.rounds))  # JSON has lists only


@dataclass(frozen=True)
class Record:
    """What is known of one trial.

    Attributes:
        kind: what was measured.
        trial: the fields that define it.
        status: how it ended.
        message: one sentence for a status that is not ``done``.
        sampler: what stands in its row.
        model: name of the schedule and hash of the weights.
        grid: the steps taken.
        provenance: what would make the record stale if it changed, by name.
        images: how the values of the samples are spread; empty in records of versions that did not look.
        scores: the scores by metric, the first is the table's.
        cost: calls, seconds and memory; None where nothing was drawn.
        environment: machine, versions, command.
        failure: stage and traceback, None where there was no failure.
        stopping: the rounds of drawing that it was part of; None where its n was given.
        drawing: how the network was run; None where it was as it is in float32 on whole blocks, as in all
            records that do not say.
        format: version of the record format that it was written in.
        key: hash of what defines the trial, 16 hex digits; the trial's own where empty.
        unknown: fields of a newer version.
    """

    kind: Kind
    trial: Trial
    status: Status
    message: str = ""
    sampler: RowInfo = field(default_factory=RowInfo)
    model: ModelInfo = field(default_factory=ModelInfo)
    grid: GridInfo = field(default_factory=GridInfo)
    provenance: Mapping[str, str] = field(default_factory=dict)
    images: ImagesInfo = field(default_factory=ImagesInfo)
    scores: Mapping[str, Score] = field(default_factory=dict)
    cost: Cost | None = None
    environment: Environment = field(default_factory=Environment)
    failure: Failure | None = None
    stopping: StopInfo | None = None
    drawing: DrawingInfo | None = None
    format: int = FORMAT
    key: str = ""
    unknown: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", self.trial.key)

    @property
    def name(self) -> str:
        """File name without suffix: readable, and unique by its key."""
        text = "-".join([self.trial.model, self.sampler.label, f"S{self.trial.steps}"])
        slug = re.sub(r"[^A-Za-z0-9.=]+", "-", text).strip("-")
        return f"{slug[-80:]}-{self.key}"

    @property
    def title(self) -> str:
        """Its row and column, for people."""
        return f"{self.sampler.label} at S={self.trial.steps}"

    @property
    def stage(self) -> str:
        """What was being done when it failed; empty where it did not."""
        return self.failure.stage if self.failure is not None else ""

    @property
    def given(self) -> bool:
        """Whether its images were given: nothing is known of the noise they came from."""
        return self.sampler.plugin.startswith(GIVEN)

    @property
    def most(self) -> int:
        """The n that it could have reached: its own, or of the last of its rounds."""
        return self.stopping.rounds[-1] if self.stopping is not None else self.trial.n

    @property
    def continued(self) -> bool:
        """Whether another record holds these samples and more."""
        return self.stopping is not None and self.stopping.outcome == "continued"

    def failed(self, failure: Failure) -> Record:
        """Return the record with the reason why it has no scores."""
        return replace(self, status=failure.status, message=failure.message, failure=failure)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for ``json.dumps``."""
        return {
            "format": self.format,
            "kind": self.kind,
            "trial": {**self.trial.to_json(), "key": self.key},
            "status": self.status,
            "message": self.message,
            "sampler": self.sampler.to_json(),
            "model": self.model.to_json(),
            "grid": self.grid.to_json(),
            "provenance": dict(self.provenance),
            "images": self.images.to_json(),
            "scores": {name: score.to_json() for name, score in self.scores.items()},
            "cost": dataclasses.asdict(self.cost) if self.cost is not None else {},
            "environment": self.environment.to_json(),
            "failure": _failure_fields(self.failure),
            **({"stopping": self.stopping.to_json()} if self.stopping is not None else {}),
            **({"drawing": self.drawing.to_json()} if self.drawing is not None else {}),
            **self.unknown,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Record:
        """Return what `to_json` wrote, in this format or an earlier one.

        Raises:
            BenchError: if a newer version of the project wrote it in a format that this one cannot read.
            KeyError, TypeError, ValueError: if it is not a record.
        """
        if fields["format"] > FORMAT:
            raise BenchError("it was written by a newer sampler-bench; upgrade to read it")
        status, message, failure = fields["status"], fields.get("message", ""), fields.get("failure")
        if status not in get_args(Status):
            raise ValueError(f"unknown status {status!r}")
        made = cls(
            kind=fields.get("kind") or _kind_of_format_1(fields),
            trial=_trial_of(fields),
            status=status,
            message=message,
            sampler=RowInfo.from_json(fields.get("sampler", {})),
            model=ModelInfo.from_json(fields.get("model", {})),
            grid=GridInfo.from_json(fields.get("grid", {})),
            provenance=dict(fields.get("provenance", {})),
            images=ImagesInfo.from_json(fields.get("images", {})),
            scores={name: Score.from_json(score) for name, score in fields.get("scores", {}).items()},
            cost=Cost.from_json(fields["cost"]) if fields.get("cost") else None,
            environment=Environment.from_json(fields.get("environment", {})),
            failure=Failure(status, failure["stage"], message, failure["traceback"]) if failure else None,
            stopping=StopInfo.from_json(fields["stopping"]) if fields.get("stopping") else None,
            drawing=DrawingInfo.from_json(fields["drawing"]) if fields.get("drawing") else None,
            format=fields["format"],
            key=str(fields["trial"]["key"]),
            unknown={name: value for name, value in fields.items() if name not in _FIELDS},
        )
        check_fields(made)
        if made.trial.n < 1 or made.trial.batch < 1 or made.trial.steps < 0:
            raise ValueError("a trial has samples, in batches")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", made.key):  # it is part of the names of files
            raise ValueError(f"a key is hex digits, not {made.key!r:.40}")
        return made


_FIELDS = (frozenset(f.name for f in dataclasses.fields(Record)) - {"unknown"}) | {"digest"}


def sealed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `Record.to_json` returned with the hash of it under ``digest``."""
    return {**fields, "digest": _digest(fields)}


def is_broken(fields: Mapping[str, Any]) -> bool:
    """Return whether the fields of a file have a digest that is not theirs: it was changed by hand since."""
    return "digest" in fields and fields["digest"] != _digest(fields)


def _digest(fields: Mapping[str, Any]) -> str:
    own = {name: value for name, value in fields.items() if name != "digest"}
    text = json.dumps(own, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _failure_fields(failure: Failure | None) -> dict[str, str]:
    return {} if failure is None else {"stage": failure.stage, "traceback": failure.traceback}


def _kind_of_format_1(fields: Mapping[str, Any]) -> Kind:
    """Return what a record of format 1 measured: there only its row's name said so."""
    name = fields.get("sampler", {}).get("name")
    return "real" if name == FLOOR else "bound" if name == "nll" else "samples"


def _trial_of(fields: Mapping[str, Any]) -> Trial:
    trial = Trial.from_json(fields["trial"])
    if fields["format"] == 1 and trial.reference is not None:  # there a bound's images had a prefix
        data = trial.reference.removeprefix("likelihood of ")
        return replace(trial, reference=None if data.startswith("draws from ") else data)
    return trial


OLDER = "the version of sampler-bench, whose records of format 1 do not tell which code made them,"
"""What has changed since a record of format 1."""


@dataclass(frozen=True)
class Stale:
    """A record that answers an older question.

    Attributes:
        record: as it was.
        fields: what has changed since.
    """

    record: Record
    fields: Sequence[str]


def stale_fields(record: Record, provenance: Mapping[str, Any]) -> list[str]:
    """Return the names of the provenance fields that differ from what is true now."""
    if record.format < FORMAT:
        return [OLDER]
    return [name for name, value in provenance.items() if record.provenance.get(name) != value]
