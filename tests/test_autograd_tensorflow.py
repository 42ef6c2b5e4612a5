"""Whether `gradients` says what tf.gradients said to the programs recorded by tf_reference.py."""

import gzip
import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from trainer.autograd import gradients

RECORDED = json.loads(
    gzip.decompress((Path(__file__).parent / "data" / "tf_gradients.json.gz").read_bytes())
)


def reduction(function):
    def apply(x, axis, keepdims):
        return function(x, tuple(range(x.ndim)) if axis is None else axis, keepdims)

    return apply


def product(x, axis, keepdims):
    result = x.prod() if axis is None else x.prod(axis, keepdims)
    return result.reshape([1] * x.ndim) if axis is None and keepdims else result


def channels_first(function):
    def apply(x, *filters):
        filters = [f.permute(3, 2, 0, 1) for f in filters]
        return function(x.permute(0, 3, 1, 2), *filters).permute(0, 2, 3, 1)

    return apply


# The same operations in PyTorch, as one node of its graph where they are one operation there.
OPERATIONS = {
    "negative": torch.neg,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": torch.log,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "square": torch.square,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "asinh": torch.asinh,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "log_sigmoid": functional.logsigmoid,
    "softplus": lambda x: functional.softplus(x, threshold=1e9),
    "softsign": functional.softsign,
    "relu": torch.relu,
    "relu6": functional.relu6,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.25),
    "elu": functional.elu,
    "selu": torch.selu,
    "silu": functional.silu,
    "erf": torch.erf,
    "lgamma": torch.lgamma,
    "abs": torch.abs,
    "sign": torch.sign,
    "identity": torch.clone,
    "stop_gradient": lambda x: x.detach().requires_grad_(),
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "squared_difference": lambda x, y: (x - y).square(),
    "pow": torch.pow,
    "atan2": torch.atan2,
    "where_greater": lambda x, y: torch.where(x > y, x, y * 2.0),
    "scale": lambda x, by: x * by,
    "shift": lambda x, by: x + by,
    "add_n": lambda *xs: torch.stack(xs).sum(0),
    "matmul": torch.matmul,
    "einsum": lambda *xs, equation: torch.einsum(equation, *xs),
    "reduce_sum": reduction(torch.sum),
    "reduce_mean": reduction(torch.mean),
    "reduce_max": reduction(torch.amax),
    "reduce_min": reduction(torch.amin),
    "reduce_prod": product,
    "reduce_logsumexp": reduction(torch.logsumexp),
    "reduce_variance": reduction(
        lambda x, axis, keepdims: torch.var(x, axis, correction=0, keepdim=keepdims)
    ),
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "cross_entropy": lambda x, labels: functional.cross_entropy(
        x, torch.tensor(labels), reduction="none"
    ),
    "cumsum": torch.cumsum,
    "cumprod": torch.cumprod,
    "reshape": torch.reshape,
    "transpose": torch.permute,
    "expand_dims": torch.unsqueeze,
    "broadcast_to": torch.broadcast_to,
    "tile": torch.tile,
    "pad": lambda x, paddings: functional.pad(x, [n for pair in paddings[::-1] for n in pair]),
    "slice": lambda x, begin, size: x[
        tuple(slice(b, b + s) for b, s in zip(begin, size, strict=True))
    ],
    "reverse": lambda x, axis: x.flip(axis),
    "roll": torch.roll,
    "gather": lambda x, indices: x.index_select(0, torch.tensor(indices)),
    "clip": torch.clamp,
    "concat": lambda *xs, axis: torch.cat(xs, axis),
    "stack": lambda *xs, axis: torch.stack(xs, axis),
    "split": torch.split,
    "unstack": torch.unbind,
    "top_k": lambda x, k: x.topk(k).values,
    "sort": lambda x: x.sort().values,
    "norm": torch.linalg.vector_norm,
    "diag_part": torch.diagonal,
    "lower_triangle": torch.tril,
    "trace": torch.trace,
    "inverse": torch.linalg.inv,
    "determinant": torch.linalg.det,
    "solve": torch.linalg.solve,
    "conv2d": channels_first(functional.conv2d),
    "max_pool": channels_first(lambda x: functional.max_pool2d(x, 2, 1)),
    "avg_pool": channels_first(lambda x: functional.avg_pool2d(x, 2, 1)),
    "argmax": lambda x: x.argmax(0),
    "cast_float": lambda x: x.double(),
    "greater": lambda x, y: (x > y).double(),
    "zeros_like": torch.zeros_like,
    "complex": torch.complex,
    "real": torch.real,
    "imag": torch.imag,
    "conj": torch.conj_physical,
    "complex_abs": torch.abs,
    "complex_exp": torch.exp,
    "complex_square": torch.square,
    "complex_multiply": torch.mul,
    "complex_divide": torch.div,
    "complex_add": torch.add,
}
POSITIONAL = {  # settings that PyTorch names otherwise
    name: list
    for name, list in {
        "cumsum": ["axis"],
        "cumprod": ["axis"],
        "reshape": ["shape"],
        "transpose": ["order"],
        "expand_dims": ["axis"],
        "broadcast_to": ["shape"],
        "tile": ["multiples"],
        "roll": ["shift", "axis"],
        "clip": ["low", "high"],
        "split": ["sizes", "axis"],
        "unstack": ["axis"],
    }.items()
}


def tensor_of(numbers, shape, is_complex):
    tensor = torch.tensor(numbers, dtype=torch.float64)
    return torch.view_as_complex(tensor.reshape(*shape, 2)) if is_complex else tensor.reshape(shape)


def answers_of(program):
    """Our answers to a program: for each call of gradients its xs and what it returned."""
    tensors, answers = [], []
    calls_left = sum(operation == "gradients" for operation, _, _ in program["steps"])
    for operation, operands, settings in program["steps"]:
        given = [tensors[operand] for operand in operands]
        if operation in ("variable", "constant"):
            tensor = tensor_of(settings["numbers"], settings["shape"], "complex" in settings)
            results = [tensor.requires_grad_(operation == "variable")]
        elif operation == "gradients":
            calls_left -= 1
            numbered = {
                name: [None if number is None else tensors[number] for number in numbers]
                for name, numbers in settings.items()
                if name in ("ys", "grad_ys", "stop_gradients")
            }
            results = gradients(
                xs=given,
                unconnected_gradients=settings.get("unconnected_gradients", "none"),
                create_graph=calls_left > 0,
                retain_graph=True,
                **numbered,
            )
            answers.append((given, results))
        else:
            order = POSITIONAL.get(operation, [])
            named = {key: value for key, value in settings.items() if key not in order}
            results = OPERATIONS[operation](*given, *[settings[key] for key in order], **named)
            results = [results] if isinstance(results, torch.Tensor) else results
        tensors += results
    return answers


def disagreements(program):
    """What is not as TensorFlow has it, in words."""
    found = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* only floating-point and complex tensors")
        answers = answers_of(program)
    for call, ((xs, ours), theirs) in enumerate(zip(answers, program["answers"], strict=True)):
        for position, (x, our, their) in enumerate(zip(xs, ours, theirs, strict=True)):
            where = f"{program['name']}, call {call}, xs[{position}]: "
            if our is None or their is None:
                if our is not None or their is not None:
                    found.append(f"{where}ours {our}, TensorFlow's {their}")
                continue
            if our.shape != x.shape or our.dtype != x.dtype:
                found.append(f"{where}{our.dtype} {our.shape} for {x.dtype} {x.shape}")
                continue
            expected = tensor_of(their, our.shape, our.is_complex()).to(our.dtype)
            scale = max([abs(number) for number in their], default=0.0)
            error = (our.detach() - expected).abs().max().item() if our.numel() else 0.0
            if not error <= 1e-9 * scale + 1e-12 or math.isnan(scale):
                found.append(f"{where}ours {our.tolist()}, TensorFlow's {their}")
    return found


@pytest.mark.parametrize("first", range(0, len(RECORDED["programs"]), 100))
def test_recorded_programs_agree(first):
    programs = RECORDED["programs"][first : first + 100]
    assert [text for program in programs for text in disagreements(program)] == []
