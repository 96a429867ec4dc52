//! Where a graph's identifiers come from, and its rules.

use std::collections::BTreeMap;

use clientele_udfs::identity::collect::Collector;
use clientele_udfs::identity::graph::{Rules, TypeRule};
use serde::{Deserialize, Serialize};

use super::statement::RuleChange;
use crate::error::{Error, Kind, Result};
use crate::store::Name;

/// A graph: its source and rules, as they are stored.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Definition {
    /// Schema of the table.
    pub schema: String,
    /// The table.
    pub table: String,
    /// Columns of source, record, type and value; in the wide form of source and record.
    pub columns: Vec<String>,
    /// Columns of identifiers; a graph without them reads the long form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<WideId>,
    /// Column that says when a value was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<String>,
    /// Rules by type of identifier; without any, every type has its default ones.
    pub rules: BTreeMap<String, Rule>,
    /// Most records that one customer may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cluster_records: Option<u32>,
    /// Column by which identifiers are kept apart: a value joins within one brand, say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_scope: Option<String>,
}

/// A column of identifiers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WideId {
    /// The column.
    pub column: String,
    /// The type of what it holds.
    pub id_type: String,
}

/// How one type of identifier joins. What is not said has a default by the type.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rule {
    /// Its tier; 1 is strongest.
    pub priority: Option<u32>,
    /// A value on more records than this joins nobody.
    pub max_records: Option<u32>,
    /// Most values of it that one customer may have.
    #[serde(default)]
    pub max_per_cluster: Option<u32>,
    /// Days without a sighting after which a value has another owner.
    #[serde(default)]
    pub reuse_gap_days: Option<u32>,
}

/// Priority and most records of a type that does not say: documents before contacts before devices, and few for what is
/// shared by families, shops and test devices.
fn defaults(id_type: &str) -> (u32, u32) {
    match id_type {
        "idcard" | "id_card" => (1, 50),
        "unionid" | "union_id" | "openid" | "open_id" => (2, 50),
        "phone" | "mobile" => (3, 10),
        "email" => (4, 10),
        "device" | "device_id" | "imei" | "idfa" | "oaid" => (5, 5),
        _ => (6, 50),
    }
}

impl Definition {
    /// A collector under these rules.
    pub(super) fn collector(&self, key: &[u8; 32]) -> Collector {
        fn undeclared(_: &str) -> Option<TypeRule> {
            None
        }
        fn usual(id_type: &str) -> Option<TypeRule> {
            Some(Definition::default().rule_of(id_type))
        }
        // In the order of names, so that nothing depends on which was met first.
        let declared: Vec<(String, TypeRule)> =
            self.rules.keys().map(|name| (name.clone(), self.rule_of(name))).collect();
        let rule_of = if declared.is_empty() { usual } else { undeclared };
        Collector::new(key, &declared, self.max_cluster_records, rule_of)
    }

    /// The table as a relation's name.
    pub fn relation(&self) -> Name {
        Name::new(self.schema.clone(), self.table.clone())
    }

    /// Changes rules; options that are not named stay.
    pub fn apply(&mut self, change: RuleChange) {
        for (id_type, new) in change.types {
            let rule = self.rules.entry(id_type).or_default();
            rule.priority = new.priority.or(rule.priority);
            rule.max_records = new.max_records.or(rule.max_records);
            rule.max_per_cluster = new.max_per_cluster.or(rule.max_per_cluster);
            rule.reuse_gap_days = new.reuse_gap_days.or(rule.reuse_gap_days);
        }
        for id_type in change.dropped {
            self.rules.remove(&id_type);
        }
        self.max_cluster_records = change.max_cluster_records.unwrap_or(self.max_cluster_records);
        if let Some(scope) = change.link_scope {
            self.link_scope = scope;
        }
    }

    /// Refuses rules that say nothing of the columns, and gaps without times.
    pub fn check(&self) -> Result<()> {
        let bad = |message: String| Err(Error::new(Kind::InvalidParameter, message));
        if !self.rules.is_empty()
            && let Some(id) = self.ids.iter().find(|id| !self.rules.contains_key(&id.id_type))
        {
            return bad(format!(
                "column {} holds identifiers of type {}, for which WITH has no rule",
                id.column, id.id_type
            ));
        }
        let gap = self.rules.iter().find(|(_, rule)| rule.reuse_gap_days.is_some());
        if let (Some((id_type, _)), None) = (gap, &self.seen_at) {
            return bad(format!(
                "{id_type}: reuse_gap_days needs to know when values were seen; name that column last in the list of columns"
            ));
        }
        Ok(())
    }

    /// Whether identifiers of this type join at all.
    pub fn has(&self, id_type: &str) -> bool {
        self.rules.is_empty() || self.rules.contains_key(id_type)
    }

    /// The rule of a type, its defaults filled in.
    pub fn rule_of(&self, id_type: &str) -> TypeRule {
        const DAY_US: i64 = 86_400_000_000;
        let (priority, max_records) = defaults(id_type);
        let rule = self.rules.get(id_type).cloned().unwrap_or_default();
        TypeRule {
            priority: rule.priority.unwrap_or(priority),
            max_records: rule.max_records.unwrap_or(max_records),
            max_per_customer: rule.max_per_cluster,
            reuse_gap_us: rule.reuse_gap_days.map(|days| i64::from(days) * DAY_US),
        }
    }

    /// The rules for types by their numbers.
    pub fn numbered(&self, types: &[String]) -> Rules {
        let types = types.iter().map(|id_type| self.rule_of(id_type)).collect();
        Rules { types, max_cluster_records: self.max_cluster_records }
    }
}
