//! The standard's catalogue of this warehouse.

use arrow::array::RecordBatch;

use super::pg_catalog::{Columns, Described, described, format_type, schemas, type_of};
use super::{DATABASE, Pinned};

/// The view `name` of `information_schema`, or `None` when we do not answer for it.
pub fn table(pinned: &Pinned, name: &str) -> Option<RecordBatch> {
    match name {
        "tables" => Some(tables(pinned)),
        "columns" => Some(columns(pinned)),
        "schemata" => Some(schemata(pinned)),
        "views" => Some(views(pinned)),
        "table_constraints"
        | "key_column_usage"
        | "referential_constraints"
        | "constraint_column_usage" => Some(no_constraints()),
        _ => None,
    }
}

fn kind(relation: &Described) -> String {
    if relation.kind == "v" { "VIEW".to_owned() } else { "BASE TABLE".to_owned() }
}

fn tables(pinned: &Pinned) -> RecordBatch {
    let all = described(pinned);
    Columns::new()
        .name("table_catalog", vec![DATABASE.to_owned(); all.len()])
        .name("table_schema", all.iter().map(|d| d.name.schema.clone()).collect())
        .name("table_name", all.iter().map(|d| d.name.table.clone()).collect())
        .text("table_type", all.iter().map(kind).collect())
        .text(
            "is_insertable_into",
            all.iter().map(|d| if d.kind == "r" { "YES" } else { "NO" }.to_owned()).collect(),
        )
        .batch()
}

fn columns(pinned: &Pinned) -> RecordBatch {
    let all = described(pinned);
    let rows: Vec<_> = all
        .iter()
        .flat_map(|d| {
            d.schema.fields().iter().enumerate().map(move |(i, field)| (d, i as i32 + 1, field))
        })
        .collect();
    let types: Vec<(i64, i32)> = rows.iter().map(|(_, _, field)| type_of(field)).collect();
    let numeric =
        |t: &(i64, i32)| (t.0 == 1700 && t.1 >= 4).then(|| ((t.1 - 4) >> 16, (t.1 - 4) & 0xffff));
    let spelled =
        |t: &(i64, i32)| if t.0 == 1700 { "numeric".to_owned() } else { format_type(t.0, None) };
    Columns::new()
        .name("table_catalog", vec![DATABASE.to_owned(); rows.len()])
        .name("table_schema", rows.iter().map(|r| r.0.name.schema.clone()).collect())
        .name("table_name", rows.iter().map(|r| r.0.name.table.clone()).collect())
        .name("column_name", rows.iter().map(|r| r.2.name().clone()).collect())
        .int4("ordinal_position", rows.iter().map(|r| r.1).collect())
        .null_text("column_default", rows.len())
        .text("is_nullable", vec!["YES".to_owned(); rows.len()])
        .text("data_type", types.iter().map(spelled).collect())
        .optional_int4("character_maximum_length", vec![None; rows.len()])
        .optional_int4("numeric_precision", types.iter().map(|t| numeric(t).map(|n| n.0)).collect())
        .optional_int4("numeric_scale", types.iter().map(|t| numeric(t).map(|n| n.1)).collect())
        .name("udt_schema", vec!["pg_catalog".to_owned(); rows.len()])
        .name("udt_name", types.iter().map(|t| format_type(t.0, None)).collect())
        .text("is_identity", vec!["NO".to_owned(); rows.len()])
        .text(
            "is_updatable",
            rows.iter().map(|r| if r.0.kind == "r" { "YES" } else { "NO" }.to_owned()).collect(),
        )
        .batch()
}

fn schemata(pinned: &Pinned) -> RecordBatch {
    let schemas = schemas(pinned);
    Columns::new()
        .name("catalog_name", vec![DATABASE.to_owned(); schemas.len()])
        .name("schema_owner", vec![pinned.user().to_owned(); schemas.len()])
        .name("schema_name", schemas)
        .batch()
}

fn views(pinned: &Pinned) -> RecordBatch {
    let views: Vec<Described> = described(pinned).into_iter().filter(|d| d.kind == "v").collect();
    Columns::new()
        .name("table_catalog", vec![DATABASE.to_owned(); views.len()])
        .name("table_schema", views.iter().map(|d| d.name.schema.clone()).collect())
        .name("table_name", views.iter().map(|d| d.name.table.clone()).collect())
        .optional_text("view_definition", views.iter().map(|d| d.sql.clone()).collect())
        .batch()
}

/// No table has a constraint, so every view of constraints has no rows; its columns are those clients join on.
fn no_constraints() -> RecordBatch {
    let names = [
        "constraint_catalog",
        "constraint_schema",
        "constraint_name",
        "table_catalog",
        "table_schema",
        "table_name",
        "column_name",
        "constraint_type",
        "unique_constraint_name",
        "unique_constraint_schema",
    ];
    let columns = names.iter().fold(Columns::new(), |columns, name| columns.name(name, vec![]));
    columns
        .int4("ordinal_position", vec![])
        .int4("position_in_unique_constraint", vec![])
        .bool("nulls_distinct", vec![])
        .batch()
}
