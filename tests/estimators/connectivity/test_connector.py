import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn

from estimators import Cancelled, Landscape, ModeConnector, Result, SurfaceMapper, load_data, load_model, train
from estimators.core.alignment.alignment import permute_state, random_permutations
from estimators.core.alignment.graph import derive_symmetry


def net(seed=0, norm=True, width=6):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, width, 3), nn.BatchNorm2d(width) if norm else nn.Identity(), nn.ReLU()]
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 3))
        for m in model:
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.normal_()
                m.running_var.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope="module")
def patches():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(48) % 3
    inputs = torch.randn(48, 1, 8, 8, generator=generator)
    inputs[torch.arange(48), 0, targets] += 1.5
    return inputs, targets


@pytest.fixture(scope="module")
def held_out():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(20, 1, 8, 8, generator=generator), torch.arange(20) % 3


def connect(data, models=None, held_out=None, **options):
    options = {"n_points": 5, "epochs": 2, "train_batch_size": 16, **options}
    return ModeConnector(**options).fit(models or (net(0), net(1)), data, held_out=held_out)


# -- the main job ---------------------------------------------------------------------------------------------


def test_digits_are_joined_by_a_curve_where_the_straight_line_climbs(trained_pair, digits, digits_test):
    found = ModeConnector(path="bezier", epochs=15, n_points=11, random_state=0).fit(
        trained_pair, digits, held_out=digits_test
    )
    assert found.straight_barrier_ > 0.5
    assert found.barrier_ < 0.1
    assert found.connected_
    assert found.path_length_ > found.distance_
    assert found.held_out_accuracies_.min() > 0.95


def test_digits_from_one_start_are_joined_by_the_straight_line(trained_pair, digits_all, digits):
    start = load_model("test_resnet", num_classes=10, image_size=32, random_state=0)
    other = train(start, digits_all, epochs=8, random_state=5).model
    assert ModeConnector(n_points=5).fit((trained_pair[0], other), digits).barrier_ < 0.1


# -- ends and points ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["recompute", "batch"])
@pytest.mark.parametrize("path", ["linear", "bezier", "polychain"])
def test_ends_are_the_models_under_the_same_policy(patches, held_out, policy, path):
    a, b = net(0), net(1)
    found = connect(patches, (a, b), held_out, path=path, batch_norm=policy, n_bends=2)
    for end, model in ((0, a), (-1, b)):
        land = Landscape(model, patches, batch_norm=policy)
        assert found.losses_[end] == pytest.approx(land.loss(), abs=1e-6)
        assert found.accuracies_[end] == land.accuracy()
        assert found.held_out_losses_[end] == pytest.approx(land.on(held_out).loss(), abs=1e-6)
    for t, model in ((0.0, a), (1.0, b)):
        state = found.weights_at(t)
        assert all(torch.equal(state[n], p) for n, p in model.named_parameters())


def test_losses_of_the_straight_line_agree_with_a_naive_loop(patches):
    a, b = net(0, norm=False), net(1, norm=False)
    found = connect(patches, (a, b), precision="float64")
    for t, loss in zip(found.t_, found.losses_, strict=True):
        state = {k: (1 - t) * v.double() + t * b.state_dict()[k].double() for k, v in a.state_dict().items()}
        outputs = torch.func.functional_call(net(0, norm=False).double(), state, patches[0].double())
        assert loss == pytest.approx(float(nn.functional.cross_entropy(outputs, patches[1])), rel=1e-9)


def test_transform_measures_anywhere_and_agrees_with_the_fit(patches):
    found = connect(patches, path="bezier")
    np.testing.assert_allclose(found.transform(found.t_), np.stack([found.losses_, found.accuracies_], 1), rtol=1e-6)
    land = Landscape(net(0), patches, batch_norm="recompute")
    state = found.weights_at(0.3)
    assert found.transform([0.3])[0, 0] == pytest.approx(land.loss(land.point(state)), rel=1e-5)
    with pytest.raises(ValueError, match=r"t must be numbers in \[0, 1\], got \[1\.5\]"):
        found.transform([1.5])


def test_bends_move_and_ends_do_not(patches):
    straight, curve = connect(patches, path="bezier", epochs=0), connect(patches, path="bezier", epochs=4)
    assert np.array_equal(straight.end_points_, curve.end_points_)
    assert not np.allclose(straight.bends_, curve.bends_)
    assert curve.history_["loss"].shape == (4,)
    assert straight.path_length_ == pytest.approx(straight.distance_, rel=1e-5)


def test_weights_may_come_as_state_dict_vector_or_file(patches, tmp_path):
    a, b = net(0), net(1)
    expected = connect(patches, (a, b)).losses_
    torch.save(b.state_dict(), tmp_path / "b.pt")
    vector = nn.utils.parameters_to_vector(b.parameters()).detach()
    for other in (b.state_dict(), vector, tmp_path / "b.pt", nn.DataParallel(b)):
        assert np.array_equal(connect(patches, (a, other)).losses_, expected)


# -- alignment ------------------------------------------------------------------------------------------------


def test_a_shuffled_copy_is_brought_back(patches):
    a, copy = net(0), net(0)
    symmetry = derive_symmetry(a, patches[0][:2])
    copy.load_state_dict(permute_state(a.state_dict(), symmetry, random_permutations(symmetry, 1)))
    assert connect(patches, (a, copy)).barrier_ > 0
    found = connect(patches, (a, copy), align="weights", path="bezier")
    assert found.distance_ == 0.0
    assert found.barrier_ == pytest.approx(0.0, abs=1e-6)
    assert found.similarity_after_ == pytest.approx(1.0)
    assert found.alignment_change_ <= 1e-4
    assert any("permutations of each other" in note for note in found.notes_)


def test_alignment_brings_ends_closer_and_keeps_b(patches):
    a, b = net(0, width=16), net(1, width=16)
    found = connect(patches, (a, b), align="weights")
    assert found.distance_ < found.distance_before_
    assert found.similarity_after_ > found.similarity_before_
    assert found.losses_[-1] == pytest.approx(Landscape(b, patches, batch_norm="recompute").loss(), abs=1e-5)
    assert found.groups_[0]["units"] == 16
    assert found.straight_losses_.shape == found.losses_.shape


@pytest.mark.parametrize("width, fall", [(512, 0.95), (64, 0.85)])
def test_the_barrier_of_wide_mlps_falls_by_matching(width, fall):
    pixels = load_data("digits", image_size=8)
    data = (pixels.inputs[:, 0].flatten(1), pixels.targets)

    def mlp(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = (nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
            return train(nn.Sequential(*layers), data, epochs=15, random_state=seed).model

    found = ModeConnector(align="weights", n_points=11, n_restarts=1).fit((mlp(0), mlp(1)), data)
    assert found.straight_barrier_ > 0.2
    assert found.barrier_ < (1 - fall) * found.straight_barrier_


def test_what_cannot_be_aligned_is_refused_by_name():
    data = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    with pytest.raises(ValueError, match="align='weights', got Linear"):
        connect(data, (nn.Linear(4, 3), nn.Linear(4, 3)), align="weights")


# -- beside the path ------------------------------------------------------------------------------------------


def test_ensemble_is_the_mean_of_probabilities(patches, held_out):
    found = connect(patches, held_out=held_out, path="bezier", ensemble_points=3)
    land = Landscape(net(0), patches, batch_norm="recompute").on(held_out)
    scores = [land.outputs(land.point(found.weights_at(t))).double() for t in (0.0, 0.5, 1.0)]
    mean = torch.stack([s.softmax(-1) for s in scores]).mean(0)
    expected = float(nn.functional.nll_loss(mean.log(), held_out[1]))
    assert found.ensemble_loss_ == pytest.approx(expected, rel=1e-5)
    result = found.ensemble()
    assert result["loss"] == found.ensemble_loss_
    assert result["loss"] <= result["member_losses"].mean()  # Jensen
    assert found.ensemble((0.0,), patches)["member_losses"][0] == pytest.approx(found.losses_[0], rel=1e-5)


def test_plane_holds_the_path_and_its_loss(patches):
    found = connect(patches, path="bezier", plane_resolution=3)
    assert found.plane_anchors_.shape == (3, 2)
    assert found.plane_anchors_[-1] == pytest.approx([found.distance_, 0.0], rel=1e-5)
    np.testing.assert_allclose(found.plane_distances_, 0.0, atol=1e-4)
    assert found.plane_losses_.shape == (3, 3)
    middle = found.plane_path_[2]  # t = 0.5, off the grid: measure the plane there again
    np.testing.assert_allclose(middle, [0.25, 0.5, 0.25] @ found.plane_anchors_)
    assert found.plane_x_[0] < 0 < found.distance_ < found.plane_x_[-1]
    mapper = SurfaceMapper(directions="models", resolution=3, batch_norm="recompute")
    plane = mapper.fit(found.plane_models(), patches).transform(found.plane_models())
    np.testing.assert_allclose(plane[1], [found.distance_, 0.0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.abs(plane[2]), np.abs(found.plane_anchors_[1]), rtol=1e-4, atol=1e-4)


# -- what may go wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"path": "arc"}, "'path' parameter of ModeConnector must be a str among .*bezier.* Got 'arc'"),
        ({"align": "activations"}, "'align' parameter of ModeConnector must be a str among {'weights'} or None"),
        (
            {"n_bends": 0, "path": "bezier"},
            r"'n_bends' parameter of ModeConnector must be an int in the range \[1, inf\)\. Got 0",
        ),
        ({"n_points": 2}, r"'n_points' parameter of ModeConnector must be an int in the range \[3, inf\)\. Got 2"),
        ({"epochs": -1}, "'epochs' parameter of ModeConnector must be"),
        ({"lr": 0.0}, r"'lr' parameter of ModeConnector must be a float in the range \(0\.0, inf\)"),
        ({"momentum": 1.0}, r"'momentum' parameter of ModeConnector must be a float in the range \[0\.0, 1\.0\)"),
        ({"tolerance": -0.1}, r"'tolerance' parameter of ModeConnector must be a float in the range \[0\.0, inf\)"),
        ({"plane_resolution": 1}, r"'plane_resolution' parameter of ModeConnector must be .*range \[2, 201\]"),
        ({"batch_norm": "frozen"}, "batch_norm must be 'recompute' or 'batch' .* got 'frozen'"),
        ({"batch_norm": "average"}, "'batch_norm' parameter of ModeConnector must be a str among"),
    ],
)
def test_wrong_settings_are_said(patches, options, message):
    with pytest.raises(ValueError, match=message):
        connect(patches, **options)


def test_networks_that_do_not_fit_are_refused_with_all_differences(patches):
    with pytest.raises(ValueError) as caught:
        connect(patches, (net(0), net(1, width=7)))
    assert all(text in str(caught.value) for text in ("0.weight", "1.running_mean", "2 more", "(7, 1, 3, 3)"))
    with pytest.raises(ValueError, match=r"of one architecture, got other layers at 2 \(ReLU and Tanh\)"):
        other = net(1)
        other[2] = nn.Tanh()
        connect(patches, (net(0), other))
    with pytest.raises(ValueError, match="models must be two different points, got the same weights twice"):
        connect(patches, (net(0), net(0)))
    with pytest.raises(ValueError, match=r"models must be a pair \(A, B\), got 3"):
        connect(patches, (net(0), net(1), net(2)))
    with pytest.raises(TypeError, match=r"models\[0\] must be a torch\.nn\.Module, got OrderedDict"):
        connect(patches, (net(0).state_dict(), net(1)))


def test_fixed_parts_that_differ_are_refused(patches):
    a, b = net(0), net(1)
    a[5].bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"agree in frozen parameters .* got other values in 5\.bias"):
        connect(patches, (a, b))


def test_no_batch_norm_is_said(patches):
    found = connect(patches, (net(0, norm=False), net(1, norm=False)))
    assert "nothing to recompute" in found.notes_[0]
    assert found.settings_["batch_norm"] == "none in the model"
    assert connect(patches).notes_ == []


def test_weights_and_losses_that_are_not_finite(patches):
    broken = net(1)
    with torch.no_grad():
        broken[0].weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"models\[1\] must have finite weights, got NaN or infinity in 0\.weight"):
        connect(patches, (net(0), broken))
    huge = net(1)
    with torch.no_grad():
        huge[0].weight.mul_(1e25)  # its batch variance overflows float32
    found = connect(patches, (net(0), huge))
    assert np.isfinite(found.losses_[0])
    assert not np.isfinite(found.losses_[-1])
    assert not np.isfinite(found.barrier_)
    assert not found.connected_
    assert found.n_non_finite_ >= 1
    assert any("not finite" in note for note in found.notes_)


def test_a_bend_that_diverges_is_said_and_the_last_finite_one_used(patches):
    found = connect(patches, (net(0, norm=False), net(1, norm=False)), path="bezier", lr=1e30, epochs=3)
    assert found.diverged_at_ >= 1
    assert any("Lower lr" in note for note in found.notes_)
    assert np.isfinite(found.bends_).all()


# -- manners --------------------------------------------------------------------------------------------------


def test_models_and_random_state_are_left_alone(patches):
    a, b = net(0).train(), net(1).train()
    a[0].bias.requires_grad_(False)
    with torch.no_grad():
        b[0].bias.copy_(a[0].bias)
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in (a, b)]
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    connect(patches, (a, b), path="bezier", align="weights", plane_resolution=2, ensemble_points=2)
    for model, state in zip((a, b), before, strict=True):
        assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
        assert all(m.training for m in model.modules())
        assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in a.parameters()] == [True, False, True, True, True, True]
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_two_fits_are_equal_bit_for_bit(patches):
    first, second = (connect(patches, path="polychain", n_bends=2, align="weights") for _ in range(2))
    assert np.array_equal(first.losses_, second.losses_)
    assert np.array_equal(first.bends_, second.bends_)
    assert not np.array_equal(first.bends_, connect(patches, path="polychain", n_bends=2, random_state=1).bends_)


def test_scikit_learn_manners(patches, tmp_path):
    estimator = ModeConnector(path="bezier", epochs=1, n_points=3, train_batch_size=16)
    assert clone(estimator).get_params() == estimator.get_params()
    assert clone(estimator).set_params(n_bends=3).n_bends == 3
    with pytest.raises(NotFittedError):
        estimator.transform([0.5])
    estimator.set_output(transform="pandas").fit((net(0), net(1)), patches)
    assert list(estimator.transform([0.0, 1.0]).columns) == ["loss", "accuracy"]
    again = pickle.loads(pickle.dumps(estimator))
    assert again.transform([0.5]).equals(estimator.transform([0.5]))
    file = estimator.result_.save(tmp_path / "path.npz")
    loaded = Result.load(file)
    assert np.array_equal(loaded.losses, estimator.losses_)
    assert loaded.settings["path"] == "bezier"
    assert estimator.result_.table()[0].keys() >= {"t", "losses", "straight_losses"}


def test_a_second_fit_is_answered_from_the_cache(patches, tmp_path, monkeypatch):
    options = {"path": "bezier", "align": "weights", "memory": str(tmp_path)}
    first = connect(patches, **options)

    def refuse(*args, **kwargs):
        raise AssertionError("evaluated again")

    monkeypatch.setattr(Landscape, "evaluate", refuse)
    monkeypatch.setattr(Landscape, "minibatch_loss_and_gradient", refuse)
    assert np.array_equal(connect(patches, **options).losses_, first.losses_)


def test_progress_is_told_and_cancelling_stops(patches):
    seen = []
    ModeConnector(path="bezier", epochs=3, n_points=3, align="weights").fit(
        (net(0), net(1)), patches, on_progress=lambda done, total, message: seen.append((done / total, message))
    )
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert any("training the bends, epoch 2 of 3" in message for _, message in seen)

    def stop(done, total, message):
        if "epoch" in message:
            raise Cancelled

    with pytest.raises(Cancelled):
        ModeConnector(path="bezier", n_points=3).fit((net(0), net(1)), patches, on_progress=stop)


def test_partial_results_come_while_it_runs(patches):
    partial = []
    ModeConnector(path="bezier", epochs=1, n_points=3).fit((net(0), net(1)), patches, on_partial=partial.append)
    assert len(partial[0].straight_losses) == 3
    assert len(partial[0].losses) == 0
    assert len(partial[-1].losses) == 3
