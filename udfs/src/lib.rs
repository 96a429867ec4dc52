//! Customer analytics as DataFusion functions: the kernels of `clientele`, usable by any DataFusion program.
//!
//! Nothing here opens a file, reads a clock or talks to a network. Each function lives in a file of its own,
//! named as the function; the lists below are the only register.
//!
//! - [`funnel`]: how far a customer got, who came back, in which order and in which visit (`window_funnel`, `funnel_path`,
//!   `retention`, `sequence_match`, `sessionize`, ...)
//! - [`journey`]: the ways customers take through visits, and which touch gets the credit for a conversion
//! - [`value`]: scores in which equal values are equal (`quantile_score`, `score_fixed`, `rfm_segment`), and models of what customers
//!   will be worth (`bgnbd_fit`, `p_alive`, `clv`)
//! - [`audience`]: sets of customers as bitmaps (`bitmap_agg`, `bitmap_and`, `bitmap_count`, ...)
//! - [`identity`]: cleaning of phone numbers, emails and devices (`norm_phone`, `id_reject_reason`, ...)
//! - [`pg`]: values, times and arithmetic as PostgreSQL means them
//! - [`time`]: calendar periods of a time zone (`local_date`, `period_index`, `period_start`, `interval_us`)
//!
//! ```
//! use datafusion::prelude::SessionContext;
//! let ctx = SessionContext::new();
//! clientele_udfs::register_all(&ctx);
//! ```

pub mod audience;
mod error;
pub mod funnel;
pub mod identity;
pub mod journey;
mod lists;
mod names;
mod one_group;
pub mod pg;
pub mod time;
pub mod value;

#[cfg(test)]
mod testing;

use std::sync::Arc;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};
use datafusion::prelude::SessionContext;

use audience::bitmap::{Bitmap, BitmapFunction};
use audience::bitmap_agg::{BitmapAgg, Gathers};
pub use error::BadArgument;
use funnel::funnels;
use funnel::sequence::Asked;
use journey::paths;
use value::concentration::{self, Concentration};
use value::lifetime::fit::{Model, ModelFit};
use value::lifetime::predict::{Predict, Prediction};

/// Every scalar function.
pub fn all_udfs() -> Vec<Arc<ScalarUDF>> {
    let mut all = vec![
        Arc::new(ScalarUDF::from(identity::norm_phone::NormPhone::new())),
        Arc::new(ScalarUDF::from(identity::norm_email::NormEmail::new())),
        Arc::new(ScalarUDF::from(identity::norm_id::NormId::new())),
        Arc::new(ScalarUDF::from(identity::id_reject_reason::IdRejectReason::new())),
        Arc::new(ScalarUDF::from(pg::fraction_part::FractionPart::new())),
        Arc::new(ScalarUDF::from(pg::span::IntervalTimes::new())),
        Arc::new(ScalarUDF::from(pg::template::Template::new(pg::template::Way::ToChar))),
        Arc::new(ScalarUDF::from(pg::template::Template::new(pg::template::Way::ToDate))),
        Arc::new(ScalarUDF::from(pg::template::Template::new(pg::template::Way::ToNumber))),
        Arc::new(ScalarUDF::from(pg::template::Template::new(pg::template::Way::ToTimestamp))),
        Arc::new(ScalarUDF::from(pg::text_of::TextOf::new())),
        Arc::new(ScalarUDF::from(pg::timezone::Timezone::new())),
        Arc::new(ScalarUDF::from(time::interval_us::IntervalUs::new())),
        Arc::new(ScalarUDF::from(time::local_date::LocalDate::new())),
        Arc::new(ScalarUDF::from(time::period_index::PeriodIndex::new())),
        Arc::new(ScalarUDF::from(time::period_start::PeriodStart::new())),
        Arc::new(ScalarUDF::from(time::series::Series::new())),
        Arc::new(ScalarUDF::from(value::normal_p_value::NormalPValue::new())),
        Arc::new(ScalarUDF::from(value::apart::Apart::new())),
        Arc::new(ScalarUDF::from(value::is_word::IsWord::new())),
        Arc::new(ScalarUDF::from(value::kept_cuts::KeptCuts::new())),
        Arc::new(ScalarUDF::from(value::one_currency::OneCurrency::new())),
        Arc::new(ScalarUDF::from(value::own_segment::OwnSegment::new())),
        Arc::new(ScalarUDF::from(value::points_left::PointsLeft::new())),
        Arc::new(ScalarUDF::from(value::rate_of::RateOf::new())),
        Arc::new(ScalarUDF::from(value::rfm_segment::RfmSegment::new())),
        Arc::new(ScalarUDF::from(value::score_fixed::ScoreFixed::new())),
        Arc::new(ScalarUDF::from(value::tgi::Tgi::new())),
    ];
    let predictions = Prediction::ALL.map(|asked| Arc::new(ScalarUDF::from(Predict::new(asked))));
    all.extend(predictions);
    all.extend(BitmapFunction::ALL.map(|f| Arc::new(ScalarUDF::from(Bitmap::new(f)))));
    all.extend(identity::norm_id::NormOf::all().map(|of| Arc::new(ScalarUDF::from(of))));
    all
}

/// Every aggregate function.
pub fn all_udafs() -> Vec<Arc<AggregateUDF>> {
    let mut all = vec![
        Arc::new(AggregateUDF::from(funnel::window_funnel::WindowFunnel::new())),
        Arc::new(AggregateUDF::from(funnel::funnel_path::FunnelPath::new())),
        Arc::new(AggregateUDF::from(funnel::funnel_attempts::FunnelAttempts::new())),
        Arc::new(AggregateUDF::from(funnels::Funnels::new(funnels::Asked::Best))),
        Arc::new(AggregateUDF::from(funnels::Funnels::new(funnels::Asked::All))),
        Arc::new(AggregateUDF::from(funnels::Funnels::new(funnels::Asked::ByBucket))),
        Arc::new(AggregateUDF::from(funnel::retention::Retention::new())),
        Arc::new(AggregateUDF::from(funnel::range_retention_count::RangeRetentionCount::new())),
        Arc::new(AggregateUDF::from(funnel::range_retention_sum::RangeRetentionSum::new())),
        Arc::new(AggregateUDF::from(funnel::returns::Returns::new())),
        Arc::new(AggregateUDF::from(funnel::sequence::Sequence::new(Asked::Match))),
        Arc::new(AggregateUDF::from(funnel::sequence::Sequence::new(Asked::Count))),
        Arc::new(AggregateUDF::from(funnel::sequence::Sequence::new(Asked::Events))),
        Arc::new(AggregateUDF::from(funnel::sequence_next_node::SequenceNextNode::new())),
        Arc::new(AggregateUDF::from(journey::attribution::Attribution::new())),
        Arc::new(AggregateUDF::from(journey::attribution::Credits::new())),
        Arc::new(AggregateUDF::from(paths::Paths::new(paths::Asked::Edges))),
        Arc::new(AggregateUDF::from(paths::Paths::new(paths::Asked::Tops))),
        Arc::new(AggregateUDF::from(pg::sum::CheckedSum::new())),
        Arc::new(AggregateUDF::from(pg::string_agg::StringAgg::new())),
        Arc::new(AggregateUDF::from(value::order_of::OrderOf::new())),
        Arc::new(AggregateUDF::from(value::quantile_cuts::QuantileCuts::new())),
        Arc::new(AggregateUDF::from(Concentration::new(concentration::Asked::Gini))),
        Arc::new(AggregateUDF::from(Concentration::new(concentration::Asked::TopShare))),
    ];
    all.extend(Gathers::ALL.map(|gathers| Arc::new(AggregateUDF::from(BitmapAgg::new(gathers)))));
    all.extend(Model::ALL.map(|model| Arc::new(AggregateUDF::from(ModelFit::new(model)))));
    all.extend(funnel::kept::Kept::all().map(|kept| Arc::new(AggregateUDF::from(kept))));
    all
}

/// Every window function.
pub fn all_udwfs() -> Vec<Arc<WindowUDF>> {
    vec![
        Arc::new(WindowUDF::from(funnel::sessionize::Sessionize::new())),
        Arc::new(WindowUDF::from(value::quantile_score::QuantileScore::new())),
    ]
}

/// Registers every function of this crate on `ctx`.
pub fn register_all(ctx: &SessionContext) {
    for udf in all_udfs() {
        ctx.register_udf(udf.as_ref().clone());
    }
    for udaf in all_udafs() {
        ctx.register_udaf(udaf.as_ref().clone());
    }
    for udwf in all_udwfs() {
        ctx.register_udwf(udwf.as_ref().clone());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Two functions under one name would silently replace each other at registration.
    #[test]
    fn names_and_aliases_never_collide() {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let scalar = all_udfs().into_iter().map(|f| (f.name().to_owned(), f.aliases().to_vec()));
        let aggregate =
            all_udafs().into_iter().map(|f| (f.name().to_owned(), f.aliases().to_vec()));
        let window = all_udwfs().into_iter().map(|f| (f.name().to_owned(), f.aliases().to_vec()));
        for (name, aliases) in scalar.chain(aggregate).chain(window) {
            for spelling in std::iter::once(name).chain(aliases) {
                *seen.entry(spelling).or_default() += 1;
            }
        }
        let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "registered more than once: {twice:?}");
    }
}
