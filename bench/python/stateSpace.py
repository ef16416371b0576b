"""S4D and S5 in PyTorch, from the numbers handed over. Driven by bench/ssm.ts."""

import math

from handover import read_handover
from peer import serve, torch


def s4d(u, w):
    """u [H, T]; the convolution of the standalone public code: kernel by complex exponentials, then FFT."""
    T, dt = u.shape[-1], w["logDt"].exp().unsqueeze(-1)
    A = torch.complex(-w["logAReal"].exp(), w["aImag"])
    scaled = A * dt
    K = torch.exp(scaled.unsqueeze(-1) * torch.arange(T))
    C = torch.view_as_complex(w["c"]) * (torch.exp(scaled) - 1) / A
    k = 2 * torch.einsum("hn,hnl->hl", C, K).real
    y = torch.fft.irfft(torch.fft.rfft(u, n=2 * T) * torch.fft.rfft(k, n=2 * T), n=2 * T)[..., :T]
    return y + u * w["d"].unsqueeze(-1)


def s5(u, w):
    """u [T, H]; the scan over chunks of about sqrt(T) tokens and then over the chunks, both as products with powers of the transitions."""
    T, Lambda, step = u.shape[0], torch.complex(w["lambdaRe"], w["lambdaIm"]), w["logStep"].exp()
    zeta = Lambda * step
    B = ((torch.exp(zeta) - 1) / Lambda).unsqueeze(-1) * torch.view_as_complex(w["b"])
    C = torch.view_as_complex(w["c"])
    inputs = torch.complex(u @ B.real.T, u @ B.imag.T)
    x = scan(zeta, inputs.T)
    y = 2 * (x.real.T @ C.real.T - x.imag.T @ C.imag.T)
    return y + u * w["d"]


def scan(zeta, b):
    """x_t = exp(zeta) x_{t-1} + b_t for b [P, T]; T a power of two."""
    P, T = b.shape
    Q = 2 ** math.ceil(math.log2(T) / 2)
    b = b.reshape(P, T // Q, Q)
    local = torch.bmm(b, powers(zeta, Q, 0))
    before = torch.bmm(local[:, :, -1].unsqueeze(1), powers(zeta * Q, T // Q, 1)).transpose(1, 2)
    return torch.addcmul(local, before, torch.exp(zeta.unsqueeze(-1) * torch.arange(1, Q + 1)).unsqueeze(1)).view(P, T)


def powers(zeta, n, skip):
    """[P, s, t]: exp((t - s - skip) zeta), 0 for t < s + skip."""
    lags = torch.arange(n) - torch.arange(n).unsqueeze(-1) - skip
    return torch.where(lags >= 0, torch.exp(zeta.view(-1, 1, 1) * lags.clamp(min=0)), torch.zeros((), dtype=zeta.dtype))


def check_scan():
    zeta, b = torch.complex(-torch.rand(3), torch.rand(3)).to(torch.complex128), torch.randn(3, 32, dtype=torch.complex128)
    x, want = torch.zeros(3, dtype=b.dtype), []
    for t in range(32):
        x = zeta.exp() * x + b[:, t]
        want.append(x)
    torch.testing.assert_close(scan(zeta, b), torch.stack(want, 1))


def digest(tensors):
    """As in bench/ssm/layers.ts."""
    total = 0.0
    for x in tensors:
        x = x.detach().double().flatten()
        norm = x.norm()
        total += (norm.log() + (x * torch.arange(len(x)).double().cos()).sum() / norm).item()
    return total


def prepare(params):
    check_scan()
    layer, T = params["layer"], params["T"]
    tensors, _ = read_handover(params["handover"])
    weights = {name.split(".")[1]: x.requires_grad_() for name, x in tensors.items() if name.startswith(layer + ".")}
    names, turned = sorted(weights), layer == "s4d"
    tokens = {name: (x[:T].T if turned else x[:T]).contiguous() for name, x in ((n, tensors["tokens." + n]) for n in ("u", "gY"))}
    u, forward = tokens["u"].requires_grad_(), {"s4d": s4d, "s5": s5}[layer]
    state = {"first": True}

    def run():
        if params["pass"] == "fwd":
            with torch.no_grad():
                results = [forward(u, weights)]
        else:
            results = list(torch.autograd.grad(forward(u, weights), [u, *(weights[name] for name in names)], tokens["gY"]))
        if not state.pop("first", False):
            return None
        results[0] = results[0].T if turned else results[0]
        return digest(results)

    return run


if __name__ == "__main__":
    serve(prepare)
