//! A connection pool in front of a server: PgBouncer, from the installed binary.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::{Child, Stdio},
};

use tempfile::TempDir;

use crate::{
    Server,
    postgres::server::{as_other_user, directory_in, free_port, pause},
};

/// A running connection pool, which stops when it is dropped.
#[derive(Debug)]
pub struct Pool {
    _directory: TempDir,
    port: u16,
    process: Child,
}

impl Pool {
    /// Starts a pool in front of a server. `mode` is the value of its setting `pool_mode`.
    pub fn before(server: &Server, mode: &str) -> Self {
        let directory = directory_in(&std::env::temp_dir());
        let port = free_port();
        let settings = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user=guestlane\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\n",
            server.port()
        );
        let file = directory.path().join("pgbouncer.ini");
        fs::write(&file, settings).unwrap();
        // Debian installs the program in a directory that only root has in its `PATH`.
        let mut command = as_other_user(Path::new("/usr/sbin/pgbouncer"), directory.path());
        let mut process = command
            .arg("-q")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                process.try_wait().unwrap().is_none(),
                "PgBouncer does not start"
            );
            pause();
        }
        Self {
            _directory: directory,
            port,
            process,
        }
    }

    /// Returns the URL `postgres://…/postgres` through the pool.
    pub fn url(&self) -> String {
        format!("postgres://guestlane@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
