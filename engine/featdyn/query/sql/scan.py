"""A table as Arrow batches: only columns that are asked for, only cells in which a filter can hold.

DuckDB hands both to what it takes for a pyarrow dataset. Which places of an axis a filter can hold at, Arrow itself
tells from what is known of them (that of a checkpoint its step is 40), so that nothing here understands expressions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray
from pyarrow import acero
from pyarrow.fs import LocalFileSystem

from featdyn.query.cells import Array, Cells, Region
from featdyn.query.sql.tables import Table

PLACES = 4096  # of a longer axis cells are told apart, not single places
ROWS = 2**17  # cells are joined up to so many rows, and
BYTES = 2**22  # bytes of values: a batch costs as much by itself as thousands of numbers in it
COLUMNS = 64  # of coordinates that are kept, for the batches of other checkpoints


@dataclass(frozen=True)
class Batches:
    """What DuckDB takes for a pyarrow scanner: it reads when it is asked, in the thread that asks.

    One of pyarrow's own reads ahead in threads that nobody waits for, as behind a LIMIT; where Python ends meanwhile,
    they call into what is gone, and the process aborts or hangs.
    """

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]

    def to_reader(self) -> pa.RecordBatchReader:
        """Return the stream that DuckDB reads."""
        return pa.RecordBatchReader.from_batches(self.schema, self.batches)


class Scan(ds.Dataset):  # type: ignore[misc]
    """One table, as pyarrow's datasets are asked: a schema, and a scanner."""

    def __init__(self, table: Table) -> None:  # pyarrow's own makes none
        self.table = table
        self.failed: BaseException | None = None  # what a scan raised: DuckDB passes on its words only
        self._repeated = lru_cache(COLUMNS)(self._coordinate)

    def coordinate(self, name: str) -> Array:
        """Return the values of a coordinate, which is read when it is needed."""
        return self.table.widest.coordinate(name)[1]

    @cached_property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        fields = [(name, _type(self.table.widest.kind(name))) for name in self.table.coordinates]
        for name, array in self.table.arrays.items():
            kind = np.dtype(bool) if array.logical else array.cells.dtype
            inner = _type(kind, packed=bool(self._packed(array.cells)))
            size = int(np.prod([array.cells.shape[axis] for axis in self._packed(array.cells)], dtype=np.int64))
            fields.append((name, pa.list_(inner, size) if self._packed(array.cells) else inner))
        return pa.schema(fields)

    def scanner(self, columns: Sequence[str] | None = None, filter: ds.Expression | None = None, **_: Any) -> Batches:
        """Return what reads columns of the rows for which a filter holds."""
        needed = self._needed(columns, filter)
        schema = pa.schema([self.schema.field(name) for name in needed])
        wanted = needed if columns is None else list(columns)
        found = (_wanted(batch, wanted, filter) for batch in self._batches(schema, filter))
        return Batches(pa.schema([self.schema.field(name) for name in wanted]), found)

    def _needed(self, columns: Sequence[str] | None, filter: ds.Expression | None) -> list[str]:
        names: list[str] = self.schema.names
        if columns is None:
            return names
        asked = set(columns)
        if filter is not None:  # its own columns, which may be others
            for name in [name for name in names if name not in asked]:
                without = pa.schema([field for field in self.schema if field.name != name])
                try:
                    ds.Scanner.from_batches(iter(()), schema=without, columns=[], filter=filter)
                except (pa.ArrowInvalid, KeyError):
                    asked.add(name)
        return [name for name in names if name in asked]

    def _batches(self, schema: pa.Schema, filter: ds.Expression | None) -> Iterator[pa.RecordBatch]:
        try:
            kept = {dim: self._possible(dim, filter) for dim in self.table.dims}
            grid = _at(self.table.widest.cells, kept)
            axes = [grid.dims.index(dim) for dim in self.table.dims]
            cells = dict.fromkeys(  # of those that cut features, each row is given once
                tuple((whole[axis].start, whole[axis].stop) for axis in axes) for whole in grid.regions()
            )
            for region in _joined((tuple(slice(*run) for run in cell) for cell in cells), self._rows(schema)):
                yield self._batch(schema, kept, region)
        except BaseException as error:
            self.failed = error
            raise

    @staticmethod
    def _rows(schema: pa.Schema) -> int:
        """Return how many rows a batch may have."""
        lists = [field.type for field in schema if pa.types.is_fixed_size_list(field.type)]
        width = sum(kind.list_size * kind.value_type.bit_width for kind in lists if kind.value_type != pa.string())
        return int(min(ROWS, 8 * BYTES // width)) if width else ROWS

    def _batch(self, schema: pa.Schema, kept: dict[str, NDArray[np.intp]], region: Region) -> pa.RecordBatch:
        places = {dim: kept[dim][run] for dim, run in zip(self.table.dims, region, strict=True)}
        shape = tuple(len(found) for found in places.values())
        columns = []
        for field in schema:
            if field.name in self.table.coordinates:
                dim = self.table.coordinates[field.name]
                columns.append(self._column(field.name, places[dim], self.table.dims.index(dim), shape))
            else:
                columns.append(self._values(field, places))
        return pa.RecordBatch.from_arrays(columns, schema=schema) if columns else _empty(int(np.prod(shape)))

    def _values(self, field: pa.Field, places: dict[str, NDArray[np.intp]]) -> pa.Array:
        cells = _at(self.table.arrays[field.name].cells, places)
        packed = self._packed(cells)
        order = [cells.dims.index(dim) for dim in self.table.dims] + list(packed)
        values = np.ascontiguousarray(cells.load().transpose(order)).reshape(-1)
        if not packed:
            return _array(values, field.type)
        return pa.FixedSizeListArray.from_arrays(_array(values, field.type.value_type), field.type.list_size)

    def _column(self, name: str, places: NDArray[np.intp], axis: int, shape: tuple[int, ...]) -> pa.Array:
        """Return a column of a coordinate; those along samples and layers come again at other checkpoints."""
        make = self._coordinate if len(places) == 1 else self._repeated
        return make(name, places.tobytes(), axis, shape)

    def _coordinate(self, name: str, places: bytes, axis: int, shape: tuple[int, ...]) -> pa.Array:
        along = [-1 if a == axis else 1 for a in range(len(shape))]

        def spread(values: Array) -> Array:
            return np.broadcast_to(values[np.frombuffer(places, np.intp)].reshape(along), shape).reshape(-1)

        kind = _type(self.table.widest.kind(name))
        if not pa.types.is_dictionary(kind):
            return _array(spread(self.coordinate(name)), kind)
        codes, texts = self._codes(name)
        found = spread(codes)
        return pa.DictionaryArray.from_arrays(pa.array(found, mask=found < 0), texts)

    @cached_property
    def _texts(self) -> dict[str, tuple[NDArray[np.int32], pa.Array]]:
        return {}

    def _codes(self, name: str) -> tuple[NDArray[np.int32], pa.Array]:
        """Return the number of each text, -1 where it is missing, and the texts."""
        if name not in self._texts:
            encoded = pa.array(self.coordinate(name).tolist(), pa.string()).dictionary_encode()
            codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
            self._texts[name] = (codes, encoded.dictionary)
        return self._texts[name]

    def _packed(self, cells: Cells) -> tuple[int, ...]:
        """Return the axes that lie in lists."""
        return tuple(axis for axis, dim in enumerate(cells.dims) if dim not in self.table.dims)

    def _possible(self, dim: str, filter: ds.Expression | None) -> NDArray[np.intp]:
        """Return the places of an axis at which a filter may hold."""
        cells = self.table.widest.cells
        axis = cells.dims.index(dim)
        everything = cells.positions[axis]
        if filter is None or not len(everything):
            return everything
        length = 1 if len(everything) <= PLACES else cells.cell[axis]
        parts = [everything[start : start + length] for start in range(0, len(everything), length)]
        known = {name: self.coordinate(name) for name, of in self.table.coordinates.items() if of == dim}
        form, files = ds.IpcFileFormat(), LocalFileSystem()  # no file is opened: each stands for a part, by its number
        fragments = [form.make_fragment(str(i), files, _known(known, part)) for i, part in enumerate(parts)]
        plain = [pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in self.schema]
        shadow = ds.FileSystemDataset(fragments, pa.schema(plain), form, files)
        kept = [parts[int(fragment.path)] for fragment in shadow.get_fragments(filter=filter)]
        return np.concatenate(kept) if kept else everything[:0]


def _joined(regions: Iterable[Region], rows: int) -> Iterator[Region]:
    """Join regions that follow each other along one axis, up to so many rows."""
    held: Region | None = None
    for region in regions:
        if held is not None:
            differ = [axis for axis, (one, other) in enumerate(zip(held, region, strict=True)) if one != other]
            axis = differ[0]
            long = slice(held[axis].start, region[axis].stop)
            both = (*held[:axis], long, *held[axis + 1 :])
            follows = len(differ) == 1 and held[axis].stop == region[axis].start
            if follows and math.prod(run.stop - run.start for run in both) <= rows:
                held = both
                continue
            yield held
        held = region
    if held is not None:
        yield held


def _wanted(batch: pa.RecordBatch, columns: list[str], filter: ds.Expression | None) -> pa.RecordBatch:
    """Return columns of the rows for which a filter holds."""
    if filter is not None:
        source = acero.Declaration("table_source", acero.TableSourceNodeOptions(pa.Table.from_batches([batch])))
        plan = acero.Declaration("filter", acero.FilterNodeOptions(filter), [source])
        kept = plan.to_table(use_threads=False).combine_chunks().to_batches()
        batch = kept[0] if kept else batch.slice(0, 0)
    return batch.select(columns) if columns else _empty(batch.num_rows)


def _known(columns: dict[str, Array], part: NDArray[np.intp]) -> ds.Expression:
    """Return what is true of all places of a part: one value, or limits."""
    found = ds.scalar(True)
    for name, values in columns.items():
        here = values[part]
        if here.dtype.kind == "O" and not all(isinstance(value, str) for value in here):
            continue
        if here.dtype.kind == "f" and np.isnan(here).any():
            continue
        low, high = min(here.tolist()), max(here.tolist())
        field = ds.field(name)
        found = found & ((field == low) if low == high else (field >= low) & (field <= high))
    return found


def _at(cells: Cells, kept: dict[str, NDArray[np.intp]]) -> Cells:
    for dim, positions in kept.items():
        cells = cells.select(dim, positions)
    return cells


def _type(kind: np.dtype[Any], *, packed: bool = False) -> pa.DataType:
    if kind.kind in "OU":
        return pa.string() if packed else pa.dictionary(pa.int32(), pa.string())
    return pa.from_numpy_dtype(np.dtype(np.float32) if kind == np.float16 else kind)


def _array(values: Array, kind: pa.DataType) -> pa.Array:
    """Return values, NaN as missing: no average should be of what was not measured."""
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind):
        texts = pa.array(values.tolist(), pa.string())
        return texts.dictionary_encode() if pa.types.is_dictionary(kind) else texts
    if pa.types.is_boolean(kind) and values.dtype.kind == "f":
        return pa.array(values == 1, kind, mask=np.isnan(values))
    values = values.astype(np.float32) if values.dtype == np.float16 else values
    missing = values.dtype.kind == "f" and np.isnan(values).any()  # else Arrow takes the values without a copy
    return pa.array(values, kind, from_pandas=bool(missing))


def _empty(rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
