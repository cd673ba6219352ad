"""The integer network as C for a computer or a microcontroller."""

import math
import re
from itertools import count
from pathlib import Path
from string import ascii_lowercase

import torch

from mnistq.c_steps import C_STEPS, DEPENDS, NOTES, pieces, table
from mnistq.data import MEAN, STD
from mnistq.files import write_whole
from mnistq.plan import check_requantize, file_plan
from mnistq.quantizers import quantize_tensor

FUNCTIONS = Path(__file__).parent / "c"
BYTES = {"int8_t": 1, "uint8_t": 1, "code_t": 2, "int32_t": 4}  # code_t: at most
PACKED_TYPE = "typedef uint8_t weight_t; /* packed */\n"

HEADER = """\
/* A network of integers, written by mnistq. C99; needs nothing but <stdint.h>.

{steps}

   mnistq_run reads the codes of one image, [height][width][channels], and writes the
   codes of its {outputs} scores; the largest is the answer. A code q stands for
   scale * (q - zero point). */

#ifndef MNISTQ_NET_H
#define MNISTQ_NET_H

#include <stdint.h>

#define MNISTQ_INPUTS {inputs}
#define MNISTQ_OUTPUTS {outputs}
#define MNISTQ_INPUT_SCALE {in_scale}
#define MNISTQ_INPUT_ZERO_POINT {in_zero_point}
#define MNISTQ_OUTPUT_SCALE {out_scale}
#define MNISTQ_OUTPUT_ZERO_POINT {out_zero_point}
#define MNISTQ_FLASH_BYTES {flash} /* of constants; the program's own come on top */
#define MNISTQ_RAM_BYTES {ram} /* of working memory, without the stack */

extern const uint8_t MNISTQ_PIXEL_TO_CODE[256]; /* from a camera's byte to a code */

void mnistq_run(const uint8_t *input_codes, uint8_t *output_codes);

#endif
"""


def export_c(qnet, folder, packed=True):
    """Write qnet to folder as mnistq_net.h and mnistq_net.c: the same codes, in C.

    packed: weights of weight_bits bits each, unpacked for each output, for little
    memory; else each in a byte or two, laid out for a compiler's vector instructions.
    C99 without a library, a heap, floats or recursion; all constants are const.
    Raises ValueError unless requantize is "fixed": C has only integers here.
    Source: gemmlowp's two roundings, as in notebook 06.
    """
    check_requantize(qnet, "fixed", "C")
    plan = [piece for entry in file_plan(qnet) for piece in pieces(*entry)]
    functions, tables, calls, notes, flash, memory = [], [], [], [], 256, {}
    buffers = _buffers(plan)
    for number, (step, inputs, (output, out_shape)) in enumerate(plan):
        name = _identifier(inputs[0][0], number)
        shapes = [shape for _, shape in inputs]
        function, text, size, needs = C_STEPS[type(step)](step, name, shapes, packed)
        y = buffers[output]
        if y != "output_codes":
            needs[f"uint8_t {y}"] = math.prod(out_shape)
        for buffer, numbers in needs.items():
            memory[buffer] = max(memory.get(buffer, 0), numbers)
        functions += [*DEPENDS.get((function, packed), ()), function]
        tables.append(text)
        x = ", ".join(buffers[tensor] for tensor, _ in inputs)
        calls.append(f"    {function}(&{name}, {x}, {y});")
        notes.append(_note(name, step, shapes[0], out_shape))
        flash += size
    ram = sum(BYTES[buffer.split()[0]] * numbers for buffer, numbers in memory.items())
    source = [
        '#include "mnistq_net.h"\n',
        PACKED_TYPE if packed else _text("types"),
        _text("common"),
        *(f"static {buffer}[{numbers}];" for buffer, numbers in memory.items()),
        "",
        *map(_text, dict.fromkeys(functions)),
        table("const uint8_t MNISTQ_PIXEL_TO_CODE[256]", pixel_codes(qnet)),
        *tables,
        "void mnistq_run(const uint8_t *input_codes, uint8_t *output_codes)\n{",
        *calls,
        "}\n",
    ]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "mnistq_net.h", _header(qnet, notes, flash, ram).encode())
    write_whole(folder / "mnistq_net.c", "\n".join(source).encode())


def _buffers(plan):
    """Return {tensor: the memory that it lies in}, free again after its last use."""
    last = {x: n for n, (_, inputs, _) in enumerate(plan) for x, _ in inputs}
    places = {plan[0][1][0][0]: "input_codes"}
    for number, (_, _, (output, _)) in enumerate(plan):
        taken = {p for x, p in places.items() if last.get(x, number) >= number}
        free = (name for name in _letters() if name not in taken)
        places.setdefault(output, next(free))
    places[plan[-1][2][0]] = "output_codes"
    return places


def _letters():
    """Yield a to z, a1 to z1 and so on."""
    yield from ascii_lowercase
    for number in count(1):
        yield from (f"{letter}{number}" for letter in ascii_lowercase)


def _header(qnet, notes, flash, ram):
    scale, zero_point = qnet.grids[qnet.steps[-1].output]
    return HEADER.format(
        steps="\n".join(notes),
        inputs=math.prod(qnet.in_shape),
        outputs=math.prod(qnet.shapes[qnet.steps[-1].output]),
        in_scale=qnet.in_scale,
        in_zero_point=qnet.in_zero_point,
        out_scale=scale,
        out_zero_point=zero_point,
        flash=flash,
        ram=ram,
    )


def _identifier(name, number):
    """Return a tensor's name as C takes it, with a number that makes it unique."""
    clean = re.sub(r"\W", "_", name, flags=re.A)
    return f"{'layer_' if clean[0].isdigit() else ''}{clean}_{number + 1}"


def _note(name, step, in_shape, out_shape):
    sizes = [" x ".join(map(str, shape)) for shape in (in_shape, out_shape)]
    about = NOTES.get(type(step))
    about = about or f"weights of {step.weight_bits} bits"
    return f"   {name}: {sizes[0]} -> {sizes[1]}, {about}"


def _text(name):
    return (FUNCTIONS / f"{name}.c").read_text("utf-8")


def pixel_codes(qnet):
    """Return [code of a pixel of 0, ..., of 255], as MNIST is normalised."""
    images = (torch.arange(256, dtype=torch.uint8) / 255 - MEAN) / STD
    grid = (qnet.in_bits, qnet.in_scale, qnet.in_zero_point)
    return quantize_tensor(images, *grid).tensor.tolist()
