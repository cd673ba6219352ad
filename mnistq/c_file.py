"""The integer network as C for a computer or a microcontroller."""

import math
import re
from pathlib import Path

import torch

from mnistq.data import MEAN, STD
from mnistq.files import pack_codes, write_whole
from mnistq.plan import check_requantize, file_plan
from mnistq.quantizers import quantize_tensor
from mnistq.steps import QuantizedLayer, QuantizedMaxPool

FUNCTIONS = Path(__file__).parent / "c"
VECTOR = 64  # products that a compiler takes together: one register of AVX-512

HEADER = """\
/* A network of integers, written by mnistq. C99; needs nothing but <stdint.h>.

{steps}

   mnistq_run reads the codes of one image, [channels][height][width], and writes the
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
    plan = list(file_plan(qnet))
    tables, calls, notes, flash, buffers = [], [], [], 256, {}
    x = "input_codes"
    for number, (step, ((name, in_shape), *_), (_, out_shape)) in enumerate(plan):
        _check_plain(step)
        y = "ab"[number % 2] if number < len(plan) - 1 else "output_codes"
        if y != "output_codes":
            buffers[y] = max(buffers.get(y, 0), math.prod(out_shape))
        name = _identifier(name, number)
        function, text, size = C_STEPS[type(step)](step, name, in_shape, packed)
        tables.append(text)
        calls.append(f"    {function}(&{name}, {x}, {y});")
        notes.append(_note(name, step, in_shape, out_shape))
        flash, x = flash + size, y
    types, memory, ram = _memory(list(qnet.layers.values()), buffers, packed)
    pools = any(isinstance(step, QuantizedMaxPool) for step, *_ in plan)
    parts = ["common", "packed" if packed else "unpacked", *["max_pool"] * pools]
    functions = [(FUNCTIONS / f"{p}.c").read_text("utf-8") for p in parts]
    source = [
        '#include "mnistq_net.h"\n',
        types,
        functions[0],
        memory,
        *functions[1:],
        _table("const uint8_t MNISTQ_PIXEL_TO_CODE[256]", _pixel_codes(qnet)),
        *tables,
        "void mnistq_run(const uint8_t *input_codes, uint8_t *output_codes)\n{",
        *calls,
        "}\n",
    ]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "mnistq_net.h", _header(qnet, notes, flash, ram).encode())
    write_whole(folder / "mnistq_net.c", "\n".join(source).encode())


def _check_plain(step):
    """Raise ValueError for what C does not compute here."""
    plain = {"stride": (1, 1), "padding": (0, 0), "groups": 1}
    known = {key: getattr(step, key, plain[key]) for key in plain} == plain
    if type(step) not in C_STEPS or not known:
        kind = type(step).__name__
        raise ValueError(
            f"{step.output}, made by a {kind} like this, is not in C here."
        )


def c_layer(layer, name, shape, packed):
    """Return (its function, its tables as text, their bytes) of a QuantizedLayer."""
    weight = layer.weight
    if weight.dim() == 2:
        weight = weight.reshape(-1, *shape)  # as large as the whole input
    out, *kernel = weight.shape
    if packed:
        bits = layer.weight_bits
        codes = (weight + 1) // 2 if bits == 1 else weight.short() + 2 ** (bits - 1)
        values, kind, each = [*pack_codes(codes, bits).tolist(), 0], "uint8_t", 1
    else:
        rows = weight.flatten(1)
        rows = torch.nn.functional.pad(rows, (0, -rows.shape[1] % VECTOR))
        values, kind, each = rows.flatten().tolist(), "weight_t", 2
    tables = {
        "weights": (kind, values),
        "bias": ("int32_t", _folded_bias(layer)),
        "m0": ("int32_t", layer.m0.tolist()),
        "shift": ("int8_t", layer.shift.tolist()),
    }
    text = [
        _table(f"static const {kind} {name}_{part}[{len(numbers)}]", numbers)
        for part, (kind, numbers) in tables.items()
    ]
    size = (shape[1] - kernel[1] + 1, shape[2] - kernel[2] + 1)
    pool = layer.pool or ((1, 1), (1, 1))
    text.append(_layer(name, shape, out, kernel[1:], size, pool, layer, tables))
    bytes_of_tables = len(values) * each + out * (4 + 4 + 1)
    return "run", "\n".join(text), bytes_of_tables


def c_max_pool(step, name, shape, packed):
    """Return (its function, its table as text, no bytes) of max pooling."""
    size = shape[1:]
    return "max_pool", _layer(name, shape, shape[0], (1, 1), size, step.pool), 0


C_STEPS = {QuantizedLayer: c_layer, QuantizedMaxPool: c_max_pool}


def _header(qnet, notes, flash, ram):
    *_, last = qnet.layers.values()
    return HEADER.format(
        steps="\n".join(notes),
        inputs=math.prod(qnet.in_shape),
        outputs=math.prod(qnet.shapes[qnet.steps[-1].output]),
        in_scale=qnet.in_scale,
        in_zero_point=qnet.in_zero_point,
        out_scale=last.out_scale,
        out_zero_point=last.out_zero_point,
        flash=flash,
        ram=ram,
    )


def _identifier(name, number):
    """Return a tensor's name as C takes it, with a number that makes it unique."""
    clean = re.sub(r"\W", "_", name, flags=re.A)
    return f"{'layer_' if clean[0].isdigit() else ''}{clean}_{number + 1}"


def _note(name, step, in_shape, out_shape):
    sizes = [" x ".join(map(str, shape)) for shape in (in_shape, out_shape)]
    bits = getattr(step, "weight_bits", None)
    about = f"weights of {bits} bits" if bits else "max pooling"
    return f"   {name}: {sizes[0]} -> {sizes[1]}, {about}"


def _layer(name, shape, out, kernel, size, pool, layer=None, tables=()):
    (rows, columns), (down, right) = pool
    height, width = (size[0] - rows) // down + 1, (size[1] - columns) // right + 1
    numbers = [*shape, out, *kernel, height, width, *pool[0], *pool[1]]
    if layer:
        numbers += [layer.out_zero_point, layer.low, layer.high, layer.weight_bits]
    else:
        numbers += [0] * 4
    fields = [*map(str, numbers), *(f"{name}_{part}" for part in tables)]
    fields += [] if tables else ["0"] * 4
    return f"static const layer_t {name} = {{\n    {', '.join(fields)}\n}};\n"


def _memory(layers, buffers, packed):
    """Return (the types, the working memory, both as text, its bytes)."""
    largest = max(layer.weight[0].numel() for layer in layers)
    memory = {f"uint8_t {name}[{n}]": n for name, n in buffers.items()}
    if packed:
        types = "typedef uint8_t weight_t; /* packed */\n"
        memory[f"int8_t kernel[{largest}]"] = largest
    else:
        types = (FUNCTIONS / "types.c").read_text("utf-8")
        window, outputs = largest + -largest % VECTOR, max(len(x.bias) for x in layers)
        memory |= {f"code_t window[{window}]": 2 * window}
        memory |= {f"int32_t best[{outputs}]": 4 * outputs}
    text = "".join(f"static {name};\n" for name in memory)
    return types, text, sum(memory.values())


def _folded_bias(layer):
    """Return bias - in_zero_point * sum(weight), for codes from 0 to 255."""
    sums = layer.weight.flatten(1).sum(1, dtype=torch.int64)
    return (layer.bias.long() - layer.in_zero_point * sums).tolist()


def _pixel_codes(qnet):
    images = (torch.arange(256, dtype=torch.uint8) / 255 - MEAN) / STD
    grid = (qnet.in_bits, qnet.in_scale, qnet.in_zero_point)
    return quantize_tensor(images, *grid).tensor.tolist()


def _table(name, numbers):
    rows = [numbers[i : i + 16] for i in range(0, len(numbers), 16)]
    lines = ["    " + ", ".join(map(_number, row)) for row in rows]
    return f"{name} = {{\n" + ",\n".join(lines) + "\n};\n"


def _number(value):
    return "-2147483647 - 1" if value == -(2**31) else str(value)
