from mnistq.exercises import below_8_bits

from .suite import Suite

WRONG = {
    "my_ternary_scale": [
        ("w.abs()", "w", "Take magnitudes"),
        (" / (best + 1)", "", "not the sum"),
        ("/ (best + 1)", "/ best", "argmax counts from 0"),
        ("total**2 / k", "total / k", "try every k"),
        ("total**2 / k", "total", "rounded to 0"),
        ("total**2 / k", "total**2", "rounded to 0"),
        ("total**2 / k", "total**2 / k**2", "try every k"),
        (".sort(dim=1, descending=True).values", "", "k largest, wherever"),
        ("descending=True", "descending=False", "rounded to 0"),
        (
            "return total[torch.arange(len(w)), best] / (best + 1)",
            "return total[torch.arange(len(w)), best].sum() / (best + 1).sum()",
            "one scale for each row",
        ),
        (
            "return total[torch.arange(len(w)), best] / (best + 1)",
            "return total[torch.arange(len(w)), best[0]] / (best[0] + 1)",
            "that row's own matter",
        ),
        (
            "return total[torch.arange(len(w)), best] / (best + 1)",
            "return mq.best_scale(w, w.abs().amax(1), -1, 1)",
            "exact mean",
        ),
        (
            "return total[torch.arange(len(w)), best] / (best + 1)",
            "m = w.abs(); c = m > 0.7 * m.mean(1, keepdim=True); "
            "return (m * c).sum(1) / c.sum(1)",
            "No fixed threshold",
        ),
        (
            "return total[torch.arange(len(w)), best] / (best + 1)",
            "return w.abs().amax(1)",
            "largest weight alone",
        ),
        (
            "return total[torch.arange(len(w)), best] / (best + 1)",
            "return w.abs().mean(1)",
            "has no say",
        ),
        (
            "return total[torch.arange(len(w)), best] / (best + 1)",
            "m, s = w.abs(), w.abs().amax(1)\n"
            "    for _ in range(50):\n"
            "        c = m >= s[:, None] / 2\n"
            "        s = (m * c).sum(1) / c.sum(1)\n"
            "    return s",
            "stop too early",
        ),
    ],
    "my_best_scale": [
        (
            "return (w * q).sum(1) / (q * q).sum(1)",
            "return ((w * q).sum(1) / (q * q).sum(1)).abs()",
            "take no magnitude",
        ),
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
        ("q.tensor[:", "mq.dequantize_tensor(q)[:", "not weights"),
        ("order.argsort()]", "order.argsort()].float()", "give int8"),
        ("bits)\n", "bits, damping=0.0)\n", "damping as it is"),
        ("bits)\n", "bits, damping=0.001)\n", "damping as it is"),
        ("bits)\n", "bits, damping=0.1)\n", "damping as it is"),
        ("h.diagonal()", "h.abs().sum(1)", "The diagonal decides"),
        ("h.diagonal()", "h.abs().amax(1)", "not how large its rows are"),
        ("h.diagonal()", "h.sum(1)", "The diagonal decides"),
        (
            "h.diagonal().argsort(descending=True)",
            "h.diagonal().argsort(descending=True).argsort()",
            "not the ranks",
        ),
        ("h.diagonal()", "h.norm(dim=1)", "not how large its rows are"),
    ],
}

TOTAL = "w.abs().sort(dim=1, descending=True).values.cumsum(1)"
DIVIDED = "(w * q).sum(1) / (q * q).sum(1)"
LAST = "return total[torch.arange(len(w)), best] / (best + 1)"

RIGHT = [
    ("my_ternary_scale", "w.abs()", "torch.abs(w)"),
    ("my_ternary_scale", TOTAL, "w.abs().topk(w.shape[1]).values.cumsum(1)"),
    ("my_ternary_scale", "total**2 / k", "total / k**0.5"),
    ("my_ternary_scale", LAST, "return (total / k).gather(1, best[:, None])[:, 0]"),
    (
        "my_ternary_scale",
        LAST,
        "return torch.stack([(t / k)[b] for t, b in zip(total, best)])",
    ),
    ("my_best_scale", "q.float()", "q.to(torch.float32)"),
    ("my_best_scale", DIVIDED, "torch.stack([a @ b / (b @ b) for a, b in zip(w, q)])"),
    ("my_best_scale", DIVIDED, "torch.linalg.vecdot(w, q) / q.square().sum(1)"),
    (
        "my_best_scale",
        DIVIDED,
        "torch.linalg.lstsq(q[..., None], w[..., None]).solution.flatten()",
    ),
    ("my_best_scale", "q.float()", "q.to(torch.int32)"),
    ("my_act_order", "order.argsort()]", "torch.argsort(order)]"),
    (
        "my_act_order",
        "return q.tensor[:, order.argsort()]",
        "codes = torch.zeros_like(q.tensor); codes[:, order] = q.tensor; return codes",
    ),
    (
        "my_act_order",
        "h.diagonal().argsort(descending=True)",
        "torch.tensor(sorted(range(len(h)), key=lambda i: -h[i, i]))",
    ),
    ("my_act_order", "h[order][:, order]", "h[order[:, None], order]"),
]


class TestBelow8Bits(Suite):
    module, wrong, right = below_8_bits, WRONG, RIGHT
