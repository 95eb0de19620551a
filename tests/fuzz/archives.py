"""Mutations of npz archives, and of files whose bytes are not looked into here."""

import io
import pickle
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tests.fuzz.change import ESCAPED, Change, Spot
from tests.fuzz.values import hostile_path

BOMB_BYTES = 3 * 2**29
OTHER_TYPES = ("float64", "int8", "U3", "complex64", "float16", "S2")


class _Touch:
    """What a pickle does when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def change_archive(spot: Spot) -> Change | None:
    """One of the mutations of a member."""
    mutations, weights = zip(*MUTATIONS.items(), strict=True)
    with zipfile.ZipFile(spot.path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = spot.rng.choice(list(members))
    mutation = spot.rng.choices(mutations, weights)[0]
    items = list(members.items())
    free = mutation(spot, items, name)
    with zipfile.ZipFile(spot.path, "w") as archive:
        for member, content in items:
            archive.writestr(zipfile.ZipInfo(member), content)
    return Change(mutation.__name__, f"{spot.path.name}:{name}", free)


Items = list[tuple[str, bytes]]


def _replace(items: Items, name: str, content: bytes) -> bool:
    items[:] = [(n, content if n == name else c) for n, c in items]
    return False


def remove_member(spot: Spot, items: Items, name: str) -> bool:
    items[:] = [] if spot.rng.random() < 0.1 else [item for item in items if item[0] != name]
    return False


def rename_member(spot: Spot, items: Items, name: str) -> bool:
    new = spot.rng.choice((name[:-4], name.upper(), f"{ESCAPED}.npy", ".npy", "x" * 3000 + ".npy",
                           hostile_path(spot.rng, spot.outside)))  # fmt: skip
    items[:] = [(new.replace("\0", "") or "_" if n == name else n, c) for n, c in items]
    return False


def add_member(spot: Spot, items: Items, name: str) -> bool:
    content = dict(items)[name]
    new = spot.rng.choice((f"{ESCAPED}.npy", f"{ESCAPED}.txt", "../" + name, name))
    items.append((new, content))
    return False


def other_array(spot: Spot, items: Items, name: str) -> bool:
    """The same array in another type or shape."""
    array = np.load(io.BytesIO(dict(items)[name]))
    rng = spot.rng
    with np.errstate(all="ignore"):
        new = rng.choice((
            lambda: array.astype(rng.choice(OTHER_TYPES)),
            lambda: array[:0], lambda: array[..., :0], lambda: array.ravel(), lambda: array[None],
            lambda: array.sum(), lambda: array[:1], lambda: array.T, lambda: np.array("text"),
            lambda: np.zeros((2, 3), [("a", "f4"), ("b", "i4")]),
        ))()  # fmt: skip
    out = io.BytesIO()
    np.save(out, new)
    return _replace(items, name, out.getvalue())


def odd_numbers(spot: Spot, items: Items, name: str) -> bool:
    """NaN, infinity, or any bits."""
    array = np.load(io.BytesIO(dict(items)[name]))
    data = bytearray(array.tobytes())
    for _ in range(spot.rng.choice((1, 50))):
        data[spot.rng.randrange(len(data))] ^= 1 << spot.rng.randrange(8)
    new = np.frombuffer(bytes(data), array.dtype).reshape(array.shape).copy()
    if new.dtype.kind == "f" and spot.rng.random() < 0.5:
        new.ravel()[spot.rng.randrange(new.size)] = spot.rng.choice((np.nan, np.inf, -np.inf))
    out = io.BytesIO()
    np.save(out, new)
    _replace(items, name, out.getvalue())
    return True


def pickled(spot: Spot, items: Items, name: str) -> bool:
    """An array of objects, which runs code when it is read."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"shape": (1,), "fortran_order": False, "descr": "|O"}
    )
    out.write(pickle.dumps(np.array([_Touch(spot.outside / ESCAPED)], dtype=object)))
    content = out.getvalue()
    if spot.rng.random() < 0.3:  # the whole member: numpy takes it for a pickle
        content = pickle.dumps(_Touch(spot.outside / ESCAPED))
    return _replace(items, name, content)


def bad_header(spot: Spot, items: Items, name: str) -> bool:
    """The header of the array says something else than its bytes."""
    content = dict(items)[name]
    n = int.from_bytes(content[8:10], "little")
    header, rng = content[10 : 10 + n], spot.rng
    shape = rng.choice(("(1099511627776,)", "(-1, 4)", "(0, 4294967296)", "()", "(2.0,)", "('a',)",
                        "(" + "1," * 70 + ")", "__import__('os')"))  # fmt: skip
    new = rng.choice((
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}",
        f"{{'descr': '|O', 'fortran_order': True, 'shape': {shape}}}", "{" * 500, "", "[]",
        header.decode().replace("False", "True"), header.decode().replace("<f4", "<f8"),
    )).encode()  # fmt: skip
    new = new.ljust(len(header) - 1)[: max(len(new), len(header) - 1)] + b"\n"
    length = rng.choice((len(new), 0, 65535)) if rng.random() < 0.2 else len(new)
    return _replace(
        items, name, content[:8] + length.to_bytes(2, "little") + new + content[10 + n :]
    )


def bomb(spot: Spot) -> Change | None:
    """A member that inflates to gigabytes, of an array that is as large."""
    header = io.BytesIO()
    shape = (1, BOMB_BYTES // 4)
    np.lib.format.write_array_header_1_0(
        header, {"shape": shape, "fortran_order": False, "descr": "<f4"}
    )
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    stream = packer.compress(header.getvalue()) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**22)) + packer.flush(zlib.Z_FULL_FLUSH)
    stream += block * (BOMB_BYTES // 2**22) + packer.flush()
    with zipfile.ZipFile(spot.path) as archive:
        items = [(n, archive.read(n)) for n in archive.namelist()]
    name = spot.rng.choice(items)[0]
    with zipfile.ZipFile(spot.path, "w", zipfile.ZIP_STORED) as archive:
        for member, content in items:
            if member != name:
                archive.writestr(zipfile.ZipInfo(member), content)
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_STORED
        archive.writestr(info, stream)
        info.compress_type, info.file_size = (
            zipfile.ZIP_DEFLATED,
            BOMB_BYTES + len(header.getvalue()),
        )
        _patch_local_header(archive, info)
    return Change("bomb", f"{spot.path.name}:{name}")


def _patch_local_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    assert archive.fp is not None
    end = archive.fp.tell()
    archive.fp.seek(info.header_offset)
    archive.fp.write(info.FileHeader(False))
    archive.fp.seek(end)


def any_bytes(spot: Spot) -> Change | None:
    """Bits of a file that is not looked into: of an archive's directory, a graph, a picture."""
    content = bytearray(spot.path.read_bytes())
    if not content:
        return None
    for _ in range(spot.rng.choice((1, 3, 30))):
        content[spot.rng.randrange(len(content))] ^= 1 << spot.rng.randrange(8)
    spot.path.write_bytes(bytes(content))
    return Change("any_bytes", spot.path.name, True)


MUTATIONS = {
    remove_member: 2, rename_member: 2, add_member: 1, other_array: 4, odd_numbers: 2, pickled: 2,
    bad_header: 3,
}  # fmt: skip
