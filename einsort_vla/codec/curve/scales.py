"""Row scales in a byte each: a sign, and steps of an eighth of an octave below the unit.

A row is coded for the scale that it will have, so that the steps cost next to nothing. Where all
columns are alike, so are their streams, and a row may have the wrong sign in all of them: that of
its scale makes it good.
"""

import torch
from torch import Tensor

OCTAVE = 8  # steps that halve a scale
TOP, SIGN = 127, 128  # the steps of the unit itself, and what is added for a minus; 0 is no scale
# 2^(-k / 8) times 2^24, rounded: whole numbers, so that scales are the same everywhere.
MANTISSAS = (16777216, 15384775, 14107901, 12937002, 11863283, 10878679, 9975792, 9147842)


def factors(device: torch.device) -> Tensor:
    """(256,) float32: what each byte makes of the unit."""
    mantissas = torch.tensor(MANTISSAS, dtype=torch.float64)
    steps = TOP - torch.arange(SIGN)
    found = mantissas[steps % OCTAVE] * 2.0 ** (-24 - steps.div(OCTAVE, rounding_mode="floor"))
    found[0] = 0
    return torch.cat([found, -found]).float().to(device)


def scales(codes: Tensor, unit: Tensor) -> Tensor:
    """(rows,) float32 of (rows,) uint8 and a (1,) float32 unit."""
    return factors(codes.device)[codes.int()] * unit


def stored(wanted: Tensor, unit: Tensor) -> dict[str, Tensor]:
    """Parts of (rows,) float32 scales; the (1,) unit grows if one is beyond its step."""
    unit = torch.maximum(unit, wanted.abs().amax() * 2.0 ** (-1 / (2 * OCTAVE)))
    return {"scale": codes_of(wanted, unit).cpu(), "unit": unit.cpu()}


def codes_of(wanted: Tensor, unit: Tensor) -> Tensor:
    """(rows,) uint8: the nearest steps; 0 for a scale of 0, or one too far below the unit."""
    steps = (TOP + OCTAVE * (wanted / unit).abs().log2()).round().nan_to_num_(0, TOP, 0)
    steps.clamp_(0, TOP).add_(SIGN * ((wanted < 0) & (steps > 0)))
    return steps.to(torch.uint8)
