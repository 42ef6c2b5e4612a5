"""Records what tf.gradients answers to small programs: tests/data/tf_gradients.json.gz.

TensorFlow needs an environment of its own:

    python -m venv tensorflow-environment
    tensorflow-environment/bin/pip install tensorflow-cpu==2.21
    tensorflow-environment/bin/python scripts/tf_reference.py

The same arguments give the same programs. A program is independent of any library; what each step
means in PyTorch is told by tests/test_autograd_tensorflow.py:

    {"name": ..., "steps": [[operation, numbers of its operands, settings], ...], "answers": [...]}

The results of the steps are numbered in order. The steps "variable" and "constant" (the latter does
not require grad in PyTorch) have no operands and bring numbers: float64, or complex128 as pairs.
The step ["gradients", xs, {"ys", "grad_ys", "stop_gradients", "unconnected_gradients"}] has one
result for each x, and one answer: for each x None or the numbers that TensorFlow computed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

Settings = dict[str, Any]
OUTPUT = Path(__file__).parents[1] / "tests" / "data" / "tf_gradients.json.gz"

# Operations of one operand that keep the shape; where each is smooth.
UNARY: dict[str, tuple[Callable[..., Any], Callable[[np.ndarray], bool]]] = {
    "negative": (tf.negative, lambda x: True),
    "exp": (tf.exp, lambda x: x.max() < 3),
    "expm1": (tf.math.expm1, lambda x: x.max() < 3),
    "log": (tf.math.log, lambda x: x.min() > 0.1),
    "log1p": (tf.math.log1p, lambda x: x.min() > -0.8),
    "sqrt": (tf.sqrt, lambda x: x.min() > 0.1),
    "rsqrt": (tf.math.rsqrt, lambda x: x.min() > 0.1),
    "reciprocal": (tf.math.reciprocal, lambda x: abs(x).min() > 0.2),
    "square": (tf.square, lambda x: True),
    "sin": (tf.sin, lambda x: True),
    "cos": (tf.cos, lambda x: True),
    "tan": (tf.tan, lambda x: abs(np.cos(x)).min() > 0.3),
    "asin": (tf.asin, lambda x: abs(x).max() < 0.9),
    "acos": (tf.acos, lambda x: abs(x).max() < 0.9),
    "atan": (tf.atan, lambda x: True),
    "sinh": (tf.sinh, lambda x: abs(x).max() < 3),
    "cosh": (tf.cosh, lambda x: abs(x).max() < 3),
    "asinh": (tf.asinh, lambda x: True),
    "tanh": (tf.tanh, lambda x: True),
    "sigmoid": (tf.sigmoid, lambda x: True),
    "log_sigmoid": (tf.math.log_sigmoid, lambda x: True),
    "softplus": (tf.math.softplus, lambda x: True),
    "softsign": (tf.math.softsign, lambda x: abs(x).min() > 1e-3),
    "relu": (tf.nn.relu, lambda x: abs(x).min() > 1e-3),
    "relu6": (tf.nn.relu6, lambda x: min(abs(x).min(), abs(x - 6).min()) > 1e-3),
    "leaky_relu": (lambda x: tf.nn.leaky_relu(x, 0.25), lambda x: abs(x).min() > 1e-3),
    "elu": (tf.nn.elu, lambda x: abs(x).min() > 1e-3),
    "selu": (tf.nn.selu, lambda x: abs(x).min() > 1e-3),
    "silu": (tf.nn.silu, lambda x: True),
    "erf": (tf.math.erf, lambda x: True),
    "lgamma": (tf.math.lgamma, lambda x: x.min() > 0.3),
    "abs": (tf.abs, lambda x: abs(x).min() > 1e-3),
    "sign": (tf.sign, lambda x: abs(x).min() > 1e-3),
    "identity": (tf.identity, lambda x: True),
    "stop_gradient": (tf.stop_gradient, lambda x: True),
}

BINARY: dict[str, tuple[Callable[..., Any], Callable[[np.ndarray, np.ndarray], bool]]] = {
    "add": (tf.add, lambda x, y: True),
    "subtract": (tf.subtract, lambda x, y: True),
    "multiply": (tf.multiply, lambda x, y: True),
    "divide": (tf.divide, lambda x, y: abs(y).min() > 0.2),
    "maximum": (tf.maximum, lambda x, y: abs(x - y).min() > 1e-3),
    "minimum": (tf.minimum, lambda x, y: abs(x - y).min() > 1e-3),
    "squared_difference": (tf.math.squared_difference, lambda x, y: True),
    "pow": (tf.pow, lambda x, y: x.min() > 0.1 and abs(y).max() < 4),
    "atan2": (tf.atan2, lambda x, y: (x * x + y * y).min() > 0.1),
    "where_greater": (lambda x, y: tf.where(x > y, x, y * 2.0), lambda x, y: True),
}

# Everything else; the settings are keyword arguments.
OTHER: dict[str, Callable[..., Any]] = {
    "scale": lambda x, by: x * tf.constant(by, x.dtype),
    "shift": lambda x, by: x + tf.constant(by, x.dtype),
    "add_n": lambda *xs: tf.add_n(list(xs)),
    "matmul": lambda x, y: tf.matmul(x, y),
    "einsum": lambda *xs, equation: tf.einsum(equation, *xs),
    "reduce_sum": lambda x, axis, keepdims: tf.reduce_sum(x, axis, keepdims),
    "reduce_mean": lambda x, axis, keepdims: tf.reduce_mean(x, axis, keepdims),
    "reduce_max": lambda x, axis, keepdims: tf.reduce_max(x, axis, keepdims),
    "reduce_min": lambda x, axis, keepdims: tf.reduce_min(x, axis, keepdims),
    "reduce_prod": lambda x, axis, keepdims: tf.reduce_prod(x, axis, keepdims),
    "reduce_logsumexp": lambda x, axis, keepdims: tf.reduce_logsumexp(x, axis, keepdims),
    "reduce_variance": lambda x, axis, keepdims: tf.math.reduce_variance(x, axis, keepdims),
    "softmax": lambda x: tf.nn.softmax(x),
    "log_softmax": lambda x: tf.nn.log_softmax(x),
    "cross_entropy": lambda x, labels: tf.nn.sparse_softmax_cross_entropy_with_logits(labels, x),
    "cumsum": lambda x, axis: tf.cumsum(x, axis),
    "cumprod": lambda x, axis: tf.math.cumprod(x, axis),
    "reshape": lambda x, shape: tf.reshape(x, shape),
    "transpose": lambda x, order: tf.transpose(x, order),
    "expand_dims": lambda x, axis: tf.expand_dims(x, axis),
    "broadcast_to": lambda x, shape: tf.broadcast_to(x, shape),
    "tile": lambda x, multiples: tf.tile(x, multiples),
    "pad": lambda x, paddings: tf.pad(x, paddings),
    "slice": lambda x, begin, size: tf.slice(x, begin, size),
    "reverse": lambda x, axis: tf.reverse(x, [axis]),
    "roll": lambda x, shift, axis: tf.roll(x, shift, axis),
    "gather": lambda x, indices: tf.gather(x, indices),
    "clip": lambda x, low, high: tf.clip_by_value(x, tf.cast(low, x.dtype), tf.cast(high, x.dtype)),
    "concat": lambda *xs, axis: tf.concat(list(xs), axis),
    "stack": lambda *xs, axis: tf.stack(list(xs), axis),
    "split": lambda x, sizes, axis: tf.split(x, sizes, axis),
    "unstack": lambda x, axis: tf.unstack(x, axis=axis),
    "top_k": lambda x, k: tf.math.top_k(x, k).values,
    "sort": lambda x: tf.sort(x),
    "norm": lambda x: tf.norm(x),
    "diag_part": lambda x: tf.linalg.diag_part(x),
    "lower_triangle": lambda x: tf.linalg.band_part(x, -1, 0),
    "trace": lambda x: tf.linalg.trace(x),
    "inverse": lambda x: tf.linalg.inv(x),
    "determinant": lambda x: tf.linalg.det(x),
    "solve": lambda x, y: tf.linalg.solve(x, y),
    "conv2d": lambda x, y: tf.nn.conv2d(x, y, 1, "VALID"),
    "max_pool": lambda x: tf.nn.max_pool2d(x, 2, 1, "VALID"),
    "avg_pool": lambda x: tf.nn.avg_pool2d(x, 2, 1, "VALID"),
    "argmax": lambda x: tf.argmax(x, 0),
    "cast_float": lambda x: tf.cast(x, tf.float64),
    "greater": lambda x, y: tf.cast(x > y, tf.float64),
    "zeros_like": lambda x: tf.zeros_like(x),
    "complex": lambda x, y: tf.complex(x, y),
    "real": lambda x: tf.math.real(x),
    "imag": lambda x: tf.math.imag(x),
    "conj": lambda x: tf.math.conj(x),
    "complex_abs": lambda x: tf.abs(x),
    "complex_exp": lambda x: tf.exp(x),
    "complex_square": lambda x: tf.square(x),
    "complex_multiply": lambda x, y: tf.multiply(x, y),
    "complex_divide": lambda x, y: tf.divide(x, y),
    "complex_add": lambda x, y: tf.add(x, y),
}
OPERATIONS = {
    name: function for table in (UNARY, BINARY) for name, (function, _) in table.items()
} | OTHER
# In the derivatives that PyTorch records of these, other tensors lead on than in TensorFlow's: the
# operand instead of the result, or the other way round. That is the operation's matter, not that
# of `gradients`, and shows only in gradients of gradients, where these are left out.
RECORDED_OTHERWISE = (
    *("elu", "selu", "relu6", "tan", "asinh", "expm1", "cumprod", "norm", "determinant", "lgamma"),
    *("reduce_prod", "reduce_logsumexp", "cross_entropy", "complex_abs", "avg_pool", "max_pool"),
)
AFTER_GRADIENTS = ["square", "tanh", "sin", "scale", "multiply", "add", "reduce_sum", "identity"]


@dataclass
class Program:
    """A program as it is built, in TensorFlow's graph and, for the values, beside it."""

    name: str
    inputs: list[int] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)
    graph: tf.Graph = field(default_factory=tf.Graph)
    tensors: list[Any] = field(default_factory=list)  # in the graph; None for a None of gradients
    values: list[Any] = field(default_factory=list)  # eager tensors; None where not known
    recorded: list[bool] = field(default_factory=list)  # may be an x in PyTorch too
    answers: list[list[int]] = field(default_factory=list)

    def add(self, kind: str, value: Any) -> int:
        """The number of a new "variable" or "constant"."""
        value = np.asarray(value)
        value = value.astype(np.complex128 if np.iscomplexobj(value) else np.float64)
        self.steps.append([kind, [], {"shape": list(value.shape), "numbers": flat(value)}])
        if np.iscomplexobj(value):
            self.steps[-1][2]["complex"] = True
        with self.graph.as_default():
            self.tensors.append(tf.constant(value))
        self.values.append(tf.constant(value))
        self.recorded.append(kind == "variable")
        self.inputs.append(len(self.tensors) - 1)
        return len(self.tensors) - 1

    def apply(self, operation: str, operands: Sequence[int], /, **settings: Any) -> list[int]:
        """The numbers of the results, or none if TensorFlow or good sense refuse."""
        values = [self.values[operand] for operand in operands]
        results = [None]
        if all(value is not None for value in values):
            results = OPERATIONS[operation](*values, **settings)
            results = list(results) if isinstance(results, list) else [results]
            if any(not np.all(np.abs(r.numpy()) < 100) or not np.size(r) for r in results):
                return []
        with self.graph.as_default():
            tensors = OPERATIONS[operation](
                *[self.tensors[operand] for operand in operands], **settings
            )
        tensors = list(tensors) if isinstance(tensors, list) else [tensors]
        self.steps.append([operation, list(operands), settings])
        self.tensors += tensors
        self.values += results
        differentiable = operation not in ("argmax", "greater", "zeros_like", "cast_float")
        recorded = differentiable and any(self.recorded[operand] for operand in operands)
        self.recorded += [recorded or operation == "stop_gradient"] * len(tensors)
        return list(range(len(self.tensors) - len(tensors), len(self.tensors)))

    def gradients(self, ys: Sequence[int], xs: Sequence[int], /, **settings: Any) -> list[int]:
        def at(numbers: Any) -> Any:
            return [None if number is None else self.tensors[number] for number in numbers]

        with self.graph.as_default():
            found = tf.compat.v1.gradients(
                at(ys),
                at(xs),
                grad_ys=at(settings["grad_ys"]) if "grad_ys" in settings else None,
                stop_gradients=at(settings.get("stop_gradients", [])),
                unconnected_gradients=settings.get("unconnected_gradients", "none"),
            )
            # IndexedSlices become tensors; what stands twice in found is to be one tensor still.
            dense = {id(g): g if g is None else tf.convert_to_tensor(g) for g in found}
            found = [dense[id(g)] for g in found]
        self.steps.append(["gradients", list(xs), {"ys": list(ys), **settings}])
        self.tensors += found
        self.values += [None] * len(found)
        self.recorded += [False] * len(found)
        numbers = list(range(len(self.tensors) - len(found), len(self.tensors)))
        self.answers.append(numbers)
        return numbers

    def finished(self) -> dict[str, Any] | None:
        """The program with TensorFlow's answers; None if some are too large to compare well."""
        asked = sorted(
            {n for answer in self.answers for n in answer if self.tensors[n] is not None}
        )
        options = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=1, inter_op_parallelism_threads=1
        )
        options.graph_options.rewrite_options.disable_meta_optimizer = True
        with tf.compat.v1.Session(graph=self.graph, config=options) as session:
            results = dict(zip(asked, session.run([self.tensors[n] for n in asked]), strict=True))
        if any(not np.all(np.abs(result) < 1e6) for result in results.values()):
            return None

        return {
            "name": self.name,
            "steps": self.steps,
            "answers": [
                [flat(results[n]) if n in results else None for n in answer]
                for answer in self.answers
            ],
        }


def flat(value: np.ndarray) -> list[float]:
    wide = np.complex128 if np.iscomplexobj(value) else np.float64
    return np.ascontiguousarray(value, wide).reshape(-1).view(np.float64).tolist()


class Generator:
    """Random programs; each leaves out some of the operations, so that all kinds of mixes occur."""

    def __init__(self, seed: int, only: Sequence[str] | None = None) -> None:
        self.random = np.random.default_rng(seed)
        names = [name for name in OPERATIONS if only is None or name in only]
        share = self.random.uniform(0.2, 1.0)
        kept = [name for name in names if self.random.random() < share]
        self.operations = kept or names
        if "stop_gradient" in self.operations:
            # TensorFlow looks for xs upstream of an operation through tf.stop_gradient (see
            # `unused_outputs` in trainer/autograd/paths.py); what is detached, PyTorch cannot see.
            several = ("split", "unstack")
            self.operations = [name for name in self.operations if name not in several]
        self.second_order = self.random.random() < 0.5
        if self.second_order:
            self.operations = [name for name in self.operations if name not in RECORDED_OTHERWISE]
        self.operations = self.operations or ["square", "add"]
        self.with_complex = self.random.random() < 0.15
        self.with_images = self.random.random() < 0.08

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def pick(self, items: Sequence[Any]) -> Any:
        return items[self.random.integers(len(items))]

    def numbers(self, shape: Sequence[int], spread: float = 1.5) -> np.ndarray:
        return np.round(self.random.uniform(-spread, spread, tuple(shape)), 3)

    def program(self, name: str) -> dict[str, Any] | None:
        program = Program(name)
        for _ in range(self.random.integers(1, 5)):
            shape = self.pick([(), (2,), (3,), (2, 3), (3, 2), (3, 3), (2, 2), (1, 3), (2, 1, 2)])
            program.add("variable", self.numbers(shape))
        if self.with_images:
            program.add("variable", self.numbers((1, 4, 3, 2)))
            program.add("variable", self.numbers((2, 2, 2, 2)))
        if self.with_complex:
            shape = self.pick([(), (2,), (2, 2)])
            program.add("variable", self.numbers(shape) + 1j * self.numbers(shape))
        if self.chance(0.3):
            program.add("constant", self.numbers(self.pick([(), (2,), (3,), (2, 3)])))
        for _ in range(self.random.integers(2, 16)):
            self.step(program)
        if not program.steps:
            return None
        if not self.ask(program):
            return None
        if self.second_order and any(program.tensors[n] is not None for n in program.answers[0]):
            for _ in range(self.random.integers(1, 4)):
                self.step_after_gradients(program)
            self.ask(program, again=True)
        elif self.chance(0.3):
            self.ask(program)  # the same graph once more
        return program.finished()

    def step(self, program: Program) -> None:
        for _ in range(20):
            operation = self.pick(self.operations)
            chosen = self.operands(program, operation)
            if chosen is None:
                continue
            operands, settings = chosen
            try:
                if program.apply(operation, operands, **settings):
                    return
            except (tf.errors.InvalidArgumentError, ValueError):
                continue

    def operands(self, program: Program, operation: str) -> tuple[list[int], Settings] | None:
        """Operands where the operation is defined and smooth, and settings; None if not found."""
        known = [n for n, value in enumerate(program.values) if value is not None]
        of_dtype = {
            dtype: [n for n in known if program.values[n].dtype == dtype]
            for dtype in (tf.float64, tf.complex128, tf.int64)
        }
        # The latest values more often: longer paths.
        floats = of_dtype[tf.float64] + of_dtype[tf.float64][-4:] * 2
        if operation == "cast_float":
            integers = of_dtype[tf.int64]
            return ([self.pick(integers)], {}) if integers else None
        if operation in ("real", "imag", "conj") or operation.startswith("complex_"):
            numbers = of_dtype[tf.complex128]
            if not numbers:
                return None
            count = 2 if operation in ("complex_multiply", "complex_divide", "complex_add") else 1
            operands = [self.pick(numbers) for _ in range(count)]
            if operation in ("complex_abs", "complex_divide"):
                if np.abs(program.values[operands[-1]].numpy()).min() < 0.2:
                    return None
            return operands, {}
        if not floats:
            return None
        first = self.pick(floats)
        x: np.ndarray = program.values[first].numpy()
        if operation in UNARY:
            return ([first], {}) if UNARY[operation][1](x) else None

        def second(fits: Callable[[np.ndarray], bool]) -> int | None:
            found = [n for n in floats if fits(program.values[n].numpy())]
            return self.pick(found) if found else None

        if operation in BINARY:
            other = second(lambda y: broadcast(x.shape, y.shape) and BINARY[operation][1](x, y))
            return None if other is None else ([first, other], {})
        if operation in ("complex", "greater"):
            other = second(lambda y: y.shape == x.shape)
            return None if other is None else ([first, other], {})
        if operation in ("scale", "shift"):
            return [first], {"by": float(np.round(self.random.uniform(-1.5, 1.5), 2))}
        if operation in ("zeros_like", "norm"):
            return ([first], {}) if operation == "zeros_like" or abs(x).max() > 0.1 else None
        if operation == "clip":
            low, high = np.round(np.sort(self.random.uniform(-2, 2, 2)), 2)
            smooth = min(abs(x - low).min(), abs(x - high).min()) > 1e-3
            return ([first], {"low": low, "high": high}) if smooth and high > low else None
        if operation == "broadcast_to":
            return [first], {"shape": [int(self.random.integers(1, 3)), *x.shape]}
        if operation == "reshape":
            shape = self.pick([[-1], [1, *x.shape], [*x.shape, 1], list(x.shape[::-1])])
            return [first], {"shape": shape}
        if operation == "expand_dims":
            return [first], {"axis": int(self.random.integers(0, x.ndim + 1))}
        if operation.startswith("reduce_"):
            if operation == "reduce_prod" and (abs(x).min() < 0.1 or x.size > 9):
                return None
            if operation in ("reduce_max", "reduce_min") and not no_ties(x):
                return None
            axis = self.pick([None, *range(x.ndim)])
            if operation == "reduce_variance" and x.size < 2:
                return None
            return [first], {"axis": axis, "keepdims": self.chance(0.3)}
        same = [n for n in floats if program.values[n].shape == program.values[first].shape]
        if operation == "add_n":
            return [self.pick(same) for _ in range(self.random.integers(2, 4))], {}
        if operation == "stack":
            axis = int(self.random.integers(0, x.ndim + 1))
            return [self.pick(same) for _ in range(self.random.integers(1, 4))], {"axis": axis}
        return None if x.ndim == 0 else self.of_arrays(operation, first, x, same, second)

    def of_arrays(
        self,
        operation: str,
        first: int,
        x: np.ndarray,
        same: list[int],
        second: Callable[[Callable[[np.ndarray], bool]], int | None],
    ) -> tuple[list[int], Settings] | None:
        """The rest of `operands`: operations on what has at least one dimension."""
        axis = int(self.random.integers(0, x.ndim))
        length = x.shape[axis]
        if operation in ("softmax", "log_softmax"):
            return [first], {}
        if operation == "cross_entropy":
            labels = self.random.integers(0, x.shape[-1], x.shape[:-1]).tolist()
            return ([first], {"labels": labels}) if x.ndim == 2 else None
        if operation == "cumsum":
            return [first], {"axis": axis}
        if operation == "cumprod":
            return ([first], {"axis": axis}) if abs(x).min() > 0.1 else None
        if operation == "transpose":
            return [first], {"order": self.random.permutation(x.ndim).tolist()}
        if operation == "tile":
            return [first], {"multiples": self.random.integers(1, 3, x.ndim).tolist()}
        if operation == "pad":
            return [first], {"paddings": self.random.integers(0, 2, (x.ndim, 2)).tolist()}
        if operation == "slice":
            begin = [int(self.random.integers(0, size)) for size in x.shape]
            size = [
                int(self.random.integers(1, size - b + 1))
                for size, b in zip(x.shape, begin, strict=True)
            ]
            return [first], {"begin": begin, "size": size}
        if operation == "reverse":
            return [first], {"axis": axis}
        if operation == "roll":
            return [first], {"shift": int(self.random.integers(-2, 3)), "axis": axis}
        if operation == "gather":
            indices = self.random.integers(0, len(x), self.random.integers(1, 5)).tolist()
            return [first], {"indices": indices}
        if operation == "concat":
            return [self.pick(same) for _ in range(self.random.integers(2, 4))], {"axis": axis}
        if operation == "split":
            if length < 2:
                return None
            cut = int(self.random.integers(1, length))
            return [first], {"sizes": [cut, length - cut], "axis": axis}
        if operation == "unstack":
            return [first], {"axis": axis}
        if operation == "top_k":
            if not no_ties(x):
                return None
            return [first], {"k": int(self.random.integers(1, x.shape[-1] + 1))}
        if operation in ("sort", "argmax"):
            return ([first], {}) if no_ties(x) else None
        if operation == "matmul":
            other = second(lambda y: x.ndim == y.ndim == 2 and x.shape[1] == y.shape[0])
            return None if other is None else ([first, other], {})
        if operation == "einsum":
            if x.ndim != 2:
                return None
            equation = self.pick(["ij,ij->i", "ij,ik->jk", "ij,j->i", "ij,i->", "ij->ji", "ii->i"])
            if "," not in equation:
                return [first], {"equation": equation}
            letters = dict(zip("ij", x.shape, strict=True))
            asked = equation.split(",")[1].split("->")[0]
            other = second(
                lambda y: (
                    y.ndim == len(asked)
                    and all(
                        letters.get(c, size) == size for c, size in zip(asked, y.shape, strict=True)
                    )
                )
            )
            return None if other is None else ([first, other], {"equation": equation})
        if operation in ("conv2d", "max_pool", "avg_pool"):
            if x.ndim != 4 or min(x.shape[1:3]) < 2:
                return None
            if operation != "conv2d":
                return ([first], {}) if operation == "avg_pool" or no_ties(x) else None
            other = second(lambda y: y.ndim == 4 and y.shape[:3] == (2, 2, x.shape[3]))
            return None if other is None else ([first, other], {})
        if x.ndim != 2 or x.shape[0] != x.shape[1]:
            return None
        if operation in ("diag_part", "lower_triangle", "trace"):
            return [first], {}
        if np.linalg.cond(x) > 20:
            return None
        if operation in ("inverse", "determinant"):
            return [first], {}
        if operation == "solve":
            other = second(lambda y: y.ndim == 2 and y.shape[0] == x.shape[0])
            return None if other is None else ([first, other], {})
        raise AssertionError(operation)

    def step_after_gradients(self, program: Program) -> None:
        """A step on what gradients found, of which the values are not known yet."""
        floats = [
            n
            for n, tensor in enumerate(program.tensors)
            if tensor is not None and tensor.dtype == tf.float64
        ]
        unknown = [n for n in floats if program.values[n] is None]
        if not unknown:
            return
        first = self.pick(unknown)
        operation = self.pick(AFTER_GRADIENTS)
        if operation in ("multiply", "add"):
            shape = program.tensors[first].shape
            program.apply(
                operation,
                [first, self.pick([n for n in floats if program.tensors[n].shape == shape])],
            )
        elif operation == "scale":
            program.apply(operation, [first], by=0.7)
        elif operation == "reduce_sum":
            program.apply(operation, [first], axis=None, keepdims=False)
        else:
            program.apply(operation, [first])

    def ask(self, program: Program, again: bool = False) -> bool:
        """Adds a call of gradients with arguments of all kinds; False if nothing can be asked."""
        tensors = program.tensors
        there = [n for n, tensor in enumerate(tensors) if tensor is not None]
        inputs = program.inputs
        xs_from = [n for n in there if program.recorded[n]]
        ys_from = [n for n in there if tensors[n].dtype.is_floating or tensors[n].dtype.is_complex]
        if not self.second_order:
            ys_from = [n for n in ys_from if program.values[n] is not None]
        late = [n for n in ys_from if n not in inputs] or ys_from
        late = late[-6:] if not again else late[-4:]
        ys = [self.pick(late) for _ in range(self.pick([1, 1, 2, 3]))]
        if self.chance(0.15):
            ys.append(self.pick(ys_from))
        xs = [self.pick(xs_from) for _ in range(self.pick([0, 1, 1, 2, 3]))]
        if self.chance(0.8) or not xs:
            xs += [n for n in inputs if program.recorded[n] and self.chance(0.8)]
        if self.chance(0.1):
            integers = [n for n in there if tensors[n].dtype.is_integer]
            xs += integers[:1]
        if self.chance(0.1):
            xs += [y for y in ys if program.recorded[y]][:1]
        if self.chance(0.15) and xs:
            xs.append(self.pick(xs))
        if not xs:
            return False
        xs = [xs[i] for i in self.random.permutation(len(xs))]
        settings: Settings = {}
        if self.chance(0.5) or any(tensors[y].dtype.is_complex for y in ys):
            settings["grad_ys"] = [self.weight(program, y) for y in ys]
        if self.chance(0.5):
            among = [n for n in there if n not in inputs or self.chance(0.3)] or there
            if again and self.chance(0.5):
                among = [n for n in among if program.values[n] is None] or among
            settings["stop_gradients"] = [self.pick(among) for _ in range(self.pick([1, 1, 2, 3]))]
            if self.chance(0.2):
                settings["stop_gradients"] += xs
            if self.chance(0.1):
                settings["stop_gradients"].append(ys[0])
        if self.chance(0.3):
            settings["unconnected_gradients"] = "zero"
        program.gradients(ys, xs, **settings)
        return True

    def weight(self, program: Program, y: int) -> int | None:
        tensor = program.tensors[y]
        if self.chance(0.35) and not tensor.dtype.is_complex:
            return None
        same = [
            n
            for n, other in enumerate(program.tensors)
            if other is not None and other.shape == tensor.shape and other.dtype == tensor.dtype
        ]
        if self.chance(0.2):
            return self.pick(same)
        shape = tensor.shape.as_list()
        if tensor.dtype.is_complex:
            return program.add("constant", self.numbers(shape) + 1j * self.numbers(shape))
        return program.add("constant", self.numbers(shape))


def broadcast(a: Sequence[int], b: Sequence[int]) -> bool:
    try:
        return np.prod(np.broadcast_shapes(tuple(a), tuple(b))) <= 24
    except ValueError:
        return False


def no_ties(x: np.ndarray) -> bool:
    return x.size < 2 or bool(np.diff(np.sort(x, axis=None)).min() > 1e-4)


def documented() -> list[Program]:
    """The examples of TensorFlow's documentation, and what a reader of it would try next."""
    programs = []

    def example(name: str) -> Program:
        programs.append(Program(name))
        return programs[-1]

    for name, asked in {
        "tf.gradients: partial derivatives with stop_gradients": {"stop": True},
        "tf.gradients: total derivatives": {"stop": False},
    }.items():
        p = example(name)
        a = p.add("variable", 0.0)
        (b,) = p.apply("scale", [a], by=2.0)
        (y,) = p.apply("add", [a, b])
        p.gradients([y], [a, b], **({"stop_gradients": [a, b]} if asked["stop"] else {}))

    p = example("tf.gradients: the same with tf.stop_gradient")
    (a,) = p.apply("stop_gradient", [p.add("variable", 0.0)])
    (b,) = p.apply("stop_gradient", p.apply("scale", [a], by=2.0))
    p.gradients(p.apply("add", [a, b]), [a, b])

    p = example("tf.gradients: tf.stop_gradient and stop_gradients, whichever comes first")
    a = p.add("variable", 3.0)
    (b,) = p.apply("square", [a])
    (c,) = p.apply("stop_gradient", [b])
    (y,) = p.apply("multiply", [c, b])
    p.gradients([y], [a, b, c])
    p.gradients([y], [a, b, c], stop_gradients=[b])
    p.gradients([y], [a, b, c], stop_gradients=[c])

    p = example("tf.gradients: unconnected_gradients")
    a, b = p.add("variable", np.ones([1, 2])), p.add("variable", np.ones([3, 1]))
    p.gradients([b], [a], unconnected_gradients="none")
    p.gradients([b], [a], unconnected_gradients="zero")
    p.gradients([b], [a, b, a], unconnected_gradients="zero")

    p = example("tf.gradients: cost, Ws and bs")
    weights = p.add("variable", 0.0)
    (bias,) = p.apply("scale", [weights], by=2.0)
    p.gradients(p.apply("add", [weights, bias]), [weights, bias])

    p = example("tf.gradients: a different weight for each value of each y")
    x = p.add("variable", [1.0, 2.0, 3.0])
    (y,), (z,) = p.apply("square", [x]), p.apply("exp", [x])
    one, other = p.add("constant", [1.0, 0.0, 2.0]), p.add("constant", [0.5, -1.0, 0.0])
    p.gradients([y, z], [x], grad_ys=[one, other])
    p.gradients([y, z], [x], grad_ys=[None, other])

    p = example("tf.gradients: all integer tensors are constant")
    x = p.add("variable", [3.0, 1.0, 2.0])
    (i,) = p.apply("argmax", [x])
    (y,) = p.apply("multiply", [x, *p.apply("cast_float", [i])])
    p.gradients([y], [i, x])
    p.gradients([y], [i, x], unconnected_gradients="zero")
    p.gradients([i], [i, x])

    p = example("tf.stop_gradient: softmax cross entropy with constant labels")
    logits, scores = p.add("variable", [0.3, -0.2, 0.9]), p.add("variable", [0.1, 0.5, -0.4])
    (labels,) = p.apply("stop_gradient", p.apply("softmax", [scores]))
    (loss,) = p.apply("multiply", [labels, *p.apply("log_softmax", [logits])])
    (loss,) = p.apply("negative", p.apply("reduce_sum", [loss], axis=None, keepdims=False))
    p.gradients([loss], [logits, labels, scores])

    p = example("tf.hessians: a gradient of a gradient")
    x = p.add("variable", [1.0, -2.0])
    (y,) = p.apply(
        "reduce_sum",
        p.apply("pow", p.apply("shift", p.apply("square", [x]), by=1.0) + [p.add("constant", 1.5)]),
        axis=None,
        keepdims=False,
    )
    (first,) = p.gradients([y], [x])
    (product,) = p.apply("multiply", [first, p.add("constant", [0.5, 2.0])])
    p.gradients([product], [x])

    p = example("an operation with several outputs, of which one is used, stopped or asked for")
    x = p.add("variable", [1.0, 2.0, 3.0])
    a, b = p.apply("split", [x], sizes=[1, 2], axis=0)
    (y,) = p.apply("exp", [a])
    (both,) = p.apply("add", [a, b])
    for ys, xs in (([y], [b]), ([y], [b, x]), ([y, both], [a, b, x])):
        for settings in ({}, {"stop_gradients": [b]}, {"unconnected_gradients": "zero"}):
            p.gradients(ys, xs, **settings)

    p = example("a weight that comes back as a gradient is not the same tensor")
    x = p.add("variable", [1.0, 2.0])
    (weight,) = p.apply("square", [x])
    (y,) = p.apply("shift", [x], by=1.0)
    (found,) = p.gradients([y], [x], grad_ys=[weight])
    p.gradients([found, weight], [weight, x], stop_gradients=[found])
    p.gradients([found, weight], [weight, x], stop_gradients=[weight])

    p = example("a fit of two points by a line: the gradients of its cost")
    weight, bias = p.add("variable", 1.6649098), p.add("variable", 0.54648024)
    x, target = p.add("constant", [[2.0], [3.0]]), p.add("constant", [[3.0], [2.0]])
    (fit,) = p.apply("add", [*p.apply("multiply", [weight, x]), bias])
    (error,) = p.apply("squared_difference", [fit, target])
    (cost,) = p.apply("scale", p.apply("reduce_sum", [error], axis=None, keepdims=False), by=0.5)
    p.gradients([cost], [weight, bias])
    p.gradients([error], [weight, bias], grad_ys=[p.add("constant", [[0.5], [0.5]])])
    return programs


def random_programs(count: int, seed: int, only: Sequence[str] | None) -> list[dict[str, Any]]:
    programs: list[dict[str, Any]] = []
    attempt = 0
    while len(programs) < count:
        name = f"random {seed}.{attempt}"
        generator = Generator(seed * 1_000_000 + attempt, only)
        attempt += 1
        try:
            program = generator.program(name)
        except LookupError:  # an operation whose second derivative TensorFlow does not have
            continue
        if program is not None:
            programs.append(program)
    return programs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=1200, help="number of random programs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="operations to choose from (default: all)")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    examples = [program.finished() for program in documented()]
    programs = examples + random_programs(arguments.programs, arguments.seed, arguments.only)
    text = json.dumps({"tensorflow": tf.__version__, "programs": programs}, separators=(",", ":"))
    with arguments.output.open("wb") as file:  # no time of writing: the same bytes each time
        file.write(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
