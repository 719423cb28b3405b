"""The built-in samplers, one file each, registered by the same hook as anybody else's."""
