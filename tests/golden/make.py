"""Writes the golden files beside it; run only when the format version moves."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from einsort_vla.checkpoint import Checkpoint, write
from einsort_vla.codec import Codec, Curve, Dense, Lossless, Network, Scalar, decode, encode
from einsort_vla.plan import Plan, planned

HERE = Path(__file__).parent
SPECS = {
    "a.weight": Curve(2.0),
    "b.weight": Curve(1.0, 14),
    "d.weight": Scalar(3),
    "e.weight": Dense("float32"),
    "f.weight": Scalar(2, group=4, grid="asymmetric"),
    "g.weight": Scalar(4, group=2, grid="nf4"),
    "h.weight": Network(2, slices=3),
    "l.weight": Curve(1.375),
    "m.weight": Curve(2.0, 10),
    "n.weight": Curve(4.5, 16, rotated=True),
    "o.weight": Curve(7, 7),
}
SHAPES = {"m.weight": (140, 33)}  # two rows of tiles, two blocks of columns


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {name: SHAPES.get(name, (19, 6)) for name in SPECS}
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    weights["i.weight"] = torch.randn(19, 6, generator=generator).bfloat16()
    weights["k.weight"] = weights["a.weight"].bfloat16()
    specs = SPECS | {"i.weight": Lossless.menu(weights["i.weight"])[0], "k.weight": Dense()}
    coded = {name: encode(weights[name], spec) for name, spec in specs.items()}
    tensors = {n: planned(spec, tuple(weights[n].shape), 0.0) for n, spec in specs.items()}
    plan = Plan(Codec("curve"), 0.5, tensors)
    bias = torch.arange(19, dtype=torch.bfloat16)
    write(HERE / "format9.safetensors", Checkpoint(plan, coded, {"a.bias": bias}))
    decoded = {name: decode(matrix) for name, matrix in coded.items()}
    save_file(decoded, HERE / "format9_decoded.safetensors")


if __name__ == "__main__":
    main()
