"""Decoding with the GLA language model in PyTorch, from the weights and the text handed over. Driven by bench/decode.ts."""

from handover import read_handover
from model import Model
from peer import serve, torch


def prepare(params):
    tensors, facts = read_handover(params["handover"])
    model = Model(tensors, facts["config"])
    ids = tensors["batches.inputs"].flatten().long()
    position, count = params["T"], params["tokens"]
    with torch.inference_mode():
        start = model.initial_states(1)
        for i in range(position):
            model.step(ids[i : i + 1], start)

    def run():
        with torch.inference_mode():
            states = [{name: x.clone() for name, x in state.items()} for state in start]
            for i in range(position, position + count):
                top = model.step(ids[i : i + 1], states).max().item()
            return top

    return run


if __name__ == "__main__":
    serve(prepare)
