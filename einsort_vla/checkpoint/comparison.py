"""Whether a compressed file is what coding its source gives: each matrix is coded anew.

No figure for Gaussian weights can say how large an error may be: heavy tails have more. Coding is
deterministic, so that what is found and what is coded anew are the same bits on one processor. On
another one sums have another order, and the search finds another path of nearly the same error.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from einsort_vla.checkpoint.file import Checkpoint
from einsort_vla.checkpoint.source import DenseFolder
from einsort_vla.codec import CompressedTensor, decode, encode
from einsort_vla.codec.hessian import DAMPING, OUTPUT_DAMPING
from einsort_vla.errors import EinSortError

# Weights of the reference policy moved by 1e-6 of themselves, as another processor's sums do: of
# all codes the error of a matrix grew by 0.7 % at most, of a row by 0.8 of its matrix's error.
MATRIX_TOLERANCE, ROW_TOLERANCE = 1.05, 2.0
FLOOR = 1e-6  # below this relative squared error float16 scales decide
# Feedback moves errors to where the inputs have less energy, DAMPING of the mean at least: so much
# more a row's weights may be off. Measured on the reference policy: 38 at most.
FEEDBACK_TOLERANCE = 2 / (DAMPING * OUTPUT_DAMPING)
COSINE, LENGTH = 0.1, 5.0  # of a row and its source, with feedback; measured: 0.17, and 0.4 to 3.5


@dataclass(frozen=True)
class Comparison:
    """One matrix beside its source.

    Attributes:
        name: of the matrix.
        error: relative squared error of what is decoded.
        expected: that of the source coded anew.
        is_same: whether the two codes are the same bits.
        fault: what does not fit this source; empty if all does.
    """

    name: str
    error: float
    expected: float
    is_same: bool
    fault: str = ""


def compare_matrices(content: Checkpoint, dense: DenseFolder) -> Iterator[Comparison]:
    """Every matrix of a compressed file beside its source, one at a time.

    Takes as long as coding them took, and as much memory. Without a calibration each matrix has at
    most `MATRIX_TOLERANCE` and each row `ROW_TOLERANCE` times the error of coding it anew. With one
    weights are further off on purpose, by no more than `FEEDBACK_TOLERANCE`, and every row still
    points along its source and has about its length.
    """
    names = {}  # of the source; what `save_pretrained` wrote has those in the model
    if content.source_sha256 is None:
        names = {own: stored for stored, own in dense.in_model.items()}
    for name, compressed in content.coded.items():
        of_source = names.get(name, name)
        shape = dense.matrices.get(of_source)
        if shape != compressed.shape:
            found = "missing" if shape is None else f"of shape {shape}"
            fault = f"it has the shape {compressed.shape}; in the source it is {found}"
            yield Comparison(name, torch.inf, torch.inf, False, fault)
        else:
            yield _compare(name, compressed, dense.get(of_source).float(), content.is_calibrated)


def compare_rest(content: Checkpoint, dense: DenseFolder) -> list[str]:
    """What is wrong with the tensors that are not coded: each must be the source's bit for bit.

    Those that `save_pretrained` wrote are not compared: it gives them other names and types.
    """
    if content.source_sha256 is None:
        return []
    dropped = dense.family.dropped_reasons(dense.tensors.keys())
    expected = dense.tensors.keys() - content.plan.tensors.keys() - dropped.keys()
    faults = [f"{name} is missing" for name in sorted(expected - content.dense.keys())]
    faults += [f"{name} is not of the source" for name in sorted(content.dense.keys() - expected)]
    for name in sorted(expected & content.dense.keys()):
        if not _same_bits(content.dense[name], dense.get(name)):
            faults.append(f"{name} is not the source's bit for bit")
    return faults


def _compare(
    name: str, compressed: CompressedTensor, weight: Tensor, calibrated: bool
) -> Comparison:
    try:
        found = decode(compressed)
        anew = encode(weight, compressed.spec)
    except EinSortError as error:
        return Comparison(name, torch.inf, torch.inf, False, str(error))
    own, best = _Rows(weight, found), _Rows(weight, decode(anew))
    same = all(
        _same_bits(part, anew.parts[part_name]) for part_name, part in compressed.parts.items()
    )
    fault = own.fault_with_feedback(best) if calibrated else own.fault(best)
    return Comparison(name, own.total, best.total, same, fault)


class _Rows:
    """How a decoded matrix lies to its source, row by row; float64."""

    def __init__(self, weight: Tensor, found: Tensor) -> None:
        energy, missing = _energies(weight), _energies(found - weight)
        self.errors = _share(missing, energy)
        self.total = float(_share(missing.sum(), energy.sum()))
        self.lengths = _share(_energies(found), energy).sqrt()
        product = (found.double() * weight).sum(1)
        self.cosines = _share(product, energy) / self.lengths.clamp_min(1e-300)

    def fault(self, best: "_Rows") -> str:
        """What is worse than in the same matrix coded anew."""
        floor = FLOOR if best.total else 0.0  # what is coded without error has none
        bound = ROW_TOLERANCE * best.errors.clamp_min(best.total) + floor
        return (
            self._zero(best)
            or self._beyond(bound, best)
            or (
                f"its error is {self.total:.3g}, coded anew {best.total:.3g}"
                if not self.total <= MATRIX_TOLERANCE * best.total + floor
                else ""
            )
        )

    def fault_with_feedback(self, best: "_Rows") -> str:
        """What feedback of errors cannot have done."""
        bound = FEEDBACK_TOLERANCE * best.errors.clamp_min(best.total) + FLOOR
        if fault := self._zero(best) or self._beyond(bound, best):
            return fault
        is_row = best.lengths > 0
        strange = is_row & (self.cosines < (best.cosines - 0.5).clamp_max(COSINE))
        strange |= is_row & (self.lengths < (best.lengths / 2).clamp_max(1 / LENGTH))
        strange |= is_row & (self.lengths > (best.lengths * 2).clamp_min(LENGTH))
        if not strange.any():
            return ""
        k = int(strange.nonzero()[0])
        return (
            f"row {k} has a cosine of {self.cosines[k]:.2f} to its source and "
            f"{self.lengths[k]:.3g} times its length"
        )

    def _zero(self, best: "_Rows") -> str:
        lost = (self.lengths == 0) & (best.lengths > 0)
        return f"row {int(lost.nonzero()[0])} became zero" if lost.any() else ""

    def _beyond(self, bound: Tensor, best: "_Rows") -> str:
        beyond = ~(self.errors <= bound)  # true of NaN
        if not beyond.any():
            return ""
        k = int(beyond.nonzero()[0])
        return f"row {k} has the error {self.errors[k]:.3g}, coded anew {best.errors[k]:.3g}"


def _energies(matrix: Tensor) -> Tensor:
    return torch.linalg.vector_norm(matrix, dim=1, dtype=torch.float64).square()


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Of nothing, nothing is a share of 0 and anything else is infinite."""
    return torch.where(whole > 0, part / whole, torch.where(part == 0, 0.0, torch.inf))


def _same_bits(found: Tensor, expected: Tensor) -> bool:
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    first, second = (t.cpu().contiguous().view(-1).view(torch.uint8) for t in (found, expected))
    return torch.equal(first, second)
