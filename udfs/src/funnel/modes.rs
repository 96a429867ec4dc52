//! The modes of a funnel: what a chain of steps may not have in it.

/// A set of modes; empty is `default`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Modes(u8);

/// Every mode: its name, its other names, and the bit of the number that stands for a set of modes, if it has one.
const ALL: [(Modes, &[&str], Option<i64>); 6] = [
    (Modes::DEDUPLICATION, &["strict_deduplication", "deduplication"], Some(1)),
    (Modes::FIXED, &["fixed"], Some(2)),
    (Modes::INCREASE, &["strict_increase", "increase"], Some(4)),
    (Modes::ORDER, &["strict_order"], None),
    (Modes::ONCE, &["strict_once"], None),
    (Modes::REENTRY, &["allow_reentry"], None),
];

impl Modes {
    /// A repeated step ends the chain; a repeated first step only begins another one.
    pub(crate) const DEDUPLICATION: Self = Self(1);
    /// A step that comes too early ends the chain.
    pub(crate) const FIXED: Self = Self(2);
    /// Each step is later than the one before it.
    pub(crate) const INCREASE: Self = Self(4);
    /// As [`Self::FIXED`], and a row that satisfies no condition ends the chain, too.
    pub(crate) const ORDER: Self = Self(8);
    /// A row is one step at most.
    pub(crate) const ONCE: Self = Self(16);
    /// A step that comes too early ends nothing.
    pub(crate) const REENTRY: Self = Self(32);

    pub(crate) fn has(self, mode: Self) -> bool {
        self.0 & mode.0 != 0
    }

    /// Whether rows that are no step of a chain can end it.
    pub(crate) fn interrupt(self) -> bool {
        self.has(Self(Self::DEDUPLICATION.0 | Self::FIXED.0 | Self::ORDER.0))
    }

    /// Whether only the times of steps matter: no row ends a chain, and none is in the way of another.
    pub(crate) fn are_plain(self) -> bool {
        // A row of one instant cannot be two steps that lie apart.
        !self.interrupt() && (self.has(Self::INCREASE) || !self.has(Self::ONCE))
    }

    /// Whether a row ends a chain that has come to `level` and cannot take it; `steps` are those whose conditions it satisfies, in
    /// order, or 0, and a step after `furthest` comes too early.
    pub(crate) fn ends(self, steps: &[u32], level: u32, furthest: u32) -> bool {
        let repeats = || steps.iter().any(|step| (2..=level).contains(step));
        self.has(Self::DEDUPLICATION) && repeats()
            || self.has(Self::ORDER) && steps[0] == 0
            || self.has(Self::ORDER.and(Self::FIXED))
                && !self.has(Self::REENTRY)
                && steps[0] > furthest
    }

    /// These and those.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether each of these is one of `those`.
    pub(crate) fn are_of(self, those: Self) -> bool {
        self.0 & !those.0 == 0
    }

    /// How many there are.
    pub(crate) fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The names of these.
    pub(crate) fn listed(self) -> Vec<&'static str> {
        ALL.iter().filter(|(mode, ..)| self.has(*mode)).map(|(_, names, _)| names[0]).collect()
    }

    /// Modes by name, with commas between; the error is the name that is none.
    pub(crate) fn of_names(names: &str) -> Result<Self, &str> {
        let mut modes = Self::default();
        for name in names.split(',').map(str::trim).filter(|name| !matches!(*name, "" | "default"))
        {
            let (mode, ..) = { ALL.iter() }
                .find(|(_, known, _)| known.iter().any(|known| known.eq_ignore_ascii_case(name)))
                .ok_or(name)?;
            modes = modes.and(*mode);
        }
        Ok(modes)
    }

    /// Modes by number: 1 is deduplication, 2 fixed, 4 increase, and sums of these; `None` for others.
    pub(crate) fn of_number(number: i64) -> Option<Self> {
        let (mut modes, mut rest) = (Self::default(), number);
        for (mode, _, bit) in ALL {
            if let Some(bit) = bit.filter(|bit| rest & bit != 0) {
                modes = modes.and(mode);
                rest &= !bit;
            }
        }
        (rest == 0).then_some(modes)
    }

    /// Their names, for an error.
    pub(crate) fn names() -> String {
        let with_others = ALL.map(|(_, names, _)| match names {
            [name, other] => format!("{name} (or {other})"),
            _ => names[0].to_owned(),
        });
        format!("default, {}", with_others.join(", "))
    }
}

impl std::fmt::Display for Modes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.listed().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_named_and_numbered() {
        let both = Modes::DEDUPLICATION.and(Modes::INCREASE);
        assert_eq!(Modes::of_names("default"), Ok(Modes::default()));
        assert_eq!(Modes::of_names("Strict_Increase, deduplication"), Ok(both));
        assert_eq!(Modes::of_names("fixed,sideways"), Err("sideways"));
        assert_eq!(
            (Modes::of_number(5), Modes::of_number(0)),
            (Some(both), Some(Modes::default()))
        );
        // StarRocks issue 5956: such a number crashed the server.
        assert_eq!((Modes::of_number(99_999_999_999_999_999), Modes::of_number(-1)), (None, None));
        assert_eq!(
            Modes::names(),
            "default, strict_deduplication (or deduplication), fixed, strict_increase (or increase), strict_order, strict_once, allow_reentry"
        );
    }
}
