//! A server that lives as long as a test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

/// The program under test.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clientele"));
    // Settings of the one who runs the tests must not reach the program.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CLIENTELE_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

/// Runs the program and demands that it succeeds; gives its standard output.
pub(crate) fn run_well(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The rows that a statement gives without a server, each as its values.
pub(crate) fn csv(dir: &str, sql: &str) -> Vec<Vec<String>> {
    let text = run_well(&["sql", "--dir", dir, "--format", "csv", sql]);
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// The one number that a statement gives.
pub(crate) fn number(dir: &str, sql: &str) -> i64 {
    csv(dir, sql)[0][0].parse().unwrap()
}

/// A Python that has a package: readers and decoders that are not ours.
pub(crate) fn python_with(package: &str) -> Option<String> {
    let named = std::env::var("CLIENTELE_TEST_PYTHON").ok();
    let candidates = named.into_iter().chain(["python3".to_owned()]);
    let has_it = |python: &String| {
        let probe = Command::new(python).args(["-c", &format!("import {package}")]).output();
        probe.is_ok_and(|output| output.status.success())
    };
    let found = { candidates }.find(has_it);
    if found.is_none() {
        eprintln!(
            "skipped: what needs {package}; CLIENTELE_TEST_PYTHON names a Python that has it"
        );
    }
    found
}

/// A running server and its warehouse.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,

    _own_dir: Option<tempfile::TempDir>,
}

impl Server {
    /// A server over a new, empty warehouse.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w");
        let mut server = Self::start_in(&path, &[]);
        server._own_dir = Some(dir);
        server
    }

    /// A server over the warehouse in `dir`, with more flags.
    pub(crate) fn start_in(dir: &Path, flags: &[&str]) -> Self {
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0", "--dir"]).arg(dir).args(flags);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = Vec::new();
        let port = loop {
            let Some(Ok(line)) = lines.next() else { panic!("the server did not start: {seen:?}") };
            if let Some((_, address)) = line.split_once(" at 127.0.0.1:") {
                break address.trim().parse().unwrap();
            }
            seen.push(line);
        };
        // The rest of what it says must be read, or it would wait for us one day.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port, _own_dir: None }
    }

    /// How to connect.
    pub(crate) fn url(&self) -> String {
        format!("host=127.0.0.1 port={} user=admin dbname=clientele", self.port)
    }

    /// A connection.
    pub(crate) async fn connect(&self) -> Client {
        self.connect_to(&self.url()).await.unwrap()
    }

    /// A connection with other parameters.
    pub(crate) async fn connect_to(&self, url: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Resident memory in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process has ended by itself; `None` when it has not within ten seconds.
    pub(crate) fn wait(&mut self) -> Option<std::process::ExitStatus> {
        for _ in 0..200 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process by its id.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// The five-letter code of an error.
pub(crate) fn code(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("none", tokio_postgres::error::SqlState::code)
}

/// A small disk of its own, where one can be had.
pub(crate) struct SmallDisk(pub(crate) std::path::PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: &std::path::Path, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(at.to_owned()));
        }
        eprintln!("skipped: a full disk; mounting a small one needs to be root");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
