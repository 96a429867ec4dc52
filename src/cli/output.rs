//! Results for a person (a table) or a program (CSV, JSON lines).

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use chrono_tz::Tz;
use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::error::Result;
use crate::sql::{OutputColumn, csv_value, json_member};
use clientele_udfs::pg::text::TextColumn;

/// Form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Aligned columns, for reading
    Table,
    /// CSV with a header line
    Csv,
    /// One JSON object a row
    Json,
}

/// Writes the rows of one result, batch by batch; a table is kept until its end, to know the widths.
pub(super) struct Printer<'a> {
    format: Format,
    columns: &'a [OutputColumn],
    zone: Tz,
    table: Table,
    rows: u64,
}

impl<'a> Printer<'a> {
    pub(super) fn new(format: Format, columns: &'a [OutputColumn], zone: Tz) -> Self {
        let mut table = Table::new();
        table
            .load_preset(presets::UTF8_HORIZONTAL_ONLY)
            .set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|c| c.name.clone()));
        for (i, column) in columns.iter().enumerate() {
            if let (true, Some(shown)) = (is_number(column.field.data_type()), table.column_mut(i))
            {
                shown.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { format, columns, zone, table, rows: 0 }
    }

    pub(super) fn begin(&self, out: &mut impl Write) -> Result<()> {
        if self.format == Format::Csv {
            let names: Vec<String> = self.columns.iter().map(|c| csv_value(&c.name)).collect();
            writeln!(out, "{}", names.join(","))?;
        }
        Ok(())
    }

    pub(super) fn batch(&mut self, batch: &RecordBatch, out: &mut impl Write) -> Result<()> {
        let columns = batch
            .columns()
            .iter()
            .map(|c| Ok(TextColumn::new(c, self.zone)?))
            .collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            let value = |column: &TextColumn| {
                (!column.is_null(row)).then(|| {
                    let mut text = String::new();
                    column.write(row, &mut text);
                    text
                })
            };
            let values = columns.iter().map(value);
            match self.format {
                Format::Table => {
                    self.table.add_row(values.map(Option::unwrap_or_default));
                }
                Format::Csv => {
                    let line: Vec<String> =
                        values.map(|v| v.map_or(String::new(), |v| csv_value(&v))).collect();
                    writeln!(out, "{}", line.join(","))?;
                }
                Format::Json => {
                    let member = |(column, value): (&OutputColumn, Option<String>)| {
                        json_member(column, value.as_deref())
                    };
                    let members: Vec<String> =
                        self.columns.iter().zip(values).map(member).collect();
                    writeln!(out, "{{{}}}", members.join(","))?;
                }
            }
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    pub(super) fn end(self, out: &mut impl Write) -> Result<()> {
        if self.format == Format::Table {
            writeln!(out, "{}", self.table)?;
            writeln!(out, "({} row{})", self.rows, if self.rows == 1 { "" } else { "s" })?;
        }
        Ok(())
    }
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}
