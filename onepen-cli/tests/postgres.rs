//! PostgreSQL beside the ways of SQLite. Needs a server: the environment
//! variable `ONEPEN_TEST_POSTGRES` names one (its URL); without it the test
//! says that it was skipped.

mod common;

use std::io::Write;

use common::{json, onepen, quick};

const VARIABLE: &str = "ONEPEN_TEST_POSTGRES";

#[test]
fn postgres_runs_every_workload_says_that_it_is_behind_a_socket_and_leaves_no_trace() {
    let Ok(url) = std::env::var(VARIABLE) else {
        // Not through `eprintln!`, which the test harness would swallow.
        let said = format!("SKIPPED: PostgreSQL was not compared, {VARIABLE} is not set\n");
        let _ = std::io::stderr().write_all(said.as_bytes());
        return;
    };
    for workload in ["insert", "bank", "tpcb", "ycsb-a", "ycsb-f"] {
        for durability in ["full", "normal"] {
            let report = json(&quick(&[
                "--postgres",
                &url,
                "--ways",
                "postgres,mutex",
                "--workload",
                workload,
                "--readers",
                "1",
                "--processes",
                "2",
                "--durability",
                durability,
            ]));
            assert!(report["postgres"].is_string(), "{report}");
            let way = &report["points"][0]["ways"][0];
            assert_eq!(way["way"], "postgres");
            assert!(way["note"].as_str().unwrap().contains("socket"), "{way}");
            assert_eq!(way["could_not_run"], serde_json::Value::Null, "{way}");
            assert!(way["committed"].as_u64().unwrap() > 0, "{way}");
            assert_eq!(way["lost_updates"], 0, "{way}");
            assert_eq!(way["violations"], serde_json::json!([]), "{way}");
            assert_eq!(way["fsyncs"], serde_json::Value::Null, "{way}");
        }
    }
    let ran = onepen(&[
        "bench",
        "--postgres",
        &url,
        "--ways",
        "postgres",
        "--rounds",
        "1",
        "-d",
        "50ms",
        "-t",
        "2",
    ]);
    assert!(ran.stdout.contains("postgres (socket)"), "{}", ran.stdout);
    let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
    let left = client
        .query(
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'onepen_bench_%'",
            &[],
        )
        .unwrap();
    assert!(left.is_empty());
}
