from mnistq.exercises import calibration

from .suite import Suite

WRONG = {
    "my_mean_range": [
        ("samples += len(flat)", "samples += 1", "number of batches"),
        ("flat.amax(1).sum()", "flat.amax() * len(flat)", "extremes of its own"),
        ("float(flat.amin(1).sum())", "0.0", "both ends"),
        (
            "amin(1).sum())\n        high += float(flat.amax(1).sum())\n"
            "        samples += len(flat)",
            "amin(1).mean())\n        high += float(flat.amax(1).mean())\n"
            "        samples += 1",
            "also in a smaller batch",
        ),
        (".flatten(1)", "", "several axes"),
        (
            "    return low / samples",
            "        return low / samples",
            "All batches count",
        ),
        (
            "low += float(flat.amin(1).sum())\n"
            "        high += float(flat.amax(1).sum())",
            "low += float(flat.min())\n        high += float(flat.max())",
            "each sample's own extremes",
        ),
        (
            "low / samples, high / samples",
            "int(low / samples), int(high / samples)",
            "do not cut it",
        ),
    ],
    "my_moving_average": [
        (
            "for new in values[1:]:\n        ema = decay * ema + (1 - decay) * new",
            "for total, new in enumerate(values[1:], 2):\n"
            "        w = 2.0 / total + 1\n        ema = w * new + (1 - w) * ema",
            "no weight is above 1",
        ),
        ("ema = values[0]", "ema = 0.0", "starts the average"),
        (
            "ema = values[0]\n    for new in values[1:]",
            "ema = 0.0\n    for new in values",
            "starts the average",
        ),
        ("decay * ema + (1 - decay)", "(1 - decay) * ema + decay", "share of the old"),
        ("(1 - decay) * new", "new", "add up to 1"),
        ("values[0]", "values[-1]", "from the first value"),
        ("values[1:]", "values[-1:]", "Every value counts"),
        ("decay * ema + (1 - decay) * new", "(ema + new) / 2", "share of the old"),
        (
            "ema = decay * ema + (1 - decay) * new",
            "ema = decay * ema + (1 - decay) * new if ema else new",
            "A first value of 0",
        ),
    ],
    "my_percentile_range": [
        (" / 100", "", "from 0 to 1"),
        ("x.flatten()", "x.abs().flatten()", "with their signs"),
        ("[100 - percent, percent]", "[0, percent]", "not the minimum"),
        ("x.flatten(), shares", "x, shares, -1", "not row by row"),
        ("shares)", "shares, interpolation='nearest')", "straight line"),
        ("x.flatten()", "x[x != 0]", "Zeros count"),
    ],
}

RIGHT = [
    (
        "my_mean_range",
        "high += float(flat.amax(1).sum())",
        "high += flat.amax(1).sum()",
    ),
    (
        "my_percentile_range",
        "shares = torch.tensor([100 - percent, percent]) / 100",
        "share = torch.tensor(percent) / 100\n"
        "    shares = torch.stack([1 - share, share])",
    ),
]


class TestCalibration(Suite):
    module, wrong, right = calibration, WRONG, RIGHT
