from mnistq.exercises import below_8_bits

from .suite import Suite

WRONG = {
    "my_unpack": [
        (" & mask", "", "mask away the others"),
        ("2**bits - 1", "2**bits", "mask away the others"),
        ("bits * i", "8 * len(packed) - bits * (i + 1)", "in the lowest bits"),
        ('"little"', '"big"', "first byte holds the first codes"),
        ("range(count)", "range(8 * len(packed) // bits)", "only count codes"),
        (
            "number >> (bits * i)",
            "int(packed[i // (8 // bits)]) >> i % (8 // bits) * bits",
            "end in the next",
        ),
        ("packed.tolist()", "packed.flip(0).tolist()", "first byte"),
        (
            "number >> (bits * i)",
            "int(packed[bits * i // 8]) >> (bits * i % 8)",
            "end in the next",
        ),
    ],
    "my_best_scale": [
        ("/ (q * q).sum(1)", "/ (w * w).sum(1)", "stands below"),
        ("(w * q).sum(1) / (q * q)", "(q * q).sum(1) / (w * q)", "stands below"),
        ("(w * q).sum(1) / (q * q).sum(1)", "(w / q).mean(1)", "code of 0"),
        (
            "(w * q).sum(1) / (q * q).sum(1)",
            "torch.where(q == 0, torch.nan, w / q).nanmean(1)",
            "no mean of w / q",
        ),
        ("(w * q).sum(1) / (q * q).sum(1)", "w.sum(1) / q.sum(1)", "code of 0"),
        ("(w * q).sum(1) / (q * q).sum(1)", "(w * q).sum() / (q * q).sum()", "vector"),
        (
            "(w * q).sum(1) / (q * q).sum(1)",
            "((w * q).sum() / (q * q).sum()).expand(len(w))",
            "its own weights",
        ),
        ("(w * q).sum(1)", "(w * q).abs().sum(1)", "keep the signs"),
        ("q.float()", "q", "wraps: widen"),
    ],
    "my_act_order": [
        ("descending=True", "descending=False", "is rounded first"),
        ("h[order][:, order]", "h", "rows and the columns of h"),
        ("h[order][:, order]", "h[order]", "rows and the columns of h"),
        ("h[order][:, order]", "h[:, order]", "rows and the columns of h"),
        ("q.tensor[:, order.argsort()]", "q.tensor", "columns' places"),
        ("order.argsort()", "order", "inverse of the order"),
        ("q.tensor[:", "mq.dequantize_tensor(q)[:", "Give codes"),
        ("h.diagonal()", "h.sum(1)", "The diagonal decides"),
        (
            "h.diagonal().argsort(descending=True)",
            "h.diagonal().argsort(descending=True).argsort()",
            "not the ranks",
        ),
        ("h.diagonal()", "h.norm(dim=1)", "not how large its rows are"),
    ],
}

RIGHT = [
    (
        "my_unpack",
        "number >> (bits * i) & mask",
        "np.int64(number >> (bits * i) & mask)",
    ),
    ("my_best_scale", "q.float()", "q.to(torch.float32)"),
    ("my_act_order", "order.argsort()]", "torch.argsort(order)]"),
]


class TestBelow8Bits(Suite):
    module, wrong, right = below_8_bits, WRONG, RIGHT
