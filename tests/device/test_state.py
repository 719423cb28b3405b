"""What is global is as before after a block, whatever the code of a user does to it."""

import warnings

import numpy as np
import torch

from bench.device.state import PROCESS, PUT_BACK, changed_since, put_back, read_state


def test_settings_that_decide_what_later_code_raises_are_put_back():
    before = np.geterr(), torch.is_anomaly_enabled(), list(warnings.filters)
    with put_back(PUT_BACK):
        seen = read_state(PROCESS)
        np.seterr(all="raise")
        torch.autograd.set_detect_anomaly(True)
        warnings.simplefilter("error")
        assert changed_since(seen, PROCESS) == ["NumPy's answer to errors", "torch's search for anomalies"]
    assert (np.geterr(), torch.is_anomaly_enabled(), list(warnings.filters)) == before
