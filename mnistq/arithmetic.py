"""Multiplier and shift, the roundings, and exact integer products. Notebook 06."""

import math
import timeit
from functools import cache

import torch


def quantize_multiplier(m):
    """Return (m0, shift) with m0 * 2**-31 * 2**-shift nearest to m.

    m0: int in [2**30, 2**31), so 31 significant bits; shift: int in [-30, 31], negative
    for m >= 1. An m0 that rounds up to 2**31 is halved. Raises ValueError for m that is
    not positive and finite, or lies outside [2**-32, 2**30).
    Source: Jacob et al. 2017, equation 6. Taught in notebook 06.
    """
    m = float(m)
    if not (math.isfinite(m) and m > 0):
        raise ValueError(f"the multiplier {m} must be positive and finite.")
    fraction, exponent = math.frexp(m)  # m = fraction * 2**exponent, fraction < 1
    m0 = math.floor(fraction * 2**31 + 0.5)
    if m0 == 2**31:
        m0, exponent = 2**30, exponent + 1
    if not -31 <= exponent <= 30:
        raise ValueError(f"the multiplier {m} must be at least 2**-32, below 2**30.")
    return m0, -exponent


def high_multiply(a, b):
    """Return (a * b + 2**30) >> 31: the upper half of 2ab, rounded, ties upwards.

    a: int32 or int64 tensor within int32's range; b: the same, or an int. int64.
    2**31 (both -2**31, the one product too large for int32) becomes 2**31 - 1.
    Source: gemmlowp, SaturatingRoundingDoublingHighMul. Taught in notebook 06.
    """
    product = a.long() * b
    return product.add_(2**30).bitwise_right_shift_(31).clamp_(max=2**31 - 1)


def rounding_shift(x, shift):
    """Return x / 2**shift rounded to the nearest integer, ties away from 0.

    x: int64 tensor; shift: int from 0 to 31, or int64 tensor that broadcasts with x.
    Source: gemmlowp, RoundingDivideByPOT. Taught in notebook 06.
    """
    shift = torch.as_tensor(shift)
    down = torch.maximum(x >> 63, -shift)  # -1 for a negative x, if it is shifted
    return down.add_(x).add_((1 << shift) >> 1).bitwise_right_shift_(shift)


def multiply_by_quantized_multiplier(acc, m0, shift):
    """Return acc * m0 * 2**-31 * 2**-shift in int32, with gemmlowp's two roundings.

    acc: int32 tensor; m0, shift: quantize_multiplier's, or tensors that broadcast with
    acc. Equals LiteRT's reference kernels. For a negative shift acc is first multiplied
    by 2**-shift; what leaves int32 there, which they leave undefined, saturates.
    Source: Jacob et al. 2017, section 2.2; gemmlowp. Taught in notebook 06.
    """
    if acc.dtype != torch.int32:
        raise ValueError(f"the accumulators are {acc.dtype}: give int32.")
    shift = torch.as_tensor(shift, dtype=torch.int64)
    if bool((shift < 0).any()):
        left = (-shift).clamp(min=0)
        acc = (acc.long() << left).clamp_(-(2**31), 2**31 - 1)
    high = high_multiply(acc, m0)
    return rounding_shift(high, shift.clamp(min=0)).to(torch.int32)


@cache
def int_mm_is_exact():
    """Return whether torch._int_mm is exact here: tried once, on full-range codes.

    Without VNNI, x86 processors have vpmaddubsw, which adds pairs of products in 16
    bits, saturating; oneDNN, which torch._int_mm calls where it can, then uses that.
    Taught in notebook 06.
    """
    for n, k, m in ((1, 64, 1), (64, 64, 64), (20, 25, 300), (50, 501, 40)):
        for step in (0, 73):  # 0: the largest product everywhere
            a = (127 - torch.arange(n * k) * step % 256).to(torch.int8)
            b = (127 - torch.arange(k * m) * step % 251).to(torch.int8)
            a, b = a.reshape(n, k), b.reshape(k, m)
            try:
                found = torch._int_mm(a, b)
            except (AttributeError, RuntimeError):  # not a public function
                return False
            if not torch.equal(found.long(), a.long() @ b.long()):
                return False
    return True


@cache
def int_mm_is_quick():
    """Return whether torch._int_mm takes less than 4 times as long as float32 here.

    Timed once. Where PyTorch does not call oneDNN, as on one processor with AVX2 alone,
    it was exact and took 8 to 31 times as long. The answer decides about time only.
    Taught in notebook 06.
    """
    a, b = (torch.ones(n, 512, dtype=torch.int8) for n in (64, 512))
    products = lambda: torch._int_mm(a, b), lambda: a.float() @ b.float()
    whole, carried = (min(timeit.repeat(f, number=1)) for f in products)
    return whole < 4 * carried


def int_matmul(a, b):
    """Return the int32 product a @ b, exact on every processor.

    a: int8 [n, k]; b: int8 [k, m]. torch._int_mm where it is exact and quick; elsewhere
    the codes are carried in float32 if k * 2**14 <= 2**24, so that it holds every sum,
    and in float64 if not. Raises ValueError for other types or shapes, or k >= 2**17,
    where int32 could overflow. Taught in notebook 06.
    """
    if a.dtype != torch.int8 or b.dtype != torch.int8:
        raise ValueError(f"the factors are {a.dtype} and {b.dtype}: give int8.")
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"the factors have shapes {shapes}: give [n, k] and [k, m].")
    terms = a.shape[1]
    if terms >= 2**17:
        raise ValueError(f"a sum of {terms} products may leave int32: split it.")
    # It misreads a view whose rows overlap and, with one term, a transposed b.
    if terms > 1 and int_mm_is_exact() and int_mm_is_quick():
        return torch._int_mm(a.contiguous(), b.contiguous())
    carrier = torch.float32 if terms * 2**14 <= 2**24 else torch.float64
    return (a.to(carrier) @ b.to(carrier)).to(torch.int32)
