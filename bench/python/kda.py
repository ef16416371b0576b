"""Kimi Delta Attention in PyTorch: the chunk form, as tight as a CPU allows. Driven by bench/python.ts over stdin and stdout."""

from peer import serve_mixing, torch
from scores import chunks, decayed_scores, unchunks

CHUNK, BLOCK = 64, 4  # tokens of a chunk; of the blocks inside it whose own scores are summed channel by channel


def chunk_kda(q, k, v, beta, g):
    """q, k, g [B, T, H, K], v [B, T, H, V], beta [B, T, H]; T a multiple of CHUNK.

    arXiv 2510.26692, Sec. 3: scores of all chunks, the triangular solve of all chunks at once (W and U do not depend on the state), then
    a loop over chunks for the states alone, then all outputs. Safe for any g <= 0.
    """
    B, T, H, K = q.shape
    V, N = v.shape[-1], T // CHUNK
    q, k, v, g = chunks(q * K**-0.5, CHUNK), chunks(k, CHUNK), chunks(v, CHUNK), chunks(g, CHUNK)
    beta = chunks(beta.unsqueeze(-1), CHUNK)

    (P, A), (queries, reads), keys, gate = decayed_scores((q, k), k, g, BLOCK)
    A = torch.eye(CHUNK, dtype=q.dtype) + (beta * A).tril(-1)
    WU = torch.linalg.solve_triangular(A, beta * torch.cat([reads, v], -1), upper=False, unitriangular=True)

    def per_chunk(x):
        return x.reshape(B * H, N, *x.shape[1:]).unbind(1)

    W, U = WU[..., :K], WU[..., K:]
    S = torch.zeros(B * H, K, V, dtype=q.dtype)
    before, writes = [], []
    for w, u, kc, decay in zip(per_chunk(W), per_chunk(U), per_chunk(keys.transpose(1, 2)), per_chunk(gate.exp().transpose(1, 2))):
        before.append(S)
        writes.append(torch.baddbmm(u, w, S, alpha=-1))
        S = torch.baddbmm(decay * S, kc, writes[-1])
    states = torch.stack(before, 1).view(-1, K, V)
    delta = torch.stack(writes, 1).view(-1, CHUNK, V)
    o = torch.baddbmm(torch.bmm(P, delta), queries, states)
    return unchunks(o, B, T, H)


def naive_kda(q, k, v, beta, g):
    """The recurrence, token by token."""
    S, o = torch.zeros(*q.shape[:1], *q.shape[2:], v.shape[-1], dtype=q.dtype), []
    for t in range(q.shape[1]):
        S = g[:, t].exp().unsqueeze(-1) * S
        delta = beta[:, t].unsqueeze(-1) * (v[:, t] - (k[:, t].unsqueeze(-1) * S).sum(-2))
        S = S + k[:, t].unsqueeze(-1) * delta.unsqueeze(-2)
        o.append((q[:, t].unsqueeze(-1) * S).sum(-2) * q.shape[-1] ** -0.5)
    return torch.stack(o, 1)


def draw(B, T, H, K, V, dtype):
    q, k, v, g, upstream = (torch.randn(B, T, H, D, dtype=dtype) for D in (K, K, V, K, V))
    q, k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))
    return [x.requires_grad_() for x in (q, k, v, torch.rand(B, T, H, dtype=dtype), -0.05 * g.abs())], upstream


if __name__ == "__main__":
    serve_mixing(chunk_kda, naive_kda, draw, CHUNK)
