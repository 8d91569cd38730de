//! A network between a process and its database that can be cut.

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Forwards connections to a server, as long as it may. Must be made within a tokio runtime.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    network: watch::Sender<Network>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    way: Way,
    /// How often all connections were broken.
    breaks: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Nobody gets through.
    Cut,
    /// Nothing gets through, and nobody is told.
    Silent,
}

impl Proxy {
    /// To a port on loopback.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (network, _) = watch::channel(Network { way: Way::Open, breaks: 0 });
        let changes = network.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if changes.borrow().way != Way::Cut {
                    tokio::spawn(forward(client, server, changes.subscribe()));
                }
            }
        });
        Self { port, network }
    }

    /// The same database, by way of this.
    pub fn url(&self, direct: &str, server: u16) -> String {
        direct.replace(&format!(":{server}/"), &format!(":{}/", self.port))
    }

    /// Breaks all connections there are; new ones are let through.
    pub fn break_all(&self) {
        self.network.send_modify(|network| network.breaks += 1);
    }

    /// Breaks all, and lets none through until [`mend`](Self::mend).
    pub fn cut(&self) {
        self.network.send_modify(|network| *network = Network { way: Way::Cut, breaks: network.breaks + 1 });
    }

    /// Lets nothing through until [`mend`](Self::mend), and breaks nothing: nobody knows what became of what was sent.
    pub fn silence(&self) {
        self.network.send_modify(|network| network.way = Way::Silent);
    }

    /// From now on all is let through.
    pub fn mend(&self) {
        self.network.send_modify(|network| network.way = Way::Open);
    }
}

async fn forward(mut client: TcpStream, server: u16, mut network: watch::Receiver<Network>) {
    let breaks = network.borrow_and_update().breaks;
    if network
        .wait_for(|network| network.way == Way::Open || network.breaks != breaks)
        .await
        .is_ok_and(|now| now.breaks != breaks)
    {
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut copying = std::pin::pin!(copy_bidirectional(&mut client, &mut server));
    loop {
        let now = *network.borrow_and_update();
        if now.breaks != breaks {
            return;
        }
        tokio::select! {
            _ = &mut copying, if now.way == Way::Open => return,
            changed = network.changed() => if changed.is_err() { return },
        }
    }
}
