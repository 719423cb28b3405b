"""A record: everything known of one trial."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.errors import BenchError
from bench.records.trial import Failure
from bench.stats.score import Score

FORMAT = 2
"""Version of the record format; a record of a later version cannot be read.

Records of format 1 hold hashes of whole files of an older version of the project, so that nothing can be said
of whether they would still come out the same.
"""


FLOOR = "real images"
"""``sampler`` of a record that scores real images in the place of samples."""


@dataclass(frozen=True)
class Record:
    """What is known of one trial.

    Attributes:
        trial: the fields that define it, and its ``key``.
        status: ``done``, ``failed`` or ``skipped``.
        message: one sentence for a status that is not ``done``.
        sampler: rule, parameters, label, order, source, plugin and version; its name is `FLOOR` for real
            images.
        model: name and weights hash.
        grid: steps taken and distinct levels.
        provenance: what would make the record stale if it changed.
        scores: by metric, the first is the table's.
        cost: calls, seconds and memory.
        environment: versions, device, commit, command, time.
        failure: stage and traceback where there are any.
        format: version of the record format that it was written in.
    """

    trial: Mapping[str, Any]
    status: str
    message: str = ""
    sampler: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Score] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    failure: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def key(self) -> str:
        """Hash of what defines the trial."""
        return str(self.trial["key"])

    @property
    def name(self) -> str:
        """File name without suffix: readable, and unique by its key."""
        parts = (self.trial["model"], self.sampler.get("label", ""), f"S{self.trial['steps']}")
        text = re.sub(r"[^A-Za-z0-9.=]+", "-", "-".join(map(str, parts))).strip("-")
        return f"{text[-80:]}-{self.key}"

    @property
    def title(self) -> str:
        """Its row and column, for people."""
        return f"{self.sampler['label']} at S={self.trial['steps']}"

    @classmethod
    def of_failure(cls, head: Mapping[str, Any], failure: Failure) -> Record:
        """Return the record of a trial that has no scores; ``head`` holds the fields known before it ran."""
        return cls(
            **head,
            status=failure.status,
            message=failure.message,
            failure={"stage": failure.stage, "traceback": failure.traceback},
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for ``json.dumps``."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"format": self.format, **fields, "scores": {k: s.to_json() for k, s in self.scores.items()}}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Record:
        """Return what `to_json` wrote.

        Raises:
            BenchError: if a newer version of the project wrote it.
        """
        known = dict(fields)
        if known["format"] > FORMAT:
            raise BenchError("it was written by a newer sampler-bench; upgrade to read it")
        known["scores"] = {k: Score.from_json(s) for k, s in known["scores"].items()}
        return cls(**known)


OLDER = "the version of sampler-bench, whose records of format 1 do not tell which code made them,"
"""What has changed since a record of format 1."""


def stale_fields(record: Record, provenance: Mapping[str, Any]) -> list[str]:
    """Return the names of the provenance fields that differ from what is true now."""
    if record.format < FORMAT:
        return [OLDER]
    return [name for name, value in provenance.items() if record.provenance.get(name) != value]


@dataclass(frozen=True)
class Stale:
    """A record that answers an older question.

    Attributes:
        record: as it was.
        fields: what has changed since.
    """

    record: Record
    fields: Sequence[str]
