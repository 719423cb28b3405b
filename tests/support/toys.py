"""The closed-form conditional networks that published code was run on for tests/golden/guided."""

import torch

CLASSES = 10
"""Labels 0 .. 9; 10 is "none", which the formulas write as -1."""


def pattern(labels, shape, dtype=torch.float64):
    """m_c, (B, C, H, W): 0.4 cos(0.7 (label + 1) (j + 1)), j the flattened index; 0 for none."""
    size = 1
    for part in shape:
        size *= part
    j = torch.arange(size, dtype=dtype) + 1
    label = torch.as_tensor(labels).to(dtype).view(-1, 1)
    made = 0.4 * torch.cos(0.7 * (label + 1) * j)
    return torch.where(label < 0, torch.zeros_like(made), made).view(-1, *shape)


def phase(labels, dtype=torch.float64):
    """0.3 (label + 1): 0 for none."""
    return 0.3 * (torch.as_tensor(labels).to(dtype) + 1).view(-1, 1, 1, 1)


def spread(values, x):
    """Numbers of the samples beside x."""
    return torch.as_tensor(values).to(x.dtype).reshape(-1).expand(len(x)).view(-1, 1, 1, 1)


def eps_net(x, t, labels, abar, scale=0.25, freq=3.0):
    """Noise."""
    m, p = pattern(labels, x.shape[1:], x.dtype), phase(labels, x.dtype)
    a = spread(abar, x)
    gain = (1 - a).sqrt() / (1 - a + a * scale)
    return gain * (x - a.sqrt() * m) + 0.05 * torch.sin(freq * x + spread(t, x) / 250 + p)


def v_range(x, t, labels):
    """The second half of the channels of a learned-range network."""
    return 1.4 * torch.sin(2 * x + spread(t, x) / 333 + phase(labels, x.dtype))


def classifier_gradient(x, abar, labels):
    """grad_x log p(label | x_t)."""
    a = spread(abar, x)
    inner = 0.5 * (a.sqrt() * pattern(labels, x.shape[1:], x.dtype) - x)
    return inner + 0.1 * torch.cos(x + phase(labels, x.dtype))


def v_net(x, t, labels):
    """The velocity v = sqrt(abar) eps - sqrt(1 - abar) x_0."""
    wave = torch.sin(3 * x + spread(t, x) / 250 + phase(labels, x.dtype))
    return 0.6 * x - 0.5 * pattern(labels, x.shape[1:], x.dtype) + 0.1 * wave


def x0_net(x, t, labels):
    """x_0."""
    wave = torch.sin(3 * x + spread(t, x) / 250 + phase(labels, x.dtype))
    return 0.4 * x + 0.8 * pattern(labels, x.shape[1:], x.dtype) + 0.1 * wave


def flow_net(z, s, labels):
    """The velocity eps - x_0 at z = (1 - s) x_0 + s eps."""
    wave = torch.sin(3 * z + 4 * spread(s, z) + phase(labels, z.dtype))
    return 0.8 * z - 0.6 * pattern(labels, z.shape[1:], z.dtype) + 0.1 * wave


def raw_net(x, noise, labels, gain=0.5):
    """F inside a preconditioned denoiser."""
    wave = torch.sin(3 * x + spread(noise, x) / 10 + phase(labels, x.dtype))
    return gain * x + 0.2 * pattern(labels, x.shape[1:], x.dtype) + 0.1 * wave


def upsampler_net(x, t, low_res, abar, scale=0.25, freq=3.0):
    """Noise of an upsampler of low_res (B, C, H/2, W/2)."""
    up = low_res.repeat_interleave(2, -1).repeat_interleave(2, -2).to(x.dtype)
    a = spread(abar, x)
    gain = (1 - a).sqrt() / (1 - a + a * scale)
    return gain * (x - a.sqrt() * 0.7 * up) + 0.05 * torch.sin(freq * x + spread(t, x) / 250 + up)


def signed(labels):
    """Labels as the formulas write them: -1 for none."""
    return torch.where(labels == CLASSES, -1, labels)
