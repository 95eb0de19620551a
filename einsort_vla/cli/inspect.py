"""`einsort-vla inspect DIR`: what a compressed policy holds."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from einsort_vla.cli.console import saved

if TYPE_CHECKING:  # loads torch
    from einsort_vla.checkpoint import Checkpoint


@dataclass(frozen=True)
class Inspect:
    """Show the code, bits and predicted error of every matrix of a compressed policy."""

    folder: Positional[Path]
    """Folder that `compress` wrote."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self, console: Console) -> int:
        from einsort_vla.checkpoint import read_folder

        content = describe(read_folder(self.folder))
        if self.json:
            print(json.dumps(content, indent=2))
        else:
            _print_table(content, console)
        return 0


def describe(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Rows and totals of a compressed file, as plain data."""
    plan = checkpoint.plan
    remainder = sum(tensor.nbytes for tensor in checkpoint.dense.values())
    n_weights = plan.n_weights + sum(tensor.numel() for tensor in checkpoint.dense.values())
    in_bfloat16 = 2 * plan.n_weights + remainder
    return {
        "share_coded": plan.n_coded / n_weights,
        "share_saved": 1 - (plan.n_bits / 8 + remainder) / in_bfloat16,
        "rate_requested": plan.rate_requested,
        "rate": plan.rate,
        "bits_per_weight": plan.bits_per_weight,
        "core_kept_fraction": plan.core_kept_fraction,
        "order_bits_per_weight": plan.order_bits_per_weight,
        "predicted_distortion": plan.distortion,
        "coded_bytes": plan.n_bits // 8,
        "dense_remainder_bytes": remainder,
        "dropped": checkpoint.dropped,
        "calibrated": checkpoint.is_calibrated,
        "source_sha256": checkpoint.source_sha256,
        "has_fingerprints": checkpoint.has_fingerprints,
        "tensors": [
            {
                "name": name,
                "code": str(planned.spec),
                "spec": planned.spec.as_dict(),
                "shape": planned.shape,
                "bytes": planned.bits // 8,
                "bits_per_weight": planned.bits / (planned.shape[0] * planned.shape[1]),
                "predicted_distortion": planned.distortion,
            }
            for name, planned in plan.tensors.items()
        ],
    }


def _print_table(content: dict[str, Any], console: Console) -> None:
    table = Table("matrix", "code", "shape", "bits a weight", "bytes", "predicted error")
    for row in content["tensors"]:
        shape = "x".join(map(str, row["shape"]))
        bits, error = f"{row['bits_per_weight']:.3f}", f"{row['predicted_distortion']:.2e}"
        table.add_row(row["name"], row["code"], shape, bits, str(row["bytes"]), error)
    console.print(table)
    console.print(
        f"{100 * content['share_coded']:.1f} % of the weights coded, file "
        f"{saved(content['share_saved'])} than with these in bfloat16."
    )
    if not content["has_fingerprints"]:
        console.print("No fingerprints: Transformers' save_pretrained wrote it.")
    console.print(
        f"Rate {content['rate']:.4f} (requested {content['rate_requested']}), "
        f"{content['bits_per_weight']:.3f} bits a weight: {content['coded_bytes']} bytes coded, "
        f"{content['dense_remainder_bytes']} bytes dense."
    )
    for name, reason in content["dropped"].items():
        console.print(f"Not stored: {name} ({reason}).")
    if content["core_kept_fraction"] is not None:
        from einsort_vla.plan import describe_cores

        text = describe_cores(content["core_kept_fraction"], content["order_bits_per_weight"])
        console.print(text)
