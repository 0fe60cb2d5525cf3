"""How far a map reaches, on planes of three dimensions."""

import numpy as np
import pytest
import torch

from estimators.surface._planes import MapPlane, axes_of, grown_spans

ORIGIN = torch.tensor([1.0, 0.0, 0.0])


def test_points_are_the_origin_and_steps_along_the_directions():
    plane = MapPlane(ORIGIN, torch.eye(3)[1:], ["", ""])
    assert plane.points(np.array([[0.5, -2.0], [0.0, 0.0]])).tolist() == [[1.0, 0.5, -2.0], [1.0, 0.0, 0.0]]
    end = torch.tensor([3.0, 1.0, 0.0])
    line = MapPlane(ORIGIN, (end - ORIGIN)[None], [""], end=end)
    assert torch.equal(line.points(np.array([[1.0]]))[0], end)


def test_axes_reach_as_far_as_asked_or_as_the_models_in_the_plane_need():
    free = MapPlane(ORIGIN, torch.eye(3)[1:], ["", ""])
    first, second = axes_of(free, (5, 3), (2.0, 0.5))
    assert first.tolist() == [-2.0, -1.0, 0.0, 1.0, 2.0] and second.tolist() == [-0.5, 0.0, 0.5]
    framed = MapPlane(ORIGIN, torch.eye(3)[1:], ["", ""], framed=np.array([[0.0, 0.0], [10.0, -5.0]]))
    for scales in ((1.0, 1.0), (3.0, 2.0)):
        first, second = axes_of(framed, (21, 21), scales)
        assert 0.0 in first and 0.0 in second
        assert first[0] <= 5 - 7 * scales[0] < first[1] and first[-2] < 5 + 7 * scales[0] + 1.5 * (first[1] - first[0])
        assert second[0] <= -2.5 - 3.5 * scales[1] + 1e-12 and second[-1] >= -2.5 + 3.5 * scales[1] - 1e-12
    assert free.is_free and not framed.is_free


@pytest.mark.parametrize("level", [0.5, 8.0])
def test_grown_spans_end_within_a_tenth_of_where_the_loss_reaches_the_level(level):
    """The first direction is steep on one side only; the second has length 2."""
    plane = MapPlane(ORIGIN, torch.stack([torch.eye(3)[1], 2 * torch.eye(3)[2]]), ["", ""])

    def losses(at):
        steep = np.where(at[:, 0] > 0, 2.0, 0.1) * at[:, 0] ** 2
        return steep + 0.5 * (2 * at[:, 1]) ** 2

    spans = grown_spans(plane, level, losses)
    for span, exact in zip(spans, (np.sqrt(level / 2), np.sqrt(level / 0.5) / 2), strict=True):
        assert exact <= span <= 1.13 * exact
    assert grown_spans(plane, level, lambda at: np.full(len(at), np.nan))[0] < 0.01  # not finite has risen, too
