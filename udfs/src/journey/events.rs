//! The grouped state of the functions over a customer's named events.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Builder, Int8Builder, Int64Builder,
    ListBuilder, StringBuilder, UInt32Builder,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Int8Type, Int64Type, UInt32Type,
};
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use crate::funnel::{call::true_rows, state::times_of};
use crate::lists::list_of;
use crate::names::{NO_NAME, Names};
use crate::one_group::rows_as_states;

/// Precision and scale of money.
pub(crate) const MONEY: (u8, i8) = (38, 6);

/// A customer's event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    /// When, in microseconds.
    pub(crate) at: i64,
    /// Number of its name, or [`NO_NAME`].
    pub(crate) name: u32,
    /// Place of its deal among those of the customer, or [`NO_DEAL`].
    deal: u32,
}

const NO_DEAL: u32 = u32::MAX;

impl Event {
    /// An event without a deal.
    pub(crate) fn of(at: i64, name: u32) -> Self {
        Self { at, name, deal: NO_DEAL }
    }
}

/// An event that is worth something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deal {
    pub(crate) kind: i8,
    /// What it belongs to, as an order.
    pub(crate) key: Option<Box<str>>,
    /// In millionths.
    pub(crate) value: i128,
}

/// Events of one customer.
#[derive(Debug, Default)]
pub(crate) struct Customer {
    events: Vec<Event>,
    deals: Vec<Deal>,
}

impl Customer {
    /// Puts the events in order of time, then of names, then of deals.
    pub(crate) fn sort(&mut self, names: &Names) {
        let Self { events, deals } = self;
        let deal = |event: &Event| deals.get(event.deal as usize);
        let in_order = |a: &Event, b: &Event| {
            a.at.cmp(&b.at)
                .then_with(|| match a.name == b.name {
                    true => std::cmp::Ordering::Equal,
                    false => names.text(a.name).cmp(&names.text(b.name)),
                })
                .then_with(|| deal(a).cmp(&deal(b)))
        };
        if !events.is_sorted_by(|a, b| in_order(a, b).is_le()) {
            events.sort_unstable_by(in_order);
        }
    }

    pub(crate) fn events(&self) -> &[Event] {
        &self.events
    }

    /// Events that are worth something, in order.
    pub(crate) fn deals(&self) -> impl Iterator<Item = (i64, &Deal)> {
        self.events.iter().filter_map(|e| Some((e.at, self.deals.get(e.deal as usize)?)))
    }

    fn bytes(&self) -> usize {
        self.events.capacity() * size_of::<Event>() + self.deals.capacity() * size_of::<Deal>()
    }
}

/// What one of the functions makes of each customer.
pub(crate) trait Tale: Debug + Send + Sync {
    /// Place of the time among the arguments; the name follows, then kind, key and value where there are deals.
    fn time(&self) -> usize;

    /// Whether events are worth something.
    fn has_deals(&self) -> bool;

    /// The answers for customers, whose events are sorted.
    fn answer(&self, customers: &[Customer], names: &mut Names) -> Result<ArrayRef>;
}

/// State columns: the events of the group as parallel lists.
pub(crate) fn state_fields(name: &str, has_deals: bool) -> Vec<FieldRef> {
    let field = |of: &str, item: DataType| {
        Arc::new(Field::new(format!("{name}[{of}]"), list_of(item), true))
    };
    let mut fields = vec![field("at", DataType::Int64), field("name", DataType::Utf8)];
    if has_deals {
        fields.push(field("deal", DataType::UInt32));
        fields.push(field("kind", DataType::Int8));
        fields.push(field("key", DataType::Utf8));
        fields.push(field("value", DataType::Decimal128(MONEY.0, MONEY.1)));
    }
    fields
}

/// Every group's events, unsorted until evaluated; group `g` is `customers[g]`.
pub(crate) struct Events {
    tale: Arc<dyn Tale>,
    customers: Vec<Customer>,
    names: Names,
    bytes: usize,
}

impl Events {
    pub(crate) fn new(tale: Arc<dyn Tale>) -> Self {
        Self { tale, customers: Vec::new(), names: Names::default(), bytes: 0 }
    }

    fn push(&mut self, group: usize, at: i64, name: u32, deal: Option<Deal>) {
        let customer = &mut self.customers[group];
        let before = customer.bytes();
        let place = match deal {
            Some(deal) => {
                self.bytes += deal.key.as_ref().map_or(0, |key| key.len());
                customer.deals.push(deal);
                (customer.deals.len() - 1) as u32
            }
            None => NO_DEAL,
        };
        customer.events.push(Event { at, name, deal: place });
        self.bytes += customer.bytes() - before;
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Customer> {
        let taken = emit_to.take_needed(&mut self.customers);
        let keys =
            |c: &Customer| c.deals.iter().flat_map(|d| &d.key).map(|k| k.len()).sum::<usize>();
        self.bytes -= taken.iter().map(|c| c.bytes() + keys(c)).sum::<usize>();
        taken
    }
}

impl GroupsAccumulator for Events {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.customers.resize_with(total_num_groups, Customer::default);
        let values = &values[self.tale.time()..];
        let times = times_of(&values[0])?;
        let texts = values[1].as_string_view();
        let deals = self.tale.has_deals().then(|| {
            (
                values[2].as_primitive::<Int8Type>(),
                values[3].as_string_view(),
                values[4].as_primitive::<Decimal128Type>(),
            )
        });
        let kept = opt_filter.map(true_rows);
        for (row, &group) in group_indices.iter().enumerate() {
            if times.is_null(row) || kept.as_ref().is_some_and(|kept| !kept.value(row)) {
                continue;
            }
            let deal = deals.and_then(|(kinds, keys, values)| {
                let kind = if kinds.is_null(row) { 0 } else { kinds.value(row) };
                (kind != 0).then(|| Deal {
                    kind,
                    key: keys.is_valid(row).then(|| keys.value(row).into()),
                    value: if values.is_null(row) { 0 } else { values.value(row) },
                })
            });
            let name = self.names.number_at(texts, row);
            if name != NO_NAME || deal.is_some() {
                self.push(group, times.value(row), name, deal);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let mut customers = self.take(emit_to);
        customers.iter_mut().for_each(|customer| customer.sort(&self.names));
        self.tale.answer(&customers, &mut self.names)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let mut at = ListBuilder::new(Int64Builder::new());
        let [mut name, mut key] = [0, 1].map(|_| ListBuilder::new(StringBuilder::new()));
        let mut place = ListBuilder::new(UInt32Builder::new());
        let mut kind = ListBuilder::new(Int8Builder::new());
        let money = Decimal128Builder::new().with_precision_and_scale(MONEY.0, MONEY.1)?;
        let mut value = ListBuilder::new(money);
        for customer in self.take(emit_to) {
            for event in &customer.events {
                at.values().append_value(event.at);
                name.values().append_option(self.names.text(event.name));
                place.values().append_value(event.deal);
            }
            for deal in &customer.deals {
                kind.values().append_value(deal.kind);
                key.values().append_option(deal.key.as_deref());
                value.values().append_value(deal.value);
            }
            at.append(true);
            name.append(true);
            place.append(true);
            kind.append(true);
            key.append(true);
            value.append(true);
        }
        let mut columns: Vec<ArrayRef> = vec![Arc::new(at.finish()), Arc::new(name.finish())];
        if self.tale.has_deals() {
            columns.push(Arc::new(place.finish()));
            columns.push(Arc::new(kind.finish()));
            columns.push(Arc::new(key.finish()));
            columns.push(Arc::new(value.finish()));
        }
        Ok(columns)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.customers.resize_with(total_num_groups, Customer::default);
        let [at, names, deals @ ..] = values else { return Ok(()) };
        for (state, &group) in group_indices.iter().enumerate() {
            let at = at.as_list::<i32>().value(state);
            let names = names.as_list::<i32>().value(state);
            let (at, names) = (at.as_primitive::<Int64Type>(), names.as_string::<i32>());
            let deals = deals_of(deals, state);
            for row in 0..at.len() {
                let name =
                    if names.is_null(row) { NO_NAME } else { self.names.number(names.value(row)) };
                self.push(group, at.value(row), name, deals.get(row).cloned().flatten());
            }
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        rows_as_states(Self::new(Arc::clone(&self.tale)), values, opt_filter)
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.customers.capacity() * size_of::<Customer>()
            + self.bytes
            + self.names.bytes()
    }
}

/// The deal of each event of a state; empty where there are none.
fn deals_of(columns: &[ArrayRef], state: usize) -> Vec<Option<Deal>> {
    let [places, kinds, keys, values] = columns else { return Vec::new() };
    let list = |column: &ArrayRef| column.as_list::<i32>().value(state);
    let (places, kinds, keys, values) = (list(places), list(kinds), list(keys), list(values));
    let (kinds, keys, values) = (
        kinds.as_primitive::<Int8Type>(),
        keys.as_string::<i32>(),
        values.as_primitive::<Decimal128Type>(),
    );
    let deal = |&place: &u32| {
        let at = place as usize;
        (place != NO_DEAL).then(|| Deal {
            kind: kinds.value(at),
            key: keys.is_valid(at).then(|| keys.value(at).into()),
            value: values.value(at),
        })
    };
    places.as_primitive::<UInt32Type>().values().iter().map(deal).collect()
}
