//! All inputs accept and reject the same rows.

use super::*;

/// Inputs of one row each, with the field that is rejected. Rows that begin with `{` are rejected
/// with the same field by every input.
const ROWS: &[(&[u8], Option<&str>)] = &[
    (br#"{"guestId":"ann"}"#, None),
    (b"\xef\xbb\xbf{\"guestId\":\"ann\"}", None),
    (
        b"\xef\xbb\xbf\xef\xbb\xbf{\"guestId\":\"ann\"}",
        Some("row"),
    ),
    (b" \t{\"guestId\":\"ann\"} \r\n", None),
    (b"{\"guestId\":\"ann\"}\r", None),
    (
        br#"{"guestId":"ann","attributes":null,"queueId":null,"idempotencyKey":null,"email":null}"#,
        None,
    ),
    (br#"{"guestId":"ann","attributes":[]}"#, None),
    (br#"{"guestId":"ann","email":"","firstName":" "}"#, None),
    (
        br#"{"guestId":"ann","attributes":["x"]}"#,
        Some("attributes"),
    ),
    (br#"{"guestId":"ann","attributes":"x"}"#, Some("attributes")),
    (
        br#"{"guestId":"ann","attributes":{"a":1}}"#,
        Some("attributes.a"),
    ),
    (
        br#"{"guestId":"ann","attributes":{"a":"1","a":"1"}}"#,
        Some("attributes.a"),
    ),
    (
        br#"{"guestId":"ann","attributes":{"exp":"1"}}"#,
        Some("attributes.exp"),
    ),
    ("{\"guestId\":\"ann\u{200b}\"}".as_bytes(), Some("guestId")),
    (br#"{"guestId":"ann\u200b"}"#, Some("guestId")),
    (br#"{"guestId":" ann"}"#, Some("guestId")),
    (br#"{"guestId":""}"#, Some("guestId")),
    (br#"{"guestId":7}"#, Some("guestId")),
    (br#"{"guestId":null}"#, Some("guestId")),
    (br#"{"guestId":"ann","queueId":""}"#, Some("queueId")),
    (br#"{"guestId":"ann","queueId":"sales"}"#, Some("queueId")),
    (
        br#"{"guestId":"ann","idempotencyKey":""}"#,
        Some("idempotencyKey"),
    ),
    (
        br#"{"guestId":"ann","email":"ann@example.org"}"#,
        Some("email"),
    ),
    (br#"{"guestId":"ann","email":"ann"}"#, Some("email")),
    (br#"{"guestId":"ann","guestId":"bob"}"#, Some("row")),
    (br#"{"guestid":"ann"}"#, Some("guestid")),
    (br"{}", Some("guestId")),
    (br#"{"guestId":"ann"} {}"#, Some("row")),
    (br#"{"guestId":"ann""#, Some("row")),
    (br#"{"guestId":"ann\ud800"}"#, Some("guestId")),
    (b"{\"guestId\":\"ann\xff\"}", Some("guestId")),
    (b"{\"guestId\":\"ann\tx\"}", Some("guestId")),
    (br#"["ann"]"#, Some("row")),
    (br#"[{"guestId":"ann"}]"#, Some("row")),
    (b"null", Some("row")),
    (b"\"ann\"", Some("row")),
    (b"\xff\xfe{\0", Some("row")),
];

/// The outcome of a row. `Err` has the rejected field.
type Outcome = Result<(), String>;

fn outcome(error: &Value) -> Outcome {
    if error.is_null() {
        Ok(())
    } else {
        Err(error["field"].as_str().unwrap_or("row").to_owned())
    }
}

fn outcome_of_file(cli: &TestCli, text: &[u8], number: usize) -> Outcome {
    let (file, out, key) = (
        format!("{number}.jsonl"),
        format!("{number}.out"),
        format!("file-{number}"),
    );
    fs::write(cli.directory.path().join(&file), text).unwrap();
    let exited = cli.run(&[
        "batch",
        &file,
        "--output",
        &out,
        "--quiet",
        "--batch-key",
        &key,
    ]);
    if exited.code == 2 {
        // The file is rejected as a whole.
        return Err("row".to_owned());
    }
    let lines = cli.read(&out);
    assert_eq!(lines.lines().count(), 1, "{}", exited.stderr);
    outcome(&serde_json::from_str::<Value>(lines.trim()).unwrap()["error"])
}

fn outcome_of_stdin(cli: &TestCli, text: &[u8], number: usize) -> Outcome {
    let key = format!("stdin-{number}");
    let mut command = cli.command(&["batch", "-", "--json", "--quiet", "--batch-key", &key]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(text);
    let exited = Exited::of(child.wait_with_output().unwrap());
    if exited.code == 2 {
        return Err("row".to_owned());
    }
    outcome(&serde_json::from_str::<Value>(exited.stdout.lines().next().unwrap()).unwrap()["error"])
}

fn outcome_of_enqueue(cli: &TestCli, database: &str, text: &[u8], number: usize) -> Outcome {
    let (file, key) = (format!("{number}.jsonl"), format!("queue-{number}"));
    fs::write(cli.directory.path().join(&file), text).unwrap();
    let mut command = cli.command(&["batch", "enqueue", &file, "--json", "--batch-key", &key]);
    let exited = Exited::of(
        command
            .env("GUESTLANE_DATABASE_URL", database)
            .output()
            .unwrap(),
    );
    match exited.code {
        0 => Ok(()),
        3 => {
            let reported = exited
                .stderr
                .lines()
                .find_map(|line| line.strip_prefix("row 1: "))
                .unwrap();
            Err(reported.split(' ').next().unwrap().to_owned())
        }
        _ => Err("row".to_owned()),
    }
}

/// Sends a request, and returns the body of the response.
fn post(service: &ServiceProcess, path: &str, kind: &str, key: &str, text: &[u8]) -> String {
    let host = service.address.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nhost: {host}\r\nauthorization: Bearer {key}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        text.len()
    )
    .unwrap();
    stream.write_all(text).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn outcome_of_request(service: &ServiceProcess, key: &str, text: &[u8]) -> Outcome {
    let answer: Value = serde_json::from_str(&post(
        service,
        "/v1/sessions",
        "application/json",
        key,
        text,
    ))
    .unwrap();
    if answer["sessionId"].is_string() && answer["code"].is_null() {
        Ok(())
    } else {
        outcome(&answer)
    }
}

fn outcome_of_batch_request(service: &ServiceProcess, key: &str, text: &[u8]) -> Outcome {
    let answer = post(
        service,
        "/v1/sessions:batch",
        "application/jsonl",
        key,
        text,
    );
    outcome(&serde_json::from_str::<Value>(answer.lines().next().unwrap()).unwrap()["error"])
}

#[test]
fn all_inputs_accept_and_reject_the_same_rows() {
    let cli = TestCli::open(&[]);
    let database = guestlane_testkit::new_schema();
    let key = cli.api_key("sessions:write");
    let service = cli.serve(&[], &[]);
    let long = format!(
        "{{\"guestId\":\"ann\",\"attributes\":{{\"a\":\"{}\"}}}}",
        "x".repeat(64 * 1024)
    );
    let deep = format!(
        "{{\"guestId\":\"ann\",\"attributes\":{}1{}}}",
        "[".repeat(40),
        "]".repeat(40)
    );
    let more = [
        (long.as_bytes(), Some("row")),
        (deep.as_bytes(), Some("row")),
    ];
    for (number, (text, field)) in ROWS.iter().copied().chain(more).enumerate() {
        let expected = field.map_or(Ok(()), |field| Err(field.to_owned()));
        let shown = String::from_utf8_lossy(text)
            .chars()
            .take(80)
            .collect::<String>();
        for (entrance, outcome) in [
            ("file", outcome_of_file(&cli, text, number)),
            ("standard input", outcome_of_stdin(&cli, text, number)),
            (
                "batch enqueue",
                outcome_of_enqueue(&cli, &database, text, number),
            ),
            (
                "POST /v1/sessions",
                outcome_of_request(&service, &key, text),
            ),
            (
                "POST /v1/sessions:batch",
                outcome_of_batch_request(&service, &key, text),
            ),
        ] {
            assert_eq!(outcome, expected, "{entrance}: {shown}");
        }
    }
}
