"""Demonstration files as training samples: one sample per recorded pair of pictures."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from policies.reference.model import Shape

MIN_STD = 0.01  # of a state number that hardly moves, in its own unit


@dataclass(frozen=True)
class Batch:
    """Samples of one step; every field starts with the batch dimension."""

    pictures: Tensor  # (n, 2, 3, H, W) float32 in [0, 1]
    state: Tensor  # (n, 8) normalized
    actions: Tensor  # (n, chunk_size, 7) normalized
    places: Tensor  # (n, 6) target and goal relative to the hand, m
    task: Tensor  # (n,) index into `tasks`


class Demonstrations:
    """All samples in the memory of `device`; `scan` adds files that have appeared since."""

    def __init__(self, folder: Path, shape: Shape, device: torch.device | str = "cpu") -> None:
        self._folder, self._shape, self._device = folder, shape, device
        self._seen: set[str] = set()
        self._parts: list[tuple[Tensor, ...]] = []
        self.tasks: list[str] = []
        self.scan()

    def __len__(self) -> int:
        return len(self._samples[0])

    @property
    def n_files(self) -> int:
        return len(self._seen)

    def scan(self) -> None:
        new = [p for p in sorted(self._folder.glob("*.npz")) if p.name not in self._seen]
        for path in new:
            self._seen.add(path.name)
            with np.load(path) as file:
                self._parts.append(tuple(column.to(self._device) for column in self._read(file)))
        if new:
            self._samples = tuple(torch.cat(columns) for columns in zip(*self._parts, strict=True))
            tasks = self._samples[-1]
            # Tasks are drawn by the square root of their looks: between equal shares, which wear
            # out the small ones, and shares by size, which neglect them.
            chance = torch.bincount(tasks).double().rsqrt()[tasks]
            self._chance = (chance / chance.sum()).cpu().numpy()

    def _read(self, file: np.lib.npyio.NpzFile) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        looks, task = file["look_steps"], str(file["task"])
        if task not in self.tasks:
            self.tasks.append(task)
        states, actions = torch.from_numpy(file["states"]), torch.from_numpy(file["actions"])
        padded = torch.cat([actions, actions[-1:].expand(self._shape.chunk_size, -1)])
        chunks = torch.stack([padded[t : t + self._shape.chunk_size] for t in looks])
        hand = states[looks, :3]
        places = torch.from_numpy(file["places"])[looks] - torch.cat([hand, hand], dim=1)
        index = torch.full((len(looks),), self.tasks.index(task))
        return shrink(file["pictures"], self._shape), states[looks], chunks, places, index

    def statistics(self) -> dict[str, dict[str, Tensor]]:
        """Mean and standard deviation of state and action, in LeRobot's form.

        The deviation of the state is the one within tasks: suites differ in table height by almost
        a metre, and measured against that, the centimetres that matter would vanish.
        """
        _, states, actions, _, tasks = self._samples
        means = torch.stack([states[tasks == i].mean(0) for i in range(len(self.tasks))])
        within = (states - means[tasks]).square().mean(0).sqrt()
        flat = actions.flatten(0, 1)
        # Rotations are almost always zero: an honest deviation would magnify their noise.
        action_std = flat.std(0)
        action_std[3:6] = action_std[3:6].clamp(min=0.1)
        return {
            "observation.state": {
                "mean": states.mean(0).cpu(),
                "std": within.clamp(min=MIN_STD).cpu(),
            },
            "action": {"mean": flat.mean(0).cpu(), "std": action_std.cpu()},
        }

    def draw(
        self, rng: np.random.Generator, n: int, statistics: dict[str, dict[str, Tensor]]
    ) -> Batch:
        """`n` samples at random, normalized, pictures not yet augmented."""
        rows = torch.from_numpy(rng.choice(len(self), n, p=self._chance)).to(self._device)
        pictures, states, actions, places, tasks = (column[rows] for column in self._samples)
        state, action = (
            {name: numbers.to(self._device) for name, numbers in statistics[key].items()}
            for key in ("observation.state", "action")
        )
        return Batch(
            pictures=pictures.float() / 255,
            state=(states - state["mean"]) / state["std"],
            actions=(actions - action["mean"]) / action["std"],
            places=places,
            task=tasks,
        )


def shrink(pictures: np.ndarray, shape: Shape) -> Tensor:
    """(n, 2, H, W, 3) uint8 to (n, 2, 3, h, w) uint8 by the bilinear rule of the policy."""
    n, cameras = pictures.shape[:2]
    tensor = torch.from_numpy(pictures).flatten(0, 1).permute(0, 3, 1, 2).float()
    size = (shape.picture_px, shape.picture_px)
    small = functional.interpolate(tensor, size=size, mode="bilinear", align_corners=False)
    return small.round().to(torch.uint8).unflatten(0, (n, cameras))


def augment(pictures: Tensor, max_shift_px: int) -> Tensor:
    """Shift by a few pixels, change brightness, contrast and tint; (n, 2, 3, H, W) in [0, 1]."""
    n, cameras, channels, height, width = pictures.shape
    flat, device = pictures.flatten(0, 1), pictures.device
    if max_shift_px:
        padded = functional.pad(flat, (max_shift_px,) * 4, mode="replicate")
        shifts = torch.randint(0, 2 * max_shift_px + 1, (2, len(flat), 1), device=device)
        y = shifts[0] + torch.arange(height, device=device)  # (n * cameras, height)
        x = shifts[1] + torch.arange(width, device=device)
        pick = torch.arange(len(flat), device=device)[:, None, None]
        flat = padded[pick, :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
    contrast = 1 + (torch.rand(len(flat), 1, 1, 1, device=device) - 0.5) * 0.3
    tint = (torch.rand(len(flat), channels, 1, 1, device=device) - 0.5) * 0.1
    return (flat * contrast + tint).unflatten(0, (n, cameras))


def tokenize(tokenizer: object, tasks: Iterable[str], shape: Shape) -> tuple[Tensor, Tensor]:
    """Token ids and mask, (n_tasks, language_tokens), as LeRobot's preprocessor makes them."""
    encoded = tokenizer(  # type: ignore[operator]
        [f"{task}\n" for task in tasks],
        padding="max_length",
        padding_side="right",
        max_length=shape.language_tokens,
        truncation=True,
        return_tensors="pt",
    )
    return encoded["input_ids"], encoded["attention_mask"].bool()
