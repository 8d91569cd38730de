//! Nobody listens on the way to a database on another machine, and nobody pretends to be it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use guestlane::{
    Clock, Seams,
    store::{Store, StoreError},
};
use guestlane_test_postgres::{Server, schema_in};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// A certificate authority, and what it signed for that name: all in PEM.
fn certificates(name: &str) -> (String, String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (ca.pem(), certificate.pem(), key.serialize_pem())
}

/// A server that speaks TLS with that certificate, and its URL in plain.
fn server(certificate: &str, key: &str) -> (Server, String) {
    let server = Server::start();
    let schema = schema_in(&server.url());
    server.stop();
    let owner = fs::metadata(server.data())
        .map(|data| (std::os::unix::fs::MetadataExt::uid(&data), std::os::unix::fs::MetadataExt::gid(&data)));
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
    Store::open(&url.parse().unwrap(), home, &Clock::system(), &Seams::default()).await
}

#[tokio::test]
async fn only_a_certificate_of_that_host_by_an_authority_that_is_believed_will_do() {
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

    let store = open(&with(&by_name, &format!("sslmode=verify-full&sslrootcert={ours}")), home.path()).await.unwrap();
    assert_eq!(store.unfinished().await.unwrap(), 0);
    let encrypted = guestlane_test_postgres::column(&schema, "SELECT count(*) FROM pg_stat_ssl WHERE ssl");
    assert_ne!(encrypted[0], "0");

    for refused in [
        with(&by_name, &format!("sslmode=require&sslrootcert={theirs}")),
        with(&by_name, "sslmode=require"), // the system does not believe it
        with(&schema, &format!("sslmode=require&sslrootcert={ours}")), // it is of another name
    ] {
        let mut database = guestlane::store::Store::glance(&refused.parse().unwrap()).await;
        let told = database.as_mut().unwrap_err().to_string();
        assert!(told.contains("certificate") || told.contains("certificat"), "{told}");
        // At once, and not after the time for which a database that is away is waited for.
        let error = open(&refused, home.path()).await.unwrap_err();
        assert!(matches!(error, StoreError::Untrusted { .. }), "{error:?}");
    }
    let unknown = open(&with(&by_name, &format!("sslmode=require&sslrootcert={theirs}")), home.path()).await.unwrap_err();
    let advice = guestlane::Error::from(unknown).advice();
    assert!(advice.fix.contains("sslrootcert="), "{advice:?}");
    drop(server);
}
