//! PostgreSQL's catalogue of this warehouse: as much of it as clients ask for.
//!
//! Every table is computed from the pinned generation when it is named. Object ids are hashes of names, so they are the
//! same after a restart and on another server.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{DATABASE, Pinned};
use crate::report::{Progress, Report};
use crate::store::{FunctionDef, Name, Relation};

/// Field metadata key under which a column carries the PostgreSQL type it should leave as.
pub const PG_TYPE: &str = "pg_type";

/// Owner of everything.
pub const OWNER_OID: i64 = 10;

/// Catalogue tables that are empty in every warehouse: what they list does not exist here.
///
/// A SELECT from one of them has no rows, which saves the engine from the queries that clients send about them.
pub const ALWAYS_EMPTY: [&str; 33] = [
    "pg_opclass",
    "pg_collation",
    "pg_policy",
    "pg_policies",
    "pg_statistic_ext",
    "pg_publication",
    "pg_publication_rel",
    "pg_publication_namespace",
    "pg_inherits",
    "pg_rewrite",
    "pg_rules",
    "pg_trigger",
    "pg_constraint",
    "pg_index",
    "pg_indexes",
    "pg_attrdef",
    "pg_auth_members",
    "pg_foreign_table",
    "pg_foreign_server",
    "pg_foreign_data_wrapper",
    "pg_partitioned_table",
    "pg_sequence",
    "pg_sequences",
    "pg_enum",
    "pg_range",
    "pg_extension",
    "pg_event_trigger",
    "pg_depend",
    "pg_shdescription",
    "pg_description",
    "pg_seclabel",
    "pg_shseclabel",
    "pg_db_role_setting",
];

/// The type ids that columns of ours can have: name, oid, element's array oid, length, category.
const TYPES: [(&str, i64, i64, i16, &str); 24] = [
    ("bool", 16, 1000, 1, "B"),
    ("bytea", 17, 1001, -1, "U"),
    ("char", 18, 1002, 1, "Z"),
    ("name", 19, 1003, 64, "S"),
    ("int8", 20, 1016, 8, "N"),
    ("int2", 21, 1005, 2, "N"),
    ("int4", 23, 1007, 4, "N"),
    ("regproc", 24, 1008, 4, "N"),
    ("text", 25, 1009, -1, "S"),
    ("oid", 26, 1028, 4, "N"),
    ("json", 114, 199, -1, "U"),
    ("float4", 700, 1021, 4, "N"),
    ("float8", 701, 1022, 8, "N"),
    ("bpchar", 1042, 1014, -1, "S"),
    ("varchar", 1043, 1015, -1, "S"),
    ("date", 1082, 1182, 4, "D"),
    ("time", 1083, 1183, 8, "D"),
    ("timestamp", 1114, 1115, 8, "D"),
    ("timestamptz", 1184, 1185, 8, "D"),
    ("interval", 1186, 1187, 16, "T"),
    ("numeric", 1700, 1231, -1, "N"),
    ("regclass", 2205, 2210, 4, "N"),
    ("uuid", 2950, 2951, 16, "U"),
    ("record", 2249, 2287, -1, "P"),
];

/// The number of a type by its name or one of its other names; `None` when there is no such type here.
pub fn type_oid(name: &str) -> Option<i64> {
    let name = name.trim().trim_start_matches("pg_catalog.").trim_matches('"').to_lowercase();
    let name = match name.as_str() {
        "boolean" => "bool",
        "bigint" => "int8",
        "smallint" => "int2",
        "integer" | "int" => "int4",
        "real" => "float4",
        "double precision" => "float8",
        "decimal" => "numeric",
        "character varying" => "varchar",
        "character" => "bpchar",
        "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        other => other,
    };
    TYPES.iter().find(|(known, ..)| *known == name).map(|(_, oid, ..)| *oid)
}

/// PostgreSQL's type of an Arrow column: oid and type modifier.
pub fn type_of(field: &Field) -> (i64, i32) {
    // A cast keeps the mark of what was cast: a number that became a text is no oid any more.
    if let Some(name) = field.metadata().get(PG_TYPE)
        && let Some(known) = TYPES.iter().find(|t| t.0 == name)
        && (known.4 == "N") == field.data_type().is_integer()
    {
        return (known.1, -1);
    }
    let oid = match field.data_type() {
        DataType::Boolean => 16,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => 21,
        DataType::Int32 | DataType::UInt16 => 23,
        DataType::Int64 | DataType::UInt32 => 20,
        DataType::UInt64 => 1700,
        DataType::Float16 | DataType::Float32 => 700,
        DataType::Float64 => 701,
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => {
            return (1700, numeric_typmod(*p, *s));
        }
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => 17,
        DataType::Date32 | DataType::Date64 => 1082,
        DataType::Time32(_) | DataType::Time64(_) => 1083,
        DataType::Timestamp(_, None) => 1114,
        DataType::Timestamp(_, Some(_)) => 1184,
        DataType::Interval(_) | DataType::Duration(_) => 1186,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            let element = type_of(item).0;
            TYPES.iter().find(|t| t.1 == element).map_or(1009, |t| t.2)
        }
        DataType::Dictionary(_, value) => type_of(&Field::new("", value.as_ref().clone(), true)).0,
        DataType::Struct(_) => 2249,
        _ => 25,
    };
    (oid, -1)
}

/// The name of an Arrow type's PostgreSQL type, without its modifier.
pub fn type_name(data_type: &DataType) -> String {
    format_type(type_of(&Field::new("", data_type.clone(), true)).0, None)
}

/// Precision and scale as `numeric`'s type modifier.
fn numeric_typmod(precision: u8, scale: i8) -> i32 {
    ((i32::from(precision) << 16) | i32::from(scale.max(0))) + 4
}

/// `format_type`: the SQL spelling of a type.
pub fn format_type(oid: i64, typmod: Option<i32>) -> String {
    let known = TYPES.iter().find(|t| t.1 == oid);
    if known.is_none()
        && let Some(element) = TYPES.iter().find(|t| t.2 == oid)
    {
        return format!("{}[]", format_type(element.1, typmod));
    }
    match (oid, typmod) {
        (16, _) => "boolean".to_owned(),
        (18, _) => "\"char\"".to_owned(),
        (20, _) => "bigint".to_owned(),
        (21, _) => "smallint".to_owned(),
        (23, _) => "integer".to_owned(),
        (700, _) => "real".to_owned(),
        (701, _) => "double precision".to_owned(),
        (1042, _) => "character".to_owned(),
        (1043, _) => "character varying".to_owned(),
        (1083, _) => "time without time zone".to_owned(),
        (1114, _) => "timestamp without time zone".to_owned(),
        (1184, _) => "timestamp with time zone".to_owned(),
        (1700, Some(typmod)) if typmod >= 4 => {
            format!("numeric({},{})", (typmod - 4) >> 16, (typmod - 4) & 0xffff)
        }
        _ => known.map_or_else(|| "???".to_owned(), |t| t.0.to_owned()),
    }
}

/// Object id of a schema.
pub fn schema_oid(schema: &str) -> i64 {
    match schema {
        "pg_catalog" => 11,
        "public" => 2200,
        "information_schema" => 13_000,
        other => hashed_oid("schema", other),
    }
}

/// Object id of a relation.
pub fn relation_oid(name: &Name) -> i64 {
    hashed_oid(&name.schema, &name.table)
}

/// A stable id above those that PostgreSQL keeps for itself, and within an int4.
fn hashed_oid(space: &str, name: &str) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&(space.len() as u64).to_le_bytes())
        .update(space.as_bytes())
        .update(name.as_bytes());
    let mut first = [0u8; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    16_384 + (u64::from_le_bytes(first) % 2_000_000_000) as i64
}

/// Names of the schemas that exist.
pub fn schemas(pinned: &Pinned) -> Vec<String> {
    let mut schemas: Vec<String> =
        ["pg_catalog", "public", "information_schema", "system", "reports", "cron"]
            .map(str::to_owned)
            .into();
    for (name, relation) in pinned.relations() {
        let is_seen = !matches!(relation, Relation::Note(_));
        if is_seen && !schemas.contains(&name.schema) {
            schemas.push(name.schema.clone());
        }
    }
    schemas
}

/// A relation as the catalogues describe it.
pub struct Described {
    /// Its name.
    pub name: Name,
    /// `r` for a table, `v` for a view, `m` for a materialized view.
    pub kind: &'static str,
    /// Its columns.
    pub schema: SchemaRef,
    /// Rows, where they are known.
    pub rows: Option<u64>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Query of a view.
    pub sql: Option<String>,
    /// Whether it has rows to show: a materialized view has none before its first run.
    pub is_populated: bool,
}

/// Every relation with its columns; graphs are seen through their tables.
pub fn described(pinned: &Pinned) -> Vec<Described> {
    let mut all = Vec::new();
    for (name, relation) in pinned.relations() {
        match relation {
            Relation::Table(_) => {
                // One whose log is damaged is there, and nothing is known of it.
                let snapshot = pinned.snapshot(name);
                // A note that cannot be read is told of by those who need it.
                let report = Report::of(pinned.generation(), name).ok().flatten();
                let progress = Progress::of(pinned.generation(), name).unwrap_or_default();
                let schema = snapshot.map(|snapshot| Arc::clone(&snapshot.schema));
                let files = snapshot.iter().flat_map(|snapshot| &snapshot.files);
                all.push(Described {
                    name: name.clone(),
                    kind: if report.is_some() { "m" } else { "r" },
                    is_populated: report.is_none() || progress.is_populated(),
                    schema: schema.unwrap_or_else(|| Arc::new(Schema::empty())),
                    rows: snapshot.map(|snapshot| snapshot.rows()),
                    bytes: files.map(|f| f.size).sum(),
                    sql: report.map(|report| report.written),
                });
            }
            Relation::View(view) => all.push(Described {
                name: name.clone(),
                kind: "v",
                schema: pinned.view_schema(name).unwrap_or_else(|| Arc::new(Schema::empty())),
                rows: None,
                bytes: 0,
                sql: Some(view.sql.clone()),
                is_populated: true,
            }),
            Relation::Graph(_) | Relation::Function(_) | Relation::Note(_) => {}
        }
    }
    all
}

/// The catalogue table `name`, or `None` when PostgreSQL has none of that name that we answer for.
pub fn table(pinned: &Pinned, name: &str) -> Option<RecordBatch> {
    match name {
        "pg_class" => Some(pg_class(pinned)),
        "pg_namespace" => Some(pg_namespace(pinned)),
        "pg_attribute" => Some(pg_attribute(pinned)),
        "pg_type" => Some(pg_type()),
        "pg_database" => Some(pg_database()),
        "pg_roles" | "pg_authid" | "pg_user" => Some(pg_roles(pinned)),
        "pg_am" => Some(
            Columns::new()
                .oid("oid", vec![2])
                .name("amname", vec!["heap".to_owned()])
                .char("amtype", vec!["t".to_owned()])
                .batch(),
        ),
        "pg_tablespace" => Some(
            Columns::new()
                .oid("oid", vec![1663])
                .name("spcname", vec!["pg_default".to_owned()])
                .oid("spcowner", vec![OWNER_OID])
                .batch(),
        ),
        "pg_tables" => Some(pg_tables(pinned)),
        "pg_views" => Some(pg_views(pinned)),
        "pg_matviews" => Some(pg_matviews(pinned)),
        "pg_proc" => Some(pg_proc(pinned)),
        "pg_settings" => Some(pg_settings(pinned)),
        name if ALWAYS_EMPTY.contains(&name) => Some(empty_table(name)),
        _ => None,
    }
}

/// An empty table with the columns that clients join on where it stands on the outer side of a join.
fn empty_table(name: &str) -> RecordBatch {
    let oids: &[&str] = match name {
        "pg_index" => &["indexrelid", "indrelid"],
        "pg_description" | "pg_shdescription" => &["objoid", "classoid", "objsubid"],
        "pg_constraint" => &["oid", "conrelid", "conindid", "connamespace", "confrelid"],
        "pg_attrdef" => &["oid", "adrelid", "adnum"],
        "pg_inherits" => &["inhrelid", "inhparent", "inhseqno"],
        "pg_range" => &["rngtypid", "rngsubtype", "rngmultitypid"],
        "pg_enum" => &["oid", "enumtypid"],
        "pg_collation" => &["oid", "collnamespace"],
        "pg_opclass" => &["oid", "opcmethod", "opcnamespace"],
        "pg_depend" => &["classid", "objid", "refclassid", "refobjid"],
        _ => &["oid"],
    };
    let columns = oids.iter().fold(Columns::new(), |columns, oid| columns.oid(oid, vec![]));
    let texts: &[&str] = match name {
        "pg_description" | "pg_shdescription" => &["description"],
        "pg_constraint" => &["conname", "contype"],
        "pg_attrdef" => &["adbin"],
        "pg_enum" => &["enumlabel"],
        "pg_collation" => &["collname"],
        "pg_opclass" => &["opcname"],
        _ => &[],
    };
    let columns = texts.iter().fold(columns, |columns, text| columns.text(text, vec![]));
    match name {
        "pg_index" => columns
            .bool("indisprimary", vec![])
            .bool("indisunique", vec![])
            .bool("indisvalid", vec![])
            .bool("indnullsnotdistinct", vec![])
            .bool("indisexclusion", vec![])
            .int2("indnatts", vec![])
            .int2("indnkeyatts", vec![])
            .batch(),
        _ => columns.batch(),
    }
}

fn pg_class(pinned: &Pinned) -> RecordBatch {
    let all = described(pinned);
    let count = all.len();
    let text = |f: fn(&Described) -> String| all.iter().map(f).collect::<Vec<_>>();
    Columns::new()
        .oid("oid", all.iter().map(|d| relation_oid(&d.name)).collect())
        .name("relname", text(|d| d.name.table.clone()))
        .oid("relnamespace", all.iter().map(|d| schema_oid(&d.name.schema)).collect())
        .oid("reltype", vec![0; count])
        .oid("reloftype", vec![0; count])
        .oid("relowner", vec![OWNER_OID; count])
        .oid("relam", all.iter().map(|d| if d.kind == "v" { 0 } else { 2 }).collect())
        .oid("relfilenode", vec![0; count])
        .oid("reltablespace", vec![0; count])
        .int4("relpages", all.iter().map(|d| (d.bytes / 8192) as i32).collect())
        .float4("reltuples", all.iter().map(|d| d.rows.map_or(-1.0, |r| r as f32)).collect())
        .int4("relallvisible", vec![0; count])
        .oid("reltoastrelid", vec![0; count])
        .bool("relhasindex", vec![false; count])
        .bool("relisshared", vec![false; count])
        .char("relpersistence", vec!["p".to_owned(); count])
        .char("relkind", text(|d| d.kind.to_owned()))
        .int2("relnatts", all.iter().map(|d| d.schema.fields().len() as i16).collect())
        .int2("relchecks", vec![0; count])
        .bool("relhasrules", vec![false; count])
        .bool("relhastriggers", vec![false; count])
        .bool("relhassubclass", vec![false; count])
        .bool("relrowsecurity", vec![false; count])
        .bool("relforcerowsecurity", vec![false; count])
        .bool("relispopulated", all.iter().map(|d| d.is_populated).collect())
        .char("relreplident", vec!["d".to_owned(); count])
        .bool("relispartition", vec![false; count])
        .null_list("relacl", count)
        .null_list("reloptions", count)
        .null_text("relpartbound", count)
        .batch()
}

fn pg_namespace(pinned: &Pinned) -> RecordBatch {
    let schemas = schemas(pinned);
    let count = schemas.len();
    Columns::new()
        .oid("oid", schemas.iter().map(|s| schema_oid(s)).collect())
        .name("nspname", schemas)
        .oid("nspowner", vec![OWNER_OID; count])
        .null_list("nspacl", count)
        .batch()
}

fn pg_attribute(pinned: &Pinned) -> RecordBatch {
    let all = described(pinned);
    let rows: Vec<(i64, i16, &Field)> = all
        .iter()
        .flat_map(|d| {
            let oid = relation_oid(&d.name);
            d.schema.fields().iter().enumerate().map(move |(i, f)| (oid, i as i16 + 1, f.as_ref()))
        })
        .collect();
    let count = rows.len();
    let types: Vec<(i64, i32)> = rows.iter().map(|(_, _, field)| type_of(field)).collect();
    let length = |oid: &i64| TYPES.iter().find(|t| t.1 == *oid).map_or(-1, |t| t.3);
    Columns::new()
        .oid("attrelid", rows.iter().map(|r| r.0).collect())
        .name("attname", rows.iter().map(|r| r.2.name().clone()).collect())
        .oid("atttypid", types.iter().map(|t| t.0).collect())
        .int4("attstattarget", vec![-1; count])
        .int2("attlen", types.iter().map(|t| length(&t.0)).collect())
        .int2("attnum", rows.iter().map(|r| r.1).collect())
        .int4("attndims", vec![0; count])
        .int4("atttypmod", types.iter().map(|t| t.1).collect())
        .char("attstorage", vec!["p".to_owned(); count])
        .char("attcompression", vec![String::new(); count])
        .bool("attnotnull", vec![false; count])
        .bool("atthasdef", vec![false; count])
        .bool("atthasmissing", vec![false; count])
        .char("attidentity", vec![String::new(); count])
        .char("attgenerated", vec![String::new(); count])
        .bool("attisdropped", vec![false; count])
        .bool("attislocal", vec![true; count])
        .oid("attcollation", vec![0; count])
        .null_list("attacl", count)
        .null_list("attoptions", count)
        .batch()
}

fn pg_type() -> RecordBatch {
    let mut rows: Vec<(String, i64, i64, i64, i16, &str)> = Vec::new();
    for (name, oid, array, length, category) in TYPES {
        rows.push((name.to_owned(), oid, 0, array, length, category));
        rows.push((format!("_{name}"), array, oid, 0, -1, "A"));
    }
    let count = rows.len();
    Columns::new()
        .oid("oid", rows.iter().map(|r| r.1).collect())
        .name("typname", rows.iter().map(|r| r.0.clone()).collect())
        .oid("typnamespace", vec![11; count])
        .oid("typowner", vec![OWNER_OID; count])
        .int2("typlen", rows.iter().map(|r| r.4).collect())
        .bool("typbyval", vec![false; count])
        .char(
            "typtype",
            rows.iter().map(|r| if r.5 == "P" { "p".to_owned() } else { "b".to_owned() }).collect(),
        )
        .char("typcategory", rows.iter().map(|r| r.5.to_owned()).collect())
        .bool("typisdefined", vec![true; count])
        .char("typdelim", vec![",".to_owned(); count])
        .oid("typrelid", vec![0; count])
        .oid("typelem", rows.iter().map(|r| r.2).collect())
        .oid("typarray", rows.iter().map(|r| r.3).collect())
        .bool("typnotnull", vec![false; count])
        .oid("typbasetype", vec![0; count])
        .int4("typtypmod", vec![-1; count])
        .oid("typcollation", rows.iter().map(|r| if r.5 == "S" { 100 } else { 0 }).collect())
        .null_text("typdefault", count)
        .batch()
}

fn pg_database() -> RecordBatch {
    Columns::new()
        .oid("oid", vec![hashed_oid("database", DATABASE)])
        .name("datname", vec![DATABASE.to_owned()])
        .oid("datdba", vec![OWNER_OID])
        .int4("encoding", vec![6])
        .char("datlocprovider", vec!["c".to_owned()])
        .bool("datistemplate", vec![false])
        .bool("datallowconn", vec![true])
        .int4("datconnlimit", vec![-1])
        .oid("dattablespace", vec![1663])
        .text("datcollate", vec!["C.UTF-8".to_owned()])
        .text("datctype", vec!["C.UTF-8".to_owned()])
        .null_text("daticulocale", 1)
        .null_list("datacl", 1)
        .batch()
}

fn pg_roles(pinned: &Pinned) -> RecordBatch {
    let role = pinned.user().to_owned();
    Columns::new()
        .oid("oid", vec![OWNER_OID])
        .name("rolname", vec![role.clone()])
        .bool("rolsuper", vec![true])
        .bool("rolinherit", vec![true])
        .bool("rolcreaterole", vec![true])
        .bool("rolcreatedb", vec![false])
        .bool("rolcanlogin", vec![true])
        .bool("rolreplication", vec![false])
        .bool("rolbypassrls", vec![true])
        .int4("rolconnlimit", vec![-1])
        .null_text("rolvaliduntil", 1)
        .null_list("rolconfig", 1)
        .name("usename", vec![role])
        .oid("usesysid", vec![OWNER_OID])
        .bool("usesuper", vec![true])
        .batch()
}

fn pg_tables(pinned: &Pinned) -> RecordBatch {
    let tables: Vec<Described> = described(pinned).into_iter().filter(|d| d.kind == "r").collect();
    let count = tables.len();
    Columns::new()
        .name("schemaname", tables.iter().map(|d| d.name.schema.clone()).collect())
        .name("tablename", tables.iter().map(|d| d.name.table.clone()).collect())
        .name("tableowner", vec![pinned.user().to_owned(); count])
        .null_text("tablespace", count)
        .bool("hasindexes", vec![false; count])
        .bool("hasrules", vec![false; count])
        .bool("hastriggers", vec![false; count])
        .bool("rowsecurity", vec![false; count])
        .batch()
}

fn pg_views(pinned: &Pinned) -> RecordBatch {
    let views: Vec<Described> = described(pinned).into_iter().filter(|d| d.kind == "v").collect();
    Columns::new()
        .name("schemaname", views.iter().map(|d| d.name.schema.clone()).collect())
        .name("viewname", views.iter().map(|d| d.name.table.clone()).collect())
        .name("viewowner", vec![pinned.user().to_owned(); views.len()])
        .text("definition", views.iter().map(|d| d.sql.clone().unwrap_or_default()).collect())
        .batch()
}

fn pg_matviews(pinned: &Pinned) -> RecordBatch {
    let views: Vec<Described> = described(pinned).into_iter().filter(|d| d.kind == "m").collect();
    let count = views.len();
    Columns::new()
        .name("schemaname", views.iter().map(|d| d.name.schema.clone()).collect())
        .name("matviewname", views.iter().map(|d| d.name.table.clone()).collect())
        .name("matviewowner", vec![pinned.user().to_owned(); count])
        .null_text("tablespace", count)
        .bool("hasindexes", vec![false; count])
        .bool("ispopulated", views.iter().map(|d| d.is_populated).collect())
        .text("definition", views.iter().map(|d| d.sql.clone().unwrap_or_default()).collect())
        .batch()
}

/// The function that a user wrote and that has this object id.
pub fn own_function(pinned: &Pinned, oid: i64) -> Option<&FunctionDef> {
    let mut own = pinned.own_functions();
    own.find(|(name, _)| hashed_oid("function", &name.table) == oid).map(|(_, def)| def)
}

fn pg_proc(pinned: &Pinned) -> RecordBatch {
    let names = pinned.function_names();
    let count = names.len();
    let own = |name: &String| pinned.own_functions().find(|(own, _)| own.table == *name);
    let sources = names.iter().map(|name| own(name).map_or("", |(_, def)| &def.sql).to_owned());
    let sources: Vec<String> = sources.collect();
    Columns::new()
        .oid("oid", names.iter().map(|n| hashed_oid("function", n)).collect())
        .name("proname", names)
        .oid("pronamespace", vec![2200; count])
        .oid("proowner", vec![OWNER_OID; count])
        .oid("prolang", vec![12; count])
        .char("prokind", vec!["f".to_owned(); count])
        .bool("proretset", vec![false; count])
        .oid("prorettype", vec![25; count])
        .int2("pronargs", vec![0; count])
        .text("prosrc", sources)
        .batch()
}

fn pg_settings(pinned: &Pinned) -> RecordBatch {
    let (names, values): (Vec<String>, Vec<String>) = pinned.settings().iter().cloned().unzip();
    let count = names.len();
    Columns::new()
        .text("name", names)
        .text("setting", values)
        .null_text("unit", count)
        .text("category", vec!["Session".to_owned(); count])
        .null_text("short_desc", count)
        .text("context", vec!["user".to_owned(); count])
        .text("vartype", vec!["string".to_owned(); count])
        .text("source", vec!["session".to_owned(); count])
        .batch()
}

/// A batch put together column by column.
#[derive(Default)]
pub(super) struct Columns {
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Columns {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn add(mut self, name: &str, pg_type: Option<&str>, array: ArrayRef) -> Self {
        let mut field = Field::new(name, array.data_type().clone(), true);
        if let Some(pg_type) = pg_type {
            field = field.with_metadata([(PG_TYPE.to_owned(), pg_type.to_owned())].into());
        }
        self.fields.push(field);
        self.arrays.push(array);
        self
    }

    pub(super) fn oid(self, name: &str, values: Vec<i64>) -> Self {
        self.add(name, Some("oid"), Arc::new(Int64Array::from(values)))
    }

    pub(super) fn name(self, name: &str, values: Vec<String>) -> Self {
        self.add(name, Some("name"), Arc::new(StringArray::from(values)))
    }

    fn char(self, name: &str, values: Vec<String>) -> Self {
        self.add(name, Some("char"), Arc::new(StringArray::from(values)))
    }

    pub(super) fn text(self, name: &str, values: Vec<String>) -> Self {
        self.add(name, None, Arc::new(StringArray::from(values)))
    }

    pub(super) fn optional_text(self, name: &str, values: Vec<Option<String>>) -> Self {
        self.add(name, None, Arc::new(StringArray::from(values)))
    }

    pub(super) fn null_text(self, name: &str, count: usize) -> Self {
        self.add(name, None, Arc::new(StringArray::from(vec![None::<&str>; count])))
    }

    fn null_list(self, name: &str, count: usize) -> Self {
        let item = Arc::new(Field::new("item", DataType::Utf8, true));
        self.add(name, None, arrow::array::new_null_array(&DataType::List(item), count))
    }

    pub(super) fn bool(self, name: &str, values: Vec<bool>) -> Self {
        self.add(name, None, Arc::new(BooleanArray::from(values)))
    }

    fn int2(self, name: &str, values: Vec<i16>) -> Self {
        self.add(name, None, Arc::new(Int16Array::from(values)))
    }

    pub(super) fn int4(self, name: &str, values: Vec<i32>) -> Self {
        self.add(name, None, Arc::new(Int32Array::from(values)))
    }

    pub(super) fn optional_int4(self, name: &str, values: Vec<Option<i32>>) -> Self {
        self.add(name, None, Arc::new(Int32Array::from(values)))
    }

    fn float4(self, name: &str, values: Vec<f32>) -> Self {
        self.add(name, None, Arc::new(arrow::array::Float32Array::from(values)))
    }

    pub(super) fn batch(self) -> RecordBatch {
        let schema = Arc::new(Schema::new(self.fields));
        // Columns of one list have one length; a mistake here is ours and shows as an empty catalogue.
        RecordBatch::try_new(Arc::clone(&schema), self.arrays)
            .unwrap_or_else(|_| RecordBatch::new_empty(schema))
    }
}
