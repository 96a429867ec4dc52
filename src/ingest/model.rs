//! The customer data model: types of its columns, and which of them are personal.

use arrow::datatypes::{DataType, Schema, TimeUnit};

use crate::store::Clustering;

/// Columns that hold a person's data by default, in any table.
const PERSONAL: [&str; 13] = [
    "phone",
    "mobile",
    "email",
    "device_id",
    "imei",
    "idfa",
    "oaid",
    "open_id",
    "union_id",
    "id_card",
    "name",
    "birth_date",
    "id_value",
];

/// Whether a column of this name is PERSONAL unless a table says otherwise.
pub fn is_personal(column: &str) -> bool {
    PERSONAL.contains(&column.to_lowercase().as_str())
}

/// The columns of a schema that are PERSONAL by default.
pub fn personal_columns(schema: &Schema) -> Vec<String> {
    schema.fields().iter().filter(|f| is_personal(f.name())).map(|f| f.name().clone()).collect()
}

/// How the model's tables of acts are kept: by customer, then time.
pub fn clustering(table: &str, schema: &Schema) -> Option<Clustering> {
    let time = match table {
        "events" => "occurred_at",
        "orders" => "ordered_at",
        _ => return None,
    };
    let columns = ["source", "record_id", time].map(str::to_owned).to_vec();
    // A table of that name with other columns is not the model's.
    Clustering::new(schema, columns, None).ok().filter(|clustering| clustering.keys == 2)
}

/// The type that the model gives to a column of one of its tables.
pub fn model_type(table: &str, column: &str) -> Option<DataType> {
    let instant = || Some(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    let money = || Some(DataType::Decimal128(18, 4));
    let text = || Some(DataType::Utf8);
    match (table, column) {
        ("customers", "registered_at" | "updated_at") => instant(),
        ("customers", "birth_date") => Some(DataType::Date32),
        ("customers", "points") => money(),
        (
            "customers",
            "source" | "record_id" | "phone" | "email" | "device_id" | "open_id" | "union_id"
            | "id_card" | "name" | "gender" | "province" | "city" | "scope" | "member_level"
            | "channel",
        ) => text(),
        ("orders", "ordered_at")
        | ("events", "occurred_at")
        | ("feedback", "given_at")
        | ("identifiers", "seen_at") => instant(),
        ("orders", "amount") | ("order_lines", "unit_price" | "amount") => money(),
        ("orders" | "order_lines", "quantity") | ("order_lines", "line_no") => {
            Some(DataType::Int64)
        }
        (
            "orders",
            "order_id" | "source" | "record_id" | "status" | "currency" | "channel" | "campaign_id"
            | "coupon_id" | "store_id",
        )
        | ("order_lines", "order_id" | "product_id" | "category")
        | (
            "events",
            "event_id" | "source" | "record_id" | "event" | "channel" | "campaign_id"
            | "touchpoint" | "device_id" | "session_id" | "properties",
        )
        | ("feedback", "feedback_id" | "source" | "record_id" | "kind" | "topic" | "body")
        | ("identifiers", "source" | "record_id" | "id_type" | "id_value") => text(),
        ("feedback", "score") => Some(DataType::Float64),
        _ => None,
    }
}
