"""The same statistics by torch operations, for devices without a kernel of ours.

Nothing here reads a number back: every shape follows from the shapes of the tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from trainer.record import BINS, MAGNITUDES, SIGN

_AT_ONCE = 1 << 22  # values; what is computed on the way takes some 40 bytes for each
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
# Bins that stay empty, borrowed while counting.
_INFINITE, _NAN, _ZERO = MAGNITUDES, MAGNITUDES + 1, SIGN + MAGNITUDES


@torch.no_grad()
def summarize(tensors: Sequence[Tensor], histograms: bool) -> tuple[Tensor, Tensor | None]:
    """Moments (N, 7) and, if asked for, counts (N, 1024) of tensors of one device and dtype."""
    device, n = tensors[0].device, len(tensors)
    real = _real(device)
    counts = torch.zeros(n, BINS, dtype=torch.int64, device=device)
    norms, sums, largest = torch.zeros(3, n, dtype=real, device=device).unbind()
    for rows, pieces in _portions(tensors):
        magnitudes, bins = _read(torch.cat(pieces), real)
        sizes = [piece.numel() for piece in pieces]
        torch._foreach_add_(list(torch.split(bins, sizes)), [row * BINS for row in rows])
        counts.view(-1).scatter_add_(0, bins, torch.ones_like(bins))
        parts = list(torch.split(magnitudes, sizes))
        maxima = torch._foreach_norm(parts, torch.inf)
        scales = torch._foreach_clamp_min(maxima, torch.finfo(real).tiny)
        if pieces[0].dtype is real:  # then the square of the largest may be no such number
            norm = torch.stack(torch._foreach_norm(torch._foreach_div(parts, scales)))
            norm *= torch.stack(scales)
        else:
            norm = torch.stack(torch._foreach_norm(parts))
        here = (0, rows[0], len(rows))
        norms.narrow(*here).hypot_(norm)
        sums.narrow(*here).add_(torch.stack(torch._foreach_norm(parts, 1)))
        largest.narrow(*here).clamp_min_(torch.stack(maxima))
    for row, tensor in enumerate(tensors):
        if tensor.numel() == 0:
            counts.select(0, row).select(0, _ZERO).sub_(1)
    apart = [counts.select(1, column).to(real) for column in (_ZERO, _NAN, _INFINITE)]
    moments = torch.stack([counts.sum(1).to(real), norms, sums, largest, *apart], dim=1)
    if not histograms:
        return moments, None
    for first in (_INFINITE, _ZERO):
        counts.narrow(1, first, 2).zero_()
    return moments, counts


@torch.no_grad()
def copy(tensors: Sequence[Tensor], copies: Sequence[Tensor]) -> Tensor:
    """The sums of squares (N,) of the tensors, which are copied into `copies`."""
    torch._foreach_copy_(list(copies), list(tensors))
    real = _real(tensors[0].device)
    return torch.stack(torch._foreach_norm(list(tensors), 2, dtype=real)).square()


@torch.no_grad()
def compare(tensors: Sequence[Tensor], before: Sequence[Tensor]) -> Tensor:
    """The sums of squared differences, and how many values are the same (N, 2)."""
    real, bits = _real(tensors[0].device), _BITS[tensors[0].element_size()]
    result = torch.zeros(len(tensors), 2, dtype=real, device=tensors[0].device)
    for (rows, pieces), (_, old) in zip(_portions(tensors), _portions(before), strict=True):
        now, then = torch.cat(pieces), torch.cat(old)
        sizes = [piece.numel() for piece in pieces]
        parts = torch.split(now.to(real) - then, sizes)
        squares = torch.stack(torch._foreach_norm(parts)).square()
        # The norm of order 1 of ones and zeros is their number.
        same = torch.split((now.view(bits) == then.view(bits)).to(real), sizes)
        columns = torch.stack([squares, torch.stack(torch._foreach_norm(same, 1))], dim=1)
        result.narrow(0, rows[0], len(rows)).add_(columns)
    for row, tensor in enumerate(tensors):
        if tensor.numel() == 0:
            result.select(0, row).zero_()
    return result


@torch.no_grad()
def signal(values: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """RMS and fractions (4,) of values seen as (samples, units, positions)."""
    real, samples = _real(values.device), shape[0] * shape[2]
    values = values.view(shape)
    largest = values.abs().amax().to(real) if values.dtype is real else None
    values = values.to(real)
    means = values.mean(0 if shape[0] > 1 else (0, 2), keepdim=True)
    variances = (values - means).square().mean((0, 2))
    squares = variances + means.square().mean((0, 2))
    zeros = (values == 0).to(real).mean((0, 2))
    fractions = (variances / squares).sqrt()  # 0 / 0 where a unit is always zero
    median = fractions.nanmedian() if samples > 1 else torch.full_like(squares[0], torch.nan)
    rms = squares.mean().sqrt()
    if largest is not None:  # then the squares of finite values may be no such numbers
        careful = (values / largest).square().mean().sqrt() * largest
        rms = torch.where(rms.isfinite(), rms, careful)
    return torch.stack([rms, zeros.mean(), median, (zeros == 1).to(real).mean()])


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """The bytes of all tensors in one, those of the widest types first so that all stay aligned."""
    order = sorted(tensors, key=lambda tensor: -tensor.element_size())
    return torch.cat([tensor.contiguous().view(-1).view(torch.uint8) for tensor in order])


def unpack(buffer: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of the shapes and dtypes of `like` in the memory of what `pack` made of them."""
    order = sorted(range(len(like)), key=lambda position: -like[position].element_size())
    sizes = [like[position].numel() * like[position].element_size() for position in order]
    parts = dict(zip(order, torch.split(buffer, sizes), strict=True))
    return [
        parts[position].view(tensor.dtype).view(tensor.shape)
        for position, tensor in enumerate(like)
    ]


def _real(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _portions(tensors: Sequence[Tensor]) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Pieces of the flattened tensors, and the consecutive rows they belong to, of some size
    together. A tensor without values is read as one zero, so that rows stay consecutive."""
    rows: list[int] = []
    pieces: list[Tensor] = []
    room = _AT_ONCE
    for row, tensor in enumerate(tensors):
        flat = tensor.reshape(-1) if tensor.numel() else tensor.new_zeros(1)
        start = 0
        while start < flat.numel():
            piece = flat.narrow(0, start, min(room, flat.numel() - start))
            rows.append(row)
            pieces.append(piece)
            start += piece.numel()
            room -= piece.numel()
            if room == 0:
                yield rows, pieces
                rows, pieces, room = [], [], _AT_ONCE
    if rows:
        yield rows, pieces


def _read(flat: Tensor, real: torch.dtype) -> tuple[Tensor, Tensor]:
    """|value| as `real`, 0 where it is not finite, and the bin as int64, the borrowed ones too."""
    if flat.dtype is torch.float64:
        bits = flat.view(torch.int64)
        magnitude, infinity = bits & 0x7FFFFFFFFFFFFFFF, 0x7FF << 52
        k = (magnitude >> 51) - 2 * (1023 - 127)
        k = k.clamp_min(0).clamp_max(509) + (k == 0)
        values = torch.where(magnitude < infinity, magnitude, 0).view(torch.float64).to(real)
    else:
        # float16 to float32 is exact; shifted bits are, too, where denormals read as zero
        if flat.dtype is torch.bfloat16:
            bits = flat.view(torch.int16).to(torch.int32) << 16
        else:
            bits = flat.to(torch.float32).view(torch.int32)
        magnitude, infinity = bits & 0x7FFFFFFF, 0x7F800000
        k = (magnitude >> 22).to(torch.int64)
        finite = torch.where(magnitude < infinity, magnitude, 0)
        values = finite.view(torch.float32).to(real)
        values = torch.where(finite < 1 << 23, finite.to(real) * 2.0**-149, values)
    k = k + SIGN * (bits < 0)
    k = torch.where(magnitude >= infinity, _INFINITE + (magnitude > infinity).to(k.dtype), k)
    return values, torch.where(magnitude == 0, _ZERO, k)
