"""What a code of 8 bits or fewer stands for: small floats, integers, NF4. Notebook 12.

An element turns numbers into codes and back, without any scale.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from mnistq.files import pack_codes
from mnistq.quantizers import code_range


class Element:
    """What all elements share. They have bits, and values: the number of each code."""

    @cached_property
    def largest(self):
        """The largest finite magnitude that has a code."""
        return float(self.values[self.values.isfinite()].max())

    def decode(self, codes):
        """Return what codes stand for, float64. Taught in notebook 12."""
        return self.values[codes.long()]

    def pack(self, codes):
        """Return the codes without gaps between them, uint8."""
        return pack_codes(codes, self.bits)


@dataclass(frozen=True)
class FloatElement(Element):
    """Small floats: a sign, an exponent field and a fraction of mantissa_bits bits.

    Exponent field e > 0: 2**(e - bias) * (1 + fraction); e = 0, a subnormal number:
    2**(1 - bias) * fraction; bias = 2**(exponent_bits - 1) - 1.
    special: "ieee", the largest e means infinity and NaN, as in IEEE 754 (E5M2); "nan",
    the largest magnitude alone is NaN and nothing is infinite (E4M3); "", every code is
    a number (FP6, FP4).
    Source: OCP OFP8 1.0; OCP MX 1.0. Taught in notebook 12.
    """

    exponent_bits: int
    mantissa_bits: int
    special: str = ""

    @property
    def bits(self):
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self):
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def top(self):
        """The code of the largest number; magnitudes and their codes have one order."""
        lost = {"ieee": 2**self.mantissa_bits, "nan": 1, "": 0}[self.special]
        return 2 ** (self.bits - 1) - lost - 1

    @cached_property
    def values(self):
        """The number, infinity or NaN of each code, float64 [2**bits]."""
        code = torch.arange(2 ** (self.bits - 1))
        exponent = code >> self.mantissa_bits
        fraction = (code % 2**self.mantissa_bits).double() / 2**self.mantissa_bits
        power = 2.0 ** (exponent.clamp(min=1) - self.bias).double()
        magnitude = power * torch.where(exponent > 0, 1 + fraction, fraction)
        magnitude[self.top + 1 :] = torch.nan
        if self.special == "ieee":
            magnitude[self.top + 1] = torch.inf
        return torch.cat([magnitude, -magnitude])

    def encode(self, x, saturate=True):
        """Return codes, uint8: x rounded to the nearest value, ties to the even code.

        Beyond the largest number: that number if saturate or if nothing is special,
        else the code after it, which means infinity (E5M2) or NaN (E4M3). NaN stays
        NaN. Raises ValueError for NaN where no code means it.
        Source: OCP OFP8 1.0; OCP MX 1.0. Taught in notebook 12.
        """
        x = x.double()
        nan = torch.isnan(x)
        if bool(nan.any()) and not self.special:
            raise ValueError(f"{self} has no code for NaN: remove it first.")
        size = x.abs().nan_to_num(0, posinf=2.0 ** (2**self.exponent_bits))
        least = 1 - self.bias  # the exponent of the smallest normal number
        exponent = torch.frexp(size).exponent - 1  # of 0 it says -1
        exponent = torch.where(size > 0, exponent, least).clamp(min=least)
        step = 2.0 ** (exponent - self.mantissa_bits).double()
        # One step beyond the last number of an exponent is the first of the next, so
        # codes count the magnitudes without a gap.
        code = (exponent - least) * 2**self.mantissa_bits + (size / step).round()
        code = code.clamp(max=self.top + (not saturate and self.special != ""))
        code = torch.where(nan, 2 ** (self.bits - 1) - 1, code)
        return (code + torch.signbit(x) * 2 ** (self.bits - 1)).to(torch.uint8)


@dataclass(frozen=True)
class IntElement(Element):
    """Whole numbers times unit: -k to k, k = 2**(bits-1) - 1, or 0 to 2**bits - 1.

    Signed codes are two's complement; the lowest one is read but never made, so that -x
    has a code where x has one. Source: OCP MX 1.0 (INT8, whose unit is 2**-6).
    Taught in notebook 12.
    """

    bits: int
    unit: float = 1.0
    signed: bool = True

    @cached_property
    def values(self):
        """The number of each code, float64 [2**bits]."""
        code = torch.arange(2**self.bits)
        above = code > code_range(self.bits, self.signed)[1]
        return (code - above * 2**self.bits).double() * self.unit

    def encode(self, x):
        """Return codes, uint8: x / unit rounded half to even, then clamped."""
        _, high = code_range(self.bits, self.signed)
        k = (x.double() / self.unit).round().clamp(-high if self.signed else 0, high)
        return (k.long() % 2**self.bits).to(torch.uint8)


@dataclass(frozen=True)
class TernaryElement(Element):
    """-1, 0 and 1, as the codes 0, 1 and 2, five of which fit a byte: 3**5 = 243.

    Taught in notebook 12.
    """

    bits = 8 / 5
    values = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)

    def encode(self, x):
        """Return codes, uint8: x rounded half to even, then clamped, plus 1."""
        return (x.double().round().clamp(-1, 1) + 1).to(torch.uint8)

    def pack(self, codes):
        """Return five codes a byte, uint8: c0 + 3 c1 + 9 c2 + 27 c3 + 81 c4."""
        flat = codes.flatten()
        padded = torch.cat([flat, flat.new_zeros(-len(flat) % 5)]).reshape(-1, 5)
        return (padded * torch.tensor([1, 3, 9, 27, 81])).sum(1).to(torch.uint8)


@dataclass(frozen=True)
class TableElement(Element):
    """Any numbers, in rising order: the code is the place in the table.

    Source of the ties: bitsandbytes, dQuantizeNF4. Taught in notebook 12.
    """

    table: tuple

    @property
    def bits(self):
        return (len(self.table) - 1).bit_length()

    @cached_property
    def values(self):
        """The number of each code, float64 [len(table)]."""
        return torch.tensor(self.table, dtype=torch.float64)

    def encode(self, x):
        """Return codes, uint8, of the nearest numbers; a tie goes to the lower one."""
        middles = (self.values[1:] + self.values[:-1]) / 2
        return torch.bucketize(x.double(), middles).to(torch.uint8)


def normal_float(bits=4):
    """Return the 2**bits numbers of NF4 in rising order, a tuple of floats.

    Quantiles of the normal distribution at equally spaced probabilities, 2**(bits-1)
    above 0 and one fewer below it, with 0 between them, divided by the largest. The
    outermost probability is 1 - (1/32 + 1/30) / 2 at 4 bits: half a bin is left out,
    the mean of those of 16 bins and of 15.
    Source: Dettmers et al. 2023 (arXiv 2305.14314), section 3 and appendix E;
    bitsandbytes, create_normal_map. Taught in notebook 12.
    """
    n = 2**bits
    outermost = 1 - (1 / (2 * n) + 1 / (2 * (n - 1))) / 2
    above, below = (
        torch.special.ndtri(torch.linspace(0.5, outermost, k + 1, dtype=torch.float64))
        for k in (n // 2, n // 2 - 1)
    )
    numbers = torch.cat([-below.flip(0), above[1:]])  # below ends in 0
    return tuple((numbers / numbers[-1] + 0.0).tolist())  # 0, not -0


E4M3 = FloatElement(4, 3, "nan")
E5M2 = FloatElement(5, 2, "ieee")
E3M2 = FloatElement(3, 2)
E2M3 = FloatElement(2, 3)
E2M1 = FloatElement(2, 1)
