"""Draws the figures of docs/theory.md: `python benchmarks/draw_theory.py docs/figures`."""

import math
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from einsort_vla.codec import CodecSpec, Curve, Network, Scalar, decode, encode

SEED = 0
BLOCK = (8 * 64, 128)  # 8 heads x 64 tokens x 128, as in the paper's KV experiments


def main() -> None:
    """Write all figures into the folder named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/draw_theory.py FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (draw_spectra, draw_margins, draw_honest_bits, draw_gap):
        figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
        draw(axes)
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(folder / f"{draw.__name__.removeprefix('draw_')}.png", dpi=120)
        plt.close(figure)


def draw_spectra(axes: Axes) -> None:
    """Lemmas 2.1 and D.1: singular values before and after sorting."""
    values = torch.rand(256, 256, generator=_generator()).double()
    swapped = values[torch.randperm(256, generator=_generator())]
    for matrix, label in (
        (values, "unsorted (and with rows permuted: the same, Proposition D.2)"),
        (values.sort(dim=1).values, "each row sorted (Lemma D.1: rank 1)"),
        (values.flatten().sort().values.view(256, 256), "all sorted (Lemma 2.1: rank 2)"),
    ):
        singular = torch.linalg.svdvals(matrix)
        axes.semilogy(range(1, 41), singular[:40] / singular[0], ".-", label=label)
    assert torch.allclose(torch.linalg.svdvals(values), torch.linalg.svdvals(swapped))
    axes.set(xlabel="index", ylabel="singular value over the largest", ylim=(1e-4, 2),
             title="256 x 256 uniform values")  # fmt: skip


def draw_margins(axes: Axes) -> None:
    """Proposition D.3: how far one entry moves the score of its place."""
    slices = torch.arange(2, 33).double()
    for value in (0.1, 0.5):
        mean = value / ((slices - 1) / 12).sqrt()
        axes.semilogy(slices, mean, label=f"mean, entry {value}")
    product = 1 / ((4 / 3) ** (slices - 1) - 1).sqrt()
    axes.semilogy(slices, product, "k--", label="product, any entry")
    axes.set(xlabel="slices that share one order", ylabel="margin: mean over deviation",
             title="Score of a place, uniform entries, p = 1")  # fmt: skip


def draw_honest_bits(axes: Axes) -> None:
    """Error over bits with everything counted, on structureless weights."""
    block = torch.randn(*BLOCK, generator=_generator())
    ranks = (2, 4, 8, 16, 32, 64)
    families: dict[str, list[CodecSpec]] = {
        "SVD": [Network(r, scope="none", sign_split=False) for r in ranks],
        "signs split, not sorted": [Network(r, scope="none") for r in ranks],
        "EinSort, 8 slices share an order": [Network(r) for r in ranks],
        "EinSort, row by row": [Network(r, slices=1, scope="row") for r in (1, 2, 4, 8)],
        "rounding, group 128": [Scalar(bits, 128) for bits in (2, 3, 4, 5, 6, 8)],
        "curve": [Curve(bits) for bits in (1, 1.5, 2, 3, 4, 5)],
    }
    for label, specs in families.items():
        points = sorted(_point(block, spec) for spec in specs)
        axes.plot(*zip(*points, strict=True), ".-", label=label)
    bits = torch.linspace(1, 16, 2)
    axes.plot(bits, 20 * torch.log10(2.0**-bits), "k", lw=0.8, label="bound")
    axes.set(xlabel="bits a weight, everything counted", ylabel="relative error, dB",
             xlim=(0.9, 16), ylim=(-50, 1), title="i.i.d. Gaussian, 512 x 128")  # fmt: skip


def draw_gap(axes: Axes) -> None:
    """Distance to the bound: windows of three lengths, and signs stored apart."""
    block = torch.randn(256, 2048, generator=_generator())
    families: dict[str, list[CodecSpec]] = {
        f"curve, window of {window} bits": [Curve(k / 2, window) for k in range(2, 11)]
        for window in (10, 13, 16)
    }
    for label, specs in families.items():
        points = sorted(_point(block, spec) for spec in specs)
        gaps = [error + 20 * bits * math.log10(2) for bits, error in points]
        axes.plot([bits for bits, _ in points], gaps, ".-", label=label)
    bits, error = magnitudes_bound()
    axes.plot(
        bits + 1,
        10 * torch.log10(error * 4 ** (bits + 1)),
        "k--",
        lw=0.8,
        label="bound with the signs apart",
    )
    axes.plot(1, 10 * math.log10(4 * (1 - 2 / math.pi)), "kx", label="the signs alone")
    axes.set(xlabel="bits a weight, everything counted", ylabel="above the bound, dB",
             xlim=(0.9, 5.1), ylim=(0, 2.5), title="i.i.d. Gaussian, 256 x 2048")  # fmt: skip


def magnitudes_bound(n_points: int = 12) -> tuple[Tensor, Tensor]:
    """Rates, in bits, and the least errors at which a Gaussian's magnitudes can be coded.

    The rate-distortion function of a half-normal source, by the algorithm of Blahut (1972) and
    Arimoto on a grid: one point for each slope of the curve.
    """
    source = torch.linspace(0, 5, 400, dtype=torch.float64)
    share = torch.softmax(-source.square() / 2, 0)
    errors = (source[:, None] - source).square()
    rates, least = [0.0], [1 - 2 / math.pi]
    for slope in torch.logspace(0.25, 2.3, n_points, dtype=torch.float64):  # 1.38 is at no rate
        likely = torch.exp(-slope * errors)
        used = torch.full_like(share, 1 / len(share))  # how often each value is decoded
        for _ in range(4000):
            used = used * (share / (likely @ used)) @ likely
        chosen = likely * used / (likely @ used)[:, None]
        joint = share[:, None] * chosen
        rates.append(float((joint * (chosen / used).clamp_min(1e-300).log2()).sum()))
        least.append(float((joint * errors).sum()))
    return torch.tensor(rates), torch.tensor(least)


def _point(block: Tensor, spec: CodecSpec) -> tuple[float, float]:
    compressed = encode(block, spec)
    error = (block - decode(compressed)).square().sum() / block.square().sum()
    return compressed.stored_bits / block.numel(), 10 * math.log10(float(error))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


if __name__ == "__main__":
    main()
