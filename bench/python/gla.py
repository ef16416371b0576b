"""Gated linear attention in PyTorch: the chunk form, as tight as a CPU allows. Driven by bench/python.ts over stdin and stdout."""

from peer import serve, torch
from scores import chunks, decayed_scores, unchunks

CHUNK, BLOCK = 32, 4  # tokens of a chunk; of the blocks inside it whose own scores are summed channel by channel


def chunk_gla(q, k, v, g):
    """q, k, g [B, T, H, K], v [B, T, H, V]; T a multiple of CHUNK.

    Safe for any g <= 0. The only loop over time is over chunks, for the states.
    """
    B, T, H, K = q.shape
    V, N = v.shape[-1], T // CHUNK
    q, k, v, g = chunks(q * K**-0.5, CHUNK), chunks(k, CHUNK), chunks(v, CHUNK), chunks(g, CHUNK)
    (A,), (queries,), keys, gate = decayed_scores((q,), k, g, BLOCK)

    writes = torch.bmm(keys.transpose(1, 2), v).view(B * H, N, K, V).unbind(1)
    decays = gate.exp().view(B * H, N, K, 1).unbind(1)
    S = torch.zeros(B * H, K, V, dtype=q.dtype)
    before = []
    for write, decay in zip(writes, decays):
        before.append(S)
        S = torch.addcmul(write, decay, S)
    states = torch.stack(before, 1).view(-1, K, V)
    return unchunks(torch.baddbmm(torch.bmm(A, v), queries, states), B, T, H)


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
