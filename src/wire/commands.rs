//! Commands about the session: settings, blocks, prepared statements and cursors by name.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::Expr;
use pgwire::messages::response::TransactionStatus;

use super::connection::{Ask, Connection, Halt, Portal, Progress, describe_columns};
use super::reply::{self, Severity};
use crate::error::{Error, Kind, Result};
use crate::session::{REPORTED, is_on};
use crate::sql::statement::{Parsed, Statement};
use crate::sql::{Described, OutputColumn, SessionCommand};

impl Connection {
    fn prepared_by_name(&self, name: &str, values: &[String]) -> Result<(Parsed, Vec<Expr>)> {
        let prepared = self.statements.get(name).ok_or_else(|| no_statement(name))?;
        let Some(parsed) = prepared.parsed.clone() else { return Err(no_statement(name)) };
        let given = values
            .iter()
            .map(|v| crate::dialect::parse_expression(v))
            .collect::<Result<Vec<_>>>()?;
        if given.len() != prepared.described.parameters.len() {
            return Err(Error::new(
                Kind::Syntax,
                format!(
                    "prepared statement \"{name}\" needs {} values, {} are given",
                    prepared.described.parameters.len(),
                    given.len()
                ),
            ));
        }
        let types = &prepared.described.parameters;
        let typed = given.into_iter().zip(types).map(|(value, t)| crate::sql::typed(value, t));
        Ok((parsed, typed.collect()))
    }

    /// Carries a command out; in the simple protocol its columns are described first.
    pub(super) async fn command(
        &mut self,
        command: &SessionCommand,
        describes: bool,
        formats: &[i16],
    ) -> std::result::Result<(), Halt> {
        match command {
            SessionCommand::Prepare { name, types, statement } => {
                Ok(Box::pin(self.prepare_by_name(name, types, statement)).await?)
            }
            SessionCommand::Execute { name, values } => {
                let (parsed, values) = self.prepared_by_name(name, values)?;
                Box::pin(self.run_to_end(parsed, values, describes, formats)).await
            }
            SessionCommand::Declare { name, is_held, query } => {
                Ok(Box::pin(self.declare(name, *is_held, query)).await?)
            }
            SessionCommand::Fetch { name, rows } => {
                Box::pin(self.fetch(name, *rows, describes, formats)).await
            }
            other => Ok(self.at_once(other, describes)?),
        }
    }

    /// What the columns of a command's answer are, for the extended protocol.
    pub(super) fn describe_command(&self, command: &SessionCommand) -> Described {
        let columns = match command {
            SessionCommand::Show(name) => Some(show_columns(name)),
            SessionCommand::Execute { name, .. } => {
                self.statements.get(name).and_then(|p| p.described.columns.clone())
            }
            SessionCommand::Fetch { name, .. } => {
                self.portals.get(name).and_then(|p| p.prepared.described.columns.clone())
            }
            _ => None,
        };
        Described { parameters: vec![], columns }
    }

    async fn prepare_by_name(
        &mut self,
        name: &str,
        types: &[String],
        statement: &str,
    ) -> Result<()> {
        if self.statements.contains_key(name) {
            return Err(Error::new(
                Kind::DuplicateStatement,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        let declared = types.iter().map(|t| crate::sql::declared_type(t)).collect::<Result<_>>()?;
        let prepared = self.prepare(statement.to_owned(), declared).await?;
        self.statements.insert(name.to_owned(), Arc::new(prepared));
        reply::complete(&mut self.out, "PREPARE");
        Ok(())
    }

    async fn declare(&mut self, name: &str, is_held: bool, query: &str) -> Result<()> {
        if !is_held {
            self.need_block("DECLARE CURSOR")?;
        }
        if self.portals.contains_key(name) {
            return Err(Error::new(
                Kind::DuplicateCursor,
                format!("cursor \"{name}\" already exists"),
            ));
        }
        let prepared = self.prepare(query.to_owned(), vec![]).await?;
        if !matches!(prepared.parsed.as_ref().map(|p| &p.statement), Some(Statement::Query(_))) {
            return Err(Error::new(Kind::Syntax, "syntax error: a cursor is FOR a query"));
        }
        let portal = Portal {
            prepared: Arc::new(prepared),
            values: vec![],
            formats: vec![],
            progress: Progress::New,
            is_held,
        };
        self.portals.insert(name.to_owned(), portal);
        reply::complete(&mut self.out, "DECLARE CURSOR");
        Ok(())
    }

    async fn fetch(
        &mut self,
        name: &str,
        rows: Option<usize>,
        describes: bool,
        formats: &[i16],
    ) -> std::result::Result<(), Halt> {
        let Some(mut portal) = self.portals.remove(name) else {
            return Err(no_portal(name).into());
        };
        let columns = portal.prepared.described.columns.clone().unwrap_or_default();
        // Rows are encoded when they are computed, so the first FETCH decides on their format.
        let is_new = matches!(portal.progress, Progress::New);
        if is_new {
            portal.formats = formats.to_vec();
        }
        // No formats at all are text in every column.
        let is_text = |formats: &[i16]| formats.iter().all(|format| *format == 0);
        let is_same = portal.formats == formats || is_text(&portal.formats) && is_text(formats);
        let described = if !is_new && !is_same {
            Err(Error::not_supported("a cursor's rows are all text or all binary"))
        } else if describes {
            describe_columns(&mut self.out, &columns, &portal.formats)
        } else {
            Ok(())
        };
        let result = match described {
            Ok(()) => self.advance(&mut portal, Ask::Fetch(rows.unwrap_or(0))).await,
            Err(error) => Err(error.into()),
        };
        self.portals.insert(name.to_owned(), portal);
        result
    }

    fn at_once(&mut self, command: &SessionCommand, describes: bool) -> Result<()> {
        match command {
            SessionCommand::Set { name, value, is_local } => {
                if name.eq_ignore_ascii_case("transaction_read_only")
                    && !value.as_deref().is_some_and(is_on)
                {
                    self.must_not_read_only()?;
                }
                if *is_local && self.status == TransactionStatus::Idle {
                    let message = "SET LOCAL can only be used in transaction blocks";
                    reply::notice(&mut self.out, Severity::Warning, "25P01", message);
                } else {
                    self.set(name, value.as_deref(), *is_local)?;
                }
                reply::complete(&mut self.out, "SET");
            }
            SessionCommand::Reset(name) if name.eq_ignore_ascii_case("all") => {
                self.session.with_settings(crate::session::Settings::reset_all);
                REPORTED.iter().for_each(|name| self.report(name));
                reply::complete(&mut self.out, "RESET");
            }
            SessionCommand::Reset(name) => {
                self.set(name, None, false)?;
                reply::complete(&mut self.out, "RESET");
            }
            SessionCommand::Show(name) => self.show(name, describes)?,
            SessionCommand::Discard(what) => {
                if what == "ALL" {
                    if self.status != TransactionStatus::Idle {
                        return Err(Error::new(
                            Kind::NotSupported,
                            "DISCARD ALL cannot run inside a transaction block",
                        ));
                    }
                    self.session.with_settings(crate::session::Settings::reset_all);
                    REPORTED.iter().for_each(|name| self.report(name));
                    self.statements.clear();
                    self.portals.clear();
                }
                reply::complete(&mut self.out, &format!("DISCARD {what}"));
            }
            SessionCommand::Begin { reads_only } => {
                if *reads_only == Some(false) {
                    self.must_not_read_only()?;
                }
                if self.status == TransactionStatus::Transaction {
                    reply::notice(
                        &mut self.out,
                        Severity::Warning,
                        "25001",
                        "there is already a transaction in progress",
                    );
                }
                if self.status == TransactionStatus::Idle {
                    self.before_block = Some(self.session.settings());
                }
                self.status = TransactionStatus::Transaction;
                if let Some(reads_only) = reads_only {
                    let value = if *reads_only { "on" } else { "off" };
                    self.set("transaction_read_only", Some(value), true)?;
                }
                reply::complete(&mut self.out, "BEGIN");
            }
            SessionCommand::Commit => self.end_block(true),
            SessionCommand::Rollback => self.end_block(false),
            SessionCommand::Savepoint(name) => {
                self.need_block("SAVEPOINT")?;
                self.savepoints.push((name.clone(), self.session.settings()));
                reply::complete(&mut self.out, "SAVEPOINT");
            }
            SessionCommand::Release(name) => {
                self.need_block("RELEASE SAVEPOINT")?;
                let at = self.savepoint(name)?;
                self.savepoints.truncate(at);
                reply::complete(&mut self.out, "RELEASE");
            }
            SessionCommand::RollbackTo(name) => {
                self.need_block("ROLLBACK TO SAVEPOINT")?;
                let at = self.savepoint(name)?;
                self.savepoints.truncate(at + 1);
                let before = self.savepoints[at].1.clone();
                self.session.with_settings(|settings| *settings = before);
                REPORTED.iter().for_each(|name| self.report(name));
                self.status = TransactionStatus::Transaction;
                reply::complete(&mut self.out, "ROLLBACK");
            }
            SessionCommand::Deallocate(name) => {
                if name.eq_ignore_ascii_case("all") {
                    self.statements.clear();
                } else if self.statements.remove(name).is_none() {
                    return Err(no_statement(name));
                }
                let tag =
                    if name.eq_ignore_ascii_case("all") { "DEALLOCATE ALL" } else { "DEALLOCATE" };
                reply::complete(&mut self.out, tag);
            }
            SessionCommand::Close(name) => {
                if name.eq_ignore_ascii_case("all") {
                    self.portals.clear();
                    reply::complete(&mut self.out, "CLOSE CURSOR ALL");
                } else if self.portals.remove(name).is_some() {
                    reply::complete(&mut self.out, "CLOSE CURSOR");
                } else {
                    return Err(no_portal(name));
                }
            }
            SessionCommand::Listen(tag) => reply::complete(&mut self.out, tag),
            other => {
                return Err(Error::internal(format!("{other:?} is carried out elsewhere")));
            }
        }
        Ok(())
    }

    fn need_block(&self, command: &str) -> Result<()> {
        if self.status == TransactionStatus::Idle {
            return Err(Error::new(
                Kind::NoActiveTransaction,
                format!("{command} can only be used in transaction blocks"),
            ));
        }
        Ok(())
    }

    /// Refuses to let a block write that began as one that only reads: what was read in it would have been of one that writes.
    fn must_not_read_only(&self) -> Result<()> {
        let is_in_block = self.status == TransactionStatus::Transaction;
        if is_in_block && self.session.settings().reads_only() {
            let message = "transaction read-write mode must be set before any query";
            return Err(Error::new(Kind::ActiveTransaction, message));
        }
        Ok(())
    }

    fn savepoint(&self, name: &str) -> Result<usize> {
        let found = self.savepoints.iter().rposition(|(known, _)| known == name);
        found.ok_or_else(|| {
            Error::new(Kind::UndefinedSavepoint, format!("savepoint \"{name}\" does not exist"))
        })
    }

    /// Ends a block. Each statement has committed by itself; a rollback that would have to undo one says that it did not.
    fn end_block(&mut self, is_commit: bool) {
        let was = self.status;
        if was == TransactionStatus::Idle {
            reply::notice(
                &mut self.out,
                Severity::Warning,
                "25P01",
                "there is no transaction in progress",
            );
        }
        let undoes = !is_commit || was == TransactionStatus::Error;
        if undoes && self.wrote_in_block {
            let message = "what this block wrote stays: each statement commits by itself";
            reply::notice(&mut self.out, Severity::Warning, "0A000", message);
        }
        self.settle_settings(undoes);
        self.status = TransactionStatus::Idle;
        self.savepoints.clear();
        self.portals.retain(|_, portal| portal.is_held && is_commit);
        self.wrote_in_block = false;
        reply::complete(
            &mut self.out,
            if is_commit && was != TransactionStatus::Error { "COMMIT" } else { "ROLLBACK" },
        );
    }

    /// Sets; what is set for a block only is remembered as it was before.
    fn set(&mut self, name: &str, value: Option<&str>, is_local: bool) -> Result<()> {
        let before = self.session.settings().changed(name)?;
        let known = self.session.with_settings(|s| s.set(name, value))?;
        match (is_local, self.local_settings.iter().position(|(local, _)| *local == known)) {
            (true, None) => self.local_settings.push((known, before)),
            // Set for the session after all.
            (false, Some(at)) => {
                self.local_settings.remove(at);
            }
            _ => {}
        }
        self.report(known);
        Ok(())
    }

    /// At the end of a block: what was set in one that is undone is undone, and what was set for the block is over.
    fn settle_settings(&mut self, undoes: bool) {
        let locals = std::mem::take(&mut self.local_settings);
        match self.before_block.take() {
            Some(before) if undoes => {
                self.session.with_settings(|settings| *settings = before);
                REPORTED.iter().for_each(|name| self.report(name));
            }
            _ => {
                for (name, before) in locals {
                    // It was accepted before.
                    let _ = self.session.with_settings(|s| s.set(name, before.as_deref()));
                    self.report(name);
                }
            }
        }
    }

    fn report(&mut self, name: &'static str) {
        if REPORTED.contains(&name)
            && let Ok((name, value)) = self.session.settings().show(name)
        {
            reply::parameter(&mut self.out, name, &value);
        }
    }

    fn show(&mut self, name: &str, describes: bool) -> Result<()> {
        let settings = self.session.settings();
        let rows: Vec<Vec<String>> = if name.eq_ignore_ascii_case("all") {
            settings
                .all()
                .into_iter()
                .map(|(name, value)| vec![name, value, String::new()])
                .collect()
        } else {
            vec![vec![settings.show(name)?.1]]
        };
        if describes {
            describe_columns(&mut self.out, &show_columns(name), &[])?;
        }
        for row in rows {
            let message = reply::begin(&mut self.out, b'D');
            bytes::BufMut::put_u16(&mut self.out, row.len() as u16);
            for value in row {
                bytes::BufMut::put_u32(&mut self.out, value.len() as u32);
                self.out.extend_from_slice(value.as_bytes());
            }
            reply::end(&mut self.out, message);
        }
        reply::complete(&mut self.out, "SHOW");
        Ok(())
    }
}

fn show_columns(name: &str) -> Vec<OutputColumn> {
    use arrow::datatypes::{DataType, Field};
    let text = |name: &str| OutputColumn {
        name: name.to_owned(),
        field: Arc::new(Field::new(name, DataType::Utf8, true)),
    };
    if name.eq_ignore_ascii_case("all") {
        vec![text("name"), text("setting"), text("description")]
    } else {
        let known = crate::session::Settings::new(None)
            .show(name)
            .map_or(name.to_owned(), |(known, _)| known.to_owned());
        vec![text(&known)]
    }
}

pub(super) fn no_statement(name: &str) -> Error {
    Error::new(Kind::UndefinedStatement, format!("prepared statement \"{name}\" does not exist"))
}

pub(super) fn no_portal(name: &str) -> Error {
    Error::new(Kind::UndefinedCursor, format!("portal \"{name}\" does not exist"))
}
