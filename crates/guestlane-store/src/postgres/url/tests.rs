//! Tests of `database`.

use proptest::prelude::*;

use super::*;
use crate::Database;

fn parsed(text: &str) -> Result<PostgresUrl, InvalidDatabase> {
    text.parse()
}

#[test]
fn plaintext_is_used_only_for_local_connections() {
    for plain in [
        "postgres://u@localhost/d",
        "postgres://u@127.0.0.1:5432/d?sslmode=disable",
        "postgres://u@%2Ftmp/d",
    ] {
        assert_eq!(
            parsed(plain).unwrap().login().config.get_ssl_mode(),
            SslMode::Disable,
            "{plain}"
        );
    }
    for encrypted in [
        "postgres://u@db.example/d",
        "postgres://u@127.0.0.1/d?sslmode=require",
        "postgres://u@10.0.0.1/d?sslmode=verify-full",
        "postgres://u@localhost/d?hostaddr=10.0.0.1",
    ] {
        assert_eq!(
            parsed(encrypted).unwrap().login().config.get_ssl_mode(),
            SslMode::Require,
            "{encrypted}"
        );
    }
    for refused in [
        "postgres://u@db.example/d?sslmode=disable",
        "postgres://u@db.example/d?sslmode=prefer",
        "postgres://u@localhost/d?sslmode=allow",
    ] {
        assert!(parsed(refused).is_err(), "{refused}");
    }
}

#[test]
fn url_without_host_or_database_is_rejected_and_not_shown() {
    for text in [
        "postgres://",
        "postgres:///d",
        "postgres://u:secret@h",
        "postgres://u:secret@h:port/d",
        "postgres://u:secret@h/d?secret=1",
    ] {
        let error = parsed(text).unwrap_err();
        assert!(!format!("{error:?}").contains("secret@"), "{error:?}");
    }
}

proptest! {
    /// Any text is accepted or rejected, and neither result shows the password.
    #[test]
    fn any_url_text_never_shows_the_password(
        password in "[a-z]{12}", rest in "(\\PC{0,30}|[a-z0-9.:,/?&=%+@\\[\\]-]{0,60})",
    ) {
        let text = format!("postgres://ann:{password}@{rest}");
        match text.parse::<Database>() {
            Ok(database) => {
                let shown = format!("{database} {database:?}");
                prop_assert!(!shown.contains(&password), "{}", shown);
            }
            Err(error) => {
                let shown = format!("{error} {error:?}");
                prop_assert!(!shown.contains(&password), "{}", shown);
            }
        }
    }
}

#[test]
fn database_url_shows_neither_user_nor_password() {
    let url = parsed("postgres://ann:secret@localhost:5433/engine?application_name=x%20y").unwrap();
    assert_eq!(url.to_string(), "postgres://localhost:5433/engine");
    assert_eq!(url.login().config.get_application_name(), Some("x y"));
    assert!(!format!("{url:?} {:?}", Database::Postgres(Box::new(url.clone()))).contains("ann"));
}
#[test]
fn changed_url_part_that_names_another_store_is_reported() {
    let old =
        parsed("postgres://ann:secret@localhost:5433/engine?options=-csearch_path%3Done").unwrap();
    for (new, part) in [
        (
            "postgres://bob:other@localhost:5433/engine?options=-csearch_path%3Done&connect_timeout=1",
            None,
        ),
        (
            "postgres://ann:secret@localhost:5433/engine?options=-csearch_path%3Done&sslmode=require",
            None,
        ),
        (
            "postgres://ann:secret@127.0.0.1:5433/engine?options=-csearch_path%3Done",
            Some("host"),
        ),
        (
            "postgres://ann:secret@localhost:5433/engine?options=-csearch_path%3Done&hostaddr=127.0.0.2",
            Some("host"),
        ),
        (
            "postgres://ann:secret@localhost/engine?options=-csearch_path%3Done",
            Some("port"),
        ),
        (
            "postgres://ann:secret@localhost:5433/other?options=-csearch_path%3Done",
            Some("database"),
        ),
        (
            "postgres://ann:secret@localhost:5433/engine",
            Some("value of options, which may name a schema"),
        ),
    ] {
        assert_eq!(old.other_target(&parsed(new).unwrap()), part, "{new}");
    }
}

#[test]
fn clones_of_a_url_share_login_changes() {
    let old = parsed("postgres://ann:secret@localhost/engine").unwrap();
    let new = parsed("postgres://ann:other@localhost/engine").unwrap();
    let clone = old.clone();
    assert!(!clone.has_login_of(&new));
    let before = old.take_login_of(&new);
    assert!(clone.has_login_of(&new) && !before.has_login_of(&new));
    old.take_login_of(&before);
    assert!(clone.has_login_of(&before) && !clone.has_login_of(&new));
}
