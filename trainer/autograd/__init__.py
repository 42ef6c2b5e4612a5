"""What is the derivative of these tensors with respect to those: tf.gradients for PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor
from torch._C._autograd import _profiler_enabled
from torch.autograd.graph import _engine_run_backward
from torch.overrides import has_torch_function
from torch.profiler import record_function

from trainer.autograd.arguments import (
    AggregationMethod,
    UnconnectedGradients,
    Weights,
    as_tensors,
    as_weights,
    check_options,
    differentiable_positions,
)
from trainer.autograd.paths import Paths, closed, unused_outputs

__all__ = ["AggregationMethod", "UnconnectedGradients", "gradients", "per_sample_gradients"]

_NO_RANGE = nullcontext()


def gradients(
    ys: Tensor | Iterable[Tensor],
    xs: Tensor | Iterable[Tensor],
    grad_ys: Weights = None,
    name: str = "gradients",
    colocate_gradients_with_ops: bool = False,
    gate_gradients: bool = False,
    aggregation_method: int | None = None,
    stop_gradients: Tensor | Iterable[Tensor] | None = None,
    unconnected_gradients: str | UnconnectedGradients = "none",
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    batched: bool = False,
) -> list[Tensor | None]:
    """For each x the sum over all ys of dy/dx, each y weighted by its grad_ys; None if unconnected.

    The arguments and their order are those of tf.gradients (TensorFlow 1); the keywords are ours.

    argument               TensorFlow                          here
    ---------------------  ----------------------------------  -----------------------------------
    ys, xs                 a tensor or a flat list; repeated,  the same, or any iterable; tensors
                           intermediate, upstream of another,  as they are now, after operations
                           at once a y and an x: all allowed   in place
    x is a plain constant  its gradient, or None               ValueError unless it requires grad:
                                                               PyTorch cannot know what used it
    x is an integer        None                                None and a UserWarning
    grad_ys                None (ones) or a list with a        the same, no broadcasting; arrays are
                           weight for each value of each y,    converted; a wrong length or shape
                           or None; shapes may broadcast       is a ValueError, dtype a TypeError
    y is complex           TypeError unless weighted           the same; both conjugate gradients
    name                   scope of the new operations         range in torch.profiler
    colocate_gradients_    derivatives run on the device of    no effect: autograd always does so
      with_ops             their operations
    gate_gradients         an operation's gradients are used   no effect: autograd computes them
                           only when all are there             together
    aggregation_method     how gradients that meet are added   no effect: they are added as they
                                                               come, as EXPERIMENTAL_ACCUMULATE_N
    stop_gradients         tensors taken as constants, with    the same: an operation is a node of
                           all outputs of their operation; an  the graph (see grad_fn)
                           x among them has its own gradient
    unconnected_gradients  None or zeros                       the same; "none", "zero" or the enum
    an output of split     None, but zeros if an x lies        the same
      that no y uses       upstream and another is used
    gather, embedding      IndexedSlices                       a sparse tensor with sparse=True
    the graph              stays                               is freed, but for retain_graph=True

    create_graph records the derivative itself, for gradients of gradients. retain_graph is torch's;
    its default is create_graph. With batched every entry of grad_ys has a leading dimension K, the
    same for all, and so has every gradient: K products with the Jacobian in one vectorised pass.

    Whether an operation has a derivative is its own matter: tf.floor has none, torch.floor zeros.
    Like those of torch.autograd.grad, gradients may share memory with each other and with grad_ys.
    `.grad` of leaves and the graph itself stay as they are, also after an exception.
    """
    outputs, inputs = as_tensors(ys, "ys"), as_tensors(xs, "xs")
    weights = as_weights(outputs, grad_ys, batched, create_graph)
    stops = [] if stop_gradients is None else as_tensors(stop_gradients, "stop_gradients")
    check_options(
        name,
        colocate_gradients_with_ops,
        gate_gradients,
        aggregation_method,
        unconnected_gradients,
    )
    product: Callable[..., Sequence[Tensor | None]]
    if batched or has_torch_function((*outputs, *inputs)):
        product = partial(
            torch.autograd.grad,
            retain_graph=retain_graph,
            create_graph=create_graph,
            allow_unused=True,
            is_grads_batched=batched,
        )
    else:
        product = partial(
            _grad, create_graph if retain_graph is None else retain_graph, create_graph
        )
    recorded = outputs and inputs and False not in [t.requires_grad for t in outputs + inputs]
    # record_function costs microseconds even when no profiler listens.
    with record_function(name) if _profiler_enabled() else _NO_RANGE:
        if recorded and not stops:
            found: list[Tensor | None] = list(product(outputs, inputs, weights))
        else:
            found = _selected(outputs, inputs, weights, stops, product)

    missing = [position for position, gradient in enumerate(found) if gradient is None]
    if missing and unconnected_gradients != UnconnectedGradients.ZERO:
        missing = unused_outputs(missing, inputs, outputs, stops)
    for position in missing:
        x = inputs[position]
        found[position] = (
            torch.zeros_like(x) if not batched else x.new_zeros((len(weights[0]), *x.shape))
        )
    return found


def _grad(
    retain_graph: bool,
    create_graph: bool,
    ys: Sequence[Tensor],
    xs: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> Sequence[Tensor | None]:
    """What torch.autograd.grad does once it has checked its arguments, as `as_weights` has here.

    To compare shapes torch.autograd.grad imports torch.fx's symbolic ones and with them sympy,
    which makes the first step wait a third as long as importing torch.
    """
    return _engine_run_backward(
        tuple(ys), tuple(weights), retain_graph, create_graph, tuple(xs),
        allow_unreachable=True, accumulate_grad=False,
    )  # fmt: skip


def _selected(
    ys: list[Tensor],
    xs: list[Tensor],
    weights: list[Tensor],
    stops: list[Tensor],
    product: Callable[..., Sequence[Tensor | None]],
) -> list[Tensor | None]:
    """The gradients where some ys or xs are constant, or where some tensors are to be stopped."""
    found: list[Tensor | None] = [None] * len(xs)
    wanted = differentiable_positions(xs, ys)
    for position in set(range(len(xs))) - set(wanted):
        itself = [w for y, w in zip(ys, weights, strict=True) if y is xs[position]]
        if itself:  # even an integer y has this derivative
            found[position] = torch.stack(itself).sum(0, dtype=itself[0].dtype)
    starts = [(y, weight) for y, weight in zip(ys, weights, strict=True) if y.requires_grad]
    paths = Paths([y for y, _ in starts], stops)
    wanted = [position for position in wanted if paths.lead_to(xs[position])]
    if wanted:
        with closed(paths.to_close(), [y for y, _ in starts]) as stand_ins:
            products = product(
                stand_ins, [xs[position] for position in wanted], [weight for _, weight in starts]
            )
        for position, gradient in zip(wanted, products, strict=True):
            found[position] = gradient
    return found


def per_sample_gradients(
    losses: Tensor,
    xs: Tensor | Iterable[Tensor],
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> list[Tensor | None]:
    """The gradient of every sample's loss alone, for each x: shape (B, *x.shape), or None.

    losses is a vector (B,), one value per sample; of any further dimensions the sum is taken. The
    samples need not be independent (batch normalisation): row i is d losses[i] / dx, in full.

    It is B products with the Jacobian in one vectorised pass, in B times the memory of one. For
    independent samples torch.func.vmap(torch.func.grad(...)) does less (a fifth of the time for ten
    layers of 256 and B = 64), but it needs the loss as a function of one sample.
    """
    if not isinstance(losses, Tensor) or losses.dim() == 0:
        raise ValueError(
            "losses must be a tensor with one value for each sample, "
            f"not a {'scalar' if isinstance(losses, Tensor) else type(losses).__name__}"
        )
    samples = len(losses)
    if samples == 0:  # a product with no rows, which autograd does not batch
        none = gradients(losses, xs, create_graph=create_graph, retain_graph=retain_graph)
        return [None if each is None else each.new_zeros((0, *each.shape)) for each in none]
    each = torch.eye(samples, dtype=losses.dtype, device=losses.device)
    each = each.reshape(samples, samples, *[1] * (losses.dim() - 1)).expand(-1, *losses.shape)
    return gradients(
        losses,
        xs,
        each,
        name="per_sample_gradients",
        create_graph=create_graph,
        retain_graph=retain_graph,
        batched=True,
    )
