"""The verbs of the command line: modules with ``arguments(parser)`` and ``execute(options) -> status``."""
