//! Whose rules a funnel follows: ours, or those of the engine that a query was written for.

use arrow::datatypes::DataType;
use datafusion::error::Result;

use super::call::units_of;
use super::modes::Modes;
use crate::BadArgument;

/// An engine whose funnels can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// The best chain, whatever the mode: what the other engines approximate.
    #[default]
    Exact,
    /// ClickHouse.
    ClickHouse,
    /// StarRocks.
    StarRocks,
    /// Apache Doris from 4.1 on, whose `window_funnel` is `window_funnel_v2`.
    Doris,
    /// Databend.
    Databend,
}

/// Every dialect, by the name that it is asked for by.
const ALL: [(&str, Dialect); 5] = [
    ("exact", Dialect::Exact),
    ("clickhouse", Dialect::ClickHouse),
    ("starrocks", Dialect::StarRocks),
    ("doris", Dialect::Doris),
    ("databend", Dialect::Databend),
];

impl Dialect {
    /// Names of all dialects.
    pub const NAMES: [&str; ALL.len()] = {
        let mut names = [""; ALL.len()];
        let mut at = 0;
        while at < ALL.len() {
            names[at] = ALL[at].0;
            at += 1;
        }
        names
    };

    /// The dialect of this name, in any case.
    pub fn of(name: &str) -> Option<Self> {
        ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, dialect)| *dialect)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(_, dialect)| *dialect == self).map_or("", |(name, _)| *name)
    }

    /// As [`Self::of`], for an argument of `function`.
    pub(crate) fn named(function: &'static str, name: &str) -> Result<Self> {
        Self::of(name).ok_or_else(|| {
            let known = Self::NAMES.join(", ");
            BadArgument::err(function, "dialect", format!("{name:?} is none; known are {known}"))
        })
    }

    /// Whether a row on which a condition is NULL is not seen at all; elsewhere NULL is false. A group all of whose rows were
    /// not seen has no answer there.
    pub(crate) fn drops_unknown(self) -> bool {
        matches!(self, Self::ClickHouse | Self::Doris | Self::Databend)
    }

    /// Whether times are whole seconds.
    pub(crate) fn counts_seconds(self) -> bool {
        self == Self::StarRocks
    }

    /// Whether a row that satisfies several conditions is another thing than as many rows.
    pub(crate) fn tells_rows_apart(self) -> bool {
        self == Self::Doris
    }

    /// A window that is a bare number, in the unit of the time column; `None` past the largest.
    pub(crate) fn window_of_number(self, number: i64, time_type: &DataType) -> Option<i64> {
        match (self, time_type) {
            (Self::Databend, _) => Some(number),
            // A date is midnight there, and the window seconds.
            (Self::Doris, DataType::Date32) => Some(number.div_euclid(86_400)),
            _ => number.checked_mul(units_of(time_type)),
        }
    }

    /// What a bare number means as a window on a column of such a type, where nobody would know it from the number: a number of
    /// dates is days.
    pub(crate) fn silent_unit_of(self, time_type: &DataType) -> Option<&'static str> {
        match (self, time_type) {
            (Self::Databend, DataType::Timestamp(..)) => Some("microseconds"),
            (Self::Doris, DataType::Date32) | (_, DataType::Timestamp(..)) => Some("seconds"),
            _ => None,
        }
    }

    /// The modes that the engine has; `None` for all.
    pub(crate) fn modes(self) -> Option<Modes> {
        let of =
            |modes: &[Modes]| Some(modes.iter().fold(Modes::default(), |all, mode| all.and(*mode)));
        match self {
            Self::Exact => None,
            Self::ClickHouse => of(&[
                Modes::DEDUPLICATION,
                Modes::ORDER,
                Modes::INCREASE,
                Modes::ONCE,
                Modes::REENTRY,
            ]),
            Self::StarRocks | Self::Doris => {
                of(&[Modes::DEDUPLICATION, Modes::FIXED, Modes::INCREASE])
            }
            Self::Databend => of(&[]),
        }
    }

    /// Refuses modes that the engine has not; the error says which it has.
    pub(crate) fn check_modes(self, function: &'static str, modes: Modes) -> Result<()> {
        let Some(has) = self.modes() else { return Ok(()) };
        let is_single = matches!(self, Self::Doris | Self::Databend);
        let bad = |problem: String| Err(BadArgument::err(function, "mode", problem));
        if !modes.are_of(has) || is_single && modes.len() > 1 {
            let one = if is_single { "one of " } else { "" };
            return bad(format!(
                "{modes} is not of {}; {one}default{} is",
                self.name(),
                has.listed().iter().map(|name| format!(", {name}")).collect::<String>()
            ));
        }
        if self == Self::ClickHouse && modes.has(Modes::REENTRY) && !modes.has(Modes::ORDER) {
            return bad("allow_reentry needs strict_order with it in clickhouse".to_owned());
        }
        Ok(())
    }
}
