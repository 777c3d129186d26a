"""From symmetric to tridiagonal, one matrix per lane: Householder's reflectors, and their product.

As in EISPACK's tred2 (Golub and Van Loan, section 8.3.1). Element (i, j) of lane b is ``a[(i * stride + j) * lanes +
b]``.
"""

from __future__ import annotations

from typing import Any

from featdyn_kernels._jit import njit
from featdyn_kernels._simd import absolute, lanes, load, splat, sqrt, store, where_less


@njit
def tridiagonalise(a: Any, n: int, stride: int, diagonal: Any, off_diagonal: Any, u: Any, q: Any, p: Any) -> None:
    """Reduce to tridiagonal form; row i of ``a`` keeps reflector i: ``I - h x x^T``, with h in the diagonal's place.

    Reflector i acts on the leading i rows and columns, last one first. Its rank-2 update ``A - q u^T - u q^T`` is put
    off until the next reflector is known, so that one pass over ``A`` updates it and multiplies it by the next ``x``.
    """
    width, number = lanes(a), a.dtype.type
    zero, half, one, tiny = (splat(number(0), 1), splat(number(0.5), 1), splat(number(1), 1), splat(number(1e-30), 1))
    for k in range(0, n * width, width):
        store(u, k, zero)
        store(q, k, zero)
    for i in range(n - 1, -1, -1):
        row = i * stride * width
        u0, q0 = load(u, i * width, 1), load(q, i * width, 1)
        for k in range(0, (i + 1) * width, width):
            store(a, row + k, load(a, row + k, 1) - q0 * load(u, k, 1) - u0 * load(q, k, 1))
        store(diagonal, i * width, load(a, row + i * width, 1))
        if i == 0:
            break
        squares = zero
        for k in range(0, (i - 1) * width, width):
            x = load(a, row + k, 1)
            squares = squares + x * x
        pivot = load(a, row + (i - 1) * width, 1)
        norm = sqrt(squares + pivot * pivot)
        target = where_less(zero, pivot, zero - norm, norm)
        target = where_less(tiny, squares, target, pivot)  # nothing to eliminate: no reflection
        h = where_less(tiny, squares, one / (norm * norm + absolute(pivot) * norm), zero)
        store(off_diagonal, (i - 1) * width, target)
        store(a, row + (i - 1) * width, pivot - target)
        store(a, row + i * width, h)
        _update_and_multiply(a, i, stride, row, u, q, p)
        overlap = zero
        for k in range(0, i * width, width):
            overlap = overlap + load(a, row + k, 1) * load(p, k, 1)
        overlap = overlap * h * h * half
        for k in range(0, i * width, width):
            x = load(a, row + k, 1)
            store(u, k, x)
            store(q, k, load(p, k, 1) * h - overlap * x)
    store(off_diagonal, (n - 1) * width, zero)


@njit
def _update_and_multiply(a: Any, n: int, stride: int, row: int, u: Any, q: Any, p: Any) -> None:
    """For the leading n rows of ``A``: ``A -= q u^T + u q^T``, then ``p = A x``, with x at offset ``row`` of ``a``."""
    width = lanes(a)
    zero = splat(a.dtype.type(0), 1)
    for j in range(0, n * width, width):
        store(p, j, zero)
    for i in range(0, n - 1, 2):  # two rows at a time: half the traffic on u, q, x and p
        j, m = i * width, (i + 1) * width
        top, low = i * stride * width, (i + 1) * stride * width
        u0, u1, q0, q1 = load(u, j, 1), load(u, m, 1), load(q, j, 1), load(q, m, 1)
        x0, x1 = load(a, row + j, 1), load(a, row + m, 1)
        p0, p1 = zero, zero
        for k in range(0, j, width):
            uk, qk, xk = load(u, k, 1), load(q, k, 1), load(a, row + k, 1)
            a0 = load(a, top + k, 1) - q0 * uk - u0 * qk
            a1 = load(a, low + k, 1) - q1 * uk - u1 * qk
            store(a, top + k, a0)
            store(a, low + k, a1)
            p0, p1 = p0 + a0 * xk, p1 + a1 * xk
            store(p, k, load(p, k, 1) + a0 * x0 + a1 * x1)
        a00 = load(a, top + j, 1) - q0 * u0 - u0 * q0
        a10 = load(a, low + j, 1) - q1 * u0 - u1 * q0
        a11 = load(a, low + m, 1) - q1 * u1 - u1 * q1
        store(a, top + j, a00)
        store(a, low + j, a10)
        store(a, low + m, a11)
        store(p, j, p0 + a00 * x0 + a10 * x1)
        store(p, m, p1 + a10 * x0 + a11 * x1)
    if n % 2:
        j = (n - 1) * width
        top = (n - 1) * stride * width
        u0, q0, x0, p0 = load(u, j, 1), load(q, j, 1), load(a, row + j, 1), zero
        for k in range(0, j, width):
            a0 = load(a, top + k, 1) - q0 * load(u, k, 1) - u0 * load(q, k, 1)
            store(a, top + k, a0)
            p0 = p0 + a0 * load(a, row + k, 1)
            store(p, k, load(p, k, 1) + a0 * x0)
        a00 = load(a, top + j, 1) - q0 * u0 - u0 * q0
        store(a, top + j, a00)
        store(p, j, p0 + a00 * x0)


@njit
def accumulate(a: Any, basis: Any, n: int, stride: int) -> None:
    """Write the product of all reflectors, transposed: row j of ``basis`` is its column j. Four rows stay in cache."""
    width, number = lanes(a), a.dtype.type
    zero, one = splat(number(0), 1), splat(number(1), 1)
    for j in range(-(-n // 4) * 4):
        for k in range(stride):
            store(basis, (j * stride + k) * width, one if j == k else zero)
    for j in range(0, n, 4):
        r0 = j * stride * width
        r1, r2, r3 = r0 + stride * width, r0 + 2 * stride * width, r0 + 3 * stride * width
        for i in range(max(j + 1, 2), n):
            row = i * stride * width
            s0, s1, s2, s3 = zero, zero, zero, zero
            for k in range(0, i * width, width):
                x = load(a, row + k, 1)
                s0, s1 = s0 + x * load(basis, r0 + k, 1), s1 + x * load(basis, r1 + k, 1)
                s2, s3 = s2 + x * load(basis, r2 + k, 1), s3 + x * load(basis, r3 + k, 1)
            h = load(a, row + i * width, 1)
            s0, s1, s2, s3 = s0 * h, s1 * h, s2 * h, s3 * h
            for k in range(0, i * width, width):
                x = load(a, row + k, 1)
                store(basis, r0 + k, load(basis, r0 + k, 1) - s0 * x)
                store(basis, r1 + k, load(basis, r1 + k, 1) - s1 * x)
                store(basis, r2 + k, load(basis, r2 + k, 1) - s2 * x)
                store(basis, r3 + k, load(basis, r3 + k, 1) - s3 * x)
