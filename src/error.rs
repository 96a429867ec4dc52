//! The one place where a failure becomes a five-letter code.
//!
//! Rooms say what went wrong with a [`Kind`]; [`Kind::sqlstate`] is the only list of codes. A message says what was seen,
//! a detail what is allowed, a hint what to do. None of them may hold a personal value.

use std::fmt;

use arrow::error::ArrowError;
use clientele_udfs::BadArgument;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

/// Result of anything that can fail on a user's behalf.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is: what a caller can decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The statement is not SQL that we know.
    Syntax,
    /// No such table or view.
    UndefinedTable,
    /// No such column.
    UndefinedColumn,
    /// No such function.
    UndefinedFunction,
    /// No such schema.
    UndefinedSchema,
    /// No such database.
    UndefinedDatabase,
    /// No such setting, user, prepared statement's kind of thing.
    UndefinedObject,
    /// A prepared statement of that name does not exist.
    UndefinedStatement,
    /// A cursor or portal of that name does not exist.
    UndefinedCursor,
    /// The table, view or graph exists already.
    DuplicateTable,
    /// A column is named twice.
    DuplicateColumn,
    /// A function of that name exists.
    DuplicateFunction,
    /// A function's definition does not make sense.
    InvalidFunction,
    /// Any other thing that exists already.
    DuplicateObject,
    /// A prepared statement of that name exists.
    DuplicateStatement,
    /// A cursor of that name is open.
    DuplicateCursor,
    /// A name that could mean two columns.
    AmbiguousColumn,
    /// Something else depends on it.
    DependentObjects,
    /// The kind of object does not allow this.
    WrongObjectType,
    /// Types do not fit together.
    DatatypeMismatch,
    /// An aggregate or window used where it cannot be, a column not grouped.
    Grouping,
    /// An argument or setting outside what is allowed.
    InvalidParameter,
    /// Text that is no value of its type.
    InvalidText,
    /// A value that is no date or time.
    InvalidDatetime,
    /// A number outside its type.
    OutOfRange,
    /// A subquery that stands for one value gave several.
    TooManyRows,
    /// Division by zero.
    DivisionByZero,
    /// Input of COPY or a load that cannot be read.
    BadCopyFormat,
    /// Too many bad rows in a load.
    TooManyBadRows,
    /// The role may not do this.
    NotAllowed,
    /// Wrong user, database or way of connecting.
    InvalidAuthorization,
    /// Wrong password.
    InvalidPassword,
    /// We do not have this.
    NotSupported,
    /// Stopped on request.
    Cancelled,
    /// Stopped because the server is going down.
    Shutdown,
    /// The server cannot take more right now.
    TooManyConnections,
    /// Not enough memory under the limit.
    OutOfMemory,
    /// The disk is full.
    DiskFull,
    /// A limit of the configuration.
    LimitExceeded,
    /// Nested too deeply.
    TooComplex,
    /// The block failed; only ROLLBACK is accepted.
    InFailedTransaction,
    /// No transaction is open.
    NoActiveTransaction,
    /// The transaction is one that only reads.
    ReadOnly,
    /// It has to be done before a transaction reads.
    ActiveTransaction,
    /// The thing is not in a state in which this can be done to it.
    NotInState,
    /// No savepoint of that name.
    UndefinedSavepoint,
    /// Lost against another writer too often.
    Serialization,
    /// What a change was computed from is no more; only a new computation helps.
    StaleBase,
    /// A change failed at a moment after which it may still take effect.
    OutcomeUnknown,
    /// Stored data is damaged.
    DataCorrupted,
    /// The file system or object store failed.
    Io,
    /// A file is missing.
    UndefinedFile,
    /// The configuration file or environment is wrong.
    Config,
    /// A message that does not belong here.
    Protocol,
    /// A condition that somebody demanded does not hold.
    AssertionFailed,
    /// Our own broken promise.
    Internal,
}

impl Kind {
    /// The PostgreSQL code of this kind.
    pub fn sqlstate(self) -> &'static str {
        match self {
            Self::Syntax => "42601",
            Self::UndefinedTable => "42P01",
            Self::UndefinedColumn => "42703",
            Self::UndefinedFunction => "42883",
            Self::UndefinedSchema => "3F000",
            Self::UndefinedDatabase => "3D000",
            Self::UndefinedObject => "42704",
            Self::UndefinedStatement => "26000",
            Self::UndefinedCursor => "34000",
            Self::DuplicateTable => "42P07",
            Self::DuplicateColumn => "42701",
            Self::DuplicateFunction => "42723",
            Self::InvalidFunction => "42P13",
            Self::DuplicateObject => "42710",
            Self::DuplicateCursor => "42P03",
            Self::DuplicateStatement => "42P05",
            Self::AmbiguousColumn => "42702",
            Self::DependentObjects => "2BP01",
            Self::WrongObjectType => "42809",
            Self::DatatypeMismatch => "42804",
            Self::Grouping => "42803",
            Self::InvalidParameter => "22023",
            Self::TooManyRows => "21000",
            Self::InvalidText => "22P02",
            Self::InvalidDatetime => "22007",
            Self::OutOfRange => "22003",
            Self::DivisionByZero => "22012",
            Self::BadCopyFormat => "22P04",
            Self::TooManyBadRows => "22000",
            Self::NotAllowed => "42501",
            Self::InvalidAuthorization => "28000",
            Self::InvalidPassword => "28P01",
            Self::NotSupported => "0A000",
            Self::Cancelled => "57014",
            Self::Shutdown => "57P01",
            Self::TooManyConnections => "53300",
            Self::OutOfMemory => "53200",
            Self::DiskFull => "53100",
            Self::LimitExceeded => "54000",
            Self::TooComplex => "54001",
            Self::InFailedTransaction => "25P02",
            Self::NoActiveTransaction => "25P01",
            Self::ReadOnly => "25006",
            Self::ActiveTransaction => "25001",
            Self::NotInState => "55000",
            Self::UndefinedSavepoint => "3B001",
            Self::Serialization | Self::StaleBase => "40001",
            Self::OutcomeUnknown => "40003",
            Self::DataCorrupted => "XX001",
            Self::Io => "58030",
            Self::UndefinedFile => "58P01",
            Self::Config => "F0000",
            Self::Protocol => "08P01",
            Self::AssertionFailed => "P0004",
            Self::Internal => "XX000",
        }
    }
}

/// A failure, in words for the person who caused or meets it.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    position: Option<Place>,
}

/// Where in the statement the trouble is; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line of the statement.
    pub line: u64,
    /// Character in that line.
    pub column: u64,
}

impl Place {
    /// Characters from the start of `sql`, counted from 1, as the protocol's position field wants it.
    pub fn offset_in(self, sql: &str) -> Option<usize> {
        let before: usize = sql
            .split_inclusive('\n')
            .take(self.line.checked_sub(1)? as usize)
            .map(|l| l.chars().count())
            .sum();
        let offset = before + self.column as usize;
        (offset <= sql.chars().count() + 1).then_some(offset)
    }
}

impl Error {
    /// A failure of `kind`; `message` says what was seen.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), detail: None, hint: None, position: None }
    }

    /// Adds what is allowed, or what is known beside the message.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the place in the statement.
    #[must_use]
    pub fn at(mut self, place: Option<Place>) -> Self {
        self.position = place;
        self
    }

    /// Says what it is about, such as one file of many.
    #[must_use]
    pub fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Whether a log was asked for a version that it does not reach back to, for a vacuum has shortened it or taken it away.
    pub fn is_of_no_log(&self) -> bool {
        self.kind == Kind::DataCorrupted
            && [
                "No files in log segment",
                "Not a Delta table",
                "LogSegment end version",
                "Invalid table location",
            ]
            .iter()
            .any(|told| self.message.contains(told))
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What was seen.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What is allowed.
    pub fn detail_text(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// What to do.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Where in the statement.
    pub fn place(&self) -> Option<Place> {
        self.position
    }

    /// The five-letter code.
    pub fn sqlstate(&self) -> &'static str {
        self.kind.sqlstate()
    }

    /// A promise of our own that does not hold.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// A thing we do not have; `message` names it.
    pub fn not_supported(message: impl Into<String>) -> Self {
        Self::new(Kind::NotSupported, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, "\n  {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        io_error(&error)
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        arrow_error(&error)
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        store_error(&error)
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(error: parquet::errors::ParquetError) -> Self {
        parquet_error(&error)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::new(
            Kind::DataCorrupted,
            format!("a stored document is not what it should be: {error}"),
        )
    }
}

impl From<deltalake::DeltaTableError> for Error {
    fn from(error: deltalake::DeltaTableError) -> Self {
        if let Some(ours) = find_ours(&error) {
            return ours.clone();
        }
        if let Some(io) = find_io(&error) {
            return io_error(io);
        }
        match &error {
            deltalake::DeltaTableError::ObjectStore { source } => store_error(source),
            deltalake::DeltaTableError::Transaction { .. } => {
                Self::new(Kind::Serialization, format!("another writer was faster: {error}"))
                    .hint("run the statement again")
            }
            // Below its first line an error of the log tells where in the program it was met.
            _ => {
                let told = error.to_string();
                let told = told.lines().next().unwrap_or_default();
                // What the kernel holds is of no use to who reads this.
                let told = told.split(": ParsedLogPath").next().unwrap_or_default();
                Self::new(Kind::DataCorrupted, format!("the table's log cannot be used: {told}"))
                    .hint("a backup has the folder as it was; CREATE TABLE ... AS SELECT * FROM it VERSION AS OF n keeps an earlier version that can be read; other tables are not touched by this")
            }
        }
    }
}

impl From<ParserError> for Error {
    fn from(error: ParserError) -> Self {
        syntax_error(&error)
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        engine_error(&error)
    }
}

/// The first I/O error among the causes.
fn find_io<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            // One that only wraps another's error says nothing itself; its source leaves the wrapped one out.
            let wrapped = io.get_ref().and_then(|inner| find_io(inner));
            return Some(wrapped.unwrap_or(io));
        }
        cause = error.source();
    }
    None
}

fn io_error(error: &std::io::Error) -> Error {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Error::new(Kind::DiskFull, format!("no space left: {error}")).hint(
                "free space on the disk and run the statement again; what was loaded before stands",
            )
        }
        ErrorKind::NotFound => Error::new(Kind::UndefinedFile, format!("file not found: {error}")),
        ErrorKind::PermissionDenied => {
            Error::new(Kind::Io, format!("the operating system refused: {error}"))
        }
        // Some layers keep the words of an error and not its kind.
        _ if error.to_string().contains("No space left on device") => {
            io_error(&std::io::Error::new(ErrorKind::StorageFull, error.to_string()))
        }
        _ => Error::new(Kind::Io, format!("input or output failed: {error}")),
    }
}

/// An error of ours that others carry along as the cause of theirs.
fn find_ours<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return Some(ours);
        }
        cause = error.source();
    }
    None
}

fn store_error(error: &object_store::Error) -> Error {
    if let Some(ours) = find_ours(error) {
        return ours.clone();
    }
    if let Some(io) = find_io(error) {
        return io_error(io);
    }
    match error {
        object_store::Error::NotFound { path, .. } => {
            Error::new(Kind::DataCorrupted, format!("a file of the warehouse is missing: {path}"))
        }
        _ => Error::new(Kind::Io, format!("the store failed: {error}")),
    }
}

fn arrow_error(error: &ArrowError) -> Error {
    match error {
        ArrowError::DivideByZero => Error::new(Kind::DivisionByZero, "division by zero"),
        // The engine's text shows the numbers, which may be a person's.
        ArrowError::ArithmeticOverflow(_) => out_of_range(),
        ArrowError::CastError(_) | ArrowError::ParseError(_) => cast_error(&error.to_string()),
        ArrowError::InvalidArgumentError(text)
            if text.contains("too large to store") || text.contains("out of range") =>
        {
            out_of_range()
        }
        ArrowError::IoError(_, io) => io_error(io),
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<DataFusionError>() {
            Some(engine) => engine_error(engine),
            None => external_error(inner.as_ref()),
        },
        // A regular expression, a pad length or a format made from data: the text would show the data.
        ArrowError::ComputeError(_) => {
            Error::new(Kind::InvalidParameter, "a value cannot be computed from its arguments")
        }
        other => Error::new(Kind::InvalidParameter, redacted(&other.to_string())),
    }
}

fn out_of_range() -> Error {
    Error::new(Kind::OutOfRange, "a number is out of range for its type")
}

fn bad_argument(function: &str, argument: &str, problem: &str) -> Error {
    match (function, argument) {
        // A text that is read as one of these types.
        ("date" | "timestamp", "text") => Error::new(
            Kind::InvalidDatetime,
            format!("invalid input syntax for type {function}: the text {problem}"),
        ),
        _ => Error::new(Kind::InvalidParameter, format!("{function}: {argument}: {problem}")),
    }
}

/// A damaged data file as the reader of footers shows it within the text of another error.
fn damage_in(text: &str) -> Option<Error> {
    let start = text.find("data file \"")?;
    let line = text[start..].lines().next()?;
    let error = Error::new(Kind::DataCorrupted, line);
    Some(error.hint("restore the file from a backup; other tables are not touched by this"))
}

/// A [`BadArgument`] as a filter's failure shows it within the text of another error.
fn bad_argument_in(text: &str) -> Option<Error> {
    let rest = &text[text.find("BadArgument {")?..];
    let field = |name: &str| {
        let start = rest.find(&format!("{name}: \""))? + name.len() + 3;
        let end = rest[start..].find(['"', '\\'])? + start;
        Some(&rest[start..end])
    };
    Some(bad_argument(field("function")?, field("argument")?, field("problem")?))
}

/// The functions that answer a day of a report's run.
const DAYS_OF_REPORTS: [&str; 3] = ["report_asof", "report_to", "report_from"];

const NO_DAY: &str = "has no day";

/// Of `name`, which answers a day of a report's run, outside of one.
pub(crate) fn no_day(name: &str) -> Error {
    Error::new(Kind::InvalidParameter, format!("{name}() {NO_DAY}"))
        .detail("outside of a report's run it answers the session's as_of, which is not set")
        .hint("SET as_of = '2011-12-09'")
}

/// A damaged file; or a filter that was evaluated while reading one, whose failure is no fault of the file.
fn parquet_error(error: &parquet::errors::ParquetError) -> Error {
    if let Some(ours) = find_ours(error) {
        return ours.clone();
    }
    if let Some(io) = find_io(error) {
        return io_error(io);
    }
    let text = error.to_string();
    if let Some(damage) = damage_in(&text) {
        return damage;
    }
    if let Some(bad) = bad_argument_in(&text) {
        return bad;
    }
    if text.contains("ArithmeticOverflow") || text.contains("rithmetic overflow") {
        return out_of_range();
    }
    if text.contains("ivide by zero") || text.contains("DivideByZero") {
        return Error::new(Kind::DivisionByZero, "division by zero");
    }
    if text.contains("CastError") || text.contains("annot cast") || text.contains("rror parsing") {
        return cast_error(&text);
    }
    let without_day =
        DAYS_OF_REPORTS.iter().find(|name| text.contains(&format!("{name}() {NO_DAY}")));
    if let Some(name) = without_day {
        return no_day(name);
    }
    if text.contains("Compute error") || text.contains("evaluating filter predicate") {
        return Error::new(Kind::InvalidParameter, "a condition cannot be computed for some row");
    }
    Error::new(
        Kind::DataCorrupted,
        format!("a Parquet file cannot be read or written: {}", redacted(&text)),
    )
}

/// A message of the engine without what may be a value: quoted text, and runs of digits.
fn redacted(text: &str) -> String {
    const DIGITS_SHOWN: usize = 4;
    let first_line = text.lines().next().unwrap_or("");
    let mut clean = String::new();
    let mut quote = None;
    let mut digits = 0;
    for c in first_line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => continue,
            None if matches!(c, '\'' | '"') => {
                quote = Some(c);
                clean.push('…');
                continue;
            }
            None => {}
        }
        if matches!(c, '\'' | '"') {
            continue;
        }
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        if digits <= DIGITS_SHOWN {
            clean.push(c);
        }
    }
    clean
}

/// A value that does not convert. The value itself is left out, because it may be a person's.
fn cast_error(text: &str) -> Error {
    let target =
        text.rsplit("to ").next().unwrap_or("").split([' ', ':', ',']).next().unwrap_or("");
    let is_time =
        ["Timestamp", "Date", "timestamp", "date", "Time"].iter().any(|t| text.contains(t));
    let kind = if is_time { Kind::InvalidDatetime } else { Kind::InvalidText };
    let is_range = text.contains("out of range")
        || text.contains("overflow")
        || text.contains("Can't cast value");
    let kind = if is_range && !is_time { Kind::OutOfRange } else { kind };
    let named = [
        "Int8",
        "Int16",
        "Int32",
        "Int64",
        "Float32",
        "Float64",
        "Boolean",
        "Date32",
        "Timestamp",
        "Decimal",
    ]
    .iter()
    .find(|t| target.starts_with(**t) || text.contains(&format!("of {t} type")));
    let message = match named {
        Some(named) => format!("a value cannot be read as {}", sql_word(named)),
        None => "a value cannot be converted to the type that is needed".to_owned(),
    };
    Error::new(kind, message).hint("TRY_CAST gives NULL where a value does not fit")
}

fn sql_word(arrow: &str) -> &'static str {
    match arrow {
        "Int8" | "Int16" => "smallint",
        "Int32" => "integer",
        "Int64" => "bigint",
        "Float32" => "real",
        "Float64" => "double precision",
        "Boolean" => "boolean",
        "Date32" => "date",
        "Timestamp" => "timestamp",
        "Decimal" => "numeric",
        _ => "its type",
    }
}

fn syntax_error(error: &ParserError) -> Error {
    match error {
        ParserError::RecursionLimitExceeded => {
            Error::new(Kind::TooComplex, "the statement is nested too deeply")
        }
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => {
            let (message, place) = split_place(text);
            Error::new(Kind::Syntax, format!("syntax error: {message}")).at(place)
        }
    }
}

/// Splits the parser's ` at Line: 1, Column: 8` off its message.
fn split_place(text: &str) -> (String, Option<Place>) {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else {
        return (text.to_owned(), None);
    };
    let mut numbers = place.split(", Column: ").map(|n| n.trim().parse::<u64>().ok());
    let place = match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(line), Some(column)) => Some(Place { line, column }),
        _ => None,
    };
    (message.to_owned(), place)
}

fn engine_error(error: &DataFusionError) -> Error {
    let place = span_of(error);
    let root = error.find_root();
    let error = match root {
        DataFusionError::External(inner) => external_error(inner.as_ref()),
        DataFusionError::SQL(parser, _) => syntax_error(parser),
        DataFusionError::SchemaError(schema, _) => schema_error(schema),
        DataFusionError::ArrowError(arrow, _) => arrow_error(arrow),
        DataFusionError::ParquetError(parquet) => parquet_error(parquet.as_ref()),
        DataFusionError::ObjectStore(store) => store_error(store),
        DataFusionError::IoError(io) => io_error(io),
        DataFusionError::ResourcesExhausted(text) => resources_error(text),
        DataFusionError::NotImplemented(text) => not_implemented(text),
        DataFusionError::Plan(text) => plan_error(text),
        DataFusionError::Execution(text) => execution_error(text),
        DataFusionError::Configuration(text) => Error::new(Kind::InvalidParameter, text.clone()),
        DataFusionError::Internal(text) => {
            Error::internal(format!("the engine broke a promise: {}", redacted(text)))
        }
        other => Error::internal(redacted(&other.to_string())),
    };
    if error.position.is_some() { error } else { error.at(place) }
}

fn span_of(error: &DataFusionError) -> Option<Place> {
    let span = error.diagnostic()?.span?;
    Some(Place { line: span.start.line, column: span.start.column })
}

fn external_error(inner: &(dyn std::error::Error + Send + Sync + 'static)) -> Error {
    if let Some(ours) = inner.downcast_ref::<Error>() {
        return ours.clone();
    }
    if let Some(bad) = inner.downcast_ref::<BadArgument>() {
        return bad_argument(bad.function, bad.argument, &bad.problem);
    }
    if let Some(arrow) = inner.downcast_ref::<ArrowError>() {
        return arrow_error(arrow);
    }
    if let Some(engine) = inner.downcast_ref::<DataFusionError>() {
        return engine_error(engine);
    }
    match find_io(inner) {
        Some(io) => io_error(io),
        None => Error::internal(redacted(&inner.to_string())),
    }
}

fn resources_error(text: &str) -> Error {
    if text.contains("disk") || text.contains("Disk") {
        return Error::new(
            Kind::DiskFull,
            "the query needs more temporary disk space than is allowed",
        )
        .detail(text)
        .hint("raise memory.spill_limit or narrow the query");
    }
    Error::new(Kind::OutOfMemory, "the query needs more memory than is left under the limit")
        // The last line says what was asked for and what was left; those before list who holds how much.
        .detail(text.lines().last().unwrap_or("").trim_start_matches("Error: ").to_owned())
        .hint("raise memory.limit_mb, run fewer queries at once, or narrow the query")
}

fn schema_error(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let error = Error::new(
                Kind::UndefinedColumn,
                format!("column {:?} does not exist", field.flat_name()),
            );
            let names: Vec<String> = valid_fields.iter().map(|f| f.name.clone()).collect();
            match nearest(&field.name, &names) {
                Some(name) => error.hint(format!("perhaps you mean {name:?}")),
                None if names.is_empty() => error,
                None => error.hint(format!("columns here: {}", shortened(&names))),
            }
        }
        SchemaError::AmbiguousReference { field } => Error::new(
            Kind::AmbiguousColumn,
            format!("column {:?} could mean several tables", field.name),
        )
        .hint("write the table's name or alias before it"),
        SchemaError::DuplicateQualifiedField { .. }
        | SchemaError::DuplicateUnqualifiedField { .. } => {
            Error::new(Kind::DuplicateColumn, error.to_string())
                .hint("give one of them another name with AS")
        }
    }
}

fn shortened(names: &[String]) -> String {
    const MOST: usize = 12;
    let mut text = names.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > MOST {
        text.push_str(", ...");
    }
    text
}

/// The name that a misspelling was probably meant to be.
pub fn nearest<'a>(wanted: &str, names: &'a [String]) -> Option<&'a str> {
    let scored = names.iter().map(|name| {
        (datafusion::common::utils::datafusion_strsim::levenshtein(wanted, name), name)
    });
    let (distance, name) = scored.min()?;
    (distance <= 1.max(wanted.len() / 3)).then_some(name)
}

fn plan_error(text: &str) -> Error {
    let first_line = text.lines().next().unwrap_or("");
    if let Some(name) = between(text, "table '", "' not found") {
        let name = name.trim_start_matches("clientele.");
        let name = name.strip_prefix("public.").unwrap_or(name);
        return Error::new(Kind::UndefinedTable, format!("relation \"{name}\" does not exist"));
    }
    if let Some(name) = between(text, "Invalid function '", "'") {
        let error = Error::new(Kind::UndefinedFunction, format!("function {name} does not exist"));
        // The engine always has a guess; only a near one helps.
        let guess = between(text, "Did you mean '", "'").map(str::to_owned);
        return match guess.as_slice() {
            [guess] if nearest(name, std::slice::from_ref(guess)).is_some() => {
                error.hint(format!("perhaps you mean {guess}"))
            }
            _ => error,
        };
    }
    // What our own functions say of their arguments, inside the engine's wrapping.
    if let Some((_, ours)) = text.split_once("coercion failed with: External error: ") {
        let ours = ours.split(" No function matches").next().unwrap_or(ours);
        let ours = ours.lines().next().unwrap_or("").trim_end_matches('.');
        return Error::new(Kind::InvalidParameter, ours.to_owned());
    }
    if let Some(call) = between(text, "argument types '", "'") {
        return no_such_call(call);
    }
    if let Some((before, _)) = first_line.split_once(", currently only ")
        && let Some(column) = between(before, "column \"", "\" must appear")
    {
        let column = column.rsplit('.').next().unwrap_or(column);
        return Error::new(
            Kind::Grouping,
            format!(
                "column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function"
            ),
        );
    }
    let kind = if text.contains("table function") && text.contains("not found") {
        Kind::UndefinedFunction
    } else if text.contains("must appear in the GROUP BY clause")
        || text.contains("must be in GROUP BY")
        || text.contains("in aggregate") && text.contains("nested")
    {
        Kind::Grouping
    } else if text.contains("require unique expression names") {
        Kind::DuplicateColumn
    } else if text.contains("does not support")
        || text.contains("not supported")
        || text.contains("Unsupported")
    {
        Kind::NotSupported
    } else if text.contains("No function matches")
        || text.contains("Failed to coerce arguments")
        || text.contains("coercion") && text.contains("function")
    {
        Kind::UndefinedFunction
    } else if text.contains("Cannot coerce")
        || text.contains("type_coercion")
        || text.contains("Cannot infer common")
        || text.contains("Cannot cast")
    {
        Kind::DatatypeMismatch
    } else if text.contains("No field named") {
        Kind::UndefinedColumn
    } else {
        Kind::Syntax
    };
    Error::new(kind, first_line.to_owned())
}

/// What the engine does not do, without its own data structures.
fn not_implemented(text: &str) -> Error {
    if let Some(name) = text.strip_prefix("Unsupported SQL type ") {
        return Error::new(Kind::UndefinedObject, format!("type {name:?} does not exist"));
    }
    if text.contains("OuterReferenceColumn") {
        return Error::not_supported(
            "a subquery in FROM cannot use columns of the tables beside it (LATERAL)",
        )
        .hint("a subquery in WHERE can, and so can a join with the condition in ON");
    }
    if text.contains("does not support logical expression Exists") {
        return Error::not_supported("EXISTS is not supported in a select list")
            .hint("(SELECT count(*) ...) > 0 says the same; EXISTS works in WHERE");
    }
    if text.contains("does not support logical expression InSubquery") {
        return Error::not_supported("IN (SELECT ...) is not supported in a select list")
            .hint("it works in WHERE; a LEFT JOIN says the same");
    }
    // Whatever follows a brace or bracket is a dump.
    let words = text.split(['{', '(']).next().unwrap_or(text).trim_end();
    Error::not_supported(words.to_owned())
}

/// A call that no function takes, in SQL's names of types.
fn no_such_call(call: &str) -> Error {
    const NAMES: [(&str, &str); 16] = [
        ("LargeUtf8", "text"),
        ("Utf8View", "text"),
        ("Utf8", "text"),
        ("Int64", "bigint"),
        ("Int32", "integer"),
        ("Int16", "smallint"),
        ("Float64", "double precision"),
        ("Float32", "real"),
        ("Boolean", "boolean"),
        ("Date32", "date"),
        ("Null", "unknown"),
        ("Timestamp(µs)", "timestamp"),
        ("Timestamp(ns)", "timestamp"),
        ("Timestamp(µs, \"UTC\")", "timestamptz"),
        ("Interval(MonthDayNano)", "interval"),
        ("Binary", "bytea"),
    ];
    let mut named = call.to_owned();
    for (theirs, ours) in NAMES {
        named = named.replace(theirs, ours);
    }
    while let Some(at) = named.find("Decimal128(") {
        let end = named[at..].find(')').map_or(named.len(), |end| at + end + 1);
        named.replace_range(at..end, "numeric");
    }
    Error::new(Kind::UndefinedFunction, format!("function {named} does not exist"))
        .hint("say which type is meant with a cast, such as x::numeric")
}

fn execution_error(text: &str) -> Error {
    if text.contains("Divide by zero") || text.contains("division by zero") {
        return Error::new(Kind::DivisionByZero, "division by zero");
    }
    if text.contains("ast error") || text.contains("arsing") || text.contains("annot cast") {
        return cast_error(text);
    }
    if text.contains("verflow") {
        return Error::new(Kind::OutOfRange, "a number is out of range");
    }
    if text.contains("ubquery") && text.contains("more than one row") {
        return Error::new(
            Kind::TooManyRows,
            "more than one row returned by a subquery used as an expression",
        );
    }
    Error::new(Kind::InvalidParameter, redacted(text))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_characters_over_lines() {
        let sql = "SELECT 数\nFROM nowhere";
        assert_eq!(Place { line: 1, column: 8 }.offset_in(sql), Some(8));
        assert_eq!(Place { line: 2, column: 6 }.offset_in(sql), Some(15));
        assert_eq!(Place { line: 9, column: 99 }.offset_in(sql), None);
    }

    #[test]
    fn the_parsers_place_becomes_ours() {
        let error: Error =
            ParserError::ParserError("Expected: x, found: y at Line: 2, Column: 7".into()).into();
        assert_eq!(
            (error.sqlstate(), error.place()),
            ("42601", Some(Place { line: 2, column: 7 }))
        );
        assert_eq!(error.message(), "syntax error: Expected: x, found: y");
    }

    #[test]
    fn our_own_errors_survive_the_engines_contexts() {
        let inner = Error::new(Kind::NotAllowed, "no").hint("ask");
        let wrapped = DataFusionError::from(inner).context("a").context("b");
        let error = Error::from(wrapped);
        assert_eq!((error.sqlstate(), error.hint_text()), ("42501", Some("ask")));
        let bad = BadArgument::err("window_funnel", "window", "is negative").context("c");
        assert_eq!(Error::from(bad).sqlstate(), "22023");
        let bad = BadArgument::err("date", "text", "is not one; write it as 2011-12-09");
        // A filter that is evaluated while a file is read carries its failure as text only.
        let pushed = parquet::errors::ParquetError::ArrowError(format!(
            "Error evaluating filter predicate: {bad:?}"
        ));
        let pushed = Error::from(DataFusionError::ParquetError(Box::new(pushed)));
        assert_eq!(pushed.sqlstate(), "22007");
        assert_eq!(
            pushed.message(),
            "invalid input syntax for type date: the text is not one; write it as 2011-12-09"
        );
    }

    #[test]
    fn a_full_disk_is_seen_through_every_layer() {
        let full = || std::io::Error::new(std::io::ErrorKind::StorageFull, "full");
        let store = object_store::Error::Generic { store: "x", source: Box::new(full()) };
        assert_eq!(Error::from(store).sqlstate(), "53100");
        assert_eq!(Error::from(DataFusionError::IoError(full())).sqlstate(), "53100");
        assert_eq!(Error::from(ArrowError::IoError("x".into(), full())).sqlstate(), "53100");
    }

    /// A filter that is evaluated while a file is read fails like any other, without the value and without blaming the file.
    #[test]
    fn values_never_appear_in_errors_of_a_pushed_filter() {
        let inner = ArrowError::CastError(
            "Cannot cast string '+86 154-1012-6723' to value of Int64 type".into(),
        );
        let parquet = parquet::errors::ParquetError::General(format!(
            "External: Compute error: ArrowError({inner:?})"
        ));
        let error = Error::from(DataFusionError::ParquetError(Box::new(parquet)));
        assert_eq!(error.sqlstate(), "22P02");
        assert!(!error.to_string().contains("154"), "{error}");
        let regex = Error::from(DataFusionError::Execution(
            "regex parse error: 'abc' at 15410126723".into(),
        ));
        assert!(
            !regex.to_string().contains("15410126723") && !regex.to_string().contains("abc"),
            "{regex}"
        );
    }

    #[test]
    fn values_never_appear_in_cast_errors() {
        let error = Error::from(ArrowError::CastError(
            "Cannot cast string '13800138000' to value of Int32 type".into(),
        ));
        assert!(!error.to_string().contains("13800138000"));
        assert_eq!(error.sqlstate(), "22P02");
        assert_eq!(error.message(), "a value cannot be read as integer");
    }
}
