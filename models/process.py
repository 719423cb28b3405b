"""The diffusion that a network is sampled with: what its files say, and what the caller says in its place."""

from __future__ import annotations

import warnings
from dataclasses import replace

from bench import ContinuousSchedule, NoiseSchedule, Schedule, Variance
from bench.diffusion.prediction import Predicts
from models.errors import CheckpointError
from models.families.base import Family, Process


def decide(
    stored: Process,
    kind: Family,
    T: int | None,
    schedule: Schedule | str | None,
    variance: Variance | None = None,
    rescale_timesteps: bool | None = None,
    predicts: Predicts | None = None,
) -> Process:
    """Return what is stored with what the caller gives in its place.

    Args:
        stored: what the files or the family's convention say.
        kind: the family, which has schedules of its own.
        T: number of time steps; None for what is stored, as for the others.
        schedule: ``linear``, ``cosine`` or a schedule.
        variance: what the second half of the output channels holds.
        rescale_timesteps: whether the network receives t 1000/T.
        predicts: what it predicts.

    Raises:
        CheckpointError: if T contradicts the schedule, or there is none to take it from.
    """
    if isinstance(schedule, str):
        if T is None and stored.schedule is None:
            raise CheckpointError(f"a {schedule} schedule needs its number of time steps: give T=1000, say")
        schedule = kind.schedule(T or steps_of(stored.schedule) or 1000, schedule)
    decided = schedule or stored.schedule
    steps = steps_of(decided)
    if T is not None and decided is not None and steps != T:
        raise CheckpointError(
            f"T={T} contradicts the schedule, which has {steps or 'no'} steps: give schedule= as well"
        )
    return replace(
        stored,
        schedule=decided,
        variance=variance or stored.variance,
        rescale_timesteps=stored.rescale_timesteps if rescale_timesteps is None else rescale_timesteps,
        predicts=predicts or stored.predicts,
        assumed="" if schedule is not None or T is not None else stored.assumed,
    )


def steps_of(schedule: Schedule | None) -> int | None:
    """Return T of a schedule of time steps, None of another one."""
    return schedule.T if isinstance(schedule, NoiseSchedule) else None


def check_process(name: str, process: Process, predicts: Predicts | None = None) -> None:
    """Refuse the velocity of rectified flow on other levels, and other predictions on a flow's.

    Where the diffusion is assumed a warning says so.

    Args:
        name: the checkpoint, for messages.
        process: what was decided.
        predicts: what the caller says that the network predicts.

    Raises:
        CheckpointError: naming both.
    """
    schedule = process.schedule
    flows = isinstance(schedule, ContinuousSchedule) and schedule.name.startswith("flow")
    if schedule is not None and flows != (process.predicts == "flow"):
        raise CheckpointError(
            f"{name} would predict {process.predicts} on the schedule {schedule.name}, and a flow goes with a"
            " flow's alone: put its scheduler_config.json beside it, or wrap it with bench.from_flow in a"
            " file, --model FILE.py:FUNCTION"
        )
    if process.assumed:
        taken = process.assumed.format(predicts="" if predicts else ", epsilon")
        warnings.warn(f"{name}: {taken}", stacklevel=3)
