"""Makes the shipped tables: annealed Lloyd iterations through the search, on Gaussian data.

Run as `python -m benchmarks.make_tables`; seeds are fixed, test data are not training data. Tables
that are done are kept in the work file, so that an interrupted run goes on.
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from einsort_vla.codec.search import WindowSearch
from einsort_vla.codec.tables import TABLE_FILE, assigned, centroids, table_name

# (d, b); the memory s fills the window. Sorted by bits a weight: 1 + b / d.
RATES = [(8, 1), (4, 1), (2, 1), (4, 3), (2, 2), (2, 3), (2, 4), (2, 5), (2, 6), (1, 4), (1, 5),
         (1, 6), (1, 7)]  # fmt: skip
# Window in bits to (iterations, slices of each iteration's data for each entry).
WINDOWS = {8: (2400, 96), 10: (1200, 64)}
LENGTH = 256
# Of the root mean squared error: noise on the entries, falling to none over the first 85 % of
# iterations, leads out of poor local minima. At 3 bits it gains 0.3 dB, at 2 bits 0.1 dB.
NOISE, COOLED = 1.0, 0.85
# Once there is no noise, means are over the data of some twenty iterations, not of one: 0.02 dB.
KEPT = 0.95
TEST_SEQUENCES = 512


def train_table(d: int, b: int, s: int, seed: int = 0) -> Tensor:
    """(2^(s+b), d) float32 magnitudes of least error for a half-normal source."""
    generator = torch.Generator().manual_seed(seed)
    lookup = _start(d, b, s, generator)
    iterations, slices_per_entry = WINDOWS[s + b]
    sequences = slices_per_entry * len(lookup) // LENGTH
    count, total = torch.zeros(len(lookup), 1), torch.zeros_like(lookup)
    for k in range(iterations):
        data = torch.randn(sequences, LENGTH, d, generator=generator).abs()
        windows = WindowSearch(lookup, b, s).find(data)
        error = (data - lookup[windows]).square().mean().sqrt()
        heat = NOISE * max(0.0, 1 - k / (COOLED * iterations))
        new, kept = assigned(windows, data, len(lookup)), 0.0 if heat else KEPT
        count, total = kept * count + new[0], kept * total + new[1]
        lookup = centroids(lookup, count, total)
        noise = torch.randn(lookup.shape, generator=generator)
        lookup = (lookup + heat * error * noise).clamp_min(0)
    return lookup


def measure(lookup: Tensor, d: int, b: int, s: int, seed: int = 10_000) -> float:
    """Relative mean squared error on fresh Gaussian data."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(TEST_SEQUENCES, LENGTH, d, generator=generator).abs()
    found = lookup[WindowSearch(lookup, b, s).find(data)]
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


def main(work: Path = Path("outputs/tables.safetensors")) -> None:
    """Train all tables, measure them, write the file."""
    torch.set_num_threads(1)  # sums in a fixed order
    work.parent.mkdir(parents=True, exist_ok=True)
    found = load_file(work) if work.exists() else {}
    tables: dict[str, Tensor] = {}
    distortion: dict[str, float] = {}
    for d, b, s in ((d, b, window - b) for window in WINDOWS for d, b in RATES):
        # One bit of memory loses to a companded grid, and d = 8 gains nothing from a larger window.
        if s == 1 or (d == 8 and s > 7):
            continue
        name = table_name(d, b, s)
        if name not in found:
            found[name] = train_table(d, b, s).to(torch.float16)
            save_file(found, work)
        tables[name] = found[name]
        distortion[name] = measure(found[name].float(), d, b, s)
        bits = 1 + b / d
        gap = 10 * math.log10(distortion[name] * 4**bits)
        print(f"d={d} b={b} s={s}: {bits} bits, relative MSE {distortion[name]:.5f}, {gap:.2f} dB",
              flush=True)  # fmt: skip
    save_file(tables, TABLE_FILE, metadata={"distortion": json.dumps(distortion)})


if __name__ == "__main__":
    main()
