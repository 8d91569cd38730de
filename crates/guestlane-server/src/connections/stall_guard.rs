//! A response body that closes the connection of a peer that takes nothing.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use guestlane_runtime::Clock;
use http_body::{Body, Frame, SizeHint};

use super::{AtEnd, Connection};

/// A response body that distinguishes waiting for its source from waiting for the peer.
///
/// When HTTP/2's flow-control window has room for one byte, hyper takes a whole frame of the body
/// and buffers it. Therefore the body yields small pieces, and each piece counts as unread until
/// hyper has written it.
pub(crate) struct Owed<B> {
    body: B,
    /// Data that the inner body has yielded and that is not passed on yet.
    rest: Bytes,
    connection: Arc<Connection>,
    clock: Clock,
    waits_for_source: bool,
    /// Runs when the body is dropped, whether or not it was sent completely.
    at_end: Option<AtEnd>,
}

/// Size of a piece, in bytes. A peer that reads less than this within
/// [`MAX_STALL`](crate::connections::MAX_STALL) counts as stalled.
const PIECE: usize = 16 * 1024;

/// Bytes that count as unread until hyper has written them, which drops them.
struct Piece {
    bytes: Bytes,
    connection: Arc<Connection>,
    clock: Clock,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.connection.took(self.clock.monotonic());
        self.connection.owe_less();
    }
}

impl<B> Owed<B> {
    pub(crate) fn new(
        body: B,
        connection: Arc<Connection>,
        clock: Clock,
        at_end: Option<AtEnd>,
    ) -> Self {
        connection.owe(clock.monotonic());
        Self {
            body,
            rest: Bytes::new(),
            connection,
            clock,
            waits_for_source: false,
            at_end,
        }
    }

    fn next_piece(&mut self) -> Frame<Bytes> {
        let bytes = self.rest.split_to(self.rest.len().min(PIECE));
        self.connection.owe(self.clock.monotonic());
        let piece = Piece {
            bytes,
            connection: Arc::clone(&self.connection),
            clock: self.clock.clone(),
        };
        Frame::data(Bytes::from_owner(piece))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Owed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.next_piece())));
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let waits = polled.is_pending();
        if waits != self.waits_for_source {
            self.waits_for_source = waits;
            match waits {
                true => self.connection.owe_less(),
                false => self.connection.owe(self.clock.monotonic()),
            }
        }
        polled.map_ok(|frame| match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                self.next_piece()
            }
            Err(other) => other,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, of_body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(of_body.lower() + rest);
        hint
    }
}

impl<B> Drop for Owed<B> {
    fn drop(&mut self) {
        if !self.waits_for_source {
            self.connection.owe_less();
        }
        if let Some(at_end) = self.at_end.take() {
            at_end();
        }
    }
}
