"""What a diffusers ``scheduler_config.json`` says of the diffusion that a network was trained for.

Every word that changes what the network's numbers mean is used or refused in a sentence. Words that choose
steps or change what a sampler does (``timestep_spacing``, ``clip_sample``, ``solver_order``...) are the
sampler's here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from bench import ContinuousSchedule, NoiseSchedule, Schedule, zero_terminal_snr
from bench.diffusion.prediction import Predicts
from models.errors import CheckpointError

FLOWS = frozenset({"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"})

OTHERS = ("EDM", "ScoreSde", "KarrasVe", "CM", "LCM", "TCD", "VQDiffusion", "IPNDM", "SCM", "CosineDPM")
"""Beginnings of the names of schedulers whose levels or answers are none of those that are known here."""

PREDICTIONS: Mapping[str, Predicts] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}

USED = frozenset(
    {"num_train_timesteps", "timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"}
    | {"prediction_type", "variance_type", "rescale_betas_zero_snr", "shift", "flow_shift"}
    | {"use_dynamic_shifting", "shift_terminal", "time_shift_type", "timestep_type"}
)

SAMPLERS = frozenset(
    {"clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value"}
    | {
        "timestep_spacing",
        "steps_offset",
        "set_alpha_to_one",
        "skip_prk_steps",
        "solver_order",
        "solver_type",
    }
    | {"algorithm_type", "lower_order_final", "euler_at_final", "use_karras_sigmas", "final_sigmas_type"}
    | {"use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "lambda_min_clipped", "tensor_format"}
    | {"interpolation_type", "sigma_min", "sigma_max", "predict_x0", "disable_corrector", "solver_p"}
    | {"use_flow_sigmas", "stochastic_sampling", "invert_sigmas", "rho", "clip_sample_value"}
)
"""Words that are a sampler's: they change steps and clips, not what the network's numbers mean."""


def read_scheduler(config: Mapping[str, Any]) -> tuple[Schedule, Predicts]:
    """Return (schedule, what the network predicts) of a scheduler's configuration.

    A word that nobody here knows is named in a warning.

    Raises:
        CheckpointError: if the diffusion is of a kind that is not known, or contradicts itself.
    """
    name = str(config.get("_class_name", "DDPMScheduler"))
    strange = sorted(k for k in config if not k.startswith("_") and k not in USED | SAMPLERS)
    if config.get("timestep_type", "discrete") != "discrete":
        raise CheckpointError(
            f"diffusers' {name} tells the network log sigma in the place of a time step (timestep_type):"
            " sample it from a file, --model FILE.py:FUNCTION, with bench.from_denoiser"
        )
    if name in FLOWS or config.get("prediction_type") == "flow_prediction":
        return _flow(name, config), "flow"
    if name.startswith(OTHERS):
        raise CheckpointError(
            f"its scheduler is diffusers' {name}, whose noise levels are not known here: sample it from a"
            " file, --model FILE.py:FUNCTION, with bench.from_prediction, from_flow or from_denoiser"
        )
    if strange:
        warnings.warn(f"{name} says {', '.join(strange)}, which is not known here and not used", stacklevel=2)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise CheckpointError(
            f"this diffusers model predicts {prediction}, which is none of {', '.join(PREDICTIONS)}: sample"
            " it from a file, --model FILE.py:FUNCTION"
        )
    schedule, predicts = _levels(config), PREDICTIONS[prediction]
    if config.get("rescale_betas_zero_snr"):
        if predicts == "eps":
            raise CheckpointError(
                "this diffusers model predicts epsilon and rescales its betas to zero terminal SNR, where"
                " epsilon does not tell the image: correct rescale_betas_zero_snr or prediction_type"
            )
        schedule = zero_terminal_snr(schedule)
    return schedule, predicts


def _flow(name: str, config: Mapping[str, Any]) -> ContinuousSchedule:
    if config.get("use_dynamic_shifting") or config.get("shift_terminal"):
        raise CheckpointError(
            f"diffusers' {name} shifts its times by the size of the image or to a terminal value: sample it"
            " from a file, --model FILE.py:FUNCTION, with bench.from_flow(network, shape, shift)"
        )
    return ContinuousSchedule.flow(float(config.get("shift", config.get("flow_shift", 1.0))))


def _levels(config: Mapping[str, Any]) -> NoiseSchedule:
    T = config.get("num_train_timesteps", config.get("timesteps", 1000))  # `timesteps` in first versions
    start, end = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    kind = config.get("beta_schedule", "linear")
    if (betas := config.get("trained_betas")) is not None:
        return NoiseSchedule.from_betas(betas)
    if kind == "linear":
        return NoiseSchedule.linear(T, start, end)
    if kind == "squaredcos_cap_v2":
        return NoiseSchedule.cosine(T)
    if kind == "scaled_linear":
        return NoiseSchedule.from_betas(torch.linspace(start**0.5, end**0.5, T, dtype=torch.float64) ** 2)
    if kind == "sigmoid":
        rise = torch.linspace(-6, 6, T, dtype=torch.float64).sigmoid()
        return NoiseSchedule.from_betas(rise * (end - start) + start)
    raise CheckpointError(
        f"the beta schedule {kind!r} of this diffusers model is not known here: sample it from a file,"
        " --model FILE.py:FUNCTION, with bench.NoiseSchedule.from_betas"
    )
