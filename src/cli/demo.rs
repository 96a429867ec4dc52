//! `clientele demo`: from an empty folder to four answers.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::output::Format;
use super::progress::Bar;
use super::{load, open_engine, serve, sql};
use crate::config::{Config, MaxBad};
use crate::error::Result;
use crate::ingest::{self, CsvOptions, LoadRequest};
use crate::session::{Engine, Session};
use crate::sql::{Outcome, execute, install_reports, parse};
use crate::store::{Location, Name};
use crate::wire::{Executor, LOCAL_USER};

/// Loads a sample of real orders with made-up buyers, works out who is who, prints what four questions answer, and serves
/// it all to psql. A second run finds everything loaded.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address and port to serve at; port 0 takes a free one [default: 127.0.0.1:5433]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// End after the answers
    #[arg(long)]
    no_serve: bool,
}

/// The sample, compiled in: table, file name, content.
const SAMPLE: [(&str, &str, &[u8]); 5] = [
    ("orders", "orders.parquet", include_bytes!("../../data/orders.parquet")),
    ("order_lines", "order_lines.parquet", include_bytes!("../../data/order_lines.parquet")),
    ("customers", "customers.csv.gz", include_bytes!("../../data/customers.csv.gz")),
    ("identifiers", "identifiers.csv.gz", include_bytes!("../../data/identifiers.csv.gz")),
    ("events", "events.parquet", include_bytes!("../../data/events.parquet")),
];

/// The shared nouns, in the order they build on each other.
const VIEWS: [&str; 4] = [
    include_str!("../../sql/views/order_facts.sql"),
    include_str!("../../sql/views/event_facts.sql"),
    include_str!("../../sql/views/customer_360.sql"),
    include_str!("../../sql/views/customer_timeline.sql"),
];

const GRAPH: &str = "CREATE IDENTITY GRAPH IF NOT EXISTS customer \
    FROM identifiers (source, record_id, id_type, id_value, seen_at) \
    WITH (open_id (priority 2), phone (priority 3, max_records 10), email (priority 4, max_records 10), \
        device (priority 5, max_records 5))";

/// The last day of the sample.
const LAST_DAY: &str = "2011-12-09";

/// What is asked: a heading and the query whose answer is printed.
const QUESTIONS: [(&str, &str); 4] = [
    (
        "Who is who: records of three sources, joined by phone, email, device and open id",
        "SELECT source, count(*) AS records, count(DISTINCT one_id) AS customers FROM customer.map GROUP BY source
         UNION ALL
         SELECT 'all', count(*), count(DISTINCT one_id) FROM customer.map ORDER BY records",
    ),
    (
        "What they are worth: RFM segments of the year to 2011-12-09",
        "SELECT segment, count(*) AS customers, CAST(sum(monetary) AS DECIMAL(18, 2)) AS paid,
                CAST(avg(recency_days) AS BIGINT) AS days_since, CAST(avg(frequency) AS DECIMAL(8, 1)) AS orders
         FROM rfm(order_facts, window_days => 365, as_of => DATE '2011-12-09')
         GROUP BY segment ORDER BY paid DESC",
    ),
    (
        "How they buy: a funnel over seven days, across web shop and app",
        "SELECT step, name, users, CAST(100 * rate_total AS DECIMAL(5, 1)) AS percent, dropped,
                CAST(seconds_median / 60 AS BIGINT) AS minutes_median
         FROM funnel_report(event_facts, steps => ARRAY['visit', 'cart', 'checkout', 'pay'], window => INTERVAL '7 days')
         ORDER BY step",
    ),
    (
        "Who comes back: buyers by month of their first order, and the share that bought again",
        "SELECT cohort, cohort_size AS buyers, CAST(100 * max(rate) FILTER (WHERE period = 1) AS DECIMAL(4, 1)) AS month_1,
                CAST(100 * max(rate) FILTER (WHERE period = 2) AS DECIMAL(4, 1)) AS month_2,
                CAST(100 * max(rate) FILTER (WHERE period = 3) AS DECIMAL(4, 1)) AS month_3,
                CAST(100 * max(rate) FILTER (WHERE period = 6) AS DECIMAL(4, 1)) AS month_6,
                CAST(100 * max(rate) FILTER (WHERE period = 11) AS DECIMAL(4, 1)) AS month_11
         FROM retention_matrix((SELECT * FROM order_facts WHERE status = 'completed' AND amount > 0),
                               interval => 'month', kind => 'first_time')
         GROUP BY cohort, cohort_size ORDER BY cohort LIMIT 6",
    ),
];

/// What to try next, printed with the server's address.
const TRY: [&str; 4] = [
    "SELECT * FROM reports.status;",
    "SELECT * FROM rfm(order_facts, as_of => DATE '2011-12-09') ORDER BY monetary DESC LIMIT 10;",
    "SELECT * FROM customer_timeline WHERE one_id = (SELECT one_id FROM customer.map WHERE record_id = '14911') ORDER BY happened_at;",
    "SELECT id_type, reason, count(*) FROM customer.rejected GROUP BY id_type, reason ORDER BY 3 DESC;",
];

pub(super) fn run(args: &Args, dir: &Location, mut config: Config) -> Result<()> {
    if let Some(listen) = args.listen {
        config.server.listen = listen;
    }
    let computing = Executor::runtime()?;
    let executor = Executor::new(computing.handle().clone(), &config);
    let engine = computing.block_on(Box::pin(prepare(dir, config)))?;
    if args.no_serve {
        return Ok(());
    }
    let house = serve::keep_house(&computing, &engine);
    let network = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("network")
        .enable_all()
        .build()?;
    let served = network.block_on(serve::serve(engine, executor, |server| {
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "\nServing at {}. In another terminal:\n\n  {}\n\nand there:\n",
            server.address()?,
            server.psql_line()?
        )?;
        for query in TRY {
            writeln!(out, "  {query}")?;
        }
        writeln!(out, "\nCtrl-C stops the server.")?;
        Ok(())
    }));
    computing.block_on(house.leave());
    network.shutdown_timeout(std::time::Duration::from_secs(1));
    computing.shutdown_timeout(std::time::Duration::from_secs(1));
    served
}

async fn prepare(dir: &Location, config: Config) -> Result<Arc<Engine>> {
    let engine = open_engine(dir, config, true).await?;
    load_sample(&engine).await?;
    let session = engine.session(LOCAL_USER);
    quietly(&session, GRAPH).await?;
    quietly(&session, "REFRESH IDENTITY GRAPH customer").await?;
    for view in VIEWS {
        quietly(&session, view).await?;
    }
    keep_reports(&session).await?;
    for (question, query) in QUESTIONS {
        writeln!(std::io::stdout().lock(), "\n{question}")?;
        sql::answer(&session, query, Format::Table).await?;
    }
    Ok(engine)
}

/// Makes the standing reports and computes them for the last day of the sample. Their schedules are held: the sample's days are past.
async fn keep_reports(session: &Session) -> Result<()> {
    let mut kept = 0;
    for (name, made) in install_reports(session, &[], true).await? {
        made?;
        let refresh = format!("REFRESH MATERIALIZED VIEW {name} AS OF '{LAST_DAY}'");
        quietly(session, &refresh).await?;
        kept += 1;
    }
    eprintln!("{kept} reports are kept; SELECT * FROM reports.status lists them");
    Ok(())
}

async fn load_sample(engine: &Engine) -> Result<()> {
    let folder = TemporaryFolder::new()?;
    for (table, file, content) in SAMPLE {
        let path = folder.0.join(file);
        std::fs::write(&path, content)?;
        let request = LoadRequest {
            table: Name::new("public", table),
            files: vec![path],
            format: None,
            csv: CsvOptions::default(),
            max_bad: MaxBad::Rows(0),
            personal: vec![],
            key: None,
            adds_columns: false,
            user: LOCAL_USER.to_owned(),
        };
        for loaded in ingest::load(engine.warehouse(), &request, &Bar::new()).await? {
            eprintln!("{}", load::describe(&loaded, &request.table));
        }
    }
    Ok(())
}

/// Runs statements that give no rows; notices go to stderr.
async fn quietly(session: &Session, sql: &str) -> Result<()> {
    for parsed in parse(sql)? {
        if let Outcome::Noticed { notice, .. } = execute(session, &parsed, &[]).await? {
            eprintln!("{notice}");
        }
    }
    Ok(())
}

/// A folder that is gone when its owner is.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn new() -> Result<Self> {
        let path =
            std::env::temp_dir().join(format!("clientele-demo-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
