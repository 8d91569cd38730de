//! The guest WebSocket: reads frames, sends responses and pushed frames, and closes as a fault
//! requires.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{
    fault_injection::{GARBAGE, frames::PostFault},
    organization::guests::Push,
    simulation::{FrameReply, Simulation, lock},
};

/// The maximum size of a message, in bytes (the platform's own limit is not known).
const MAX_MESSAGE: usize = 128 * 1024;

/// The transport of a socket: TCP, with or without TLS.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The TCP connection, which can be reset.
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Counts a socket as open until it is dropped.
struct Open<'a> {
    simulation: &'a Simulation,
    number: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        lock(&self.simulation.organization)
            .guests
            .disconnect(self.number);
    }
}

/// What happens to the connection after a frame.
enum Next {
    Frame,
    /// With a close frame.
    Close,
    /// Without one.
    Drop,
    /// Sends no more frames until the client disconnects.
    Silence,
}

/// Serves a socket after its upgrade was accepted.
pub(crate) async fn serve<S: Wire>(stream: S, read: Vec<u8>, simulation: Arc<Simulation>) {
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let mut socket =
        WebSocketStream::from_partially_read(stream, read, Role::Server, Some(limits)).await;
    let (sender, mut pushes) = unbounded_channel();
    let now = simulation.now();
    let number = lock(&simulation.organization).guests.connect(sender, now);
    let _open = Open {
        simulation: &simulation,
        number,
    };
    loop {
        let next = tokio::select! {
            biased;
            pushed = pushes.recv() => match pushed {
                Some(Push::Frame(frame)) => send(&mut socket, frame.to_text()).await,
                Some(Push::Close) | None => Next::Close,
            },
            given = socket.next() => match given {
                Some(Ok(Message::Text(text))) => take(&mut socket, &simulation, number, text.as_str(), &mut pushes).await,
                // Frames are texts, so a binary message is an invalid frame.
                Some(Ok(Message::Binary(_))) => take(&mut socket, &simulation, number, "", &mut pushes).await,
                Some(Err(Error::Capacity(_))) => return too_big(&mut socket).await,
                Some(Ok(_)) => Next::Frame,
                Some(Err(_)) | None => Next::Drop,
            },
        };
        match next {
            Next::Frame => {}
            Next::Close => {
                let _ = socket.close(None).await;
                return;
            }
            Next::Drop => return,
            Next::Silence => return silence(&mut socket).await,
        }
    }
}

async fn take<S: Wire>(
    socket: &mut WebSocketStream<S>,
    simulation: &Simulation,
    number: u64,
    text: &str,
    pushes: &mut UnboundedReceiver<Push>,
) -> Next {
    let FrameReply {
        before,
        outcome,
        after,
        close,
    } = simulation.frame(number, text).await;
    for frame in before {
        send(socket, frame.to_text()).await;
    }
    let next = match outcome {
        PostFault::Text(text) => send(socket, text).await,
        PostFault::Later(text, wait) => {
            let _held = simulation.hold();
            simulation.sleep(wait).await;
            send(socket, text).await
        }
        PostFault::Last(text) => {
            send(socket, text).await;
            Next::Silence
        }
        PostFault::Half(text) => {
            let stream = socket.get_mut();
            let _ = stream.write_all(&half_a_frame(&text)).await;
            let _ = stream.flush().await;
            Next::Drop
        }
        PostFault::Garbage => {
            let stream = socket.get_mut();
            let _ = stream.write_all(GARBAGE).await;
            let _ = stream.flush().await;
            Next::Drop
        }
        PostFault::Dropped => Next::Drop,
        PostFault::Reset => {
            let _ = socket.get_ref().tcp().set_zero_linger();
            Next::Drop
        }
        PostFault::Hang => {
            let _held = simulation.hold();
            silence(socket).await;
            Next::Drop
        }
    };
    if !matches!(next, Next::Frame) {
        return next;
    }
    for frame in after {
        send(socket, frame.to_text()).await;
    }
    if close {
        pushes.close();
        return Next::Close;
    }
    Next::Frame
}

/// Closes with 1009. Data that is still in flight is read, because unread data would reset the
/// connection and lose the close frame.
async fn too_big<S: Wire>(socket: &mut WebSocketStream<S>) {
    let close = CloseFrame {
        code: CloseCode::Size,
        reason: "The message is too big.".into(),
    };
    let _ = socket.close(Some(close)).await;
    let _ = socket.get_mut().shutdown().await;
    silence(socket).await;
}

async fn send<S: Wire>(socket: &mut WebSocketStream<S>, text: String) -> Next {
    match socket.send(Message::text(text)).await {
        Ok(()) => Next::Frame,
        Err(_) => Next::Drop,
    }
}

/// Returns the header of a text frame and half of the announced payload (RFC 6455, section 5.2).
fn half_a_frame(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81, 127];
    bytes.extend((text.len() as u64).to_be_bytes());
    bytes.extend(&text.as_bytes()[..text.len() / 2]);
    bytes
}

/// Reads and discards all input. Even a ping gets no pong.
async fn silence<S: Wire>(socket: &mut WebSocketStream<S>) {
    let mut ignored = [0; 1024];
    while socket
        .get_mut()
        .read(&mut ignored)
        .await
        .is_ok_and(|read| read > 0)
    {}
}
