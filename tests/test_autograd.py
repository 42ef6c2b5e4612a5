"""What `gradients` returns, and that it leaves everything as it was."""

import threading

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.utils.checkpoint import checkpoint

from trainer.autograd import (
    AggregationMethod,
    UnconnectedGradients,
    gradients,
    per_sample_gradients,
)


def leaf(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def bare(ys, xs, weights):
    return torch.autograd.grad(ys, xs, weights, retain_graph=True, allow_unused=True)


def same(ours, expected):
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


class Tripled(torch.autograd.Function):
    """Three times x, with a derivative that is an error while `fails` is set."""

    fails = False

    @staticmethod
    def forward(ctx, x):
        return x * 3

    @staticmethod
    def backward(ctx, gradient):
        if Tripled.fails:
            raise RuntimeError("no derivative today")
        return gradient * 3


class Undefined(torch.autograd.Function):
    """x, with a derivative that is nan for every gradient, zero included."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 0


# The line through two points: Y = W X + b


def test_line_has_the_gradients_of_its_formulas():
    x, y = torch.tensor([[2.0], [3.0]]), torch.tensor([[3.0], [2.0]])
    weight = torch.tensor(1.6649098, requires_grad=True)
    bias = torch.tensor(0.54648024, requires_grad=True)
    error = weight * x + bias - y
    cost = 0.5 * error.square().sum()
    assert cost.item() == pytest.approx(6.6540337, rel=1e-7)
    found = gradients(cost, [weight, bias], retain_graph=True)
    assert [g.item() for g in found] == pytest.approx([12.376228, 4.4175096], rel=1e-7)
    by_hand = [(error * x).sum().item(), error.sum().item()]
    assert [g.item() for g in found] == pytest.approx(by_hand, rel=1e-6)
    # The same from the errors' squares, one for each sample, with the weight in grad_ys.
    halves = torch.full((2, 1), 0.5)
    same(gradients(error.square(), [weight, bias], grad_ys=halves), found)


# grad_ys, ys, xs

shapes = st.sampled_from([(), (3,), (2, 3)])
numbers = st.floats(-2, 2, allow_subnormal=False)


def network(seed, shape):
    """Two ys of that shape from three xs, one of them unused by the first y."""
    generator = torch.Generator().manual_seed(seed)
    xs = [torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(3)]
    a, b, c = (x.requires_grad_() for x in xs)
    return [(a * b).tanh(), (b + c.exp()).sin() * a], [a, b, c], generator


def close(one, other):
    for left, right in zip(one, other, strict=True):
        left = torch.zeros_like(right) if left is None else left
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), shapes, numbers, numbers)
def test_linear_in_grad_ys(seed, shape, p, q):
    ys, xs, generator = network(seed, shape)
    u, v = (
        [torch.randn(shape, dtype=torch.float64, generator=generator) for _ in ys] for _ in "uv"
    )
    of_u = gradients(ys, xs, u, retain_graph=True)
    of_v = gradients(ys, xs, v, retain_graph=True)
    combined = gradients(ys, xs, [p * a + q * b for a, b in zip(u, v, strict=True)])
    close(combined, [p * a + q * b for a, b in zip(of_u, of_v, strict=True)])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), shapes)
def test_additive_over_ys(seed, shape):
    (first, second), xs, _ = network(seed, shape)
    zero = {"unconnected_gradients": "zero", "retain_graph": True}
    together = gradients([first, second, first], xs, **zero)
    apart = [gradients(y, xs, **zero) for y in (first, second, first)]
    close(together, [sum(parts) for parts in zip(*apart, strict=True)])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), shapes, numbers)
def test_scaling_y_scales_the_gradients(seed, shape, factor):
    ys, xs, _ = network(seed, shape)
    once = gradients(ys, xs, retain_graph=True)
    close(gradients([factor * y for y in ys], xs), [factor * g for g in once])


def test_grad_ys_may_be_numbers_arrays_and_none():
    x = leaf(1.0, 2.0)
    y, z = x.square(), x.sum()
    grad_ys = [[3.0, 4.0], None]
    same(gradients([y, z], x, grad_ys, retain_graph=True), [torch.tensor([7.0, 17.0]).double()])
    array = torch.tensor([3.0, 4.0]).double().numpy()
    same(gradients(y, x, array, retain_graph=True), [torch.tensor([6.0, 16.0]).double()])
    same(gradients(z, x, 2.0), [torch.tensor([2.0, 2.0]).double()])


def test_xs_may_be_repeated_intermediate_upstream_of_each_other_and_ys():
    x = leaf(1.0, 2.0)
    h = x.exp()
    y = h.square()
    found = gradients([y, h, x, h], [h, x, y, x, h])
    of_h = 2 * h + 2
    same(found, [of_h, of_h * h + 1, torch.ones(2).double(), of_h * h + 1, of_h])


def test_any_iterable_of_xs():
    model = torch.nn.Linear(2, 1).double()
    loss = model(torch.ones(3, 2).double()).sum()
    expected = bare(loss, list(model.parameters()), None)
    same(gradients(loss, model.parameters(), retain_graph=True), expected)
    same(gradients((loss,), tuple(model.parameters())), expected)
    assert gradients(leaf(1.0), []) == []


def test_constant_ys_lead_nowhere():
    x = leaf(1.0)
    with torch.no_grad():
        y = x * 2
    assert gradients(y, x) == [None]
    assert gradients([], x) == [None]
    assert gradients([y, torch.ones(2)], x) == [None]
    same(gradients([y, x * 2], x), [torch.tensor([2.0]).double()])
    same(gradients(y, x, unconnected_gradients="zero"), [torch.zeros(1).double()])


def test_unconnected_zero_has_the_shape_and_dtype_of_x():
    x = torch.ones(2, 3, dtype=torch.float32, requires_grad=True)
    z = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    for zero in ("zero", UnconnectedGradients.ZERO):
        found = gradients(leaf(1.0), [x, z], unconnected_gradients=zero)
        same(found, [torch.zeros(2, 3), torch.zeros(2, dtype=torch.complex64)])
    for none in ("none", UnconnectedGradients.NONE):
        assert gradients(leaf(1.0), [x, z], unconnected_gradients=none) == [None, None]


def test_integer_xs_have_none_and_a_warning():
    x = leaf(3.0, 1.0)
    index = x.argmax()
    y = x[index]
    with pytest.warns(UserWarning, match=r"xs\[1\] has dtype torch.int64"):
        found = gradients(y, [x, index], retain_graph=True)
    same(found, [torch.tensor([1.0, 0.0]).double(), None])
    with pytest.warns(UserWarning, match="only floating-point and complex"):
        found = gradients(y, [index], unconnected_gradients="zero")
    same(found, [torch.tensor(0)])
    same(gradients([index, index], index), [torch.tensor(2)])  # by itself, as in TensorFlow


def test_complex_gradients_are_conjugated():
    z = torch.tensor([1 + 2j, -0.5j], requires_grad=True)
    weight = torch.tensor([2 - 1j, 1 + 1j])
    same(gradients(z**2, z, weight), [weight * (2 * z).conj()])
    same(gradients(z.abs().square(), z), [2 * z])


def test_sparse_embedding_has_a_sparse_gradient():
    dense = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([0, 2, 2])

    def looked_up(sparse):
        return torch.nn.functional.embedding(rows, dense, sparse=sparse).exp()

    (found,) = gradients(looked_up(True), dense)
    assert found.is_sparse
    same([found.to_dense()], gradients(looked_up(False), dense))
    (both,) = gradients([looked_up(True), dense.square()], dense)
    same([both], gradients([looked_up(False), dense.square()], dense))


def test_low_precision():
    x = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    (found,) = gradients(x * 2, x, torch.full((3,), 4.0, dtype=torch.bfloat16))
    assert found.dtype == torch.bfloat16 and found.tolist() == [8.0] * 3


# stop_gradients


def test_partial_derivatives():
    a = leaf(0.0)
    b = 2 * a
    same(gradients(a + b, [a, b], retain_graph=True), [leaf(3.0).detach(), leaf(1.0).detach()])
    same(gradients(a + b, [a, b], stop_gradients=[a, b]), [leaf(1.0).detach()] * 2)


def test_only_path_stopped_is_unconnected():
    x = leaf(1.0)
    h = x * 2
    y = h.exp()
    keep = {"stop_gradients": [h], "retain_graph": True}
    assert gradients(y, [x], **keep) == [None]
    same(gradients(y, [x], unconnected_gradients="zero", **keep), [torch.zeros(1).double()])
    same(gradients([y, h, x], [h, x], **keep), [y + 1, torch.ones(1).double()])
    same(gradients(y, [y, h], stop_gradients=y, retain_graph=True), [torch.ones(1).double(), None])


def run(program, x, detached=()):
    """The intermediate results of a program, those numbered in `detached` made constant.

    A program is a list of (operation, operand, operand); result 0 is x.
    """
    results = [x]
    for operation, left, right in program:
        a, b = results[left % len(results)], results[right % len(results)]
        if operation == "several":
            new = list((a * b).unbind())
        elif operation == "custom":
            new = [Tripled.apply(a)]
        elif operation == "view":
            new = [a.reshape(1, -1)[0]]
        else:
            new = [{"add": a + b, "multiply": a * b, "tanh": a.tanh()}[operation]]
        new = [result.reshape(-1).expand(2) if operation == "several" else result for result in new]
        for result in new:
            cut = len(results) in detached
            results.append(result.detach().requires_grad_() if cut else result)
    return results


operations = st.sampled_from(["add", "multiply", "tanh", "several", "custom", "view"])
programs = st.lists(st.tuples(operations, st.integers(0, 20), st.integers(0, 20)), min_size=1)


@settings(max_examples=150, deadline=None)
@given(programs.filter(lambda p: len(p) < 12), st.data())
def test_stopped_means_computed_again_with_a_constant(program, data):
    """The naive way to the same: cut the graph while it is made."""
    x = leaf(0.5, -1.25)
    results = run(program, x)
    positions = st.integers(0, len(results) - 1)
    stops = data.draw(st.sets(positions.filter(bool), max_size=4))
    ys = data.draw(st.lists(positions, min_size=1, max_size=3))
    xs = data.draw(st.lists(positions, min_size=1, max_size=4))
    again = leaf(0.5, -1.25)
    cut = run(program, again, stops)
    found = gradients(
        [results[y] for y in ys],
        [results[x] for x in xs],
        stop_gradients=[results[s] for s in stops],
    )
    same(
        found, bare([cut[y] for y in ys], [cut[x] for x in xs], [torch.ones(2).double()] * len(ys))
    )


def test_outputs_of_one_operation_stop_together():
    x = leaf(1.0, 2.0)
    a, b = x.unbind()
    assert gradients([a.exp(), b.exp()], x, stop_gradients=a) == [None]


def test_unused_output_has_zeros_only_beside_a_used_one_below_an_x():
    x = leaf(1.0, 2.0, 3.0)
    a, b = x.split([1, 2])
    y = a.exp()
    keep = {"retain_graph": True}
    assert gradients(y, b, **keep) == [None]
    same(gradients(y, [b, x], **keep)[:1], [torch.zeros(2).double()])
    assert gradients(y, [b, x], stop_gradients=a, **keep) == [None, None]
    assert gradients(y, [b, x], stop_gradients=y, **keep) == [None, None]
    first = gradients(y, [b, x], torch.ones(4, 1).double(), batched=True)[0]
    same([first], [torch.zeros(4, 2).double()])


def test_what_lies_behind_a_stop_cannot_spoil_the_rest():
    x = leaf(1.0, 2.0)
    stopped = Undefined.apply(x.clone()) * 2
    same(gradients(stopped + 3 * x, x, stop_gradients=stopped), [torch.full((2,), 3.0).double()])


def test_stop_holds_for_tensors_as_they_are_now():
    x = leaf(1.0, 2.0)
    h = x * 2
    first_row = h[0]
    h.mul_(3)  # what was `h` is now upstream of `h`
    same(gradients(h * x, [x, h], stop_gradients=h, retain_graph=True), [h, x])
    assert gradients(first_row, x, stop_gradients=first_row) == [None]


def test_stop_with_checkpoint_and_without_grad_mode():
    x = leaf(1.0, 2.0)
    h = checkpoint(torch.exp, x, use_reentrant=False)
    y = checkpoint(torch.mul, h, x, use_reentrant=False)
    with torch.no_grad():
        same(gradients(y, [x, h], stop_gradients=h), [h, x])


# Gradients of gradients


def test_hessian_vector_product():
    def cost(x):
        return (x.prod() * x.exp()).sum()

    x, vector = leaf(0.5, -1.0, 2.0), torch.tensor([1.0, 2.0, -1.0]).double()
    (first,) = gradients(cost(x), x, create_graph=True)
    (product,) = gradients(first, x, vector)
    same([product], [torch.autograd.functional.hvp(cost, x, vector)[1]])


def test_derivative_of_partial_derivatives():
    x = leaf(0.5, 2.0)
    h = x.square()
    first, of_h = gradients(h * x, [x, h], stop_gradients=h, create_graph=True)
    same([first, of_h], [h, x])  # d(hx)/dx = h with h constant; but h depends on x
    same(gradients(first, x), [2 * x])


def test_weight_that_comes_back_as_a_gradient():
    x = leaf(1.0, 2.0)
    y, weight = x + 1, x.square()
    (found,) = gradients(y, x, weight, retain_graph=True)
    assert not found.requires_grad
    with torch.no_grad():
        (found,) = gradients(y, x, weight, create_graph=True)
    assert gradients(found, [weight, x], stop_gradients=found, retain_graph=True) == [None, None]
    same(gradients(found, [weight, x]), [torch.ones(2).double(), 2 * x])


def test_graph_is_kept_as_by_torch():
    x = leaf(1.0, 2.0)
    for stops in (None, [x]):
        y = x.exp()
        gradients(y, x, stop_gradients=stops, retain_graph=True)
        gradients(y, x, stop_gradients=stops)
        with pytest.raises(RuntimeError, match="second time"):
            gradients(y, x, stop_gradients=stops)


# Batches


def test_batched_is_a_loop_over_the_leading_dimension():
    torch.manual_seed(0)
    x, unused = leaf(0.5, -1.0, 2.0), leaf(1.0)
    h = x.sin()
    y, z = torch.outer(h, x), h.sum()
    keep = {"retain_graph": True}
    weights = torch.randn(5, 3, 3, dtype=torch.float64)
    for stops in ([], [h]):
        found = gradients(
            [y, z], [x, h, unused], [weights, None], batched=True, stop_gradients=stops, **keep
        )
        rows = [gradients([y, z], [x, h], [w, None], stop_gradients=stops, **keep) for w in weights]
        same(found, [*(torch.stack(column) for column in zip(*rows, strict=True)), None])
    zero = gradients(z, unused, torch.ones(4).double(), batched=True, unconnected_gradients="zero")
    same(zero, [torch.zeros(4, 1).double()])


def test_jacobian():
    def function(x):
        return torch.stack([x.prod(), x.sum().sin()])

    x = leaf(0.5, -1.0, 2.0)
    found = gradients(function(x), x, torch.eye(2).double(), batched=True)
    same(found, [torch.autograd.functional.jacobian(function, x)])


@pytest.mark.parametrize("outputs", [(), (2,), (2, 3)])
@pytest.mark.parametrize("samples", [1, 5])
def test_per_sample_gradients_are_a_loop_over_the_samples(outputs, samples):
    """Also where the loss of a sample depends on the others."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 4),
        torch.nn.BatchNorm1d(4) if samples > 1 else torch.nn.Identity(),
        torch.nn.Tanh(),
        torch.nn.Linear(4, 2 if len(outputs) < 2 else 6),
    ).double()
    result = model(torch.randn(samples, 3).double()).square()
    losses = result.sum(1) if not outputs else result.reshape(samples, *outputs)
    xs = [*model.parameters(), leaf(1.0)]
    found = per_sample_gradients(losses, xs, retain_graph=True)
    rows = [gradients(loss.sum(), xs, retain_graph=True) for loss in losses]
    same(found[:-1], [torch.stack(column) for column in zip(*(r[:-1] for r in rows), strict=True)])
    assert found[-1] is None


def test_per_sample_gradients_of_no_samples():
    model, other = torch.nn.Linear(3, 2), leaf(1.0)
    found = per_sample_gradients(model(torch.ones(0, 3)).sum(1), [*model.parameters(), other])
    assert [None if each is None else each.shape for each in found] == [(0, 2, 3), (0, 2), None]


# What must not change


def test_grad_and_graph_stay_as_they_are():
    x = leaf(1.0, 2.0)
    x.grad = torch.full((2,), 7.0).double()
    h = Tripled.apply(x)
    y = h * x
    before = bare(y, [x, h], torch.ones(2).double())
    gradients(y, [x, h], stop_gradients=h, retain_graph=True)
    assert x.grad.tolist() == [7.0, 7.0] and h.grad_fn is y.grad_fn.next_functions[0][0]
    Tripled.fails = True
    try:
        with pytest.raises(RuntimeError, match="no derivative today"):
            gradients(y, [x, h], stop_gradients=h, retain_graph=True)
    finally:
        Tripled.fails = False
    same(bare(y, [x, h], torch.ones(2).double()), before)
    assert x.grad.tolist() == [7.0, 7.0]


def test_no_hook_is_left(monkeypatch):
    """Every hook that was registered on the graph is removed, also if registering fails midway."""
    x = leaf(1.0, 2.0)
    h, k = x.exp(), x.sin()
    y = h * k * x
    handles = []
    added = torch.utils.hooks.RemovableHandle.__init__

    def remember(handle, hooks, **keys):
        added(handle, hooks, **keys)
        handles.append((handle, hooks))

    monkeypatch.setattr(torch.utils.hooks.RemovableHandle, "__init__", remember)
    gradients(y, x, stop_gradients=[h, k], retain_graph=True)
    assert len(handles) == 3  # one on our own first node
    assert all(handle.id not in hooks for handle, hooks in handles)


def test_other_threads_pass_through_a_stop():
    """While one thread differentiates with h stopped, another gets all gradients."""
    arrived, go_on = threading.Event(), threading.Event()

    class Waiting(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            arrived.set()
            assert go_on.wait(10)
            return gradient

    x = leaf(1.0, 2.0)
    h = x.exp()
    y = h + x
    slow = Waiting.apply(y)
    found = []
    thread = threading.Thread(
        target=lambda: found.extend(gradients(slow, x, stop_gradients=h, retain_graph=True))
    )
    thread.start()
    assert arrived.wait(10)
    meanwhile = gradients(y, x, retain_graph=True) + gradients(
        y, x, stop_gradients=y, retain_graph=True
    )
    go_on.set()
    thread.join(10)
    same(found, [torch.ones(2).double()])
    same(meanwhile, [h + 1, None])


# Options


def test_name_is_a_range_of_the_profiler():
    x = leaf(1.0)
    y = x.exp()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        gradients(y, x, retain_graph=True)
        gradients(y, x, name="backwards", stop_gradients=[x])
    names = [event.key for event in profile.key_averages()]
    assert "gradients" in names and "backwards" in names


def test_tensorflow_options_change_nothing():
    x = leaf(1.0, 2.0)
    y = x.exp() * x
    expected = gradients(y, x, retain_graph=True)
    for method in (None, 0, 1, 2, *AggregationMethod):
        found = gradients(y, x, None, "named", True, True, method, retain_graph=True)
        same(found, expected)
