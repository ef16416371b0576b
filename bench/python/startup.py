"""PyTorch until the loss of a linear layer."""

from peer import torch

weight = torch.randn(128, 128, requires_grad=True)
optimizer = torch.optim.Adam([weight])
loss = torch.matmul(torch.randn(32, 128), weight).square().mean()
loss.backward()
optimizer.step()
print(loss.item(), flush=True)
