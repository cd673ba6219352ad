"""Today's formats against ml_dtypes, torch's float8 and exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mnistq_helpers as mq

ml_dtypes = pytest.importorskip("ml_dtypes")

FLOATS = {  # name: our element, that of ml_dtypes, torch's
    "E4M3": (mq.E4M3, ml_dtypes.float8_e4m3fn, torch.float8_e4m3fn),
    "E5M2": (mq.E5M2, ml_dtypes.float8_e5m2, torch.float8_e5m2),
    "E3M2": (mq.E3M2, ml_dtypes.float6_e3m2fn, None),
    "E2M3": (mq.E2M3, ml_dtypes.float6_e2m3fn, None),
    "E2M1": (mq.E2M1, ml_dtypes.float4_e2m1fn, None),
}
each_float = pytest.mark.parametrize("name", FLOATS)
each_format = pytest.mark.parametrize("name", mq.FORMATS)


def random_floats(seed=0, count=1_000_000):
    """float32 of all sizes that matter, and many more near 1."""
    g = torch.Generator().manual_seed(seed)
    size = 2.0 ** torch.randint(-24, 20, (count,), generator=g)
    return torch.randn(count, generator=g) * size


def ties(element):
    """Return the middles between neighbours, and the float32 on both sides of each."""
    values = element.values[element.values.isfinite()].unique()
    above = 2 * element.largest - float(values[-2])  # what would come next
    values = torch.cat([values, torch.tensor([above, -above]).double()]).sort().values
    middles = ((values[1:] + values[:-1]) / 2).float()
    away = torch.tensor([math.inf, -math.inf])
    sides = [torch.nextafter(middles, limit.expand_as(middles)) for limit in away]
    return torch.cat([middles, *sides, values.float()])


@each_float
def test_every_code_means_what_it_means_elsewhere(name):
    element, theirs, torchs = FLOATS[name]
    codes = np.arange(2**element.bits, dtype=np.uint8)
    wanted = codes.view(theirs).astype(np.float64)
    np.testing.assert_array_equal(element.values.numpy(), wanted)
    signs = np.signbit(element.values.numpy())
    np.testing.assert_array_equal(signs, np.signbit(wanted))
    decoded = element.decode(torch.from_numpy(codes))
    np.testing.assert_array_equal(decoded.numpy(), wanted)
    if torchs is not None:
        other = torch.from_numpy(codes).view(torchs).double()
        assert torch.equal(decoded.nan_to_num(nan=1e9), other.nan_to_num(nan=1e9))


@each_float
def test_a_million_floats_get_the_codes_that_others_give_them(name):
    element, theirs, torchs = FLOATS[name]
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, 1e-45, -1e-45, 3e38])
    x = torch.cat([random_floats(), ties(element), special])
    codes = element.encode(x, saturate=False)
    wanted = torch.from_numpy(x.numpy().astype(theirs).view(np.uint8).copy())
    assert int((codes != wanted).sum()) == 0
    saturated = element.encode(x)
    if torchs is not None:  # torch's E4M3 saturates since some version, its E5M2 not
        other = x.to(torchs).view(torch.uint8)
        assert min(int((c != other).sum()) for c in (codes, saturated)) == 0
    inside = element.values[codes.long()].isfinite()
    assert torch.equal(saturated[inside], codes[inside])
    assert bool((element.decode(saturated).abs() <= element.largest).all())
    beyond = element.decode(saturated[~inside])
    assert torch.equal(beyond, element.largest * torch.sign(x[~inside]).double())


@each_float
def test_every_value_comes_back_and_nan_stays(name):
    element, *_ = FLOATS[name]
    finite = element.values.isfinite()
    codes = torch.arange(2**element.bits)[finite]
    assert torch.equal(element.encode(element.values[finite]).long(), codes)
    nan = torch.tensor([math.nan, 1.0])
    if element.special:
        assert bool(element.decode(element.encode(nan)).isnan()[0])
    else:
        with pytest.raises(ValueError, match="no code for NaN"):
            element.encode(nan)


def test_the_numbers_of_the_specifications_tables():
    """OFP8 1.0 and MX 1.0: largest, smallest normal, smallest subnormal; MXINT8."""
    table = {
        "E4M3": (448, 2**-6, 2**-9),
        "E5M2": (57344, 2**-14, 2**-16),
        "E3M2": (28, 0.25, 0.0625),
        "E2M3": (7.5, 1, 0.125),
        "E2M1": (6, 1, 0.5),
    }
    for name, (largest, normal, subnormal) in table.items():
        element = FLOATS[name][0]
        assert element.largest == largest and element.values[1] == subnormal
        assert element.values[2**element.mantissa_bits] == normal
    assert mq.E2M1.values[:8].tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    integer = mq.FORMATS["MXINT8"].element
    assert integer.largest == 1 + 63 / 64 and integer.values[1] == 1 / 64
    assert integer.values[128] == -2 and 128 not in integer.encode(-torch.ones(1) * 9)
    assert mq.E5M2.values[0x7C] == math.inf and mq.E5M2.values[0x7D:0x80].isnan().all()
    assert mq.E4M3.values.isnan().nonzero().flatten().tolist() == [0x7F, 0xFF]


PUBLISHED_NF4 = [  # QLoRA, appendix E
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
]
BITSANDBYTES = [  # its middles: dQuantizeNF4 in csrc/kernels.cu
    -0.8480964004993439,
    -0.6106329262256622,
    -0.4599952697753906,
    -0.33967943489551544,
    -0.23460740596055984,
    -0.13791173323988914,
    -0.045525018125772476,
    0.03979014977812767,
    0.1202552504837513,
    0.2035212516784668,
    0.2920137718319893,
    0.3893125355243683,
    0.5016634166240692,
    0.6427869200706482,
    0.8614784181118011,
]


def test_nf4_is_the_published_table():
    """Both were made in float32, so they agree with doubles to 2e-7."""
    ours = mq.normal_float()
    pairs = zip(ours, PUBLISHED_NF4, strict=True)
    assert max(abs(a - b) for a, b in pairs) < 2e-7
    assert ours[0] == -1 and ours[15] == 1 and math.copysign(1, ours[7]) == 1
    middles = torch.tensor(BITSANDBYTES).double()
    element = mq.TableElement(mq.normal_float())
    for shift, more in ((-1e-6, 0), (1e-6, 1)):
        codes = element.encode(middles + shift)
        assert codes.tolist() == [i + more for i in range(15)]
    assert [len(mq.normal_float(bits)) for bits in (2, 3)] == [4, 8]


def test_a_tie_in_a_table_goes_to_the_lower_code():
    element = mq.TableElement((-1.0, 0.0, 0.5, 1.0))
    ties = torch.tensor([-9.0, -0.5, 0.25, 0.75, 9.0])
    assert element.encode(ties).tolist() == [0, 0, 1, 2, 3]
    assert element.bits == 2 and element.largest == 1


# Everything once more in exact fractions, from the specifications.


def exact_values(name):
    """Return [(code, value)] that may be made, from the meaning of the fields."""
    fields = {"E4M3": (4, 3), "E5M2": (5, 2), "E3M2": (3, 2), "E2M3": (2, 3)}
    fields["E2M1"] = (2, 1)
    e_bits, m_bits = fields[name]
    bias, last = 2 ** (e_bits - 1) - 1, 2 ** (e_bits + m_bits)
    last -= {"E4M3": 1, "E5M2": 4}.get(name, 0)
    made = []
    for code in range(last):
        e, m = divmod(code, 2**m_bits)
        whole = Fraction(m, 2**m_bits) + (1 if e else 0)
        value = whole * Fraction(2) ** (max(e, 1) - bias)
        made.append((code, value))
        if value:  # 0 and -0 are one number
            made.append((code + 2 ** (e_bits + m_bits), -value))
    return made


def exact_nearest(x, made, even=lambda code: code % 2 == 0):
    """Return the code of the nearest value; of two as near, the one that is even."""
    least = min(abs(x - value) for _, value in made)
    near = [code for code, value in made if abs(x - value) == least]
    return near[0] if len(near) == 1 else next(code for code in near if even(code))


def element_name(element):
    return next((n for n, (e, *_) in FLOATS.items() if e is element), None)


def exact_element(form):
    """Return (made, even, largest) of a format's element."""
    element, name = form.element, element_name(form.element)
    if name:
        made = exact_values(name)
        return made, lambda c: c % 2 == 0, max(v for _, v in made)
    if form.name.startswith("NF4"):
        made = [(c, Fraction(v)) for c, v in enumerate(mq.normal_float())]
        return made, None, Fraction(1)
    if form.name == "ternary":
        made = [(0, Fraction(-1)), (1, Fraction(0)), (2, Fraction(1))]
        return made, lambda c: c == 1, Fraction(1)  # 0 is even, 1 and -1 are not
    if "affine" in form.name:
        made = [(k, Fraction(k)) for k in range(2**element.bits)]
        return made, lambda c: c % 2 == 0, 2**element.bits - 1
    top, unit = 2 ** (element.bits - 1) - 1, Fraction(element.unit)
    made = [(k % 2**element.bits, k * unit) for k in range(-top, top + 1)]
    return made, lambda c: c % 2 == 0, top * unit


def floor_log2(x):
    e = 0
    while Fraction(2) ** e > x:
        e -= 1
    while Fraction(2) ** (e + 1) <= x:
        e += 1
    return e


def as_float(x, kind):
    """Return the fraction as float16 or float32 holds it."""
    return Fraction(float(min(kind(float(x)), np.finfo(kind).max)))


def exact_scales(form, blocks, largest):
    """Return {(row, block): (scale, zero point)}, exactly what decoding would use."""
    most = {k: max(map(abs, block)) for k, block in blocks.items()}
    if form.name.startswith("MX"):
        power = floor_log2(largest)
        found = {k: floor_log2(m) - power if m else -127 for k, m in most.items()}
        return {k: (Fraction(2) ** min(max(e, -127), 127), 0) for k, e in found.items()}
    if "affine" in form.name:
        found = {}
        for k, block in blocks.items():
            low, high = min(0, *block), max(0, *block)
            scale = as_float((high - low) / largest, np.float16)
            zero = min(max(round(-low / scale), 0), largest) if scale else 0
            found[k] = scale, zero
        return found
    if form.name == "NVFP4":
        tensor = as_float(max(most.values()) / largest / 448, np.float32)
        made = [(c, v) for c, v in exact_values("E4M3") if v >= 0 and c < 128]
        values = dict(made)
        code = {
            k: exact_nearest(min(m / largest / tensor, Fraction(448)), made)
            for k, m in most.items()
        }
        return {k: (values[c] * tensor, 0) for k, c in code.items()}
    if form.name == "NF4 double":
        mean = as_float(sum(most.values()) / len(most), np.float32)
        made = exact_values("E4M3")
        second = max(abs(m - mean) for m in most.values())
        second = as_float(second / 448, np.float32)
        values = dict(made)
        return {
            k: (values[exact_nearest((m - mean) / second, made)] * second + mean, 0)
            for k, m in most.items()
        }
    if form.name == "ternary":
        mean = {k: sum(map(abs, b)) / len(b) for k, b in blocks.items()}
        return {k: (as_float(m, np.float32), 0) for k, m in mean.items()}
    kind = np.float16 if " g" in form.name else np.float32
    return {k: (as_float(m / largest, kind), 0) for k, m in most.items()}


def exact_codes(form, x):
    """Return [(code, value)] of a format for each value of x, row after row."""
    made, even, largest = exact_element(form)
    rows = [[Fraction(v) for v in row] for row in x.double().tolist()]
    group = form.group or len(rows[0])
    blocks = {
        (i, j): row[j * group : (j + 1) * group]
        for i, row in enumerate(rows)
        for j in range(-(-len(row) // group))
    }
    grids, values, found = exact_scales(form, blocks, largest), dict(made), []
    bottom, top = min(values.values()), max(values.values())
    for place, block in blocks.items():
        scale, zero = grids[place]
        for v in block:
            u = min(max(v / scale + zero, bottom), top) if scale else Fraction(zero)
            if form.name.startswith("NF4"):
                code = max(  # ties go down: the first whose upper middle is not below
                    c for c, _ in made if c == 0 or u > (values[c] + values[c - 1]) / 2
                )
            else:
                code = exact_nearest(u, made, even)
            found.append((code, scale * (values[code] - zero)))
    return found


def awkward(rows=3, n=70, seed=5):
    """Ties, zeros, tiny and large blocks, a short last one, rows of one sign each."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, n, generator=g)
    x[0, :32] = torch.arange(32) / 4 - 4  # ties of many grids
    x[0, 32:64] *= 2.0**-30
    x[1, 5], x[1, 40] = 37.0, -3e4
    x[1, 16:32] = 0
    above = torch.rand(2, n, generator=g) + 5
    return torch.cat([x, torch.zeros(1, n), above[:1], -above[1:]])


@each_format
def test_a_format_is_what_exact_fractions_make_of_it(name):
    form, x = mq.FORMATS[name], awkward()
    encoded = form.encode(x)
    wanted = exact_codes(form, x)
    codes, decoded = encoded.codes.flatten(), form.decode(encoded).flatten()
    values = form.element.values
    wrong = [
        (i, int(c), w)
        for i, (c, (w, _)) in enumerate(zip(codes, wanted, strict=True))
        if c != w and values[int(c)] != values[w]  # 0 and -0 are one value
    ]
    assert wrong == []
    for value, (_, exact) in zip(decoded.tolist(), wanted, strict=True):
        assert value == np.float32(float(exact))
    assert torch.equal(form.round(x), form.decode(encoded))


def test_a_block_of_mxfp4_by_hand():
    """The largest, 7.9, has the power 2**2, E2M1's 6 too: the scale is 1, and 7.9
    saturates; 2.5, 5 and 0.25 are ties."""
    x = torch.tensor([[7.9, 2.5, 5.0, 0.25, 0.26, -3.6, -0.2, 0.75]])
    encoded = mq.FORMATS["MXFP4"].encode(x)
    assert encoded.scales[0].tolist() == [[127]]
    assert encoded.codes.tolist() == [[7, 4, 6, 0, 1, 14, 8, 2]]
    back = mq.FORMATS["MXFP4"].decode(encoded)
    assert back.tolist() == [[6, 2, 4, 0, 0.5, -4, 0, 1]]
    twice = mq.FORMATS["MXFP4"].encode(2 * x)
    assert twice.scales[0].tolist() == [[128]]
    assert torch.equal(twice.codes, encoded.codes)


MX = {  # name: gfloat's
    "MXINT8": "mxint8",
    "MXFP8 E4M3": "mxfp8_e4m3",
    "MXFP8 E5M2": "mxfp8_e5m2",
    "MXFP6 E3M2": "mxfp6_e3m2",
    "MXFP6 E2M3": "mxfp6_e2m3",
    "MXFP4": "mxfp4_e2m1",
}


@pytest.mark.parametrize("name", MX)
def test_mx_blocks_are_those_of_gfloat(name):
    """Scales, codes and values of 262,144 numbers, half of them eighths: many ties.

    gfloat's own tests compare it with Microsoft's microxcaling. MXINT8's -2 is the one
    difference: see the next test.
    """
    gfloat = pytest.importorskip("gfloat")
    formats = pytest.importorskip("gfloat.formats")
    theirs = getattr(formats, f"format_info_{MX[name]}")
    g = torch.Generator().manual_seed(4)
    eighths = torch.randint(-64, 65, (2048, 64), generator=g) / 8
    eighths *= 2.0 ** torch.randint(-30, 30, (2048, 1), generator=g)
    x = torch.cat([random_floats(3, 2048 * 64).reshape(-1, 64), eighths])
    blocks, emax = x.double().reshape(-1, theirs.k).numpy(), theirs.etype.emax
    scales = np.stack([gfloat.compute_scale_amax(emax, block) for block in blocks])
    scales = scales[:, None]
    ties = gfloat.RoundMode.TiesToEven
    values = gfloat.round_ndarray(theirs.etype, blocks / scales, ties, sat=True)
    if name == "MXINT8":
        values = np.maximum(values, -127 / 64)
    codes = gfloat.encode_ndarray(theirs.etype, values)
    encoded = mq.FORMATS[name].encode(x)
    powers = encoded.scales[0].reshape(-1, 1).int() - 127
    assert np.array_equal(powers, np.log2(scales))
    assert np.array_equal(encoded.codes.reshape(codes.shape), codes)
    back = gfloat.decode_ndarray(theirs.etype, codes) * scales
    assert np.array_equal(mq.FORMATS[name].decode(encoded).reshape(back.shape), back)


def test_mxint8_of_microxcalings_tests():
    """From mx/tests/test_corners_mx.py, but for ties that it sends to an odd code."""
    for value, wanted in (
        (1.015625, 1.015625),
        (1.0234375, 1.03125),
        (1.9921875, 1.984375),
        (1.99609375, 1.984375),
        (-1.9921875, -1.984375),  # -2 has a code, which is not used
        (0.01171875, 0.015625),
        (-0.00390625, 0),
    ):
        x = torch.tensor([[1.0, value]])
        assert mq.FORMATS["MXINT8"].round(x).tolist() == [[1, wanted]]


def test_nvfp4_of_torchao():
    """What torchao 0.18.0's nvfp4_quantize made of this, with its scale of the tensor.

    It makes no scale below E4M3's smallest normal number, 1/64, and multiplies by
    reciprocals in float32. With that apart none of 1.8 million codes differed: fc1 of
    both networks and normally distributed values.
    """
    x = ((37 * torch.arange(64)) % 101 - 50.0) / 7
    x[16:32] *= 2.0**-9
    x[32:48] *= 0.3
    x[48] = 200
    codes = [
        [15, 11, 5, 14, 9, 6, 14, 2, 7, 12, 4, 15, 10, 5, 14, 0],
        [6, 13, 2, 7, 12, 4, 15, 10, 6, 14, 1, 6, 13, 3, 7, 11],
        [5, 15, 9, 6, 14, 2, 7, 13, 4, 15, 11, 5, 14, 8, 6, 14],
        [7, 0, 8, 0, 8, 8, 0, 8, 0, 0, 8, 0, 0, 8, 0, 8],
    ]
    encoded = mq.FORMATS["NVFP4"].encode(x.reshape(2, 32))
    assert encoded.scales[0].tolist() == [[88, 16], [73, 126]]
    assert encoded.scales[1].item() == 0.0744047611951828
    assert encoded.codes.reshape(4, 16).tolist() == codes


def test_scales_are_measured_with_what_is_stored():
    """NVFP4: with 7/2688 for the tensor 23 would be a tie, but float32's is above it.

    Double quantization: the mean, 1 + 2**-24, is stored as 1.
    """
    x = torch.zeros(2, 16)
    x[:, 0] = torch.tensor([7.0, 23 / 64])
    codes, tensor = mq.FORMATS["NVFP4"].encode(x).scales
    assert tensor.item() > 7 / 2688 and mq.E4M3.decode(codes).tolist() == [[448], [22]]
    form, x = mq.FORMATS["NF4 double"], torch.zeros(2, 64)
    x[:, 0] = torch.tensor([1.0, 1 + 2**-23])
    scale = form.grid(form.encode(x).scales, 64)[0][:, 0]
    assert (scale - x[:, 0]).abs().max() < 2**-30


def test_a_scale_is_rounded_once():
    """(high - low) / 15 lies a hair above the middle of two float16, and counts."""
    x = torch.tensor([[15 * (1 + 2**-11), -1e-9]])
    scale, _ = mq.int_groups(4, 32, affine=True).encode(x).scales
    assert scale.item() == 1 + 2**-10
    huge = mq.int_groups(4, 32).encode(torch.tensor([[3e38, 1.0]]))
    assert huge.scales[0].item() == 65504 and huge.codes[0, 0] == 7


def test_the_scale_of_mx_at_its_ends():
    form, one = mq.FORMATS["MXFP8 E4M3"], torch.tensor([[0x38]], dtype=torch.uint8)
    for code, value in ((0, 2.0**-127), (127, 1.0), (254, 2.0**127)):
        scale = torch.tensor([[code]], dtype=torch.uint8)
        assert form.decode(mq.Encoded(one, (scale,))).item() == value
    nan = torch.tensor([[255]], dtype=torch.uint8)
    assert form.decode(mq.Encoded(one, (nan,))).isnan().all()
    huge = mq.Encoded(one + 8, (nan - 1,))  # 2 * 2**127 is beyond float32
    assert form.decode(huge).item() == math.inf
    for x, code in ((0.0, 0), (1e-44, 0), (3e38, 127 + 127 - 8)):
        assert form.encode(torch.tensor([[x]])).scales[0].item() == code


BITS = {  # for each value of a matrix of 64 rows of 1,024
    "int8": 8 + 32 / 1024,
    "int4 g128": 4 + 16 / 128,
    "int4 g32": 4 + 16 / 32,
    "int4 g32 affine": 4 + (16 + 4) / 32,
    "NF4": 4 + 32 / 64,
    "NF4 double": 4 + 8 / 64 + 32 / 64 / 256 + 32 / 65536,
    "MXFP8 E5M2": 8 + 8 / 32,
    "MXFP6 E2M3": 6 + 8 / 32,
    "MXFP4": 4 + 8 / 32,
    "NVFP4": 4 + 8 / 16 + 32 / 65536,
    "ternary": 1.6 + 32 / 1024,
}


@pytest.mark.parametrize("name", BITS)
def test_the_bytes_are_those_that_are_stored(name):
    form = mq.FORMATS[name]
    x = torch.randn(64, 1024, generator=torch.Generator().manual_seed(1))
    assert form.bits(x) == pytest.approx(BITS[name], abs=8 / x.numel())


@each_format
def test_what_is_stored_suffices_to_decode(name):
    """Codes and scales are read from the bytes again, by other code."""
    form, x = mq.FORMATS[name], awkward()
    encoded = form.encode(x)
    data = form.to_bytes(encoded)
    count = encoded.codes.numel()
    if name == "ternary":
        size = -(-count // 5)
        digits = [byte // 3**i % 3 for byte in data[:size] for i in range(5)]
        codes = torch.tensor(digits[:count])
    else:
        size = -(-count * form.element.bits // 8)
        packed = torch.frombuffer(bytearray(data[:size]), dtype=torch.uint8)
        codes = mq.unpack_codes(packed, form.element.bits, count)
    scales = []
    for number, scale in enumerate(encoded.scales):
        if "affine" in name and number == 1:
            packed = torch.frombuffer(bytearray(data[size:]), dtype=torch.uint8)
            scales.append(mq.unpack_codes(packed, 4, scale.numel()))
            size = len(data)
            continue
        length = scale.numel() * scale.element_size()
        part = bytearray(data[size : size + length])
        scales.append(torch.frombuffer(part, dtype=scale.dtype))
        size += length
    assert size == len(data)
    shaped = [s.reshape(t.shape) for s, t in zip(scales, encoded.scales, strict=True)]
    again = mq.Encoded(codes.reshape(x.shape).to(torch.uint8), tuple(shaped))
    assert torch.equal(form.decode(again), form.decode(encoded))


@each_format
def test_a_tensor_of_any_shape_is_encoded_along_its_last_axis(name):
    form, x = mq.FORMATS[name], awkward()
    three = torch.stack([x, x])
    if name in ("NVFP4", "NF4 double"):  # something is shared by the whole tensor
        assert form.round(three).shape == three.shape
        return
    assert torch.equal(form.round(three), torch.stack([form.round(x)] * 2))


def test_int8_by_row_is_the_quantizer_of_notebook_04(net):
    for layer in mq.read_layers(net).values():
        w = layer.weight.detach()
        q = mq.quantize_weight(w, 8)
        encoded = mq.FORMATS["int8"].encode(w.flatten(1))
        codes = encoded.codes.view(torch.int8).reshape(w.shape)
        assert int((codes != q.tensor).sum()) <= 1  # it divides in float32
        torch.testing.assert_close(encoded.scales[0].flatten(), q.scale)


def test_what_cannot_be_encoded_is_refused():
    for bad, message in (
        (torch.tensor([[math.nan, 1]]), "NaN or infinity"),
        (torch.tensor([[math.inf, 1]]), "NaN or infinity"),
        (torch.zeros(2, 0), "empty"),
        (torch.tensor([[1, 2]]), "give floats"),
    ):
        for form in mq.FORMATS.values():
            with pytest.raises(ValueError, match=message):
                form.encode(bad)


def layer_problem(seed):
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(48, 48, generator=g) / 48**0.5
    x = (torch.randn(500, 48, generator=g) @ mixing + 0.3).relu()
    return torch.randn(6, 48, generator=g), x.T @ x


def slow_gptq(form, w, h, damping):
    """The paper's equation 2, with the inverse anew for each column."""
    grid = form.grid(form.encode(w).scales, 48)
    scale, zero = (t.expand(w.shape) for t in grid)
    h = h.double() + damping * h.double().diagonal().mean() * torch.eye(48)
    rest, w_hat = w.double().clone(), torch.zeros(w.shape).double()
    for i in range(48):
        inverse = torch.linalg.inv(h[i:, i:])
        code = form.element.encode(rest[:, i] / scale[:, i] + zero[:, i])
        w_hat[:, i] = scale[:, i] * (form.element.decode(code) - zero[:, i])
        error = (rest[:, i] - w_hat[:, i]) / inverse[0, 0]
        rest[:, i:] -= error.outer(inverse[0])
    return w_hat.float()


GPTQ = ["int4", "int4 g32", "int4 g32 affine", "NF4", "MXFP4", "NVFP4", "ternary"]


@pytest.mark.parametrize("name", GPTQ)
def test_gptq_rounds_to_a_format_and_errs_less(name):
    form = mq.FORMATS[name]
    for seed in range(5):
        w, h = layer_problem(seed)
        found = mq.gptq_round(form, w, h)
        torch.testing.assert_close(found, slow_gptq(form, w, h, 0.01))
        with_scales = form.encode(found, form.encode(w).scales)
        torch.testing.assert_close(form.decode(with_scales), found)
        errors = [(w_hat - w) @ h * (w_hat - w) for w_hat in (found, form.round(w))]
        assert errors[0].sum() < 0.8 * errors[1].sum()
    other = mq.gptq_round(form, w, h, damping=0.5)
    torch.testing.assert_close(other, slow_gptq(form, w, h, 0.5))
    unrelated = torch.diag(torch.arange(1.0, 49))
    torch.testing.assert_close(mq.gptq_round(form, w, unrelated), form.round(w))
    with pytest.raises(ValueError, match="h has shape"):
        mq.gptq_round(form, w, h[:5])


@pytest.mark.parametrize("name", GPTQ)
def test_gptq_keeps_zeros_whose_scale_is_zero(name):
    """The error of others reaches them all the same, but they have no number for it."""
    form = mq.FORMATS[name]
    w, h = layer_problem(0)
    w[:, 32:] = 0
    w[0] = 0
    found = mq.gptq_round(form, w, h)
    scale, _ = (t.expand(w.shape) for t in form.grid(form.encode(w).scales, 48))
    assert bool(found.isfinite().all()) and not found[0].any()
    assert not found[scale == 0].any()


def test_a_rounded_network_is_the_network_with_rounded_tensors(net):
    x, form = mq.mnist(train=False)[0][:20], mq.FORMATS["MXFP4"]
    layers = mq.read_layers(net)
    own = {name: layer.weight for name, layer in layers.items()}
    before = net(x)
    assert torch.equal(mq.rounded_net(net, own)(x), before)
    weights = {name: form.round(w.flatten(1)) for name, w in own.items()}
    conv1, conv2, fc1, fc2 = (
        w.reshape(layers[name].weight.shape) for name, w in weights.items()
    )

    def by_hand(rounded):
        y = F.conv2d(x, conv1, net.conv1.bias).relu()  # the first is not rounded
        y = rounded(F.max_pool2d(y, 2).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = F.max_pool2d(F.conv2d(y, conv2, net.conv2.bias).relu(), 2).flatten(1)
        y = F.linear(rounded(y), fc1, net.fc1.bias).relu()
        return F.linear(rounded(y), fc2, net.fc2.bias).log_softmax(1)

    for acts, rounded in ((None, lambda y: y), (form, form.round)):
        found = mq.rounded_net(net, weights, acts)(x)
        torch.testing.assert_close(found, by_hand(rounded))
    assert torch.equal(net(x), before)


def test_a_network_with_a_batch_norm_is_rounded():
    norm = nn.BatchNorm2d(3)
    body = nn.Conv2d(1, 3, 5, stride=4), norm, nn.ReLU(), nn.Flatten()
    net = nn.Sequential(*body, nn.Linear(108, 10))
    x = mq.mnist(train=False)[0][:50]
    net(x), net.eval()
    weights = {name: layer.weight for name, layer in mq.read_layers(net).items()}
    torch.testing.assert_close(mq.rounded_net(net, weights)(x), net(x))
    rough = mq.rounded_net(net, weights, mq.FORMATS["MXFP4"])
    assert not torch.equal(rough(x), net(x)) and isinstance(net[1], nn.BatchNorm2d)
