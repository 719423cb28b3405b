"""Sweeps in this process, without a terminal."""


class Silent:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.records, self.samples, self.plan = [], 0, None

    def planned(self, plan):
        self.plan = plan

    def advanced(self, trial, samples):
        self.samples += samples

    def ended(self, record):
        self.records.append(record)

    def waiting(self, runs):
        self.waited = runs
