"""What shared libraries a program needs, read from its ELF file (no ``ldd``: that would run it here)."""

from __future__ import annotations

import struct
from pathlib import Path

from iaas.drivers.interface import PermanentError

# Source: System V ABI, chapter 4 and 5; /usr/include/elf.h.
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB = 1, 5


def _string(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()


def read_needs(path: Path) -> tuple[str | None, list[str]]:
    """Return the program interpreter (None for a library) and the library names ``path`` asks for.

    Raises:
        PermanentError: not a little-endian 64-bit ELF file.
    """
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise PermanentError(f"{path.name} is not a 64-bit ELF file")
    (table_offset,) = struct.unpack_from("<Q", data, 32)
    entry_size, entries = struct.unpack_from("<HH", data, 54)
    segments = []
    for number in range(entries):
        kind, _, offset, address, _, size, _, _ = struct.unpack_from(
            "<IIQQQQQQ", data, table_offset + number * entry_size
        )
        segments.append((kind, offset, address, size))

    interpreter: str | None = None
    needed_offsets: list[int] = []
    strings_address = 0
    for kind, offset, _, size in segments:
        if kind == PT_INTERP:
            interpreter = _string(data, offset)
        elif kind == PT_DYNAMIC:
            for tag, value in struct.iter_unpack("<QQ", data[offset : offset + size]):
                if tag == DT_NEEDED:
                    needed_offsets.append(value)
                elif tag == DT_STRTAB:
                    strings_address = value
    for kind, offset, address, size in segments:
        if kind == PT_LOAD and address <= strings_address < address + size:
            strings = offset + strings_address - address
            return interpreter, [_string(data, strings + needed) for needed in needed_offsets]
    return interpreter, []
