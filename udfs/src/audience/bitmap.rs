//! `bitmap_and`, `bitmap_or`, `bitmap_andnot`, `bitmap_xor`, `bitmap_count`, `bitmap_contains`, `bitmap_to_array`: sets set together.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, Int64Array, Int64Builder,
    ListBuilder,
};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use roaring::RoaringTreemap;

use crate::BadArgument;
use crate::lists::list_of;

/// What is done with sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BitmapFunction {
    /// Who is in both.
    And,
    /// Who is in one of them, or both.
    Or,
    /// Who is in the first and not in the second.
    AndNot,
    /// Who is in one of them and not in both.
    Xor,
    /// How many.
    Count,
    /// Whether somebody is in it.
    Contains,
    /// Who, in order.
    ToArray,
    /// The set of an array.
    Build,
}

impl BitmapFunction {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::And,
        Self::Or,
        Self::AndNot,
        Self::Xor,
        Self::Count,
        Self::Contains,
        Self::ToArray,
        Self::Build,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::And => "bitmap_and",
            Self::Or => "bitmap_or",
            Self::AndNot => "bitmap_andnot",
            Self::Xor => "bitmap_xor",
            Self::Count => "bitmap_count",
            Self::Contains => "bitmap_contains",
            Self::ToArray => "bitmap_to_array",
            Self::Build => "bitmap_build",
        }
    }

    fn arguments(self) -> Vec<DataType> {
        match self {
            Self::And | Self::Or | Self::AndNot | Self::Xor => vec![DataType::Binary; 2],
            Self::Count | Self::ToArray => vec![DataType::Binary],
            Self::Contains => vec![DataType::Binary, DataType::Int64],
            Self::Build => vec![list_of(DataType::Int64)],
        }
    }

    fn gives(self) -> DataType {
        match self {
            Self::Count => DataType::Int64,
            Self::Contains => DataType::Boolean,
            Self::ToArray => list_of(DataType::Int64),
            _ => DataType::Binary,
        }
    }
}

/// Functions of sets of ids that are not below zero, as roaring bitmaps of 64 bits in their portable form (BYTEA), which the roaring
/// libraries of other languages read.
///
/// | function                                              | gives                                              |
/// |-------------------------------------------------------|----------------------------------------------------|
/// | `bitmap_and`, `bitmap_or`, `bitmap_andnot`, `bitmap_xor` | BYTEA of two sets                                |
/// | `bitmap_count(set)`                                   | BIGINT; reads the sizes that are kept with the set |
/// | `bitmap_contains(set, id)`                            | BOOLEAN                                            |
/// | `bitmap_to_array(set)`, `bitmap_build(array)`         | BIGINT[] in order, and back                        |
///
/// NULL for a NULL; in an array it is left out.
/// # Errors
/// [`BadArgument`] for bytes that are no bitmap, and for an id below 0.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Bitmap {
    function: BitmapFunction,
    signature: Signature,
}

impl Bitmap {
    /// The function, ready to be registered.
    pub fn new(function: BitmapFunction) -> Self {
        Self { function, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Bitmap {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let wanted = self.function.arguments();
        let fits = |(given, wanted): (&DataType, &DataType)| match wanted {
            _ if given.is_null() => true,
            DataType::Binary => given.is_binary(),
            DataType::Int64 => given.is_integer(),
            _ => matches!(
                given,
                DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)
            ),
        };
        if types.len() != wanted.len() || !types.iter().zip(&wanted).all(fits) {
            let names = wanted.iter().map(|wanted| match wanted {
                DataType::Binary => "a bitmap",
                DataType::Int64 => "an id",
                _ => "an array of ids",
            });
            let problem = format!("needed: {}", names.collect::<Vec<_>>().join(", "));
            return Err(BadArgument::err(self.function.name(), "arguments", problem));
        }
        Ok(wanted)
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.function.gives())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let name = self.function.name();
        let rows = arrays[0].len();
        let answer: ArrayRef = match self.function {
            BitmapFunction::Build => built(name, &arrays[0])?,
            BitmapFunction::Count => {
                let sets = arrays[0].as_binary::<i32>();
                let count = |set: Option<&[u8]>| -> Result<Option<i64>> {
                    let Some(set) = set else { return Ok(None) };
                    Ok(Some(i64::try_from(read(name, set)?.len()).unwrap_or(i64::MAX)))
                };
                Arc::new(sets.iter().map(count).collect::<Result<Int64Array>>()?)
            }
            BitmapFunction::Contains => {
                let (sets, ids) =
                    (arrays[0].as_binary::<i32>(), arrays[1].as_primitive::<Int64Type>());
                let contains = |(set, id): (Option<&[u8]>, Option<i64>)| -> Result<Option<bool>> {
                    let (Some(set), Some(id)) = (set, id) else { return Ok(None) };
                    let set = read(name, set)?;
                    Ok(Some(u64::try_from(id).is_ok_and(|id| set.contains(id))))
                };
                Arc::new(sets.iter().zip(ids).map(contains).collect::<Result<BooleanArray>>()?)
            }
            BitmapFunction::ToArray => {
                let item = Arc::new(Field::new("item", DataType::Int64, true));
                let mut lists = ListBuilder::new(Int64Builder::new()).with_field(item);
                for set in arrays[0].as_binary::<i32>() {
                    if let Some(set) = set {
                        for id in read(name, set)? {
                            lists.values().append_value(i64::try_from(id).unwrap_or(i64::MAX));
                        }
                    }
                    lists.append(set.is_some());
                }
                Arc::new(lists.finish())
            }
            both => {
                let (one, other) = (arrays[0].as_binary::<i32>(), arrays[1].as_binary::<i32>());
                let mut sets = BinaryBuilder::with_capacity(rows, 0);
                for pair in one.iter().zip(other) {
                    let (Some(one), Some(other)) = pair else {
                        sets.append_null();
                        continue;
                    };
                    let (one, other) = (read(name, one)?, read(name, other)?);
                    sets.append_value(written(&match both {
                        BitmapFunction::And => one & other,
                        BitmapFunction::Or => one | other,
                        BitmapFunction::AndNot => one - other,
                        _ => one ^ other,
                    })?);
                }
                Arc::new(sets.finish())
            }
        };
        Ok(ColumnarValue::Array(answer))
    }
}

fn built(name: &'static str, lists: &ArrayRef) -> Result<ArrayRef> {
    let lists = lists.as_list::<i32>();
    let mut sets = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        if lists.is_null(row) {
            sets.push(None);
            continue;
        }
        let mut set = RoaringTreemap::new();
        for id in lists.value(row).as_primitive::<Int64Type>().iter().flatten() {
            set.insert(id_of(name, id)?);
        }
        sets.push(Some(written(&set)?));
    }
    Ok(Arc::new(sets.iter().map(|set| set.as_deref()).collect::<BinaryArray>()))
}

/// An id as a member of a set.
pub(super) fn id_of(function: &'static str, id: i64) -> Result<u64> {
    u64::try_from(id).map_err(|_| {
        BadArgument::err(function, "id", "is below 0; sets have ids from 0 on, as one_id is")
    })
}

/// A set from its bytes.
pub(super) fn read(function: &'static str, bytes: &[u8]) -> Result<RoaringTreemap> {
    RoaringTreemap::deserialize_from(bytes).map_err(|_| {
        BadArgument::err(function, "bitmap", "is no roaring bitmap of 64 bits in the portable form")
    })
}

/// The bytes of a set.
pub(super) fn written(set: &RoaringTreemap) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(set.serialized_size());
    set.serialize_into(&mut bytes)?;
    Ok(bytes)
}
