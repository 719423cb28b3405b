"""sampler-bench: which diffusion sampler gives the best images for the time it takes?

Everything a plugin or a notebook needs is importable from here. Each name is imported when it is first used,
so that neither ``import bench`` nor the command line's help imports torch; ``__init__.pyi`` says where it is.
"""

import lazy_loader

from bench.catalog import set_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def _load_plugins() -> None:
    from bench.plugins.loading import registry

    registry()


set_loader(_load_plugins)
