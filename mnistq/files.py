"""Codes packed without gaps, and files written whole. Notebook 09."""

import math
import os
import threading
from pathlib import Path

import numpy as np
import torch

from mnistq.quantizers import code_range

LARGEST = 2**28  # bytes of a file that is read


def pack_codes(codes, bits):
    """Return codes without gaps between them, in ceil(n * bits / 8) bytes.

    codes: 0 to 2**bits - 1, any shape; bits: 1 to 8; the first code takes the lowest
    bits of the first byte. uint8, 1-d. Raises ValueError for codes that do not fit.
    Used in notebook 09.
    """
    _, qmax = code_range(bits)
    flat = codes.flatten().to(torch.int64).numpy()
    if qmax > 255 or flat.min(initial=0) < 0 or flat.max(initial=0) > qmax:
        raise ValueError(f"these codes or bits = {bits} do not fit: 8 bits at most.")
    fields = (flat[:, None] >> np.arange(bits) & 1).astype(np.uint8)  # (n, bits)
    return torch.from_numpy(np.packbits(fields, bitorder="little"))


def unpack_codes(packed, bits, count):
    """Return the count codes, uint8, that pack_codes packed.

    Raises ValueError if packed is not as long as they are. Used in notebook 09.
    """
    code_range(bits)
    if bits > 8 or len(packed) != math.ceil(count * bits / 8):
        raise ValueError(f"{len(packed)} bytes are not {count} codes of {bits} bits.")
    fields = np.unpackbits(packed.numpy(), count=count * bits, bitorder="little")
    codes = (fields.reshape(count, bits) << np.arange(bits)).sum(1)
    return torch.from_numpy(codes.astype(np.uint8))


def take(stream, kind, count):
    """Return the next count numbers of a stream, of a numpy type in little endian."""
    data = stream.read(count * np.dtype(kind).itemsize)
    values = np.frombuffer(data, kind, count)  # raises ValueError if too few are left
    return torch.from_numpy(values.astype(kind.replace("<", "=")))


def read_whole(read, path, remedy):
    """Return read(content) of a file that may be anything, up to LARGEST bytes of it.

    remedy: what to do if it is missing. Raises ValueError if it is, or read raises.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is missing: {remedy}.")
    with path.open("rb") as file:
        content = file.read(LARGEST)
    try:
        return read(content)
    except Exception as error:  # whatever a stranger may have put there
        raise ValueError(f"{path} cannot be used: {error}") from error


def write_whole(path, content):
    """Write bytes to a temporary name, then rename: path never holds half a file."""
    path = Path(path).resolve()  # a link stays one
    writer = f"{os.getpid()}.{threading.get_ident()}"  # two never share a name
    temporary = path.with_name(f"{path.name}.{writer}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
