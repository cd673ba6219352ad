"""The checks of the exercises: `check.my_quantize(my_quantize)` in a notebook."""

# ruff: noqa: F401, I001 - in the order of the notebooks

from mnistq.exercises.train import my_normalise, my_parameters, my_sure_and_wrong
from mnistq.exercises.quantization_math import my_quantize, my_dequantize, my_scales
from mnistq.exercises.calibration import (
    my_mean_range,
    my_moving_average,
    my_percentile_range,
)
from mnistq.exercises.quantized_forward import my_bias, my_layer, mixed
from mnistq.exercises.published_code import my_grid, my_suspect
from mnistq.exercises.integer_only import my_folded_bias, split_product, my_safe_terms
from mnistq.exercises.below_8_bits import my_ternary_scale, my_best_scale, my_act_order
from mnistq.exercises.quantization_aware_training import (
    my_straight_through,
    my_fold,
    my_sign_weights,
)
from mnistq.exercises.real_engines import (
    my_requantize,
    my_packed_bytes,
    my_first_difference,
)
from mnistq.exercises.in_c import my_multiply_in_c, my_unpack_in_c
from mnistq.exercises.your_own import my_add, my_culprit, my_pooled
from mnistq.exercises.todays_formats import (
    my_mxfp4,
    my_normal_float,
    my_paying_groups,
)
from mnistq.exercises.playground import my_disagreements, my_fewest_bits
