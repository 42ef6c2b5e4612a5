"""Where does a gradient end at once, since nothing is let through for any sample?"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from trainer.diagnosis.order import ACTIVATIONS, DROPOUTS, RECTIFIERS, RECURRENT
from trainer.record import owner

if TYPE_CHECKING:
    from trainer.diagnosis.view import View

SURE = 10.0  # an output with which a cross-entropy leaves every sample some gradient: e^-10 of it
# Activations that give exactly zero of what is too small; others do of what is too near to zero.
SHUTTING = RECTIFIERS | {"Hardsigmoid", "Hardswish"}


def first(view: View) -> int | None:
    """The first layer through which no gradient passes while one arrives behind it: a rectifier
    that is shut, or one beside which another kind of function is."""
    lost, rectifiers = view.gradient_lost, view.order.rectifiers
    none, shut = lost | np.isnan(view.gradient_rms), view.dead[rectifiers] == 1.0
    for row in rectifiers[shut].tolist():
        # Where all are, what comes to the first may come from further back.
        given = view.rms[:row] if shut.all() else view.rms[max(row - 1, 0) : row]
        if row > 0 and not (given > 0).any():
            continue
        if none[:row].all() and (row == 0 or lost[:row].any()):
            return int(row)
        # A loss may ask something of the layers before it, too, as of a code; none is beside it
        # where nothing of the output depends on the sample.
        cuts = 0 < row < len(lost) - 1 and lost[row - 1] and not none[row]
        if cuts and view.output_signal == 0:
            return int(row)
    for row in np.flatnonzero((view.rms == 0) & ~none).tolist():
        # A rectifier inside of it gives zeros for all steps of a sequence.
        fed = view.rms[row - 1] > 0 and lost[row - 1] if row > 0 else view.input_rms > 0
        if view.kinds[row] == "RNN" and fed and view.names[row] in view.idle:
            return int(row)
    found = _beside(view, view.barrier)
    return _before_unfed(view) if found is None else found


def is_unfed(view: View, row: int) -> bool:
    """Whether a layer is given zeros for all samples: its weights, which are not zero, get no
    gradient, although one arrives at its output or that is zero as well. Of a recurrent one those
    that its state goes through may, if its biases make one."""
    idle = view.names[row] in view.idle
    if view.kinds[row] in RECURRENT:
        return view.names[row] in view.without_sequence and (idle or view.rms[row] > 0)
    if not idle:
        return False
    return not view.gradient_lost[row] or view.dead[row] == 1.0


def _beside(view: View, barrier: int | None) -> int | None:
    """The same of functions that no module tells of, where nothing of the output depends on the
    sample: a gradient arrives at a layer, none at the one before. In a layer that is called step by
    step it may be a gate that is shut."""
    if barrier is None or _loops(view) or view.output_signal != 0:
        return None
    if barrier == 0:
        zeros = view.table.has_input and view.table.rms[0] == 0
        return 0 if zeros and not view.order.begins and is_unfed(view, 0) else None
    if not view.gradient_lost[:barrier].any():
        return None
    owners = {*map(owner, view.parameters)}
    is_shut = view.dead[barrier] == 1.0 and view.names[barrier] not in owners
    if is_shut and view.rms[barrier - 1] > 0:
        return barrier if _may_shut(view.kinds[barrier]) else None
    row = barrier
    while row > 0 and (is_unfed(view, row) or view.rms[row] == 0 and view.names[row] not in owners):
        row -= 1  # of zeros those in between have made zeros again
        if view.rms[row] > 0:
            return row if _may_shut(view.kinds[row + 1]) else None
    told = any(kind in ACTIVATIONS for kind in view.kinds)
    return None if told or row < barrier else barrier - 1


def _before_unfed(view: View) -> int | None:
    """The layer after whose output nothing comes through, as the next one's weights tell, where a
    gradient arrives elsewhere as well: at a code that is asked for, or at what is called again."""
    if not (view.idle or view.without_sequence) or _loops(view):
        return None
    owners, lost = {*map(owner, view.parameters)}, view.gradient_lost
    own = [row for row, name in enumerate(view.names) if name in owners]
    arrives = ~(lost | np.isnan(view.gradient_rms))
    for number, (shut, row) in enumerate(pairwise(own), 1):
        if lost[shut] and arrives[row] and is_unfed(view, row):
            nothing_comes_back = not arrives[own[:number]].any()
            sure = view.output_signal == 0 or nothing_comes_back and _is_alone(view, row)
            shuts = view.rms[shut] > 0 and all(map(_may_shut, view.kinds[shut + 1 : row]))
            return shut if sure and shuts else None
    return None


def _loops(view: View) -> bool:
    """Whether a layer is called step by step that is not given zeros at all of them."""
    looping = view.order.looping
    if looping not in view.names:
        return looping is not None
    row = view.names.index(looping)
    return view.kinds[row] not in RECURRENT or not is_unfed(view, row)


def _is_alone(view: View, row: int) -> bool:
    """Whether no other layer beside an unfed one is fed: all are unfed, or what it makes is the
    same for all samples until a dropout makes it differ. Of outputs so large that some samples have
    a gradient of exactly zero, those may be the ones that it is fed with."""
    if view.is_idle and (view.signal[row] == 0 or view.output_rms <= SURE):
        return True
    drops = (each for each in range(row, len(view.kinds)) if view.kinds[each] in DROPOUTS)
    until = next(drops, row)
    return until > row and bool((view.signal[row:until] == 0).all())


def _may_shut(kind: str) -> bool:
    return kind in SHUTTING or kind not in ACTIVATIONS
