"""Makes the shipped tables: Lloyd iterations through the Viterbi search, on Gaussian data.

Run as `python -m einsort_vla.codec.lloyd`; seeds are fixed, test data are not training data.
"""

import json
import math

import torch
from safetensors.torch import save_file
from torch import Tensor

from einsort_vla.codec.search import find_windows
from einsort_vla.codec.tables import TABLE_FILE, table_name

WINDOWS = [(4, 1, 7), (2, 1, 7), (2, 2, 6), (2, 3, 5), (2, 4, 4), (2, 5, 3), (2, 6, 2), (1, 4, 4)]
SEQUENCES, LENGTH, ITERATIONS = 96, 256, 80
TEST_SEQUENCES = 512


def train_table(d: int, b: int, s: int, seed: int = 0) -> Tensor:
    """(2^(s+b), d) float32 magnitudes of least error for a half-normal source."""
    generator = torch.Generator().manual_seed(seed)
    lookup = _start(d, b, s, generator)
    for _ in range(ITERATIONS):
        data = torch.randn(SEQUENCES, LENGTH, d, generator=generator).abs()
        windows = find_windows(data, lookup, b, s).flatten()
        count = torch.bincount(windows, minlength=len(lookup)).float()[:, None]
        total = torch.zeros_like(lookup).index_add_(0, windows, data.flatten(0, 1))
        trust = count / (count + 2)  # rarely used entries move slowly
        lookup = (1 - trust) * lookup + trust * total / count.clamp_min(1)
    return lookup


def measure(lookup: Tensor, d: int, b: int, s: int, seed: int = 10_000) -> float:
    """Relative mean squared error on fresh Gaussian data."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(TEST_SEQUENCES, LENGTH, d, generator=generator).abs()
    found = lookup[find_windows(data, lookup, b, s)]
    return float((data - found).square().mean() / data.square().mean())


def _start(d: int, b: int, s: int, generator: torch.Generator) -> Tensor:
    """A memoryless table of all windows, neighbours in energy dealt to different states."""
    n_states, n_choices = 2**s, 2**b
    entries = _k_means(torch.randn(200_000, d, generator=generator).abs(), 2 ** (b + s), generator)
    entries = entries[entries.norm(dim=1).argsort()].view(n_choices, n_states, d)
    dealt = [block[torch.randperm(n_states, generator=generator)] for block in entries]
    lookup = torch.stack(dealt, dim=1)  # (n_states, n_choices, d)
    return lookup[:, torch.randperm(n_choices, generator=generator)].flatten(0, 1)


def _k_means(data: Tensor, n: int, generator: torch.Generator) -> Tensor:
    centres = data[torch.randperm(len(data), generator=generator)[:n]].clone()
    for _ in range(12):
        nearest = torch.cat([torch.cdist(part, centres).argmin(1) for part in data.split(8192)])
        count = torch.bincount(nearest, minlength=n).float()[:, None]
        total = torch.zeros_like(centres).index_add_(0, nearest, data)
        centres = torch.where(count > 0, total / count.clamp_min(1), centres)
    return centres


def main() -> None:
    """Train all tables, measure them, write the file."""
    torch.set_num_threads(1)  # sums in a fixed order
    found: dict[str, Tensor] = {}
    distortion: dict[str, float] = {}
    for d, b, s in WINDOWS:
        lookup = train_table(d, b, s).to(torch.float16)
        error = measure(lookup.float(), d, b, s)
        bits = 1 + b / d
        found[table_name(d, b, s)] = lookup
        distortion[table_name(d, b, s)] = error
        gap = 10 * math.log10(error * 4**bits)
        print(f"d={d} b={b} s={s}: {bits} bits, relative MSE {error:.5f}, {gap:.2f} dB off")
    save_file(found, TABLE_FILE, metadata={"distortion": json.dumps(distortion)})


if __name__ == "__main__":
    main()
