"""Mutations of safetensors files: header, metadata, and the bytes of tensors."""

import json
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.change import ESCAPED, Change, Spot
from tests.fuzz.trees import Tree, change_tree, to_text
from tests.fuzz.values import hostile_path

SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2,
         "U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}  # fmt: skip
FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
METADATA = "__metadata__"
BOMB_BYTES, BOMB_BLOCK = 3 * 2**29, 2**22  # what a stream inflates to, and of how much at once


@dataclass
class Stored:
    dtype: str
    shape: list[int]
    data: bytes


@dataclass
class TensorFile:
    """A safetensors file in memory."""

    metadata: dict[str, Any]
    tensors: dict[str, Stored]

    @classmethod
    def read(cls, path: Path) -> "TensorFile":
        content = path.read_bytes()
        n = struct.unpack("<Q", content[:8])[0]
        header, data = json.loads(content[8 : 8 + n]), content[8 + n :]
        metadata = header.pop(METADATA, {})
        ordered = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        return cls(metadata, {
            name: Stored(e["dtype"], e["shape"], data[slice(*e["data_offsets"])])
            for name, e in ordered
        })  # fmt: skip

    def header(self) -> dict[str, Any]:
        header: dict[str, Any] = {METADATA: self.metadata} if self.metadata else {}
        position = 0
        for name, stored in self.tensors.items():
            end = position + len(stored.data)
            header[name] = {"dtype": stored.dtype, "shape": stored.shape,
                            "data_offsets": [position, end]}  # fmt: skip
            position = end
        return header

    def write(self, path: Path, header: str | None = None, length: int | None = None) -> None:
        text = (to_text(self.header()) if header is None else header).encode(
            "utf-8", "surrogatepass"
        )
        if header is None:
            text += b" " * (-len(text) % 8)
        n = struct.pack("<Q", len(text) if length is None else length)
        path.write_bytes(n + text + b"".join(s.data for s in self.tensors.values()))


def change_tensors(spot: Spot) -> Change | None:
    """One of the mutations below."""
    mutations, weights = zip(*MUTATIONS.items(), strict=True)
    return spot.rng.choices(mutations, weights)[0](spot)


def _pick(spot: Spot, file: TensorFile) -> str | None:
    return spot.rng.choice(list(file.tensors)) if file.tensors else None


def _place(spot: Spot, *more: object) -> str:
    return ":".join([spot.path.name, *(str(m)[:80] for m in more)])


def change_metadata(spot: Spot) -> Change | None:
    """A value of the metadata, or one inside the JSON that many of them are."""
    file, rng = TensorFile.read(spot.path), spot.rng
    inner = {k: v for k, v in file.metadata.items() if v[:1] in "[{"}
    if inner and rng.random() < 0.8:
        key = rng.choice(list(inner))
        tree = Tree(
            json.loads(inner[key]), spot.target, rng, f"{spot.path.name}:{key}", spot.outside
        )
        change = change_tree(tree)
        file.metadata[key] = to_text(tree.root)
    else:
        root = file.metadata
        change = change_tree(Tree(root, spot.target, rng, spot.path.name, spot.outside))
    file.write(spot.path)
    return change


def change_header(spot: Spot) -> Change | None:
    """A value of the header, whatever it was; offsets do not follow."""
    file = TensorFile.read(spot.path)
    tree = Tree(
        file.header(), spot.target, spot.rng, f"{spot.path.name}:header", spot.outside, 2000
    )
    change = change_tree(tree)
    file.write(spot.path, to_text(tree.root))
    return change


def bad_offsets(spot: Spot) -> Change | None:
    """Shifted, overlapping, reversed or endless."""
    file, rng = TensorFile.read(spot.path), spot.rng
    header = file.header()
    if (name := _pick(spot, file)) is None:
        return None
    start, end = header[name]["data_offsets"]
    by = rng.choice((1, 2, -1, 8, -8, 2**40, 2**63))
    other = header[rng.choice(list(file.tensors))]["data_offsets"]
    new = rng.choice(([start + by, end + by], [end, start], other, [start, end + by], [0, 0],
                      [start + by, end], [start], [start, end, end]))  # fmt: skip
    header[name]["data_offsets"] = new
    file.write(spot.path, to_text(header))
    return Change("bad_offsets", _place(spot, name, new))


def bad_length(spot: Spot) -> Change | None:
    """The length of the header is wrong."""
    file, rng = TensorFile.read(spot.path), spot.rng
    n = len(to_text(file.header()))
    new = rng.choice((0, 1, n - 1, n + 1, n + 2**20, 2**31, 2**40, 2**63, 2**64 - 1))
    file.write(spot.path, to_text(file.header()), new)
    return Change("bad_length", _place(spot, new))


def trailing_bytes(spot: Spot) -> Change | None:
    """After the header's JSON, or after the data."""
    file, rng = TensorFile.read(spot.path), spot.rng
    if rng.random() < 0.5:
        more = rng.choice((" " * 4096, "\0" * 8, "{}", "x", "\n\n"))
        file.write(spot.path, to_text(file.header()) + more)
        return Change("trailing_bytes", _place(spot, "header", repr(more[:5])))
    with spot.path.open("ab") as out:
        out.write(bytes(rng.choice((1, 8, 4096))))
    return Change("trailing_bytes", _place(spot, "data"))


def _write(spot: Spot, file: TensorFile, name: str, *what: object, free: bool = False) -> Change:
    file.write(spot.path)
    return Change(name, _place(spot, *what), free)


def remove_tensor(spot: Spot) -> Change | None:
    file = TensorFile.read(spot.path)
    if (name := _pick(spot, file)) is None:
        return None
    if spot.rng.random() < 0.1:
        file.tensors.clear()
    else:
        del file.tensors[name]
    place = _place(spot, name)
    return _write(spot, file, "remove_tensor", name, free=spot.target.is_optional(place))


def add_tensor(spot: Spot) -> Change | None:
    file, rng = TensorFile.read(spot.path), spot.rng
    like = _pick(spot, file)
    name = rng.choice((ESCAPED, "", "x" * 3000, "a\0b", (like or "") + "_more", "__class__",
                       hostile_path(rng, spot.outside)))  # fmt: skip
    other = file.tensors[like] if like else Stored("F32", [1], bytes(4))
    file.tensors[name] = rng.choice((Stored("U8", [8], bytes(8)), Stored("F32", [0], b""), other))
    free = spot.target.is_optional(_place(spot, name))
    return _write(spot, file, "add_tensor", repr(name), free=free)


def rename_tensor(spot: Spot) -> Change | None:
    file, rng = TensorFile.read(spot.path), spot.rng
    if (old := _pick(spot, file)) is None:
        return None
    new = rng.choice((old + "_", old[:-1], old.upper(), "", "x" * 3000, f"{old}\0", "é",
                      hostile_path(rng, spot.outside)))  # fmt: skip
    file.tensors = {(new if n == old else n): s for n, s in file.tensors.items()}
    free = spot.target.is_optional(_place(spot, old))
    return _write(spot, file, "rename_tensor", old, repr(new), free=free)


def swap_tensors(spot: Spot) -> Change | None:
    """Two of the same type and shape are a change of the payload alone."""
    file = TensorFile.read(spot.path)
    if len(file.tensors) < 2:
        return None
    a, b = spot.rng.sample(list(file.tensors), 2)
    one, two = file.tensors[a], file.tensors[b]
    file.tensors[a], file.tensors[b] = two, one
    alike = (one.dtype, one.shape) == (two.dtype, two.shape)
    alike |= all(spot.target.is_setting(_place(spot, name)) for name in (a, b))
    return _write(spot, file, "swap_tensors", a, b, free=alike)


def retype(spot: Spot) -> Change | None:
    """The same bytes as another type, of the same width or with another length."""
    file, rng = TensorFile.read(spot.path), spot.rng
    if (name := _pick(spot, file)) is None:
        return None
    stored = file.tensors[name]
    old, width = stored.dtype, SIZES[stored.dtype]
    stored.dtype = new = rng.choice([*SIZES, "C64", "F4", "f32"])
    if stored.shape and SIZES.get(new, width) != width:
        rest = math.prod(stored.shape[:-1]) * SIZES[new]
        if rest and len(stored.data) % rest == 0 and rng.random() < 0.7:
            stored.shape[-1] = len(stored.data) // rest
    alike = {old, new} <= FLOATS and SIZES[old] == SIZES[new]  # nobody can tell them apart
    free = alike or spot.target.is_setting(_place(spot, name))
    return _write(spot, file, "retype", name, old, new, free=free)


def reshape(spot: Spot) -> Change | None:
    """As many numbers in another shape."""
    file, rng = TensorFile.read(spot.path), spot.rng
    if (name := _pick(spot, file)) is None:
        return None
    stored = file.tensors[name]
    n = math.prod(stored.shape)
    shapes = [[n], [1, n], [n, 1], stored.shape[::-1], [*stored.shape, 1], [1] * 70 + [n]]
    shapes += [[2, n // 2]] * (n % 2 == 0) + [[]] * (n == 1)
    stored.shape = rng.choice(shapes)
    free = spot.target.is_setting(_place(spot, name))
    return _write(spot, file, "reshape", name, stored.shape, free=free)


def resize(spot: Spot) -> Change | None:
    """Fewer or more numbers than there must be, or none."""
    file, rng = TensorFile.read(spot.path), spot.rng
    if (name := _pick(spot, file)) is None:
        return None
    stored = file.tensors[name]
    axis = rng.randrange(len(stored.shape)) if stored.shape else None
    if axis is None:
        stored.shape, axis = [1], 0
    stored.shape = list(stored.shape)
    stored.shape[axis] = rng.choice((0, 1, stored.shape[axis] + 1, max(stored.shape[axis] - 1, 0)))
    n = math.prod(stored.shape) * SIZES[stored.dtype]
    stored.data = (stored.data * (n // max(len(stored.data), 1) + 1))[:n].ljust(n, b"\0")
    free = spot.target.is_setting(_place(spot, name))
    return _write(spot, file, "resize", name, stored.shape, free=free)


def huge_shape(spot: Spot) -> Change | None:
    """Dimensions that no memory holds, without data or with a zero among them."""
    file, rng = TensorFile.read(spot.path), spot.rng
    if (name := _pick(spot, file)) is None:
        return None
    shape = rng.choice(([2**40], [2**32, 2**32], [2**40, 0], [0, 2**62], [2**63, 2], [2**31] * 3))
    stored = file.tensors[name]
    stored.shape = shape
    if 0 in shape:
        stored.data = b""
    return _write(spot, file, "huge_shape", name, shape)


def flip_bits(spot: Spot) -> Change | None:
    """Any bits of the payload: indices out of range, broken streams, other numbers."""
    file, rng = TensorFile.read(spot.path), spot.rng
    names = [n for n, s in file.tensors.items() if s.data]
    if not names:
        return None
    name = rng.choice(names)
    data = bytearray(file.tensors[name].data)
    for _ in range(rng.choice((1, 1, 8, 200))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.tensors[name].data = bytes(data)
    return _write(spot, file, "flip_bits", name, free=True)


def fill(spot: Spot) -> Change | None:
    """All bytes alike: NaN, no permutation, no stream; or numbers that are not finite."""
    file, rng = TensorFile.read(spot.path), spot.rng
    names = [n for n, s in file.tensors.items() if s.data]
    if not names:
        return None
    stored = file.tensors[name := rng.choice(names)]
    special = {"F32": (b"\0\0\x80\x7f", b"\0\0\xc0\x7f"), "F16": (b"\0\x7c", b"\0\x7e"),
               "BF16": (b"\x80\x7f", b"\xc0\x7f")}.get(stored.dtype)  # fmt: skip
    if special and rng.random() < 0.5:
        at = rng.randrange(len(stored.data) // len(special[0])) * len(special[0])
        one = rng.choice(special)
        stored.data = stored.data[:at] + one + stored.data[at + len(one) :]
    else:
        byte = rng.choice((0, 0xFF, 0x7F, 0x80, 1))
        stored.data = bytes([byte]) * len(stored.data)
    return _write(spot, file, "fill", name, free=True)


def cut_payload(spot: Spot) -> Change | None:
    """Zeros from some byte on, as a sparse copy leaves them; or bytes in another order."""
    file, rng = TensorFile.read(spot.path), spot.rng
    names = [n for n, s in file.tensors.items() if s.data]
    if not names:
        return None
    stored = file.tensors[name := rng.choice(names)]
    n = len(stored.data)
    at = rng.randrange(n)
    rest = bytes(n - at) if rng.random() < 0.5 else bytes(rng.sample(stored.data[at:], n - at))
    stored.data = stored.data[:at] + rest
    return _write(spot, file, "cut_payload", name, free=True)


def bomb_of_zeros() -> bytes:
    """A raw deflate stream of gigabytes: one block again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(bytes(BOMB_BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (BOMB_BYTES // BOMB_BLOCK) + packer.flush()


def inflating_stream(spot: Spot) -> Change | None:
    """A deflate stream that asks for gigabytes, with its length where lengths are told."""
    file = TensorFile.read(spot.path)
    names = [n for n in file.tensors if n.endswith("_exponents")]
    if not names:
        return None
    name, bomb = spot.rng.choice(names), bomb_of_zeros()
    matrix = name.removesuffix("_exponents")
    file.tensors[name] = Stored("U8", [len(bomb)], bomb)
    lengths = file.tensors[f"{matrix}_lengths"]
    lengths.data = struct.pack("<i", len(bomb)) + bytes(len(lengths.data) - 4)
    if "plan" in file.metadata:
        plan = json.loads(file.metadata["plan"])
        plan["tensors"][matrix]["spec"]["exponent_bytes"] = len(bomb)
        file.metadata["plan"] = json.dumps(plan)
    return _write(spot, file, "inflating_stream", name, free=True)


MUTATIONS = {
    change_metadata: 8, change_header: 3, bad_offsets: 1, bad_length: 1, trailing_bytes: 1,
    remove_tensor: 2, add_tensor: 2, rename_tensor: 1.5, swap_tensors: 1, retype: 2, reshape: 1.5,
    resize: 1.5, huge_shape: 1, flip_bits: 2, fill: 2, cut_payload: 1, inflating_stream: 0.4,
}  # fmt: skip
