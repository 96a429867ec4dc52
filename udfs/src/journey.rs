//! What customers did on the way: paths through a visit, and the touches that led to a conversion.
//!
//! The aggregates here have names of two underscores: reports of the product write them, and what they give is not meant to be
//! read by people. Each gathers a customer's events first; what it makes of them is a plain function of a sorted slice.

pub mod attribution;
mod credit;
mod events;
mod markov;
pub mod paths;
mod sessions;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{Field, Fields};

/// A list of structs for each customer.
pub(crate) fn listed(
    fields: Fields,
    columns: Vec<ArrayRef>,
    offsets: OffsetBuffer<i32>,
) -> datafusion::error::Result<ArrayRef> {
    let structs = StructArray::try_new(fields, columns, None)?;
    let item = Arc::new(Field::new("item", structs.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(structs), None)?))
}
