"""Plugins: who offers which samplers, models, spacings, metrics and executors."""

from bench.hooks import hookimpl, hookspec
from bench.plugins.cards import KnownLaw, LoadedModel, ModelCard
from bench.plugins.executor import Executor
from bench.plugins.loading import PluginFailure, Registry, registry
from bench.plugins.lookup import get_card, load_model
from bench.plugins.observer import TrialObserver

__all__ = [
    "Executor",
    "KnownLaw",
    "LoadedModel",
    "ModelCard",
    "PluginFailure",
    "Registry",
    "TrialObserver",
    "get_card",
    "hookimpl",
    "hookspec",
    "load_model",
    "registry",
]
