from mnistq.exercises import train

from .suite import Suite

ONE = "give one number"
RESULT = "int(wrong_but_sure.sum()), int(right_by_luck.sum())"

WRONG = {
    "my_normalise": [
        (" / 255", "", "after the division by 255"),
        ("/ 0.3081", "/ 0.3081**2", "divided by the deviation"),
        ("(x - 0.1307) / 0.3081", "x / 0.3081 - 0.1307", "less the mean"),
        ("x - 0.1307", "x + 0.1307", "less the mean"),
        ("unsqueeze(1)", "unsqueeze(-1)", "axis is the second"),
        ("unsqueeze(1)", "unsqueeze(0)", "axis is the second"),
        ("unsqueeze(1)", "unsqueeze(2)", "axis is the second"),
        (".unsqueeze(1)", "", "of four axes"),
        ("unsqueeze(1)", "view(-1, 1, 28, 28)", "height and width from the input"),
        ("pixels.unsqueeze(1)", "pixels.numpy()[:, None]", "give a torch tensor"),
        ("unsqueeze(1)", "flatten(1)", "of four axes"),
        ("return (x - 0.1307)", "return (x[:1] - 0.1307)", "Each picture keeps"),
        (" / 255", " // 255", "divide in floats"),
        ("unsqueeze(1) / 255", "double().unsqueeze(1) / 255", "give float32"),
        ("pixels.unsqueeze(1) / 255", "(pixels.unsqueeze(1) > 0) * 1.0", "Greys"),
    ],
    "my_parameters": [
        ("1 * 25 + 1", "1 * 25", "each output has a bias"),
        ("hidden + 1", "hidden", "each output has a bias"),
        ("4 * 4", "5 * 5", "fc1 sees 4 x 4"),
        ("first * 25 + 1", "25 + 1", "all channels of conv1"),
        ("second * 4 * 4", "4 * 4", "each channel of conv2"),
        ("10 * (hidden + 1)", "20", "all of fc1's outputs"),
        ("first * (1 * 25 + 1)", "first * 25 + 1", "52 + 51"),
        ("second * (first * 25 + 1)", "second * first * 25 + 1", "26 + 52"),
        ("hidden * (second * 4 * 4 + 1)", "hidden * second * 16 + 1", "26 + 26 + 34"),
        ("(second * 4 * 4 + 1)", "(second * 16.0 + 1)", "give an int"),
        ("return conv1 + conv2 + fc1 + fc2", "return conv1, conv2, fc1, fc2", ONE),
        ("conv1 + conv2 + fc1 + fc2", "np.array([conv1, conv2, fc1, fc2])", ONE),
        ("conv1 + conv2 + fc1 + fc2", "4 * (conv1 + conv2 + fc1 + fc2)", "not bytes"),
        ("conv1 + conv2 + fc1 + fc2", "(conv1 + conv2 + fc1 + fc2) / 1", "give an int"),
    ],
    "my_sure_and_wrong": [
        ("best.exp()", "best", "probability's log"),
        ("~right", "right", "Sure and right"),
        ("scores.max(1)", "scores.min(1)", "wrong, but sure"),
        ("right & (sure < 0.5)", "sure < 0.5", "Not sure and wrong"),
        ("right & (sure < 0.5)", "~right & (sure < 0.5)", "right by luck"),
        ("~right & (sure > 0.9)", "~right", "Not sure and wrong"),
        ("sure > 0.9", "sure > 0.5", "not above 0.9"),
        ("sure < 0.5", "sure < 0.6", "not below 0.5"),
        (
            "~right & (sure > 0.9)",
            "~right & (scores.exp().gather(1, labels[:, None])[:, 0] < 0.1)",
            "not who gives the right one less",
        ),
        (
            RESULT,
            "int(right_by_luck.sum()), int(wrong_but_sure.sum())",
            "in this order",
        ),
        (
            RESULT,
            "*(float(x.double().mean()) for x in (wrong_but_sure, right_by_luck)),",
            "counts, not shares",
        ),
        (RESULT, "wrong_but_sure, right_by_luck", ONE),
        (RESULT, "int(wrong_but_sure.sum())", "give a tuple"),
        (RESULT, f"{RESULT}, len(labels)", "give a tuple of 2"),
        (RESULT, "wrong_but_sure.sum() / 1.0, right_by_luck.sum() / 1.0", "an int"),
    ],
}

RIGHT = [
    ("my_normalise", "pixels.unsqueeze(1) / 255", "pixels[:, None].float().div(255)"),
    (
        "my_normalise",
        "(x - 0.1307) / 0.3081",
        "((x.double() - 0.1307) / 0.3081).float()",
    ),
    (
        "my_normalise",
        "pixels.unsqueeze(1) / 255",
        "pixels.view(len(pixels), 1, *pixels.shape[1:]) / 255",
    ),
    ("my_normalise", "(x - 0.1307) / 0.3081", "x / 0.3081 - 0.1307 / 0.3081"),
    ("my_parameters", "10 * (hidden + 1)", "10 * hidden + 10"),
    ("my_parameters", "conv1 + conv2 + fc1 + fc2", "sum([fc2, fc1, conv2, conv1])"),
    ("my_sure_and_wrong", "best.exp()", "scores.softmax(1).max(1).values"),
    ("my_sure_and_wrong", "scores.max(1)", "scores.topk(1)[0][:, 0], scores.argmax(1)"),
    ("my_sure_and_wrong", "int(wrong_but_sure.sum())", "wrong_but_sure.sum()"),
    ("my_sure_and_wrong", "int(right_by_luck.sum())", "np.sum(right_by_luck.numpy())"),
    ("my_parameters", "conv1 + conv2 +", "torch.tensor(conv1) + conv2 +"),
    ("my_parameters", "conv1 + conv2 +", "np.int64(conv1) + conv2 +"),
]


class TestTrain(Suite):
    module, wrong, right = train, WRONG, RIGHT
