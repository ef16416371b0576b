"""Gated linear attention in PyTorch: the chunk form, as tight as a CPU allows. Driven by bench/python.ts over stdin and stdout."""

from peer import serve_mixing, torch
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


def draw(B, T, H, K, V, dtype):
    q, k, v, g, upstream = (torch.randn(B, T, H, D, dtype=dtype) for D in (K, K, V, K, V))
    return [x.requires_grad_() for x in (q, k, v, -0.05 * g.abs())], upstream


if __name__ == "__main__":
    serve_mixing(chunk_gla, naive_gla, draw, CHUNK)
