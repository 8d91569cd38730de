//! A guest WebSocket client that sends frames without validating them.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use guestlane_sim::DEPLOYMENT_ID;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        http::{HeaderValue, StatusCode},
    },
};

use crate::client::Client;

pub(crate) struct Guest {
    socket: WebSocketStream<TcpStream>,
    pub(crate) token: String,
}

impl Client {
    /// Opens a WebSocket without configuring it.
    pub(crate) async fn socket(&self, token: &str) -> Guest {
        self.try_socket(token, &format!("/v1?deploymentId={DEPLOYMENT_ID}"), None)
            .await
            .unwrap()
    }

    pub(crate) async fn try_socket(
        &self,
        token: &str,
        path: &str,
        origin: Option<&str>,
    ) -> Result<Guest, StatusCode> {
        let base = self.sim.base_url();
        let stream = TcpStream::connect(base.strip_prefix("http://").unwrap())
            .await
            .unwrap();
        let mut request = format!("{}{path}", base.replacen("http", "ws", 1))
            .into_client_request()
            .unwrap();
        if let Some(origin) = origin {
            request
                .headers_mut()
                .insert("origin", HeaderValue::from_str(origin).unwrap());
        }
        match client_async(request, stream).await {
            Ok((socket, _)) => Ok(Guest {
                socket,
                token: token.to_owned(),
            }),
            Err(Error::Http(response)) => Err(response.status()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Opens a WebSocket, or returns `None` if the upgrade fails.
    pub(crate) async fn try_open(&self, token: &str) -> Option<Guest> {
        let base = self.sim.base_url();
        let stream = TcpStream::connect(base.strip_prefix("http://").unwrap())
            .await
            .unwrap();
        let url = format!(
            "{}/v1?deploymentId={DEPLOYMENT_ID}",
            base.replacen("http", "ws", 1)
        );
        Some(Guest {
            socket: client_async(url, stream).await.ok()?.0,
            token: token.to_owned(),
        })
    }

    /// Opens a WebSocket and configures it.
    pub(crate) async fn guest(&self, token: &str) -> Guest {
        let mut guest = self.socket(token).await;
        assert_eq!(guest.configure().await["code"], 200);
        guest
    }
}

impl Guest {
    /// Sends a text message unchanged.
    pub(crate) async fn send_text(&mut self, text: String) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Sends a binary message unchanged.
    pub(crate) async fn send_binary(&mut self, bytes: Vec<u8>) {
        self.socket.send(Message::binary(bytes)).await.unwrap();
    }

    /// Returns the close code of the connection.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// Sends a frame with the token.
    pub(crate) async fn send(&mut self, action: &str, mut fields: Value) {
        fields["action"] = json!(action);
        fields["token"] = json!(self.token);
        fields["tracingId"] = json!("t");
        self.send_text(fields.to_string()).await;
    }

    /// Returns the next text message, or `None` when the connection ends in any way.
    pub(crate) async fn next_text(&mut self) -> Option<String> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test that waits for ever tells nothing"
        )]
        let next = tokio::time::timeout(Duration::from_secs(5), async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => return Some(text.to_string()),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                    Some(Ok(_)) => {}
                }
            }
        });
        next.await.expect("nothing came")
    }

    pub(crate) async fn next(&mut self) -> Value {
        let text = self.next_text().await.expect("the connection ended");
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    }

    /// Sends a frame and returns the next one.
    pub(crate) async fn ask(&mut self, action: &str, fields: Value) -> Value {
        self.send(action, fields).await;
        self.next().await
    }

    pub(crate) async fn configure(&mut self) -> Value {
        self.ask("configureSession", json!({"deploymentId": DEPLOYMENT_ID}))
            .await
    }

    pub(crate) async fn text(&mut self, text: &str) -> Value {
        self.ask(
            "onMessage",
            json!({"message": {"type": "Text", "text": text}}),
        )
        .await
    }

    pub(crate) async fn text_with(&mut self, attributes: Value) -> Value {
        let channel = json!({"metadata": {"customAttributes": attributes}});
        self.ask(
            "onMessage",
            json!({"message": {"type": "Text", "text": "Hello", "channel": channel}}),
        )
        .await
    }

    pub(crate) async fn presence(&mut self, kind: &str) -> Value {
        let events = json!([{"eventType": "Presence", "presence": {"type": kind}}]);
        self.ask(
            "onMessage",
            json!({"message": {"type": "Event", "events": events}}),
        )
        .await
    }

    pub(crate) async fn disconnect(&mut self) {
        let _ = self.socket.get_mut().shutdown().await;
    }
}
