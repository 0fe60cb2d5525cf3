"""Any module is a landscape: loss, gradient and one product against plain autograd in float64, or a refusal's words."""

import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from estimators import CurvatureEstimator, Landscape, ModeConnector, SharpnessEstimator, SurfaceMapper, load_data, train
from estimators.core.network.evaluation import logits

N, WIDTH = 12, 6


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


DATA = (normal(N, WIDTH), torch.arange(N) % 3)


def made(build, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().double().eval()


def called(model, inputs):
    """The model on inputs of its own, as anybody would call it."""
    if isinstance(inputs, dict):
        return logits(model(**{name: part.clone() for name, part in inputs.items()}))
    return logits(model(*(part.clone() for part in (inputs if isinstance(inputs, tuple) else (inputs,)))))


def by_autograd(model, inputs, loss):
    """Loss, gradient and the product with a fixed vector, by nothing but torch."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    v = normal(sum(p.numel() for p in parameters), seed=9)
    with sdpa_kernel(SDPBackend.MATH):
        value = loss(called(model, inputs))
        parts = torch.autograd.grad(value, parameters, create_graph=True, allow_unused=True, materialize_grads=True)
        gradient = torch.cat([g.reshape(-1) for g in parts])
        parts = torch.autograd.grad(gradient, parameters, v, allow_unused=True, materialize_grads=True)
    return value.item(), gradient.detach(), torch.cat([h.reshape(-1) for h in parts])


def agrees(model, data=DATA, reference=None, **options):
    """A landscape, whose loss, gradient and product are those of plain autograd on `reference`, the model itself."""
    inputs, targets = data
    model.eval()
    before = [part.clone() for part in tensors(inputs)]
    land = Landscape(model, data, batch_size=5, precision="float64", **options)  # a short last batch
    value, gradient, product = by_autograd(reference or model, inputs, lambda z: F.cross_entropy(z, targets))
    assert land.loss() == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(land.gradient(), gradient, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(land.hvp(normal(land.n_parameters, seed=9)), product, rtol=1e-8, atol=1e-10)
    assert all(torch.equal(part, old) for part, old in zip(tensors(inputs), before, strict=True))
    return land


def tensors(inputs):
    return [inputs] if isinstance(inputs, torch.Tensor) else list(getattr(inputs, "values", lambda: inputs)())


# -- several inputs ------------------------------------------------------------------------------------------


class Captioned(nn.Module):
    """An image's features and a caption's tokens, some of them masked; writes into the first."""

    def __init__(self):
        super().__init__()
        self.image, self.words, self.head = nn.Linear(WIDTH, 4), nn.Embedding(7, 4), nn.Linear(4, 3)

    def forward(self, image, tokens, mask=None):
        words = self.words(tokens).mean(1)
        hidden = self.image(image.sub_(1.0)).tanh() + (words if mask is None else words * mask[:, None])
        return {"logits": self.head(hidden), "hidden": hidden}


TOKENS = torch.randint(0, 7, (N, 3), generator=torch.Generator().manual_seed(1))
SEVERAL = {
    "tuple": (DATA[0], TOKENS),
    "dict": {"tokens": TOKENS, "image": DATA[0], "mask": (normal(N, seed=2) > 0).double()},
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_inputs_and_inputs_by_name(kind):
    model, data = made(Captioned), (SEVERAL[kind], DATA[1])
    land = agrees(model, data)
    assert land.changes_input
    assert pickle.loads(pickle.dumps(land)).loss() == land.loss()
    assert land.on(land.data.take(slice(0, 7))).n_examples == 7
    assert agrees(model, data).fingerprint == land.fingerprint != Landscape(made(Captioned, 1), data).fingerprint
    torch.testing.assert_close(land.point(made(Captioned, 1)), Landscape(made(Captioned, 1), data).theta.double())
    single = SurfaceMapper(resolution=3).fit(model, data)
    assert single.losses_[1, 1] == Landscape(model, data).loss()
    together = SurfaceMapper(resolution=3, points_per_pass=4).fit(model, data)
    assert together.losses_ == pytest.approx(single.losses_, rel=1e-5)
    head = Landscape(model, data, parameters="head", precision="float64")
    assert head.settings["backbone"] == "run once" and head.loss() == pytest.approx(land.loss(), rel=1e-12)


@pytest.mark.parametrize("kind", SEVERAL)
def test_estimators_and_training_take_several_inputs(kind):
    data = load_data((SEVERAL[kind], DATA[1]))
    run = train(Captioned(), data, epochs=3, batch_size=5, held_out=data, sam_rho=0.01)
    assert run.history["held_out_loss"][-1] == pytest.approx(Landscape(run.model, data).loss(), rel=1e-5)
    assert not run.model._forward_pre_hooks and len(data.subset(5)) == 5
    SharpnessEstimator(n_draws=4, n_steps=2, m=4).fit(run.model, data)
    CurvatureEstimator(n_eigenvalues=1, n_lanczos=0).fit(run.model, data)
    ModeConnector(path="bezier", epochs=1, n_points=3).fit((run.model, made(Captioned).float()), data)


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"inputs and targets must have equal lengths, got 12, 5 and 12\."):
        Landscape(made(Captioned), ((DATA[0], TOKENS[:5]), DATA[1]))
    with pytest.raises(ValueError, match=r"must accept inputs of shape picture: \(6,\), got an error.*names"):
        Landscape(made(Captioned), ({"picture": DATA[0]}, DATA[1]))
