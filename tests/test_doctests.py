"""Every public class shows itself by an example of seconds, and the example runs."""

from __future__ import annotations

import doctest
import inspect

import pytest

import estimators
from estimators import experiments

CLASSES = {
    name: item
    for module in (estimators, experiments)
    for name in module.__all__
    if inspect.isclass(item := getattr(module, name)) and not issubclass(item, Exception)
}


def examples(item: type) -> doctest.DocTest:
    """Parse the class's own docstring; what is marked to be skipped does not count."""
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(item), {}, item.__name__, None, None)
    test.examples = [e for e in test.examples if not e.options.get(doctest.SKIP)]
    return test


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_example_of_a_public_class_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = examples(CLASSES[name])
    assert test.examples, f"{name} has no example that runs"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    lines: list[str] = []
    runner.run(test, out=lines.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(lines)


def test_a_wrong_example_is_seen():
    class Wrong:
        """One that is wrong.

        >>> 1 + 1
        3
        """

    runner = doctest.DocTestRunner()
    runner.run(examples(Wrong), out=lambda text: None)
    assert runner.summarize(verbose=False).failed == 1
