import copy
import json
import os
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from torch import nn

from estimators import Landscape, load_data, load_model, train
from estimators.models import read_checkpoint
from estimators.progress import Cancelled
from estimators.results import Result
from estimators.surface._mapper import SurfaceMapper


@pytest.fixture(scope="module")
def few(digits):
    return digits.subset(16)


@pytest.fixture(scope="module")
def trained(digits):
    return train(load_model("test_resnet", num_classes=10), digits.subset(192), epochs=2, random_state=0)


@pytest.fixture
def tiny(tiny_mlp):
    """A smooth float64 network fitted to its data, and the data."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(40, 8, generator=generator, dtype=torch.float64)
    targets = inputs[:, :3].argmax(dim=1)
    model = tiny_mlp.double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model.eval(), (inputs, targets)


def mapper(**kwargs):
    return SurfaceMapper(**{"resolution": 5, "precision": "float64", **kwargs})


def naive(model, data, origin_coordinates, directions, axes, dtype):
    """The loop everybody writes first: copy the model, add the step to each parameter, run it forward."""
    out = np.zeros([len(a) for a in axes])
    inputs, targets = data.inputs.to(dtype), data.targets
    for i, x in enumerate(axes[0]):
        for j, y in enumerate(axes[1]):
            moved = copy.deepcopy(model).to(dtype).eval()
            start = 0
            with torch.no_grad():
                for p in moved.parameters():
                    stop = start + p.numel()
                    for scale, d in zip((x, y), directions, strict=True):
                        p += float(scale) * torch.as_tensor(d[start:stop], dtype=dtype).view(p.shape)
                    start = stop
                out[i, j] = nn.functional.cross_entropy(moved(inputs), targets).item()
    return out


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-9)])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_agrees_with_a_naive_loop_and_is_exact_at_the_centre(name, dtype, tolerance, few, trained):
    kwargs = {"image_size": 32} if name == "test_vit" else {}
    model = trained.model if name == "test_resnet" else load_model(name, num_classes=10, **kwargs)
    fitted = SurfaceMapper(resolution=(5, 3), precision=dtype, random_state=2).fit(model, few)
    expected = naive(model, few, None, fitted.directions_, fitted.axes_, getattr(torch, dtype))
    np.testing.assert_allclose(fitted.losses_, expected, rtol=tolerance)
    assert fitted.losses_[2, 1] == Landscape(model, few, precision=dtype).loss() == fitted.loss_
    assert fitted.cosine_ < 1e-4
    assert fitted.evaluated_.all()
    assert fitted.converged_


def test_the_model_and_the_random_state_are_left_alone(trained, few):
    model = trained.model
    state = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [(p.requires_grad, p.grad) for p in model.parameters()]
    training, before = model.training, torch.get_rng_state()
    SurfaceMapper(resolution=3).fit(model, few)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [(p.requires_grad, p.grad) for p in model.parameters()] == flags
    assert model.training == training
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("resolution", [(7, 4), (4, 7), 6, 5])
def test_resolutions_per_axis_and_even_numbers(tiny, resolution):
    model, data = tiny
    fitted = mapper(resolution=resolution, span=(0.5, 0.25)).fit(model, data)
    sizes = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    assert fitted.losses_.shape == sizes == tuple(len(a) for a in fitted.axes_)
    i, j = (int(np.flatnonzero(a == 0.0)[0]) for a in fitted.axes_)
    assert fitted.losses_[i, j] == Landscape(model, data, precision="float64").loss()
    # first index along the first direction
    assert fitted.losses_[0, j] == fitted.evaluate([[fitted.axes_[0][0], 0.0]])[0]
    assert fitted.losses_[i, 0] == fitted.evaluate([[0.0, fitted.axes_[1][0]]])[0]
    for axis, span in zip(fitted.axes_, (0.5, 0.25), strict=True):
        step = axis[1] - axis[0]
        assert -span - step - 1e-12 <= axis[0] <= -span + 1e-12
        assert span - 1e-12 <= axis[-1] <= span + step + 1e-12


def test_two_fits_are_equal_bit_for_bit_and_seeds_differ(tiny):
    model, data = tiny
    first, second, other = (mapper(random_state=s).fit(model, data) for s in (3, 3, 4))
    assert np.array_equal(first.losses_, second.losses_)
    assert np.array_equal(first.directions_, second.directions_)
    assert not np.allclose(first.losses_, other.losses_)


def test_transform_and_inverse_transform_return_points_of_the_plane(tiny):
    model, data = tiny
    fitted = mapper().fit(model, data)
    coordinates = np.array([[0.3, -0.7], [0.0, 0.0], [1.0, 1.0]])
    states = fitted.inverse_transform(coordinates)
    np.testing.assert_allclose(fitted.transform(states), coordinates, atol=1e-5)
    assert fitted.residuals(states).max() < 1e-6
    assert list(states[0]) == list(model.state_dict())
    moved = copy.deepcopy(model)
    moved.load_state_dict(states[0])
    assert Landscape(moved, data, precision="float64").loss() == pytest.approx(
        fitted.evaluate(coordinates[:1])[0], rel=1e-12
    )
    away = copy.deepcopy(model)
    with torch.no_grad():
        away[0].bias += 0.5  # filter-normalised directions leave biases alone: straight out of the plane
    assert fitted.residuals(away)[0] == pytest.approx(0.5 * np.sqrt(6), rel=1e-9)
    np.testing.assert_allclose(fitted.transform(away), 0.0, atol=1e-12)
    assert list(fitted.get_feature_names_out()) == ["direction1", "direction2"]
    table = fitted.set_output(transform="pandas").transform([model, away])
    assert list(table.columns) == ["direction1", "direction2"]
    with pytest.raises(ValueError, match=r"coordinates must have shape \(n, 2\)"):
        fitted.evaluate([[1.0, 2.0, 3.0]])


def test_eigenvector_curvature_read_off_the_map_is_the_eigenvalue(tiny):
    model, data = tiny
    fitted = mapper(directions="hessian", span=0.02).fit(model, data)
    step = fitted.axes_[0][3]
    rows = (fitted.losses_[1:4, 2], fitted.losses_[2, 1:4])
    for line, eigenvalue in zip(rows, fitted.eigenvalues_, strict=True):
        second = (line[0] - 2 * line[1] + line[2]) / step**2
        assert second == pytest.approx(eigenvalue, rel=0.02)
    np.testing.assert_allclose(np.linalg.norm(fitted.directions_, axis=1), 1.0, rtol=1e-9)
    parameters = list(model.parameters())
    loss = nn.functional.cross_entropy(model(data[0]), data[1])
    flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    rows = [torch.cat([h.reshape(-1) for h in torch.autograd.grad(g, parameters, retain_graph=True)]) for g in flat]
    exact = torch.linalg.eigvalsh(torch.stack(rows))
    np.testing.assert_allclose(fitted.eigenvalues_, exact.flip(0)[:2].numpy(), rtol=1e-3)
    extremes = mapper(directions="hessian", eigenvectors="extremes", span=0.01, resolution=3).fit(model, data)
    np.testing.assert_allclose(extremes.eigenvalues_, [exact[-1], exact[0]], rtol=2e-3, atol=1e-6)


def test_a_trajectory_is_scikit_learns_pca_with_true_losses_beside_the_map(trained, few):
    fitted = SurfaceMapper(directions="trajectory", resolution=5, batch_norm="frozen").fit(trained, few)
    land = Landscape(trained.model, few)
    points = torch.stack([land.point(p) for p in trained.checkpoints]).double().numpy()
    pca = PCA(2).fit(points)
    np.testing.assert_allclose(fitted.explained_variance_ratio_, pca.explained_variance_ratio_, rtol=1e-5)
    (path,) = fitted.trajectories_
    assert len(path["x"]) == len(trained.checkpoints) == len(path["loss"])
    assert path["x"][-1] == pytest.approx(0.0, abs=1e-5)  # the map is centred on the last checkpoint
    assert path["loss"][-1] == pytest.approx(fitted.loss_, rel=1e-6)
    for k, file in enumerate(trained.checkpoints):
        model = copy.deepcopy(trained.model)
        model.load_state_dict(read_checkpoint(file)[0])
        assert path["loss"][k] == pytest.approx(Landscape(model, few).loss(), rel=1e-5)
    centred = points - points[-1]
    inside = centred @ fitted.directions_.T.astype(float)
    np.testing.assert_allclose(np.stack([path["x"], path["y"]], 1), inside, atol=1e-3)
    distances = np.linalg.norm(centred - inside @ fitted.directions_, axis=1)
    np.testing.assert_allclose(path["distance"], distances, atol=1e-3)
    for axis, values in zip(fitted.axes_, (path["x"], path["y"]), strict=True):
        assert axis[0] < min(values) and axis[-1] > max(values)


def test_a_random_walk_is_told_from_a_trajectory(tiny):
    """A plane of principal components shows most of a random walk's variance, too."""
    model, data = tiny
    land = Landscape(model, data, precision="float64")
    generator = torch.Generator().manual_seed(3)
    steps = 0.05 * torch.randn(9, land.n_parameters, generator=generator, dtype=torch.float64)
    walk = [land.theta + s for s in torch.cat([torch.zeros_like(steps[:1]), steps.cumsum(0)])]
    wandering = mapper(directions="trajectory", resolution=3).fit([*walk[:-1], land.model_at(walk[-1])], data)
    drifting = [land.theta + k * steps[0] + 0.1 * steps[k] for k in range(9)]
    going = mapper(directions="trajectory", resolution=3).fit([*drifting[:-1], land.model_at(drifting[-1])], data)
    share = wandering.random_walk_variance_ratio_.sum()
    assert share == pytest.approx(sum(1 / np.sin(np.pi * k / 20) ** 2 for k in (1, 2)) / 66.0, rel=1e-9)
    assert going.explained_variance_ratio_.sum() > going.random_walk_variance_ratio_.sum()
    assert not any("random walk" in note for note in going.notes_)
    said = any("random walk" in note for note in wandering.notes_)
    assert said == (wandering.explained_variance_ratio_.sum() <= share)
    assert mapper(resolution=3).fit(model, data).random_walk_variance_ratio_.size == 0


def test_several_trajectories_share_one_plane(tiny):
    model, data = tiny
    paths = {}
    for k, name in enumerate(("sgd", "adam")):
        generator = torch.Generator().manual_seed(k)
        land = Landscape(model, data, precision="float64")
        steps = torch.randn(4, land.n_parameters, generator=generator, dtype=torch.float64).cumsum(0)
        paths[name] = [land.theta + 0.05 * s for s in steps] + [model]
    fitted = mapper(directions="trajectory", resolution=3).fit(paths, data)
    assert [t["label"] for t in fitted.trajectories_] == ["sgd", "adam"]
    assert all(t["distance"][-1] == pytest.approx(0.0, abs=1e-9) for t in fitted.trajectories_)
    assert 0 < fitted.explained_variance_ratio_.sum() < 1
    assert fitted.random_walk_variance_ratio_.size == 0  # not one walk


def test_three_models_lie_in_their_plane_with_their_own_losses(tiny):
    model, data = tiny
    land = Landscape(model, data, precision="float64")
    generator = torch.Generator().manual_seed(5)
    others = [
        land.model_at(land.theta + torch.randn(land.n_parameters, generator=generator).double()) for _ in range(2)
    ]
    fitted = mapper(directions="models").fit({"A": model, "B": others[0], "C": others[1]}, data)
    assert [m["label"] for m in fitted.markers_] == ["A", "B", "C"]
    for marker, m in zip(fitted.markers_, [model, *others], strict=True):
        assert marker["distance"] < 1e-9
        assert marker["loss"] == Landscape(m, data, precision="float64").loss()
        assert fitted.evaluate([[marker["x"], marker["y"]]])[0] == pytest.approx(marker["loss"], rel=1e-9)
        assert fitted.axes_[0][0] < marker["x"] < fitted.axes_[0][-1]
        assert fitted.axes_[1][0] < marker["y"] < fitted.axes_[1][-1]
    assert fitted.losses_[fitted.axes_[0] == 0.0, fitted.axes_[1] == 0.0] == land.loss()
    with pytest.raises(ValueError, match="models must be 3 models for a plane"):
        mapper(directions="models").fit([model, others[0]], data)


def test_a_straight_line_meets_both_models_to_the_last_bit(tiny):
    model, data = tiny
    land = Landscape(model, data, precision="float64")
    other = land.model_at(land.theta * 1.37 + 0.1)
    fitted = mapper(directions="linear", n_dims=1, resolution=7).fit([model, other], data)
    t = fitted.axes_[0]
    assert fitted.losses_[t == 0.0][0] == land.loss()
    assert fitted.losses_[t == 1.0][0] == land.loss(land.point(other))
    assert fitted.transform([other])[0, 0] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="n_dims=1 and two models"):
        mapper(directions="linear").fit([model, other], data)


def test_profiles_of_several_seeds_and_volumes(tiny):
    model, data = tiny
    band = mapper(n_dims=1, n_seeds=3, resolution=5).fit(model, data)
    assert band.losses_.shape == (3, 5)
    assert (band.losses_[:, 2] == band.loss_).all()
    single = mapper(n_dims=1, resolution=5, random_state=1).fit(model, data)
    assert np.array_equal(band.losses_[1], single.losses_)
    volume = mapper(n_dims=3, resolution=(3, 4, 5)).fit(model, data)
    assert volume.losses_.shape == (3, 4, 5)
    corner = [volume.axes_[k][i] for k, i in enumerate((2, 0, 4))]
    assert volume.losses_[2, 0, 4] == volume.evaluate([corner])[0]
    assert volume.cosine_ < 1e-9
    sliced = mapper(n_dims=3, resolution=(9, 9, 3), mode="adaptive", tolerance=0.05).fit(model, data)
    assert sliced.converged_
    assert np.isfinite(sliced.losses_).all()


def test_automatic_span_ends_where_the_loss_has_risen(tiny):
    model, data = tiny
    fitted = mapper(span="auto", rise=20.0, resolution=3).fit(model, data)
    level = 20.0 * max(fitted.loss_, 0.1)
    for k in range(2):
        line = fitted.losses_[:, 1] if k == 0 else fitted.losses_[1]
        assert max(line[0], line[2]) >= level
        half = np.zeros((2, 2))
        half[:, k] = 0.8 * fitted.axes_[k][[0, 2]]
        assert (fitted.evaluate(half) < level).all()


def test_held_out_losses_come_from_the_same_points(tiny):
    model, data = tiny
    held_out = (data[0] + 0.5, data[1])
    fitted = mapper().fit(model, data, held_out=held_out)
    assert fitted.held_out_losses_.shape == fitted.losses_.shape
    assert fitted.held_out_losses_[2, 2] == Landscape(model, held_out, precision="float64").loss()
    assert fitted.held_out_accuracies_[2, 2] == Landscape(model, held_out, precision="float64").accuracy()
    assert fitted.accuracies_[2, 2] == Landscape(model, data, precision="float64").accuracy()
    assert mapper().fit(model, data).held_out_losses_.size == 0


def test_adaptive_mode_is_near_exact_and_finish_evaluates_the_rest(tiny):
    model, data = tiny
    settings = {"resolution": 31, "random_state": 1}
    exact = mapper(**settings).fit(model, data, held_out=data)
    pictures = []
    fitted = mapper(mode="adaptive", **settings).fit(model, data, held_out=data, on_partial=pictures.append)
    seen = fitted.evaluated_
    assert fitted.converged_ and not seen.all()
    assert fitted.n_evaluated_ == seen.sum() < 0.4 * seen.size
    assert np.array_equal(fitted.losses_[seen], exact.losses_[seen])
    assert np.array_equal(fitted.accuracies_[seen], exact.accuracies_[seen])
    error = np.abs(np.log(fitted.losses_ / exact.losses_))
    assert error.max() <= 0.01 * np.ptp(np.log(exact.losses_))
    assert (error <= fitted.error_estimate_ + 1e-12).mean() >= 0.9
    assert np.abs(np.log(fitted.held_out_losses_ / exact.losses_)).max() <= 0.02 * np.ptp(np.log(exact.losses_))
    assert np.abs(fitted.accuracies_ - exact.accuracies_).mean() < 0.02
    assert [p.n_evaluated for p in pictures[:3]] == [9, 25, 81]
    assert all(np.isfinite(p.losses).all() for p in pictures)
    assert pictures[-1].largest_error < pictures[1].largest_error
    fitted.finish()
    assert fitted.evaluated_.all()
    assert np.array_equal(fitted.losses_, exact.losses_)
    assert (fitted.error_estimate_ == 0).all()


def test_exact_mode_hands_on_pictures_that_sharpen(tiny):
    model, data = tiny
    pictures = []
    fitted = mapper(resolution=15).fit(model, data, on_partial=pictures.append)
    assert [p.n_evaluated for p in pictures] == sorted({p.n_evaluated for p in pictures})
    first = pictures[0]
    assert first.n_evaluated == 9 and first.evaluated.sum() == 9
    assert np.isfinite(first.losses).all()  # the rest is interpolated
    assert np.array_equal(first.losses[first.evaluated], fitted.losses_[first.evaluated])
    assert pictures[-1].n_evaluated == 225


def test_cancelling_keeps_what_is_there_and_finish_goes_on(tiny):
    model, data = tiny

    def stop(done, total, message):
        if done >= 96:
            raise Cancelled

    fitted = mapper(resolution=15)
    with pytest.raises(Cancelled):
        fitted.fit(model, data, on_progress=stop)
    assert 64 <= fitted.n_evaluated_ < 225
    assert not fitted.converged_
    fitted.finish()
    assert np.array_equal(fitted.losses_, mapper(resolution=15).fit(model, data).losses_)


SCRIPT = """
    import json, sys, torch
    from estimators.landscape import Landscape
    from estimators.data import load_data
    from estimators.surface import SurfaceMapper

    def refuse(*args, **kwargs):
        raise AssertionError("evaluated instead of loaded")

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
    data = load_data("digits", image_size=8, n_samples=32)
    Landscape.evaluate = refuse
    mapper = SurfaceMapper(resolution=13, memory=sys.argv[1]).fit(model, data)
    print(json.dumps(mapper.losses_.tolist()))
"""


class Killed(BaseException):
    """What ends a process; nothing in between may catch it."""


def test_a_killed_map_resumes_and_another_process_is_answered_from_the_cache(tmp_path, monkeypatch):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
    data = load_data("digits", image_size=8, n_samples=32)
    original, asked = Landscape.evaluate, []

    def counting(self, anchors, coefficients, **kwargs):
        if sum(asked) >= limit:
            raise Killed
        asked.append(len(coefficients))
        return original(self, anchors, coefficients, **kwargs)

    monkeypatch.setattr(Landscape, "evaluate", counting)
    settings = {"resolution": 13, "memory": str(tmp_path / "cache")}
    limit = 100
    with pytest.raises(Killed):
        SurfaceMapper(**settings).fit(model, data)
    finished, limit = sum(asked), 10_000
    asked.clear()
    resumed = SurfaceMapper(**settings).fit(copy.deepcopy(model), data)
    assert sum(asked) == 169 - finished
    assert 96 <= finished < 169
    asked.clear()
    SurfaceMapper(**settings).fit(model, data)
    assert asked == []
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), settings["memory"]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(json.loads(done.stdout.splitlines()[-1]), resumed.losses_)


def test_looking_closer_stays_in_the_plane_and_probes_are_exact(tiny):
    model, data = tiny
    fitted = mapper(resolution=9).fit(model, data)
    at = (fitted.axes_[0][7], fitted.axes_[1][2])
    closer = fitted.look_closer(at, factor=4.0)
    assert closer.losses_[4, 4] == fitted.losses_[7, 2] == closer.loss_
    assert np.ptp(closer.axes_[0]) == pytest.approx(np.ptp(fitted.axes_[0]) / 4)
    assert np.array_equal(closer.directions_, fitted.directions_)
    assert closer.losses_[0, 8] == fitted.evaluate([[closer.axes_[0][0], closer.axes_[1][8]]])[0]
    assert fitted.losses_[4, 4] == fitted.loss_  # the first map is untouched
    found = fitted.probe(at)
    assert found["loss"] == pytest.approx(fitted.losses_[7, 2], rel=1e-12)
    assert found["accuracy"] == fitted.accuracies_[7, 2]
    moved = copy.deepcopy(model)
    moved.load_state_dict(fitted.inverse_transform([at])[0])
    loss = nn.functional.cross_entropy(moved(data[0]), data[1])
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(moved.parameters()))])
    assert found["gradient_norm"] == pytest.approx(float(gradient.norm()), rel=1e-6)
    directions = torch.as_tensor(fitted.directions_)
    units = directions / directions.norm(dim=1, keepdim=True)
    assert found["slope"] == pytest.approx(float((units @ gradient).norm()), rel=1e-6)


def test_values_that_are_not_finite_are_kept_and_counted():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*[nn.Linear(4, 4, bias=False) for _ in range(6)])

        def forward(self, x):
            return self.layers(x) ** 3

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Scaled()
    generator = torch.Generator().manual_seed(0)
    data = (torch.randn(16, 4, generator=generator), torch.arange(16) % 4)
    fitted = SurfaceMapper(resolution=11, span=2e2).fit(model, data)
    naive_count = sum(not np.isfinite(fitted.evaluate([[x, y]])[0]) for x in fitted.axes_[0] for y in fitted.axes_[1])
    assert 0 < fitted.n_not_finite_ == naive_count == (~np.isfinite(fitted.losses_)).sum() < 121
    adaptive = SurfaceMapper(resolution=11, span=2e2, mode="adaptive").fit(model, data)
    seen = adaptive.evaluated_
    np.testing.assert_array_equal(adaptive.losses_[seen], fitted.losses_[seen])


def test_a_frozen_backbone_moves_only_the_head(trained, few):
    model = copy.deepcopy(trained.model)
    for name, p in model.named_parameters():
        p.requires_grad_("fc" in name)
    fitted = SurfaceMapper(resolution=3).fit(model, few)
    assert fitted.directions_.shape[1] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    chosen = SurfaceMapper(resolution=3, parameters="fc").fit(trained.model, few)
    np.testing.assert_allclose(fitted.losses_, chosen.losses_, rtol=1e-6)
    assert not np.allclose(fitted.losses_, SurfaceMapper(resolution=3).fit(trained.model, few).losses_)


def test_files_need_an_architecture(trained, few):
    files = [str(p) for p in trained.checkpoints]
    with pytest.raises(TypeError, match="architecture="):
        SurfaceMapper(directions="trajectory", resolution=3).fit(files, few)
    fitted = SurfaceMapper(directions="trajectory", resolution=3).fit(files, few, architecture=trained.model)
    assert fitted.loss_ == pytest.approx(Landscape(trained.model, few, several_networks=True).loss(), rel=1e-6)


def test_scikit_learn_behaviours(tiny, tmp_path):
    model, data = tiny
    original = mapper(span=0.5, mode="adaptive", resolution=5)
    copied = clone(original)
    assert copied.get_params() == original.get_params()
    assert copied.set_params(span=0.25).span == 0.25
    with pytest.raises(NotFittedError):
        original.transform([model])
    with pytest.raises(NotFittedError):
        original.finish()
    fitted = original.fit(model, data)
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.losses_, fitted.losses_)
    assert again.evaluate([[0.1, 0.1]])[0] == fitted.evaluate([[0.1, 0.1]])[0]
    loaded = Result.load(fitted.result_.save(tmp_path / "map.npz"))
    assert type(loaded) is type(fitted.result_)
    assert np.array_equal(loaded.losses, fitted.losses_)
    assert loaded.settings == fitted.settings_
    assert loaded.settings["normalization"] == "filter" and loaded.settings["random_state"] == 0
    assert [np.array_equal(a, b) for a, b in zip(loaded.axes, fitted.axes_, strict=True)] == [True, True]
    assert "SurfaceMapper" in fitted._repr_html_()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"resolution": 0}, "resolution must be whole numbers from 3, got 0"),
        ({"resolution": (5, 5, 5)}, "resolution must be one number or 2"),
        ({"resolution": 10_000}, r"at most max_points = 250,000 points, got 10000: 100,000,000 points, about .* hours"),
        ({"span": 0.0}, "span must be positive"),
        ({"span": "wide"}, "'span' parameter of SurfaceMapper must be .*'auto'"),
        ({"directions": "up"}, "'directions' parameter of SurfaceMapper must be a str among"),
        ({"normalization": "filters"}, "'normalization' parameter of SurfaceMapper must be a str among"),
        ({"mode": "fast"}, "'mode' parameter of SurfaceMapper must be a str among"),
        ({"tolerance": 0.0}, r"'tolerance' parameter of SurfaceMapper must be a float in the range \(0.0, 1.0\)"),
        ({"n_dims": 4}, r"'n_dims' parameter of SurfaceMapper must be an int in the range \[1, 3\]"),
        ({"n_seeds": 3}, "n_seeds must be 1"),
        ({"eigenvectors": "all"}, "'eigenvectors' parameter of SurfaceMapper must be a str among"),
    ],
)
def test_wrong_settings_say_what_is_allowed(tiny, wrong, message):
    model, data = tiny
    with pytest.raises(ValueError, match=message):
        mapper(**wrong).fit(model, data)


def test_convexity_basins_and_basin_width(tiny):
    model, data = tiny
    fitted = mapper(resolution=9).fit(model, data)
    found = fitted.convexity(resolution=3)
    assert found["ratio"].shape == (3, 3)
    land = Landscape(model, data, precision="float64")
    hessian = torch.stack([land.hvp(e) for e in torch.eye(land.n_parameters, dtype=torch.float64)])
    values = torch.linalg.eigvalsh(hessian)
    assert found["lambda_max"][1, 1] == pytest.approx(float(values[-1]), rel=0.02)
    assert found["ratio"][1, 1] == pytest.approx(max(0.0, -float(values[0] / values[-1])), abs=0.02)
    width = fitted.basin_width(n_rays=4)
    assert width["radii"].shape == (4,) and (width["radii"] > 0).all()
    assert width["level"] == fitted.loss_ + 1.0
    wider = fitted.basin_width(level=fitted.loss_ + 2.0, n_rays=4)
    assert (wider["radii"] >= width["radii"]).all()
    with pytest.raises(ValueError, match="level must lie above"):
        fitted.basin_width(level=fitted.loss_)
    pytest.importorskip("gudhi")
    (deepest, *_) = fitted.basins()
    assert deepest["loss"] == fitted.losses_.min()


class Rounded(nn.Module):
    """A network with weights in steps of 1/16, as after quantisation."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.hidden, self.out = nn.Linear(8, 24), nn.Linear(24, 3)

    def forward(self, x):
        def linear(layer, x):
            return nn.functional.linear(x, (16 * layer.weight).round() / 16, layer.bias)

        return linear(self.out, linear(self.hidden, x).relu())


def test_a_quantised_network_is_mapped_exactly_with_a_word(tiny):
    model, (_, targets) = Rounded(), tiny[1]
    data = torch.randn(len(targets), 8, generator=torch.Generator().manual_seed(1)), targets
    options = {"resolution": 41, "span": 0.2, "random_state": 0}
    partial = []
    found = SurfaceMapper(mode="adaptive", **options).fit(model, data, on_partial=partial.append)
    exact = SurfaceMapper(**options).fit(model, data)
    assert found.evaluated_.all() and found.n_evaluated_ == 41 * 41
    assert np.array_equal(found.losses_, exact.losses_)
    assert np.array_equal(found.accuracies_, exact.accuracies_)
    assert found.converged_ and found.largest_error_ == 0.0
    assert any("every point was evaluated" in note for note in found.notes_)
    assert found.result_.settings["fallback"] == "exact"
    assert "fallback" not in exact.result_.settings
    assert len(partial) >= 8


def test_a_fresh_seed_is_kept_for_all_that_follows_a_fit(tiny):
    """`random_state=None` draws one seed for a map; what is read off it later, and its provenance, use the same."""
    model, data = tiny
    fitted = mapper(mode="adaptive", random_state=None).fit(model, data)
    width = fitted.basin_width(n_rays=2)
    repeated = mapper(mode="adaptive", random_state=fitted.random_state_).fit(model, data)
    assert np.array_equal(repeated.losses_, fitted.losses_)
    assert np.array_equal(repeated.basin_width(n_rays=2)["radii"], width["radii"])
    fitted.finish()
    assert fitted.result_.settings["random_state"] == fitted.random_state_
    assert fitted.look_closer((0.1, 0.1)).result_.settings["random_state"] == fitted.random_state_
    assert fitted.random_state is None
