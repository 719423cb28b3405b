"""The device that work runs on: precision, time and memory."""
