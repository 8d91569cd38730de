//! The door: connections are counted, those that are too many are closed, and whoever is let in must say soon what they speak.
//!
//! The version of HTTP is found out from the first bytes, for as long as they may be HTTP/2's preface (RFC 9113, section 3.4), and nothing else limits
//! that; from then on HTTP/1 has a limit for headers, and HTTP/2 its pings.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum_server::accept::Accept;
use futures_util::future::BoxFuture;
use guestlane::Clock;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tracing::warn;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Accepts as `A` does, as many as there may be, and then waits for the first bytes no longer than `limit`.
#[derive(Debug, Clone)]
pub(crate) struct Door<A> {
    pub(crate) inner: A,
    pub(crate) open: Arc<AtomicI64>,
    pub(crate) most: i64,
    pub(crate) clock: Clock,
    pub(crate) limit: Duration,
}

/// A connection is counted until this is dropped.
#[derive(Debug)]
struct Open(Arc<AtomicI64>);

impl Open {
    fn new(open: &Arc<AtomicI64>) -> (Self, i64) {
        let number = open.fetch_add(1, Ordering::Relaxed) + 1;
        (Self(Arc::clone(open)), number)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<A, S> Accept<TcpStream, S> for Door<A>
where
    A: Accept<TcpStream, S>,
    A::Future: Send + 'static,
{
    type Stream = Prompt<A::Stream>;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let (open, number) = Open::new(&self.open);
        let most = self.most;
        if number > most {
            if number == most + 1 {
                warn!(most, "there are as many connections as can be: further ones are closed at once");
            }
            return Box::pin(async move {
                drop(open);
                Err(io::Error::other("too many connections"))
            });
        }
        let _ = stream.set_nodelay(true);
        let (accepting, clock, limit) = (self.inner.accept(stream, service), self.clock.clone(), self.limit);
        Box::pin(async move {
            let (stream, service) = accepting.await?;
            Ok((Prompt::new(stream, open, &clock, limit), service))
        })
    }
}

/// A stream whose first bytes are waited for, but not for ever.
pub(crate) struct Prompt<S> {
    stream: S,
    _open: Open,
    /// Until it is known what is spoken: how much of the preface has come, and the end of patience.
    unknown: Option<(usize, BoxFuture<'static, ()>)>,
}

impl<S> fmt::Debug for Prompt<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prompt").field("known", &self.unknown.is_none()).finish_non_exhaustive()
    }
}

impl<S> Prompt<S> {
    fn new(stream: S, open: Open, clock: &Clock, limit: Duration) -> Self {
        let clock = clock.clone();
        Self { stream, _open: open, unknown: Some((0, Box::pin(async move { clock.sleep(limit).await }))) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        if let Some((matched, patience)) = &mut this.unknown {
            let new = buffer.filled().get(before..).unwrap_or_default();
            let same = new.iter().zip(PREFACE.iter().skip(*matched)).take_while(|(byte, wanted)| byte == wanted).count();
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

impl<S: AsyncWrite + Unpin> AsyncWrite for Prompt<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use guestlane::{ManualClock, Timestamp};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// Whether the connection is still waited for after the limit, when its other side said that and then nothing.
    async fn is_waited_for(said: &[u8]) -> bool {
        let hands = ManualClock::new(Timestamp::from_unix_micros(0));
        let (mut caller, stream) = tokio::io::duplex(1024);
        let mut stream = Prompt::new(stream, Open::new(&Arc::default()).0, &hands.clone().into(), LIMIT);
        caller.write_all(said).await.unwrap();
        let reading = tokio::spawn(async move { while stream.read_u8().await.is_ok() {} });
        for _ in 0..10 {
            hands.advance(LIMIT);
            tokio::task::yield_now().await;
        }
        !reading.is_finished()
    }

    #[tokio::test]
    async fn who_does_not_say_what_they_speak_is_not_waited_for() {
        for said in [&b""[..], b"P", b"PRI * HTTP/2", &PREFACE[..23]] {
            assert!(!is_waited_for(said).await, "{}", String::from_utf8_lossy(said));
        }
    }

    #[tokio::test]
    async fn who_does_is_left_to_the_limits_of_their_protocol() {
        for said in [&b"G"[..], b"POST /v1", b"PRI * HTTP/1", PREFACE] {
            assert!(is_waited_for(said).await, "{}", String::from_utf8_lossy(said));
        }
    }

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (caller, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn more_connections_than_there_may_be_are_closed_at_once() {
        let (inner, clock) = (axum_server::accept::DefaultAcceptor::new(), Clock::system());
        let door = Door { inner, open: Arc::default(), most: 2, clock, limit: LIMIT };
        let mut open = Vec::new();
        for _ in 0..2 {
            let (caller, stream) = connection().await;
            open.push((caller, door.accept(stream, ()).await.unwrap()));
        }
        let (_caller, stream) = connection().await;
        assert!(door.accept(stream, ()).await.is_err());
        open.pop();
        let (_caller, stream) = connection().await;
        assert!(door.accept(stream, ()).await.is_ok(), "one went, another one may come");
    }
}
