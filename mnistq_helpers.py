"""What the notebooks share, by the lesson that teaches it: a table of contents.

`import mnistq_helpers as mq`, and mq.NAME is found in the room that its line names, a
file of the folder mnistq/. A room imports only rooms that stand above it here.
"""

# ruff: noqa: F401, I001 - in the order of the lessons

# 01 Train
from mnistq.data import IMAGE_SHAPE, MEAN, ROOT, STD, mnist
from mnistq.drawing import area_average, prepare_digit, stroke_width, thickened
from mnistq.network import (
    COMMITTED,
    MINE,
    RESNET,
    SHA256,
    SHIFTED,
    Net,
    checked_labels,
    evaluate,
    load_net,
    train,
)

# 02 Quantization math
from mnistq.quantizers import (
    QTensor,
    along_axis,
    bits_by_name,
    calc_scale_zero_point,
    check_grid,
    check_images,
    check_tensor,
    code_range,
    dequantize_tensor,
    own_grid,
    quantize_tensor,
    snr_db,
)

# 11 Your own: digits out of photographs
from mnistq.digits import digit_stages, read_digits
from mnistq.photographs import photograph

# 03 Calibration
from mnistq.parts import Layer
from mnistq.batch_norm import fold_batch_norms
from mnistq.reader import Reader
from mnistq.layers import (
    activations,
    read_layers,
    read_parts,
    run_parts,
    tensor_names,
    without_batch_norms,
)
from mnistq.calibration import (
    RANGE_METHODS,
    calibrate,
    choose_ranges,
    clipping_error,
    histogram,
    range_ema,
    range_entropy,
    range_mean,
    range_minmax,
    range_mse,
    range_percentile,
)

# 06 Integers only
from mnistq.arithmetic import (
    high_multiply,
    int_matmul,
    int_mm_is_exact,
    int_mm_is_quick,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
    rounding_shift,
)

# 09 Real engines: packed codes, whole files
from mnistq.files import pack_codes, unpack_codes, write_whole

# 06 Integers only: what a layer does; 09: its file; 04 The network on codes
from mnistq.steps import QuantizedLayer, max_pool
from mnistq.branches import (
    QuantizedAdd,
    QuantizedAverage,
    QuantizedConcat,
    quantized_add,
    quantized_average,
)
from mnistq.mnistq_file import network_bytes, network_parts
from mnistq.weights import quantize_weight
from mnistq.integer import QuantizedNet, quantize_net

# 05 The published code
from mnistq.published import (
    article_forward,
    article_grid,
    article_layer,
    article_quantize,
    article_ranges,
)

# 07 Below 8 bits
from mnistq.low_bits import (
    best_scale,
    fit_layer,
    gptq,
    gptq_codes,
    inverse_factor,
    layer_rows,
    mse_weight_scale,
    quantize_best,
    refit_scale,
)

# 08 Quantization-aware training
from mnistq.training import (
    LOW_BITS,
    FakeQuantize,
    LearnedStep,
    MovingRange,
    QatNet,
    StraightThrough,
    fine_tune,
    random_crops,
)

# 09 Real engines
from mnistq.plan import check_requantize
from mnistq.onnx_file import export_onnx
from mnistq.tflite_file import export_tflite
from mnistq.draft import Draft
from mnistq.onnx_qdq import Pairs
from mnistq.onnx_rounding import check_add, check_concat, check_mean, check_windows
from mnistq.onnx_reader import read_onnx
from mnistq.tflite_tensors import File
from mnistq.tflite_reader import read_tflite

# 10 The same in C; in a web page
from mnistq.c_steps import C_STEPS
from mnistq.c_file import export_c
from mnistq.js_file import export_js
from mnistq.chips import Microcontroller, ThisProcessor, compile_c, load_c

# 12 Today's formats
from mnistq.elements import (
    E2M1,
    E2M3,
    E3M2,
    E4M3,
    E5M2,
    FloatElement,
    IntElement,
    TableElement,
    TernaryElement,
    normal_float,
)
from mnistq.formats import (
    FORMATS,
    Encoded,
    Format,
    gptq_round,
    int_groups,
    rounded_net,
)

# From 01 on; 02
from mnistq.figures import ACCENT, SECOND, STYLE, label_lines
from mnistq.widgets import Panel, bits_slider

# 11 Your own
from mnistq.operators import ENGINES, run_operator
from mnistq.errors import with_weights_of
from mnistq.doctor import Diagnosis, diagnose

# 13 The playground
from mnistq.playground import FIELD, Drawing, Playground, draw_layers, network_input
