//! A TCP proxy between a process and its database that can interrupt the connection.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Forwards connections to a server, unless the test interrupts them. Create it within a tokio
/// runtime.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    network: watch::Sender<Network>,
    round_trips: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    way: Direction,
    /// The number of times that all connections were broken.
    breaks: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Open,
    /// Connections are closed, and new ones are rejected.
    Cut,
    /// No data is forwarded, and connections stay open.
    Silent,
}

impl Proxy {
    /// Starts a proxy to a port on loopback.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (network, _) = watch::channel(Network {
            way: Direction::Open,
            breaks: 0,
        });
        let (changes, round_trips) = (network.clone(), Arc::<AtomicU64>::default());
        let counted = Arc::clone(&round_trips);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if changes.borrow().way != Direction::Cut {
                    tokio::spawn(forward(
                        client,
                        server,
                        changes.subscribe(),
                        Arc::clone(&counted),
                    ));
                }
            }
        });
        Self {
            port,
            network,
            round_trips,
        }
    }

    /// Returns the URL of the same database through this proxy.
    pub fn url(&self, direct: &str, server: u16) -> String {
        direct.replace(&format!(":{server}/"), &format!(":{}/", self.port))
    }

    /// Returns the number of round trips. Messages that are sent together count as one.
    pub fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::Relaxed)
    }

    /// Breaks all open connections. New connections are accepted.
    pub fn break_all(&self) {
        self.network.send_modify(|network| network.breaks += 1);
    }

    /// Breaks all connections, and rejects new ones until [`restore`](Self::restore).
    pub fn disconnect(&self) {
        self.network.send_modify(|network| {
            *network = Network {
                way: Direction::Cut,
                breaks: network.breaks + 1,
            }
        });
    }

    /// Forwards no data until [`restore`](Self::restore), and breaks no connection. The outcome of
    /// what was sent is unknown.
    pub fn blackhole(&self) {
        self.network
            .send_modify(|network| network.way = Direction::Silent);
    }

    /// Forwards all data again.
    pub fn restore(&self) {
        self.network
            .send_modify(|network| network.way = Direction::Open);
    }
}

async fn forward(
    mut client: TcpStream,
    server: u16,
    mut network: watch::Receiver<Network>,
    round_trips: Arc<AtomicU64>,
) {
    let breaks = network.borrow_and_update().breaks;
    if network
        .wait_for(|network| network.way == Direction::Open || network.breaks != breaks)
        .await
        .is_ok_and(|now| now.breaks != breaks)
    {
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.split(), server.split());
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut waits = false;
    loop {
        let now = *network.borrow_and_update();
        if now.breaks != breaks {
            return;
        }
        let open = now.way == Direction::Open;
        tokio::select! {
            read = from_client.read(&mut asked), if open => {
                let Some(read @ 1..) = read.ok() else { return };
                if !std::mem::replace(&mut waits, true) {
                    round_trips.fetch_add(1, Ordering::Relaxed);
                }
                if to_server.write_all(&asked[..read]).await.is_err() {
                    return;
                }
            }
            read = from_server.read(&mut answered), if open => {
                let Some(read @ 1..) = read.ok() else { return };
                waits = false;
                if to_client.write_all(&answered[..read]).await.is_err() {
                    return;
                }
            }
            changed = network.changed() => if changed.is_err() { return },
        }
    }
}
