//! Prints what belongs into a bug report.
//!
//! `cargo run --example report [--json]`

fn main() -> onepen::Result<()> {
    let db = onepen::Database::open_in_memory()?;
    db.execute("CREATE TABLE a(n)", ())?;
    db.execute("INSERT INTO a VALUES (1)", ())?;
    db.query_row("SELECT n FROM a", (), |_| Ok(()))?;
    let report = db.report();
    if std::env::args().any(|argument| argument == "--json") {
        println!("{}", report.to_json());
    } else {
        println!("{report}");
    }
    Ok(())
}
