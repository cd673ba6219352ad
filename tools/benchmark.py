"""Print how fast each engine is, as ratios to PyTorch float32 measured in the same run.

usage: python tools/benchmark.py [--threads 1] [--runs 5] [--rounds 20]
                                 [--batches 1 32 200]
PyTorch stands in the table with both of its memory layouts, and the faster of them in
that run is what the ratios are to. In each round every engine runs once untimed
and once timed, all in turn, so that whatever else the machine does falls on all of
them alike. With one thread it is the processor's time that counts, where its clock is
fine enough: a call that another program interrupts would look slower. A run's ratio is
that of the medians of its rounds; the table shows the lowest, the middle and the
highest of all runs. The numbers belong to the processor that is printed first. The
last row is no engine: as many products as the network has, in the nearest cache.
ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 before the command keeps PyTorch and
this project, its C too, to AVX2, as on a processor without VNNI; the runtimes not.
"""

import argparse
import copy
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from ai_edge_litert.interpreter import Interpreter
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import mnistq_helpers as mq
from tools.float_onnx import float_onnx

PAUSE = 0.01  # seconds; the threads of the engine before go on spinning for a while


def processor():
    """Return the processor's name and what PyTorch and the kernel say that it has."""
    name, flags = platform.processor() or platform.machine(), set()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        pairs = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
        pairs = {key.strip(): value.strip() for key, value in pairs.items()}
        name = pairs.get("model name", name)
        flags = set(pairs.get("flags", "").split())
    vnni = sorted(flags & {"avx512_vnni", "avx_vnni"})
    limit = torch.backends.cpu.get_cpu_capability()
    products = mq.int_mm_is_exact() and mq.int_mm_is_quick()
    carried = "int8 with torch._int_mm" if products else "floats that carry codes"
    return (
        f"{name}; {' and '.join(vnni) or 'no VNNI listed'}; PyTorch uses {limit}, "
        f"this project {carried}"
    )


def count_products(qnet):
    """Return how many products of a code and a weight one image takes."""
    count = 0
    for layer in qnet.layers.values():
        shape = qnet.shapes[layer.inputs[0]]
        places = layer.convolved(shape)[1:] if layer.weight.dim() == 4 else ()
        count += layer.weight.numel() * math.prod(places)
    return count


def make_engines(net, ranges, images, folder, threads):
    """Return {name: function without arguments that reads all images once}.

    The first two are PyTorch with its two memory layouts, images laid out beforehand.
    """
    twin = copy.deepcopy(net).to(memory_format=torch.channels_last)
    net = copy.deepcopy(net).to(memory_format=torch.contiguous_format)
    last = images.to(memory_format=torch.channels_last)
    fixed = mq.quantize_net(net, ranges)
    rounded = mq.quantize_net(net, ranges, requantize="float")
    mq.export_onnx(rounded, folder / "int8.onnx")
    mq.export_tflite(fixed, folder / "int8.tflite")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    ort_float = ort.InferenceSession(float_onnx(net), options)
    ort_int8 = ort.InferenceSession(folder / "int8.onnx", options)
    litert = Interpreter(model_path=str(folder / "int8.tflite"), num_threads=threads)
    litert.resize_tensor_input(0, [len(images), 28, 28, 1])
    litert.allocate_tensors()
    codes = fixed.codes(images)["conv1"]
    pixels, uint8 = images.numpy(), codes.numpy()
    int8 = (codes ^ 128).view(torch.int8).permute(0, 2, 3, 1).contiguous().numpy()
    output = litert.get_output_details()[-1]["index"]

    def run_litert():
        litert.set_tensor(0, int8)
        litert.invoke()
        return litert.get_tensor(output)

    mq.export_c(fixed, folder / "c", packed=False)
    kept = os.environ.get("ATEN_CPU_CAPABILITY") == "avx2"
    flags = ["-mno-avx512f", "-mno-avxvnni"] if kept else []
    in_c, rows = mq.ThisProcessor(folder / "c", flags), [bytes(x) for x in uint8]
    made = np.frombuffer(b"".join(map(in_c.run, rows)), np.uint8)
    assert np.array_equal(made, fixed.codes(images)["output"].numpy().ravel())
    alone = mq.load_c([mq.ROOT / "mnistq" / "c" / "products.c"], flags).products
    numbers, rounds = bytes(16_384), count_products(fixed) * len(images) // 4096
    expected = rounded.codes(images)["output"]
    assert np.array_equal(ort_int8.run(["output"], {"conv1": uint8})[0], expected)
    return {
        "PyTorch contiguous": lambda: net(images),
        "PyTorch channels_last": lambda: twin(last),
        "ONNX Runtime float32": lambda: ort_float.run(None, {"images": pixels}),
        "this project, fixed": lambda: fixed(images),
        "this project, float": lambda: rounded(images),
        "ONNX Runtime int8": lambda: ort_int8.run(["output"], {"conv1": uint8}),
        "LiteRT int8": run_litert,
        "this project, C": lambda: [in_c.run(row) for row in rows],
        "as many products alone": lambda: alone(numbers, numbers, rounds),
    }


def clock():
    """Return the processor's time of this process, or of the day: see above."""
    fine = time.get_clock_info("process_time").resolution < 1e-5
    if fine and torch.get_num_threads() == 1:
        return time.process_time
    return time.perf_counter


def measure(engines, rounds):
    """Return {name: median seconds} of that many rounds, the engines taking turns."""
    times, now = {name: [] for name in engines}, clock()
    with torch.inference_mode():
        for _ in range(rounds):
            for name, run in engines.items():
                time.sleep(PAUSE)
                run()
                start = now()
                run()
                times[name].append(now() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def ratios(engines, runs, rounds):
    """Return {name: (lowest, middle, highest)} of runs: times as fast as PyTorch.

    In each run that is the faster of PyTorch's two layouts.
    """
    found = {name: [] for name in engines}
    for _ in tqdm(range(runs), leave=False):
        seconds = measure(engines, rounds)
        base = min(s for name, s in seconds.items() if name.startswith("PyTorch"))
        for name, s in seconds.items():
            found[name].append(base / s)
    return {n: (min(r), statistics.median(r), max(r)) for n, r in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 200])
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    net = mq.load_net()
    ranges = mq.calibrate(net, mq.mnist(train=True)[0][:1000])
    images, _ = mq.mnist(train=False)
    print(processor())
    print(f"{chosen.threads} threads, {chosen.runs} runs of {chosen.rounds} rounds")
    print("times as fast as PyTorch's faster layout: lowest, middle, highest run")
    for batch in chosen.batches:
        with tempfile.TemporaryDirectory() as folder:
            engines = make_engines(
                net, ranges, images[:batch], Path(folder), chosen.threads
            )
            table = ratios(engines, chosen.runs, chosen.rounds)
        print(f"\nbatch {batch}")
        for name, (low, middle, high) in table.items():
            print(f"  {name:24}{low:7.2f}{middle:7.2f}{high:7.2f}")


if __name__ == "__main__":
    main()
