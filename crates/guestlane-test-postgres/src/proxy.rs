//! A network between a process and its database that can be cut.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Forwards connections to a server, until it is told to cut them. Must be made within a tokio runtime.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    cut: Arc<AtomicBool>,
    connections: watch::Sender<u64>,
}

impl Proxy {
    /// To a port on loopback.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, _) = watch::channel(0);
        let proxy = Self { port, cut: Arc::default(), connections };
        let (cut, connections) = (Arc::clone(&proxy.cut), proxy.connections.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                if cut.load(Ordering::SeqCst) {
                    continue; // closed at once
                }
                let mut ended = connections.subscribe();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    let _ = client.set_nodelay(true);
                    let _ = server.set_nodelay(true);
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = ended.changed() => {}
                    }
                });
            }
        });
        proxy
    }

    /// The same database, by way of this.
    pub fn url(&self, direct: &str, server: u16) -> String {
        direct.replace(&format!(":{server}/"), &format!(":{}/", self.port))
    }

    /// Breaks all connections there are; new ones are let through.
    pub fn break_all(&self) {
        self.connections.send_modify(|times| *times += 1);
    }

    /// Breaks all, and lets none through until [`mend`](Self::mend).
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        self.break_all();
    }

    /// From now on connections are let through.
    pub fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}
