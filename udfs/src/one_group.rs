//! An [`Accumulator`] made from any [`GroupsAccumulator`], so that each aggregate is written once.

use std::fmt;
use std::sync::Mutex;

use arrow::array::{ArrayRef, BooleanArray};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

/// Runs a grouped state with a single group.
pub(crate) struct OneGroup {
    // `Accumulator` asks for Sync, `GroupsAccumulator` does not promise it; every method has `&mut self`.
    grouped: Mutex<Box<dyn GroupsAccumulator>>,
    zeros: Vec<usize>,
    /// What the last answer was made of, to be taken back before anything else comes: a window is asked after every row.
    answered: Option<Vec<ArrayRef>>,
}

impl OneGroup {
    /// An ungrouped accumulator over `grouped`, with its single group present from the start.
    pub(crate) fn new(grouped: Box<dyn GroupsAccumulator>) -> Self {
        Self { grouped: Mutex::new(grouped), zeros: Vec::new(), answered: None }
    }

    fn zeros(&mut self, len: usize) -> Vec<usize> {
        let mut zeros = std::mem::take(&mut self.zeros);
        zeros.clear();
        zeros.resize(len, 0);
        zeros
    }

    fn state_mut(&mut self) -> &mut Box<dyn GroupsAccumulator> {
        self.grouped.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Everything that has come. A group that never saw a row must exist before it can be emitted.
    fn whole(&mut self) -> Result<&mut Box<dyn GroupsAccumulator>> {
        let answered = self.answered.take().unwrap_or_default();
        let zeros = vec![0; answered.first().map_or(0, |state| state.len())];
        let state = self.state_mut();
        state.merge_batch(&answered, &zeros, 1)?;
        Ok(state)
    }
}

impl fmt::Debug for OneGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneGroup")
    }
}

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let zeros = self.zeros(values.first().map_or(0, |v| v.len()));
        self.whole()?.update_batch(values, &zeros, None, 1)?;
        self.zeros = zeros;
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // An answer uses the state up.
        let state = self.whole()?.state(EmitTo::All)?;
        self.answered = Some(state.clone());
        let array = self.whole()?.evaluate(EmitTo::All)?;
        self.answered = Some(state);
        ScalarValue::try_from_array(&array, 0)
    }

    fn size(&self) -> usize {
        let grouped = self.grouped.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let answered: usize =
            self.answered.iter().flatten().map(|state| state.get_array_memory_size()).sum();
        size_of_val(self) + grouped.size() + answered + self.zeros.capacity() * size_of::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let arrays = self.whole()?.state(EmitTo::All)?;
        arrays.iter().map(|array| ScalarValue::try_from_array(array, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let zeros = self.zeros(states.first().map_or(0, |s| s.len()));
        self.whole()?.merge_batch(states, &zeros, 1)?;
        self.zeros = zeros;
        Ok(())
    }
}

/// The states of groups of one row each, by the empty state `single`.
pub(crate) fn rows_as_states(
    mut single: impl GroupsAccumulator,
    values: &[ArrayRef],
    filter: Option<&BooleanArray>,
) -> Result<Vec<ArrayRef>> {
    let rows = values.first().map_or(0, |values| values.len());
    let own_group: Vec<usize> = (0..rows).collect();
    single.update_batch(values, &own_group, filter, rows)?;
    single.state(EmitTo::All)
}

/// Of a call with DISTINCT that the engine could not make one over rows that are distinct already.
pub(crate) fn no_distinct(function: &str) -> DataFusionError {
    DataFusionError::NotImplemented(format!(
        "{function}(DISTINCT ...) is computed only as the one aggregate of a query with DISTINCT, and of one argument; \
         {function}(x) FROM (SELECT DISTINCT ...) is the same"
    ))
}

/// The methods of an `AggregateUDFImpl` whose grouped state is all there is: a single group is [`OneGroup`], and no order of rows
/// changes the answer.
macro_rules! grouped_alone {
    () => {
        fn order_sensitivity(&self) -> datafusion::logical_expr::utils::AggregateOrderSensitivity {
            datafusion::logical_expr::utils::AggregateOrderSensitivity::Insensitive
        }

        fn accumulator(
            &self,
            args: AccumulatorArgs,
        ) -> Result<Box<dyn datafusion::logical_expr::Accumulator>> {
            if args.is_distinct {
                return Err(crate::one_group::no_distinct(self.name()));
            }
            let grouped = self.create_groups_accumulator(args)?;
            Ok(Box::new(crate::one_group::OneGroup::new(grouped)))
        }

        fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
            !args.is_distinct
        }
    };
}

pub(crate) use grouped_alone;
