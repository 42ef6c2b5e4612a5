"""What `gradients` says about arguments that it cannot use."""

import re

import numpy as np
import pytest
import torch

from trainer.autograd import gradients, per_sample_gradients

X = torch.tensor([1.0, 2.0], requires_grad=True)
Y = X.square()
COMPLEX = X * torch.tensor([1j, 2.0])


def says(error, text, *arguments, **keys):
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        gradients(*arguments, **keys)


@pytest.mark.parametrize("argument", ["ys", "xs", "stop_gradients"])
def test_what_is_not_a_tensor(argument):
    arguments = {"ys": Y, "xs": X}
    flat = f"not a tensor ({argument} is a tensor or a flat list of tensors)"
    for wrong, text in [
        (2.0, f"{argument} is a float, not a tensor or a list of tensors"),
        ("ab", f"{argument} is a str, not a tensor or a list of tensors"),
        (
            {"a": X},
            f"{argument} is a dict, not a tensor or a list of tensors: list({argument}.values())?",
        ),
        ([X, None], f"{argument}[1] is a NoneType, {flat}"),
        ([[X], X], f"{argument}[0] is a list, {flat}"),
    ]:
        says(TypeError, text, **{**arguments, argument: wrong})


def test_x_that_does_not_require_grad():
    text = (
        "xs[1] (shape (2,)) does not require grad, so what depends on it was not recorded: "
        "call .requires_grad_() on it before computing ys from it"
    )
    for constant in (X.detach(), torch.ones(2), torch.ones(2, dtype=torch.complex64)):
        says(ValueError, text, Y, [X, constant])
        says(ValueError, text, constant, [X, constant], torch.ones_like(constant))
        says(ValueError, text, Y, [X, constant], unconnected_gradients="zero", stop_gradients=X)


def test_grad_ys_of_wrong_length():
    text = "grad_ys has length {}, but ys has length {}: give a tensor or None for each y"
    says(ValueError, text.format(2, 1), Y, X, [None, None])
    says(ValueError, text.format(1, 2), [Y, Y], X, torch.ones(2))
    says(ValueError, text.format(0, 1), [Y], X, [])


def test_grad_ys_of_wrong_shape():
    text = (
        "grad_ys[1] has shape {}, but ys[1] has shape (2,): give one weight for each of its values"
    )
    for shape in ((), (1,), (3,), (2, 1)):
        says(ValueError, text.format(shape), [Y, Y], X, [None, torch.ones(shape)])
    says(ValueError, text.format("()"), [Y, Y], X, [None, 2.0])


def test_grad_ys_of_wrong_dtype():
    text = (
        "grad_ys[0] has dtype {}, but ys[0] has dtype torch.float32: "
        "convert it with .to(ys[0].dtype)"
    )
    says(TypeError, text.format("torch.float64"), Y, X, torch.ones(2).double())
    says(TypeError, text.format("torch.float64"), Y, X, np.ones(2))
    says(TypeError, text.format("torch.int64"), Y, X, [torch.ones(2).long()])
    says(TypeError, text.format("torch.complex64"), Y, X, torch.ones(2) * 1j)
    complex_y = "grad_ys[0] has dtype torch.float32, but ys[0] has dtype torch.complex64: "
    says(TypeError, complex_y + "convert it with .to(ys[0].dtype)", COMPLEX, X, torch.ones(2))


def test_grad_ys_that_are_no_weights():
    with pytest.raises(
        TypeError, match=r"^grad_ys\[0\] is a list that no tensor of torch.float32 "
    ):
        gradients(Y, X, [["a", "b"]])
    with pytest.raises(
        TypeError, match=r"^grad_ys\[1\] is a dict that no tensor of torch.float32 "
    ):
        gradients([Y, Y], X, [None, {}])


def test_complex_y_without_weight():
    text = (
        "ys[1] is complex (torch.complex64), for which there is no default weight: give grad_ys[1]"
    )
    says(TypeError, text, [Y, COMPLEX], X)
    says(TypeError, text, [Y, COMPLEX], X, [torch.ones(2), None])


def test_batches_of_wrong_shape():
    leading = (
        "batched=True needs grad_ys in which at least one tensor has a leading dimension "
        "(the number of products) before the shape of its y"
    )
    says(ValueError, leading, Y, X, batched=True)
    says(ValueError, leading, Y, X, [None], batched=True)
    text = "grad_ys[{}] has shape {}, but ys[{}] has shape (2,): batched=True needs shape (3, 2)"
    says(
        ValueError,
        text.format(1, (2, 2), 1),
        [Y, Y],
        X,
        [torch.ones(3, 2), torch.ones(2, 2)],
        batched=True,
    )
    says(ValueError, text.format(0, (3,), 0), Y, X, torch.ones(3), batched=True)


def test_options_that_tensorflow_does_not_have():
    says(TypeError, "name is a NoneType, not a string", Y, X, name=None)
    says(
        TypeError,
        "colocate_gradients_with_ops is 'yes', not True or False",
        Y,
        X,
        colocate_gradients_with_ops="yes",
    )
    says(TypeError, "gate_gradients is 2, not True or False", Y, X, gate_gradients=2)
    for wrong in (3, "ADD_N"):
        says(
            ValueError,
            f"aggregation_method is {wrong!r}, not None or one of 0 (DEFAULT), "
            "0 (ADD_N), 1 (EXPERIMENTAL_TREE), 2 (EXPERIMENTAL_ACCUMULATE_N)",
            Y,
            X,
            aggregation_method=wrong,
        )
    for wrong in ("zeros", None, True):
        says(
            ValueError,
            f"unconnected_gradients is {wrong!r}, not 'none' or 'zero'",
            Y,
            X,
            unconnected_gradients=wrong,
        )


@pytest.mark.parametrize(
    "losses, found", [(torch.tensor(1.0, requires_grad=True), "a scalar"), ([Y], "a list")]
)
def test_losses_that_are_no_vector(losses, found):
    text = f"losses must be a tensor with one value for each sample, not {found}"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        per_sample_gradients(losses, X)
