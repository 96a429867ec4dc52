//! What a session can SET, and what each setting accepts.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::NaiveDate;
use clientele_udfs::funnel::dialect::Dialect;

use crate::error::{Error, Kind, Result, nearest};

/// PostgreSQL version that clients are told; their queries of the catalogue follow from it.
pub(super) const SERVER_VERSION: &str = "15.18";

/// How a setting is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Any text: accepted, kept and shown, because clients send it and nothing depends on it.
    Kept,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// An IANA time zone.
    Zone,
    /// A date, or empty for unset.
    Date,
    /// A duration in milliseconds, or with a unit.
    Timeout,
    /// Cannot be changed.
    ReadOnly,
}

const BOOLEAN: Check = Check::OneOf(&["on", "off", "true", "false", "yes", "no", "1", "0"]);

/// Every setting: name as SHOW spells it, default, check.
const KNOWN: [(&str, &str, Check); 42] = [
    ("application_name", "", Check::Kept),
    ("as_of", "", Check::Date),
    ("bytea_output", "hex", Check::OneOf(&["hex"])),
    ("client_encoding", "UTF8", Check::OneOf(&["utf8", "utf-8", "unicode", "'utf-8'"])),
    ("client_min_messages", "notice", Check::Kept),
    ("DateStyle", "ISO, MDY", Check::Kept),
    ("default_table_access_method", "heap", Check::ReadOnly),
    ("default_tablespace", "", Check::ReadOnly),
    ("default_transaction_isolation", "read committed", Check::Kept),
    ("default_transaction_read_only", "off", BOOLEAN),
    ("enable_nestloop", "on", BOOLEAN),
    ("enable_seqscan", "on", BOOLEAN),
    ("extra_float_digits", "1", Check::Kept),
    ("funnel_dialect", "exact", Check::OneOf(&Dialect::NAMES)),
    ("geqo", "on", BOOLEAN),
    ("idle_in_transaction_session_timeout", "0", Check::Kept),
    ("in_hot_standby", "off", Check::ReadOnly),
    ("integer_datetimes", "on", Check::ReadOnly),
    ("IntervalStyle", "postgres", Check::OneOf(&["postgres"])),
    ("is_superuser", "on", Check::ReadOnly),
    ("jit", "off", BOOLEAN),
    ("lc_collate", "C.UTF-8", Check::ReadOnly),
    ("lc_messages", "C.UTF-8", Check::Kept),
    ("lc_monetary", "C.UTF-8", Check::Kept),
    ("lock_timeout", "0", Check::Timeout),
    ("max_identifier_length", "63", Check::ReadOnly),
    ("max_index_keys", "32", Check::ReadOnly),
    ("password_encryption", "scram-sha-256", Check::OneOf(&["scram-sha-256"])),
    ("report_from", "", Check::Date),
    ("row_security", "on", BOOLEAN),
    ("search_path", "\"$user\", public", Check::Kept),
    ("server_encoding", "UTF8", Check::ReadOnly),
    ("server_version", SERVER_VERSION, Check::ReadOnly),
    ("server_version_num", "150018", Check::ReadOnly),
    ("session_authorization", "", Check::ReadOnly),
    ("standard_conforming_strings", "on", Check::OneOf(&["on", "true", "yes", "1"])),
    ("statement_timeout", "0", Check::Timeout),
    ("TimeZone", "UTC", Check::Zone),
    ("transaction_isolation", "read committed", Check::Kept),
    ("transaction_read_only", "off", BOOLEAN),
    ("work_mem", "4MB", Check::Kept),
    ("xmloption", "content", Check::Kept),
];

/// Settings that a client is told of when they change.
pub const REPORTED: [&str; 8] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "is_superuser",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// A session's settings; what is not set has its default.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    changed: BTreeMap<&'static str, String>,
    defaults: BTreeMap<&'static str, String>,
}

impl Settings {
    /// Defaults, with the configured statement timeout.
    pub fn new(statement_timeout: Option<Duration>) -> Self {
        let mut defaults = BTreeMap::new();
        if let Some(timeout) = statement_timeout {
            defaults.insert("statement_timeout", format_timeout(timeout));
        }
        Self { changed: BTreeMap::new(), defaults }
    }

    /// Value of `name`, which may be written in any case.
    pub fn show(&self, name: &str) -> Result<(&'static str, String)> {
        let (known, default, _) = find(name)?;
        let value = self.changed.get(known).or_else(|| self.defaults.get(known));
        if value.is_none() && known == "transaction_read_only" {
            return Ok((known, self.value("default_transaction_read_only")));
        }
        Ok((known, value.cloned().unwrap_or_else(|| default.to_owned())))
    }

    /// Sets `name`; `None` is `DEFAULT`.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<&'static str> {
        let (known, _, check) = find(name)?;
        match value {
            None => {
                self.changed.remove(known);
            }
            Some(value) => {
                let value = accept(known, check, value)?;
                self.changed.insert(known, value);
            }
        }
        Ok(known)
    }

    /// What `name` was set to, if it was.
    pub fn changed(&self, name: &str) -> Result<Option<String>> {
        let (known, ..) = find(name)?;
        Ok(self.changed.get(known).cloned())
    }

    /// Makes the present values the ones that RESET returns to: what a client gave when it connected.
    pub fn keep_as_defaults(&mut self) {
        self.defaults.append(&mut self.changed);
    }

    /// Fixes who the session belongs to.
    pub fn set_user(&mut self, user: &str) {
        self.defaults.insert("session_authorization", user.to_owned());
    }

    /// Everything back to its default.
    pub fn reset_all(&mut self) {
        // What a transaction is stays what it is.
        self.changed.retain(|name, _| *name == "transaction_read_only");
    }

    /// Every setting and its value.
    pub fn all(&self) -> Vec<(String, String)> {
        KNOWN
            .iter()
            .filter_map(|(name, _, _)| self.show(name).ok())
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    fn value(&self, name: &str) -> String {
        self.show(name).map(|(_, value)| value).unwrap_or_default()
    }

    /// The day that `report_asof()` answers outside of a report's run.
    pub fn as_of(&self) -> Option<NaiveDate> {
        self.value("as_of").parse().ok()
    }

    /// First day of the period that a report computes; outside of a run the day it speaks for.
    pub fn report_from(&self) -> Option<NaiveDate> {
        self.value("report_from").parse().ok().or(self.as_of())
    }

    /// Whether the client wants no notices.
    pub fn is_quiet(&self) -> bool {
        let least = self.value("client_min_messages").to_lowercase();
        ["warning", "error", "fatal", "panic"].contains(&least.as_str())
    }

    /// Whether what others read must not be changed now.
    pub fn reads_only(&self) -> bool {
        is_on(&self.value("transaction_read_only"))
    }

    /// Whose rules funnels and their kin follow.
    pub fn funnel_dialect(&self) -> String {
        self.value("funnel_dialect")
    }

    /// The IANA zone.
    pub fn timezone(&self) -> String {
        self.value("TimeZone")
    }

    /// How long a statement may run; `None` is for ever.
    pub fn statement_timeout(&self) -> Option<Duration> {
        parse_timeout(&self.value("statement_timeout")).filter(|t| !t.is_zero())
    }
}

/// Whether a value says yes.
pub fn is_on(value: &str) -> bool {
    ["on", "true", "yes", "1"].contains(&value.to_lowercase().as_str())
}

fn find(name: &str) -> Result<(&'static str, &'static str, Check)> {
    let name = match name.to_lowercase().as_str() {
        "names" => "client_encoding".to_owned(),
        "time zone" => "timezone".to_owned(),
        "transaction isolation level" => "transaction_isolation".to_owned(),
        other => other.to_owned(),
    };
    let known = KNOWN.iter().find(|(known, _, _)| known.eq_ignore_ascii_case(&name));
    known.copied().ok_or_else(|| {
        let error = Error::new(
            Kind::UndefinedObject,
            format!("unrecognized configuration parameter \"{name}\""),
        );
        let names: Vec<String> = KNOWN.iter().map(|(name, _, _)| (*name).to_owned()).collect();
        match nearest(&name, &names) {
            Some(near) => error.hint(format!("perhaps you mean {near}")),
            None => error.hint("SHOW ALL lists what can be set"),
        }
    })
}

fn accept(name: &'static str, check: Check, value: &str) -> Result<String> {
    let bad = |allowed: String| {
        Err(Error::new(
            Kind::InvalidParameter,
            format!("invalid value for parameter \"{name}\": \"{value}\""),
        )
        .detail(allowed))
    };
    match check {
        Check::Kept => Ok(value.to_owned()),
        Check::OneOf(words) => {
            if words.iter().any(|w| w.eq_ignore_ascii_case(value)) {
                Ok(if name == "client_encoding" { "UTF8".to_owned() } else { value.to_lowercase() })
            } else {
                bad(format!("allowed: {}", words.join(", ")))
            }
        }
        Check::Zone => match zone(value) {
            Some(zone) => Ok(zone),
            None => bad("an IANA time zone such as 'Asia/Shanghai' or 'UTC' is needed".to_owned()),
        },
        Check::Date => {
            if value.is_empty() || value.parse::<NaiveDate>().is_ok() {
                Ok(value.to_owned())
            } else {
                bad("a date such as '2011-12-09' is needed, or '' for none".to_owned())
            }
        }
        Check::Timeout => match parse_timeout(value) {
            Some(timeout) => Ok(format_timeout(timeout)),
            None => bad("milliseconds, or a number with ms, s, min or h is needed; 0 is no limit"
                .to_owned()),
        },
        Check::ReadOnly => Err(Error::new(
            Kind::InvalidParameter,
            format!("parameter \"{name}\" cannot be changed"),
        )),
    }
}

/// The canonical spelling of a zone: IANA names in any case, and the ways to say UTC.
fn zone(value: &str) -> Option<String> {
    if ["utc", "gmt", "z", "local", "default", "etc/utc", "+00:00", "0"]
        .contains(&value.to_lowercase().as_str())
    {
        return Some("UTC".to_owned());
    }
    chrono_tz::TZ_VARIANTS
        .iter()
        .map(|tz| tz.name())
        .find(|name| name.eq_ignore_ascii_case(value))
        .map(str::to_owned)
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let ms_per_unit = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(ms_per_unit)?))
}

fn format_timeout(timeout: Duration) -> String {
    match timeout.as_millis() {
        0 => "0".to_owned(),
        ms if ms % 60_000 == 0 => format!("{}min", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case_and_misspellings_are_helped() {
        let mut settings = Settings::new(None);
        assert_eq!(settings.set("timezone", Some("asia/shanghai")).unwrap(), "TimeZone");
        assert_eq!(settings.timezone(), "Asia/Shanghai");
        let error = settings.set("statment_timeout", Some("1")).unwrap_err();
        assert_eq!(
            (error.sqlstate(), error.hint_text()),
            ("42704", Some("perhaps you mean statement_timeout"))
        );
        assert_eq!(settings.set("TimeZone", Some("Mars/Olympus")).unwrap_err().sqlstate(), "22023");
    }

    #[test]
    fn reset_returns_to_what_the_client_connected_with() {
        let mut settings = Settings::new(Some(Duration::from_secs(90)));
        settings.set("TimeZone", Some("Europe/Berlin")).unwrap();
        settings.keep_as_defaults();
        settings.set("TimeZone", Some("UTC")).unwrap();
        settings.set("statement_timeout", Some("2min")).unwrap();
        settings.reset_all();
        assert_eq!(settings.timezone(), "Europe/Berlin");
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(90)));
    }

    #[test]
    fn timeouts_take_units() {
        assert_eq!(parse_timeout("250"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout("3 min"), Some(Duration::from_secs(180)));
        assert_eq!(parse_timeout("soon"), None);
    }
}
