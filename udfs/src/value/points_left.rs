//! `__points_left(rows, as_of, horizon)`: what a ledger of points comes to, and what of it is about to expire.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Date32Builder, Decimal128Array, Decimal128Builder,
    StructArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Fields, TimeUnit, TimestampMicrosecondType,
};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::lists::list_of;

const POINTS: DataType = DataType::Decimal128(38, 6);

/// What a ledger comes to, as a record: earned, spent, expired, balance, expiring as DECIMAL(38,6), next_expiry DATE. A row is a record of
/// `day` DATE and `at` TIMESTAMP, which says what came first within it, `points` DECIMAL(38,6) (below zero: spent) and `expires` DATE, the last day on which they can be spent; NULL is never.
/// Rows that have neither instant nor points say nothing. Only reports write it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PointsLeft {
    signature: Signature,
}

impl PointsLeft {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        let row = DataType::Struct(row_fields());
        let types = vec![list_of(row), DataType::Date32, DataType::Date32];
        Self { signature: Signature::exact(types, Volatility::Immutable) }
    }
}

impl Default for PointsLeft {
    fn default() -> Self {
        Self::new()
    }
}

fn row_fields() -> Fields {
    Fields::from(vec![
        Field::new("day", DataType::Date32, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("points", POINTS, true),
        Field::new("expires", DataType::Date32, true),
    ])
}

fn fields() -> Fields {
    let points = ["earned", "spent", "expired", "balance", "expiring"];
    let mut fields: Vec<Field> =
        points.iter().map(|name| Field::new(*name, POINTS, true)).collect();
    fields.push(Field::new("next_expiry", DataType::Date32, true));
    fields.into()
}

/// A row of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// In days since 1970.
    day: i32,
    /// What came first within a day.
    at_us: i64,
    points: i128,
    /// Last day of use, in days since 1970.
    expires: Option<i32>,
}

/// What a ledger comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Left {
    earned: i128,
    spent: i128,
    expired: i128,
    balance: i128,
    expiring: i128,
    next_expiry: Option<i32>,
}

/// Points that are spent are those that expire first, of equal days those that were earned first; points of a day can be spent until its
/// end. What is spent beyond what there is, is taken from what is earned next. Of one instant the earned come first.
fn left(mut entries: Vec<Entry>, as_of: i32, horizon: i32) -> Left {
    entries.retain(|entry| entry.day <= as_of);
    entries.sort_by_key(|entry| {
        (entry.day, entry.at_us, entry.points < 0, entry.expires.unwrap_or(i32::MAX))
    });
    let mut all = Left::default();
    // Lots that have something left, those that expire first in front; equal days in the order in which they came.
    let mut lots: Vec<(i32, i128)> = Vec::new();
    let mut debt = 0_i128;
    for entry in &entries {
        let today = entry.day;
        let gone = lots.iter().take_while(|(expires, _)| *expires < today).count();
        all.expired += lots.drain(..gone).map(|(_, points)| points).sum::<i128>();
        if entry.points >= 0 {
            all.earned += entry.points;
            let paid = debt.min(entry.points);
            debt -= paid;
            let expires = entry.expires.unwrap_or(i32::MAX);
            if entry.points > paid {
                let place = lots.partition_point(|(earlier, _)| *earlier <= expires);
                lots.insert(place, (expires, entry.points - paid));
            }
            continue;
        }
        all.spent -= entry.points;
        let mut wanted = -entry.points;
        for (_, points) in &mut lots {
            let taken = wanted.min(*points);
            *points -= taken;
            wanted -= taken;
        }
        lots.retain(|(_, points)| *points > 0);
        debt += wanted;
    }
    let gone = lots.iter().take_while(|(expires, _)| *expires < as_of).count();
    all.expired += lots.drain(..gone).map(|(_, points)| points).sum::<i128>();
    all.balance = lots.iter().map(|(_, points)| points).sum::<i128>() - debt;
    let soon = lots.iter().take_while(|(expires, _)| *expires <= horizon && *expires < i32::MAX);
    all.expiring = soon.map(|(_, points)| points).sum();
    all.next_expiry = lots.first().map(|(expires, _)| *expires).filter(|day| *day < i32::MAX);
    all
}

fn entries_of(rows: &ArrayRef) -> Vec<Entry> {
    let rows = rows.as_struct();
    let days = rows.column(0).as_primitive::<Date32Type>();
    let at = rows.column(1).as_primitive::<TimestampMicrosecondType>();
    let points = rows.column(2).as_primitive::<Decimal128Type>();
    let expires = rows.column(3).as_primitive::<Date32Type>();
    (0..rows.len())
        .filter(|row| days.is_valid(*row) && at.is_valid(*row) && points.is_valid(*row))
        .map(|row| Entry {
            day: days.value(row),
            at_us: at.value(row),
            points: points.value(row),
            expires: expires.is_valid(row).then(|| expires.value(row)),
        })
        .collect()
}

impl ScalarUDFImpl for PointsLeft {
    fn name(&self) -> &str {
        "__points_left"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(fields()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let ledgers = arrays[0].as_list::<i32>();
        let days = [1, 2].map(|at| arrays[at].as_primitive::<Date32Type>());
        let mut sums: Vec<Decimal128Builder> = (0..5).map(|_| Decimal128Builder::new()).collect();
        let mut next = Date32Builder::new();
        for row in 0..ledgers.len() {
            let entries = match ledgers.is_valid(row) {
                true => entries_of(&ledgers.value(row)),
                false => vec![],
            };
            let all = left(entries, days[0].value(row), days[1].value(row));
            let values = [all.earned, all.spent, all.expired, all.balance, all.expiring];
            for (sum, value) in sums.iter_mut().zip(values) {
                sum.append_value(value);
            }
            next.append_option(all.next_expiry);
        }
        let decimal = |mut sum: Decimal128Builder| -> Result<Arc<Decimal128Array>> {
            Ok(Arc::new(sum.finish().with_precision_and_scale(38, 6)?))
        };
        let mut columns: Vec<ArrayRef> = Vec::new();
        for sum in sums {
            columns.push(decimal(sum)?);
        }
        let next: Arc<Date32Array> = Arc::new(next.finish());
        columns.push(next);
        Ok(ColumnarValue::Array(Arc::new(StructArray::try_new(fields(), columns, None)?)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(day: i32, points: i128, expires: Option<i32>) -> Entry {
        Entry { day, at_us: 0, points, expires }
    }

    #[test]
    fn what_expires_first_is_spent_first() {
        let ledger = vec![
            entry(1, 100, None),
            entry(2, 50, Some(10)),
            entry(3, 30, Some(5)),
            entry(4, -40, None),
            entry(20, -5, None),
        ];
        // 30 that expire on day 5 and 10 of those of day 10 are spent; 40 are gone after day 10, and 5 of the others are spent.
        let at = |as_of, horizon| left(ledger.clone(), as_of, horizon);
        assert_eq!(
            at(9, 10),
            Left {
                earned: 180,
                spent: 40,
                expired: 0,
                balance: 140,
                expiring: 40,
                next_expiry: Some(10)
            }
        );
        assert_eq!(at(10, 10).expiring, 40);
        let end = at(30, 60);
        assert_eq!((end.expired, end.balance, end.expiring, end.next_expiry), (40, 95, 0, None));
        // A debt is paid by what comes next.
        let owed = vec![entry(1, -20, None), entry(2, 50, Some(9))];
        assert_eq!((left(owed.clone(), 1, 9).balance, left(owed, 2, 9).balance), (-20, 30));
    }

    /// Point by point, day by day.
    fn slow(entries: &[Entry], as_of: i32, horizon: i32) -> Left {
        let mut all = Left::default();
        let mut lots: Vec<(i32, usize)> = Vec::new();
        let mut debt = 0_i128;
        for today in 0..=as_of {
            let before = lots.len();
            lots.retain(|(expires, _)| *expires >= today);
            all.expired += (before - lots.len()) as i128;
            let mut of_day: Vec<(usize, &Entry)> =
                { entries.iter().enumerate() }.filter(|(_, entry)| entry.day == today).collect();
            of_day.sort_by_key(|(_, e)| (e.at_us, e.points < 0, e.expires.unwrap_or(i32::MAX)));
            for (_, entry) in of_day {
                for _ in 0..entry.points.max(0) {
                    all.earned += 1;
                    if debt > 0 {
                        debt -= 1;
                    } else {
                        lots.push((entry.expires.unwrap_or(i32::MAX), lots.len()));
                    }
                }
                // What was no longer good when it came is gone by the next look.
                for _ in 0..(-entry.points).max(0) {
                    all.spent += 1;
                    match lots.iter().enumerate().min_by_key(|(_, (expires, _))| *expires) {
                        Some((place, _)) => {
                            lots.remove(place);
                        }
                        None => debt += 1,
                    }
                }
            }
        }
        let before = lots.len();
        lots.retain(|(expires, _)| *expires >= as_of);
        all.expired += (before - lots.len()) as i128;
        all.balance = lots.len() as i128 - debt;
        let days = || lots.iter().map(|(expires, _)| *expires).filter(|day| *day < i32::MAX);
        all.expiring = days().filter(|day| *day <= horizon).count() as i128;
        all.next_expiry = days().min();
        all
    }

    proptest! {
        #[test]
        fn it_is_what_counting_points_one_by_one_gives(
            rows in prop::collection::vec((0i32..30, -9i128..10, prop::option::of(0i32..12)), 0..40),
            as_of in 0i32..35,
            within in 0i32..10,
        ) {
            let entries: Vec<Entry> = { rows.iter() }
                // Points are good for a day at least.
                .map(|(day, points, good)| entry(*day, *points, good.map(|days| day + days)))
                .collect();
            prop_assert_eq!(left(entries.clone(), as_of, as_of + within), slow(&entries, as_of, as_of + within));
        }
    }
}
