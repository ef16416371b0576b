"""Reads the safetensors file that bench/train/handover.ts writes."""

import json

import numpy
from peer import torch

DTYPES = {"F32": numpy.float32, "I32": numpy.int32}


def read_handover(path):
    """Tensors by name, and the facts beside them."""
    with open(path, "rb") as file:
        data = file.read()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    facts = json.loads(header.pop("__metadata__")["facts"])
    tensors = {}
    for name, entry in header.items():
        start, stop = (end + offset for offset in entry["data_offsets"])
        values = numpy.frombuffer(data[start:stop], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(values.copy())
    return tensors, facts
