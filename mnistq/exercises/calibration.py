"""Notebook 03: which range?."""

import torch

from mnistq.calibration import range_ema, range_mean, range_percentile
from mnistq.exercises.judge import judge


def my_mean_range(answer):
    """Exercise 03.1: the mean of the samples' extremes, over batches."""

    def reference(batches):
        return range_mean(torch.cat(batches))

    def batches(*parts):
        return ([torch.tensor(part) for part in parts],)

    cases = [
        (
            batches([[3.0]]),
            "Give both ends, (low, high): a lone number is its own minimum and "
            "its own maximum.",
        ),
        (
            batches([[1.0, 3.0]]),
            "Of a single sample, (low, high) are its minimum and its maximum, in "
            "this order and undivided: count samples, not values.",
        ),
        (batches([[-3.0, 1.0]]), "The values count with their signs."),
        (batches([[0.5, 2.25]]), "A mean need not be whole: do not cut it."),
        (
            batches([[0.0, 4.0], [4.0, 0.0]]),
            "Add up each sample's own extremes, then divide by the number of "
            "samples, not by the number of batches.",
        ),
        (
            batches([[0.0, 1.0, 3.0], [-2.0, 2.0, 7.0]]),
            "Each sample has extremes of its own, and their mean is asked for: "
            "those of the whole batch hang on a single sample.",
        ),
        (
            batches([[0.0, 2.0]], [[0.0, 4.0]]),
            "All batches count: the mean goes over the samples of all of them, it "
            "is neither the last batch's nor the largest of the batches'.",
        ),
        (
            batches([[0.0, 2.0], [0.0, 4.0]], [[0.0, 9.0]]),
            "Every sample counts once, also in a smaller batch: divide the sum "
            "over all samples by their number.",
        ),
        (
            ([torch.arange(-8.0, 8.0).reshape(2, 2, 2, 2)],),
            "A sample may have several axes: all but the first belong to it.",
        ),
        (
            ([torch.arange(12.0).reshape(3, 1, 4), -torch.ones(2, 1, 4)],),
            "All of it together.",
        ),
    ]
    praise = (
        "These are the article's ranges. Its own code divides the same sums by "
        "the number of batches. In its own network no accuracy gave that away."
    )
    judge(answer, reference, cases, praise)


def my_moving_average(answer):
    """Exercise 03.2: the moving average after the last of a list of numbers."""

    def reference(values, decay):
        samples = torch.tensor(values)[:, None]
        return range_ema(samples, decay=decay, batch=1)[1]

    cases = [
        (([3.0, 3.0], 0.0), "With a decay of 0 only the last value is left."),
        (([3.0], 0.5), "The first value starts the average."),
        (
            ([1.0, 1.0], 0.5),
            "The average of a constant is the constant: the two weights must "
            "add up to 1.",
        ),
        (
            ([3.0, 7.0], 0.5),
            "With a decay of 0.5 the average moves halfway from the first value "
            "to the second: both weights are 0.5, and no weight is ever above 1.",
        ),
        (([0.0, 8.0], 0.5), "A first value of 0 starts the average, too."),
        (([8.0, 0.0], 0.5), "The average falls as well as it rises."),
        (([0.0, -4.0], 0.5), "The values count with their signs."),
        (([0.0, 1.0], 0.5), "An average need not be whole: do not cut it."),
        (
            ([8.0, 0.0, 0.0], 0.5),
            "Every value counts in its turn, the first ones less and less, "
            "but never nothing.",
        ),
        (
            ([0.0, 8.0], 0.75),
            "decay is the share of the old average that stays; the new value "
            "gets 1 - decay.",
        ),
        (([4.0, 0.0, 8.0, -2.0], 0.75), "All of it together."),
    ]
    praise = (
        "Two weights that add up to 1, and a first value that starts the "
        "average: then a constant stays what it is."
    )
    judge(answer, reference, cases, praise)


def my_percentile_range(answer):
    """Exercise 03.3: the percentiles 100 - percent and percent of a tensor."""

    def reference(x, percent):
        return range_percentile(x, percent=percent)

    def case(values, percent):
        return torch.tensor(values), percent

    cases = [
        (
            case([2.0, 3.0, 4.0], 100),
            "At 100 percent the range goes from the smallest value to the "
            "largest. (torch.quantile counts from 0 to 1, not to 100.)",
        ),
        (
            case([1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 6.0, 6.0, 20.0], 75),
            "Both ends give up a share of the values, however large they are: low "
            "is the (100 - percent)-th percentile, high the percent-th.",
        ),
        (
            case([2.0, 10.0], 75),
            "Between two neighbours lies a straight line: position (n - 1) * "
            "percent / 100, counted from 0.",
        ),
        (case([1.0, 2.0], 75), "A percentile need not be whole: do not cut it."),
        (case([0.0, 0.0, 0.0, 0.0, 4.0], 75), "Zeros count, too."),
        (
            case([-8.0, -4.0, 0.0, 1.0, 2.0], 75),
            "The values count with their signs, not by their sizes.",
        ),
        (case([9.0, 1.0, 5.0], 75), "The values must be put in order first."),
        (
            case([[0.0, 1.0], [10.0, 11.0]], 75),
            "All values of the tensor count together, not row by row.",
        ),
        ((torch.arange(41.0), 97.5), "A percentage need not be whole."),
    ]
    praise = (
        "One odd value no longer stretches the range. How many to give up is a "
        "guess that does not know the bits."
    )
    mistakes = [
        (lambda *case: reference(*case)[::-1], "Give (low, high), in this order.")
    ]
    judge(answer, reference, cases, praise, mistakes)
