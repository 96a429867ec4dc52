//! Answers of several rows for each group, as a column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{Field, Fields};

/// A list of structs for each group; `offsets` say where each list begins.
pub(crate) fn listed(
    fields: Fields,
    columns: Vec<ArrayRef>,
    offsets: OffsetBuffer<i32>,
) -> datafusion::error::Result<ArrayRef> {
    let structs = StructArray::try_new(fields, columns, None)?;
    let item = Arc::new(Field::new("item", structs.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(structs), None)?))
}
