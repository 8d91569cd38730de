//! TLS to a remote database prevents eavesdropping and impersonation of the server.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use guestlane_runtime::{Clock, FailPoints};
use guestlane_server::diagnosis;
use guestlane_store::Database;
use guestlane_store::{Store, StoreError};
use guestlane_testkit::{Server, schema_in};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Returns a certificate authority and a certificate and key that it signed for `name`, all in PEM.
fn certificates(name: &str) -> (String, String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    (ca.pem(), certificate.pem(), key.serialize_pem())
}

/// Starts a server that uses TLS with this certificate. Returns it with its URL without TLS.
fn server(certificate: &str, key: &str) -> (Server, String) {
    let server = Server::start();
    let schema = schema_in(&server.url());
    server.stop();
    let owner = fs::metadata(server.data()).map(|data| {
        (
            std::os::unix::fs::MetadataExt::uid(&data),
            std::os::unix::fs::MetadataExt::gid(&data),
        )
    });
    let (uid, gid) = owner.unwrap();
    for (file, text) in [("server.crt", certificate), ("server.key", key)] {
        let path = server.data().join(file);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(uid), Some(gid)).unwrap();
    }
    fs::write(server.data().join("postgresql.auto.conf"), "ssl = on\n").unwrap();
    server.restart();
    (server, schema)
}

async fn open(url: &str, home: &Path) -> Result<Store, StoreError> {
    Store::open(
        &url.parse().unwrap(),
        home,
        &Clock::system(),
        &FailPoints::default(),
    )
    .await
}

#[tokio::test]
async fn database_certificate_must_match_the_host_and_a_trusted_root() {
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (ca, certificate, key) = certificates("localhost");
    let (other_ca, ..) = certificates("localhost");
    let (server, schema) = server(&certificate, &key);
    let by_name = schema.replace("127.0.0.1", "localhost");
    let with = |url: &str, more: &str| format!("{url}&{more}");
    let (ours, theirs) = (file("ca.pem", &ca), file("other.pem", &other_ca));

    let store = open(
        &with(&by_name, &format!("sslmode=verify-full&sslrootcert={ours}")),
        home.path(),
    )
    .await
    .unwrap();
    assert_eq!(store.unfinished().await.unwrap(), 0);
    let encrypted =
        guestlane_testkit::column(&schema, "SELECT count(*) FROM pg_stat_ssl WHERE ssl");
    assert_ne!(encrypted[0], "0");

    for refused in [
        with(&by_name, &format!("sslmode=require&sslrootcert={theirs}")),
        with(&by_name, "sslmode=require"), // the system's trusted roots do not include it
        // The certificate has another name.
        with(&schema, &format!("sslmode=require&sslrootcert={ours}")),
    ] {
        let mut database = guestlane_store::Store::inspect(&refused.parse().unwrap()).await;
        let told = database.as_mut().unwrap_err().to_string();
        assert!(told.contains("the certificate cannot be trusted"), "{told}");
        for bare in [
            "UnknownIssuer",
            "NotValidForName",
            "OtherError",
            "invalid peer",
        ] {
            assert!(!told.contains(bare), "{told}");
        }
        // The error is immediate, without the wait for an unreachable database.
        let error = open(&refused, home.path()).await.unwrap_err();
        assert!(matches!(error, StoreError::Untrusted { .. }), "{error:?}");
    }
    let unknown = open(
        &with(&by_name, &format!("sslmode=require&sslrootcert={theirs}")),
        home.path(),
    )
    .await
    .unwrap_err();
    let advice = diagnosis::of(&guestlane::Error::from(unknown));
    assert!(advice.fix.contains("sslrootcert="), "{advice:?}");
    drop(server);
}

/// Connects to the database, or returns the printed error.
async fn try_inspect(url: &str) -> Result<(), String> {
    let database: Database = url.parse().map_err(|error| format!("{error:?}"))?;
    Store::inspect(&database)
        .await
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn with_authority(server: &Server, ca: &str, first_rules: &str) {
    let data = server.data();
    let rules = fs::read_to_string(data.join("pg_hba.conf")).unwrap();
    fs::write(data.join("pg_hba.conf"), format!("{first_rules}\n{rules}")).unwrap();
    fs::write(data.join("clients.crt"), ca).unwrap();
    fs::set_permissions(data.join("clients.crt"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(
        data.join("postgresql.auto.conf"),
        "ssl = on\nssl_ca_file = 'clients.crt'\npassword_encryption = 'scram-sha-256'\n",
    )
    .unwrap();
    server.stop();
    server.restart();
}

#[tokio::test]
async fn scram_channel_binding_and_client_certificate_authenticate() {
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(params, ca_key);
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        (
            params.signed_by(&key, &issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    };
    let ((certificate, key), (client, client_key)) = (signed("localhost"), signed("shown"));
    let (server, schema) = server(&certificate, &key);
    let rules = "hostssl all bound 127.0.0.1/32 scram-sha-256\nhostssl all shown 127.0.0.1/32 cert";
    with_authority(&server, &ca, rules);
    guestlane_testkit::execute(
        &schema,
        "CREATE ROLE bound SUPERUSER LOGIN PASSWORD 'p@ss/word'; CREATE ROLE shown SUPERUSER LOGIN",
    );
    let (ours, client, client_key) = (
        file("ca.pem", &ca),
        file("client.pem", &client),
        file("client.key", &client_key),
    );
    let other_key = file("other.key", &KeyPair::generate().unwrap().serialize_pem());
    let at = |user: &str, more: &str| {
        let by_name = schema
            .replace("127.0.0.1", "localhost")
            .replace("guestlane@", &format!("{user}@"));
        format!("{by_name}&sslmode=verify-full&sslrootcert={ours}{more}")
    };

    // SCRAM-SHA-256-PLUS: the server refuses a password that arrives on a different TLS channel.
    assert_eq!(
        try_inspect(&at("bound:p%40ss%2Fword", "&channel_binding=require")).await,
        Ok(())
    );
    assert_eq!(
        try_inspect(&at(
            "bound:p%40ss%2Fword",
            "&target_session_attrs=primary&gssencmode=disable&client_encoding=UTF8"
        ))
        .await,
        Ok(())
    );
    let wrong = try_inspect(&at("bound:hunter2", "&channel_binding=require"))
        .await
        .unwrap_err();
    assert!(
        wrong.contains("password authentication failed") && !wrong.contains("hunter2"),
        "{wrong}"
    );

    assert_eq!(
        try_inspect(&at(
            "shown",
            &format!("&sslcert={client}&sslkey={client_key}")
        ))
        .await,
        Ok(())
    );
    assert!(
        try_inspect(&at("shown", "")).await.is_err(),
        "no certificate is shown"
    );
    let mismatched = try_inspect(&at(
        "shown",
        &format!("&sslcert={client}&sslkey={other_key}"),
    ))
    .await
    .unwrap_err();
    assert!(
        mismatched.contains("the private key does not belong to the certificate"),
        "{mismatched}"
    );
    drop(server);
}

/// `openssl req -x509` creates a certificate that is both a certificate authority and a server
/// certificate.
#[tokio::test]
async fn self_signed_ca_certificate_is_trusted_as_sslrootcert() {
    let home = tempfile::tempdir().unwrap();
    let own_authority = || {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let ((certificate, key), (another, _)) = (own_authority(), own_authority());
    let (server, schema) = server(&certificate, &key);
    let by_name = schema.replace("127.0.0.1", "localhost");
    for (name, pem) in [("own.pem", &certificate), ("another.pem", &another)] {
        fs::write(home.path().join(name), pem).unwrap();
    }
    let with = |url: &str, file: &str| {
        format!(
            "{url}&sslmode=verify-full&sslrootcert={}",
            home.path().join(file).display()
        )
    };
    assert_eq!(try_inspect(&with(&by_name, "own.pem")).await, Ok(()));
    let told = try_inspect(&with(&by_name, "another.pem"))
        .await
        .unwrap_err();
    assert!(told.contains("the certificate cannot be trusted"), "{told}");
    let of_another_name = try_inspect(&with(&schema, "own.pem")).await.unwrap_err();
    assert!(
        of_another_name.contains("it is for localhost, and not for 127.0.0.1"),
        "{of_another_name}"
    );
    drop(server);
}
