"""Ways out: pictures, tables, numbers, and the Python that reproduces a result."""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.catalog import DataSpec, PointSpec
from app.charts.theme import for_export

MIME = {
    "png": "image/png",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "json": "application/json",
    "csv": "text/csv",
    "npz": "application/octet-stream",
    "py": "text/x-python",
}


def chart_bytes(chart: alt.TopLevelMixin, kind: str, *, dark: bool = False, scale: float = 2.0) -> bytes:
    """Draw a chart into a file, without a browser and without a network.

    Parameters
    ----------
    chart : altair chart
    kind : {"png", "svg", "pdf", "json"}
        ``json`` is the Vega-Lite specification with its data.
    dark : bool, default=False
        Dark background.
    scale : float, default=2
        Pixels for one unit of a PNG.
    """
    if kind not in ("png", "svg", "pdf", "json"):
        raise ValueError(f"kind must be png, svg, pdf or json, got {kind!r}. Choose one of them.")
    with alt.data_transformers.enable("default", max_rows=None):
        specification = for_export(chart, dark=dark).to_dict()
    if kind == "json":
        return json.dumps(specification, ensure_ascii=False, indent=1).encode()
    import vl_convert as vlc

    if kind == "png":
        return bytes(vlc.vegalite_to_png(specification, scale=scale))
    if kind == "svg":
        return str(vlc.vegalite_to_svg(specification)).encode()
    return bytes(vlc.vegalite_to_pdf(specification))


def table_csv(table: pd.DataFrame) -> bytes:
    """Return a table as CSV in UTF-8 with full precision."""
    return table.to_csv(index=False, float_format="%.9g").encode()


def result_npz(result: Any) -> bytes:
    """Return the NPZ that the result's own ``save`` writes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "result.npz"
        result.save(path)
        return path.read_bytes()


def result_table(result: Any) -> pd.DataFrame:
    """Return the numbers of a result as a long table, for CSV.

    A result with its own ``table()`` decides itself; otherwise every array of the same length becomes a
    column, and every grid one row a cell.
    """
    own = getattr(result, "table", None)
    if callable(own):
        return pd.DataFrame(own())
    fields = {name: getattr(result, name) for name in getattr(result, "__dataclass_fields__", {})}
    arrays = {k: np.asarray(v) for k, v in fields.items() if isinstance(v, np.ndarray) and np.asarray(v).ndim >= 1}
    if not arrays:
        scalars = {k: v for k, v in fields.items() if isinstance(v, (int, float, str, bool, np.number))}
        return pd.DataFrame([scalars])
    shape = max((a.shape for a in arrays.values()), key=lambda s: (len(s) <= 2, int(np.prod(s))))
    columns: dict[str, np.ndarray] = {f"index_{d}": np.indices(shape)[d].ravel() for d in range(len(shape))}
    columns |= {k: a.ravel() for k, a in arrays.items() if a.shape == shape}
    return pd.DataFrame(columns)


def non_defaults(estimator: Any) -> dict[str, Any]:
    """Return an estimator's parameters that differ from the defaults, in the constructor's order."""
    defaults = inspect.signature(type(estimator).__init__).parameters
    values = estimator.get_params(deep=False)
    kept = {}
    for name, parameter in defaults.items():
        if name in values and name not in ("memory", "verbose"):
            value = values[name]
            if not (value is parameter.default or value == parameter.default):
                kept[name] = value
    return kept


def script(
    estimator: Any,
    *,
    points: Sequence[tuple[str, PointSpec]] = (),
    data: DataSpec | None = None,
    held_out: DataSpec | None = None,
    fit: str = "model, data",
    show: str = "",
    setup: str = "",
    imports: Sequence[str] = (),
    call: str = "fit",
) -> str:
    """Return a Python program that reproduces a result.

    Parameters
    ----------
    estimator : LandscapeEstimator
        Its parameters are read with ``get_params``; only those that differ from the defaults are written.
    points : sequence of (variable name, PointSpec)
    data, held_out : DataSpec, optional
        Bound to the names ``data`` and ``held_out``.
    fit : str
        Arguments of ``fit``, or of the method that ``call`` names.
    show : str
        Expression printed at the end, with ``result`` standing for the fitted estimator.
    setup : str
        Lines put before the estimator (for example a list of checkpoints).
    imports : sequence of str
        What those lines take from ``estimators``.

    Examples
    --------
    >>> script(SurfaceMapper(), points=[("model", spec)], data=data, show="result.losses_")  # doctest: +SKIP
    """
    name = type(estimator).__name__
    listed = ", ".join(f"{key}={value!r}" for key, value in non_defaults(estimator).items())
    names = {*imports, *(["load_model"] if points else []), *(["load_data"] if data or held_out else [])}
    lines = []
    if type(estimator).__module__.startswith("estimators.experiments"):
        lines += [f"from estimators.experiments import {name}"]
    else:
        names.add(name)
    lines = [f"from estimators import {', '.join(sorted(names))}", *lines, ""]
    lines += [data.code("data")] if data else []
    lines += [held_out.code("held_out")] if held_out else []
    lines += [spec.code(variable) for variable, spec in points]
    lines += [setup.rstrip()] if setup else []
    if len(listed) > 90:
        listed = "\n    " + ",\n    ".join(listed_item(k, v) for k, v in non_defaults(estimator).items()) + ",\n"
    lines += [f"result = {name}({listed}).{call}({fit})"]
    lines += [f"print({show})"] if show else []
    return "\n".join(lines) + "\n"


def listed_item(key: str, value: Any) -> str:
    """Return one keyword argument as Python."""
    return f"{key}={value!r}"


def config(
    estimator: Any,
    *,
    points: Sequence[tuple[str, PointSpec]] = (),
    data: DataSpec | None = None,
    script: str = "",
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what a run keeps about how it was made; give it to ``jobs.submit(config=...)``."""
    return {
        "estimator": type(estimator).__name__ if estimator is not None else "",
        "params": {k: v for k, v in estimator.get_params(deep=False).items() if k != "memory"} if estimator else {},
        "points": {name: spec.as_dict() for name, spec in points},
        "data": data.as_dict() if data else {},
        "script": script,
        **(extra or {}),
    }


def zip_files(files: Mapping[str, bytes]) -> bytes:
    """Return several files as one ZIP."""
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
