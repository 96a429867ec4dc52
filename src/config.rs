//! `clientele.toml`: every setting with its unit, its default and the reason for it.
//!
//! A flag wins over the environment (`CLIENTELE_SERVER__LISTEN`), the environment over the file. An unknown key is an
//! error, because a misspelt limit that silently does nothing is worse than no limit.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// All settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The PostgreSQL server.
    pub server: Server,
    /// Encryption of connections.
    pub tls: Tls,
    /// Memory and temporary disk space.
    pub memory: Memory,
    /// Where files may be loaded from and how strict loading is.
    pub load: Load,
    /// How data files are written and read.
    pub storage: Storage,
    /// Reports that are kept and their schedules.
    pub reports: Reports,
    /// Where results may be written to as files.
    pub export: Export,
    /// Health and metrics over HTTP.
    pub http: Http,
    /// Logs.
    pub log: Log,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address and port. Loopback by default: without users and TLS nothing else is allowed.
    pub listen: SocketAddr,
    /// Open connections; one more gets 53300. An idle connection costs little, 200 suits a few BI tools with pools.
    pub connections_max: usize,
    /// Statements that compute at once; 0 is twice the processors. More would only make each slower.
    pub statements_max: usize,
    /// Statements that may wait for their turn; one more gets 53300 at once, never silence.
    pub queue_max: usize,
    /// Seconds a statement may wait for its turn before it gets 53300.
    pub queue_timeout_s: u64,
    /// Seconds a statement may run; 0 is no limit. `SET statement_timeout` overrides it for a session.
    pub statement_timeout_s: u64,
    /// Seconds that running statements get to end when the server is told to stop.
    pub drain_timeout_s: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 5433)),
            connections_max: 200,
            statements_max: 0,
            queue_max: 100,
            queue_timeout_s: 60,
            statement_timeout_s: 0,
            drain_timeout_s: 30,
        }
    }
}

/// `[tls]`: both files or none. A certificate that cannot be loaded stops the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Certificate chain, PEM.
    pub cert: Option<PathBuf>,
    /// Private key, PEM.
    pub key: Option<PathBuf>,
    /// Whether a connection without TLS is refused. Off-loopback it always is.
    pub required: bool,
}

/// `[memory]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// Megabytes that queries may hold together; 0 is half of the machine, which leaves the page cache its share.
    pub limit_mb: u64,
    /// Folder for what does not fit; none is the system's temporary folder.
    pub spill_dir: Option<PathBuf>,
    /// Megabytes of temporary files; 0 is four times the memory limit.
    pub spill_limit_mb: u64,
}

/// `[load]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Load {
    /// Folders below which `COPY t FROM 'path'` may read. None by default: a path in SQL reads the server's disk.
    pub roots: Vec<PathBuf>,
    /// Share of bad rows that aborts a load, such as `1%`, or a number of rows. Bad rows under it go to quarantine.
    pub max_bad: String,
}

impl Default for Load {
    fn default() -> Self {
        Self { roots: Vec::new(), max_bad: "1%".to_owned() }
    }
}

/// `[storage]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// Whether every block that is read is compared with its checksum: `full`, or `off` where the disk can be trusted.
    /// It costs some hundredths of a scan; without it four of five flipped bits would give a wrong answer in silence.
    pub verify: Verify,
    /// Compression of new data files: `zstd` (default: smallest), `snappy`, `lz4` (fastest to read).
    pub compression: Compression,
    /// MiB that a data file has when the next one is begun. Smaller ones cost more requests and footers; of larger ones more is
    /// written anew when a row of theirs goes.
    pub file_mb: u64,
    /// Days that versions of tables, files of dropped ones and the rows of erased people stay on the disk after they went
    /// out of use: what `VERSION AS OF` can read, and what a restore can go back to.
    pub keep_days: f64,
    /// Seconds between a server's looks for clustered tables whose fresh rows are worth a compaction; 0 is never.
    pub compact_every_s: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            verify: Verify::default(),
            compression: Compression::default(),
            file_mb: 64,
            keep_days: 7.0,
            compact_every_s: 60,
        }
    }
}

impl Storage {
    /// Bytes that a data file has when the next one is begun.
    pub fn file_bytes(&self) -> usize {
        (self.file_mb as usize) << 20
    }

    /// How long what is out of use stays.
    pub fn keep(&self) -> Duration {
        Duration::try_from_secs_f64(self.keep_days * 86_400.0).unwrap_or(Duration::MAX)
    }
}

/// `[reports]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reports {
    /// Whether a server runs what is due. Of several servers of one warehouse one does.
    pub scheduled: bool,
    /// Scheduled runs at once; more would only make each slower.
    pub runs_max: usize,
    /// Megabytes that all runs may hold together; 0 is half of `memory.limit_mb`, so that those who ask have the other half.
    pub memory_mb: u64,
}

impl Default for Reports {
    fn default() -> Self {
        Self { scheduled: true, runs_max: 2, memory_mb: 0 }
    }
}

/// `[export]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Export {
    /// Folders below which reports may write files. None by default: a path in SQL writes to the server's disk.
    pub roots: Vec<PathBuf>,
}

/// Whether reads are compared with checksums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Every block.
    #[default]
    Full,
    /// None; `CHECK TABLE` and `clientele check` still do.
    Off,
}

/// Compression of data files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Zstandard, level 1.
    #[default]
    Zstd,
    /// Snappy.
    Snappy,
    /// LZ4, raw.
    Lz4,
}

/// `[http]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address of `/healthz` and `/metrics`; off by default, because it has no authentication.
    pub listen: Option<SocketAddr>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// What is logged, in `tracing`'s filter language. Info tells an operator's story; statements and values never appear.
    pub filter: String,
    /// `text` for people, `json` for collectors.
    pub format: LogFormat,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One readable line.
    Text,
    /// One JSON object.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter:
                "warn,clientele=info,deltalake_core::kernel::transaction=off,buoyant_kernel=off"
                    .to_owned(),
            format: LogFormat::Text,
        }
    }
}

impl Config {
    /// Settings from `file` (or `clientele.toml` in the warehouse's `folder` when there is one) and the environment.
    pub fn read(file: Option<&Path>, folder: Option<&Path>) -> Result<Self> {
        if let Some(file) = file.filter(|file| !file.exists()) {
            return Err(Error::new(
                Kind::UndefinedFile,
                format!("there is no configuration file {}", file.display()),
            ));
        }
        let in_folder = folder.map(|folder| folder.join("clientele.toml"));
        let file = file.map(Path::to_owned).or(in_folder.filter(|file| file.exists()));
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        let mut shown = "clientele.toml".to_owned();
        if let Some(file) = file {
            shown = file.display().to_string();
            figment = figment.merge(Toml::file_exact(file));
        }
        let figment = figment.merge(
            Env::prefixed("CLIENTELE_")
                .ignore(&["dir", "config", "password"])
                // CLIENTELE_TEST_PYTHON and its kin speak to the project's own tests.
                .filter(|key| !key.starts_with("test_"))
                .split("__"),
        );
        let config: Self = figment.extract().map_err(|error| {
            let problem = error.to_string();
            Error::new(Kind::Config, format!("configuration: {problem}"))
                .hint(format!("settings come from {shown} and CLIENTELE_<SECTION>__<KEY>"))
        })?;
        config.check()
    }

    fn check(self) -> Result<Self> {
        MaxBad::parse(&self.load.max_bad)?;
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return Err(Error::new(
                Kind::Config,
                "configuration: tls.cert and tls.key belong together; one is missing",
            ));
        }
        if self.tls.required && self.tls.cert.is_none() {
            return Err(Error::new(
                Kind::Config,
                "configuration: tls.required needs tls.cert and tls.key",
            ));
        }
        if !(1..=4096).contains(&self.storage.file_mb) {
            return Err(Error::new(
                Kind::InvalidParameter,
                "configuration: storage.file_mb is a number of MiB, 1 to 4096",
            ));
        }
        if self.storage.keep_days.is_nan() || self.storage.keep_days < 0.0 {
            return Err(Error::new(
                Kind::Config,
                "configuration: storage.keep_days is a number of days, 0 or more",
            ));
        }
        Ok(self)
    }

    /// Bytes that queries may hold together.
    pub fn memory_bytes(&self) -> usize {
        let configured = self.memory.limit_mb.saturating_mul(1 << 20);
        let bytes = if configured > 0 { configured } else { machine_memory_bytes() / 2 };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Bytes that runs of reports may hold together.
    pub fn reports_bytes(&self) -> usize {
        match self.reports.memory_mb {
            0 => self.memory_bytes() / 2,
            mb => usize::try_from(mb.saturating_mul(1 << 20)).unwrap_or(usize::MAX),
        }
    }

    /// Bytes of temporary files.
    pub fn spill_bytes(&self) -> u64 {
        match self.memory.spill_limit_mb {
            0 => (self.memory_bytes() as u64).saturating_mul(4),
            mb => mb.saturating_mul(1 << 20),
        }
    }

    /// Statements that compute at once.
    pub fn statements_max(&self) -> usize {
        match self.server.statements_max {
            0 => 2 * processors(),
            n => n,
        }
    }

    /// How long a statement may run; `None` is for ever.
    pub fn statement_timeout(&self) -> Option<Duration> {
        (self.server.statement_timeout_s > 0)
            .then(|| Duration::from_secs(self.server.statement_timeout_s))
    }
}

/// Processors of this machine that the process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get)
}

/// Memory of this machine, or of the container around the process when that is less.
fn machine_memory_bytes() -> u64 {
    const FALLBACK: u64 = 4 << 30;
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| {
        let kb = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
        kb.trim().parse::<u64>().ok().map(|kb| kb * 1024)
    });
    let cgroup = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let cgroup = cgroup.and_then(|text| text.trim().parse::<u64>().ok());
    total.unwrap_or(FALLBACK).min(cgroup.unwrap_or(u64::MAX))
}

/// How many bad rows a load may have before nothing of it is published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxBad {
    /// A number of rows.
    Rows(u64),
    /// A share of all rows, 0 to 1.
    Share(f64),
}

impl MaxBad {
    /// Reads `0`, `100` or `2.5%`.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::new(Kind::InvalidParameter, format!("max_bad is {text:?}"))
                .detail("a number of rows such as 100, or a share such as 1% is needed")
        };
        let text = text.trim();
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.trim().parse().map_err(|_| bad())?;
                if (0.0..=100.0).contains(&percent) {
                    Ok(Self::Share(percent / 100.0))
                } else {
                    Err(bad())
                }
            }
            None => Ok(Self::Rows(text.parse().map_err(|_| bad())?)),
        }
    }

    /// Whether `bad` of `all` rows are too many.
    pub fn is_exceeded(self, bad: u64, all: u64) -> bool {
        match self {
            Self::Rows(most) => bad > most,
            Self::Share(share) => bad as f64 > share * all as f64,
        }
    }
}

impl std::fmt::Display for MaxBad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows(rows) => write!(f, "{rows} rows"),
            Self::Share(share) => write!(f, "{}%", share * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("clientele.toml"),
            "[server]\nlisten_adress = \"127.0.0.1:1\"\n",
        )
        .unwrap();
        let error = Config::read(None, Some(dir.path())).unwrap_err();
        assert!(error.message().contains("listen_adress"), "{error}");
    }

    #[test]
    fn the_file_is_read_and_the_rest_keeps_its_default() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("clientele.toml"), "[memory]\nlimit_mb = 64\n").unwrap();
        let config = Config::read(None, Some(dir.path())).unwrap();
        assert_eq!((config.memory_bytes(), config.spill_bytes()), (64 << 20, 256 << 20));
        assert_eq!(config.server, Server::default());
    }

    #[test]
    fn one_percent_of_a_hundred_is_one() {
        let share = MaxBad::parse("1%").unwrap();
        assert!(!share.is_exceeded(1, 100) && share.is_exceeded(2, 100));
        assert!(MaxBad::parse("0").unwrap().is_exceeded(1, 1_000_000));
        assert!(MaxBad::parse("101%").is_err() && MaxBad::parse("some").is_err());
    }
}
