//! Values as lines of CSV and JSON.

use arrow::datatypes::DataType;

use super::OutputColumn;

/// A value of CSV; an empty text is told apart from NULL by its quotes.
pub fn csv_value(text: &str) -> String {
    if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// `"name":value`: numbers as they are, exactly; what JSON has no number for, as text.
pub fn json_member(column: &OutputColumn, value: Option<&str>) -> String {
    let text = |text: &str| serde_json::Value::String(text.to_owned()).to_string();
    let data_type = column.field.data_type();
    let value = match value {
        None => "null".to_owned(),
        Some(value) if *data_type == DataType::Boolean => (value == "t").to_string(),
        Some(value) if data_type.is_numeric() && !value.contains(['N', 'I']) => value.to_owned(),
        Some(value) => text(value),
    };
    format!("{}:{value}", text(&column.name))
}
