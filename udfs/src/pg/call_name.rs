//! Names of calls within calls, which the engine makes anew whenever it asks for a type.

use std::hash::{DefaultHasher, Hash, Hasher};

use datafusion::error::Result;
use datafusion::logical_expr::Expr;

/// Calls within a call that are still written out in its name.
const DEPTH_WRITTEN: u32 = 8;

/// What a call knows of the calls within it: how deep they go, and a digest of all of them.
///
/// The engine names every call within a call each time it looks at the outer one, so that `a + b + c ...` of two hundred
/// members took seconds to plan. Each call takes the digests of those directly within it instead, once, when it is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Chain {
    depth: u32,
    digest: u64,
}

impl Chain {
    /// The chain of a call of `operation` over `args`; `chain_of` gives that of a call of the same kind.
    pub(crate) fn over<'a>(
        operation: u64,
        args: &'a [Expr],
        chain_of: impl Fn(&'a Expr) -> Option<&'a Self>,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        operation.hash(&mut hasher);
        let mut depth = 0;
        for arg in args {
            match chain_of(arg) {
                Some(chain) => {
                    chain.digest.hash(&mut hasher);
                    depth = depth.max(chain.depth);
                }
                None => arg.hash(&mut hasher),
            }
        }
        Self { depth: depth + 1, digest: hasher.finish() }
    }

    /// The name of `function(args)` as a column.
    pub(crate) fn name(&self, function: &str, args: &[Expr]) -> Result<String> {
        if self.depth > DEPTH_WRITTEN {
            return Ok(format!("{function}(#{:016x})", self.digest));
        }
        let names: Vec<String> = args.iter().map(|arg| arg.schema_name().to_string()).collect();
        Ok(format!("{function}({})", names.join(",")))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use crate::pg::checked::{Checked, Operation};

    #[test]
    fn names_of_long_chains_are_short_and_differ() {
        let chain = |first: i64, last: i64| {
            let add = |left, right| Checked::of(Operation::Add, left, right);
            let long = (0..500).fold(add(col("a"), lit(first)), |sum, i: i64| add(sum, lit(i)));
            add(long, lit(last)).schema_name().to_string()
        };
        assert!(chain(1, 1).len() < 60, "{}", chain(1, 1));
        assert_eq!(chain(1, 1), chain(1, 1));
        assert!(chain(1, 1) != chain(1, 2) && chain(1, 1) != chain(2, 1));
        let short = Checked::of(Operation::Add, col("a"), lit(1));
        assert_eq!(short.schema_name().to_string(), "checked_add(a,Int32(1))");
    }
}
