//! Nobody gets in who should not, and nothing gets out.

use std::io::Write;
use std::process::Stdio;

use super::server::{Server, code, program, run, run_well};

fn add_user(w: &str, name: &str, password: &str) {
    let mut child = program()
        .args(["user", "--dir", w, "add", name])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_users_only_the_local_admin_comes_in() {
    let server = Server::start();
    let stranger = format!("host=127.0.0.1 port={} user=mallory dbname=clientele", server.port);
    assert_eq!(code(&server.connect_to(&stranger).await.err().unwrap()), "28000");
    let lost = format!("host=127.0.0.1 port={} user=admin dbname=other", server.port);
    assert_eq!(code(&server.connect_to(&lost).await.err().unwrap()), "3D000");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_users_a_password_is_asked_for_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w");
    let path = w.display().to_string();
    add_user(&path, "ana", "correct horse");
    assert_eq!(run_well(&["user", "--dir", &path, "list"]), "ana\n");
    let users = std::fs::read_to_string(w.join("_clientele/users.json")).unwrap();
    assert!(!users.contains("correct horse"));
    let server = Server::start_in(&w, &[]);
    let url = |user: &str, password: &str| {
        format!(
            "host=127.0.0.1 port={} user={user} password='{password}' dbname=clientele",
            server.port
        )
    };
    let client = server.connect_to(&url("ana", "correct horse")).await.unwrap();
    assert_eq!(
        client.query_one("SELECT current_user", &[]).await.unwrap().get::<_, String>(0),
        "ana"
    );
    for (user, password) in [("ana", "wrong"), ("nobody", "correct horse"), ("admin", "")] {
        let refused = server.connect_to(&url(user, password)).await.err().unwrap();
        assert!(password.is_empty() || code(&refused) == "28P01", "{user}: {refused}");
    }
    run_well(&["user", "--dir", &path, "remove", "ana"]);
}

#[test]
fn a_server_that_strangers_could_reach_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    let open = run(&["serve", "--dir", &w, "--listen", "0.0.0.0:0"]);
    assert_eq!(open.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&open.stderr).contains("neither users nor TLS"));
    std::fs::write(dir.path().join("bad.pem"), "no certificate").unwrap();
    let bad = dir.path().join("bad.pem").display().to_string();
    let output = program()
        .args(["serve", "--dir", &w, "--listen", "127.0.0.1:0"])
        .env("CLIENTELE_TLS__CERT", &bad)
        .env("CLIENTELE_TLS__KEY", &bad)
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(2),
        "a certificate that fails to load never falls back to plain"
    );
}

/// psql checks the certificate as a user's would.
#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_verified_and_demanded() {
    if std::process::Command::new("psql").arg("--version").output().is_err() {
        eprintln!("skipped: psql is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::create_dir_all(&w).unwrap();
    let toml = format!("[tls]\ncert = {:?}\nkey = {:?}\nrequired = true\n", cert, key);
    std::fs::write(w.join("clientele.toml"), toml).unwrap();
    let server = Server::start_in(&w, &[]);
    let psql = |mode: &str| {
        let url = format!(
            "host=localhost hostaddr=127.0.0.1 port={} user=admin dbname=clientele sslmode={mode} sslrootcert={}",
            server.port,
            cert.display()
        );
        std::process::Command::new("psql")
            .args(["-X", "-At", "-d", &url, "-c", "SELECT 1"])
            .output()
            .unwrap()
    };
    assert_eq!(String::from_utf8(psql("verify-full").stdout).unwrap(), "1\n");
    assert_eq!(String::from_utf8(psql("require").stdout).unwrap(), "1\n");
    assert!(!psql("disable").status.success());
    let plain = server.connect_to(&server.url()).await.err().unwrap();
    assert_eq!(code(&plain), "28000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_read_below_the_roots_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let (inbox, outside) = (dir.path().join("inbox"), dir.path().join("secret.csv"));
    std::fs::create_dir(&inbox).unwrap();
    std::fs::write(inbox.join("t.csv"), "a,b\n1,\"\"\n2,\n").unwrap();
    std::fs::write(&outside, "a,b\n9,x\n").unwrap();
    std::os::unix::fs::symlink(&outside, inbox.join("link.csv")).unwrap();
    let config = dir.path().join("clientele.toml");
    std::fs::write(&config, format!("[load]\nroots = [{:?}]\n", inbox.display().to_string()))
        .unwrap();
    let flags = ["--config", config.to_str().unwrap()];
    let server = Server::start_in(&dir.path().join("w"), &flags);
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (a INT, b TEXT)").await.unwrap();
    let copy = |path: String| format!("COPY t FROM '{path}' WITH (FORMAT csv, HEADER)");
    let inside = inbox.join("t.csv").display().to_string();
    client.batch_execute(&copy(inside)).await.unwrap();
    // An empty text and a missing one are two things.
    let nulls = client.query_one("SELECT count(*), count(b) FROM t", &[]).await.unwrap();
    assert_eq!((nulls.get::<_, i64>(0), nulls.get::<_, i64>(1)), (2, 1));
    let inbox = inbox.display();
    for path in [
        outside.display().to_string(),
        format!("{inbox}/../secret.csv"),
        format!("{inbox}/link.csv"),
        "/etc/passwd".to_owned(),
    ] {
        let refused = client.batch_execute(&copy(path.clone())).await.unwrap_err();
        assert_eq!(code(&refused), "42501", "{path}");
    }
}
