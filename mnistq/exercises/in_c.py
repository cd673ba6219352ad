"""Notebook 10: answers in C, compiled, and run beside Python's integers."""

import inspect
import math
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from mnistq.chips import compile_c
from mnistq.exercises.judge import difference, explain, judge

# What C leaves undefined stops the program; so does memory that it does not own, where
# the compiler can tell. x << n of a negative x is what everybody expects.
CHECKED = ["-O1", "-g", "-Wno-error", "-fno-sanitize-recover=all"]
CHECKED += ["-fsanitize=undefined", "-fno-sanitize=shift-base"]
CHECKED += ["-Werror=return-type", "-Werror=uninitialized"]  # any number may come out
MULTIPLY = """\
#include <stdint.h>
#include <stdio.h>
{answer}
int main(void)
{{
    int32_t x[3];
    while (fread(x, 4, 3, stdin) == 3) {{
        int32_t y = multiply(x[0], x[1], x[2]);
        fwrite(&y, 4, 1, stdout);
    }}
    return 0;
}}
"""
UNPACK = """\
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
{answer}
int main(void)
{{
    int32_t x[3]; /* bits, count, bytes */
    while (fread(x, 4, 3, stdin) == 3) {{
        uint8_t *packed = malloc((size_t)x[2]);
        int8_t *weights = calloc((size_t)x[1] + 4, 1);
        if (fread(packed, 1, (size_t)x[2], stdin) != (size_t)x[2])
            return 1;
        unpack(packed, x[0], x[1], weights);
        fwrite(weights, 1, (size_t)x[1] + 4, stdout);
        free(packed);
        free(weights);
    }}
    return 0;
}}
"""


WORST = re.compile("(?:error: )(.*)|(undefined .*)")  # the compiler's; the linker's
REASONS = {  # of what stopped a program, by a word of what was said of it
    "signed integer overflow": "A number leaves its type: compute it in int64_t.",
    "shift exponent": "It shifts by more bits than the type has, or by fewer than 0.",
    "heap-buffer-overflow": "It reads or writes beyond the bytes that it was given.",
    "SEGV": "It reads or writes where there is no memory: which index is wrong?",
    "does not end": "It does not come to an end.",
}


class Stopped(Exception):
    """What stopped a program; reason: what to mend."""

    def __init__(self, said):
        super().__init__(said)
        found = [reason for word, reason in REASONS.items() if word in said]
        self.reason = found[0] if found else "It stops before its end."


class Program:
    """A reader's C in a small program; called with bytes, it returns its output."""

    def __init__(self, frame, answer, folder):
        source = Path(folder) / "answer.c"
        source.write_text(frame.format(answer=answer), "utf-8")
        address = "-fsanitize=address"  # zig has no library for it
        try:
            self.path = compile_c([source], Path(folder) / "a", [*CHECKED, address])
        except ValueError:
            self.path = compile_c([source], Path(folder) / "a", CHECKED)

    def __call__(self, given):
        try:
            done = subprocess.run(
                [self.path], input=given, capture_output=True, timeout=5, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Stopped("after 5 s: it does not end") from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace")
            found = re.search(r"runtime error: (.+)|AddressSanitizer: (\S+)", said)
            raise Stopped((found[1] or found[2]) if found else "it crashed")
        return done.stdout


def judge_c(answer, frame, run, reference, cases, batch, praise):
    """Judge a text of C: run(program, examples) is compared with the reference.

    run returns a list of results, one for each tuple of arguments. cases: as in judge;
    batch: many more examples, the smallest first.
    """
    name = inspect.stack()[1].function
    if not isinstance(answer, str):
        print(f"{name}: not yet. Give the text of the function in C, as a string.")
        return
    if "..." in answer:
        print(f"{name}: not attempted yet (there is a ... in it)")
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            program = Program(frame, answer, folder)
        except ValueError as error:
            worst = WORST.search(str(error))
            said = (worst[1] or worst[2]) if worst else str(error)
            wanted = "a function that compiles"
            explain(name, "the compiler", wanted, said, "It does not compile.")
            return

        def answered(*arguments):
            return run(program, [arguments])[0]

        answered.__name__ = name
        reason = "None of the examples before; what is special about this one?"
        try:
            few = [arguments for arguments, _ in cases]
            wrong = [*differing(program, run, reference, few)]
            wrong = wrong or [*differing(program, run, reference, batch)]
            last = wrong[:1] or batch[:1]
        except Stopped:  # the examples one by one say where
            last = batch[:100]
        cases = [*cases, *((example, reason) for example in last)]
        judge(answered, reference, cases, praise)


def differing(program, run, reference, examples):
    """Yield the examples that the program gets wrong."""
    for example, made in zip(examples, run(program, examples), strict=True):
        if difference(made, reference(*example)) is not None:
            yield example


def my_multiply_in_c(answer):
    """Exercise 10.1: the quantized multiplier, for any shift."""

    def reference(acc, m0, shift):
        x = max(min(acc << max(-shift, 0), 2**31 - 1), -(2**31))
        high, down = (2 * x * m0 + 2**31) // 2**32, max(shift, 0)  # a half goes up
        size = (2 * abs(high) + 2**down) // 2 ** (down + 1)
        return size if high > 0 else -size

    def run(program, examples):
        given = np.array(examples, np.int32).astype("<i4").tobytes()
        return np.frombuffer(program(given), "<i4").tolist()

    half, most = 2**30, 2**31 - 1
    cases = [
        ((8, half, 0), "Divided by 2 to the 31st, m0 = 2**30 is a half: 8 becomes 4."),
        ((5, half, 0), "In the first division a half goes up: 2.5 becomes 3."),
        ((-5, half, 0), "In the first division a half goes up below 0 too: -2."),
        (
            (-1, 3 * 2**29, 0),
            "-0.75 is nearest to -1. / cuts off towards 0; >> rounds down.",
        ),
        ((16, half, 2), "Then it is divided by 2**shift: 8 becomes 2."),
        ((6, half, 1), "In the second division a half goes away from 0: 1.5 is 2."),
        ((-6, half, 1), "In the second division a half goes away from 0: -1.5 is -2."),
        ((-2, half, 2), "-0.25 is nearest to 0: away from 0 goes a half alone."),
        ((1, half, 1), "It is rounded twice: 0.5 becomes 1, and 0.5 becomes 1 again."),
        ((3, half, -1), "A shift below 0 multiplies by 2**-shift, before all else."),
        ((-3, half, -1), "A shift below 0 multiplies by 2**-shift, before all else."),
        ((most, most, 0), "acc * m0 takes up to 62 bits: widen a factor beforehand."),
        ((most, most, 31), "shift goes up to 31: what is 1 << 31 of an int?"),
        ((1, half, -30), "shift goes down to -30."),
        ((half, most, -1), "2 * acc leaves int32: it stays at the end, 2**31 - 1."),
        ((-half - 1, most, -1), "2 * acc leaves int32 below: it stays at -2**31."),
        ((-5, half, -30), "acc * 2**30 takes more than 32 bits, before it is cut."),
    ]
    rng, count = np.random.default_rng(1), 200_000
    wide = rng.integers(-(2**31), 2**31, count)
    acc = wide >> rng.integers(0, 31, count)
    ends = [-(2**31), -(2**31) + 1, -1, 0, 1, most - 1, most]
    acc[::10] = rng.choice(ends, count // 10)
    m0 = rng.integers(2**30, 2**31, count)
    m0[::4] = rng.choice([half, 3 * 2**29, most], count // 4)  # ties, and an end
    examples = np.stack([acc, m0, rng.integers(-30, 32, count)], 1)
    order = np.argsort(np.abs(acc), kind="stable")
    batch = list(map(tuple, examples[order].tolist()))
    praise = (
        f"So say {count + len(cases):,} products, ties and both ends of int32 among "
        "them. The chip does this once for each code that a layer makes."
    )
    judge_c(answer, MULTIPLY, run, reference, cases, batch, praise)


def my_unpack_in_c(answer):
    """Exercise 10.2: weights out of bytes that hold them without gaps."""

    def reference(packed, bits, count):
        digits = "".join(f"{byte:08b}"[::-1] for byte in packed.tolist())
        found = []
        for i in range(0, count * bits, bits):
            code = int(digits[i : i + bits][::-1], 2)
            found.append((-1, 1)[code] if bits == 1 else code - 2 ** (bits - 1))
        return torch.tensor(found, dtype=torch.int8)

    def run(program, examples):
        given, results = b"", []
        for packed, bits, count in examples:
            given += np.array([bits, count, len(packed)], "<i4").tobytes()
            given += packed.numpy().tobytes()
        made = torch.from_numpy(np.frombuffer(program(given), np.int8).copy())
        for part in made.split([count + 4 for *_, count in examples]):
            if bool(part[-4:].any()):
                raise Stopped("heap-buffer-overflow")
            results.append(part[:-4])
        return results

    def case(packed, bits, count):
        return torch.tensor(packed, dtype=torch.uint8), bits, count

    def example(bits, count):
        rng = np.random.default_rng(bits)
        used = math.ceil(bits * count / 8)
        return case(rng.integers(0, 256, used).tolist(), bits, count)

    cases = [
        (case([153], 8, 1), "A code is itself minus 2**(bits - 1): 153 - 128."),
        (
            case([0x99], 4, 2),
            "Two codes, 4 bits each and no more, minus 2**(bits - 1): 9 - 8, 9 - 8.",
        ),
        (case([0x11], 4, 2), "A code's first bit is its lowest: 1 - 8, twice."),
        (
            case([0x2F], 4, 2),
            "The first code is the lowest 4 bits and no others: 15 - 8, then 2 - 8.",
        ),
        (case([0x21, 0x43], 4, 4), "After a byte's last code comes the next byte."),
        (case([0b10], 1, 2), "At 1 bit, 0 stands for -1 and 1 for +1."),
        (case([1, 1], 1, 9), "A byte holds eight codes of 1 bit."),
        (case([70, 1], 3, 3), "A code may begin in one byte and end in the next."),
        (case([255, 255, 255], 6, 4), "The largest code is 2**bits - 1, all bits 1."),
        (case([0, 128, 7, 1], 5, 6), "Its upper bits are the next byte's lowest."),
    ]
    for count in (8, 9, 300):  # up to 8 bits and a count that uint8 does not hold
        cases += [(example(b, count), f"Look at {b} bits.") for b in range(1, 9)]
    batch = [example(bits, 50_000) for bits in range(1, 9)]
    praise = (
        f"So say {sum(b[-1] for b in batch):,} weights at 1 to 8 bits, to the last "
        "byte and not beyond. It is the price of every bit that flash does not need."
    )
    judge_c(answer, UNPACK, run, reference, cases, batch, praise)
