//! Sets of customers as roaring bitmaps: counted, set together and kept in a fraction of their room.

pub mod bitmap;
pub mod bitmap_agg;
