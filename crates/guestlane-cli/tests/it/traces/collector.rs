//! The collector that the tests run, and what it received.

use super::*;

/// A trace collector that keeps the request bodies.
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&bodies);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                thread::spawn(move || {
                    let mut read = Vec::new();
                    let mut chunk = [0; 16 * 1024];
                    while let Ok(length) = stream.read(&mut chunk) {
                        if length == 0 {
                            return;
                        }
                        read.extend_from_slice(&chunk[..length]);
                        let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n")
                        else {
                            continue;
                        };
                        let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
                        let length: usize = head
                            .lines()
                            .find_map(|line| line.strip_prefix("content-length: "))
                            .unwrap()
                            .trim()
                            .parse()
                            .unwrap();
                        if read.len() >= end + 4 + length {
                            kept.lock()
                                .unwrap()
                                .push(read[end + 4..end + 4 + length].to_vec());
                            read.drain(..end + 4 + length);
                            stream
                                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                                .unwrap();
                        }
                    }
                });
            }
        });
        Self { endpoint, bodies }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bodies.lock().unwrap().concat()
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().unwrap();
        let requests = bodies
            .iter()
            .map(|body| ExportTraceServiceRequest::decode(body.as_slice()).unwrap());
        let scopes = requests
            .flat_map(|request| request.resource_spans)
            .flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }
}

pub(super) fn attribute(span: &Span, name: &str) -> Option<String> {
    let value = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == name)?
        .value
        .clone()?;
    match value {
        AnyValue {
            value: Some(Value::StringValue(text)),
        } => Some(text),
        AnyValue {
            value: Some(Value::IntValue(number)),
        } => Some(number.to_string()),
        _ => None,
    }
}
