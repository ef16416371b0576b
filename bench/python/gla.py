"""Gated linear attention in PyTorch: the chunk form, as tight as a CPU allows. Driven by bench/python.ts over stdin and stdout."""

from peer import serve, torch

CHUNK, BLOCK = 32, 4  # tokens of a chunk; of the blocks inside it whose own scores are summed channel by channel


def chunk_gla(q, k, v, g):
    """q, k, g [B, T, H, K], v [B, T, H, V]; T a multiple of CHUNK.

    Safe for any g <= 0 (arXiv 2312.06635, Sec. 4.3): no exponent is ever positive. The scores of neighbouring blocks are merged,
    BLOCK tokens, twice as many, ... until a chunk is whole; the only loop over time is over chunks, for the states.
    """
    B, T, H, K = q.shape
    V, N = v.shape[-1], T // CHUNK
    M = B * H * N

    def chunks(x):  # [M, CHUNK, D]
        D = x.shape[-1]
        return x.view(B, N, CHUNK, H, D).permute(0, 3, 1, 2, 4).reshape(M, CHUNK, D)

    q, k, v, g = chunks(q * K**-0.5), chunks(k), chunks(v), chunks(g)

    blocks = (M * CHUNK // BLOCK, BLOCK, K)
    q, k, G = q.view(blocks), k.view(blocks), g.view(blocks).cumsum(1)
    future = torch.full((BLOCK, BLOCK), float("-inf"), dtype=q.dtype).triu(1).unsqueeze(2)
    pair = (G.unsqueeze(2) - G.unsqueeze(1) + future).exp()
    A = (pair * q.unsqueeze(2) * k.unsqueeze(1)).sum(-1)
    gate = G[:, -1:]  # over the block
    queries = q * G.exp()  # decayed from the block's start
    keys = k * (gate - G).exp()  # decayed to the block's end
    size = BLOCK
    while size < CHUNK:
        pairs = (M * CHUNK // (2 * size), 2, size, K)
        q2, k2, g2 = queries.view(pairs), keys.view(pairs), gate.view(-1, 2, 1, K)
        corner = torch.bmm(q2[:, 1], k2[:, 0].transpose(1, 2))
        A2 = A.view(-1, 2, size, size)
        A = torch.cat([torch.nn.functional.pad(A2[:, 0], (0, size)), torch.cat([corner, A2[:, 1]], 2)], 1)
        decay = g2.exp()
        queries = torch.cat([q2[:, 0], q2[:, 1] * decay[:, 0]], 1)
        keys = torch.cat([k2[:, 0] * decay[:, 1], k2[:, 1]], 1)
        gate = g2.sum(1)
        size *= 2

    writes = torch.bmm(keys.transpose(1, 2), v).view(B * H, N, K, V).unbind(1)
    decays = gate.exp().view(B * H, N, K, 1).unbind(1)
    S = torch.zeros(B * H, K, V, dtype=q.dtype)
    before = []
    for write, decay in zip(writes, decays):
        before.append(S)
        S = torch.addcmul(write, decay, S)
    states = torch.stack(before, 1).view(M, K, V)
    o = torch.baddbmm(torch.bmm(A, v), queries, states)
    return o.view(B, H, N, CHUNK, V).permute(0, 2, 3, 1, 4).reshape(B, T, H, V)


def naive_gla(q, k, v, g):
    """The recurrence, token by token."""
    S, o = 0, []
    for t in range(q.shape[1]):
        S = g[:, t].exp().unsqueeze(-1) * S + k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(-2)
        o.append((q[:, t].unsqueeze(-1) * S).sum(-2) * q.shape[-1] ** -0.5)
    return torch.stack(o, 1)


def draw(B, T, H, K, V, dtype=torch.float32):
    q, k, v, g, upstream = (torch.randn(B, T, H, D, dtype=dtype) for D in (K, K, V, K, V))
    return [x.requires_grad_() for x in (q, k, v, -0.05 * g.abs())], upstream


def check():
    """A peer that is fast and wrong would be no peer."""
    inputs, upstream = draw(1, 3 * CHUNK, 2, 5, 3, torch.float64)
    got, want = chunk_gla(*inputs), naive_gla(*inputs)
    for a, b in zip((got, *torch.autograd.grad(got, inputs, upstream)), (want, *torch.autograd.grad(want, inputs, upstream))):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def prepare(params):
    check()
    inputs, upstream = draw(**{name: params[name] for name in "BTHKV"})

    def forward():
        with torch.no_grad():
            chunk_gla(*inputs)

    def both():
        torch.autograd.grad(chunk_gla(*inputs), inputs, upstream)

    return forward if params["pass"] == "fwd" else both


if __name__ == "__main__":
    serve(prepare)
