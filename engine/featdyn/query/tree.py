"""A run as an ``xr.DataTree`` for notebooks: coordinates at hand everywhere, names and units, and ``tree.featdyn``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from featdyn.errors import FeatdynError
from featdyn.extras import asked_for
from featdyn.names import described
from featdyn.query.frame import ask
from featdyn.store import Run
from featdyn.store.locate import Store

if TYPE_CHECKING:
    import pandas as pd

    from featdyn.report.notebook import Plots


def open_tree(store: Store | Run, *, chunks: str | None = None) -> xr.DataTree:
    """Open a run with what plots, selections and other programs want beside the arrays.

    Cube, layers and outputs have the coordinates of checkpoints and samples (``sel``, ``groupby("label")``), every
    variable has a long_name and units, and attributes are plain, so that ``to_netcdf`` works: of the whole tree with
    the extra ``netcdf``. ``.plot()`` needs the extra ``plot``. ``tree.featdyn`` asks it.

    Parameters
    ----------
    chunks
        ``"auto"`` for Dask arrays; by default values are read when they are needed.

    Examples
    --------
    >>> tree = featdyn.open_tree("run.zarr")
    >>> tree["cube/activation_norm"].mean("sample").dims
    ('checkpoint', 'layer')
    >>> tree.featdyn.query("step", where=["checkpoint=-1"])["step"].values
    array([22])
    """
    run = store if isinstance(store, Run) else Run(store)
    root = run.tree.to_dataset()
    beside = {str(name): variable for name, variable in root.variables.items() if variable.ndim == 1}
    found = {}
    for node in run.tree.subtree:
        path = node.path
        dataset = node.to_dataset(inherit=False)
        if path != "/" and not path.startswith("/results"):
            along = set(map(str, dataset.dims))
            kept = {name: v for name, v in beside.items() if v.dims[0] in along and name not in dataset.variables}
            dataset = dataset.assign_coords(kept)
        found[path] = _described(_chunked(dataset, chunks))
    tree = xr.DataTree.from_dict(found, name=run.name)
    tree.encoding["source"] = str(run.path)
    return tree


def _chunked(dataset: xr.Dataset, chunks: str | None) -> xr.Dataset:
    """Cut numbers, without the texts beside them: Dask cannot tell how long those are."""
    if chunks is None:
        return dataset
    numbers = [name for name, variable in dataset.data_vars.items() if variable.dtype.kind in "biuf" and variable.ndim]
    return dataset.assign({name: dataset.variables[name].chunk(chunks) for name in numbers})


def _described(dataset: xr.Dataset) -> xr.Dataset:
    texts = {name: v for name, v in dataset.coords.items() if name in dataset.dims and v.dtype.kind in "OT"}
    plain = {name: (v.dims, v.values.astype(object).astype(str), v.attrs) for name, v in texts.items()}
    found = dataset.assign_coords(plain)  # xarray draws along texts of fixed width alone
    for name, variable in found.variables.items():
        fallback = {"long_name": str(name).replace("_", " "), "units": "1"}
        variable.attrs = fallback | _plain(described(str(name), variable.attrs))
    found.attrs = _plain(found.attrs)
    return found


def _plain(attributes: dict[Any, Any]) -> dict[str, Any]:
    """Return attributes as NetCDF takes them: texts, numbers, lists of numbers; all else is JSON."""
    plain: dict[str, Any] = {}
    for name, value in attributes.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        numbers = isinstance(value, list) and value and all(type(one) in (int, float) for one in value)
        fits = not number or abs(value) < 2**31
        plain[str(name)] = value if isinstance(value, str) or ((number or numbers) and fits) else json.dumps(value)
    return plain


@xr.register_datatree_accessor("featdyn")  # type: ignore[no-untyped-call]
class FeatdynAccessor:
    """``tree.featdyn``: questions to the run that a tree was opened from."""

    def __init__(self, tree: xr.DataTree) -> None:
        self._tree = tree

    @property
    def run(self) -> Run:
        """The run, as of its newest commit."""
        source = self._tree.root.encoding.get("source")
        if not source:
            raise FeatdynError("this tree does not say where its store is: open it with featdyn.open_tree(path)")
        return Run(source)

    def query(self, *variables: str | Sequence[str], **asked: Any) -> xr.Dataset:
        """Return what :func:`featdyn.query.query` does, as a dataset: along its axes, or along ``row`` where cut.

        The parameters are those of :func:`featdyn.query.ask`, which says what each takes.
        """
        return ask(self.run, *variables, **asked).dataset()

    def sql(self, statement: str) -> pd.DataFrame:
        """Answer a statement of SQL, as :func:`featdyn.query.sql.sql`."""
        from featdyn.query.sql import sql

        return sql(self.run, statement)

    def to_netcdf(self, path: str | Path) -> None:
        """Write the whole tree into one NetCDF file, for which the extra ``netcdf`` is needed."""
        with asked_for():
            import netCDF4  # noqa: F401  xarray's own message would not say which extra brings it
        self._tree.to_netcdf(path)

    @property
    def plot(self) -> Plots:
        """The report's figures of each analysis that was run, such as ``plot.consistency(set="test")``."""
        from featdyn.report.notebook import Plots  # the report stands above queries; a notebook asks from here

        return Plots(self.run)


_self = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
_asked = list(signature(ask).parameters.values())[1:]  # all but the run, which the tree knows
vars(FeatdynAccessor.query)["__signature__"] = Signature([_self, *_asked], return_annotation="xr.Dataset")
