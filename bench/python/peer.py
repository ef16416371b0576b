"""The other end of bench/python.ts: answers one JSON line for every request, `prepare` first, then `time` again and again."""

import json
import resource
import sys
import time

THREADS = 2

try:
    import torch
except ImportError:
    print(json.dumps({"ms": 0, "error": "PyTorch is not installed for " + sys.executable + " (apt-get install python3-torch)"}), flush=True)
    sys.exit(0)

torch.set_num_threads(THREADS)


def serve(prepare):
    """`prepare(params)` gives the function that is timed; a number it gives back goes along with the timing."""
    run = None
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        try:
            if request["kind"] == "prepare":
                run = prepare(request["params"])
            else:
                value = run()
            answer = {"ms": (time.perf_counter() - start) * 1e3, "memoryBytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
            if request["kind"] == "time" and value is not None:
                answer["value"] = value
        except Exception as error:  # the harness reports it with the row
            answer = {"ms": 0, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def serve_mixing(chunked, naive, draw, chunk, checked=None):
    """Serves a mixing op: its outputs, or its gradients in all inputs under an upstream that is given.

    `draw(B, T, H, K, V, dtype)` gives inputs and upstream. The chunked form is first checked against the naive one: a peer that is fast and
    wrong would be no peer. `checked` stands in for it there: the same form, as exact as it can be made.
    """

    def check():
        inputs, upstream = draw(1, 3 * chunk, 2, 5, 3, torch.float64)
        got, want = (checked or chunked)(*inputs), naive(*inputs)
        for a, b in zip((got, *torch.autograd.grad(got, inputs, upstream)), (want, *torch.autograd.grad(want, inputs, upstream))):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)

    def prepare(params):
        check()
        inputs, upstream = draw(*(params[name] for name in "BTHKV"), torch.float32)

        def forward():
            with torch.no_grad():
                chunked(*inputs)

        def both():
            torch.autograd.grad(chunked(*inputs), inputs, upstream)

        return forward if params["pass"] == "fwd" else both

    serve(prepare)
