//! Attachments and signed-in guests: upload, download, authorization codes and refresh tokens.

mod sign_in;

use std::time::Duration;

use guestlane_sim::DEPLOYMENT_ID;
use serde_json::{Value, json};

use crate::{client::Client, guest::Guest};

fn file(name: &str, kind: &str, size: u64) -> Value {
    json!({"attachmentId": "a1", "fileName": name, "fileType": kind, "fileSize": size})
}

async fn put(client: &Client, answer: &Value, with_headers: bool, body: &str) -> u16 {
    let url = answer["body"]["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix(&client.sim.base_url()).unwrap();
    let listed = answer["body"]["headers"].as_object().unwrap().clone();
    let mut headers = vec![("content-type", "image/png")];
    headers.extend(
        listed
            .iter()
            .filter(|_| with_headers)
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap())),
    );
    client.send("PUT", path, &headers, body).await.0
}

#[tokio::test]
async fn attachment_is_uploaded_sent_and_downloaded() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.guest("t").await;
    let answer = guest
        .ask("onAttachment", file("photo.png", "image/png", 5))
        .await;
    assert_eq!(answer["class"], "PresignedUrlResponse");
    let attached = json!({"message": {"type": "Text", "content": [{"contentType": "Attachment", "attachment": {"id": "a1"}}]}});
    assert_eq!(
        guest.ask("onMessage", attached.clone()).await["code"],
        4010,
        "it is not there yet"
    );
    assert_eq!(
        put(&client, &answer, false, "12345").await,
        403,
        "the listed headers are needed"
    );
    assert_eq!(put(&client, &answer, true, "12345").await, 200);
    assert_eq!(guest.next().await["class"], "UploadSuccessEvent");
    let echo = guest.ask("onMessage", attached).await;
    assert_eq!(
        echo["body"]["content"][0]["attachment"]["filename"],
        "photo.png"
    );
    let answer = guest
        .ask("getAttachment", json!({"attachmentId": "a1"}))
        .await;
    assert_eq!(
        (&answer["body"]["fileSize"], &answer["body"]["headers"]),
        (&json!(5), &json!({}))
    );
    let path = answer["body"]["url"]
        .as_str()
        .unwrap()
        .strip_prefix(&client.sim.base_url())
        .unwrap();
    assert_eq!(client.send("GET", path, &[], "").await, (200, json!(12345)));
    client.clock.advance(Duration::from_secs(600));
    assert_eq!(
        client.send("GET", path, &[], "").await.0,
        403,
        "an address is good for ten minutes"
    );
    assert_eq!(
        guest
            .ask("deleteAttachment", json!({"attachmentId": "a1"}))
            .await["code"],
        400,
        "what was sent stays"
    );
}

#[tokio::test]
async fn unsent_attachment_can_be_deleted() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.guest("t").await;
    let answer = guest
        .ask("onAttachment", file("photo.png", "image/png", 5))
        .await;
    assert_eq!(put(&client, &answer, true, "12345").await, 200);
    guest.next().await;
    assert_eq!(
        guest
            .ask("deleteAttachment", json!({"attachmentId": "a1"}))
            .await["class"],
        "AttachmentDeletedResponse"
    );
    assert_eq!(
        guest
            .ask("getAttachment", json!({"attachmentId": "a1"}))
            .await["code"],
        4009
    );
    assert_eq!(put(&client, &answer, true, "12345").await, 403);
}

#[tokio::test]
async fn attachment_ids_are_scoped_to_their_session() {
    let client = Client::new(|_| {}).await;
    let (mut ann, mut bob) = (client.guest("ann").await, client.guest("bob").await);
    let anns = ann
        .ask("onAttachment", file("ann.png", "image/png", 3))
        .await;
    let bobs = bob
        .ask("onAttachment", file("bob.png", "image/png", 5))
        .await;
    assert_eq!(put(&client, &anns, true, "123").await, 200);
    assert_eq!(put(&client, &bobs, true, "12345").await, 200);
    assert_eq!(
        (&ann.next().await["class"], &bob.next().await["class"]),
        (&json!("UploadSuccessEvent"), &json!("UploadSuccessEvent"))
    );
    for (guest, size) in [(&mut ann, 3), (&mut bob, 5)] {
        assert_eq!(
            guest
                .ask("getAttachment", json!({"attachmentId": "a1"}))
                .await["body"]["fileSize"],
            size
        );
    }
}

#[tokio::test]
async fn presigned_urls_are_bound_to_one_method_and_attachment() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.guest("t").await;
    let path = |url: &Value| {
        url.as_str()
            .unwrap()
            .strip_prefix(&client.sim.base_url())
            .unwrap()
            .to_owned()
    };
    let answer = guest
        .ask("onAttachment", file("photo.png", "image/png", 5))
        .await;
    assert_eq!(put(&client, &answer, true, "12345").await, 200);
    let pushed = guest.next().await;
    assert_eq!(
        client
            .send("GET", &path(&answer["body"]["url"]), &[], "")
            .await
            .0,
        403
    );
    let mut gets = vec![path(&pushed["body"]["downloadUrl"])];
    for _ in 0..2 {
        gets.push(path(
            &guest
                .ask("getAttachment", json!({"attachmentId": "a1"}))
                .await["body"]["url"],
        ));
    }
    for get in &gets {
        assert_eq!(client.send("GET", get, &[], "").await.0, 200);
        assert_eq!(client.send("PUT", get, &[], "12345").await.0, 403);
        assert_eq!(
            client
                .send("GET", &get.replace("a1", "a2"), &[], "")
                .await
                .0,
            403,
            "the address is of one file"
        );
    }
}

#[tokio::test]
async fn attachment_requires_a_size_and_gets_an_id_if_missing() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.guest("t").await;
    let without = |field: &str| {
        let mut file = file("photo.png", "image/png", 5);
        file.as_object_mut().unwrap().remove(field);
        file
    };
    assert_eq!(
        guest.ask("onAttachment", without("fileSize")).await["code"],
        4020
    );
    let given = guest.ask("onAttachment", without("attachmentId")).await;
    assert_eq!(
        (
            &given["class"],
            given["body"]["attachmentId"].as_str().unwrap().len()
        ),
        (&json!("PresignedUrlResponse"), 36)
    );
}

#[tokio::test]
async fn attachment_is_validated_before_and_after_upload() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.guest("t").await;
    for (name, kind, size, code) in [
        ("photo", "image/png", 5, 4004),
        (&*format!("{}.png", "x".repeat(1024)), "image/png", 5, 4005),
        ("photo.exe", "image/png", 5, 4001),
        ("song.mp3", "audio/mpeg", 5, 4001),
        ("photo.png", "image/png", 0, 4102),
        ("photo.png", "image/png", 10_485_761, 4002),
    ] {
        let refused = guest.ask("onAttachment", file(name, kind, size)).await;
        assert_eq!(
            (&refused["class"], &refused["code"]),
            (&json!("GenerateUrlError"), &json!(400))
        );
        assert_eq!(refused["body"]["errorCode"], code, "{name}");
    }
    let mut as_json = file("photo", "image/png", 5);
    as_json["errorsAsJson"] = json!(true);
    assert_eq!(guest.ask("onAttachment", as_json).await["code"], 200);
    let answer = guest
        .ask("onAttachment", file("photo.png", "image/png", 5))
        .await;
    assert_eq!(put(&client, &answer, true, "123456").await, 200);
    let failed = guest.next().await;
    assert_eq!(
        (&failed["class"], &failed["body"]["errorCode"]),
        (&json!("UploadFailureEvent"), &json!(4002))
    );
}

#[tokio::test]
async fn auxiliary_frame_actions_return_their_documented_responses() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.socket("t").await;
    let limits = guest
        .ask("getConfiguration", json!({"deploymentId": DEPLOYMENT_ID}))
        .await;
    assert_eq!(
        (&limits["class"], &limits["body"]["maxCustomDataBytes"]),
        (&json!("GetConfigurationResponse"), &json!(2048))
    );
    guest.configure().await;
    assert_eq!(
        guest.ask("resumeToken", json!({})).await["class"],
        "ResumeTokenResponse"
    );
    assert_eq!(
        guest.ask("disconnectCustomer", json!({})).await["code"],
        4000
    );
}
