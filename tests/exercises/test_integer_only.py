from mnistq.exercises import integer_only

from .suite import Suite

WRONG = {
    "my_folded_bias": [
        ("bias - ", "bias + ", "a minus"),
        ("x_zero * sums", "sums", "x_zero times"),
        (".sum(1, ", ".sum(0, ", "over its row"),
        (".sum(1, ", ".sum(", "over its row"),
        ("dtype=torch.int32", "dtype=torch.int8", "sum in a wider type"),
        ("dtype=torch.int32", "dtype=torch.int16", "into int16"),
        (
            "w.flatten(1).sum(1, dtype=torch.int32)\n    return bias - x_zero * sums",
            "(x_zero * w).flatten(1).sum(1)\n    return bias - sums",
            "before you multiply",
        ),
        (".flatten(1)", "", "four axes"),
        ("w.flatten(1)", "w.int().abs().flatten(1)", "keep their signs"),
        ("w.flatten(1)", "w.to(torch.uint8).flatten(1)", "keep their signs"),
        ("bias - x_zero * sums", "-x_zero * sums", "begins with the bias"),
        ("x_zero * sums", "x_zero * w[0].numel()", "multiplied by each weight"),
        ("x_zero * sums", "x_zero * sums * w[0].numel()", "however many there are"),
        ("x_zero * sums", "x_zero * sums // w[0].numel()", "however many there are"),
        (
            "bias - x_zero * sums",
            "bias + (w.flatten(1).int() - x_zero).sum(1)",
            "multiplied by each weight",
        ),
        ("x_zero * sums", "(x_zero - 128) * sums", "x_zero as it is given"),
        ("bias - x_zero * sums", "(bias - x_zero * sums).float()", "give int32"),
    ],
    "split_product": [
        (
            "2 * saturating_product(a, half) + saturating_product(a, rest)",
            "a.int() @ b.int()",
            "no other product",
        ),
        (
            "2 * saturating_product(a, half) + saturating_product(a, rest)",
            "mq.int_matmul(a, b)",
            "no other product",
        ),
        (
            "2 * saturating_product(a, half) + saturating_product(a, rest)",
            "torch.einsum('nk,km->nm', a.int(), b.int())",
            "no other product",
        ),
        (
            "2 * saturating_product(a, half) + saturating_product(a, rest)",
            "saturating_product(a, b)",
            "that must be smaller",
        ),
        (
            "2 * saturating_product(a, half) + saturating_product(a, rest)",
            "2 * saturating_product(a >> 1, b) + saturating_product(a & 1, b)",
            "second factor",
        ),
        ("b >> 1", "(b / 2).to(torch.int8)", "rounded down"),
        ("2 * saturating_product", "saturating_product", "counts twice"),
        (" + saturating_product(a, rest)", "", "product of its own"),
        ("b >> 1, b & 1", "b >> 2, b & 3", "counts twice"),
        (
            "2 * saturating_product(a, half) + saturating_product(a, rest)",
            "(2 * saturating_product(a, half) + saturating_product(a, rest)).short()",
            "the result is int32",
        ),
        (
            "2 * saturating_product(a, half) + saturating_product(a, rest)",
            "(a.int()[:, :, None] * b.int()).sum(1)",
            "no other product",
        ),
        (
            "2 * saturating_product(a, half) + saturating_product(a, rest)",
            "torch.from_numpy(a.numpy().astype(np.int32) @ b.numpy())",
            "no other product",
        ),
        (
            "2 * saturating_product(a, half) + saturating_product(a, rest)",
            "sum(a[:, k, None].int() * b[k] for k in range(len(b)))",
            "no other product",
        ),
    ],
    "my_safe_terms": [
        ("2 ** (acc_bits - 1) - 1", "2**acc_bits - 1", "ends at 31"),
        ("2 ** (acc_bits - 1) - 1", "2 ** (acc_bits - 1)", "one too many"),
        ("2 ** (weight_bits - 1) - 1", "2 ** (weight_bits - 1)", "Symmetric weights"),
        ("2 ** (weight_bits - 1) - 1", "2**weight_bits - 1", "One product"),
        ("2**act_bits - 1", "2**act_bits", "Unsigned activations"),
        ("largest // product", "largest // product + 1", "two do not"),
        ("largest // product", "largest / product", "give a whole number"),
        ("largest // product", "float(largest // product)", "give an int"),
        ("largest // product", "str(largest // product)", "of Python's type int"),
        ("largest // product", "[largest // product]", "of Python's type int"),
        ("largest // product", "largest >= product", "of Python's type int"),
        ("largest // product", "divmod(largest, product)", "of Python's type int"),
        (
            "largest // product",
            "torch.tensor([[largest // product]])",
            "of Python's type int",
        ),
        ("largest // product", "np.float32(largest // product)", "give an int"),
        ("largest // product", "max(1, largest // product)", "Not even one"),
        ("largest // product", "round(largest / product)", "rounded down"),
    ],
}

RIGHT = [
    ("split_product", "b >> 1, b & 1", "b.int() >> 1, b.int() & 1"),
    (
        "split_product",
        "2 * saturating_product(a, half)",
        "(s := saturating_product(a, half)) + s",
    ),
    ("split_product", "b >> 1, b & 1", "(b.float() / 2).floor().char(), b & 1"),
    (
        "split_product",
        "2 * saturating_product(a, half)",
        "saturating_product(a, half) * 2",
    ),
    ("my_folded_bias", "bias - x_zero * sums", "bias.sub(sums, alpha=x_zero)"),
    ("my_folded_bias", "w.flatten(1)", "w.reshape(len(w), -1)"),
    ("my_folded_bias", "bias - x_zero * sums", "bias + sums * -x_zero"),
    ("my_folded_bias", "bias - x_zero * sums", "(bias.double() - x_zero * sums).int()"),
    ("my_safe_terms", "largest // product", "math.floor(largest / product)"),
    ("my_safe_terms", "2**act_bits - 1", "(1 << act_bits) - 1"),
    ("my_safe_terms", "largest // product", "np.int64(largest // product)"),
    ("my_safe_terms", "largest // product", "torch.tensor(largest // product)"),
]


class TestIntegerOnly(Suite):
    module, wrong, right = integer_only, WRONG, RIGHT
