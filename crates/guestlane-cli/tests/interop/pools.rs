//! PgBouncer between guestlane and PostgreSQL.

use guestlane_testkit::{
    Pool, Server,
    cli::{Exited, TestCli},
};

/// Behind a transaction pool, an in-doubt commit could not be resolved.
#[test]
fn session_pooling_is_accepted_and_transaction_pooling_is_refused() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let server = Server::start();
    let run = |pool: &Pool, arguments: &[&str]| {
        Exited::of(
            cli.command(arguments)
                .env("GUESTLANE_DATABASE_URL", pool.url())
                .output()
                .unwrap(),
        )
    };
    let transactions = Pool::before(&server, "transaction");
    for arguments in [
        &["create", "--guest", "ann"] as &[&str],
        &["sessions", "resume"],
        &["doctor"],
    ] {
        let refused = run(&transactions, arguments);
        assert_ne!(
            refused.code, 0,
            "{arguments:?}: {}{}",
            refused.stdout, refused.stderr
        );
        assert!(
            format!("{}{}", refused.stdout, refused.stderr).contains("pool_mode = session"),
            "{arguments:?}: {}{}",
            refused.stdout,
            refused.stderr
        );
    }
    assert_eq!(cli.state()["guests"], 0);
    cli.write(
        "rows.csv",
        &format!(
            "guest_id\n{}",
            (0..100)
                .map(|row| format!("guest-{row}\n"))
                .collect::<String>()
        ),
    );
    let sessions = Pool::before(&server, "session");
    run(&sessions, &["batch", "rows.csv", "--rate-limit", "off"]).ok();
    run(&sessions, &["batch", "rows.csv", "--rate-limit", "off"]).ok();
    cli.assert_each_guest_once(100);
}

/// A connection pool that does not support the startup parameter `options` refuses every
/// connection. The command reports that at once, with the cause.
#[test]
fn startup_parameter_refused_by_pool_is_reported_with_fix() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let server = Server::start();
    let pool = Pool::before(&server, "session");
    let url = format!("{}?options=-csearch_path%3Dpublic", pool.url());
    let listed = cli
        .command(&["sessions", "list"])
        .env("GUESTLANE_DATABASE_URL", &url)
        .output();
    let refused = Exited::of(listed.unwrap());
    assert!(
        refused.code == 1 && refused.stderr.contains("ignore_startup_parameters"),
        "{}",
        refused.stderr
    );
    assert!(
        !refused.stderr.contains("an outage began"),
        "{}",
        refused.stderr
    );
}
