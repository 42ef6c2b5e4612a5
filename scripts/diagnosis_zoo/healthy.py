"""Programs that train: all families of networks, with what has misled other detectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diagnosis_zoo import networks as net
from diagnosis_zoo.program import Program, Run, Task, batches, supervised
from diagnosis_zoo.tasks import binary, task

Make = Callable[[Task], nn.Module]

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "nesterov": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adamax": torch.optim.Adamax,
}


def fit(
    name: str, data: str, build: Make, optimizer: str = "adam", lr: float = 1e-3, batch: int = 32,
    steps: int = 400, one_output: bool = False, finish: Callable[[Run], None] | None = None,
) -> Program:  # fmt: skip
    """A model that is fitted to a task by an optimizer; `finish` changes the run that is made."""

    def make(seed: int) -> Run:
        rows = binary(task(data)) if one_output else task(data)
        model = build(rows)
        trained = [p for p in model.parameters() if p.requires_grad]
        made = supervised(model, rows, OPTIMIZERS[optimizer](trained, lr=lr), seed, batch)
        if finish is not None:
            finish(made)
        return made

    return Program(f"{name}-{data}-{optimizer}", make, steps)


def mlp(**keys: object) -> Make:
    """An MLP for a task."""
    return lambda rows: net.mlp(rows.inputs, rows.outputs, **keys)  # type: ignore[arg-type]


def mlps() -> list[Program]:
    """Plain networks on tables, of all usual activations, inits and optimizers."""
    made = [
        fit("mlp/relu2", "digits", mlp()),
        fit("mlp/relu2", "digits", mlp(), "momentum", 0.05),
        fit("mlp/relu3-he", "moons", mlp(depth=3, width=32, init=net.he), "adam", 3e-3),
        fit("mlp/relu1", "iris", mlp(depth=1, width=16), "sgd", 0.1),
        fit("mlp/relu2", "wine", mlp(width=32), "rmsprop", 1e-3),
        fit("mlp/relu2", "cancer", mlp(width=32), "adamw", 1e-3, one_output=True),
        fit("mlp/tanh3", "cancer", mlp(depth=3, activation="tanh"), "momentum", 0.02),
        fit("mlp/tanh5-xavier", "blobs", mlp(depth=5, activation="tanh", init=net.xavier)),
        fit("mlp/sigmoid1", "iris", mlp(depth=1, activation="sigmoid"), "adam", 1e-2),
        fit("mlp/sigmoid1", "digits", mlp(depth=1, activation="sigmoid"), "adam", 1e-2),
        fit("mlp/sigmoid2", "digits", mlp(activation="sigmoid"), "adam", 1e-2, steps=600),
        fit("mlp/gelu3", "friedman", mlp(depth=3, activation="gelu")),
        fit("mlp/silu4-he", "teacher", mlp(depth=4, activation="silu", init=net.he)),
        fit("mlp/elu3", "diabetes", mlp(depth=3, width=16, activation="elu")),
        fit("mlp/selu6", "blobs", mlp(depth=6, activation="selu", init=net.he)),
        fit("mlp/leaky4-he", "digits", mlp(depth=4, activation="leaky", init=net.he), "nesterov",
            0.01),
        fit("mlp/softplus2", "sine", mlp(activation="softplus"), "adam", 1e-2),
        fit("mlp/hardtanh2", "moons", mlp(activation="hardtanh"), "adam", 5e-3),
        fit("mlp/relu3-dropout", "digits", mlp(depth=3, dropout=0.3, init=net.he)),
        fit("mlp/relu2-adagrad", "wine", mlp(width=32), "adagrad", 0.02),
        fit("mlp/relu2-adamax", "words", mlp(), "adamax", 5e-3),
        fit("mlp/relu2-sparse", "words", mlp(width=128), "adam", 1e-3),
        fit("mlp/relu4-narrow", "circles", mlp(depth=4, width=6, init=net.he), "adam", 1e-2,
            steps=800),
        fit("mlp/relu3-default", "circles", mlp(depth=3, width=16), "adam", 1e-2),
        fit("mlp/tanh4", "circles_near", mlp(depth=4, width=16, activation="tanh",
            init=net.xavier), "adam", 1e-2, one_output=True, steps=800),
        fit("mlp/logistic", "cancer", mlp(depth=0), "sgd", 0.1),
        fit("mlp/linear", "diabetes", mlp(depth=0), "sgd", 0.05),
        fit("mlp/full-batch", "sine", mlp(activation="tanh"), "adam", 1e-2, batch=400, steps=600),
        fit("mlp/batch-4", "iris", mlp(width=16), "sgd", 0.01, batch=4, steps=800),
        fit("mlp/own-units", "wide_targets", mlp(width=32), "adam", 5e-2, steps=800),
        fit("mlp/small-lr", "digits", mlp(width=128, init=net.he), "adam", 1e-4, steps=800),
        fit("mlp/large-lr", "digits", mlp(init=net.he), "adam", 1e-2),
        fit("mlp/relu16-he", "digits", mlp(depth=16, init=net.he)),
        fit("mlp/tanh16-xavier", "blobs", mlp(depth=16, activation="tanh", init=net.xavier), "adam",
            5e-4, steps=800),
    ]  # fmt: skip
    return made


def healing() -> list[Program]:
    """Deep networks whose first layers get next to no gradient at first, and then do."""
    return [
        fit("deep/relu8-default", "digits", mlp(depth=8), steps=800),
        fit("deep/relu10-default", "moons", mlp(depth=10), steps=800),
        fit("deep/relu12-default", "digits", mlp(depth=12), steps=800),
        fit("deep/tanh8-default", "blobs", mlp(depth=8, activation="tanh")),
        fit("deep/tanh12-default", "digits", mlp(depth=12, activation="tanh"), steps=800),
        fit("deep/gelu8-default", "digits", mlp(depth=8, activation="gelu"), steps=800),
        fit("deep/relu20-batch-norm", "digits", mlp(depth=20, norm=nn.BatchNorm1d), steps=600),
        fit("deep/relu30-batch-norm", "blobs", mlp(depth=30, norm=nn.BatchNorm1d), "sgd", 0.05),
        fit("deep/relu16-layer-norm", "digits", mlp(depth=16, norm=nn.LayerNorm), steps=600),
        fit("deep/sigmoid6-batch-norm", "digits", mlp(depth=6, activation="sigmoid",
            norm=nn.BatchNorm1d)),
        fit("deep/tanh8-rms-norm", "digits", mlp(depth=8, activation="tanh", norm=nn.RMSNorm)),
        fit("deep/residual12", "digits", lambda t: net.ResidualMlp(t.inputs, t.outputs, 12)),
        fit("deep/residual24-zero", "digits",
            lambda t: net.ResidualMlp(t.inputs, t.outputs, 24, zero=True)),
        fit("deep/rezero16", "digits", lambda t: net.ReZero(t.inputs, t.outputs, 16), "adam", 3e-3),
        fit("deep/functional4", "digits",
            lambda t: net.initialise(net.Functional(t.inputs, t.outputs, 4, 64, F.relu), net.he)),
        fit("deep/functional8-default", "digits",
            lambda t: net.Functional(t.inputs, t.outputs, 8, 64, F.relu), steps=800),
    ]  # fmt: skip


def images() -> list[Program]:
    """Convolutions, with and without norms and skips."""
    return [
        fit("cnn/relu2", "digit_images", lambda t: net.cnn(1, 10, 8)),
        fit("cnn/tanh2", "digit_images", lambda t: net.cnn(1, 10, 8, activation="tanh")),
        fit("cnn/relu4-he", "digit_images", lambda t: net.cnn(1, 10, 8, 4, init=net.he)),
        fit("cnn/relu5-norm", "digit_images", lambda t: net.cnn(1, 10, 8, 5, norm=True)),
        fit("cnn/relu3", "textures", lambda t: net.cnn(3, 4, 16, 3), "momentum", 0.02),
        fit("cnn/relu6-default", "textures", lambda t: net.cnn(3, 4, 16, 6)),
        fit("cnn/resnet", "textures", lambda t: net.ResNet(3, 4), "momentum", 0.05, steps=250),
        fit("cnn/resnet-zero", "textures", lambda t: net.ResNet(3, 4, zero=True), steps=250),
        fit("cnn/resnet6", "digit_images", lambda t: net.ResNet(1, 10, 6), "adam", 3e-3, steps=250),
        fit("cnn/resnet-no-norm", "textures", lambda t: net.ResNet(3, 4, norm=False), steps=400),
    ]


def sequences() -> list[Program]:
    """Recurrent networks and transformers."""

    def rnn(kind: str, **keys: object) -> Make:
        return lambda t: net.Recurrent(kind, t.x.shape[-1], t.outputs, **keys)  # type: ignore[arg-type]

    def text(kind: str, **keys: object) -> Make:
        return lambda t: net.Recurrent(kind, 16, t.outputs, vocabulary=100, **keys)  # type: ignore[arg-type]

    return [
        fit("rnn/lstm", "waves", rnn("LSTM"), "adam", 5e-3, steps=300),
        fit("rnn/gru", "waves", rnn("GRU"), "adam", 5e-3, steps=300),
        fit("rnn/rnn", "waves", rnn("RNN"), "adam", 3e-3, steps=400),
        fit("rnn/lstm2", "digit_rows", rnn("LSTM", layers=2), "adam", 5e-3, steps=400),
        fit("rnn/rnn", "first_of_10", rnn("RNN", gain=1.0), "adam", 3e-3, steps=300),
        fit("rnn/gru", "adding_20", rnn("GRU"), "adam", 1e-2, steps=600),
        fit("rnn/lstm", "reviews", text("LSTM", forget_bias=1.0), "adam", 1e-2, steps=500),
        fit("rnn/gru-cells", "first_of_10", lambda t: net.Cells(5, 4), "adam", 5e-3, steps=250),
        fit("rnn/lstm", "characters", lambda t: net.Recurrent("LSTM", 16, t.outputs, 48,
            vocabulary=t.outputs, every=True), "adam", 1e-2, steps=300),
        fit("transformer/gpt", "characters", lambda t: net.Gpt(t.outputs, t.outputs), "adamw", 2e-3,
            steps=300),
        fit("transformer/gpt-tied", "characters", lambda t: net.Gpt(t.outputs, t.outputs,
            tied=True), "adamw", 2e-3, steps=300),
        fit("transformer/gpt4", "characters", lambda t: net.Gpt(t.outputs, t.outputs, layers=4),
            "adam", 1e-3, steps=250, finish=warm_up(40)),
        fit("transformer/gpt-post2", "characters", lambda t: net.Gpt(t.outputs, t.outputs,
            post=True, std=None), "adam", 1e-3, steps=300, finish=warm_up(50)),
        fit("transformer/classifier", "reviews", lambda t: net.Gpt(2, 100, average=True), "adam",
            2e-3, steps=400),
        fit("transformer/vit", "digit_rows", lambda t: net.Gpt(10, inputs=8, average=True), "adam",
            2e-3, steps=400),
    ]  # fmt: skip


def warm_up(steps: int) -> Callable[[Run], None]:
    """A rate that rises over the first steps and then falls as a cosine."""

    def finish(run: Run) -> None:
        for optimizer in run.optimizers:
            schedule = torch.optim.lr_scheduler.LambdaLR(
                optimizer,
                lambda k: min(1.0, k / steps) * (0.5 + 0.5 * math.cos(min(k, 1000) / 320)),
            )
            optimizer.register_step_post_hook(lambda *_, s=schedule: s.step())

    return finish


def clipping(norm: float) -> Callable[[Run], None]:
    """Gradients of at most this norm."""

    def finish(run: Run) -> None:
        run.before_step = lambda: torch.nn.utils.clip_grad_norm_(run.model.parameters(), norm)

    return finish


def accumulating(run: Run) -> None:
    """Four batches for each step."""
    run.backwards = 4


def times(factor: float) -> Callable[[Run], None]:
    """The loss in other units."""

    def finish(run: Run) -> None:
        loss = run.loss
        run.loss = lambda: factor * loss()

    return finish


def fine_tuned(rows: Task) -> nn.Module:
    """All but the last layers frozen."""
    model = net.mlp(rows.inputs, rows.outputs, 3, 64, init=net.he)
    for layer in list(model)[:4]:
        layer.requires_grad_(False)
    return model


def adapted(rows: Task) -> nn.Module:
    """Low-rank products beside frozen layers; the head is trained."""
    model = net.mlp(rows.inputs, rows.outputs, 3, 64, init=net.he)
    return nn.Sequential(
        *[net.Lora(m) if isinstance(m, nn.Linear) and i < 6 else m for i, m in enumerate(model)]
    )


def zero_head(rows: Task) -> nn.Module:
    """A last layer that starts at zero."""
    model = net.mlp(rows.inputs, rows.outputs, 3, 64, init=net.he)
    nn.init.zeros_(model[-1].weight)  # type: ignore[arg-type]
    return model


def with_spare(rows: Task) -> nn.Module:
    """A layer that is made and never used."""
    model = net.Functional(rows.inputs, rows.outputs, 2, 64, F.relu)
    model.spare = nn.Linear(8, 8)
    return model


class Embedded(nn.Module):
    """Averaged embeddings of tokens; of a batch's vocabulary few rows get a gradient."""

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(5000, 24, mode="mean", sparse=sparse)
        self.head = net.mlp(24, 2, 1, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding(x))  # type: ignore[no-any-return]


class Autocast(nn.Module):
    """A network that computes in bfloat16."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.inner(x).float()  # type: ignore[no-any-return]


def confounders() -> list[Program]:
    """What looks like trouble and is none."""
    return [
        fit("guard/zero-head", "digits", zero_head),
        fit("guard/zero-head", "digits", zero_head, "sgd", 0.1),
        fit("guard/frozen", "digits", fine_tuned, "adam", 3e-3),
        fit("guard/lora", "digits", adapted, "adam", 3e-3),
        fit("guard/spare-layer", "digits", with_spare),
        fit("guard/embedding-bag", "reviews", lambda t: Embedded(), "adam", 5e-3),
        fit("guard/embedding-bag-sparse", "reviews", lambda t: Embedded(True), "sgd", 2.0,
            steps=800),
        fit("guard/experts", "digits", lambda t: net.Experts(64, 10), "adam", 3e-3, steps=600),
        fit("guard/warm-up", "digits", mlp(depth=4, init=net.he), "adam", 3e-3, steps=600,
            finish=warm_up(200)),
        fit("guard/weight-decay", "digits", mlp(depth=3, norm=nn.BatchNorm1d),
            "adamw", 3e-3, steps=1500),
        fit("guard/clipped", "digits", mlp(depth=3, init=net.he), "momentum", 0.1,
            finish=clipping(0.05), steps=800),
        fit("guard/accumulated", "digits", mlp(), "adam", 2e-3, batch=16, steps=300,
            finish=accumulating),
        fit("guard/loss-large", "digits", mlp(depth=3, init=net.he), finish=times(1e6)),
        fit("guard/loss-small", "digits", mlp(depth=3, init=net.he), finish=times(1e-4)),
        fit("guard/bfloat16", "digits", lambda t: Autocast(net.mlp(64, 10, 3))),
        fit("guard/float64", "sine", lambda t: Widened(net.mlp(1, 1, 3, activation="tanh")),
            "adam", 5e-3, steps=600),
        fit("guard/converged", "moons", mlp(depth=3, init=net.he), "adam", 1e-2, steps=2000),
        fit("guard/interpolated", "iris", mlp(depth=2, width=128), "adam", 1e-2, batch=150,
            steps=1500),
        fit("guard/inputs-in-hundreds", "diabetes", lambda t: nn.Sequential(
            net.Calculation(lambda x: 10 * x), *net.mlp(10, 1, 2, 32)), "adam", 1e-3),
        fit("guard/plateau", "digits", mlp(depth=6, init=net.normal(0.06)), "sgd", 0.1, steps=1200),
        Program("guard/exact-line", exact_line, 600, reaches=1e-3),
        Program("guard/autoencoder", autoencoder, 600),
        Program("guard/variational", variational, 500, reaches=0.065),
        Program("guard/gan", gan, 500, reaches=math.inf),
        Program("guard/policy", policy, 500, reaches=-0.6),
        Program("guard/diffusion", diffusion, 500, reaches=0.8),
        Program("guard/contrastive", contrastive, 300, reaches=2.5),
        Program("guard/two-optimizers", two_optimizers, 400),
    ]  # fmt: skip


class Widened(nn.Module):
    """A network in float64."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.double()).float()  # type: ignore[no-any-return]


def exact_line(seed: int) -> Run:
    """A line through points without noise: everything converges to zero."""
    x = torch.linspace(-1, 1, 64)[:, None]
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss() -> Tensor:
        return F.mse_loss(model(x), 3 * x + 1)

    return Run(model, loss, [optimizer], lambda: loss().item())


def autoencoder(seed: int) -> Run:
    """Digits through a code of 16 numbers."""
    digits = task("digits").x
    widths = [64, 48, 16, 48, 64]
    layers: list[nn.Module] = []
    for one, other in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(one, other), nn.ReLU()]
    model = nn.Sequential(*layers[:-1], nn.Sigmoid())
    constant = float((digits - digits.mean(0)).square().mean())
    rows = Task(digits, digits, F.mse_loss, 64, constant)
    return supervised(model, rows, torch.optim.Adam(model.parameters(), lr=3e-3), seed)


class Variational(nn.Module):
    """A variational autoencoder (Kingma and Welling 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
        self.decoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, -1)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return self.decoder(code), divergence


def variational(seed: int) -> Run:
    """Digits, reconstructed through noise."""
    digits, model = task("digits").x, Variational()
    numbers = batches(len(digits), 64, seed)

    def loss(x: Tensor) -> Tensor:
        reconstruction, divergence = model(x)
        return F.mse_loss(reconstruction, x) + 1e-3 * divergence

    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    return Run(model, lambda: loss(digits[next(numbers)]), [optimizer], lambda: loss(digits).item())


def gan(seed: int) -> Run:
    """A generator and a discriminator of points on a ring, with an optimizer each."""
    model = nn.ModuleDict(
        {"generator": net.mlp(4, 2, 2, 32), "discriminator": net.mlp(2, 1, 2, 32)}
    )
    generator, discriminator = model["generator"], model["discriminator"]
    optimizers = [
        torch.optim.Adam(part.parameters(), lr=1e-3, betas=(0.5, 0.999))
        for part in (generator, discriminator)
    ]

    def loss() -> Tensor:
        angle = 2 * math.pi * torch.rand(64)
        real = torch.stack([angle.cos(), angle.sin()], -1) + 0.05 * torch.randn(64, 2)
        made = generator(torch.randn(64, 4))
        judged = discriminator(made)
        for parameter in discriminator.parameters():
            parameter.requires_grad_(False)
        fooled = F.binary_cross_entropy_with_logits(discriminator(made), torch.ones_like(judged))
        for parameter in discriminator.parameters():
            parameter.requires_grad_(True)
        verdict = torch.cat([discriminator(real), discriminator(made.detach())])
        truth = torch.cat([torch.ones(64, 1), torch.zeros(64, 1)])
        return fooled + F.binary_cross_entropy_with_logits(verdict, truth)

    return Run(model, loss, optimizers, lambda: 0.0)


def policy(seed: int) -> Run:
    """REINFORCE on a contextual bandit of four arms; the loss has either sign."""
    model = net.mlp(4, 4, 2, 32)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def value(sample: bool) -> Tensor:
        context = torch.randint(0, 4, (64,))
        scores = model(F.one_hot(context, 4).float())
        chosen = torch.distributions.Categorical(logits=scores).sample()
        reward = (chosen == (context + 1) % 4).float()
        if not sample:
            return -reward.mean()
        return -(scores.log_softmax(-1)[torch.arange(64), chosen] * (reward - 0.25)).mean()

    return Run(model, lambda: value(True), [optimizer], lambda: value(False).item())


def diffusion(seed: int) -> Run:
    """Predict the noise that was added to points of two moons (Ho et al. 2020)."""
    points, model = task("moons").x, net.mlp(3, 2, 3, 64, "silu")
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def loss() -> Tensor:
        x = points[torch.randint(0, len(points), (128,))]
        time, noise = torch.rand(128, 1), torch.randn(128, 2)
        angle = time * math.pi / 2
        return F.mse_loss(model(torch.cat([angle.cos() * x + angle.sin() * noise, time], 1)), noise)

    return Run(model, loss, [optimizer], lambda: sum(loss().item() for _ in range(10)) / 10)


def contrastive(seed: int) -> Run:
    """Two noisy views of a digit find each other among 64 (InfoNCE)."""
    digits, model = task("digits").x, net.mlp(64, 16, 2, 64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    numbers = batches(len(digits), 64, seed)

    def loss() -> Tensor:
        x = digits[next(numbers)]
        one, other = (F.normalize(model(x + 0.2 * torch.randn_like(x)), dim=-1) for _ in range(2))
        return F.cross_entropy(one @ other.T / 0.2, torch.arange(len(x)))

    return Run(model, loss, [optimizer], lambda: loss().item())


def two_optimizers(seed: int) -> Run:
    """A slow optimizer for the body, a fast one for the head."""
    rows = task("digits")
    model = net.mlp(64, 10, 2, 64)
    body = [p for layer in list(model)[:-1] for p in layer.parameters()]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam(body, lr=3e-4),
        torch.optim.SGD(model[-1].parameters(), lr=0.1),
    ]
    return supervised(model, rows, optimizers, seed)


def programs() -> list[Program]:
    """All healthy programs."""
    return [*mlps(), *healing(), *images(), *sequences(), *confounders()]
