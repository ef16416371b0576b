"""Causal softmax attention in PyTorch: all scores in one product, softmax, one product. Driven by bench/python.ts over stdin and stdout."""

from peer import serve_mixing, torch

masks = {}


def softmax_attention(q, k, v):
    """q, k [B, T, H, K], v [B, T, H, V]."""
    T = q.shape[1]
    if T not in masks:
        masks[T] = torch.full((T, T), float("-inf"), dtype=q.dtype).triu(1)
    B, H = q.shape[0], q.shape[2]
    q, k, v = (x.transpose(1, 2).reshape(B * H, T, -1) for x in (q, k, v))
    weights = torch.softmax(torch.baddbmm(masks[T], q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5), -1)
    return torch.bmm(weights, v).view(B, H, T, -1).transpose(1, 2)


def naive(q, k, v):
    """From the definition, query by query."""
    outputs = []
    for t in range(q.shape[1]):
        scores = torch.einsum("bhk,bshk->bhs", q[:, t], k[:, : t + 1]) * q.shape[-1] ** -0.5
        outputs.append(torch.einsum("bhs,bshv->bhv", torch.softmax(scores, -1), v[:, : t + 1]))
    return torch.stack(outputs, 1)


def draw(B, T, H, K, V, dtype):
    masks.clear()
    q, k, v, upstream = (torch.randn(B, T, H, D, dtype=dtype) for D in (K, K, V, V))
    return [x.requires_grad_() for x in (q, k, v)], upstream


if __name__ == "__main__":
    serve_mixing(softmax_attention, naive, draw, 16)
