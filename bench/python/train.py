"""Training steps of the GLA language model in PyTorch, from the weights and batches handed over. Driven by bench/train.ts."""

from itertools import cycle

from handover import read_handover
from model import Model
from peer import serve, torch


def prepare(params):
    tensors, facts = read_handover(params["handover"])
    update = facts["update"]
    model = Model(tensors, facts["config"])
    groups = [
        {"params": model.decayed(), "weight_decay": update["weightDecay"]},
        {"params": model.spared(), "weight_decay": 0},
    ]
    parameters = model.decayed() + model.spared()
    optimizer = torch.optim.AdamW(groups, lr=update["learningRate"], betas=(0.9, 0.95), eps=1e-8)
    batches = cycle(list(zip(tensors["batches.inputs"].long(), tensors["batches.targets"].long())))

    def step():
        inputs, targets = next(batches)
        loss = model.loss(inputs, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, update["clipNorm"])
        optimizer.step()
        return loss.item()

    return step


if __name__ == "__main__":
    serve(prepare)
