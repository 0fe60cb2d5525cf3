import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from estimators import Landscape, MinimaMapper, ModeConnector, Result, train


def net(seed=0, outputs=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs))


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(30) % 3
    inputs = torch.randn(30, 6, generator=generator)
    inputs[torch.arange(30), targets] += 2.0
    return inputs, targets


@pytest.fixture(scope="module")
def models(data):
    a, b, c = (train(net(seed), data, epochs=40, batch_size=10, random_state=seed).model for seed in (0, 1, 2))
    near = copy.deepcopy(a)
    with torch.no_grad():
        near[3].bias.add_(0.01)
    return {"a": a, "near a": near, "b": b, "c": c}


def test_pairs_agree_with_the_connector(data, models):
    found = MinimaMapper(n_points=7).fit(models, data)
    path = ModeConnector(n_points=7, compare=False).fit((models["a"], models["b"]), data)
    # the mapper may walk the path from the other end: refined maxima agree to their stated error
    assert found.barriers_[0, 2] == pytest.approx(path.barrier_, abs=path.barrier_error_)
    assert found.distances_[0, 2] == pytest.approx(path.distance_)
    np.testing.assert_allclose(found.profiles_[0, 2], path.losses_, rtol=1e-6)  # float32 sums
    np.testing.assert_allclose(found.profiles_[2, 0], path.losses_[::-1], rtol=1e-6)
    for matrix in (found.barriers_, found.distances_, found.cka_):
        np.testing.assert_allclose(matrix, matrix.T)
    assert np.array_equal(np.diag(found.barriers_), np.zeros(4))
    own = Landscape(models["c"], data, batch_norm="recompute")
    assert found.losses_[3] == pytest.approx(own.loss(), rel=1e-6)
    assert found.accuracies_[3] == own.accuracy()


def test_near_networks_form_a_group_and_lie_together(data, models):
    found = MinimaMapper(n_points=5, tolerance=1e-3).fit(models, data)
    assert found.clusters_[0] == found.clusters_[1]
    assert len(set(found.clusters_)) > 1
    gap = np.linalg.norm(found.layout_[:, None] - found.layout_[None], axis=-1)
    assert gap[0, 1] < 0.1 * gap[0, 2]
    assert 0.5 < found.layout_share_ <= 1.0
    assert found.cka_[0, 1] == pytest.approx(1.0, abs=1e-3)


def test_features_and_outputs_are_different_comparisons(data, models):
    features, outputs = (
        MinimaMapper(n_points=3, compare=what).fit(models, data).cka_ for what in ("features", "outputs")
    )
    assert not np.allclose(features, outputs)
    assert np.isnan(MinimaMapper(n_points=3, compare=None).fit(models, data).cka_).all()


def test_one_more_network_costs_only_its_own_pairs_in_any_order(data, models, tmp_path, monkeypatch):
    three = {name: models[name] for name in ("a", "b", "c")}
    first = MinimaMapper(n_points=3, memory=str(tmp_path)).fit(three, data)
    joined, fit = [], ModeConnector.fit
    monkeypatch.setattr(ModeConnector, "fit", lambda self, *a, **k: joined.append(1) or fit(self, *a, **k))
    turned = MinimaMapper(n_points=3, memory=str(tmp_path)).fit(dict(reversed(three.items())), data)
    assert joined == []
    np.testing.assert_array_equal(turned.barriers_, first.barriers_[::-1, ::-1])
    MinimaMapper(n_points=3, memory=str(tmp_path)).fit(models, data)
    assert len(joined) == 3


def test_new_networks_are_measured_against_the_map(data, models):
    found = MinimaMapper(n_points=5).fit(models, data)
    rows = found.transform([models["b"], net(7)])
    assert rows.shape == (2, 4)
    np.testing.assert_allclose(rows[0], found.barriers_[2], rtol=1e-5, atol=1e-7)
    assert list(found.get_feature_names_out()) == [f"barrier to {name}" for name in models]


def test_the_same_network_twice_is_a_pair_without_a_barrier(data):
    found = MinimaMapper(n_points=3, layout="barrier").fit([net(0), net(0), net(1)], data)
    assert found.barriers_[0, 1] == 0.0
    assert found.distances_[0, 1] == 0.0
    assert found.names_ == ["model 0", "model 1", "model 2"]


def test_bad_input_is_said(data, models):
    with pytest.raises(ValueError, match="models must be at least two networks, got 1"):
        MinimaMapper().fit([net(0)], data)
    with pytest.raises(ValueError, match=r"3\.weight"):
        MinimaMapper().fit([net(0), net(1, outputs=4)], data)
    with pytest.raises(ValueError, match=r"'layout' parameter of MinimaMapper must be a str among .*cka.* Got 'tsne'"):
        MinimaMapper(layout="tsne").fit(models, data)
    with pytest.raises(ValueError, match="needs something to compare"):
        MinimaMapper(layout="cka", compare=None).fit(models, data)
    with pytest.raises(ValueError, match="'path' parameter of MinimaMapper must be a str among"):
        MinimaMapper(path="arc").fit(models, data)


def test_manners(data, models, tmp_path):
    mapper = MinimaMapper(n_points=3)
    assert clone(mapper).get_params() == mapper.get_params()
    before, state = {k: v.clone() for k, v in models["a"].state_dict().items()}, torch.get_rng_state()
    partial = []
    mapper.fit(models, data, on_partial=partial.append)
    assert all(torch.equal(before[k], v) for k, v in models["a"].state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert np.isnan(partial[0].barriers).sum() > 0
    assert len(mapper.result_.table()) == 6
    loaded = Result.load(mapper.result_.save(tmp_path / "map.npz"))
    assert loaded.names == list(models)
    assert np.array_equal(loaded.barriers, mapper.barriers_)
