//! A private PostgreSQL server, started from the installed binaries.

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Gid, Pid, Uid, User},
};
use tempfile::TempDir;

/// A server with its own directory and port.
#[derive(Debug)]
pub struct Server {
    binaries: PathBuf,
    directory: TempDir,
    port: u16,
    options: Mutex<Vec<String>>,
    keeper: Mutex<Option<Child>>,
}

impl Server {
    /// Creates and starts a server. It is fast because it syncs nothing, so its data does not
    /// survive a machine failure.
    pub fn start() -> Self {
        Self::start_with(&["fsync=off", "full_page_writes=off"])
    }

    /// Creates and starts a server with settings in the syntax of `postgresql.conf`.
    pub fn start_with(options: &[&str]) -> Self {
        let place = if Path::new("/dev/shm").is_dir() {
            PathBuf::from("/dev/shm")
        } else {
            std::env::temp_dir()
        };
        Self::start_in(&place, options)
    }

    /// Creates and starts a server with its data below `place`, so that the test chooses the disk.
    pub fn start_in(place: &Path, options: &[&str]) -> Self {
        let binaries = binaries();
        let directory = directory_in(place);
        let data = directory.path().join("data");
        let mut initdb = as_other_user(&binaries.join("initdb"), directory.path());
        initdb
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=guestlane",
                "--encoding=UTF8",
                "--locale=C",
                "-D",
            ])
            .arg(&data);
        let made = initdb.stdout(Stdio::null()).output().unwrap();
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let server = Self {
            binaries,
            directory,
            port: free_port(),
            options: Mutex::new(options),
            keeper: Mutex::new(None),
        };
        server.restart();
        server
    }

    /// Creates a synchronous standby, which has every commit that this server acknowledges.
    /// Restarts this server once, which disconnects its clients.
    pub fn standby(&self) -> Self {
        self.stop();
        let place = self.directory.path().parent().unwrap_or(Path::new("/tmp"));
        let directory = directory_in(place);
        let mut copy = as_other_user(Path::new("cp"), directory.path());
        assert!(
            copy.arg("-r")
                .arg(self.data())
                .arg("data")
                .status()
                .unwrap()
                .success()
        );
        let mut signal = as_other_user(Path::new("touch"), directory.path());
        assert!(
            signal
                .arg("data/standby.signal")
                .status()
                .unwrap()
                .success()
        );
        self.options
            .lock()
            .unwrap()
            .push("synchronous_standby_names=*".to_owned());
        self.restart();
        let primary = format!(
            "primary_conninfo=host=127.0.0.1 port={} user=guestlane",
            self.port
        );
        let (binaries, options) = (self.binaries.clone(), Mutex::new(vec![primary]));
        let standby = Self {
            binaries,
            directory,
            port: free_port(),
            options,
            keeper: Mutex::new(None),
        };
        standby.restart();
        standby
    }

    /// Stops the server as a power failure does, without an orderly shutdown.
    pub fn kill(&self) {
        kill(
            Pid::from_raw(self.pid().try_into().unwrap()),
            Signal::SIGQUIT,
        )
        .unwrap();
        self.stop();
    }

    /// Returns the URL `postgres://…/postgres`, over TCP on loopback.
    pub fn url(&self) -> String {
        format!("postgres://guestlane@127.0.0.1:{}/postgres", self.port)
    }

    /// Returns the port of the server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the data directory, which also takes certificates.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Returns the ID of the server's first process, the parent of all its other processes.
    pub fn pid(&self) -> u32 {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        file.lines()
            .next()
            .and_then(|pid| pid.trim().parse().ok())
            .unwrap()
    }

    /// Starts the server after [`stop`](Self::stop).
    pub fn restart(&self) {
        let mut keeper = self.keeper.lock().unwrap();
        assert!(keeper.is_none(), "it runs");
        // When the test process ends for whatever reason, its end of the pipe closes and the server
        // stops. A server in a `static` is never dropped. Unless `stop` wrote a line before, the
        // script removes its directory.
        let script = "directory=$1; shift; \"$@\" & server=$!; said=$(cat); kill -INT $server; wait $server; \
             [ -n \"$said\" ] || rm -rf \"$directory\"";
        let mut command = as_other_user(Path::new("/bin/sh"), self.directory.path());
        command
            .args(["-c", script, "keeper"])
            .arg(self.directory.path())
            .arg(self.binaries.join("postgres"))
            .arg("-D")
            .arg(self.data());
        let (port, socket) = (
            self.port.to_string(),
            self.directory.path().display().to_string(),
        );
        command.args([
            "-p",
            &port,
            "-k",
            &socket,
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "max_connections=200",
        ]);
        for option in self.options.lock().unwrap().iter() {
            command.args(["-c", option]);
        }
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))
            .unwrap();
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        *keeper = Some(child);
        drop(keeper);
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() && is_ready(&self.url()) {
                return;
            }
            pause();
        }
        panic!(
            "PostgreSQL does not start: {}",
            fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
        );
    }

    /// Stops the server as a machine failure does: all clients are disconnected.
    pub fn stop(&self) {
        if let Some(mut keeper) = self.keeper.lock().unwrap().take() {
            let _ = keeper
                .stdin
                .take()
                .map(|mut pipe| pipe.write_all(b"stop\n"));
            keeper.wait().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Creates a temporary directory that belongs to the user that runs the server.
pub(crate) fn directory_in(place: &Path) -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix("guestlane-postgres-")
        .tempdir_in(place)
        .unwrap();
    if let Some((uid, gid)) = other_user() {
        chown(directory.path(), Some(uid.as_raw()), Some(gid.as_raw())).unwrap();
    }
    directory
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn is_ready(url: &str) -> bool {
    super::on_a_thread(|| async {
        tokio_postgres::connect(url, tokio_postgres::NoTls)
            .await
            .is_ok()
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "a server on this machine is waited for, and it goes by no clock of ours"
)]
pub(crate) fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(50));
}

/// Returns another user if this one is root, because PostgreSQL refuses to run as root.
fn other_user() -> Option<(Uid, Gid)> {
    if !Uid::effective().is_root() {
        return None;
    }
    let user = ["postgres", "nobody"]
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten());
    user.map(|user| (user.uid, user.gid))
}

pub(crate) fn as_other_user(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory);
    if let Some((uid, gid)) = other_user() {
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    command
}

/// Returns the directory of `initdb` and `postgres`: from `PATH`, or from the packages' directories
/// with the newest version first.
fn binaries() -> PathBuf {
    find().unwrap_or_else(|| {
        panic!(
            "PostgreSQL is not installed: run the tests with ci/test, which installs it, or set \
             GUESTLANE_TEST_POSTGRES_URL to the URL of a server"
        )
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the caller can put another version than Debian's there"
)]
fn path() -> Option<std::ffi::OsString> {
    std::env::var_os("PATH")
}

fn find() -> Option<PathBuf> {
    let has_all = |directory: &PathBuf| {
        ["initdb", "postgres"]
            .iter()
            .all(|name| directory.join(name).is_file())
    };
    let mut debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    debian.sort_by_key(|path| {
        path.to_string_lossy()
            .split('/')
            .find_map(|part| part.parse::<u32>().ok())
    });
    let first: Vec<PathBuf> = path()
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    first
        .into_iter()
        .chain(debian.into_iter().rev())
        .chain(["/usr/local/pgsql/bin".into()])
        .find(has_all)
}
