//! PostgreSQL's meaning of values where the engine's differs: texts, times of a zone, checked arithmetic, templates.

mod call_name;
pub mod checked;
pub mod fraction_part;
pub mod numeric_div;
pub mod read_time;
pub mod round_half;
pub mod span;
pub mod string_agg;
pub mod sum;
pub mod template;
pub mod text;
pub mod text_of;
pub mod timezone;
pub mod zone;
