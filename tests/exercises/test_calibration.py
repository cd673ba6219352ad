from mnistq.exercises import calibration

from .suite import Suite

SORT = "values = x.flatten().sort().values\n"
AT = """
    def at(share):
        place = (len(values) - 1) * share / 100
        low = int(place)
        high = min(low + 1, len(values) - 1)
        return values[low] + (place - low) * (values[high] - values[low])

    return float(at(100 - percent)), float(at(percent))
"""
QUANTILE = """    shares = torch.tensor([100 - percent, percent]) / 100
    low, high = torch.quantile(x.flatten(), shares)
    return float(low), float(high)
"""
LOOP = """    ema = values[0]
    for new in values[1:]:
        ema = decay * ema + (1 - decay) * new
    return ema
"""
STEP = "decay * ema + (1 - decay) * new"
SUMS = """    low, high, samples = 0.0, 0.0, 0
    for batch in batches:
        flat = batch.flatten(1)
        low += float(flat.amin(1).sum())
        high += float(flat.amax(1).sum())
        samples += len(flat)
    return low / samples, high / samples
"""
CAT = "    flat = torch.cat([batch.flatten(1) for batch in batches])\n"

WRONG = {
    "my_mean_range": [
        ("low / samples, high / samples", "high / samples", "give a tuple"),
        ("low / samples, high", "high / samples, low", "in this order"),
        ("len(flat)", "flat.numel()", "count samples, not values"),
        ("samples += len(flat)", "samples += 1", "number of batches"),
        ("flat.amax(1).sum()", "flat.amax() * len(flat)", "extremes of its own"),
        ("float(flat.amin(1).sum())", "0.0", "both ends"),
        (".flatten(1)", ".flatten(1).abs()", "with their signs"),
        (
            "amin(1).sum())\n        high += float(flat.amax(1).sum())\n"
            "        samples += len(flat)",
            "amin(1).mean())\n        high += float(flat.amax(1).mean())\n"
            "        samples += 1",
            "also in a smaller batch",
        ),
        ("+= len(flat)", "+= len(batches[0])", "also in a smaller batch"),
        (".flatten(1)", "", "several axes"),
        (
            "    return low / samples",
            "        return low / samples",
            "All batches count",
        ),
        ("in batches", "in batches[-1:]", "All batches count"),
        (
            "low += float(flat.amin(1).sum())\n"
            "        high += float(flat.amax(1).sum())",
            "low += float(flat.min())\n        high += float(flat.max())",
            "number of samples, not",
        ),
        (SUMS, CAT + "    return flat.min(), flat.max()\n", "on a single sample"),
        (
            SUMS,
            CAT + "    return flat.amin(1).median(), flat.amax(1).median()\n",
            "their mean is asked for",
        ),
        (
            "low / samples, high / samples",
            "int(low / samples), int(high / samples)",
            "do not cut it",
        ),
        ("high += float(", "high += int(", "do not cut it"),
        (".flatten(1)", ".flatten(1).long()", "do not cut it"),
        (
            SUMS,
            "    flat = batches.pop().flatten(1)\n"
            "    for batch in batches:\n"
            "        flat = torch.cat([flat, batch.flatten(1)])\n"
            "    return flat.amin(1).mean(), flat.amax(1).mean()\n",
            "finds the argument changed",
        ),
    ],
    "my_moving_average": [
        (
            "for new in values[1:]:\n        ema = decay * ema + (1 - decay) * new",
            "for total, new in enumerate(values[1:], 2):\n"
            "        w = 2.0 / total + 1\n        ema = w * new + (1 - w) * ema",
            "no weight is ever above 1",
        ),
        (
            "for new in values[1:]:\n        ema = decay * ema + (1 - decay) * new",
            "for total, new in enumerate(values[1:], 2):\n"
            "        w = 2.0 / (total + 1)\n        ema = w * new + (1 - w) * ema",
            "both weights are 0.5",
        ),
        ("ema = values[0]", "ema = 0.0", "starts the average"),
        (
            "ema = values[0]\n    for new in values[1:]",
            "ema = 0.0\n    for new in values",
            "starts the average",
        ),
        ("    return ema", "        return ema", "starts the average"),
        ("decay * ema + (1 - decay)", "(1 - decay) * ema + decay", "share of the old"),
        ("(1 - decay) * new", "new", "add up to 1"),
        (
            LOOP,
            "    path = list(values[:1])\n"
            "    for new in values[1:]:\n"
            "        path.append(decay * path[-1] + (1 - decay) * new)\n"
            "    return path\n",
            "give one number",
        ),
        ("return ema", "return ema, ema", "give one number"),
        ("values[0]", "values[-1]", "from the first value"),
        ("values[1:]", "values[-1:]", "Every value counts"),
        (STEP, "(ema + new) / 2", "share of the old"),
        (LOOP, "    return sum(values) / len(values)\n", "less and less"),
        (
            LOOP,
            "    return decay * values[0] + (1 - decay) * values[-1]",
            "in its turn",
        ),
        (LOOP, f"    values = values[::-1]\n{LOOP}", "Every value counts"),
        (STEP, f"max(ema, {STEP})", "falls as well"),
        ("* new", "* abs(new)", "with their signs"),
        ("return ema", "return max(ema, 0.0)", "with their signs"),
        ("return ema", "return int(ema)", "do not cut it"),
        ("return ema", "return [ema]", "give one number"),
        (
            "ema = decay * ema + (1 - decay) * new",
            "ema = decay * ema + (1 - decay) * new if ema else new",
            "A first value of 0",
        ),
        (
            "ema = values[0]\n    for new in values[1:]",
            "ema = values.pop(0)\n    for new in values",
            "finds the argument changed",
        ),
    ],
    "my_percentile_range": [
        (" / 100", "", "from 0 to 1"),
        ("float(low), float(high)", "float(high), float(low)", "in this order"),
        ("float(low), float(high)", "torch.stack([low, high])", "give a tuple"),
        (
            "float(low), float(high)",
            "float(low), float(high), float(high - low)",
            "give a tuple of 2",
        ),
        (
            "float(low), float(high)",
            "x.flatten()[:2] * 0 + low, float(high)",
            "give one number",
        ),
        ("float(low), float(high)", "-float(high), float(high)", "from the smallest"),
        ("float(low), float(high)", "float(high)", "give a tuple"),
        ("x.flatten()", "x.abs().flatten()", "with their signs"),
        ("[100 - percent, percent]", "[0, percent]", "Both ends give up"),
        ("[100 - percent, percent]", "[100 - percent, 100]", "Both ends give up"),
        (
            "[100 - percent, percent]",
            "[(100 - percent) / 2, (100 + percent) / 2]",
            "low is the (100 - percent)-th",
        ),
        (
            QUANTILE,
            "    low, width = float(x.min()), float(x.max() - x.min())\n"
            "    share = percent / 100\n"
            "    return low + width * (1 - share), low + width * share\n",
            "however large they are",
        ),
        ("x.flatten(), shares", "x, shares, -1", "not row by row"),
        ("shares)", "shares, interpolation='nearest')", "straight line"),
        (
            QUANTILE,
            f"    {SORT}{AT.replace('(len(values) - 1)', 'len(values)')}".replace(
                "int(place)", "min(int(place), len(values) - 1)"
            ),
            "counted from 0",
        ),
        (QUANTILE, f"    values = x.flatten(){AT}", "in order first"),
        ("float(low), float(high)", "int(low), int(high)", "do not cut it"),
        ("shares = ", "percent = int(percent)\n    shares = ", "percentage need not"),
        ("x.flatten()", "x[x != 0]", "Zeros count"),
        (
            QUANTILE,
            "    values = x.numpy().ravel()\n    values.sort()\n"
            "    return tuple(np.percentile(values, [100 - percent, percent]))\n",
            "finds the argument changed",
        ),
    ],
}

RIGHT = [
    (
        "my_mean_range",
        "high += float(flat.amax(1).sum())",
        "high += flat.amax(1).sum()",
    ),
    (
        "my_mean_range",
        SUMS,
        f"{CAT}    return flat.amin(1).mean(), flat.amax(1).mean()",
    ),
    ("my_mean_range", "len(flat)", "batch.shape[0]"),
    (
        "my_mean_range",
        SUMS,
        "    ends = [(float(s.min()), float(s.max())) for b in batches for s in b]\n"
        "    return [sum(end) / len(ends) for end in zip(*ends)]\n",
    ),
    ("my_moving_average", STEP, "ema + (1 - decay) * (new - ema)"),
    ("my_moving_average", "values[1:]", "values"),
    (
        "my_moving_average",
        LOOP,
        "    *older, new = values\n    if not older:\n        return new\n"
        "    return decay * my_moving_average(older, decay) + (1 - decay) * new\n",
    ),
    (
        "my_moving_average",
        LOOP,
        "    n = len(values)\n"
        "    weights = [(1 - decay) * decay**k for k in range(n)]\n"
        "    weights[-1] = decay ** (n - 1)\n"
        "    return torch.tensor(weights[::-1]) @ torch.tensor(values)\n",
    ),
    (
        "my_percentile_range",
        "shares = torch.tensor([100 - percent, percent]) / 100",
        "share = torch.tensor(percent) / 100\n"
        "    shares = torch.stack([1 - share, share])",
    ),
    ("my_percentile_range", QUANTILE, f"    {SORT}{AT}"),
    ("my_percentile_range", QUANTILE, f"    values = sorted(x.flatten().tolist()){AT}"),
    (
        "my_percentile_range",
        QUANTILE,
        "    return tuple(np.percentile(x.numpy(), [100 - percent, percent]))\n",
    ),
]


class TestCalibration(Suite):
    module, wrong, right = calibration, WRONG, RIGHT
