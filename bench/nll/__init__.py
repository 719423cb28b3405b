"""Bounds on the likelihood of images, recorded beside the samples' scores."""
