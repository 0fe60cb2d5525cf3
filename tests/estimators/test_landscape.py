import copy
import gc
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from estimators import Cancelled, Landscape, load_data, load_model
from estimators.core.network.batchnorm import recompute_statistics


def small_nets():
    torch.manual_seed(0)
    attention = load_model(
        "vit_tiny_patch16_224", num_classes=3, image_size=8, patch_size=4, embed_dim=4, depth=1, num_heads=2
    )
    return {
        "mlp": nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4), nn.Tanh(), nn.Linear(4, 3)),
        "conv_bn": nn.Sequential(
            nn.Conv2d(3, 2, 3, stride=2), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3)
        ),
        "attention": attention,
    }


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 3, 8, 8, generator=generator, dtype=torch.float64)
    return x, torch.tensor([0, 1, 2, 0, 1, 2, 0])


@pytest.mark.parametrize("name", ["mlp", "conv_bn", "attention"])
def test_gradient_and_products_equal_the_dense_hessian(name, images):
    model = small_nets()[name].double().eval()
    x, y = images
    parameters = {k: v.detach() for k, v in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(theta):
        pieces, offset = {}, 0
        for k, v in parameters.items():
            pieces[k] = theta[offset : offset + v.numel()].view_as(v)
            offset += v.numel()
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return F.cross_entropy(functional_call(model, (pieces, buffers), (x.float().double(),)), y)

    # a batch size that leaves a short last batch
    land = Landscape(model, (x.float(), y), batch_size=3, precision="float64")
    theta = land.theta
    gradient = torch.func.grad(loss)(theta)
    dense = _central_differences(torch.func.grad(loss), theta)
    assert land.loss() == pytest.approx(loss(theta).item(), rel=1e-12)
    torch.testing.assert_close(land.gradient(), gradient, rtol=1e-8, atol=1e-10)
    vectors = torch.randn(theta.numel(), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    close = {"rtol": 1e-6, "atol": 5e-6}  # the central differences, not the products, set this
    torch.testing.assert_close(land.hvp(vectors), dense @ vectors, **close)
    torch.testing.assert_close(land.hvp(vectors[:, 0]), dense @ vectors[:, 0], **close)
    elsewhere = theta + 0.1
    there = _central_differences(torch.func.grad(loss), elsewhere)
    torch.testing.assert_close(land.hvp(vectors[:, 0], elsewhere), there @ vectors[:, 0], **close)
    torch.testing.assert_close(land.hvp(vectors[:, 0]), dense @ vectors[:, 0], **close)


def _central_differences(gradient, theta, step=1e-5):
    """The Hessian without a second backward pass: torch.func's own is not symmetric through layer norm (2.14)."""
    basis = step * torch.eye(theta.numel(), dtype=theta.dtype)
    return torch.stack([(gradient(theta + e) - gradient(theta - e)) / (2 * step) for e in basis], 1)


def test_graphs_are_kept_for_every_set_of_examples_that_is_still_there(images):
    land = Landscape(small_nets()["mlp"], (images[0].float(), images[1]))
    few = land.on(land.data.take(slice(0, 3)))
    v = torch.randn(land.n_parameters, generator=torch.Generator().manual_seed(1))
    first, graphs = [owner.hvp(v) for owner in (land, few)], land._network._graphs
    kept = {owner: list(parts["batches"].graphs) for owner, parts in graphs.items()}
    assert set(kept) == {land, few}
    for owner, product in zip((land, few), first, strict=True):
        torch.testing.assert_close(owner.hvp(v), product)
        assert graphs[owner]["batches"].graphs == kept[owner]
    del few, owner, kept
    gc.collect()
    assert list(graphs) == [land]


def test_weights_of_examples_are_traces_and_slopes_in_the_outputs(images):
    model, (x, y) = small_nets()["mlp"].double(), images
    squares = Landscape(model, (x.float(), y), loss="mse", precision="float64")
    slopes = 2 * (squares.outputs() - F.one_hot(y, 3)) / 3
    torch.testing.assert_close(squares.per_example_weights(), 2 + 0.1 * slopes.norm(dim=1))
    land = Landscape(model, (x.float(), y), precision="float64")
    p = land.outputs().softmax(1)
    expected = 1 - p.square().sum(1) + 0.1 * (p - F.one_hot(y, 3)).norm(dim=1)
    torch.testing.assert_close(land.per_example_weights(), expected, rtol=0.5, atol=0)  # of eight probes


def test_gauss_newton_and_fisher_equal_their_definitions(images):
    model = small_nets()["mlp"].double()
    x, y = images
    land = Landscape(model, (x.float(), y), batch_size=4, precision="float64")
    jacobians = torch.func.jacrev(lambda t: functional_call(model, _pieces(model, t), (x.float().double(),)))(
        land.theta
    )
    z = model(x.float().double()).detach()
    p = z.softmax(1)
    v = torch.randn(land.n_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    ggn = torch.einsum("nci,ncd,ndj->ij", jacobians, curvature, jacobians) / len(y)
    residual = p - F.one_hot(y, 3)
    g = torch.einsum("nc,nci->ni", residual, jacobians)
    torch.testing.assert_close(land.ggn_vp(v), ggn @ v)
    torch.testing.assert_close(land.fisher_vp(v, kind="model"), ggn @ v)
    torch.testing.assert_close(land.fisher_vp(v), g.T @ (g @ v) / len(y))


def _pieces(model, theta):
    out, offset = {}, 0
    for k, v in model.named_parameters():
        out[k] = theta[offset : offset + v.numel()].view_as(v)
        offset += v.numel()
    return out


def test_linear_regression_has_the_closed_form_hessian():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(10, 4, generator=generator)
    y = torch.randn(10, 1, generator=generator)
    model = nn.Linear(4, 1, bias=False)
    land = Landscape(model, (x, y), loss="mse", batch_size=3, precision="float64")
    expected = 2 * x.double().T @ x.double() / 10
    torch.testing.assert_close(land.hvp(torch.eye(4, dtype=torch.float64)), expected)


@pytest.mark.parametrize("batch_norm", ["frozen", "recompute", "batch"])
def test_policies_equal_a_naive_loop(batch_norm, trained_pair, digits):
    model, data = trained_pair[0], digits.subset(100)
    land = Landscape(model, data, batch_norm=batch_norm, batch_size=64)
    direction = torch.randn(land.n_parameters, generator=torch.Generator().manual_seed(0)) * 0.01
    ours = land.evaluate([land.theta, direction], [[1, 0], [1, 0.5], [1, -1]]).losses
    for scale, value in zip((0, 0.5, -1), ours, strict=True):
        naive = copy.deepcopy(model).eval()
        torch.nn.utils.vector_to_parameters(land.theta + scale * direction, naive.parameters())
        chunks = list(zip(data.inputs.split(64), data.targets.split(64), strict=True))
        if batch_norm == "recompute":
            recompute_statistics(naive, [data.inputs])  # one block, whatever the batch size
        if batch_norm == "batch":
            naive.train()
        with torch.no_grad():
            total = sum(F.cross_entropy(naive(x), y, reduction="sum").item() for x, y in chunks)
        assert value == pytest.approx(total / 100, rel=1e-4)


def test_the_centre_is_the_model_to_the_last_bit(trained_pair, digits):
    land = Landscape(trained_pair[0], digits)
    direction = torch.randn(land.n_parameters)
    assert land.evaluate([direction, land.theta], [[0, 1]]).losses[0] == land.loss() == land.losses(land.theta[None])[0]


def test_short_last_batch_does_not_bias(trained_pair, digits):
    losses = [Landscape(trained_pair[0], digits, batch_size=b).loss() for b in (512, 100, 7)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_caller_is_left_as_it_was(trained_pair, digits):
    model = copy.deepcopy(trained_pair[0]).train()
    model.fc.weight.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    rng = torch.get_rng_state()
    land = Landscape(model, digits, batch_norm="recompute")
    land.loss(), land.gradient(), land.hvp(land.theta), land.model_at(land.theta * 1.1)
    assert model.training and not model.fc.weight.requires_grad and model.fc.bias.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert land.n_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_held_out_statistics_come_from_the_training_examples(trained_pair, digits, digits_test):
    land = Landscape(trained_pair[0], digits, batch_norm="recompute")
    other = land.on(digits_test)
    naive = copy.deepcopy(trained_pair[0])
    recompute_statistics(naive, [digits.inputs])
    with torch.no_grad():
        expected = F.cross_entropy(naive(digits_test.inputs), digits_test.targets).item()
    assert other.loss() == pytest.approx(expected, rel=1e-4)
    assert other.fingerprint != land.fingerprint
    # products of the two, taken in turns, do not mix
    v = torch.ones(land.n_parameters)
    first = land.hvp(v)
    other.hvp(v)
    assert torch.equal(land.hvp(v), first)


def test_state_round_trip_and_model_at(trained_pair, digits):
    land = Landscape(trained_pair[0], digits)
    moved = land.theta * 1.01
    fresh = land.model_at(moved)
    assert torch.equal(land.point(fresh), moved) and torch.equal(land.point(land.state_dict(moved)), moved)
    assert torch.equal(fresh.bn1.running_mean, trained_pair[0].bn1.running_mean)
    recomputed = Landscape(trained_pair[0], digits, batch_norm="recompute")
    model = recomputed.model_at(moved)
    assert Landscape(model, digits).loss() == pytest.approx(recomputed.loss(moved), rel=1e-4)


def test_weights_lie_in_memory_as_theta_and_in_the_copy_that_moves(trained_pair, digits):
    land = Landscape(trained_pair[0], digits.subset(16))
    theta, moving = (v.untyped_storage().data_ptr() for v in (land.theta, land._network.flat.flat))
    places = {p.untyped_storage().data_ptr() for p in land._template.parameters()}
    assert places == {theta} and theta != moving
    own = dict(trained_pair[0].named_parameters())
    assert all(torch.equal(p, own[name]) for name, p in land._template.named_parameters())
    land.loss(2 * land.theta)  # the copy that moves leaves the others where they are
    assert all(torch.equal(p, own[name]) for name, p in land._template.named_parameters())


def test_mismatches_are_listed_all_at_once(trained_pair, digits):
    land = Landscape(trained_pair[0], digits)
    state = dict(trained_pair[0].state_dict())
    state["fc.weight"] = torch.zeros(7, 96)
    state["extra"] = torch.zeros(1)
    del state["bn1.weight"]
    with pytest.raises(ValueError) as error:
        land.point(state)
    text = str(error.value)
    assert "missing: bn1.weight" in text and "unexpected: extra" in text
    assert "fc.weight: (7, 96) in the weights, (10, 96) in the model" in text


def test_outputs_of_every_common_kind():
    class Wrapped(nn.Module):
        def __init__(self, wrap):
            super().__init__()
            self.net, self.wrap = nn.Linear(4, 3), wrap

        def forward(self, x):
            return self.wrap(self.net(x))

    class Box:
        def __init__(self, logits):
            self.logits = logits

    torch.manual_seed(0)
    data = (torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
    values = set()
    for wrap in (lambda z: z, lambda z: (z, None), lambda z: {"logits": z}, Box, lambda z: {"out": z}):
        torch.manual_seed(1)
        values.add(Landscape(Wrapped(wrap), data).loss())
    assert len(values) == 1
    with pytest.raises(TypeError, match="must return a tensor"):
        Landscape(Wrapped(lambda z: "text"), data)


def test_custom_loss_and_its_shape():
    data = (torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
    model = nn.Linear(4, 3)
    land = Landscape(model, data, loss=lambda z, y: F.nll_loss(z.log_softmax(1), y, reduction="none"))
    assert land.loss() == pytest.approx(Landscape(model, data).loss(), rel=1e-6)
    with pytest.raises(ValueError, match="one value per example"):
        Landscape(model, data, loss=lambda z, y: F.cross_entropy(z, y)).loss()


def test_bad_input_is_said():
    data = (torch.randn(4, 3), torch.tensor([0, 1, 2, 5]))
    with pytest.raises(ValueError, match=r"targets must be classes 0 to 2 .* got values from 0 to 5"):
        Landscape(nn.Linear(3, 3), data)
    good = (data[0], torch.tensor([0, 1, 2, 0]))
    with pytest.raises(ValueError, match="batch_norm must be one of"):
        Landscape(nn.Linear(3, 3), good, batch_norm="live")
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        Landscape(nn.Linear(3, 3), good, batch_size=0)
    with pytest.raises(ValueError, match="must accept inputs of shape"):
        Landscape(nn.Linear(5, 3), good)
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        Landscape("resnet18", good)
    with pytest.raises(ValueError, match="at least one trainable parameter"):
        Landscape(nn.Linear(3, 3).requires_grad_(False), good)


def test_a_model_that_draws_random_numbers_is_refused():
    class Noisy(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.randn(len(x), 3)

    with pytest.raises(ValueError, match="same loss twice"):
        Landscape(Noisy(3, 3), (torch.randn(4, 3), torch.tensor([0, 1, 2, 0])))


def test_non_finite_losses_are_kept(trained_pair, digits):
    land = Landscape(trained_pair[0], digits.subset(16))
    losses = land.evaluate([land.theta], [[1.0], [1e30]]).losses
    assert np.isfinite(losses[0]) and not np.isfinite(losses[1])


def test_cancelling_stops_between_points(trained_pair, digits):
    seen = []

    def stop(done, total, message):
        seen.append(done)
        if done == 2:
            raise Cancelled

    land = Landscape(trained_pair[0], digits.subset(16))
    with pytest.raises(Cancelled):
        land.evaluate([land.theta], np.ones((5, 1)), on_progress=stop)
    assert seen == [1, 2]
    assert land.loss() == Landscape(trained_pair[0], digits.subset(16)).loss()


def test_pickles_and_bfloat16_is_close(trained_pair, digits):
    land = Landscape(trained_pair[0], digits.subset(64))
    copied = pickle.loads(pickle.dumps(land))
    assert copied.loss() == land.loss() and copied.fingerprint == land.fingerprint
    alone = Landscape(trained_pair[0], digits.subset(1))
    assert len(pickle.dumps(alone)) < 2 * alone.theta.nbytes + 2**18  # the weights once, not θ once for each of them
    half = Landscape(trained_pair[1], digits.subset(64), precision="bfloat16")
    full = Landscape(trained_pair[1], digits.subset(64))
    assert half.theta.dtype == torch.float32
    assert half.loss() == pytest.approx(full.loss(), abs=0.02) and half.loss() != full.loss()


def test_fingerprint_follows_what_changes_the_number(trained_pair, digits):
    base = Landscape(trained_pair[0], digits)
    assert Landscape(trained_pair[0], digits).fingerprint == base.fingerprint
    others = [
        Landscape(trained_pair[1], digits),
        Landscape(trained_pair[0], digits.subset(100)),
        Landscape(trained_pair[0], digits, loss="mse"),
        Landscape(trained_pair[0], digits, batch_norm="batch"),
        Landscape(trained_pair[0], digits, precision="float64"),
        Landscape(trained_pair[0], digits, parameters="fc"),
    ]
    changed = copy.deepcopy(trained_pair[0])
    changed.bn1.running_mean += 1
    others.append(Landscape(changed, digits))
    assert len({base.fingerprint, *(o.fingerprint for o in others)}) == len(others) + 1


def test_minibatch_gradients_average_to_the_gradient(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    land = Landscape(model, digits, precision="float64")
    halves = [land.minibatch_gradient(np.arange(i, 512, 2)) for i in (0, 1)]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, land.gradient())


def test_any_input_shape_works():
    tokens = torch.randint(0, 11, (6, 5), generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Embedding(11, 4), nn.Flatten(), nn.Linear(20, 2))
    land = Landscape(model, (tokens, torch.tensor([0, 1, 0, 1, 0, 1])))
    assert np.isfinite(land.loss()) and land.gradient().shape == (11 * 4 + 42,)
    assert isinstance(load_data((tokens, torch.zeros(6, dtype=torch.long))).fingerprint, str)
