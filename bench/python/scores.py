"""Chunks, and the decayed scores inside them, as the chunk forms of gla.py and kda.py share them."""

from peer import torch


def chunks(x, size):
    """[B, T, H, D] -> [B * H * N, size, D], N = T / size."""
    B, T, H, D = x.shape
    return x.reshape(B, T // size, size, H, D).permute(0, 3, 1, 2, 4).reshape(-1, size, D)


def unchunks(x, B, T, H):
    """The inverse of `chunks`."""
    _, size, D = x.shape
    return x.view(B, H, T // size, size, D).permute(0, 2, 3, 1, 4).reshape(B, T, H, D)


def decayed_scores(readers, k, g, block):
    """For every x of `readers` A_ij = sum_d x_id k_jd exp(G_id - G_jd), j <= i, in chunks [M, C, C]; all of them [M, C, K].

    Also the readers decayed from the chunk's start, the keys decayed to its end, and the sum of its gates. No exponent is ever positive
    (arXiv 2312.06635, Sec. 4.3): the scores of neighbouring blocks are merged, `block` tokens, twice as many, ... until a chunk is whole.
    """
    M, C, K = k.shape
    blocks = (M * C // block, block, K)
    k, G = k.view(blocks), g.view(blocks).cumsum(1)
    future = torch.full((block, block), float("-inf"), dtype=k.dtype).triu(1).unsqueeze(2)
    pair = (G.unsqueeze(2) - G.unsqueeze(1) + future).exp() * k.unsqueeze(1)
    scores = [(pair * x.view(blocks).unsqueeze(2)).sum(-1) for x in readers]
    gate = G[:, -1:]  # over the block
    decay = G.exp()
    queries = [x.view(blocks) * decay for x in readers]  # decayed from the block's start
    keys = k * (gate - G).exp()  # decayed to the block's end
    size = block
    while size < C:
        pairs = (M * C // (2 * size), 2, size, K)
        k2, g2 = keys.view(pairs), gate.view(-1, 2, 1, K)
        decay = g2.exp()
        for n, (A, x) in enumerate(zip(scores, queries)):
            x2, A2 = x.view(pairs), A.view(-1, 2, size, size)
            corner = torch.bmm(x2[:, 1], k2[:, 0].transpose(1, 2))
            scores[n] = torch.cat([torch.nn.functional.pad(A2[:, 0], (0, size)), torch.cat([corner, A2[:, 1]], 2)], 1)
            queries[n] = torch.cat([x2[:, 0], x2[:, 1] * decay[:, 0]], 1)
        keys = torch.cat([k2[:, 0] * decay[:, 1], k2[:, 1]], 1)
        gate = g2.sum(1)
        size *= 2
    return scores, queries, keys, gate
