from mnistq.exercises import todays_formats

from .suite import Suite

FAR = "    far[:, 1::2] += 1e-12\n"
POWER = "int(torch.frexp(x.abs().max()).exponent) - 1 - 2"
LISTED = "return [g for g in groups if worth(g) > worth(None)]"
WRONG = {
    "my_normal_float": [
        ("numbers / numbers.max()", "numbers", "the largest 1"),
        ("torch.zeros(1), ", "", "one negative, 0 and two positive"),
        ("-torch.special", "torch.special", "one negative"),
        ("[1:].flip(0)", "[1:]", "equal in probability"),
        (
            "n // 2, dtype=torch.float64)\n    above",
            "n // 2 + 1, dtype=torch.float64)\n    above",
            "One fewer are negative",
        ),
        ("1 - (1 / (2 * n) + 1 / (2 * (n - 1))) / 2", "0.9677083", "computed from n"),
        ("1 - (1 / (2 * n) + 1 / (2 * (n - 1))) / 2", "1 - 1 / (2 * n)", "same p"),
        ("2 * (n - 1)", "2 * n", "same p"),
        ("n = 2**bits", "n = 16", "Four numbers"),
        (
            "numbers = torch.cat([below, torch.zeros(1), above])",
            "numbers = torch.linspace(-1, 1, n)",
            "wider steps",
        ),
        (
            "torch.special.ndtri(up)[1:]",
            "up[1:] - 0.5",
            "wider steps",
        ),
    ],
    "my_mxfp4": [
        (" - 1 - 2", " - 1", "power of 4 is 2"),
        (" - 1 - 2", " - 2", "power of 4 is 2"),
        ("power + 127, codes", "power, codes", "exponent plus 127"),
        ("return power + 127, codes", "return codes", "give a tuple"),
        (" + 8 * (x < 0)", "", "sign is the highest bit"),
        ("8 * (x < 0)", "7 * (x < 0)", "sign is the highest bit"),
        (POWER, "0", "scale follows the block"),
        (
            POWER,
            "int(np.ceil(np.log2(float(x.abs().max()) / 6)))",
            "scale does not grow",
        ),
        ("x.abs().max()", "x.max()", "negative one as well"),
        (FAR, "", "tie goes to the even code"),
        ("far[:, 1::2] += 1e-12", "far[:, ::2] += 1e-12", "tie goes to the even code"),
        (
            "codes = far.argmin(1)",
            "codes = (size[:, None] >= numbers).sum(1) - 1",
            "nea",
        ),
        ("x.abs().double() / 2.0**power", "x.abs().double()", "divided by it"),
        ("max(-127, min(127, power))", "power", "does not go below 0"),
        ("8 * (x < 0)", "8 * (x <= 0)", "0 has the code 0"),
        (
            "codes = far.argmin(1) + 8 * (x < 0)",
            "codes = torch.where(x < 0, 16 - far.argmin(1), far.argmin(1))",
            "sign is the highest bit",
        ),
        (
            POWER,
            "int(np.round(np.log2(float(x.abs().max())))) - 2",
            "rounded down",
        ),
    ],
    "my_paying_groups": [
        (LISTED, "return max(groups, key=worth)", "give a list"),
        (LISTED, "return [max(groups, key=worth)]", "do not pay"),
        (LISTED, "return groups", "do not pay"),
        (LISTED, "return []", "groups of 32 pay"),
        (
            LISTED,
            "return [g for g in groups if worth(g) > worth(None)][:1]",
            "not only the best",
        ),
        (
            LISTED,
            "return sorted(g for g in groups if worth(g) > worth(None))",
            "in the order given",
        ),
        (" - 6.02 * f.bits(w)", "", "a gain must exceed"),
        ("- 6.02 * f.bits(w)", "+ 6.02 * f.bits(w)", "a gain must exceed"),
        (LISTED, "return [g for g in groups if worth(g) < worth(None)]", "do not pay"),
        ("6.02 * f.bits(w)", "1.0 * f.bits(w)", "worth 6.02 dB"),
        ("groups(bits, group)", "groups(bits, 32)", "groups of 32 pay"),
        ("6.02 * f.bits(w)", "60.2 * f.bits(w)", "groups of 32 pay"),
        ("groups(bits, group)", "groups(4, group)", "bits that are given"),
        ("6.02 * f.bits(w)", "6.02 * 16 / (group or 1e9)", "less the row's"),
    ],
}

RIGHT = [
    (
        "my_normal_float",
        "return numbers / numbers.max()",
        "return mq.normal_float(bits)",
    ),
    (
        "my_normal_float",
        "return numbers / numbers.max()",
        "return (numbers / above[-1]).tolist()",
    ),
    (
        "my_normal_float",
        "torch.special.ndtri(up)[1:]",
        "torch.distributions.Normal(0.0, 1.0).icdf(up)[1:]",
    ),
    (
        "my_normal_float",
        "return numbers / numbers.max()",
        "return numbers / above.max()",
    ),
    (
        "my_normal_float",
        "-torch.special.ndtri(down)[1:].flip(0)",
        "(-torch.special.ndtri(down)[1:]).sort().values",
    ),
    ("my_mxfp4", POWER, "int(np.floor(np.log2(float(x.abs().max())))) - 2"),
    ("my_mxfp4", "8 * (x < 0)", "torch.where(x < 0, 8, 0)"),
    ("my_mxfp4", "return power + 127, codes", "return [power + 127, codes]"),
    (
        "my_mxfp4",
        "    return power + 127, codes",
        "    e = mq.FORMATS['MXFP4'].encode(x[None])\n"
        "    return int(e.scales[0]), e.codes[0].long()",
    ),
    ("my_mxfp4", "far.argmin(1)", "far.min(1).indices"),
    (
        "my_paying_groups",
        LISTED,
        "row = worth(None)\n    return [g for g in groups if worth(g) > row]",
    ),
    (
        "my_paying_groups",
        LISTED,
        "return list(filter(lambda g: worth(g) > worth(None), groups))",
    ),
    (
        "my_paying_groups",
        "mq.snr_db(w, f.round(w))",
        "mq.snr_db(w, f.decode(f.encode(w)))",
    ),
    (
        "my_paying_groups",
        "f.bits(w)",
        "8 * len(f.to_bytes(f.encode(w))) / w.numel()",
    ),
]


class TestTodaysFormats(Suite):
    module, wrong, right = todays_formats, WRONG, RIGHT
