//! Columns of lists.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::error::Result;

/// The type of a list of items that may be NULL.
pub(crate) fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

/// Items one after the other as lists of these lengths.
pub(crate) fn lists(items: ArrayRef, lengths: impl IntoIterator<Item = usize>) -> Result<ArrayRef> {
    let item = Arc::new(Field::new("item", items.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(item, offsets, items, None)?))
}

/// Structs, by their columns, as lists of these lengths.
pub(crate) fn listed(
    fields: Fields,
    columns: Vec<ArrayRef>,
    lengths: impl IntoIterator<Item = usize>,
) -> Result<ArrayRef> {
    lists(Arc::new(StructArray::try_new(fields, columns, None)?), lengths)
}
