"""Writes the golden files beside it; run only when the format version moves."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from einsort_vla.checkpoint import Checkpoint, write
from einsort_vla.codec import Codec, Dense, Leader, Lossless, Network, Scalar, decode, encode
from einsort_vla.plan import Plan, planned

HERE = Path(__file__).parent
SPECS = {
    "a.weight": Leader(d=2, b=2, s=6),
    "b.weight": Leader(d=4, b=1, s=7),
    "c.weight": Leader(d=1, b=7, s=0),
    "d.weight": Scalar(3),
    "e.weight": Dense("float32"),
    "f.weight": Scalar(2, group=4, grid="asymmetric"),
    "g.weight": Scalar(4, group=2, grid="nf4"),
    "h.weight": Network(2, slices=3),
    "j.weight": Leader(d=2, b=1, s=7, rotated=True, refined=True),
}


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(19, 6, generator=generator) for name in SPECS}
    weights["i.weight"] = torch.randn(19, 6, generator=generator).bfloat16()
    weights["k.weight"] = weights["a.weight"].bfloat16()
    specs = SPECS | {"i.weight": Lossless.menu(weights["i.weight"])[0], "k.weight": Dense()}
    coded = {name: encode(weights[name], spec) for name, spec in specs.items()}
    plan = Plan(Codec("leader"), 0.5, {n: planned(spec, (19, 6), 0.0) for n, spec in specs.items()})
    bias = torch.arange(19, dtype=torch.bfloat16)
    write(HERE / "format6.safetensors", Checkpoint(plan, coded, {"a.bias": bias}))
    decoded = {name: decode(matrix) for name, matrix in coded.items()}
    save_file(decoded, HERE / "format6_decoded.safetensors")


if __name__ == "__main__":
    main()
