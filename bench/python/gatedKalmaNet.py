"""Gated KalmaNet in PyTorch: the chunk form, as tight as a CPU allows. Driven by bench/python.ts over stdin and stdout."""

from functools import partial

from peer import serve_mixing, torch
from scores import chunks, unchunks

CHUNK, ITERATIONS, RIDGE = 64, 30, 0.02
GROUP = 16  # chunks solved together: what they need stays in the cache for all rounds


def solve(*tensors, iterations):
    """`rounds` for groups of chunks."""
    groups = zip(*(x.split(GROUP) for x in tensors))
    return torch.cat([rounds(*group, iterations) for group in groups])


def rounds(b, keys, H, pairs, start, f, iterations):
    """x [M, C, D] of (H_t + RIDGE f_t) x_t = b_t, H_t = start_t H + sum_j pairs_tj k_j k_j^T, by the Chebyshev iteration.

    arXiv 2511.21016, Algorithm 1, with the first weight 2. The step is folded into the decays, so that a round is two products and passes in place.
    """
    rho = 1 / (1 + 2 * RIDGE)
    step = 2 * rho / f
    starts, scaled = -step * start, -step * pairs
    right, keys_t, both = step * b, keys.transpose(1, 2).contiguous(), torch.cat([H, keys], 1)
    D, reads = b.shape[-1], torch.empty(*b.shape[:2], both.shape[1], dtype=b.dtype)
    x, change, weight = right.clone(), right.clone(), 2.0
    for _ in range(iterations):
        weight = 1 / (1 - weight * rho * rho / 4)
        torch.mul(x, starts, out=reads[..., :D])
        torch.mul(torch.bmm(x, keys_t), scaled, out=reads[..., D:])
        missing = torch.baddbmm(right, reads, both).sub_(x, alpha=2 * rho * RIDGE)
        x.add_(change.mul_(weight - 1).add_(missing, alpha=weight))
    return x


class Solve(torch.autograd.Function):
    """`solve`, with the gradient of the equation instead of one through the rounds (Sec. 4.3)."""

    @staticmethod
    def forward(ctx, b, keys, H, pairs, start, f, iterations):
        x = solve(b, keys, H, pairs, start, f, iterations=iterations)
        ctx.save_for_backward(x, keys, H, pairs, start, f)
        ctx.iterations = iterations
        return x

    @staticmethod
    def backward(ctx, dx):
        x, keys, H, pairs, start, f = ctx.saved_tensors
        c = solve(dx, keys, H, pairs, start, f, iterations=ctx.iterations)
        scores, upstream = torch.bmm(x, keys.transpose(1, 2)), -torch.bmm(c, keys.transpose(1, 2))
        dkeys = torch.bmm((upstream * pairs).transpose(1, 2), x) - torch.bmm((scores * pairs).transpose(1, 2), c)
        dH = -torch.bmm(x.transpose(1, 2), start * c)
        dstart = -(c * torch.bmm(x, H)).sum(-1, keepdim=True)
        df = -RIDGE * (x * c).sum(-1, keepdim=True)
        return c, dkeys, dH, upstream * scores, dstart, df, None


def chunk_gka(q, k, v, g, alpha, iterations=ITERATIONS):
    """q, k [B, T, H, K], v [B, T, H, V], g, alpha [B, T, H]; T a multiple of CHUNK.

    Decays and norms of all chunks, a loop over chunks for both states at once, then all systems and all outputs. Safe for any g <= 0.
    """
    B, T, H, K = q.shape
    V, N = v.shape[-1], T // CHUNK
    q, k, v = (chunks(x, CHUNK) for x in (q, k, v))
    G, alpha = chunks(g.unsqueeze(-1), CHUNK).cumsum(1), chunks(alpha.unsqueeze(-1), CHUNK)
    future = torch.full((CHUNK, CHUNK), float("-inf"), dtype=q.dtype).triu(1)
    pairs, start, rest = (G - G.transpose(1, 2) + future).exp(), G.exp(), (G[:, -1:] - G).exp()

    writes = torch.bmm((k * rest).transpose(1, 2), torch.cat([k, v], -1)).view(B * H, N, K, K + V).unbind(1)
    decays = start[:, -1:].reshape(B * H, N, 1, 1).unbind(1)
    S, before = torch.zeros(B * H, K, K + V, dtype=q.dtype), []
    for write, decay in zip(writes, decays):
        before.append(S)
        S = torch.addcmul(write, decay, S)
    states = torch.stack(before, 1).view(-1, K, K + V)
    kk, kv = states[..., :K].contiguous(), states[..., K:]

    gram = torch.bmm(k, k.transpose(1, 2))
    mixed = torch.bmm(pairs, (k * torch.bmm(k, kk)).sum(-1, keepdim=True))
    own = (torch.bmm(pairs, gram.square()) * pairs).sum(-1, keepdim=True)
    squares = start * (start * kk.square().sum((1, 2)).view(-1, 1, 1) + 2 * mixed) + own
    x = Solve.apply(q, k, kk, pairs, start, squares.sqrt(), iterations)

    queries = torch.lerp(q, x, alpha.expand_as(q)) * K**-0.5
    scores = torch.bmm(queries, k.transpose(1, 2)) * pairs
    return unchunks(torch.baddbmm(torch.bmm(scores, v), queries * start, kv), B, T, H)


def naive_gka(q, k, v, g, alpha):
    """The recurrence, token by token, every system solved exactly."""
    kk, kv, o = 0, 0, []
    for t in range(q.shape[1]):
        decay, key = g[:, t].exp().unsqueeze(-1).unsqueeze(-1), k[:, t].unsqueeze(-1)
        kk, kv = decay * kk + key * key.transpose(-1, -2), decay * kv + key * v[:, t].unsqueeze(-2)
        ridge = RIDGE * kk.square().sum((-1, -2)).sqrt().unsqueeze(-1).unsqueeze(-1)
        x = torch.linalg.solve(kk + ridge * torch.eye(kk.shape[-1], dtype=kk.dtype), q[:, t])
        query = q[:, t] + alpha[:, t].unsqueeze(-1) * (x - q[:, t])
        o.append((query.unsqueeze(-1) * kv).sum(-2) * q.shape[-1] ** -0.5)
    return torch.stack(o, 1)


def draw(B, T, H, K, V, dtype):
    q, k, v, upstream = (torch.randn(B, T, H, D, dtype=dtype) for D in (K, K, V, V))
    q, k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))
    g, alpha = -0.05 * torch.randn(B, T, H, dtype=dtype).abs(), torch.rand(B, T, H, dtype=dtype)
    return [x.requires_grad_() for x in (q, k, v, g, alpha)], upstream


if __name__ == "__main__":
    # After 200 rounds nothing is left of the truncation, and the gradients of the equation are those through an exact solve.
    serve_mixing(chunk_gka, naive_gka, draw, CHUNK, checked=partial(chunk_gka, iterations=200))
