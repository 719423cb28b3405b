"""What a run says of others at work in its folder, and when it does not join them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.commands.verbosity import say
from bench.errors import UsageError
from bench.records.running import Run
from bench.records.store import Store
from bench.sweep.rounds import Rule


@contextmanager
def at_work(store: Store, rule: Rule | None = None, tell: Callable[[str], None] = say) -> Iterator[None]:
    """Be at work in a folder, and say who else is.

    Args:
        store: the folder.
        rule: when drawing stops; None where every trial gets its n.
        tell: tells a sentence.

    Raises:
        UsageError: if a run in rounds is there that would end trials otherwise, or at another time.
    """
    store.running.rule = str(rule or "")
    with store.running:
        for run in store.running.before():
            if rule is not None and run.rule:
                _refuse(run, rule)
            tell(f"the work is shared with {run}")
        yield


def _refuse(run: Run, rule: Rule) -> None:
    """Raise UsageError where two runs in rounds may come to different ends; those without a clock agree."""
    told = f"process {run.pid} on {run.host} draws in rounds in this folder"
    if rule.budget is not None or run.rule != str(rule):
        raise UsageError(
            f"{told}, {run.rule}: trials that both draw would have two ends; wait for it, or give another"
            " --results"
        )
