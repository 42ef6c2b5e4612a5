"""The monitor never makes an accelerator wait: one transfer on an observed step, else none.

Without an accelerator at hand its path is taken with tensors of the CPU: the operations are those
of an accelerator, and each call of `fetch`, whose single copy has a test of its own, is counted.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_statistics_transfer import WAITING, Operations
from torch import nn

from trainer import Monitor, statistics
from trainer.monitor import step_loss
from trainer.record import StepRecord
from trainer.statistics import kinds, operations


@pytest.mark.parametrize("layers", [5, 250])
def test_one_transfer_on_an_observed_step_and_none_else(
    layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[int] = []
    fetch = statistics.fetch

    def counted(tensors: list[torch.Tensor]) -> Any:
        fetched.append(len(tensors))
        return fetch(tensors)

    monkeypatch.setattr(kinds, "kind_of", lambda tensors: operations)
    monkeypatch.setattr(statistics, "fetch", counted)
    monkeypatch.setattr(step_loss, "told", lambda loss: loss)  # reads the CPU's memory
    records: list[StepRecord] = []
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(layers)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    keys = {"every_steps": 100, "histogram_every_steps": 100, "activation_every_steps": 100}
    monitor = Monitor(model, sinks=[records.append], **keys)
    transfers = []
    for step in (100, 101, 200, 201, 202):
        monitor.watch(step)
        with Operations() as seen:
            loss = model(torch.ones(3, 4)).sum()
            loss.backward()
            with monitor.step(step, loss) as observation:
                observation.clipped(torch.ones(()))
                optimizer.step()
        transfers.append(len(fetched))
        assert len(seen.names) > layers  # it looks
        assert not WAITING & set(seen.names)
        optimizer.zero_grad()
    monitor.close()
    assert transfers == [1, 1, 2, 2, 2]
    assert [record.step for record in records] == [100, 200]
    assert len(records[0].gradients.names) == 2 * layers
    assert records[0].gradients.histograms is not None
    assert records[0].layers is not None and len(records[0].layers.names) == layers + 1


def test_a_waiting_loop_would_be_seen() -> None:
    with Operations() as seen:
        torch.ones(3).sum().item()
    assert WAITING & set(seen.names)
