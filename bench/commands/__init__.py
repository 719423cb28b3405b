"""The verbs of the command line: each module has ``arguments(parser)`` and ``execute(namespace) -> status``."""
