"""The markers of hooks: ``hookimpl`` on a function of a plugin makes it the implementation of a hook."""

from __future__ import annotations

import pluggy

PROJECT = "sampler_bench"
"""Name of the hooks' project and of the entry-point group of installed plugins."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
