//! Accepts connections within their limits, and closes a connection whose peer is silent or does
//! not read.
//!
//! hyper detects the HTTP version from the first bytes, and waits without a limit while they may
//! still be HTTP/2's preface (RFC 9113, section 3.4). [`FirstByteTimeout`] bounds that wait. After
//! it, HTTP/1 has hyper's header timeout and HTTP/2 its keep-alive pings. hyper has no write
//! timeout, so this module adds one.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Extension, middleware::AddExtension};
use axum_server::accept::Accept;
use futures_util::future::BoxFuture;
use guestlane_runtime::Clock;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tower::Layer;

use crate::connections::{Admitted, Connection, Connections, MAX_STALL};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Accepts as `inner` does, within the limits of `connections`. It bounds the wait for the first
/// bytes of a connection by `limit`.
#[derive(Debug, Clone)]
pub(crate) struct LimitingAcceptor<A> {
    pub(crate) inner: A,
    pub(crate) connections: Arc<Connections>,
    pub(crate) clock: Clock,
    pub(crate) limit: Duration,
}

impl<A, S> Accept<TcpStream, S> for LimitingAcceptor<A>
where
    A: Accept<TcpStream, S>,
    A::Future: Send + 'static,
{
    type Stream = FirstByteTimeout<A::Stream>;
    type Service = AddExtension<A::Service, Arc<Connection>>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let admitted = stream
            .peer_addr()
            .ok()
            .and_then(|peer| self.connections.admit(peer));
        let Some(admitted) = admitted else {
            return Box::pin(async { Err(io::Error::other("too many connections")) });
        };
        let _ = stream.set_nodelay(true);
        let (accepting, clock, limit) = (
            self.inner.accept(stream, service),
            self.clock.clone(),
            self.limit,
        );
        Box::pin(async move {
            let connection = Arc::clone(&admitted.connection);
            let (stream, service) = tokio::select! {
                accepted = accepting => accepted?,
                () = connection.until_closed() => return Err(io::ErrorKind::ConnectionAborted.into()),
            };
            Ok((
                FirstByteTimeout::new(stream, admitted, &clock, limit),
                Extension(connection).layer(service),
            ))
        })
    }
}

/// A stream with a timeout for its first bytes, and a timeout for writes that the peer does not
/// read.
pub(crate) struct FirstByteTimeout<S> {
    stream: S,
    admitted: Admitted,
    clock: Clock,
    /// While the HTTP version is undecided: how many bytes of the HTTP/2 preface have matched, and
    /// the timer of the first bytes.
    unknown: Option<(usize, BoxFuture<'static, ()>)>,
    /// The write timer, while the peer reads nothing.
    unwritten: Option<BoxFuture<'static, ()>>,
}

impl<S> fmt::Debug for FirstByteTimeout<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstByteTimeout")
            .field("known", &self.unknown.is_none())
            .finish_non_exhaustive()
    }
}

fn timer(clock: &Clock, limit: Duration) -> BoxFuture<'static, ()> {
    let clock = clock.clone();
    Box::pin(async move { clock.sleep(limit).await })
}

impl<S> FirstByteTimeout<S> {
    fn new(stream: S, admitted: Admitted, clock: &Clock, limit: Duration) -> Self {
        let unknown = Some((0, timer(clock, limit)));
        Self {
            stream,
            admitted,
            clock: clock.clone(),
            unknown,
            unwritten: None,
        }
    }

    /// Checks that the connection may continue.
    ///
    /// # Errors
    /// `ConnectionAborted` if the connection was closed for a newer one, `TimedOut` if its peer has
    /// read nothing for longer than [`MAX_STALL`].
    fn goes_on(&self, context: &Context<'_>) -> io::Result<()> {
        let connection = &self.admitted.connection;
        connection.wake_on_close(context);
        if connection.is_closed() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        match connection.is_stalled(self.clock.monotonic()) {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(()),
        }
    }

    /// Returns the result of a write, or `TimedOut` if the peer has read nothing for [`MAX_STALL`].
    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.unwritten = None;
            return polled;
        }
        let clock = &self.clock;
        let patience = self
            .unwritten
            .get_or_insert_with(|| timer(clock, MAX_STALL));
        ready!(patience.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstByteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.goes_on(context)?;
        let this = &mut *self;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        if let Some((matched, patience)) = &mut this.unknown {
            let new = buffer.filled().get(before..).unwrap_or_default();
            let same = new
                .iter()
                .zip(PREFACE.iter().skip(*matched))
                .take_while(|(byte, wanted)| byte == wanted)
                .count();
            *matched += same;
            if same < new.len() || *matched == PREFACE.len() {
                this.unknown = None;
            } else if polled.is_pending() && patience.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstByteTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.goes_on(context)?;
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.written(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.written(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.goes_on(context)?;
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use guestlane_runtime::{ManualClock, Timestamp};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::connections::Limits;

    const LIMIT: Duration = Duration::from_secs(30);

    fn admitted(hands: &ManualClock) -> Admitted {
        let limits = Limits {
            connections: 2,
            per_address: None,
        };
        Connections::new(limits, hands.clone().into())
            .admit(([127, 0, 0, 1], 4000).into())
            .unwrap()
    }

    /// Returns whether the connection is still open after the limit, if the peer sends `said` and
    /// then nothing.
    async fn is_waited_for(said: &[u8]) -> bool {
        let hands = ManualClock::new(Timestamp::from_unix_micros(0));
        let (mut caller, stream) = tokio::io::duplex(1024);
        let mut stream =
            FirstByteTimeout::new(stream, admitted(&hands), &hands.clone().into(), LIMIT);
        caller.write_all(said).await.unwrap();
        let reading = tokio::spawn(async move { while stream.read_u8().await.is_ok() {} });
        for _ in 0..10 {
            hands.advance(LIMIT);
            tokio::task::yield_now().await;
        }
        !reading.is_finished()
    }

    #[tokio::test]
    async fn connection_of_undetermined_protocol_times_out() {
        for said in [&b""[..], b"P", b"PRI * HTTP/2", &PREFACE[..23]] {
            assert!(
                !is_waited_for(said).await,
                "{}",
                String::from_utf8_lossy(said)
            );
        }
    }

    #[tokio::test]
    async fn connection_of_known_protocol_is_exempt_from_first_byte_timeout() {
        for said in [&b"G"[..], b"POST /v1", b"PRI * HTTP/1", PREFACE] {
            assert!(
                is_waited_for(said).await,
                "{}",
                String::from_utf8_lossy(said)
            );
        }
    }

    /// Without this timeout, hyper waits forever for a peer that reads nothing.
    #[tokio::test]
    async fn stalled_write_times_out() {
        let hands = ManualClock::new(Timestamp::from_unix_micros(0));
        let (mut caller, stream) = tokio::io::duplex(16);
        let mut stream =
            FirstByteTimeout::new(stream, admitted(&hands), &hands.clone().into(), LIMIT);
        let writing = tokio::spawn(async move { stream.write_all(&[0; 64]).await });
        let wait = async || {
            hands.advance(MAX_STALL - Duration::from_secs(1));
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        };
        wait().await;
        caller.read_exact(&mut [0; 16]).await.unwrap();
        wait().await;
        assert!(
            !writing.is_finished(),
            "a slow peer that goes on reading is served"
        );
        wait().await;
        hands.advance(MAX_STALL);
        assert_eq!(
            writing.await.unwrap().unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }

    #[tokio::test]
    async fn evicted_connection_is_aborted_while_reading() {
        let hands = ManualClock::new(Timestamp::from_unix_micros(0));
        let connections = Connections::new(
            Limits {
                connections: 1,
                per_address: None,
            },
            hands.clone().into(),
        );
        let (_caller, stream) = tokio::io::duplex(16);
        let first = connections.admit(([127, 0, 0, 1], 4000).into()).unwrap();
        let mut stream = FirstByteTimeout::new(stream, first, &hands.clone().into(), LIMIT);
        let reading = tokio::spawn(async move { stream.read_u8().await });
        tokio::task::yield_now().await;
        let _second = connections.admit(([127, 0, 0, 1], 4001).into()).unwrap();
        assert_eq!(
            reading.await.unwrap().unwrap_err().kind(),
            io::ErrorKind::ConnectionAborted
        );
    }

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (caller, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn acceptor_enforces_the_connection_limit() {
        let (inner, clock) = (axum_server::accept::DefaultAcceptor::new(), Clock::system());
        let connections = Connections::new(
            Limits {
                connections: 2,
                per_address: None,
            },
            clock.clone(),
        );
        let door = LimitingAcceptor {
            inner,
            connections: Arc::clone(&connections),
            clock,
            limit: LIMIT,
        };
        let mut open = Vec::new();
        for _ in 0..2 {
            let (caller, stream) = connection().await;
            open.push((caller, door.accept(stream, ()).await.unwrap().0));
        }
        open.iter()
            .for_each(|(_, stream)| connections.authenticated(&stream.admitted.connection));
        let (_caller, stream) = connection().await;
        assert!(door.accept(stream, ()).await.is_err());
        open.pop();
        let (_caller, stream) = connection().await;
        assert!(
            door.accept(stream, ()).await.is_ok(),
            "one went, another one may come"
        );
    }
}
