"""Notebook 01: the float network."""

import torch
from torch import nn

from mnistq.exercises.judge import judge


def my_normalise(answer):
    """Exercise 01.1: what the network reads of MNIST's bytes."""

    def reference(pixels):
        # Only here: it takes a second to import.
        from torchvision import transforms

        to_float = transforms.ConvertImageDtype(torch.float32)
        normalise = transforms.Normalize((0.1307,), (0.3081,))
        return torch.stack([normalise(to_float(p[None])) for p in pixels])

    def case(*pictures):
        return (torch.tensor(pictures, dtype=torch.uint8),)

    cases = [
        (
            case([[0] * 28] * 28),
            "Black is 0 less the mean, divided by the deviation; of four axes, "
            "(N, 1, height, width), the channel's axis is the second one.",
        ),
        (case([[0]]), "Take height and width from the input: here both are 1."),
        (case([[255]]), "White is 1 after the division by 255."),
        (
            case([[100]]),
            "Greys lie between black and white: divide in floats.",
        ),
        (
            case([[0], [100], [9]], [[255], [9], [0]]),
            "Each picture keeps its own pixels, and its place: the channel's axis is "
            "the second one.",
        ),
    ]
    praise = (
        "The input is no byte any more, but it still has only 256 values: "
        "quantizing it again to 8 bits will lose nothing worth a name."
    )
    judge(answer, reference, cases, praise)


def my_parameters(answer):
    """Exercise 01.2: how many numbers a network of other widths learns."""

    def reference(first, second, hidden):
        layers = (
            nn.Conv2d(1, first, 5),
            nn.Conv2d(first, second, 5),
            nn.Linear(16 * second, hidden),
            nn.Linear(hidden, 10),
        )
        return sum(p.numel() for layer in layers for p in layer.parameters())

    cases = [
        (
            (1, 1, 1),
            "26 + 26 + 17 + 20: each output has a bias; fc1 sees 4 x 4.",
        ),
        (
            (2, 1, 1),
            "52 + 51 + 17 + 20: each output has a bias; a kernel of conv2 "
            "reaches over all channels of conv1.",
        ),
        (
            (1, 2, 1),
            "26 + 52 + 33 + 20: each output has a bias; fc1 sees 4 x 4 numbers "
            "of each channel of conv2.",
        ),
        (
            (1, 1, 2),
            "26 + 26 + 34 + 30: each output has a bias; fc2 sees all of fc1's outputs.",
        ),
        ((20, 50, 500), "This is the network itself: 431,080."),
        ((10, 25, 250), "All three halved."),
    ]
    praise = (
        "Where a layer's two widths are both halved, a quarter of it is left; "
        "fc1 is such a layer, and nearly everything."
    )
    mistakes = [(lambda *widths: 4 * reference(*widths), "Count numbers, not bytes.")]
    judge(answer, reference, cases, praise, mistakes)


def my_sure_and_wrong(answer):
    """Exercise 01.3: counts of (wrong but sure, right by luck)."""

    def reference(scores, labels):
        sure = luck = 0
        for row, label in zip(scores.exp().tolist(), labels.tolist(), strict=True):
            right = row.index(max(row)) == label
            sure += not right and max(row) > 0.9
            luck += right and max(row) < 0.5
        return int(sure), int(luck)

    def case(probabilities, labels):
        return torch.tensor(probabilities).log(), torch.tensor(labels)

    cases = [
        (
            case([[0.05, 0.95], [0.95, 0.05]], [1, 0]),
            "Sure and right is neither group; a score is a probability's log.",
        ),
        (
            case([[0.95, 0.05]], [1]),
            "0.95 for the wrong digit: wrong, but sure.",
        ),
        (
            case([[0.4, 0.3, 0.3]], [0]),
            "0.4 for the right digit: right by luck.",
        ),
        (
            case([[0.4, 0.3, 0.3]], [1]),
            "Not sure and wrong: neither of the two groups.",
        ),
        (
            case([[0.05, 0.5, 0.45]], [0]),
            "Sure is who gives a digit more than 0.9, not who gives the right one less "
            "than 0.1.",
        ),
        (case([[0.88, 0.12]], [1]), "0.88 is not above 0.9."),
        (case([[0.52, 0.48]], [0]), "0.52 is not below 0.5."),
        (
            case([[0.95, 0.05, 0.0], [0.4, 0.3, 0.3], [0.6, 0.3, 0.1]], [1, 0, 0]),
            "All of it together.",
        ),
    ]
    praise = (
        "Accuracy hides both groups. At 8 bits, quantization tips only digits "
        "whose best score has another one close by."
    )
    mistakes = [
        (
            lambda *case: reference(*case)[::-1],
            "Give (wrong but sure, right by luck), in this order.",
        ),
        (
            lambda scores, labels: tuple(
                count / len(labels) for count in reference(scores, labels)
            ),
            "Give counts, not shares.",
        ),
    ]
    judge(answer, reference, cases, praise, mistakes)
