//! Two nodes behind a real load balancer, restarted one after the other under load;
//! `interop/README.md` lists the requirements.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use guestlane_testkit::{Server, schema_in};
use guestlane_testkit::{
    cli::TestCli,
    serve::pause,
    service_process::{ServiceProcess, send_request},
};
use nix::sys::signal::Signal;
use serde_json::json;

/// A process that is killed at the end of the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Starts HAProxy as `docs/service.md` shows: routing by readiness, kept connections, and no
/// retries.
fn haproxy(cli: &TestCli, front: u16, nodes: [u16; 2]) -> Process {
    let config = format!(
        "global\n  maxconn 1000\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n  retries 0\n\
         frontend front\n  bind 127.0.0.1:{front}\n  default_backend nodes\n\
         backend nodes\n  option httpchk GET /readyz\n  default-server inter 200ms fall 2 rise 1 check\n  server a 127.0.0.1:{}\n  server b 127.0.0.1:{}\n",
        nodes[0], nodes[1]
    );
    let file = cli.directory.path().join("haproxy.cfg");
    fs::write(&file, config).unwrap();
    let started = Command::new("/usr/sbin/haproxy")
        .arg("-f")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Process(started.unwrap_or_else(|error| panic!("haproxy (Debian's package): {error}")))
}

#[test]
fn rolling_restart_behind_load_balancer_fails_no_request() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let server = Server::start();
    let url = schema_in(&server.url());
    let settings = [
        ("GUESTLANE_DATABASE_URL", url.as_str()),
        ("GUESTLANE_DRAIN_PERIOD", "2s"),
        ("GUESTLANE_API_KEY_RATE_LIMIT", "off"),
    ];
    let made = cli
        .command(&[
            "api-keys",
            "create",
            "--name",
            "t",
            "--scope",
            "sessions:write",
        ])
        .envs(settings)
        .output()
        .unwrap();
    let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let keys = cli
        .command(&["signing-keys", "export", "--format", "jwks"])
        .envs(settings)
        .output()
        .unwrap();
    cli.admin(
        "PUT",
        "/_sim/guest-keys",
        &String::from_utf8(keys.stdout).unwrap(),
    );
    let (front, ports) = (free_port(), [free_port(), free_port()]);
    let start = |port: u16| {
        let listen = format!("127.0.0.1:{port}");
        let mut command = cli.command(&[
            "serve",
            "--json",
            "--listen",
            &listen,
            "--metrics-listen",
            "off",
        ]);
        command.envs(settings);
        ServiceProcess::start(command)
    };
    let mut nodes = ports.map(start);
    let _haproxy = haproxy(&cli, front, ports);
    let front = format!("http://127.0.0.1:{front}");
    while send_request(&front, "GET /readyz", "", "").is_none_or(|answer| answer.status != 200) {
        pause(20);
    }

    let (done, next) = (AtomicBool::new(false), AtomicU64::new(0));
    let refused = thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut refused = Vec::new();
                    while !done.load(Ordering::Relaxed) {
                        let guest = next.fetch_add(1, Ordering::Relaxed);
                        let headers = format!("authorization: Bearer {key}\r\ncontent-type: application/json\r\n");
                        let body =
                            json!({"guestId": format!("guest-{guest}"), "idempotencyKey": format!("key-{guest}")}).to_string();
                        let status = send_request(&front, "POST /v1/sessions", &headers, &body).map(|answer| answer.status);
                        if status != Some(201) {
                            refused.push((guest, status));
                        }
                    }
                    refused
                })
            })
            .collect();
        for (node, port) in nodes.iter_mut().zip(ports) {
            let before = next.load(Ordering::Relaxed);
            while next.load(Ordering::Relaxed) < before + 50 {
                pause(20);
            }
            node.signal(Signal::SIGTERM);
            assert_eq!(node.child.wait().unwrap().code(), Some(0));
            *node = start(port);
            while node
                .try_send_request("GET", "/readyz", "", "", "")
                .is_none_or(|answer| answer.status != 200)
            {
                pause(20);
            }
            // The load balancer needs time to detect the change.
            pause(500);
        }
        done.store(true, Ordering::Relaxed);
        callers
            .into_iter()
            .flat_map(|caller| caller.join().unwrap())
            .collect::<Vec<_>>()
    });
    let guests = next.load(Ordering::Relaxed);
    assert!(
        refused.is_empty(),
        "{} of {guests}: {refused:?}",
        refused.len()
    );
    cli.assert_each_guest_once(guests);
}
