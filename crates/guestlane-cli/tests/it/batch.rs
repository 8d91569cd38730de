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
         {\"guest\":\"x\"}\n{\"guestId\":\"cy\",\"attributes\":{\"guestToken\":\"x\"}}\n{\"guestId\":\"cy\",\"attributes\":{\"a\":\"1\",\"a\":\"2\"}}\n{\"guestId\":\"dee\"}\n",
    );
    let input = std::fs::File::open(office.directory.path().join("rows.jsonl")).unwrap();
    let output = office.command(&["batch", "-"]).stdin(input).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stdout.starts_with("7 rows: 2 opened, 0 replayed, 5 failed"), "{stdout}");
    for part in [
        "row 3: guestId is empty",
        "row 4: queueId `sales` is not a UUID",
        "row 5: row is not an object",
        "row 6: attributes.guestToken",
        "row 7: attributes.a is given twice",
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

#[test]
fn a_result_file_that_is_the_input_or_somebody_elses_is_left_alone() {
    let office = Office::open(&[]);
    let rows = "{\"guestId\":\"ann\"}\n{\"guestId\":\"bob\"}\n";
    office.write("rows.jsonl", rows);
    office.write("letter.txt", "Dear Ann,\nhow are you?\n");
    for (out, part) in
        [("rows.jsonl", "is the input itself"), ("letter.txt", "is not a result file"), ("/dev/null", "is not a regular file")]
    {
        let ended = office.run(&["batch", "rows.jsonl", "--out", out]);
        assert!(ended.code == 2 && ended.stderr.contains(part), "{out}: {}", ended.stderr);
    }
    assert_eq!((office.read("rows.jsonl").as_str(), office.read("letter.txt").lines().count()), (rows, 2));
    assert_eq!(office.run(&["batch", "rows.jsonl", "--out", "/nowhere/out.jsonl"]).code, 2);
    assert_eq!(office.state()["contacts"], 0);
}

#[test]
fn a_result_file_that_broke_off_is_continued() {
    let office = Office::open(&[]);
    office.write("guests.csv", GUESTS);
    office.run(&["batch", "guests.csv", "--out", "out.jsonl"]).ok();
    let whole = office.read("out.jsonl");
    let cut = [whole.as_bytes()[..whole.len() / 2].to_vec(), vec![0xc3]].concat(); // half of an é
    std::fs::write(office.directory.path().join("out.jsonl"), cut).unwrap();
    office.run(&["batch", "guests.csv", "--out", "out.jsonl"]).ok();
    assert_eq!(office.read("out.jsonl").lines().count(), 3);
    office.assert_each_guest_once(3);
}

#[test]
fn a_mismatch_is_told_again_on_every_run_although_its_key_is_done() {
    let office = Office::open(&[]);
    office.write("guests.csv", "guest_id,idempotency_key\nann,k\nbob,k\n");
    for _ in 0..2 {
        let (code, summary) = summary(&office, &["guests.csv", "--out", "out.jsonl", "--concurrency", "1"]);
        assert_eq!((code, &summary["failed"]), (3, &json!(1)));
    }
    office.assert_each_guest_once(1);
}

#[test]
fn a_quotation_mark_that_is_not_closed_loses_nobody_without_a_word() {
    let office = Office::open(&[]);
    office.write("guests.csv", "guest_id,attr.note\nann,x\nbob,\"half\ncy,x\ndee,x\n");
    let ended = office.run(&["batch", "guests.csv"]);
    assert_eq!(ended.code, 3, "{}", ended.stdout);
    assert!(
        ended.stderr.contains("takes the lines 3 to 5: a quotation mark is not closed; none of these lines was used"),
        "{}",
        ended.stderr
    );
    office.assert_each_guest_once(1);
}
