//! What psql asks for when a person looks around.

use std::process::Command;

use super::server::Server;

fn is_installed() -> bool {
    Command::new("psql").arg("--version").output().is_ok()
}

fn psql(server: &Server, commands: &[&str]) -> (String, String) {
    let mut psql = Command::new("psql");
    psql.args(["-X", "-At", "-d", &server.url()]);
    for command in commands {
        psql.args(["-c", command]);
    }
    let output = psql.output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_can_look_around() {
    if !is_installed() {
        eprintln!("skipped: psql is not installed");
        return;
    }
    let server = Server::start();
    let setup = "CREATE TABLE shop (id BIGINT, paid NUMERIC(10, 2), at TIMESTAMPTZ); CREATE VIEW v AS SELECT id FROM shop";
    let (_, errors) = psql(&server, &[setup]);
    assert_eq!(errors, "");
    for command in [
        r"\l",
        r"\l+",
        r"\dn",
        r"\dn+",
        r"\dt",
        r"\dt+",
        r"\dv",
        r"\dv+",
        r"\di",
        r"\d",
        r"\d shop",
        r"\d+ shop",
        r"\d v",
        r"\d+ v",
        r"\du",
        r"\df rfm",
        r"\dm",
        r"\ds",
        r"\dt *.*",
    ] {
        let (_, errors) = psql(&server, &[command]);
        let is_fine = errors.is_empty() || errors.contains("Did not find any");
        assert!(is_fine, "{command}: {errors}");
    }
    let (shown, _) = psql(&server, &[r"\d shop"]);
    assert!(
        shown.contains("id|bigint|||\npaid|numeric(10,2)|||\nat|timestamp with time zone|||"),
        "{shown}"
    );
    let (shown, _) = psql(&server, &["SELECT definition FROM pg_views WHERE viewname = 'v'"]);
    assert_eq!(shown, "SELECT id FROM shop\n");
    let (shown, _) = psql(&server, &[r"\l"]);
    assert!(shown.starts_with("clientele|admin|UTF8"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_timing_and_gdesc_work_and_paths_of_the_server_do_not() {
    if !is_installed() {
        eprintln!("skipped: psql is not installed");
        return;
    }
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let (file, copied) = (dir.path().join("in.csv"), dir.path().join("out.csv"));
    std::fs::write(&file, "id,name\n1,x\n2,\n").unwrap();
    let (_, errors) = psql(
        &server,
        &[
            "CREATE TABLE t (id BIGINT, name TEXT)",
            &format!(r"\copy t from '{}' csv header", file.display()),
            &format!(r"\copy (select * from t order by id) to '{}' csv header", copied.display()),
        ],
    );
    assert_eq!(errors, "");
    assert_eq!(std::fs::read_to_string(&copied).unwrap(), "id,name\n1,x\n2,\n");
    let script = dir.path().join("s.sql");
    std::fs::write(&script, "\\timing on\nSELECT 1 AS a, 'x' AS b \\gdesc\n").unwrap();
    let output = Command::new("psql")
        .args(["-X", "-At", "-d", &server.url(), "-f"])
        .arg(&script)
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("a|bigint\nb|text"), "{shown}");
    for refused in ["COPY t TO '/etc/x'", "COPY t FROM '/etc/passwd'"] {
        let (_, errors) = psql(&server, &[r"\set VERBOSITY sqlstate", refused]);
        assert!(errors.contains("42501"), "{refused}: {errors}");
    }
}

/// A window that is a bare number is told with its unit, once a statement and only where the statement says it itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_without_a_unit_raises_a_notice() {
    if !is_installed() {
        eprintln!("skipped: psql is not installed");
        return;
    }
    let server = Server::start();
    let calls = |window: &str, time: &str| {
        let call = format!("window_funnel({window}, 'default', {time}, true)");
        format!(
            "SELECT {call}, {call} FROM (SELECT TIMESTAMP '2024-01-01' AS at, DATE '2024-01-01' AS d, 5 AS n) AS t"
        )
    };
    let notice = |unit: &str| {
        format!(
            "NOTICE:  window_funnel: the window 60 is taken for {unit}; INTERVAL '60 {unit}' says so itself\n"
        )
    };
    for (setting, time, unit) in [
        ("exact", "at", Some("seconds")),
        ("databend", "at", Some("microseconds")),
        ("doris", "d", Some("seconds")),
        ("exact", "d", None),
        ("exact", "n", None),
    ] {
        let set = format!("SET funnel_dialect = '{setting}'");
        let (_, told) =
            psql(&server, &["SET client_min_messages = notice", &set, &calls("60", time)]);
        assert_eq!(told, unit.map(notice).unwrap_or_default(), "{setting} {time}");
    }
    let (_, told) = psql(&server, &[&calls("INTERVAL '1 minute'", "at")]);
    assert_eq!(told, "");
    let (_, told) = psql(
        &server,
        &[&format!(
            "CREATE VIEW v AS {}",
            calls("60", "at").replacen(", window", " AS a, window", 1).replacen(
                ") FROM",
                ") AS b FROM",
                1
            )
        )],
    );
    assert_eq!(told, notice("seconds"));
    let (rows, told) = psql(&server, &["SELECT a FROM v"]);
    assert_eq!((rows.as_str(), told.as_str()), ("1\n", ""));
    let function =
        "CREATE FUNCTION spenders(shop TABLE) RETURNS TABLE (c TEXT) AS $$ SELECT c FROM shop $$";
    let (_, told) = psql(&server, &[function]);
    assert_eq!(told, "");
    let (listed, _) = psql(&server, &[r"\df spenders"]);
    assert!(listed.contains("spenders|TABLE(c TEXT)|shop TABLE|"), "{listed}");
    let (source, _) = psql(&server, &["SELECT prosrc FROM pg_proc WHERE proname = 'spenders'"]);
    assert_eq!(source, "SELECT c FROM shop\n");
}
