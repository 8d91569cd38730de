use serde_json::{Value, json};

use crate::office::{Office, SUPPORT};

const GUESTS: &str =
    "guest_id,queue_id,idempotency_key,attr.tier\nann,,,gold\nbob,5e0c0000-0000-4000-8000-000000000002,order-2,\ncy,,,basic\n";

fn summary(office: &Office, arguments: &[&str]) -> (i32, Value) {
    let ended = office.run(&[&["batch"], arguments, &["--json"]].concat());
    let mut summary = ended.json();
    for name in ["seconds", "perSecond"] {
        assert!(summary.as_object_mut().unwrap().remove(name).unwrap().is_number());
    }
    (ended.code, summary)
}

#[test]
fn a_file_run_twice_makes_nothing_twice() {
    let office = Office::open(&[]);
    office.write("guests.csv", GUESTS);
    let (code, first) = summary(&office, &["guests.csv"]);
    assert_eq!(code, 0);
    assert_eq!(first, json!({"rows": 3, "opened": 3, "replayed": 0, "failed": 0, "calls": 9, "throttled": 0}));
    office.write("guests.csv", &format!("{GUESTS}dee,,,gold\n"));
    let (code, second) = summary(&office, &["guests.csv"]);
    assert_eq!(code, 0);
    assert_eq!((&second["opened"], &second["replayed"]), (&json!(1), &json!(3)));
    office.assert_each_guest_once(4);
    assert_eq!(office.state()["crm"]["events"], 4);
    let to_support =
        office.journal("conversation").iter().filter(|entry| entry["body"].as_str().unwrap().contains(SUPPORT)).count();
    assert_eq!(to_support, 1);
}

#[test]
fn the_same_out_file_again_does_only_what_is_missing() {
    let office = Office::open(&[]);
    office.write("guests.csv", GUESTS);
    office.faults(&["conversation:500"]);
    let mut command = office.command(&["batch", "guests.csv", "--out", "out.jsonl"]);
    let output = command.env("GUESTLANE_RETRIES", "0").output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = || office.read("out.jsonl").lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
    assert!(lines().iter().all(|line| line["error"]["code"] == "platform_failing" && line["row"].is_number()), "{:?}", lines());

    office.faults(&[]);
    let (code, second) = summary(&office, &["guests.csv", "--out", "out.jsonl"]);
    assert_eq!((code, &second["opened"], &second["failed"]), (0, &json!(3), &json!(0)));
    assert!(lines().len() == 3 && lines().iter().all(|line| line["state"] == "open" && line["guestToken"].is_string()));
    let before = office.state()["calls"].clone();
    let (code, third) = summary(&office, &["guests.csv", "--out", "out.jsonl"]);
    assert_eq!((code, &third["replayed"]), (0, &json!(3)));
    assert_eq!(lines().len(), 3);
    assert_eq!(office.state()["calls"], before);
    office.assert_each_guest_once(3);
}

#[test]
fn json_lines_from_standard_input_and_bad_rows_that_do_not_stop_the_others() {
    let office = Office::open(&[]);
    office.write(
        "rows.jsonl",
        "{\"guestId\":\"ann\",\"attributes\":{\"tier\":\"gold\"}}\n\n{\"guestId\":\"\"}\n{\"guestId\":\"bob\",\"queueId\":\"sales\"}\n\
         {\"guest\":\"x\"}\n{\"guestId\":\"cy\",\"attributes\":{\"guestToken\":\"x\"}}\n{\"guestId\":\"dee\"}\n",
    );
    let input = std::fs::File::open(office.directory.path().join("rows.jsonl")).unwrap();
    let output = office.command(&["batch", "-"]).stdin(input).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stdout.starts_with("6 rows: 2 opened, 0 replayed, 4 failed"), "{stdout}");
    for part in [
        "row 3: guestId is empty",
        "row 4: queueId `sales` is not a UUID",
        "row 5: row is not an object",
        "row 6: attributes.guestToken",
    ] {
        assert!(stderr.contains(part), "{part}\n{stderr}");
    }
    office.assert_each_guest_once(2);
}

#[test]
fn a_heading_with_an_unknown_column_stops_before_anything_is_sent() {
    let office = Office::open(&[]);
    for (text, part) in [
        ("guest_id,queue\nann,x\n", "heading has the unknown column `queue`"),
        ("queue_id\nx\n", "heading has no column guest_id"),
        ("guest_id,guest_id\nx,y\n", "heading has the column `guest_id` twice"),
    ] {
        office.write("guests.csv", text);
        let ended = office.run(&["batch", "guests.csv"]);
        assert!(ended.code == 2 && ended.stderr.contains(part), "{part}\n{}", ended.stderr);
    }
    assert_eq!(office.run(&["batch", "nowhere.csv"]).code, 2);
    assert_eq!(office.state()["calls"]["token"], 0);
}
