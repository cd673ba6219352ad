"""Notebook 08: quantization-aware training."""

import torch

from mnistq.exercises.judge import judge
from mnistq.quantizers import dequantize_tensor
from mnistq.weights import quantize_weight


def my_straight_through(answer):
    """Exercise 08.1: the gradient that fake quantization hands back."""

    def reference(grad, x, scale, zero_point, bits):
        x.requires_grad_()
        x_hat = torch.fake_quantize_per_tensor_affine(
            x, scale, zero_point, 0, 2**bits - 1
        )
        return torch.autograd.grad(x_hat, x, grad)[0]

    def case(grad, x, zero_point, bits):
        return torch.tensor(grad), torch.tensor(x), 0.5, zero_point, bits

    cases = [
        (
            case([2.0], [0.5], 0, 2),
            "Inside the range the gradient passes as it is.",
        ),
        (
            case([2.0, 3.0], [0.0, 1.5], 0, 2),
            "The first and the last code are codes too: both let it pass.",
        ),
        (
            case([2.0, 3.0], [-0.5, 2.0], 0, 2),
            "From the first step beyond the codes on, the gradient is 0.",
        ),
        (
            case([2.0, 3.0], [-0.2, 1.7], 0, 2),
            "The rounded code decides, not x: these round to codes.",
        ),
        (
            case([2.0, 3.0], [-0.4, 1.9], 0, 2),
            "Round to the nearest, do not cut off: these round to no codes.",
        ),
        (
            case([2.0], [1.75], 0, 2),
            "A tie goes to the even number: 3.5 to 4, which is no code.",
        ),
        (
            case([2.0, 3.0], [-0.5, 1.5], 1, 2),
            "Codes count from the zero point.",
        ),
        (
            case([2.0], [1.25], 1, 2),
            "Round first, then add the zero point: a tie goes to the even "
            "number before it.",
        ),
        (
            case([2.0, 3.0], [3.5, 4.0], 0, 3),
            "The last code is 2**bits - 1, here 7; codes are unsigned, from 0.",
        ),
        (
            case([0.5, -1.0, 2.0, 3.0], [-30.0, -2.0, 60.0, 99.0], 50, 8),
            "All of it together.",
        ),
    ]
    praise = (
        "The same decision as in the forward pass, made on the code: where it "
        "was clamped, growing does not help, and the slope says so."
    )
    judge(answer, reference, cases, praise)


def my_fold(answer):
    """Exercise 08.2: batch norm inside a convolution's kernel and bias."""

    def reference(w, b, gamma, beta, mean, var, eps):
        """What comes out for no pixel, and for each single one."""
        norm = torch.nn.BatchNorm2d(len(b), eps).double().eval()
        values = {"weight": gamma, "bias": beta, "running_mean": mean}
        norm.load_state_dict(values | {"running_var": var}, strict=False)
        n = w[0].numel()
        pixels = torch.cat([torch.zeros(1, n), torch.eye(n)]).double()
        pixels = pixels.reshape(-1, *w.shape[1:])
        with torch.no_grad():
            sums = torch.conv2d(pixels, w.double(), b.double())
            bias, *rows = norm(sums).flatten(1).float()
        return torch.stack([r - bias for r in rows], 1).reshape(w.shape), bias

    def case(w, b, gamma, beta, mean, var, eps=0.0):
        vectors = map(torch.tensor, (b, gamma, beta, mean, var))
        return torch.tensor(w), *vectors, eps

    one = [[[[2.0]]]], [1.0], [3.0]
    cases = [
        (
            case([[[[2.0]]]], [1.0], [1.0], [0.0], [0.0], [1.0]),
            "This batch norm changes nothing: give the kernel and the bias as they "
            "are, both, the kernel first, in the shapes they have; the layer's own "
            "bias stays.",
        ),
        (
            case(*one, [0.0], [0.0], [1.0]),
            "gamma multiplies the bias as it does the kernel.",
        ),
        (
            case([[[[2.0]]]], [1.0], [-3.0], [0.0], [0.0], [1.0]),
            "gamma may be negative, and keeps its sign.",
        ),
        (
            case(*one, [5.0], [0.0], [1.0]),
            "beta is added at the end, to the bias.",
        ),
        (
            case(*one, [0.0], [4.0], [1.0]),
            "The mean is taken away from the bias, before gamma multiplies it.",
        ),
        (
            case(*one, [0.0], [0.0], [4.0]),
            "Divide by the standard deviation, the root of var.",
        ),
        (
            case(*one, [0.0], [0.0], [3.0], 1.0),
            "eps is added to var, under the root.",
        ),
        (
            case(*one, [5.0], [4.0], [4.0]),
            "gamma and the root of var belong to the bias and to the mean, not "
            "to beta.",
        ),
        (
            case(
                [[[[1.0]], [[2.0]]], [[[3.0]], [[4.0]]]],
                [0.0, 0.0],
                [1.0, 10.0],
                [0.0, 0.0],
                [0.0, 0.0],
                [1.0, 1.0],
            ),
            "Each factor belongs to an output, axis 0 of the kernel.",
        ),
        (
            case(
                [[[[1.0, 2.0], [3.0, 4.0]]], [[[5.0, 6.0], [7.0, 8.0]]]],
                [1.0, -1.0],
                [2.0, -3.0],
                [0.5, 0.25],
                [4.0, 1.0],
                [8.0, 3.0],
                1.0,
            ),
            "All of it together.",
        ),
    ]
    praise = (
        "Batch norm is gone, and nothing is left of it at run time. What the "
        "integers will see is this kernel, so it is this one to quantize."
    )
    judge(answer, reference, cases, praise)


def my_sign_weights(answer):
    """Exercise 08.3: what weights of 1 bit stand for."""

    def reference(w):
        return dequantize_tensor(quantize_weight(w, 1))

    cases = [
        (
            ([[1.0, 1.0]],),
            "Weights that are all 1 stand for 1: it is their size that counts, not "
            "their spread (a standard deviation) and not a sum or a norm over them.",
        ),
        (
            ([[3.0, 3.0]],),
            "Signs alone are not enough: weights that are all 3 stand for 3.",
        ),
        (
            ([[1.0, 2.0, 6.0]],),
            "All are as large as the mean of |w|, here 3. 6 would be the largest, 2 "
            "the median, 1 the smallest, 3.697 the root of the mean of squares.",
        ),
        (([[2.0, -4.0]],), "The mean of |w|, not of w, with the signs kept."),
        (([[1.0, 1.0], [3.0, -3.0]],), "Each output has a mean of its own."),
        (
            ([[0.0, 2.0]],),
            "There is no code for 0: a weight of 0 counts as positive, and it counts "
            "in the mean.",
        ),
        (
            ([[[[1.0, 2.0]], [[3.0, 6.0]]], [[[-1.0, 1.0]], [[0.0, -8.0]]]],),
            "A kernel has four axes: the mean goes over all but the first.",
        ),
    ]
    cases = [((torch.tensor(w),), reason) for (w,), reason in cases]
    praise = (
        "A bit for each weight and a float for each output, and no scale of "
        "that output would fit these signs better."
    )
    judge(answer, reference, cases, praise)
