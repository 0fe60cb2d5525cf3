"""A sample of timm's families; docs/families.md has all of them, by tests/benchmarks/measure_families.py."""

import pytest

from tests.benchmarks.measure_families import measure, passed, table

SAMPLE = {
    "convnext": "test_convnext",
    "efficientnet": "test_efficientnet",
    "ghostnet": "ghostnet_050",  # hardsigmoid
    "levit": "levit_128s",  # remembers its attention biases
    "mlp_mixer": "gmlp_ti16_224",
    "vision_transformer": "test_vit",
}


@pytest.mark.parametrize("family", SAMPLE)
def test_a_family_does_all_of_it(family):
    row = measure(family, {"family": family}, SAMPLE[family])
    assert passed(row), row
    assert "**1 of 1 families measured do all of it.**" in table({family: row})


def test_the_table_names_each_refusal():
    row = {"family": "a", "variant": "a_tiny", "load": 0.1, "loss": 0.2, "gradient": 0.3, "product": "ValueError: no"}
    written = table({"a": row | {"map": 0.5, "centre": 0.0}, "b": {"family": "b", "crash": "took more than 1 s"}})
    assert "**0 of 2 families" in written and "- **a**, product: ValueError: no" in written
    assert "- **b**, process: took more than 1 s" in written and "| 0.3 s | refused | 0.5 s | yes |" in written
