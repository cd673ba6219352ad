"""Print how fast each engine is, as ratios to PyTorch float32 measured in the same run.

usage: python tools/benchmark.py [--threads 2] [--rounds 30] [--batches 1 32 200]
In each round every engine runs once untimed and once timed, all in turn, so that
whatever else the machine does falls on all of them alike. A ratio is taken within a
round; the table shows the median of all rounds, and the quartiles as its spread.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import mnistq_helpers as mq
from mnistq.layers import Flatten

PAUSE = 0.01  # seconds; the threads of the engine before go on spinning for a while


def float_onnx(net):
    """Return the content of an ONNX file of the float network, logits out."""
    x, nodes = "images", []

    def add(kind, inputs, **attributes):
        output = f"{kind} {len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    for part in mq.read_parts(net):
        if isinstance(part, Flatten):
            x = add("Flatten", [x])
            continue
        inputs = [x, f"{part.name}.weight", f"{part.name}.bias"]
        convolves = part.module.weight.dim() == 4
        x = add("Conv", inputs) if convolves else add("Gemm", inputs, transB=1)
        if part.relu:
            x = add("Relu", [x])
        if part.pool is not None:
            kernel, strides = part.pool
            x = add("MaxPool", [x], kernel_shape=kernel, strides=strides)
    constants = [
        numpy_helper.from_array(v.numpy(), n) for n, v in net.state_dict().items()
    ]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 1, 28, 28])
    logits = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "float", [image], [logits], constants)
    opset = helper.make_opsetid("", 13)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return model.SerializeToString()


def make_engines(net, ranges, images, folder, threads):
    """Return {name: function without arguments that reads all images once}."""
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

    expected = rounded.codes(images)["output"]
    assert np.array_equal(ort_int8.run(["output"], {"conv1": uint8})[0], expected)
    return {
        "PyTorch float32, eager": lambda: net(images),
        "this project, fixed": lambda: fixed(images),
        "this project, float": lambda: rounded(images),
        "ONNX Runtime float32": lambda: ort_float.run(None, {"images": pixels}),
        "ONNX Runtime int8": lambda: ort_int8.run(["output"], {"conv1": uint8}),
        "LiteRT int8": run_litert,
    }


def measure(engines, rounds):
    """Return {name: [seconds]}, one for each round, the engines taking turns."""
    times = {name: [] for name in engines}
    with torch.inference_mode():
        for _ in tqdm(range(rounds), leave=False):
            for name, run in engines.items():
                time.sleep(PAUSE)
                run()
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    return times


def report(batch, times):
    """Print the table of one batch size."""
    base = next(iter(times))
    print(
        f"\nbatch {batch}: {base} takes {1e3 * statistics.median(times[base]):.2f} ms"
    )
    print(f"{'times as fast as ' + base:<42}  median  quartiles")
    for name, seconds in times.items():
        ratios = [b / s for b, s in zip(times[base], seconds, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"  {name:<40}{middle:7.2f}   {low:.2f} to {high:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 200])
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    net = mq.load_net()
    ranges = mq.calibrate(net, mq.mnist(train=True)[0][:1000])
    images, _ = mq.mnist(train=False)
    used = mq.int_mm_is_exact() and mq.int_mm_is_quick()
    carried = "torch._int_mm" if used else "floats, which carry the codes"
    print(f"{chosen.threads} threads, {chosen.rounds} rounds; products: {carried}")
    for batch in chosen.batches:
        with tempfile.TemporaryDirectory() as folder:
            engines = make_engines(
                net, ranges, images[:batch], Path(folder), chosen.threads
            )
            report(batch, measure(engines, chosen.rounds))


if __name__ == "__main__":
    main()
