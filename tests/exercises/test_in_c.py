import pytest

from mnistq import exercises as check
from mnistq.exercises import in_c

from .suite import Suite

CLAMP = "        x = x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : x;\n"
ROUND = " + ((int64_t)1 << (shift - 1)) - (x < 0)"
WRONG = {
    "my_multiply_in_c": [
        (" - (x < 0)", "", "away from 0: -1.5 is -2"),
        (">> 31", "/ 2147483648", "-0.75 is nearest to -1"),
        ("int64_t x =", "int32_t x =", "compute it in int64_t"),
        ("shift < 0", "shift < -40", "A shift below 0 multiplies"),
        ("x *= (int64_t)1 << -shift;", "x *= 2;", "shift goes down to -30"),
        (" + (1 << 30)", "", "2.5 becomes 3"),
        (CLAMP, "", "it stays at the end, 2**31 - 1"),
        ("x < INT32_MIN ? INT32_MIN : x", "x", "leaves int32 below"),
        (CLAMP, "        x = (int32_t)x;\n", "it stays at the end"),
        (ROUND, "", "a half goes away from 0: 1.5 is 2"),
        (ROUND, " + ((1 << shift) - 1)", "-1.5 is -2"),
        ("(x + ((int64_t)1 << (shift - 1)) - (x < 0)) >> shift", "x >> 1", "8 becomes"),
        ("(x < 0)) >> shift", "(x < 0)) / (1 << shift)", "-1.5 is -2"),
        ("m0 + (1 << 30)", "m0 + (1ll << 31)", "8 becomes 4"),
        ("(1 << 30)) >> 31", "(1 << 30)) >> 30", "8 becomes 4"),
        ("if (shift > 0)", "while (shift > 0)", "come to an end"),
        ("return x;", "return x", "does not compile"),
        ("    return x;\n", "", "does not compile"),
        ("int64_t x = acc;", "int64_t x;", "does not compile"),
        (
            "x = (x * m0 + (1 << 30)) >> 31;",
            "x = (int64_t)((double)x * m0 / 2147483648 + 0.5);",
            "-0.75 is nearest to -1",
        ),
    ],
    "my_unpack_in_c": [
        ("        if (from + bits > 8)\n", "", "beyond the bytes"),
        ("i < count", "i <= count", "beyond the bytes"),
        ("<< 8", "<< 7", "end in the next"),
        ("from + bits > 8", "from + bits > 9", "end in the next"),
        ("2 * code - 1", "code - 1", "-1 and 1 for +1"),
        ("code - (1 << (bits - 1))", "code", "153 - 128"),
        ("code - (1 << (bits - 1))", "code - (1 << bits)", "153 - 128"),
        ("two >> from", "two >> (8 - bits - from)", "the lowest 4 bits"),
        (" & ((1 << bits) - 1)", "", "4 bits each and no more"),
        ("i * bits / 8", "i * bits / 8 % 2", "next byte's lowest"),
        ("i = 0", "i = 1", "153 - 128"),
        ("int32_t i =", "int8_t i =", "It reads or writes"),
        ("int32_t i =", "uint8_t i =", "come to an end"),
        ("code - (1 << (bits - 1))", "code + (1 << (bits - 1))", "9 - 8"),
        ("two = packed[at]", "two", "does not compile"),
        (
            "int32_t code = two >> from & ((1 << bits) - 1);",
            "int32_t code = 0;\n"
            "        for (int32_t b = 0; b < bits; b++)\n"
            "            code = 2 * code + (two >> (from + b) & 1);",
            "first bit is its lowest",
        ),
        ("int32_t i =", "int16_t i =", "It reads or writes"),
        ("i++", "i += 2", "4 bits each and no more"),
        ("1 << bits", "1 << (bits - 1)", "153 - 128"),
        ("bits == 1 ? 2 * code - 1 : code", "code", "At 1 bit"),
        ("packed[at + 1]", "packed[at]", "end in the next"),
    ],
}
RIGHT = [
    ("my_multiply_in_c", "(int64_t)1 << -shift", "1 << -shift"),
    ("my_multiply_in_c", "x *= (int64_t)1 << -shift", "x <<= -shift"),
    ("my_multiply_in_c", "(x < 0)", "(acc < 0)"),
    ("my_multiply_in_c", "((int64_t)1 << (shift - 1))", "(1 << (shift - 1))"),
    (
        "my_multiply_in_c",
        "(x * m0 + (1 << 30)) >> 31",
        "(2 * x * m0 + (1u << 31)) >> 32",
    ),
    ("my_unpack_in_c", "int32_t i = 0", "unsigned i = 0"),
    ("my_unpack_in_c", "two |= packed[at + 1] << 8", "two += packed[at + 1] * 256"),
    ("my_unpack_in_c", "(1 << bits) - 1", "~(~0u << bits)"),
    ("my_unpack_in_c", "int32_t code = two >> from &", "uint8_t code = two >> from &"),
]


class TestExercises(Suite):
    module = in_c
    wrong, right = WRONG, RIGHT


@pytest.mark.parametrize("answer", [None, 3, b"int x;", print])
def test_what_is_no_text_is_asked_for_as_one(answer, capsys):
    check.my_multiply_in_c(answer)
    assert "as a string" in capsys.readouterr().out
